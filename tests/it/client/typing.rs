use serde_json::{Value, json};

use crate::common::{Client, TestServer};

async fn typing(client: &Client, room: &str) -> Value {
    let sync = client.get("/sync").await.ok();
    let events = sync["rooms"]["join"][room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
    let event = events.into_iter().find(|event| event["type"] == "m.typing");
    event.map_or(Value::Null, |event| event["content"]["user_ids"].clone())
}

#[tokio::test]
async fn members_see_who_types() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let path = |user: &Client| format!("/rooms/{room}/typing/{}", user.user);
    let before = server.app().view().unwrap().lsn();
    alice.put(&path(&alice), json!({ "typing": true, "timeout": 30_000 })).await.ok();
    // The time-out may be missing.
    bob.put(&path(&bob), json!({ "typing": true })).await.ok();
    assert_eq!(typing(&bob, &room).await, json!([alice.user, bob.user]));
    alice.put(&path(&alice), json!({ "typing": false })).await.ok();
    assert_eq!(typing(&bob, &room).await, json!([bob.user]));
    assert_eq!(server.app().view().unwrap().lsn(), before, "typing is not on the log");

    assert_eq!(alice.put(&path(&bob), json!({ "typing": true })).await.error(), (403, "M_FORBIDDEN"));
    let carol = server.user("carol").await;
    assert_eq!(carol.put(&path(&carol), json!({ "typing": true })).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.put(&path(&alice), json!({})).await.error(), (400, "M_MISSING_PARAM"));
    assert_eq!(alice.put(&path(&alice), json!({ "typing": "yes" })).await.error(), (400, "M_BAD_JSON"));
    server.finish().await;
}
