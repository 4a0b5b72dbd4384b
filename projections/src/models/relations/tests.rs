use schemas::facts::{Placement, Verdict};
use serde_json::{Value, json};

use super::*;
use crate::testing::{
    ALICE, BOB, World,
    rooms::{Event, Room},
};

const ID: &str = "!r:example.org";

fn start() -> (World, Room) {
    let mut world = World::new();
    let mut room = Room::created(&mut world, ID, ALICE);
    world.fold(room.message("$root", ALICE, "Hi"));
    (world, room)
}

fn thread_reply(room: &mut Room, id: &str, sender: &str) -> Event {
    room.relating(id, sender, json!({"rel_type": "m.thread", "event_id": "$root"}), json!({"body": id}))
}

fn edit(room: &mut Room, id: &str, sender: &str, of: &str) -> Event {
    let content = json!({"body": "*", "m.new_content": {"body": id}});
    room.relating(id, sender, json!({"rel_type": "m.replace", "event_id": of}), content)
}

fn reaction(room: &mut Room, id: &str, sender: &str, key: &str) -> Event {
    let relates = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$root", "key": key}});
    room.live(id, &json!({"type": "m.reaction", "sender": sender, "content": relates}))
}

fn names(world: &World, rel_type: Option<&str>) -> Vec<String> {
    let (view, room) = (world.view(), world.room(ID));
    let found: Vec<_> = children(&view, room, "$root", rel_type, Position::START).map(Result::unwrap).collect();
    let mut back: Vec<_> = children_before(&view, room, "$root", rel_type, None).map(Result::unwrap).collect();
    back.reverse();
    assert_eq!(found, back);
    let id = |child: &Child| events::head(&view, child.event).unwrap().unwrap().id;
    found.iter().map(|(_, child)| id(child)).collect()
}

fn last_edit(world: &World, of: &str) -> Option<Nid> {
    replacement(&world.view(), &world.head(of)).unwrap()
}

#[test]
fn what_relates_is_found_in_order_and_by_kind() {
    let (mut world, mut room) = start();
    world.fold(reaction(&mut room, "$r", BOB, "+"));
    world.fold(thread_reply(&mut room, "$t", BOB));
    world.fold(room.relating("$ref", BOB, json!({"rel_type": "m.reference", "event_id": "$root"}), json!({})));
    world.fold(thread_reply(&mut room, "$failed", BOB).verdict(Verdict::SoftFailed));
    let old = thread_reply(&mut room, "$old", BOB).class(Placement::History { anchor: "$r".into(), order: 1 });
    world.fold(old);
    assert_eq!(names(&world, None), ["$old", "$r", "$t", "$ref"]);
    assert_eq!(names(&world, Some("m.thread")), ["$old", "$t"]);
    assert_eq!(names(&world, Some("m.reference")), ["$ref"]);
    let (view, nid) = (world.view(), world.room(ID));
    let from = world.head("$t").shown_at().unwrap();
    assert_eq!(children(&view, nid, "$root", None, from).count(), 2);
    let first = children_before(&view, nid, "$root", None, Some(from)).next().unwrap().unwrap();
    let event = Child { event: world.event("$r"), rel_type: ANNOTATION.into(), event_type: "m.reaction".into() };
    assert_eq!(first, (world.head("$r").shown_at().unwrap(), event));

    for (red, target) in [("$x1", "$r"), ("$x2", "$t"), ("$x3", "$ref"), ("$x4", "$old")] {
        world.fold(room.redaction(red, BOB, target, false).without_state());
    }
    assert_eq!(names(&world, None), [""; 0]);
    assert_eq!(names(&world, Some("m.thread")), [""; 0]);
    world.check_replay();
}

#[test]
fn the_last_valid_edit_counts() {
    let (mut world, mut room) = start();
    assert_eq!(last_edit(&world, "$root"), None);
    for (id, sender, ts) in [("$e2", ALICE, 20), ("$e1", ALICE, 10), ("$e3", ALICE, 20), ("$bob", BOB, 30)] {
        let relates = json!({"rel_type": "m.replace", "event_id": "$root"});
        let content = json!({"m.new_content": {}, "m.relates_to": relates});
        world.fold(room.live(id, &json!({"sender": sender, "origin_server_ts": ts, "content": content})));
    }
    let other_type = json!({"m.new_content": {}, "m.relates_to": {"rel_type": "m.replace", "event_id": "$root"}});
    world.fold(room.live("$type", &json!({"type": "m.sticker", "origin_server_ts": 40, "content": other_type})));
    assert_eq!(last_edit(&world, "$root"), Some(world.event("$e3")));
    world.fold(room.redaction("$x", ALICE, "$e3", false));
    assert_eq!(last_edit(&world, "$root"), Some(world.event("$e2")));

    world.fold(edit(&mut room, "$again", ALICE, "$e2"));
    assert_eq!(last_edit(&world, "$e2"), None, "an edit can't be edited");
    world.fold(edit(&mut room, "$member", ALICE, "$creator"));
    assert_eq!(last_edit(&world, "$creator"), None, "nor can state");
    world.fold(room.redaction("$y", ALICE, "$root", false));
    assert_eq!(last_edit(&world, "$root"), None, "nor what is redacted");
    world.check_replay();
}

#[test]
fn reactions_stand_together_by_key() {
    let (mut world, mut room) = start();
    for (id, sender, key) in [("$1", ALICE, "+"), ("$2", BOB, "-"), ("$3", BOB, "+"), ("$4", BOB, "+")] {
        world.fold(reaction(&mut room, id, sender, key));
    }
    let all = |world: &World| -> Value {
        let view = world.view();
        let found = annotations(&view, world.room(ID), "$root").map(Result::unwrap);
        found.map(|a| json!([a.event_type, a.key, a.sender])).collect()
    };
    let like = |key: &str, sender: &str| json!(["m.reaction", key, sender]);
    assert_eq!(all(&world), json!([like("+", ALICE), like("+", BOB), like("+", BOB), like("-", BOB)]));
    let has =
        |world: &World, key: &str| has_annotated(&world.view(), &world.head("$root"), "m.reaction", key, BOB).unwrap();
    world.fold(room.redaction("$x", BOB, "$3", false));
    assert!(has(&world, "+") && has(&world, "-") && !has(&world, "?"));
    let pairs: Vec<_> = relating(&world.view(), world.room(ID), "$root").map(Result::unwrap).collect();
    assert_eq!(pairs, [ALICE, BOB].map(|user| ("m.annotation".to_owned(), user.to_owned())));
    world.fold(room.redaction("$y", BOB, "$4", false));
    assert!(!has(&world, "+"));
    assert_eq!(all(&world), json!([like("+", ALICE), like("-", BOB)]));
    world.check_replay();
}

#[test]
fn threads_know_their_latest_event_their_length_and_who_takes_part() {
    let (mut world, mut room) = start();
    let of = |world: &World| thread(&world.view(), world.room(ID), "$root").unwrap();
    let order = |world: &World| -> Vec<String> {
        threads(&world.view(), world.room(ID), None).map(|row| row.unwrap().1).collect()
    };
    let sent = |world: &World| {
        [ALICE, BOB, "@eve:x"].map(|user| sent_in_thread(&world.view(), world.room(ID), "$root", user).unwrap())
    };
    assert_eq!((of(&world), order(&world)), (None, vec![]));
    world.fold(thread_reply(&mut room, "$1", BOB));
    let other = json!({"rel_type": "m.thread", "event_id": "$creator"});
    world.fold(room.relating("$other", ALICE, other, json!({"body": "x"})));
    assert_eq!(order(&world), ["$creator", "$root"]);
    world.fold(thread_reply(&mut room, "$2", BOB));
    world.fold(thread_reply(&mut room, "$0", ALICE).class(Placement::History { anchor: "$1".into(), order: 1 }));
    assert_eq!(order(&world), ["$root", "$creator"]);
    let position = world.head("$2").shown_at().unwrap();
    assert_eq!(of(&world), Some(Thread { count: 3, latest: world.event("$2"), position }));
    assert_eq!(sent(&world), [1, 2, 0]);
    let view = world.view();
    assert_eq!(threads(&view, world.room(ID), Some(position)).count(), 1);

    world.fold(room.redaction("$x", BOB, "$2", false).without_state());
    let position = world.head("$1").shown_at().unwrap();
    assert_eq!(of(&world), Some(Thread { count: 2, latest: world.event("$1"), position }));
    assert_eq!(order(&world), ["$creator", "$root"]);
    world.fold(room.redaction("$y", ALICE, "$0", false).without_state());
    assert_eq!(sent(&world), [0, 1, 0]);
    world.fold(room.redaction("$z", BOB, "$1", false).without_state());
    assert_eq!((of(&world), order(&world)), (None, vec!["$creator".to_owned()]));
    let is_parent = |world: &World, id| is_parent(&world.view(), world.room(ID), id).unwrap();
    assert!(is_parent(&world, "$root") && is_parent(&world, "$creator") && !is_parent(&world, "$1"));
    world.check_replay();
}

#[test]
fn an_event_is_in_a_thread_by_what_it_relates_to() {
    let (mut world, mut room) = start();
    world.fold(thread_reply(&mut room, "$t", BOB));
    world.fold(edit(&mut room, "$edit", BOB, "$t"));
    world.fold(room.relating("$ref", BOB, json!({"rel_type": "m.reference", "event_id": "$edit"}), json!({})));
    world.fold(room.relating("$far", BOB, json!({"rel_type": "m.reference", "event_id": "$ref"}), json!({})));
    let of = |id: &str| thread_of(&world.view(), &world.head(id)).unwrap();
    for id in ["$t", "$edit", "$ref"] {
        assert_eq!(of(id).as_deref(), Some("$root"), "{id}");
    }
    assert_eq!((of("$root"), of("$far")), (None, None));
}
