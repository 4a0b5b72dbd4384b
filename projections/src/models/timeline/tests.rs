use schemas::facts::{Epoch, EventRestated, ExtremitiesRemoved, Placement, Verdict, Visibility};
use serde_json::{Value, json};

use super::*;
use crate::testing::{
    ALICE, BOB, World,
    rooms::{Event, Room},
};

const ID: &str = "!r:example.org";

fn start() -> (World, Room) {
    let mut world = World::new();
    let room = Room::created(&mut world, ID, ALICE);
    (world, room)
}

/// A live message with these previous events.
fn after(room: &Room, id: &str, prev: &[&str]) -> Event {
    room.clone().live(id, &json!({"prev_events": prev})).without_state()
}

fn before(room: &Room, id: &str, prev: &[&str], anchor: &str, order: u32) -> Event {
    after(room, id, prev).class(Placement::History { anchor: anchor.into(), order })
}

fn id_of(world: &World, item: Item) -> String {
    let mark = if item.after_gap { "…" } else { "" };
    mark.to_owned() + &events::head(&world.view(), item.event).unwrap().unwrap().id
}

fn order(world: &World) -> Vec<String> {
    let (view, room) = (world.view(), world.room(ID));
    let items = forward(&view, room, Position::START).collect::<Result<Vec<_>, _>>().unwrap();
    let mut back = backward(&view, room, Position::after_record(view.lsn())).collect::<Result<Vec<_>, _>>().unwrap();
    back.reverse();
    assert_eq!(items, back);
    items.into_iter().map(|(_, item)| id_of(world, item)).collect()
}

fn ends(world: &World) -> Vec<String> {
    extremities(&world.view(), world.room(ID)).unwrap().into_iter().map(|extremity| extremity.id).collect()
}

fn missing(world: &World) -> Value {
    let (view, room) = (world.view(), world.room(ID));
    let found: Vec<_> = gaps(&view, room, Position::START).map(Result::unwrap).collect();
    let mut back: Vec<_> = gaps_before(&view, room, Position::after_record(view.lsn())).map(Result::unwrap).collect();
    back.reverse();
    assert_eq!(found, back);
    let referring = |gap: &Gap| id_of(world, item_at(&view, room, gap.before).unwrap().unwrap());
    found.iter().map(|gap| (gap.missing.clone(), referring(gap))).collect::<Vec<_>>().into_iter().collect()
}

#[test]
fn a_page_begins_and_ends_at_points_between_events() {
    let (mut world, mut room) = start();
    let lsn = world.view().lsn();
    for id in ["$1", "$2", "$3"] {
        world.fold(room.message(id, ALICE, id));
    }
    assert_eq!(order(&world), ["$create", "$creator", "$1", "$2", "$3"]);
    let (view, nid) = (world.view(), world.room(ID));
    let names = |items: Vec<(Position, Item)>| items.into_iter().map(|(_, i)| id_of(&world, i)).collect::<Vec<_>>();
    let second = world.head("$2").shown_at().unwrap();
    assert_eq!(names(forward(&view, nid, second).map(Result::unwrap).collect()), ["$2", "$3"]);
    assert_eq!(names(forward(&view, nid, second.next()).map(Result::unwrap).collect()), ["$3"]);
    assert_eq!(names(backward(&view, nid, second).take(1).map(Result::unwrap).collect()), ["$1"]);
    let since = Position::after_record(lsn);
    assert_eq!(names(forward(&view, nid, since).map(Result::unwrap).collect()), ["$1", "$2", "$3"]);
    assert_eq!(names(backward(&view, nid, since).map(Result::unwrap).collect()), ["$creator", "$create"]);
}

#[test]
fn extremities_that_were_removed_come_back_no_more() {
    let (mut world, room) = start();
    for id in ["$a", "$b", "$c"] {
        world.fold(after(&room, id, &["$creator"]));
    }
    assert_eq!(ends(&world), ["$a", "$b", "$c"]);
    let removed = |room: &str, events: &[&str]| ExtremitiesRemoved {
        room: room.into(),
        events: events.iter().map(ToString::to_string).collect(),
    };
    // What is no extremity, or of another room, is passed over.
    world.apply([removed(ID, &["$a", "$b", "$none", "$creator"]).into(), removed("!other:x", &["$c"]).into()]);
    assert_eq!(ends(&world), ["$c"]);
    world.fold(after(&room, "$d", &["$a"]));
    assert_eq!(ends(&world), ["$c", "$d"]);
    world.fold(after(&room, "$e", &["$b", "$c", "$d"]));
    assert_eq!(ends(&world), ["$e"]);
    world.check_replay();
}

#[test]
fn extremities_are_what_no_live_event_refers_to() {
    let (mut world, room) = start();
    assert_eq!(ends(&world), ["$creator"]);
    world.fold(after(&room, "$a", &["$creator"]));
    world.fold(after(&room, "$b", &["$creator"]));
    assert_eq!(ends(&world), ["$a", "$b"]);
    world.fold(after(&room, "$merge", &["$a", "$b"]));
    assert_eq!(ends(&world), ["$merge"]);
    let found = extremities(&world.view(), world.room(ID)).unwrap();
    assert_eq!(found, [Extremity { event: world.event("$merge"), id: "$merge".into(), depth: 3 }]);

    for (id, verdict) in [("$failed", Verdict::SoftFailed), ("$rejected", Verdict::Rejected)] {
        world.fold(after(&room, id, &["$merge"]).verdict(verdict));
    }
    world.fold(after(&room, "$outlier", &["$merge"]).class(Placement::Outlier));
    assert_eq!(ends(&world), ["$merge"]);
    assert_eq!(order(&world), ["$create", "$creator", "$a", "$b", "$merge"]);

    // What it follows is hidden, so that it takes the place of what that follows.
    world.fold(after(&room, "$behind", &["$failed"]));
    assert_eq!(ends(&world), ["$behind"]);
    assert_eq!((order(&world).pop().unwrap(), missing(&world)), ("$behind".to_owned(), json!({})));
    world.check_replay();
}

#[test]
fn an_event_that_comes_late_is_no_extremity() {
    let (mut world, room) = start();
    world.fold(after(&room, "$2", &["$1"]));
    assert_eq!(ends(&world), ["$creator", "$2"]);
    world.fold(after(&room, "$1", &["$creator"]));
    assert_eq!(ends(&world), ["$2"]);
    assert_eq!(order(&world), ["$create", "$creator", "…$2", "$1"]);
    assert_eq!(missing(&world), json!({}));
    world.check_replay();
}

#[test]
fn a_gap_stays_in_the_order_and_is_closed_by_history() {
    let (mut world, room) = start();
    world.fold(after(&room, "$outlier", &[]).class(Placement::Outlier));
    world.fold(after(&room, "$3", &["$2", "$outlier", "$creator"]));
    world.fold(after(&room, "$fork", &["$2"]));
    assert_eq!(missing(&world), json!({"$2": "…$fork", "$outlier": "…$3"}));
    let lsn = world.view().lsn();
    let applied = world.fold(before(&room, "$2", &["$1"], "$3", 1));
    assert!(applied.touched.rooms.is_empty());
    assert_eq!(missing(&world), json!({"$1": "…$2", "$outlier": "…$3"}));
    world.fold(before(&room, "$1", &["$creator"], "$3", 2));
    assert_eq!(missing(&world), json!({"$outlier": "…$3"}));
    assert_eq!(order(&world), ["$create", "$creator", "$1", "…$2", "…$3", "…$fork"]);
    assert_eq!(ends(&world), ["$3", "$fork"]);
    assert_eq!(activity(&world.view(), lsn, Lsn::MAX.next()).count(), 0, "history is no news");
    world.check_replay();
}

#[test]
fn an_event_appears_when_it_is_restated_as_accepted() {
    let (mut world, room) = start();
    world.fold(after(&room, "$late", &["$creator"]).verdict(Verdict::SoftFailed));
    world.fold(after(&room, "$1", &["$creator"]));
    let restated = EventRestated {
        id: "$late".into(),
        class: Placement::Live,
        verdict: Verdict::Accepted,
        state_before: None,
        current: Vec::new(),
        visibility: Visibility::Shared,
    };
    world.fold([restated.clone().into()]);
    assert_eq!(order(&world), ["$create", "$creator", "$1", "$late"]);
    assert_eq!(ends(&world), ["$1", "$late"]);
    let applied = world.fold([restated.into()]);
    assert_eq!(order(&world), ["$create", "$creator", "$1", "$late"]);
    assert!(applied.touched.rooms.is_empty());
    world.check_replay();
}

#[test]
fn a_hidden_event_that_appears_late_is_followed_already() {
    let (mut world, room) = start();
    world.fold(after(&room, "$hidden", &["$creator"]).verdict(Verdict::SoftFailed));
    world.fold(after(&room, "$between", &["$hidden"]).verdict(Verdict::SoftFailed));
    let next = ["$between".to_owned()];
    let (view, nid) = (world.view(), world.room(ID));
    assert!(extremities_left(&view, nid, &next).unwrap().is_empty());
    assert!(!is_followed(&view, nid, "$hidden").unwrap());
    world.fold(after(&room, "$next", &["$between"]));
    assert!(is_followed(&world.view(), nid, "$hidden").unwrap());
    let restated = EventRestated {
        id: "$hidden".into(),
        class: Placement::Live,
        verdict: Verdict::Accepted,
        state_before: None,
        current: Vec::new(),
        visibility: Visibility::Shared,
    };
    world.fold([restated.into()]);
    assert_eq!(order(&world), ["$create", "$creator", "$next", "$hidden"]);
    assert_eq!(ends(&world), ["$next"]);
    world.check_replay();
}

#[test]
fn activity_is_by_record_over_all_rooms() {
    let (mut world, mut room) = start();
    let since = world.view().lsn();
    let mut other = Room::other(&mut world, BOB);
    let (one, two) = (world.room(ID), world.room("!other:example.org"));
    let applied = world.fold(room.message("$1", ALICE, "Hi").into_iter().chain(other.message("$2", BOB, "Hi")));
    assert_eq!(applied.touched.rooms, [one, two].into());
    let view = world.view();
    let found: Vec<_> = activity(&view, since, view.lsn()).map(Result::unwrap).collect();
    assert_eq!(found, [(Lsn(3), two), (Lsn(4), one), (Lsn(4), two)]);
    assert_eq!(activity(&view, since, Lsn(3)).count(), 1);
    assert_eq!(last(&view, two).unwrap(), Last { activity: Lsn(4), live: world.head("$2").shown_at() });

    // The current state of a room may change with no event of its own to show.
    let invite = other.member("$invite", ALICE, "invite").class(Placement::Outlier).without_state();
    assert_eq!(world.fold(invite).touched.rooms, [two].into());
    let after = last(&world.view(), two).unwrap();
    assert_eq!(after, Last { activity: Lsn(5), live: world.head("$2").shown_at() });
}

#[test]
fn positions_of_lost_futures_lead_to_their_forks() {
    let mut world = World::new();
    let forks = |world: &World| {
        (0..9).map(|lsn| fork_before(&world.view(), Lsn(lsn)).unwrap().map(|fork| fork.0)).collect::<Vec<_>>()
    };
    let begin = |world: &mut World, fork: u64| {
        world.apply([Epoch { fork: Lsn(fork), chain: schemas::Chain::default() }.into()]);
        world.view().lsn().0
    };
    assert_eq!(forks(&world), [None; 9]);
    while world.view().lsn() < Lsn(4) {
        world.apply([]);
    }
    // In truth, forks are right before the gap that the epoch leaves.
    assert_eq!(begin(&mut world, 2), 5);
    assert_eq!(forks(&world), [None, None, None, Some(2), Some(2), None, None, None, None]);
    world.apply([]);
    world.apply([]);
    assert_eq!(begin(&mut world, 6), 8);
    assert_eq!(forks(&world), [None, None, None, Some(2), Some(2), None, None, Some(6), None]);
}
