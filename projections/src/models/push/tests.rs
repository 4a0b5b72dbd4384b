use schemas::facts::{PushRuleChanged, PushRuleOp, ReceiptKind, ReceiptSet, Redaction};
use serde_json::{Value, json};

use super::*;
use crate::models::{push_rules, receipts};
use crate::testing::{ALICE, BOB, ROOM, World, live};

fn member(id: &str, user: &str, membership: &str) -> [Fact; 2] {
    let content = json!({ "membership": membership });
    live(id, &json!({ "type": "m.room.member", "sender": user, "state_key": user, "content": content }))
}

/// Alice, who made the room, Bob and Carol.
fn world() -> World {
    let mut world = World::new();
    let create = json!({ "type": "m.room.create", "state_key": "", "content": { "room_version": "11" } });
    world.apply(live("$create", &create));
    world.apply(member("$alice", ALICE, "join"));
    world.apply(member("$bob", BOB, "join"));
    world.apply(member("$carol", "@carol:example.org", "join"));
    world
}

fn message(id: &str, content: &Value) -> [Fact; 2] {
    let mut all = json!({ "body": "Hi", "msgtype": "m.text" });
    all.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
    live(id, &json!({ "content": all }))
}

fn threaded(id: &str, root: &str) -> [Fact; 2] {
    message(id, &json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": root } }))
}

fn mentioning(id: &str, users: &[&str]) -> [Fact; 2] {
    message(id, &json!({ "m.mentions": { "user_ids": users } }))
}

fn receipt(user: &str, thread: Option<&str>, event: &str) -> Fact {
    ReceiptSet {
        user: user.into(),
        room: ROOM.into(),
        kind: ReceiptKind::Public,
        thread: thread.map(Into::into),
        event: event.into(),
        at_ms: 1,
    }
    .into()
}

fn rule(kind: &str, rule: &str, op: PushRuleOp) -> Fact {
    PushRuleChanged { user: BOB.into(), kind: kind.into(), rule: rule.into(), op }.into()
}

fn put(kind: &str, id: &str, body: &Value) -> Fact {
    rule(kind, id, PushRuleOp::Put { rule: body.to_string().into(), before: None, after: None })
}

/// Notifications and highlights: in all, then by thread where there are any.
fn counts(world: &World, user: &str) -> String {
    let view = world.view();
    let room = events::room_nid(&view, ROOM).unwrap().unwrap();
    let Some(member) = membership::member(&view, room, user).unwrap() else { return "0/0".to_owned() };
    let rules = push_rules::changed(&view, user).unwrap().map(|(_, rules)| rules);
    let receipts = receipts::of_user(&view, room, user).unwrap();
    let (user, rules) = (user.try_into().unwrap(), rules.as_ref());
    let reader = Reader { user, rules, member: &member, receipts: &receipts };
    let unread = unread(&view, room, ROOM.try_into().unwrap(), &reader).unwrap();
    let pair = |counts: Counts| format!("{}/{}", counts.notifications, counts.highlights);
    let threads = unread.threads.iter().map(|(root, counts)| format!(" {root} {}", pair(*counts)));
    format!("{}{}", pair(unread.total()), threads.collect::<String>())
}

#[test]
fn messages_count_until_they_are_read() {
    let mut world = world();
    assert_eq!(counts(&world, BOB), "0/0");
    for n in 1..=5 {
        world.apply(message(&format!("${n}"), &json!({})));
    }
    assert_eq!(counts(&world, BOB), "5/0");
    assert_eq!(counts(&world, ALICE), "0/0");
    assert_eq!(counts(&world, "@nobody:example.org"), "0/0");
    world.apply([receipt(BOB, None, "$3")]);
    assert_eq!(counts(&world, BOB), "2/0");
    world.apply([receipt(BOB, None, "$2")]);
    assert_eq!(counts(&world, BOB), "2/0");
    world.apply(live("$6", &json!({ "sender": BOB })));
    assert_eq!((counts(&world, BOB), counts(&world, ALICE)), ("0/0".into(), "1/0".into()));
    world.apply(member("$dave", "@dave:example.org", "join"));
    assert_eq!(counts(&world, "@dave:example.org"), "0/0");
    world.apply(message("$7", &json!({})));
    assert_eq!((counts(&world, BOB), counts(&world, "@dave:example.org")), ("1/0".into(), "1/0".into()));
    world.check_replay();
}

#[test]
fn what_does_not_notify_by_default_does_not_count() {
    let mut world = world();
    world.apply(message("$notice", &json!({ "msgtype": "m.notice" })));
    world.apply(message("$edit", &json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$x" } })));
    world.apply(live("$reaction", &json!({ "type": "m.reaction", "content": {} })));
    world.apply(live("$topic", &json!({ "type": "m.room.topic", "state_key": "", "content": { "topic": "t" } })));
    world.apply(live("$custom", &json!({ "type": "org.example.custom", "content": {} })));
    world.apply(member("$again", "@carol:example.org", "join"));
    assert_eq!(counts(&world, BOB), "0/0");
    world.apply(live("$secret", &json!({ "type": "m.room.encrypted", "content": {} })));
    world.apply(live("$call", &json!({ "type": "m.call.invite", "content": {} })));
    assert_eq!(counts(&world, BOB), "2/0");
    world.apply(live("$tombstone", &json!({ "type": "m.room.tombstone", "state_key": "", "content": {} })));
    assert_eq!(counts(&world, BOB), "3/1");
}

#[test]
fn mentions_are_highlights_for_those_mentioned() {
    let mut world = world();
    world.apply(mentioning("$1", &[BOB, ALICE, "@stranger:example.org", "@bob:other.example", "nonsense"]));
    world.apply(mentioning("$2", &[BOB, BOB]));
    assert_eq!((counts(&world, BOB), counts(&world, "@carol:example.org")), ("2/2".into(), "2/0".into()));
    let quiet = json!({ "type": "m.reaction", "content": { "m.mentions": { "user_ids": [BOB] } } });
    world.apply(live("$3", &quiet));
    world.apply(message("$4", &json!({ "msgtype": "m.notice", "m.mentions": { "user_ids": [BOB] } })));
    assert_eq!((counts(&world, BOB), counts(&world, "@carol:example.org")), ("3/3".into(), "2/0".into()));
    world.apply([receipt(BOB, None, "$1")]);
    assert_eq!(counts(&world, BOB), "2/2");
    world.apply(member("$left", BOB, "leave"));
    assert_eq!(counts(&world, BOB), "0/0");
    world.check_replay();
}

#[test]
fn a_mention_of_the_room_needs_the_power_to() {
    let mut world = world();
    let all = json!({ "m.mentions": { "room": true } });
    world.apply(message("$1", &all));
    assert_eq!(counts(&world, BOB), "1/1");
    let from_carol =
        json!({ "sender": "@carol:example.org", "content": { "msgtype": "m.text", "m.mentions": { "room": true } } });
    world.apply(live("$2", &from_carol));
    assert_eq!(counts(&world, BOB), "2/1");
    let levels = json!({ "users": { ALICE: 100, "@carol:example.org": 20 }, "notifications": { "room": 20 } });
    world.apply(live("$levels", &json!({ "type": "m.room.power_levels", "state_key": "", "content": levels })));
    world.apply(live("$3", &from_carol));
    assert_eq!(counts(&world, BOB), "3/2");
}

#[test]
fn threads_are_counted_apart_and_read_apart() {
    let mut world = world();
    world.apply(message("$root", &json!({})));
    world.apply(threaded("$t1", "$root"));
    world.apply(threaded("$t2", "$root"));
    world.apply(threaded("$u1", "$other"));
    world.apply(message("$m", &json!({})));
    assert_eq!(counts(&world, BOB), "5/0 $other 1/0 $root 2/0");
    world.apply([receipt(BOB, Some("$root"), "$t1")]);
    assert_eq!(counts(&world, BOB), "4/0 $other 1/0 $root 1/0");
    world.apply([receipt(BOB, Some("main"), "$m")]);
    assert_eq!(counts(&world, BOB), "2/0 $other 1/0 $root 1/0");
    let own = json!({ "msgtype": "m.text", "m.relates_to": { "rel_type": "m.thread", "event_id": "$root" } });
    world.apply(live("$mine", &json!({ "sender": BOB, "content": own })));
    assert_eq!(counts(&world, BOB), "1/0 $other 1/0");
    world.apply([receipt(BOB, None, "$u1")]);
    assert_eq!(counts(&world, BOB), "0/0");
    world.apply(threaded("$t3", "$root"));
    assert_eq!(counts(&world, BOB), "1/0 $root 1/0");
    world.check_replay();
}

#[test]
fn a_redacted_event_counts_no_more() {
    let mut world = world();
    world.apply(mentioning("$1", &[BOB]));
    world.apply(message("$2", &json!({})));
    assert_eq!(counts(&world, BOB), "2/1");
    let mut redact = |id: &str, target: &str| {
        let redaction = json!({ "type": "m.room.redaction", "content": { "redacts": target } });
        let [learned, placed] = live(id, &redaction);
        let Fact::EventPlaced(mut placed) = placed else { unreachable!() };
        placed.redacts = Some(Redaction { target: target.into(), may_redact_any: false });
        world.apply([learned, placed.into()]);
    };
    redact("$r1", "$1");
    redact("$r3", "$3");
    assert_eq!(counts(&world, BOB), "1/0");
    world.apply(message("$3", &json!({})));
    assert_eq!(counts(&world, BOB), "1/0");
    world.check_replay();
}

#[test]
fn changes_of_the_servers_rules_count_at_once() {
    let mut world = world();
    world.apply(message("$1", &json!({})));
    world.apply(message("$2", &json!({ "msgtype": "m.notice" })));
    world.apply(mentioning("$3", &[BOB]));
    assert_eq!(counts(&world, BOB), "2/1");
    world.apply([rule("override", ".m.rule.suppress_notices", PushRuleOp::Enabled(false))]);
    assert_eq!(counts(&world, BOB), "3/1");
    world.apply([rule("underride", ".m.rule.message", PushRuleOp::Actions("[]".to_owned().into()))]);
    assert_eq!(counts(&world, BOB), "1/1");
    world.apply([rule("override", ".m.rule.is_user_mention", PushRuleOp::Enabled(false))]);
    assert_eq!(counts(&world, BOB), "0/0");
    world.apply([rule("underride", ".m.rule.message", PushRuleOp::Enabled(false))]);
    world.apply([rule("override", ".m.rule.master", PushRuleOp::Enabled(true))]);
    assert_eq!(counts(&world, BOB), "0/0");
    assert_eq!(counts(&world, "@carol:example.org"), "2/0");
}

#[test]
fn rooms_can_be_muted_or_kept_to_mentions() {
    let mut world = world();
    world.apply(message("$1", &json!({})));
    world.apply(mentioning("$2", &[BOB]));
    world.apply([put("room", ROOM, &json!({ "actions": [] }))]);
    assert_eq!(counts(&world, BOB), "1/1");
    let condition = json!({ "kind": "event_match", "key": "room_id", "pattern": ROOM });
    world.apply([put("override", ROOM, &json!({ "actions": [], "conditions": [condition] }))]);
    assert_eq!(counts(&world, BOB), "0/0");
    let elsewhere = json!({ "kind": "event_match", "key": "room_id", "pattern": "!elsewhere:example.org" });
    world.apply([
        rule("override", ROOM, PushRuleOp::Removed),
        rule("room", ROOM, PushRuleOp::Removed),
        put("override", "elsewhere", &json!({ "actions": [], "conditions": [elsewhere] })),
    ]);
    assert_eq!(counts(&world, BOB), "2/1");
}

#[test]
fn rules_for_words_and_senders_judge_each_event() {
    let mut world = world();
    for n in 0..210 {
        world.apply(message(&format!("${n}"), &json!({})));
    }
    world.apply(message("$cake", &json!({ "body": "There is cake." })));
    world.apply(threaded("$thread", "$cake"));
    assert_eq!(counts(&world, BOB), "212/0 $cake 1/0");
    let highlight = json!({ "pattern": "cake", "actions": ["notify", { "set_tweak": "highlight" }] });
    world.apply([put("content", "cake", &highlight)]);
    assert_eq!(counts(&world, BOB), "212/1 $cake 1/0");
    world.apply([receipt(BOB, None, "$cake")]);
    assert_eq!(counts(&world, BOB), "1/0 $cake 1/0");
    world.apply([put("sender", ALICE, &json!({ "actions": [] }))]);
    assert_eq!(counts(&world, BOB), "0/0");
    world.check_replay();
}

#[test]
fn a_mention_costs_the_same_whatever_the_members() {
    let cost = |members: usize| {
        let mut world = world();
        let joined = |n| member(&format!("$join{n}"), &format!("@user{n}:example.org"), "join");
        world.apply((0..members).flat_map(joined).collect::<Vec<_>>());
        world.apply(message("$first", &json!({})));
        world.fold(mentioning("$mention", &[BOB])).cost
    };
    assert_eq!(cost(10), cost(500));
}
