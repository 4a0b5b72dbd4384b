use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Client, Nodes, Reply, TestServer};

const GET: &str = "/_matrix/client/v1/login/get_token";

/// A new login token of a user whose password is `password of NAME`.
async fn login_token(user: &Client) -> Value {
    let name = user.user.trim_start_matches('@').split(':').next().unwrap();
    let auth = user.password_auth(&format!("password of {name}"));
    user.post(GET, json!({ "auth": auth })).await.ok()["login_token"].clone()
}

async fn log_in(client: &Client, token: &Value) -> Reply {
    client.post("/login", json!({ "type": "m.login.token", "token": token, "device_id": "NEW" })).await
}

#[tokio::test]
async fn a_login_token_lets_its_user_in_once() {
    let server = TestServer::start().await;
    let (alice, nobody) = (server.user("alice").await, server.client());
    assert_eq!(
        nobody.get("/login").await.ok()["flows"][1],
        json!({ "type": "m.login.token", "get_login_token": true })
    );
    assert_eq!(alice.get("/capabilities").await.ok()["capabilities"]["m.get_login_token"]["enabled"], true);
    assert_eq!(nobody.post(GET, json!({})).await.error(), (401, "M_MISSING_TOKEN"));

    let offered = alice.post(GET, json!({})).await;
    assert_eq!((offered.status.as_u16(), &offered["flows"]), (401, &json!([{ "stages": ["m.login.password"] }])));
    let mut auth = alice.password_auth("password of alice");
    auth["session"] = offered["session"].clone();
    let reply = alice.post(GET, json!({ "auth": auth })).await.ok();
    assert_eq!(reply["expires_in_ms"], 120_000);
    // Who wants another token is asked again.
    for auth in [json!({ "session": offered["session"] }), auth] {
        let again = alice.post(GET, json!({ "auth": auth })).await;
        assert_eq!((again.status.as_u16(), &again["flows"]), (401, &offered["flows"]));
        assert_ne!(again["session"], offered["session"]);
    }

    let login = log_in(&nobody, &reply["login_token"]).await.ok();
    assert_eq!((&login["user_id"], &login["device_id"]), (&json!(alice.user), &json!("NEW")));
    let phone = nobody.logged_in(&login);
    phone.get("/account/whoami").await.ok();
    alice.get("/account/whoami").await.ok();
    for token in [&reply["login_token"], &json!("nonsense"), &json!("")] {
        assert_eq!(log_in(&nobody, token).await.error(), (403, "M_FORBIDDEN"), "{token}");
    }
    assert_eq!(nobody.post("/login", json!({ "type": "m.login.token" })).await.error(), (400, "M_MISSING_PARAM"));
    phone.get("/account/whoami").await.ok();
    server.finish().await;
}

#[tokio::test]
async fn a_login_token_ends_by_itself() {
    let (server, clock) = TestServer::with_clock(&[("sessions.login_token_seconds", "100")]).await;
    let alice = server.user("alice").await;
    let (one, other) = (login_token(&alice).await, login_token(&alice).await);
    clock.advance(Duration::from_secs(99));
    log_in(&server.client(), &one).await.ok();
    clock.advance(Duration::from_secs(1));
    assert_eq!(log_in(&server.client(), &other).await.error(), (403, "M_FORBIDDEN"));
    // Log time has it end, too, where a clock is behind.
    server.user("bob").await;
    let (server, _) = server.restart_at(1_700_000_000_000).await;
    assert_eq!(log_in(&server.client(), &other).await.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}

#[tokio::test]
async fn a_login_token_ends_with_the_account_and_with_the_device_that_asked_for_it() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let desk = alice.on_device("DESK").await;
    let (of_alice, of_desk, of_bob) = (login_token(&alice).await, login_token(&desk).await, login_token(&bob).await);
    desk.post("/logout", json!({})).await.ok();
    assert_eq!(log_in(&server.client(), &of_desk).await.error(), (403, "M_FORBIDDEN"));
    bob.post("/account/deactivate", json!({ "auth": bob.password_auth("password of bob") })).await.ok();
    assert_eq!(log_in(&server.client(), &of_bob).await.error(), (403, "M_USER_DEACTIVATED"));
    log_in(&server.client(), &of_alice).await.ok();
    server.finish().await;
}

#[tokio::test]
async fn login_tokens_are_few() {
    let limits = [("rate_limits.enabled", "on"), ("rate_limits.login_token.burst", "2")];
    let (server, _) = TestServer::with_clock(&limits).await;
    let alice = server.user("alice").await;
    for _ in 0..2 {
        login_token(&alice).await;
    }
    let limited = alice.post(GET, json!({ "auth": alice.password_auth("password of alice") })).await;
    assert_eq!(limited.error(), (429, "M_LIMIT_EXCEEDED"));
    assert!(limited["error"].as_str().unwrap().contains("rate_limits.login_token"));
    server.finish().await;
}

#[tokio::test]
async fn who_has_no_password_gets_no_login_token() {
    let server = TestServer::with(&[("registration.guests", "on")]).await;
    let guest = server.client().post("/register?kind=guest", json!({})).await.ok();
    let guest = server.client().logged_in(&guest);
    assert_ne!(guest.get("/capabilities").await.ok()["capabilities"]["m.get_login_token"]["enabled"], true);
    assert_eq!(guest.post(GET, json!({})).await.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    server.finish().await;
}

#[tokio::test]
async fn of_two_who_use_a_login_token_on_two_nodes_one_gets_in() {
    let nodes = Nodes::start().await;
    let token = login_token(&nodes.alice).await;
    nodes.on_second(&nodes.alice).await;
    let second = nodes.second.client();
    let first = nodes.first.client();
    let late = nodes.overtake(log_in(&first, &token), async {
        let login = log_in(&second, &token).await.ok();
        assert_eq!(login["user_id"], nodes.alice.user);
    });
    assert_eq!(late.await.error(), (403, "M_FORBIDDEN"));
    let devices = nodes.alice.get("/devices").await.ok();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 2, "one came in");
    nodes.finish().await;
}
