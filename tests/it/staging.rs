//! What is too large for one record is staged: records without effect of their own, and one that decides. And the trail
//! of a room leads to all of them.

use everfold::log::{EmbeddedOptions, LogReader};
use projections::models::audit;
use schemas::{Lsn, MAX_RECORD_BYTES, Record};
use serde_json::{Value, json};

use crate::{
    cli::{everfold, printed, run},
    common::{
        Client, HeldLog, TestServer,
        remote::{Remote, message},
    },
};

const EVENTS: usize = 30;

/// A room whose first events are larger than a record may be.
fn large(alias: &str) -> Value {
    let event = |n: usize| {
        let content = json!({ "n": n, "text": "x".repeat(50_000) });
        json!({ "type": "org.example.large", "state_key": n.to_string(), "content": content })
    };
    let state: Vec<Value> = (0..EVENTS).map(event).collect();
    json!({ "preset": "public_chat", "room_alias_name": alias, "visibility": "public", "initial_state": state })
}

async fn start() -> (TestServer, std::sync::Arc<HeldLog>) {
    let settings = [("http.body_bytes", "8388608")];
    TestServer::with_log_of(EmbeddedOptions::default(), &settings, HeldLog::over).await
}

fn facts(log: &dyn LogReader, lsn: Lsn) -> Vec<&'static str> {
    let entry = log.read(lsn, 1, usize::MAX).unwrap().remove(0);
    assert!(entry.bytes.len() <= MAX_RECORD_BYTES);
    Record::decode(&entry.bytes).unwrap().facts.iter().map(|fact| fact.decode().unwrap().name()).collect()
}

/// The positions in a room's trail: by the read models, and by the tools, which must agree.
fn trail(server: &TestServer, room: &str) -> Vec<u64> {
    let view = server.app().view().unwrap();
    let trail: Vec<u64> = audit::of_room(&view, room, Lsn::ZERO).map(|lsn| lsn.unwrap().0).collect();
    let data = &server.app().config.data;
    let lsns = |arguments: &[&str]| -> Vec<u64> {
        let records = printed(&run(&mut everfold(data, arguments), ""));
        records.iter().map(|record| record["lsn"].as_u64().unwrap()).collect()
    };
    assert_eq!(lsns(&["log", "dump", "--room", room]), trail);
    assert_eq!(lsns(&["log", "tail", "--from", "1", "--room", room]), trail);
    trail
}

async fn joined(who: &Client) -> usize {
    who.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_large_room_is_created_by_one_decision() {
    let (server, log) = start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (before, calls) = (server.app().reader.tail(), log.calls().len());
    log.hold_next(1);
    let creating = tokio::spawn({
        let alice = alice.clone();
        async move { alice.create(large("large")).await }
    });
    log.held().await;
    assert_eq!(joined(&alice).await, 0);
    log.release();
    let room = creating.await.unwrap();
    let after = server.app().reader.tail();
    let records = after.0 - before.0;
    assert_eq!(log.calls()[calls..], [usize::try_from(records).unwrap()], "in one append");
    assert!(records >= 4, "{records}");
    for lsn in before.0 + 1..after.0 {
        assert_eq!(facts(&*log, Lsn(lsn)), ["EventBodies"]);
    }
    let decided = facts(&*log, after);
    assert_eq!((decided[0], decided.contains(&"EventLearned")), ("StagedEvents", false));
    assert!(decided.iter().filter(|name| **name == "EventPlaced").count() > EVENTS);
    assert_eq!(trail(&server, &room), (before.0 + 1..=after.0).collect::<Vec<_>>());

    bob.join(&room).await;
    bob.say(&room, "It is roomy").await;
    for n in 0..EVENTS {
        let state = bob.get(&format!("/rooms/{room}/state/org.example.large/{n}")).await.ok();
        assert_eq!((&state["n"], state["text"].as_str().unwrap().len()), (&json!(n), 50_000));
    }
    let found = bob.get("/directory/room/%23large:test.example").await.ok();
    assert_eq!(found["room_id"], room.as_str());
    assert_eq!(bob.get("/publicRooms").await.ok()["chunk"][0]["room_id"], room.as_str());
    let sync = bob.get("/sync").await.ok();
    let shown = &sync["rooms"]["join"][&room];
    let events = ["state", "timeline"].map(|part| shown[part]["events"].as_array().unwrap().len());
    assert!(events.iter().sum::<usize>() > EVENTS, "{events:?}");
    server.finish().await;
}

#[tokio::test]
async fn what_was_staged_for_a_void_decision_has_no_effect() {
    let (server, log) = start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = bob.create(json!({})).await;
    let before = server.app().reader.tail();
    log.hold_next(1);
    let creating = tokio::spawn({
        let alice = alice.clone();
        async move { alice.post("/createRoom", large("wanted")).await }
    });
    log.held().await;
    bob.put("/directory/room/%23wanted:test.example", json!({ "room_id": room })).await.ok();
    log.release();
    assert_eq!(creating.await.unwrap().error(), (400, "M_ROOM_IN_USE"));
    assert!(server.app().reader.tail().0 > before.0 + 4, "its records are kept");
    assert_eq!(joined(&alice).await, 0);
    assert_eq!(alice.get("/publicRooms").await.ok()["chunk"], json!([]));
    alice.create(large("another")).await;
    server.finish().await;
}

#[tokio::test]
async fn an_outlier_is_in_the_trail_of_its_room_also_when_it_gets_its_place() {
    const EVE: &str = "@eve:e.example";
    let (server, _log) = start().await;
    let alice = server.user("alice").await;
    let (room, other) = (alice.room_with(&[]).await, alice.room_with(&[]).await);
    let mut eve = Remote::joined(&server, &room, EVE).await;
    let said = eve.send(EVE, message("first unseen"));
    let before = server.app().reader.tail();
    eve.deliver_outliers(&server, &[&said]).await;
    eve.deliver(&server, &said).await;
    let trail_of_both = trail(&server, &room);
    assert_eq!(trail_of_both[trail_of_both.len() - 2..], [before.0 + 1, before.0 + 2]);
    assert!(facts(&*server.app().reader, Lsn(before.0 + 2)).contains(&"EventRestated"));
    assert!(!trail(&server, &other).contains(&(before.0 + 2)));

    // What names the room by its alias alone.
    let path = "/directory/room/%23named:test.example";
    alice.put(path, json!({ "room_id": room })).await.ok();
    alice.delete(path).await.ok();
    let last = server.app().reader.tail();
    assert_eq!(facts(&*server.app().reader, last), ["AliasRemoved"]);
    assert!(trail(&server, &room).ends_with(&[last.0 - 1, last.0]));
    server.finish().await;
}
