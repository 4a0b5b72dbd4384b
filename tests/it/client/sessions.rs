use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn passwords_log_in_by_any_form_of_the_name() {
    let server = TestServer::start().await;
    let client = server.client();
    assert_eq!(client.get("/login").await.ok()["flows"][0], json!({ "type": "m.login.password" }));
    server.user("alice").await;
    for name in ["alice", "@alice:test.example", "Alice"] {
        let reply = client.log_in(name, "password of alice", json!({ "device_id": "DESK" })).await.ok();
        assert_eq!((&reply["user_id"], &reply["device_id"]), (&json!("@alice:test.example"), &json!("DESK")), "{name}");
    }
    let old = json!({ "type": "m.login.password", "user": "alice", "password": "password of alice" });
    let old = client.logged_in(&client.post("/login", old).await.ok());
    assert_eq!(old.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 3);
    for (name, password) in [("alice", "wrong"), ("nobody", "wrong"), ("@alice:other.example", "wrong"), ("a b", "")] {
        assert_eq!(client.log_in(name, password, json!({})).await.error(), (403, "M_FORBIDDEN"), "{name}");
    }
    server.finish().await;
}

#[tokio::test]
async fn a_login_that_makes_no_sense_is_refused() {
    let server = TestServer::start().await;
    let client = server.client();
    assert_eq!(client.post("/login", json!({})).await.error(), (400, "M_MISSING_PARAM"));
    assert_eq!(client.send_raw(Method::POST, "/login", "").await.error(), (400, "M_MISSING_PARAM"));
    assert_eq!(client.send_raw(Method::POST, "/login", "{").await.error(), (400, "M_NOT_JSON"));
    assert_eq!(client.post("/login", json!([])).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(client.post("/login", json!({ "type": 1 })).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(client.post("/login", json!({ "type": "m.login.magic" })).await.error(), (400, "M_UNKNOWN"));
    let missing = json!({ "type": "m.login.password", "password": "x" });
    assert_eq!(client.post("/login", missing).await.error(), (400, "M_MISSING_PARAM"));
    let mail = json!({ "type": "m.id.thirdparty", "medium": "email", "address": "a@b.example" });
    let mail = json!({ "type": "m.login.password", "password": "x", "identifier": mail });
    assert_eq!(client.post("/login", mail).await.error(), (403, "M_FORBIDDEN"));
    server.user("alice").await;
    for device in [json!(""), json!("x".repeat(300))] {
        let reply = client.log_in("alice", "password of alice", json!({ "device_id": device })).await;
        assert_eq!(reply.error(), (400, "M_INVALID_PARAM"));
    }
    server.finish().await;
}

#[tokio::test]
async fn a_login_on_a_device_ends_its_tokens_so_far() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let other = server.client().log_in("alice", "password of alice", json!({})).await.ok();
    let other = server.client().logged_in(&other);
    let again = json!({ "device_id": alice.device, "initial_device_display_name": "ignored" });
    let again = server.client().logged_in(&server.client().log_in("alice", "password of alice", again).await.ok());
    assert_eq!(alice.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(again.get("/account/whoami").await.ok()["device_id"], json!(alice.device));
    other.get("/account/whoami").await.ok();

    again.post("/logout", json!({})).await.ok();
    let refused = again.get("/account/whoami").await;
    assert_eq!((refused.error(), &refused["soft_logout"]), ((401, "M_UNKNOWN_TOKEN"), &json!(null)));
    other.post("/logout/all", json!({})).await.ok();
    assert_eq!(other.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    server.finish().await;
}

#[tokio::test]
async fn tokens_outlive_a_restart() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let server = server.restart().await;
    server.client().with_token(alice.token()).get("/account/whoami").await.ok();
    server.finish().await;
}

#[tokio::test]
async fn refresh_tokens_give_new_tokens() {
    let (server, clock) = TestServer::with_clock(&[("sessions.refreshable_access_token_seconds", "100")]).await;
    let client = server.client();
    server.user("alice").await;
    let login = client.log_in("alice", "password of alice", json!({ "refresh_token": true })).await.ok();
    assert_eq!(login["expires_in_ms"], 100_000);
    let first = client.logged_in(&login);
    clock.advance(Duration::from_secs(100));
    let over = first.get("/account/whoami").await;
    assert_eq!((over.error(), &over["soft_logout"]), ((401, "M_UNKNOWN_TOKEN"), &json!(true)));

    let refresh = async |token: &serde_json::Value| client.post("/refresh", json!({ "refresh_token": token })).await;
    let second = refresh(&login["refresh_token"]).await.ok();
    let token = |reply: &serde_json::Value| client.with_token(reply["access_token"].as_str().unwrap());
    token(&second).get("/account/whoami").await.ok();
    // The reply may have been lost: until the new tokens are used, the old refresh token works again.
    let instead = refresh(&login["refresh_token"]).await.ok();
    assert_eq!(token(&second).get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    let third = refresh(&instead["refresh_token"]).await.ok();
    assert_eq!(refresh(&login["refresh_token"]).await.error(), (401, "M_UNKNOWN_TOKEN"));
    let device = token(&third).get("/account/whoami").await.ok();
    assert_eq!(device["device_id"], login["device_id"]);
    assert_eq!(refresh(&json!("nonsense")).await.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(client.post("/refresh", json!({})).await.error(), (400, "M_MISSING_PARAM"));
    server.finish().await;
}

#[tokio::test]
async fn tokens_expire_by_log_time_too() {
    let (server, clock) = TestServer::with_clock(&[("sessions.access_token_seconds", "100")]).await;
    let alice = server.user("alice").await;
    clock.advance(Duration::from_secs(99));
    alice.get("/account/whoami").await.ok();
    // Something happens when it is over, which every node sees ...
    clock.advance(Duration::from_secs(1));
    server.user("bob").await;
    // ... also one whose clock is behind.
    let (server, clock) = server.restart_at(1_700_000_000_000).await;
    let over = server.client().with_token(alice.token()).get("/account/whoami").await;
    assert_eq!((over.error(), &over["soft_logout"]), ((401, "M_UNKNOWN_TOKEN"), &json!(true)));
    // A new token lasts as long as it should by log time.
    let login = server.client().log_in("alice", "password of alice", json!({})).await.ok();
    let again = server.client().logged_in(&login);
    again.get("/account/whoami").await.ok();
    clock.advance(Duration::from_secs(199));
    again.get("/account/whoami").await.ok();
    clock.advance(Duration::from_secs(1));
    assert_eq!(again.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    server.finish().await;
}

#[tokio::test]
async fn guessing_passwords_is_slow() {
    let limits = [("rate_limits.enabled", "on"), ("rate_limits.failed_login.burst", "3")];
    let (server, clock) = TestServer::with_clock(&limits).await;
    let client = server.client();
    server.user("alice").await;
    for _ in 0..3 {
        assert_eq!(client.log_in("alice", "wrong", json!({})).await.error(), (403, "M_FORBIDDEN"));
    }
    let limited = client.log_in("alice", "password of alice", json!({})).await;
    assert_eq!(limited.error(), (429, "M_LIMIT_EXCEEDED"));
    assert_eq!(limited["retry_after_ms"], 10_000);
    assert_eq!(limited.header("retry-after"), "10");
    assert!(limited["error"].as_str().unwrap().contains("rate_limits.failed_login"));
    clock.advance(Duration::from_secs(10));
    client.log_in("alice", "password of alice", json!({})).await.ok();
    server.finish().await;
}
