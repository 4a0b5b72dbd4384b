use ruma::events::TimelineEventType;
use schemas::facts::{EventRestated, EventTransaction, Placement, StateBase, StateBefore};
use serde_json::{Value, json};

use super::*;
use crate::testing::{
    ALICE, BOB, World,
    rooms::{Event as Sent, Room as TestRoom},
};

const EVE: &str = "@eve:elsewhere.org";

fn start() -> (World, TestRoom) {
    let mut world = World::new();
    let room = TestRoom::created(&mut world, "!r:example.org", ALICE);
    (world, room)
}

fn shown(world: &World, id: &str) -> Value {
    let text = client(&world.view(), world.event(id)).unwrap().unwrap();
    serde_json::from_str(&text).unwrap()
}

fn restated(event: &Sent, class: Placement, verdict: Verdict) -> Fact {
    EventRestated {
        id: event.placed.id.clone(),
        class,
        verdict,
        state_before: Some(StateBefore { base: StateBase::After("$creator".into()), delta: Vec::new() }),
        current: Vec::new(),
        visibility: Visibility::Shared,
    }
    .into()
}

#[test]
fn an_event_is_found_with_its_bytes_and_text() {
    let (mut world, mut room) = start();
    let message = room.message("$m", BOB, "Hi");
    let halves = message.learned.clone();
    world.fold(message);
    let transaction = EventTransaction { event: "$m".into(), device: "D".into(), transaction: "t".into() };
    world.fold([transaction.clone().into(), Fact::from(EventTransaction { transaction: "u".into(), ..transaction })]);

    let view = world.view();
    let (nid, event) = find(&view, "$m").unwrap().unwrap();
    let learned: Vec<_> = learned_by(&view, nid.lsn).map(Result::unwrap).collect();
    assert_eq!(learned, std::slice::from_ref(&event));
    assert_eq!(
        (event.sender.as_str(), event.event_type.as_str(), event.state_key.clone()),
        (BOB, "m.room.message", None)
    );
    assert_eq!(
        (event.depth, event.origin_server_ts, event.prev_events.clone()),
        (3, 1002, vec!["$creator".to_owned()])
    );
    let placed = event.placed.unwrap();
    assert_eq!(placed.position, Some(Position::live(placed.by)));
    assert_eq!(bytes(&view, nid).unwrap().unwrap(), Bytes { skeleton: halves.skeleton, rest: halves.rest });
    assert_eq!(shown(&world, "$m")["content"]["body"], "Hi");
    let pdu = pdu(&view, nid).unwrap().unwrap();
    assert_eq!((pdu.event_type(), pdu.depth()), (&TimelineEventType::RoomMessage, 3));
    assert_eq!(super::transaction(&view, nid).unwrap().unwrap(), Transaction { device: "D".into(), id: "t".into() });

    assert_eq!(room_nid(&view, "!r:example.org").unwrap(), Some(event.room));
    let room = super::room(&view, event.room).unwrap().unwrap();
    assert_eq!((room.version.as_deref(), room.create), (Some("11"), Some(world.event("$create"))));
    assert_eq!((super::nid(&view, "$none").unwrap(), room_nid(&view, "!none:x").unwrap()), (None, None));
    world.check_replay();
}

#[test]
fn an_event_is_learned_and_placed_once() {
    let (mut world, mut room) = start();
    let message = room.message("$m", BOB, "Hi");
    world.fold(message.clone());
    let before = world.head("$m");
    let mut other = message.clone();
    other.learned = room.learn("$m", &json!({"content": {"body": "Ho"}}));
    world.fold(other.verdict(Verdict::Rejected));
    assert_eq!(world.head("$m"), before);
    assert_eq!(shown(&world, "$m")["content"]["body"], "Hi");
}

#[test]
fn restatements_follow_the_table() {
    use Placement::{Live, Outlier};
    use Verdict::{Accepted, Rejected, SoftFailed};
    let history = || Placement::History { anchor: "$creator".into(), order: 1 };
    let same = |a: &Placement, b: &Placement| std::mem::discriminant(a) == std::mem::discriminant(b);
    for from in [Live, history(), Outlier] {
        for (was, is) in [(Accepted, Accepted), (Accepted, Rejected), (SoftFailed, Accepted), (Rejected, SoftFailed)] {
            for to in [Live, history(), Outlier] {
                let (mut world, mut room) = start();
                let message = room.message("$m", BOB, "Hi").class(from.clone()).verdict(was);
                world.fold(message.clone());
                let before = world.head("$m");
                world.fold([restated(&message, to.clone(), is)]);
                let after = world.head("$m");

                let shown = was == Accepted && !same(&from, &Outlier);
                let allowed = same(&from, &Outlier) || same(&from, &to) && (!shown || is == Accepted);
                assert_eq!(after == before, !allowed, "{from:?} {was:?} to {to:?} {is:?}");
                if allowed {
                    let placed = after.placed.unwrap();
                    assert_eq!((placed.verdict, placed.was_shown), (is, shown));
                    assert_eq!(placed.is_shown(), is == Accepted && !same(&to, &Outlier));
                    assert!(!shown || placed.position == before.placed.unwrap().position);
                }
            }
        }
    }
}

#[test]
fn history_stands_before_a_live_event_of_its_room() {
    let (mut world, mut room) = start();
    let old = room.clone().message("$old", BOB, "old").class(Placement::History { anchor: "$m".into(), order: 3 });
    world.fold(room.message("$m", BOB, "Hi"));
    world.fold(old.clone());
    let anchor = world.head("$m").shown_at().unwrap();
    assert_eq!(world.head("$old").shown_at(), Some(Position::before(anchor, 3)));

    let mut other = TestRoom::other(&mut world, ALICE);
    let wrong = other.message("$wrong", BOB, "x").class(old.placed.class);
    assert!(world.try_fold(wrong).is_err());
    let wrong = other.message("$wrong", BOB, "x").class(Placement::History { anchor: "$old".into(), order: 1 });
    assert!(world.try_fold(wrong).is_err());
}

#[test]
fn a_redaction_takes_effect_whichever_comes_first() {
    for (sender, any, allowed) in [(BOB, false, true), (ALICE, false, true), (EVE, false, false), (EVE, true, true)] {
        let (mut first, mut room) = start();
        let mut second = World::new();
        TestRoom::created(&mut second, "!r:example.org", ALICE);
        let relates = json!({"rel_type": "m.annotation", "event_id": "$creator", "key": "+"});
        let message = room.relating("$m", BOB, relates, json!({"body": "secret"})).without_state();
        let redaction = room.redaction("$red", sender, "$m", any).without_state();
        first.fold(message.clone());
        assert!(first.head("$m").relation.is_some());
        first.fold(redaction.clone());
        second.fold(redaction);
        second.fold(message);
        for world in [first, second] {
            let event = world.head("$m");
            assert_eq!(event.redacted_by, allowed.then(|| world.event("$red")));
            assert_eq!(event.relation.is_none(), allowed);
            assert_eq!(shown(&world, "$m")["content"].get("body").is_none(), allowed);
            assert_eq!(bytes(&world.view(), world.event("$m")).unwrap().unwrap().rest.is_none(), allowed);
            assert_eq!(shown(&world, "$red")["redacts"], "$m");
            world.check_replay();
        }
    }
}

#[test]
fn the_first_redaction_that_counts_counts() {
    let (mut world, mut room) = start();
    let message = room.message("$m", BOB, "secret").without_state();
    for (id, sender) in [("$eve", EVE), ("$alice", ALICE), ("$bob", BOB), ("$again", BOB)] {
        world.fold(room.redaction(id, sender, "$m", false).without_state());
    }
    for (id, verdict) in [("$soft", Verdict::SoftFailed), ("$rejected", Verdict::Rejected)] {
        world.fold(room.redaction(id, ALICE, "$creator", true).verdict(verdict).without_state());
    }
    world.fold(room.redaction("$out", ALICE, "$creator", true).class(Placement::Outlier).without_state());
    world.fold(message);
    assert_eq!(world.head("$m").redacted_by, Some(world.event("$alice")));
    assert_eq!(world.head("$creator").redacted_by, None);
    assert_eq!(world.head("$creator").membership, Some(Membership::Join));

    let mut other = TestRoom::other(&mut world, ALICE);
    world.fold(room.message("$n", BOB, "mine").without_state());
    world.fold(other.redaction("$across", BOB, "$n", true));
    assert_eq!(world.head("$n").redacted_by, None);
}

#[test]
fn relations_are_read_from_the_content() {
    let (mut world, mut room) = start();
    let long = "x".repeat(256);
    let edit = json!({"rel_type": "m.replace", "event_id": "$creator"});
    for (id, relates_to, content, expected) in [
        (
            "$1",
            json!({"rel_type": "m.annotation", "event_id": "$creator", "key": "+"}),
            json!({}),
            Some((Some("+"), false)),
        ),
        ("$2", edit.clone(), json!({"m.new_content": {}}), Some((None, true))),
        ("$3", edit, json!({}), Some((None, false))),
        ("$4", json!({"rel_type": long, "event_id": "$creator"}), json!({}), None),
        ("$5", json!({"m.in_reply_to": {"event_id": "$creator"}}), json!({}), None),
        ("$6", json!("$creator"), json!({}), None),
        (
            "$7",
            json!({"rel_type": "m.annotation", "event_id": "$creator", "key": long}),
            json!({}),
            Some((None, false)),
        ),
    ] {
        world.fold(room.relating(id, BOB, relates_to, content));
        let relation = world.head(id).relation;
        assert_eq!(relation.as_ref().map(|r| (r.key.as_deref(), r.replaces)), expected, "{id}");
    }
}

#[test]
fn what_is_not_known_or_malformed_stops_the_fold() {
    let (mut world, mut room) = start();
    let [_, placed] = room.clone().message("$m", BOB, "Hi").into_iter().collect::<Vec<_>>().try_into().unwrap();
    assert!(world.try_fold([placed]).is_err());
    assert!(world.try_fold([restated(&room.message("$m", BOB, "Hi"), Placement::Live, Verdict::Accepted)]).is_err());
    let mut learned = room.learn("$m", &json!({}));
    learned.skeleton = Json::from("{}".to_owned());
    assert!(world.try_fold([learned.into()]).is_err());
}
