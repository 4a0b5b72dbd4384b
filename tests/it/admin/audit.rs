use std::{collections::BTreeSet, time::Duration};

use http::Method;
use schemas::{Expect, Header, Key, Lsn, Origin, RawFact, Read, Record, Tag, facts::RoomBlocked};
use serde_json::{Value, json};

use crate::common::{Client, TestServer};

/// The records of a page, and where the next begins.
async fn audit(admin: &Client, query: &str) -> (Vec<Value>, Option<u64>) {
    let page = admin.get(&format!("/_everfold/admin/v1/audit?{query}")).await.ok();
    (page["records"].as_array().unwrap().clone(), page["next_token"].as_u64())
}

fn lsns(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["lsn"].as_u64().unwrap()).collect()
}

/// What was done, in each record.
fn actions(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["actions"][0].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_trail_says_who_did_what_to_whom_when_and_why() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let (admin, anna, bert) = (server.admin("root").await, server.user("anna").await, server.user("bert").await);
    let room = anna.room_with(&[&bert]).await;
    let begun = server.app().view().unwrap().lsn().0;
    clock.advance(Duration::from_secs(60));
    anna.say(&room, "hello").await;
    let kick = json!({ "user_id": bert.user, "reason": "rude" });
    anna.post(&format!("/rooms/{room}/kick"), kick).await.ok();
    clock.advance(Duration::from_secs(60));
    let block = json!({ "block": true, "reason": "spam" });
    admin.put(&format!("/_synapse/admin/v1/rooms/{room}/block"), block).await.ok();
    let path = format!("/_synapse/admin/v1/users/{}/admin", bert.user);
    admin.put(&path, json!({ "admin": true })).await.ok();

    let (records, next) = audit(&admin, &format!("since={}&dir=f", begun + 1)).await;
    assert_eq!(next, None);
    assert_eq!(records.len(), 4, "{records:?}");
    let [said, kicked, blocked, made] = &records[..] else { panic!() };
    assert_eq!(
        [&said["actor"], &said["actor_type"], &said["device"]],
        [&json!(anna.user), &json!("user"), &json!(anna.device)]
    );
    assert_eq!((&said["targets"], &said["reason"], &said["void"]), (&json!([]), &json!(null), &json!(null)));
    assert_eq!(said["events"][0]["type"], "m.room.message");
    assert_eq!((&kicked["targets"], &kicked["reason"]), (&json!([bert.user]), &json!("rude")));
    assert_eq!(kicked["events"][0]["state_key"], json!(bert.user));
    assert_eq!(
        blocked,
        &json!({
            "lsn": blocked["lsn"], "log_time": 1_700_000_120_000_u64, "record": blocked["record"],
            "actor": admin.user, "actor_type": "admin", "device": null, "actions": ["room_blocked"],
            "targets": [room], "reason": "spam", "void": null, "events": [],
        })
    );
    assert_eq!((&made["actions"][0], &made["targets"]), (&json!("admin_set"), &json!([bert.user])));

    let some = async |query: &str| {
        let (records, _) = audit(&admin, query).await;
        lsns(&records).into_iter().filter(|lsn| *lsn > begun).map(|lsn| lsn - begun).collect::<Vec<_>>()
    };
    let (user, by) = (&bert.user, &anna.user);
    for (query, expected) in [
        ("", vec![4, 3, 2, 1]),
        ("by_administrators=true", vec![4, 3]),
        ("by_administrators=true&dir=f", vec![3, 4]),
        ("action=room_blocked", vec![3]),
        ("action=event_placed", vec![2, 1]),
        ("action=event_placed&by_administrators=true", vec![]),
        (&format!("target={user}"), vec![4, 2]),
        (&format!("target={user}&actor={by}"), vec![2]),
        (&format!("target={room}"), vec![3]),
        (&format!("room={room}"), vec![3, 2, 1]),
        (&format!("room={room}&by_administrators=true"), vec![3]),
        (&format!("actor={by}"), vec![2, 1]),
        ("since=1700000060000&until=1700000119999", vec![2, 1]),
        ("since=2023-11-14T22:15:20Z", vec![4, 3]),
        (&format!("since={}&until={}", begun + 2, begun + 3), vec![3, 2]),
        ("actor=@nobody:test.example", vec![]),
    ] {
        assert_eq!(some(query).await, expected, "{query}");
    }
    server.finish().await;
}

#[tokio::test]
async fn the_trail_is_shown_a_page_at_a_time_both_ways() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    anna.room_with(&[]).await;
    let last = server.app().view().unwrap().lsn().0;
    for dir in ["f", "b"] {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let (records, next) = audit(&admin, &format!("dir={dir}&limit=3{from}")).await;
            assert!(records.len() <= 3);
            found.extend(lsns(&records));
            let Some(next) = next else { break };
            from = format!("&from={next}");
        }
        let mut all: Vec<u64> = (1..=last).collect();
        if dir == "b" {
            all.reverse();
        }
        assert_eq!(found, all);
    }
    for query in
        ["action=nothing", "since=yesterday", "until=-1", "dir=x", "limit=few", "void=1", "by_administrators=me"]
    {
        let reply = admin.get(&format!("/_everfold/admin/v1/audit?{query}")).await;
        assert_eq!(reply.error(), (400, "M_INVALID_PARAM"), "{query}");
    }
    assert_eq!(anna.get("/_everfold/admin/v1/audit").await.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}

#[tokio::test]
async fn what_had_no_effect_is_shown_to_whoever_asks_for_it() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let commands = &server.app().commands;
    let header = Header {
        reads: vec![Read { key: Key::new(Tag::Genesis, ""), expect: Expect::Absent }],
        ..Header::plain(commands.parts().random.mark(), 1, Origin::Admin { user: admin.user.clone() })
    };
    let fact = RoomBlocked { room: "!r:test.example".into(), blocked: true, reason: None };
    let record = Record { header, facts: vec![RawFact::from(&fact.into())] };
    let lsn = commands.parts().log.append(vec![record.encode().unwrap().into()]).remove(0).await.unwrap().unwrap();
    assert!(server.app().progress.reached(lsn, Duration::from_secs(60)).await);
    assert_eq!(audit(&admin, "action=room_blocked").await.0, Vec::<Value>::new());
    for query in ["action=room_blocked&void=true", "target=!r:test.example&void=true", "room=!r:test.example&void=true"]
    {
        let (records, _) = audit(&admin, query).await;
        assert_eq!((lsns(&records), &records[0]["void"]), (vec![lsn.0], &json!("stale_read")), "{query}");
    }
    assert_eq!(admin.get("/_synapse/admin/v1/rooms/!r:test.example/block").await.ok()["block"], false);
    server.finish().await;
}

/// Everything that is asked of a room now, in the order of what it says.
struct Live {
    lsn: Lsn,
    at_ms: u64,
    members: BTreeSet<String>,
    state: BTreeSet<String>,
}

fn texts(values: &Value, of: impl Fn(&Value) -> &Value) -> BTreeSet<String> {
    values.as_array().unwrap().iter().map(|value| of(value).as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_room_is_shown_as_it_was_at_any_time() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let (admin, anna, bert) = (server.admin("root").await, server.user("anna").await, server.user("bert").await);
    let before = server.app().view().unwrap().lsn();
    let room = anna.room_with(&[]).await;
    let synapse = |what: &str| format!("/_synapse/admin/v1/rooms/{room}/{what}");
    let then = |what: &str| format!("/_everfold/admin/v1/rooms/{room}/{what}");
    let mut live = Vec::new();
    for step in 0..8 {
        clock.advance(Duration::from_secs(60));
        match step {
            0 => bert.join(&room).await,
            1 => drop(anna.say(&room, "hello").await),
            2 => drop(anna.set(&room, "m.room.name", "", json!({ "name": "one" })).await),
            3 => bert.leave(&room).await,
            4 => anna.invite(&room, &bert).await,
            5 => drop(anna.set(&room, "m.room.name", "", json!({ "name": "two" })).await),
            6 => bert.join(&room).await,
            _ => anna.leave(&room).await,
        }
        let members = admin.get(&synapse("members")).await.ok();
        let state = admin.get(&synapse("state")).await.ok();
        live.push(Live {
            lsn: server.app().view().unwrap().lsn(),
            at_ms: server.app().clock.now_ms(),
            members: texts(&members["members"], |member| member),
            state: texts(&state["state"], |event| &event["event_id"]),
        });
    }
    for known in &live {
        for at in [known.lsn.to_string(), (known.at_ms + 59_999).to_string(), format!("{}ms", known.at_ms)] {
            let members = admin.get(&then(&format!("members?at={at}"))).await.ok();
            assert_eq!(texts(&members["members"], |member| member), known.members, "{at}");
            assert_eq!((&members["lsn"], &members["total"]), (&json!(known.lsn), &json!(known.members.len())));
            let state = admin.get(&then(&format!("state?at={at}"))).await.ok();
            assert_eq!(texts(&state["state"], |event| &event["event_id"]), known.state, "{at}");
        }
    }
    let invited = admin.get(&then(&format!("members?membership=invite&at={}", live[4].lsn))).await.ok();
    assert_eq!(invited["members"], json!([bert.user]));
    let name = admin.get(&then(&format!("state?type=m.room.name&at={}", live[3].lsn))).await.ok();
    assert_eq!((name["state"].as_array().unwrap().len(), &name["state"][0]["content"]["name"]), (1, &json!("one")));
    for at in [before.to_string(), "0".to_owned(), "5ms".to_owned()] {
        assert_eq!(admin.get(&then(&format!("state?at={at}"))).await.ok()["state"], json!([]));
        assert_eq!(admin.get(&then(&format!("members?at={at}"))).await.ok()["total"], 0);
    }
    // Now, if it isn't said.
    let members = admin.get(&then("members")).await.ok();
    assert_eq!(texts(&members["members"], |member| member), live[7].members);
    for what in ["state", "members"] {
        for at in ["99999", "tomorrow", "-1"] {
            let reply = admin.get(&then(&format!("{what}?at={at}"))).await;
            assert_eq!(reply.error(), (400, "M_INVALID_PARAM"), "{what} {at}");
        }
        let none = admin.get(&format!("/_everfold/admin/v1/rooms/!none:test.example/{what}")).await;
        assert_eq!(none.error(), (404, "M_NOT_FOUND"));
    }
    assert_eq!(admin.get(&then("members?membership=some")).await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}

#[tokio::test]
async fn the_history_of_a_room_is_its_changes_and_what_administrators_did() {
    let server = TestServer::start().await;
    let (admin, anna, bert) = (server.admin("root").await, server.user("anna").await, server.user("bert").await);
    let room = anna.create(json!({ "preset": "public_chat", "name": "one" })).await;
    let other = bert.create(json!({})).await;
    let one =
        admin.get(&format!("/_synapse/admin/v1/rooms/{room}/state?type=m.room.name")).await.ok()["state"][0].clone();
    anna.say(&room, "hello").await;
    let two = anna.set(&room, "m.room.name", "", json!({ "name": "two" })).await;
    bert.set(&other, "m.room.name", "", json!({ "name": "other" })).await;
    admin.put(&format!("/_synapse/admin/v1/rooms/{room}/block"), json!({ "block": true })).await.ok();
    anna.leave(&room).await;

    let history = async |query: &str| {
        let page = admin.get(&format!("/_everfold/admin/v1/rooms/{room}/history?{query}")).await.ok();
        (page["history"].as_array().unwrap().clone(), page["next_token"].as_u64())
    };
    let (all, next) = history("").await;
    assert_eq!(next, None);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all.is_sorted_by_key(|step| step["lsn"].as_u64()));
    let whole = all[0]["state"].as_array().unwrap();
    assert!(whole.iter().any(|change| change["type"] == "m.room.create") && whole.len() > 6);
    assert_eq!(
        all[1]["state"],
        json!([{ "type": "m.room.name", "state_key": "", "event": all[1]["state"][0]["event"], "replaces": one["event_id"] }])
    );
    let event = &all[1]["state"][0]["event"];
    assert_eq!((&event["event_id"], &event["content"]["name"]), (&json!(two), &json!("two")));
    assert_eq!(
        (actions(&all[2..3]), &all[2]["state"], &all[2]["actor"]),
        (vec!["room_blocked"], &json!([]), &json!(admin.user))
    );
    assert_eq!(all[3]["state"][0]["state_key"], json!(anna.user));

    for (dir, size) in [("f", 1), ("f", 3), ("b", 1), ("b", 2)] {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let (steps, next) = history(&format!("dir={dir}&limit={size}{from}")).await;
            assert!(steps.len() <= size);
            found.extend(lsns(&steps));
            let Some(next) = next else { break };
            from = format!("&from={next}");
        }
        let mut expected = lsns(&all);
        if dir == "b" {
            expected.reverse();
        }
        assert_eq!(found, expected, "{dir} {size}");
    }
    // A room that nobody here knows has what was done to it.
    let unknown = "/_everfold/admin/v1/rooms/!unknown:other.example/history";
    assert_eq!(admin.get(unknown).await.error(), (404, "M_NOT_FOUND"));
    let block = "/_synapse/admin/v1/rooms/!unknown:other.example/block";
    admin.send_raw(Method::PUT, block, r#"{"block":true}"#).await.ok();
    assert_eq!(admin.get(unknown).await.ok()["history"][0]["actions"], json!(["room_blocked"]));
    server.finish().await;
}
