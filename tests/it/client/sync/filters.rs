//! What filters choose of events, and by what relates to them.

use serde_json::{Value, json};

use super::{ask, events, filtered};
use crate::common::{
    Client, TestServer,
    rooms::{bodies, text},
};

#[tokio::test]
async fn fields_of_events_are_chosen() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({ "name": "A name" })).await;
    let content = json!({ "body": "hello", "msgtype": "m.text", "a.b": { "c": 1, "d": 2 } });
    let said = alice.send(&room, "m.room.message", content).await;
    let joined = async |fields: Value| {
        let filter = json!({ "event_fields": fields, "room": { "timeline": { "limit": 1 } } });
        filtered(&alice, &filter).await["rooms"]["join"][&room].clone()
    };
    let chosen = joined(json!(["type", "content.body", r"content.a\.b.c", "unsigned.nothing"])).await;
    let expected = json!({ "type": "m.room.message", "content": { "body": "hello", "a.b": { "c": 1 } } });
    assert_eq!(chosen["timeline"]["events"], json!([expected]));
    let kept = json!(["content", "type"]);
    let keys = |event: &Value| event.as_object().unwrap().keys().cloned().collect::<Value>();
    assert!(events(&chosen["state"]).all(|event| keys(event) == json!(["type"]) || keys(event) == kept), "{chosen}");

    assert_eq!(joined(json!(["event_id"])).await["timeline"]["events"], json!([{ "event_id": said }]));
    let whole = joined(Value::Null).await["timeline"]["events"][0].clone();
    assert!(whole["unsigned"]["age"].is_number() && whole["content"]["a.b"]["d"] == 2);
    assert_eq!(joined(json!([])).await["timeline"]["events"][0]["content"], whole["content"], "no list of fields");
    server.finish().await;
}

#[tokio::test]
async fn events_are_shown_as_servers_send_them() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let kept = alice.say(&room, "hello").await;
    let redacted = alice.say(&room, "forget this").await;
    alice.put(&format!("/rooms/{room}/redact/{redacted}/1"), json!({})).await.ok();
    let filter = json!({ "event_format": "federation", "room": { "timeline": { "limit": 3 } } });
    let sync = filtered(&alice, &filter).await;
    let events = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().clone();
    assert!(events.iter().all(|event| event["hashes"]["sha256"].is_string() && event["depth"].is_u64()));
    assert!(
        events.iter().all(|event| event["signatures"]["test.example"].is_object() && event["event_id"].is_string())
    );
    assert_eq!(events[1]["prev_events"], json!([kept]));
    let shown = |n: usize| (&events[n]["content"]["body"], &events[n]["unsigned"]["age"]);
    assert!(matches!(shown(0), (Value::String(body), Value::Number(_)) if body == "hello"), "{}", events[0]);
    assert!(matches!(shown(1), (Value::Null, Value::Number(_))), "{}", events[1]);
    server.finish().await;
}

async fn relate(client: &Client, room: &str, rel_type: &str, to: &str) -> String {
    let relates = json!({ "rel_type": rel_type, "event_id": to });
    client
        .send(room, "m.room.message", json!({ "body": "related", "msgtype": "m.text", "m.relates_to": relates }))
        .await
}

#[tokio::test]
async fn what_relates_to_events_chooses_them() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut said = Vec::new();
    for body in ["nothing", "thread of alice", "thread of bob", "both", "taken back"] {
        said.push(alice.say(&room, body).await);
    }
    relate(&alice, &room, "m.thread", &said[1]).await;
    relate(&bob, &room, "m.thread", &said[2]).await;
    relate(&alice, &room, "m.thread", &said[3]).await;
    relate(&bob, &room, "m.reference", &said[3]).await;
    let taken = relate(&bob, &room, "m.thread", &said[4]).await;
    bob.redact(&room, &taken).await;

    let by = |senders: &[&Client], types: &[&str]| {
        let senders: Vec<_> = senders.iter().map(|client| client.user.as_str()).collect();
        json!({ "related_by_senders": senders, "related_by_rel_types": types, "limit": 100 })
    };
    let by_type = |rel_type: &str| json!({ "related_by_rel_types": [rel_type], "limit": 100 });
    let threads = ["thread of alice", "thread of bob", "both"];
    for (filter, expected) in [
        (by_type("m.thread"), &threads[..]),
        (by_type("m.reference"), &["both"]),
        (json!({ "related_by_senders": [bob.user], "limit": 100 }), &["thread of bob", "both"]),
        (by(&[&alice], &["m.thread"]), &["thread of alice", "both"]),
        (by(&[&bob], &["m.thread"]), &["thread of bob"]),
        (by(&[&alice], &["m.reference"]), &[]),
        (by(&[&alice, &bob], &["m.thread", "m.reference"]), &threads[..]),
    ] {
        let in_sync = json!({ "room": { "timeline": filter } });
        let stored = alice.post(&format!("/user/{}/filter", alice.user), in_sync.clone()).await.ok();
        let by_id = ask(&alice, &[("filter", &text(&stored["filter_id"]))]).await.ok();
        for sync in [filtered(&alice, &in_sync).await, by_id] {
            let shown = &sync["rooms"]["join"][&room]["timeline"]["events"];
            let shown = if shown.is_null() { &json!([]) } else { shown };
            assert_eq!(bodies(shown), expected, "{filter}");
        }
        let query: String = filter.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let page = alice.page(&room, &format!("dir=f&limit=100&filter={query}")).await;
        assert_eq!(bodies(&page["chunk"]), expected, "{filter}");
    }
    let all = filtered(&alice, &json!({ "room": { "timeline": by(&[], &[]) } })).await;
    assert!(events(&all["rooms"]["join"][&room]["timeline"]).count() > 10, "empty lists ask for nothing");
    let wrong = json!({ "room": { "timeline": { "related_by_senders": 7 } } });
    assert_eq!(ask(&alice, &[("filter", &wrong.to_string())]).await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}
