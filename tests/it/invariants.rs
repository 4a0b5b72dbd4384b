//! The invariants of ARCHITECTURE.md, a test for each, named like it. That read models ahead of their log refuse to
//! start is in `start.rs`; that replay equals live whatever the batch sizes, in `workload.rs`.

use std::collections::BTreeSet;

use everfold::{commands::Decision, log::LogReader};
use futures::future::join_all;
use projections::{
    Model, Position, View,
    models::{admission, events, timeline},
};
use schemas::{
    Draft, Fact, Json, Key, Lsn, Origin, Record, Tag,
    admission::Void,
    facts::{EventLearned, EventPlaced, Verdict},
};
use serde_json::{Value, json};

use crate::common::{Client, HeldLog, TestServer};

async fn joined(client: &Client) -> usize {
    client.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len()
}

/// What was said in a room, in order.
fn said(view: &View, room: &str) -> Vec<String> {
    let room = events::room_nid(view, room).unwrap().unwrap();
    let texts = timeline::forward(view, room, Position::START).map(|row| {
        let text = events::client(view, row.unwrap().1.event).unwrap().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["content"]["body"].as_str().map(ToOwned::to_owned)
    });
    texts.flatten().collect()
}

fn voids(view: &View, from: Lsn) -> Vec<&'static str> {
    admission::voids(view, from).map(|row| row.unwrap().1.reason()).collect()
}

#[tokio::test]
async fn append_before_effect() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    log.hold_next(1);
    let creating = tokio::spawn({
        let alice = alice.clone();
        async move { alice.post("/createRoom", json!({})).await.ok() }
    });
    log.held().await;
    // Decided, but not on the log: nothing of it is there, and nobody is told that it is.
    assert_eq!(joined(&alice).await, 0);
    assert!(!creating.is_finished());
    log.release();
    creating.await.unwrap();
    assert_eq!(joined(&alice).await, 1);
    server.finish().await;
}

#[tokio::test]
async fn a_log_that_can_not_be_written_changes_nothing_until_it_can() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let before = server.app().view().unwrap().lsn();
    log.set_full(true);
    let data = format!("/user/{}/account_data/org.example", alice.user);
    let message = |n: usize| (format!("/rooms/{room}/send/m.room.message/{n}"), json!({ "body": n.to_string() }));
    let many = (0..20).map(message).chain([
        (data.clone(), json!({ "n": 1 })),
        (format!("/rooms/{room}/state/m.room.name"), json!({ "name": "new" })),
        ("/sendToDevice/m.test/1".to_owned(), json!({ "messages": { bob.user.clone(): { "*": {} } } })),
    ]);
    let many: Vec<(String, Value)> = many.collect();
    for reply in join_all(many.iter().map(|(path, body)| alice.put(path, body.clone()))).await {
        assert_eq!(reply.error(), (503, "M_UNKNOWN"));
        assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);
    }
    assert_eq!(alice.post("/createRoom", json!({})).await.status, 503);
    assert_eq!(server.client().log_in("alice", "password of alice", json!({})).await.status, 503);
    // Reading goes on, and shows nothing of it.
    assert_eq!(alice.get(&data).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(joined(&alice).await, 1);
    assert_eq!(server.app().view().unwrap().lsn(), before);
    log.set_full(false);
    for reply in join_all(many.iter().map(|(path, body)| alice.put(path, body.clone()))).await {
        reply.ok();
    }
    let said = said(&server.app().view().unwrap(), &room);
    assert_eq!(said.len(), 20);
    assert_eq!(said.into_iter().collect::<BTreeSet<_>>(), (0..20).map(|n| n.to_string()).collect());
    server.finish().await;
}

#[tokio::test]
async fn one_decision_one_record_one_append() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let before = server.app().view().unwrap().lsn();
    let calls = log.calls().len();
    let body = json!({
        "preset": "public_chat", "name": "the room", "topic": "of one record", "room_alias_name": "one",
        "invite": [bob.user], "initial_state": [{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }],
        "visibility": "public",
    });
    alice.post("/createRoom", body).await.ok();
    assert_eq!(log.calls()[calls..], [1]);
    assert_eq!(server.app().view().unwrap().lsn(), before.next());
    let entry = log.read(before.next(), 1, usize::MAX).unwrap().remove(0);
    let facts = Record::decode(&entry.bytes).unwrap().facts;
    let names: Vec<_> = facts.iter().map(|fact| fact.decode().unwrap().name()).collect();
    assert!(names.iter().filter(|name| **name == "EventPlaced").count() >= 9, "{names:?}");
    assert!(names.contains(&"AliasSet") && names.contains(&"RoomPublished"), "{names:?}");
    server.finish().await;
}

/// What the record of a sent message says, as if it were by somebody else.
fn forged(log: &HeldLog, at: Lsn, id: &str, by: &str, verdict: Verdict) -> Vec<Fact> {
    let entry = log.read(at, 1, usize::MAX).unwrap().remove(0);
    let facts = Record::decode(&entry.bytes).unwrap().facts;
    let mut forged = Vec::new();
    for fact in facts {
        match fact.decode().unwrap() {
            Fact::EventLearned(learned) => {
                let mut skeleton: Value = serde_json::from_slice(&learned.skeleton.0).unwrap();
                skeleton["sender"] = json!(by);
                let skeleton = Json::from(skeleton.to_string());
                forged.push(EventLearned { id: id.to_owned(), skeleton, ..learned }.into());
            }
            Fact::EventPlaced(placed) => forged.push(EventPlaced { id: id.to_owned(), verdict, ..placed }.into()),
            _ => {}
        }
    }
    forged
}

#[tokio::test]
async fn facts_come_with_verdicts() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    alice.say(&room, "hello").await;
    let at = server.app().view().unwrap().lsn();
    // No rule would let a stranger in: what counts is what was decided.
    for (id, verdict) in [
        ("$accepted-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Verdict::Accepted),
        ("$soft-failed-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Verdict::SoftFailed),
        ("$rejected-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Verdict::Rejected),
    ] {
        server.record(forged(&log, at, id, "@stranger:test.example", verdict)).await;
    }
    let sync = alice.get("/sync").await.ok();
    let timeline = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().clone();
    let senders: Vec<_> =
        timeline.iter().filter(|event| event["content"]["body"] == "hello").map(|event| &event["sender"]).collect();
    assert_eq!(senders, [&json!(alice.user), &json!("@stranger:test.example")]);
    server.finish().await;
}

#[tokio::test]
async fn the_log_decides() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let rooms = [alice.create(json!({})).await, bob.create(json!({})).await];
    let before = server.app().view().unwrap().lsn();
    let path = "/directory/room/%23wanted:test.example";
    log.hold_next(1);
    let late = tokio::spawn({
        let (alice, body) = (alice.clone(), json!({ "room_id": rooms[0] }));
        async move { alice.put(path, body).await }
    });
    log.held().await;
    // Alice was first to decide; Bob is first on the log.
    bob.put(path, json!({ "room_id": rooms[1] })).await.ok();
    log.release();
    assert_eq!(late.await.unwrap().error(), (409, "M_UNKNOWN"));
    assert_eq!(bob.get(path).await.ok()["room_id"], rooms[1].as_str());
    assert_eq!(voids(&server.app().view().unwrap(), before), ["stale_read"], "her record is kept, and void");
    server.finish().await;
}

#[tokio::test]
async fn messages_behind_a_void_record_are_sent_in_their_order() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    for foreign in [false, true] {
        let before = server.app().view().unwrap().lsn();
        log.hold_next(1);
        let calls = log.calls().len();
        let mut sent = Vec::new();
        for n in 0..5 {
            let (alice, room) = (alice.clone(), room.clone());
            sent.push(tokio::spawn(async move { alice.say(&room, &format!("{foreign} {n}")).await }));
            if n == 0 {
                log.held().await;
            }
            // The lane has taken it.
            while log.calls().len() <= calls + n {
                tokio::task::yield_now().await;
            }
        }
        if foreign {
            // As another node's record would: the state of the room is another now.
            let draft = Draft { writes: vec![Key::new(Tag::RoomState, &room)], ..Draft::default() };
            let decide = move |_: &View| Ok(Decision::append_then(draft.clone(), ()));
            server.app().commands.execute(Origin::Server, decide).await.unwrap();
        }
        log.release();
        let ids = join_all(sent).await.into_iter().map(Result::unwrap).collect::<BTreeSet<_>>();
        assert_eq!(ids.len(), 5);
        let view = server.app().view().unwrap();
        let expected: Vec<String> = (0..5).map(|n| format!("{foreign} {n}")).collect();
        assert!(said(&view, &room).ends_with(&expected), "{:?}", said(&view, &room));
        let lost = voids(&view, before.next());
        assert_eq!(lost.iter().filter(|why| **why == Void::LostPredecessor.reason()).count(), 4, "{lost:?}");
        assert_eq!(lost.contains(&"stale_read"), foreign, "{lost:?}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_your_writes() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    // Each through a connection of its own.
    let elsewhere = || server.client().with_token(alice.token());
    let room = alice.create(json!({})).await;
    for n in 0..20 {
        let data = format!("/user/{}/account_data/org.example", alice.user);
        alice.put(&data, json!({ "n": n })).await.ok();
        assert_eq!(elsewhere().get(&data).await.ok()["n"], n);
        let name = json!({ "displayname": format!("Alice {n}") });
        alice.put(&format!("/profile/{}/displayname", alice.user), name.clone()).await.ok();
        assert_eq!(elsewhere().get(&format!("/profile/{}/displayname", alice.user)).await.ok(), name);
        let event = alice.say(&room, &n.to_string()).await;
        let sync = elsewhere().get("/sync").await.ok();
        let timeline = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().clone();
        assert!(timeline.iter().any(|shown| shown["event_id"] == event.as_str()), "{n} is not there");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_response_one_view() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let create = async {
        for n in 0..30 {
            alice.create(json!({ "name": format!("room {n}"), "topic": "whole" })).await;
        }
    };
    let look = async {
        loop {
            let sync = alice.get("/sync").await.ok();
            let rooms = sync["rooms"]["join"].as_object().cloned().unwrap_or_default();
            for (id, room) in &rooms {
                let shown =
                    ["state", "timeline"].map(|part| room[part]["events"].as_array().cloned().unwrap_or_default());
                let kinds: BTreeSet<_> =
                    shown.iter().flatten().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
                for kind in ["m.room.create", "m.room.member", "m.room.name", "m.room.topic"] {
                    assert!(kinds.contains(kind), "{id} is there without {kind}: {kinds:?}");
                }
            }
            if rooms.len() == 30 {
                return;
            }
        }
    };
    futures::join!(create, look, async {
        // Views stay whole while tables are swapped.
        let models = vec![Model::State, Model::Timeline, Model::Membership];
        server.rebuild(models).await.unwrap();
    });
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_ups_carry_a_position() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let start = bob.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let talk = async {
        for n in 0..100 {
            alice.say(&room, &n.to_string()).await;
        }
    };
    // However wake-ups and views fall together, what comes is all there is, once and in order.
    let listen = async {
        let (mut since, mut heard) = (start, Vec::new());
        while heard.len() < 100 {
            let sync = bob.get(&format!("/sync?timeout=30000&since={since}")).await.ok();
            let timeline = &sync["rooms"]["join"][&room]["timeline"];
            assert_ne!(timeline["limited"], true);
            let events = timeline["events"].as_array().cloned().unwrap_or_default();
            heard.extend(events.iter().filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned)));
            since = sync["next_batch"].as_str().unwrap().to_owned();
        }
        heard
    };
    let ((), heard) = futures::join!(talk, listen);
    assert_eq!(heard, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    server.finish().await;
}
