use schemas::{
    Blob,
    facts::{EventBodies, Placement, StagedEvents, StateSetPart},
};
use serde_json::json;

use super::*;
use crate::{
    models::staging::checksum,
    testing::{
        ALICE, BOB, World,
        rooms::{Event, Room, change},
    },
};

fn start() -> (World, Room) {
    let mut world = World::new();
    let room = Room::created(&mut world, "!r:example.org", ALICE);
    (world, room)
}

fn topic(room: &mut Room, id: &str) -> Event {
    room.state(id, ALICE, "m.room.topic", "", json!({"topic": id}))
}

/// Ids of a state's events, in order of their places.
fn ids(world: &World, state: &State) -> Vec<String> {
    let view = world.view();
    let entries = all(&view, state).collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(entries.len(), state.len() as usize);
    entries.iter().map(|entry| events::head(&view, entry.event).unwrap().unwrap().id).collect()
}

fn current_ids(world: &World) -> Vec<String> {
    ids(world, &current(&world.view(), world.room("!r:example.org")).unwrap())
}

fn before_ids(world: &World, id: &str) -> Vec<String> {
    ids(world, &before(&world.view(), world.event(id)).unwrap().unwrap())
}

fn after_ids(world: &World, id: &str) -> Vec<String> {
    ids(world, &after(&world.view(), world.event(id)).unwrap().unwrap())
}

#[test]
fn state_is_known_before_and_after_every_event_and_as_of_every_record() {
    let (mut world, mut room) = start();
    let made = world.view().lsn();
    let first = topic(&mut room, "$t1");
    world.fold(first);
    let set = world.view().lsn();
    world.fold(room.message("$m", ALICE, "Hi"));
    let second = topic(&mut room, "$t2");
    world.fold(second);

    assert_eq!(before_ids(&world, "$create"), [""; 0]);
    assert_eq!(after_ids(&world, "$create"), ["$create"]);
    assert_eq!(before_ids(&world, "$m"), ["$create", "$creator", "$t1"]);
    assert_eq!(after_ids(&world, "$m"), before_ids(&world, "$m"));
    assert_eq!(after_ids(&world, "$t2"), ["$create", "$creator", "$t2"]);
    assert_eq!(current_ids(&world), after_ids(&world, "$t2"));

    let view = world.view();
    let nid = world.room("!r:example.org");
    assert_eq!(ids(&world, &as_of(&view, nid, made).unwrap()), ["$create", "$creator"]);
    assert_eq!(ids(&world, &as_of(&view, nid, set.next()).unwrap()), ["$create", "$creator", "$t1"]);
    assert!(as_of(&view, nid, Lsn(1)).unwrap().is_empty());
    let now = current(&view, nid).unwrap();
    assert_eq!(as_of(&view, nid, Lsn::MAX).unwrap(), now);
    assert_eq!(get(&view, &now, "m.room.topic", "").unwrap(), Some(world.event("$t2")));
    assert_eq!(get(&view, &now, "m.room.topic", "x").unwrap(), None);
    let members: Vec<_> = of_type(&view, &now, "m.room.member").map(Result::unwrap).collect();
    assert_eq!(members.len(), 1);
    assert_eq!((members[0].state_key.as_str(), members[0].event), (ALICE, world.event("$creator")));

    let changed: Vec<_> = diff(&view, &as_of(&view, nid, set).unwrap(), &now).map(Result::unwrap).collect();
    let (before, after) = (Some(world.event("$t1")), Some(world.event("$t2")));
    let expected = Difference { event_type: "m.room.topic".into(), state_key: String::new(), before, after };
    assert_eq!(changed, [expected]);
    assert_eq!(diff(&view, &now, &now).count(), 0);
    world.check_replay();
}

#[test]
fn current_state_is_what_was_resolved_not_what_came_last() {
    let (mut world, mut room) = start();
    let (mut left, mut right) = (room.clone(), room.clone());
    world.fold(topic(&mut left, "$left"));
    // It loses the resolution against the other side of the fork.
    world.fold(topic(&mut right, "$right").keep_current());
    assert_eq!(after_ids(&world, "$right"), ["$create", "$creator", "$right"]);
    assert_eq!(current_ids(&world), ["$create", "$creator", "$left"]);

    let mut merge = room.message("$merge", ALICE, "Hi");
    let base = StateBase::After("$right".into());
    merge.placed.state_before = Some(StateBefore { base, delta: vec![change("m.room.topic", "", Some("$left"))] });
    merge.placed.current = vec![change("m.room.topic", "", None)];
    world.fold(merge);
    assert_eq!(before_ids(&world, "$merge"), ["$create", "$creator", "$left"]);
    assert_eq!(current_ids(&world), ["$create", "$creator"]);
    world.check_replay();
}

#[test]
fn what_a_fork_divides_a_merge_stores_once_again() {
    let (mut world, mut room) = start();
    let mut right = room.clone();
    world.fold(topic(&mut room, "$left"));
    world.fold(right.state("$right", ALICE, "m.room.name", "", json!({"name": "right"})));
    let nid = world.room("!r:example.org");
    let (view, both) = (world.view(), ["$create", "$creator", "$right", "$left"]);
    assert_eq!(current_ids(&world), both);
    assert_ne!(after(&view, world.event("$right")).unwrap().unwrap(), current(&view, nid).unwrap());

    let mut merge = right.message("$merge", ALICE, "Hi");
    merge.placed.state_before = Some(StateBefore {
        base: StateBase::After("$right".into()),
        delta: vec![change("m.room.topic", "", Some("$left"))],
    });
    world.fold(merge);
    world.fold(topic(&mut right, "$next"));
    let view = world.view();
    assert_eq!(before_ids(&world, "$next"), both);
    assert_eq!(after(&view, world.event("$next")).unwrap().unwrap(), current(&view, nid).unwrap());
    world.check_replay();
}

#[test]
fn a_rejected_state_event_changes_nothing_a_soft_failed_one_only_what_follows_it() {
    let (mut world, room) = start();
    world.fold(topic(&mut room.clone(), "$rejected").keep_current().verdict(Verdict::Rejected));
    world.fold(topic(&mut room.clone(), "$failed").keep_current().verdict(Verdict::SoftFailed));
    assert_eq!(after_ids(&world, "$rejected"), ["$create", "$creator"]);
    assert_eq!(after_ids(&world, "$failed"), ["$create", "$creator", "$failed"]);
    assert_eq!(current_ids(&world), ["$create", "$creator"]);
}

#[test]
fn a_placement_without_effect_changes_no_state() {
    let (mut world, mut room) = start();
    let first = topic(&mut room, "$t1");
    world.fold(first.clone());
    let mut again = first;
    again.placed.current = vec![change("m.room.topic", "", None)];
    again.placed.state_before = Some(StateBefore { base: StateBase::Empty, delta: Vec::new() });
    world.fold(again);
    assert_eq!(before_ids(&world, "$t1"), ["$create", "$creator"]);
    assert_eq!(current_ids(&world), ["$create", "$creator", "$t1"]);
}

#[test]
fn a_staged_state_can_be_a_base() {
    let (mut world, mut room) = start();
    let name = Blob(vec![3; 16]);
    let members: Vec<_> = (0..100).map(|n| format!("@user{n:03}:elsewhere.org")).collect();
    let outliers = Room::new(&room.id);
    let learned = members.iter().map(|user| {
        let fields =
            json!({"type": "m.room.member", "state_key": user, "sender": user, "content": {"membership": "join"}});
        outliers.learn(&format!("${user}"), &fields)
    });
    let bodies = EventBodies { set: name.clone(), n: 0, events: learned.collect() };
    let staged = StagedEvents { set: name.clone(), count: 1, sha256: checksum(std::slice::from_ref(&bodies)) };
    world.fold([bodies.into()]);
    world.fold([staged.into()]);

    let parts: Vec<_> = members.chunks(60).zip(0..).collect();
    let parts = parts.into_iter().map(|(members, n)| {
        let entries = members.iter().map(|user| change("m.room.member", user, Some(&format!("${user}"))));
        StateSetPart { set: name.clone(), n, entries: entries.collect() }
    });
    let parts: Vec<_> = parts.collect();
    let set = StateSet { set: name.clone(), count: 2, sha256: checksum(&parts) };
    world.fold([parts[0].clone().into()]);
    assert!(world.try_fold([set.clone().into()]).is_err());
    world.fold([parts[1].clone().into(), set.clone().into()]);
    assert!(world.try_fold([set.into()]).is_err(), "its parts are forgotten");
    let state = super::staged(&world.view(), &name).unwrap().unwrap();
    assert_eq!(state.len(), 100);

    let mut message = room.message("$m", ALICE, "Hi");
    message.placed.state_before = Some(StateBefore { base: StateBase::Set(name.clone()), delta: Vec::new() });
    world.fold(message.clone());
    assert_eq!(before(&world.view(), world.event("$m")).unwrap(), Some(state));

    let mut other = Room::other(&mut world, BOB).message("$n", BOB, "Hi");
    other.placed.state_before = message.placed.state_before;
    assert!(world.try_fold(other).is_err(), "it is a state of another room");
    world.check_replay();
}

/// What it costs to read the state of a room of so many members, without them and as it was; rows.
fn cost_without_members(members: usize) -> [u64; 2] {
    let (mut world, mut room) = start();
    let mut before = None;
    for n in 0..20 {
        world.fold(room.state(&format!("$s{n}"), ALICE, &format!("z.state.{n}"), "", json!({})));
    }
    let users: Vec<_> = (0..members).map(|n| format!("@user{n}:example.org")).collect();
    for users in users.chunks(1000) {
        let joins: Vec<_> = users.iter().flat_map(|user| room.member(&format!("${user}"), user, "join")).collect();
        before = Some(world.fold(joins).cursor.lsn);
    }
    let view = world.view();
    let current = current(&view, world.room("!r:example.org")).unwrap();
    let counted = Batch::new(&view);
    let others: Vec<_> = except_type(&counted, &current, "m.room.member").map(Result::unwrap).collect();
    assert_eq!((others.len(), current.len() as usize), (21, 22 + members));
    let without_members = counted.cost().reads;
    assert_eq!(as_of(&counted, world.room("!r:example.org"), before.unwrap()).unwrap(), current);
    [without_members, counted.cost().reads - without_members]
}

#[test]
fn a_state_without_its_members_costs_the_same_in_a_room_of_any_size() {
    let [few, many] = [10, 10_000].map(cost_without_members);
    // The nodes on the two ways down, of several hundred.
    assert!(few[0] <= many[0] && many[0] <= 10, "{few:?} {many:?}");
    assert_eq!((few[1], many[1]), (1, 1));
}

#[test]
fn what_is_not_known_stops_the_fold() {
    let (mut world, mut room) = start();
    let message = room.message("$m", ALICE, "Hi");
    let mut base = message.clone();
    base.placed.state_before = Some(StateBefore { base: StateBase::After("$none".into()), delta: Vec::new() });
    let mut delta = message.clone();
    delta.placed.current = vec![change("m.room.topic", "", Some("$none"))];
    let outlier = message.clone().class(Placement::Outlier).without_state();
    for event in [base, delta] {
        assert!(world.try_fold(event).is_err());
    }
    world.fold(outlier);
    assert_eq!(before(&world.view(), world.event("$m")).unwrap(), None);
}
