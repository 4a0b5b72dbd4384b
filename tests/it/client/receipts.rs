use serde_json::{Value, json};

use crate::common::{Client, TestServer};

/// What a user's clients see of receipts in a room: user, kind, thread and event, a line each.
async fn seen(client: &Client, room: &str) -> Vec<String> {
    let sync = client.get("/sync").await.ok();
    let events = sync["rooms"]["join"][room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    for content in events.iter().filter(|event| event["type"] == "m.receipt").map(|event| &event["content"]) {
        for (event, kinds) in content.as_object().unwrap() {
            for (kind, users) in kinds.as_object().unwrap() {
                for (user, receipt) in users.as_object().unwrap() {
                    lines.push(format!("{user} {kind} {} {event}", receipt["thread_id"].as_str().unwrap_or("-")));
                }
            }
        }
    }
    lines.sort();
    lines
}

async fn fully_read(client: &Client, room: &str) -> Value {
    let path = format!("/user/{}/rooms/{room}/account_data/m.fully_read", client.user);
    client.get(&path).await.json["event_id"].clone()
}

#[tokio::test]
async fn receipts_move_forward_and_private_ones_are_seen_by_their_user() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let (one, two) = (alice.say(&room, "one").await, alice.say(&room, "two").await);
    let read = async |client: &Client, kind: &str, event: &str| {
        client.post(&format!("/rooms/{room}/receipt/{kind}/{event}"), json!({})).await.ok()
    };
    read(&bob, "m.read", &one).await;
    read(&alice, "m.read.private", &two).await;
    let of_bob = |event: &str| format!("{} m.read - {event}", bob.user);
    assert_eq!(seen(&alice, &room).await, [format!("{} m.read.private - {two}", alice.user), of_bob(&one)]);
    assert_eq!(seen(&bob, &room).await, [of_bob(&one)]);

    read(&bob, "m.read", &two).await;
    let before = server.app().view().unwrap().lsn();
    read(&bob, "m.read", &one).await;
    read(&bob, "m.read", &two).await;
    assert_eq!(server.app().view().unwrap().lsn(), before, "what is no step forward is not recorded");
    assert_eq!(seen(&bob, &room).await, [of_bob(&two)]);
    server.finish().await;
}

#[tokio::test]
async fn one_request_moves_all_markers() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let (one, two) = (alice.say(&room, "one").await, alice.say(&room, "two").await);
    let markers = format!("/rooms/{room}/read_markers");
    let before = server.app().view().unwrap().lsn();
    alice.post(&markers, json!({ "m.fully_read": one, "m.read": two, "m.read.private": two })).await.ok();
    assert_eq!(server.app().view().unwrap().lsn(), before.next(), "one request is one record");
    assert_eq!(fully_read(&alice, &room).await, one);
    assert_eq!(seen(&alice, &room).await.len(), 2);

    alice.post(&format!("/rooms/{room}/receipt/m.fully_read/{two}"), json!({})).await.ok();
    alice.post(&markers, json!({ "m.fully_read": one })).await.ok();
    assert_eq!(fully_read(&alice, &room).await, two, "the marker does not go back");
    alice.post(&markers, json!({})).await.ok();
    // Old clients send no body with a receipt.
    let path = format!("/rooms/{room}/receipt/m.read/{two}");
    alice.send_raw(http::Method::POST, &path, "").await.ok();
    server.finish().await;
}

#[tokio::test]
async fn threads_have_receipts_of_their_own() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let root = alice.say(&room, "root").await;
    let relating = |kind: &str, to: &str| json!({ "msgtype": "m.text", "body": "x", "m.relates_to": { "rel_type": kind, "event_id": to } });
    let reply = alice.send(&room, "m.room.message", relating("m.thread", &root)).await;
    let edit = alice.send(&room, "m.room.message", relating("m.replace", &reply)).await;
    let reaction = alice.send(&room, "m.reaction", relating("m.annotation", &edit)).await;
    let other = alice.say(&room, "other").await;
    let read = async |event: &str, thread: Value| {
        alice.post(&format!("/rooms/{room}/receipt/m.read/{event}"), json!({ "thread_id": thread })).await
    };
    for event in [&root, &reply, &edit, &reaction] {
        read(event, json!(root)).await.ok();
    }
    for event in [&root, &other] {
        read(event, json!("main")).await.ok();
    }
    let of_alice = |thread: &str, event: &str| format!("{} m.read {thread} {event}", alice.user);
    let mut expected = [of_alice(&root, &reaction), of_alice("main", &other)];
    expected.sort();
    assert_eq!(seen(&alice, &room).await, expected);

    let invalid = [(&reply, json!("main")), (&other, json!(root)), (&reply, json!(other)), (&root, json!(""))];
    for (event, thread) in invalid {
        assert_eq!(read(event, thread.clone()).await.error(), (400, "M_INVALID_PARAM"), "{thread}");
    }
    assert_eq!(read(&root, json!(7)).await.status, 400);
    let path = format!("/rooms/{room}/receipt/m.fully_read/{root}");
    assert_eq!(alice.post(&path, json!({ "thread_id": "main" })).await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}

#[tokio::test]
async fn only_members_mark_events_of_their_room() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (room, other) = (alice.create(json!({})).await, alice.create(json!({})).await);
    let (here, there) = (alice.say(&room, "here").await, alice.say(&other, "there").await);
    let read = async |client: &Client, kind: &str, event: &str| {
        let reply = client.post(&format!("/rooms/{room}/receipt/{kind}/{event}"), json!({})).await;
        format!("{:?}", reply.error())
    };
    assert_eq!(read(&bob, "m.read", &here).await, r#"(403, "M_FORBIDDEN")"#);
    assert_eq!(read(&alice, "m.read", &there).await, r#"(404, "M_NOT_FOUND")"#);
    assert_eq!(read(&alice, "m.fully_read", "$nowhere").await, r#"(404, "M_NOT_FOUND")"#);
    assert_eq!(read(&alice, "m.nonsense", &here).await, r#"(400, "M_INVALID_PARAM")"#);
    assert_eq!(read(&alice, "m.read", "nonsense").await, r#"(400, "M_INVALID_PARAM")"#);
    let nowhere = alice.post("/rooms/!nowhere:test.example/read_markers", json!({ "m.read": here })).await;
    assert_eq!(nowhere.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}
