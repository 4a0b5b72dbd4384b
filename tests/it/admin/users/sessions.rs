use std::time::Duration;

use everfold::log::EmbeddedOptions;
use projections::models::{audit, seen};
use reqwest::header::USER_AGENT;
use schemas::Origin;
use serde_json::{Value, json};

use crate::common::{Client, HeldLog, Reply, TestServer, until};

const AS_ANNA: &str = "/_synapse/admin/v1/users/@anna:test.example/login";

async fn log_in(admin: &Client, body: Value) -> Client {
    let token = admin.post(AS_ANNA, body).await.ok()["access_token"].as_str().unwrap().to_owned();
    admin.with_token(token)
}

#[tokio::test]
async fn an_administrator_acts_as_a_user_and_the_trail_says_so() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = bert.room_with(&[&anna]).await;
    let puppet = log_in(&admin, json!({})).await;
    let who = puppet.get("/account/whoami").await.ok();
    assert_eq!((&who["user_id"], who.get("device_id")), (&json!(anna.user), None));
    assert_eq!(anna.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 1, "there is no device for it");
    puppet.say(&room, "Hi").await;
    let (view, last) = (server.app().view().unwrap(), server.app().reader.tail());
    let origin = audit::entry(&view, last).unwrap().unwrap().origin;
    assert_eq!(origin, Origin::Admin { user: admin.user.clone() });
    drop(view);
    let said = bert.page(&room, "dir=b&limit=1").await["chunk"][0].clone();
    assert_eq!((&said["sender"], &said["content"]["body"]), (&json!(anna.user), &json!("Hi")));
    puppet.get("/sync").await.ok();
    // What is a device's can't be done without one.
    assert_eq!(puppet.post("/keys/upload", json!({})).await.error(), (400, "M_UNKNOWN"));
    let two =
        (puppet.try_send(&room, "m.x", json!({})).await.ok(), puppet.try_send(&room, "m.x", json!({})).await.ok());
    assert_ne!(two.0, two.1);

    puppet.post("/logout", json!({})).await.ok();
    assert_eq!(puppet.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    anna.get("/account/whoami").await.ok();
    server.finish().await;
}

#[tokio::test]
async fn such_a_login_ends_with_its_time_its_account_and_its_administrator() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let admin = server.admin("root").await;
    let (second, anna) = (server.admin("second").await, server.user("anna").await);
    let is_in = async |puppet: &Client| puppet.get("/account/whoami").await.status == 200;
    let short = log_in(&admin, json!({ "valid_until_ms": 1_700_000_060_000_u64 })).await;
    let by_secret = log_in(&server.client().with_token("shared"), json!({})).await;
    assert!(is_in(&short).await && is_in(&by_secret).await);
    clock.advance(Duration::from_secs(60));
    assert!(!is_in(&short).await && is_in(&by_secret).await);

    let puppet = log_in(&second, json!({})).await;
    anna.post("/logout/all", json!({})).await.ok();
    assert!(is_in(&puppet).await, "the user's own logging out leaves it");
    second.post("/logout/all", json!({})).await.ok();
    assert!(!is_in(&puppet).await);

    let second =
        server.client().logged_in(&server.client().log_in("second", "password of second", json!({})).await.ok());
    let puppet = log_in(&second, json!({})).await;
    let of_second = "/_synapse/admin/v2/users/@second:test.example";
    admin.put(of_second, json!({ "locked": true })).await.ok();
    assert!(!is_in(&puppet).await);
    admin.put(of_second, json!({ "locked": false })).await.ok();
    assert!(is_in(&puppet).await);
    admin.put(of_second, json!({ "admin": false })).await.ok();
    assert!(!is_in(&puppet).await);
    let puppet = log_in(&admin, json!({ "valid_until_ms": null })).await;
    admin.post("/_synapse/admin/v1/deactivate/@anna:test.example", json!({})).await.ok();
    assert!(!is_in(&puppet).await && !is_in(&by_secret).await);

    assert_eq!(admin.post(AS_ANNA, json!({ "valid_until_ms": "x" })).await.error(), (400, "M_UNKNOWN"));
    for (user, error) in [
        ("@root:test.example", (400, "M_UNKNOWN")),
        ("@nobody:test.example", (404, "M_NOT_FOUND")),
        ("@anna:test.example", (404, "M_NOT_FOUND")),
        ("@anna:other.example", (400, "M_UNKNOWN")),
    ] {
        let refused = admin.post(&format!("/_synapse/admin/v1/users/{user}/login"), json!({})).await;
        assert_eq!(refused.error(), error, "{user}");
    }
    server.finish().await;
}

/// Something that a user asks for by a program.
async fn seen_by(user: &Client, agent: &str) {
    Reply::of(user.request(http::Method::GET, "/account/whoami").header(USER_AGENT, agent)).await.ok();
}

fn connections(whois: &Value) -> Vec<(String, u64)> {
    let connections = whois["devices"][""]["sessions"][0]["connections"].as_array().unwrap();
    let shown = connections.iter().map(|one| {
        assert_eq!(one["ip"], "127.0.0.1");
        (one["user_agent"].as_str().unwrap().to_owned(), one["last_seen"].as_u64().unwrap())
    });
    shown.collect()
}

const WHOIS: &str = "/_synapse/admin/v1/whois/@anna:test.example";

#[tokio::test]
async fn where_devices_were_seen_outlives_a_restart() {
    let (server, clock) = TestServer::with_clock(&[("sessions.last_seen_on_log", "everything")]).await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    seen_by(&anna, "Phone/1").await;
    clock.advance(Duration::from_secs(90));
    seen_by(&anna, "Phone/2").await;
    let at = 1_700_000_000_000;
    let expected = [("Phone/2".to_owned(), at + 90_000), ("Phone/1".to_owned(), at)];
    assert_eq!(connections(&admin.get(WHOIS).await.ok()), expected);
    let flush = async |server: &TestServer| {
        server.app().seen.flush(&server.app().commands).await.unwrap();
        server.app().reader.tail()
    };
    let told = flush(&server).await;
    assert_eq!(flush(&server).await, told, "once is enough");
    clock.advance(Duration::from_secs(600));
    seen_by(&anna, "Phone/2").await;
    assert_eq!(flush(&server).await, told, "within an hour it is no news");
    clock.advance(Duration::from_secs(3_600));
    seen_by(&anna, "Phone/2").await;
    assert!(flush(&server).await > told);

    let server = server.restart().await;
    let (admin, anna) = (admin.at(server.url()), anna.at(server.url()));
    let last = at + 90_000 + 4_200_000;
    assert_eq!(connections(&admin.get(WHOIS).await.ok())[..1], [("Phone/2".to_owned(), last)]);
    let shown = admin.get("/_synapse/admin/v2/users/@anna:test.example").await.ok();
    assert_eq!(shown["last_seen_ts"], last);
    // The specification's own form tells devices apart, and is for the user, too.
    let own = anna.get("/admin/whois/@anna:test.example").await.ok();
    let first = &own["devices"][&anna.device]["sessions"][0]["connections"][0];
    assert!(first["last_seen"].as_u64().unwrap() >= last);
    assert_eq!(anna.get("/admin/whois/@root:test.example").await.error(), (403, "M_FORBIDDEN"));
    admin.get("/_matrix/client/v3/admin/whois/@anna:test.example").await.ok();
    assert_eq!(admin.get("/_synapse/admin/v1/whois/@anna:other.example").await.error(), (400, "M_UNKNOWN"));
    assert_eq!(admin.get("/admin/whois/@anna:other.example").await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}

#[tokio::test]
async fn another_node_knows_what_is_on_the_log() {
    let settings = [("sessions.last_seen_on_log", "everything")];
    let (server, log) = TestServer::with_log_of(EmbeddedOptions::default(), &settings, HeldLog::over).await;
    let other = server.node_with(log, &settings).await;
    let admin = server.admin("root").await.at(other.url());
    let anna = server.user("anna").await;
    seen_by(&anna, "Phone/1").await;
    assert_eq!(connections(&admin.get(WHOIS).await.ok()), [], "only the node that answered knows it yet");
    server.app().seen.flush(&server.app().commands).await.unwrap();
    until(async || connections(&admin.get(WHOIS).await.ok()).len() == 1).await;
    // Whoever acts as somebody does so on every node.
    let puppet = log_in(&admin, json!({})).await;
    until(async || puppet.at(server.url()).get("/account/whoami").await.status == 200).await;
    other.stop().await;
    server.finish().await;
}

#[tokio::test]
async fn addresses_can_be_kept_off_the_log() {
    let (server, _clock) = TestServer::with_clock(&[("sessions.last_seen_on_log", "times")]).await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    seen_by(&anna, "Phone/1").await;
    assert_eq!(connections(&admin.get(WHOIS).await.ok()).len(), 1, "this node knows it");
    server.app().seen.flush(&server.app().commands).await.unwrap();
    let known = seen::of_device(&server.app().view().unwrap(), &anna.user, &anna.device).unwrap();
    let whole = known.iter().map(|seen| (seen.at_ms, &seen.address, &seen.user_agent)).collect::<Vec<_>>();
    assert_eq!(whole, [(1_700_000_000_000, &None, &None)]);
    let server = server.restart().await;
    let admin = admin.at(server.url());
    assert_eq!(connections(&admin.get(WHOIS).await.ok()), []);
    let device = admin.get("/_synapse/admin/v2/users/@anna:test.example/devices").await.ok()["devices"][0].clone();
    assert_eq!((&device["last_seen_ts"], &device["last_seen_ip"]), (&json!(1_700_000_000_000_u64), &Value::Null));
    server.finish().await;
}
