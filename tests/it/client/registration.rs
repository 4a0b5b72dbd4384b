use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::common::{Reply, TestServer};

#[tokio::test]
async fn a_dummy_stage_registers_and_logs_in() {
    let server = TestServer::start().await;
    let client = server.client();
    let offered = client.post("/register", json!({})).await;
    assert_eq!(offered.status, 401);
    assert_eq!(offered["flows"], json!([{ "stages": ["m.login.dummy"] }]));
    let body = json!({
        "username": "Alice", "password": "correct horse", "device_id": "PHONE",
        "initial_device_display_name": "phone", "auth": { "type": "m.login.dummy", "session": offered["session"] },
    });
    let alice = client.logged_in(&client.post("/register", body.clone()).await.ok());
    assert_eq!((alice.user.as_str(), alice.device.as_str()), ("@alice:test.example", "PHONE"));
    let whoami = alice.get("/account/whoami").await.ok();
    assert_eq!((&whoami["user_id"], &whoami["device_id"]), (&json!(alice.user), &json!("PHONE")));
    assert_eq!(client.post("/register", body).await.error(), (400, "M_USER_IN_USE"));

    let body = json!({ "password": "correct horse", "inhibit_login": true, "auth": { "type": "m.login.dummy" } });
    let quiet = client.post("/register", body).await.ok();
    assert!(quiet["access_token"].is_null() && quiet["user_id"].as_str().unwrap().ends_with(":test.example"));
    server.finish().await;
}

#[tokio::test]
async fn names_and_passwords_are_checked() {
    let server = TestServer::start().await;
    let client = server.client();
    server.user("bob").await;
    let available = async |name: &str| client.get(&format!("/register/available?username={name}")).await;
    assert_eq!(available("carol").await.ok()["available"], true);
    assert_eq!(available("bob").await.error(), (400, "M_USER_IN_USE"));
    assert_eq!(available("BOB").await.error(), (400, "M_USER_IN_USE"));
    for name in ["a%20b", "a!b", "_bridge", "%C3%A9", ""] {
        assert_eq!(available(name).await.error(), (400, "M_INVALID_USERNAME"), "{name}");
    }
    assert_eq!(client.get("/register/available").await.error(), (400, "M_MISSING_PARAM"));
    let register = async |body: serde_json::Value| client.post("/register", body).await;
    assert_eq!(register(json!({ "username": "eve", "password": "short" })).await.error(), (400, "M_WEAK_PASSWORD"));
    let long = json!({ "username": "eve", "password": "x".repeat(1000) });
    assert_eq!(register(long).await.error(), (400, "M_INVALID_PARAM"));
    let without = json!({ "username": "eve", "auth": { "type": "m.login.dummy" } });
    assert_eq!(register(without).await.error(), (400, "M_MISSING_PARAM"));
    let name = json!({ "username": "eve", "password": "long enough", "initial_device_display_name": "x".repeat(101) });
    assert_eq!(register(name).await.error(), (400, "M_INVALID_PARAM"));
    let wrong = json!({ "username": "eve", "password": "long enough", "auth": { "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "bob" }, "password": "password of bob" } });
    let wrong = register(wrong).await;
    assert_eq!((wrong.status.as_u16(), &wrong["errcode"]), (401, &json!("M_UNRECOGNIZED")));
    server.finish().await;
}

#[tokio::test]
async fn only_one_of_many_gets_a_name() {
    let server = TestServer::start().await;
    let attempts =
        (0..20).map(|n| {
            let (client, auth) = (server.client(), json!({ "type": "m.login.dummy" }));
            let name = if n % 2 == 0 { "highlander" } else { "HighLander" };
            async move {
                client.post("/register", json!({ "username": name, "password": "there can be", "auth": auth })).await
            }
        });
    let replies = futures::future::join_all(attempts).await;
    let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|reply| reply.error() == (400, "M_USER_IN_USE")));
    server.finish().await;
}

#[tokio::test]
async fn registration_tokens_let_in_as_many_as_they_say() {
    let (server, clock) = TestServer::with_clock(&[("registration.mode", "token")]).await;
    let client = server.client();
    let admin = server.admin("root").await;
    let tokens = "/_synapse/admin/v1/registration_tokens";
    let (new, one) = ("/_synapse/admin/v1/registration_tokens/new", "/_synapse/admin/v1/registration_tokens/come.in");
    assert_eq!(client.get(tokens).await.error(), (401, "M_MISSING_TOKEN"));
    let over = 1_700_000_000_000_u64 + 60_000;
    let made = admin.post(new, json!({ "token": "come.in", "uses_allowed": 1 })).await.ok();
    assert_eq!(
        made,
        json!({
            "token": "come.in", "uses_allowed": 1, "pending": 0, "completed": 0, "expiry_time": null,
        })
    );
    assert_eq!(admin.post(new, json!({ "token": "come.in" })).await.error(), (400, "M_INVALID_PARAM"));
    for wrong in [json!({ "token": "a b" }), json!({ "length": 65 }), json!({ "expiry_time": 1 })] {
        assert_eq!(admin.post(new, wrong).await.error(), (400, "M_INVALID_PARAM"));
    }
    let wrong_type = admin.post(new, json!({ "uses_allowed": "many" })).await;
    assert_eq!(wrong_type.error(), (400, "M_INVALID_PARAM"));

    let valid = async |token: &str| {
        let path = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
        client.get(&path).await.ok()["valid"] == true
    };
    assert!(valid("come.in").await && !valid("nonsense").await);
    let register = async |name: &str, token: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        client.post("/register", json!({ "username": name, "password": "long enough", "auth": auth })).await
    };
    let refused = register("alice", "nonsense").await;
    assert_eq!((refused.status.as_u16(), &refused["errcode"]), (401, &json!("M_UNAUTHORIZED")));
    assert_eq!(refused["flows"], json!([{ "stages": ["m.login.registration_token"] }]));
    let both = futures::future::join(register("alice", "come.in"), register("anna", "come.in")).await;
    assert_eq!([both.0.status, both.1.status].iter().filter(|status| **status == 200).count(), 1, "{both:?}");
    assert!(!valid("come.in").await);
    assert_eq!(admin.get(one).await.ok()["completed"], 1);

    let change = json!({ "uses_allowed": null, "expiry_time": over });
    let changed = admin.put(one, change).await.ok();
    assert_eq!((&changed["uses_allowed"], &changed["expiry_time"]), (&json!(null), &json!(over)));
    assert!(valid("come.in").await);
    clock.advance(Duration::from_secs(60));
    assert!(!valid("come.in").await);
    assert_eq!(admin.get(&format!("{tokens}?valid=true")).await.ok()["registration_tokens"], json!([]));
    assert_eq!(admin.get(tokens).await.ok()["registration_tokens"][0]["token"], "come.in");
    admin.delete(one).await.ok();
    assert_eq!(admin.delete(one).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(admin.put(one, json!({})).await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn a_closed_server_takes_only_those_with_the_secret() {
    let server = TestServer::with(&[("registration.mode", "closed")]).await;
    let client = server.client();
    assert_eq!(client.post("/register", json!({})).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(client.post("/register?kind=guest", json!({})).await.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    assert_eq!(client.register_by_secret("eve", "wrong", true).await.error(), (403, "M_FORBIDDEN"));
    let alice = client.logged_in(&client.register_by_secret("Alice", "shared", false).await.ok());
    assert_eq!(alice.user, "@alice:test.example");
    assert_eq!(client.register_by_secret("alice", "shared", false).await.error(), (400, "M_USER_IN_USE"));
    assert_eq!(client.register_by_secret("a@b", "shared", false).await.error(), (400, "M_INVALID_USERNAME"));
    assert_eq!(alice.get("/_synapse/admin/v1/registration_tokens").await.error(), (403, "M_FORBIDDEN"));
    server.admin("root").await.get("/_synapse/admin/v1/registration_tokens").await.ok();
    let body = json!({ "nonce": "made-up", "username": "eve", "password": "long enough", "mac": "00" });
    assert_eq!(client.post("/_synapse/admin/v1/register", body).await.error(), (400, "M_UNKNOWN"));
    assert_eq!(client.post("/_synapse/admin/v1/register", json!({})).await.error(), (400, "M_MISSING_PARAM"));
    server.finish().await;
}

#[tokio::test]
async fn guests_come_in_where_they_may() {
    let server = TestServer::with(&[("registration.guests", "on")]).await;
    let guest = server.client().post("/register?kind=guest", json!({})).await.ok();
    let guest = server.client().logged_in(&guest);
    assert_eq!(guest.get("/account/whoami").await.ok()["is_guest"], true);
    let body = json!({ "new_password": "long enough" });
    assert_eq!(guest.post("/account/password", body).await.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    guest.post("/logout", json!({})).await.ok();
    assert_eq!(guest.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    server.finish().await;
}

#[tokio::test]
async fn registering_is_limited_by_address() {
    let limits = [("rate_limits.enabled", "on"), ("rate_limits.registration.burst", "3")];
    let (server, clock) = TestServer::with_clock(&limits).await;
    let register = async |from: &str, name: &str| {
        let body = json!({ "username": name, "password": "long enough", "auth": { "type": "m.login.dummy" } });
        let request = server.client().request(Method::POST, "/register").header("X-Forwarded-For", from);
        Reply::of(request.json(&body)).await
    };
    for name in ["anna", "bert", "carl"] {
        register("10.0.0.1", name).await.ok();
    }
    let limited = register("10.0.0.1", "dora").await;
    assert_eq!(limited.error(), (429, "M_LIMIT_EXCEEDED"));
    assert_eq!((&limited["retry_after_ms"], limited.header("retry-after")), (&json!(5000), "5"));
    assert!(limited["error"].as_str().unwrap().contains("rate_limits.registration"), "{}", limited.text);
    let available = server.client().request(Method::GET, "/register/available?username=dora");
    let available = Reply::of(available.header("X-Forwarded-For", "10.0.0.1")).await;
    assert_eq!(available.error(), (429, "M_LIMIT_EXCEEDED"), "asking for names is the same");
    register("10.0.0.2", "emil").await.ok();
    clock.advance(Duration::from_secs(5));
    register("10.0.0.1", "dora").await.ok();
    server.finish().await;
}
