use serde_json::json;

use crate::common::{Client, TestServer};

fn path(user: &Client) -> String {
    format!("/presence/{}/status", user.user)
}

#[tokio::test]
async fn presence_is_shared_with_those_in_the_same_room() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    assert_eq!(alice.get(&path(&alice)).await.ok()["presence"], "offline");
    let before = server.app().view().unwrap().lsn();
    alice.put(&path(&alice), json!({ "presence": "online", "status_msg": "Here" })).await.ok();
    assert_eq!(server.app().view().unwrap().lsn(), before, "presence is not on the log");
    let own = alice.get(&path(&alice)).await.ok();
    assert_eq!(
        (&own["presence"], &own["status_msg"], &own["currently_active"]),
        (&json!("online"), &json!("Here"), &json!(true))
    );
    assert_eq!(bob.get(&path(&alice)).await.error(), (403, "M_FORBIDDEN"));

    let room = alice.create(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    assert_eq!(bob.get(&path(&alice)).await.ok()["status_msg"], "Here");
    alice.put(&path(&alice), json!({ "presence": "unavailable" })).await.ok();
    let seen = bob.get(&path(&alice)).await.ok();
    assert_eq!((&seen["presence"], &seen["status_msg"]), (&json!("unavailable"), &json!(null)));
    server.finish().await;
}

#[tokio::test]
async fn presence_that_is_none_is_refused() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    assert_eq!(alice.put(&path(&bob), json!({ "presence": "online" })).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.put(&path(&alice), json!({ "presence": "asleep" })).await.error(), (400, "M_INVALID_PARAM"));
    let long = json!({ "presence": "online", "status_msg": "x".repeat(1_001) });
    assert_eq!(alice.put(&path(&alice), long).await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;

    let server = TestServer::with(&[("presence.enabled", "off")]).await;
    let alice = server.user("alice").await;
    assert_eq!(alice.put(&path(&alice), json!({ "presence": "online" })).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.get(&path(&alice)).await.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}
