//! Whose devices changed, and whose are followed no more.

use serde_json::{Value, json};

use super::{first, next, token};
use crate::common::{Client, SigningKey, TestServer};

async fn upload_keys(of: &Client) {
    let keys = json!({ "device_keys": SigningKey::of_device(&of.device).device_keys(of) });
    of.post("/keys/upload", keys).await.ok();
}

async fn encrypt(client: &Client, room: &str) {
    client.set(room, "m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await;
}

/// Users, sorted.
fn users<'a>(users: impl IntoIterator<Item = &'a Client>) -> Value {
    let mut users: Vec<_> = users.into_iter().map(|client| client.user.as_str()).collect();
    users.sort_unstable();
    json!(users)
}

#[tokio::test]
async fn all_in_a_room_that_becomes_encrypted_are_named_to_each_other() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&bob]).await;
    let (of_alice, of_bob) = (first(&alice).await, first(&bob).await);
    carol.join(&room).await;
    let (of_alice, of_carol) = (next(&alice, &of_alice).await, first(&carol).await);
    assert_eq!(of_alice["device_lists"], Value::Null, "nothing there is encrypted");

    encrypt(&alice, &room).await;
    let sync = next(&alice, &of_alice).await;
    assert_eq!(sync["device_lists"], json!({ "changed": users([&bob, &carol]) }));
    assert_eq!(next(&bob, &of_bob).await["device_lists"], json!({ "changed": users([&alice, &carol]) }));
    assert_eq!(next(&carol, &of_carol).await["device_lists"], json!({ "changed": users([&alice, &bob]) }));
    assert_eq!(next(&alice, &sync).await["device_lists"], Value::Null, "once");
    bob.leave(&room).await;
    bob.join(&room).await;
    assert_eq!(next(&alice, &sync).await["device_lists"], json!({ "changed": users([&bob]) }), "away in between");
    server.finish().await;
}

#[tokio::test]
async fn changes_between_two_tokens_are_those_between_them() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (carol, dave) = (server.user("carol").await, server.user("dave").await);
    let room = alice.room_with(&[&bob, &dave]).await;
    encrypt(&alice, &room).await;
    upload_keys(&bob).await;
    let from = first(&alice).await;
    let between = async |from: &Value, to: &Value| {
        let changes = alice.get(&format!("/keys/changes?from={}&to={}", token(from), token(to))).await.ok();
        (changes["changed"].clone(), changes["left"].clone())
    };
    upload_keys(&dave).await;
    let to = first(&alice).await;
    upload_keys(&bob).await;
    upload_keys(&bob.on_device("TABLET").await).await;
    carol.join(&room).await;
    let later = first(&alice).await;
    assert_eq!(between(&from, &to).await, (users([&dave]), json!([])));
    assert_eq!(between(&to, &later).await, (users([&bob, &carol]), json!([])));

    // What changed again later has changed before all the same.
    upload_keys(&dave.on_device("TABLET").await).await;
    assert_eq!(between(&from, &to).await, (users([&dave]), json!([])));
    carol.leave(&room).await;
    let last = first(&alice).await;
    assert_eq!(between(&to, &later).await, (users([&bob, &carol]), json!([])));
    assert_eq!(between(&later, &last).await, (users([&dave]), users([&carol])));
    assert_eq!(between(&to, &to).await, (json!([]), json!([])));
    server.finish().await;
}

#[tokio::test]
async fn who_is_gone_is_not_told_who_came_after_them() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&bob]).await;
    encrypt(&alice, &room).await;
    let before = first(&bob).await;
    bob.leave(&room).await;
    carol.join(&room).await;
    assert_eq!(next(&bob, &before).await["device_lists"], json!({ "left": users([&alice]) }));
    server.finish().await;
}
