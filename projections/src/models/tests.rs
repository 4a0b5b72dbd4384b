//! What must hold over all models together.

use serde_json::json;

use crate::{
    Cost,
    testing::{ALICE, World, rooms::Room},
};

/// What a message costs in a room with so many local members, after `members` of them joined.
fn cost_of_a_message(members: usize) -> Cost {
    let mut world = World::new();
    let mut room = Room::created(&mut world, "!r:example.org", ALICE);
    let users: Vec<_> = (0..members).map(|n| format!("@user{n}:example.org")).collect();
    for users in users.chunks(1000) {
        let joins: Vec<_> = users.iter().flat_map(|user| room.member(&format!("${user}"), user, "join")).collect();
        world.fold(joins);
    }
    world.fold(room.message("$before", ALICE, "Hi"));
    let reply = json!({"rel_type": "m.thread", "event_id": "$before"});
    world.fold(room.relating("$m", ALICE, reply, json!({"body": "Ho", "msgtype": "m.text"}))).cost
}

#[test]
fn a_message_costs_the_same_in_a_room_of_any_size() {
    let small = cost_of_a_message(10);
    assert_eq!(cost_of_a_message(10_000), small);
    assert!(small.writes < 40, "{small:?}");
}
