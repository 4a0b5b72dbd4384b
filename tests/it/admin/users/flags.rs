use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::common::{Client, SigningKey, TestServer, rooms::bodies, rooms::text};

const SUSPEND: &str = "/_synapse/admin/v1/suspend/@anna:test.example";

#[tokio::test]
async fn who_is_suspended_leaves_and_takes_back_their_own_words_alone() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = bert.room_with(&[&anna]).await;
    let (open, invited) = (bert.room_with(&[]).await, bert.create(json!({ "invite": [anna.user] })).await);
    let (hers, his) = (anna.say(&room, "mine").await, bert.say(&room, "his").await);
    let reply = admin.put(SUSPEND, json!({ "suspend": true })).await.ok();
    assert_eq!(reply, json!({ "user_@anna:test.example_suspended": true }));
    assert_eq!(admin.get(SUSPEND).await.ok(), reply);
    let at = |path: &str| format!("/rooms/{room}/{path}");
    let target = json!({ "user_id": bert.user });
    for (method, path, body) in [
        (Method::PUT, at("send/m.room.message/1"), json!({ "body": "Hi" })),
        (Method::PUT, at("state/m.room.topic/"), json!({ "topic": "new" })),
        (Method::PUT, at(&format!("redact/{his}/2")), json!({})),
        (Method::POST, at("invite"), target.clone()),
        (Method::POST, at("kick"), target),
        (Method::POST, format!("/join/{open}"), json!({})),
        (Method::POST, format!("/rooms/{invited}/join"), json!({})),
        (Method::POST, format!("/knock/{open}"), json!({})),
        (Method::POST, "/createRoom".into(), json!({})),
        (Method::PUT, format!("/profile/{}/displayname", anna.user), json!({ "displayname": "A" })),
    ] {
        let refused = anna.send_raw(method, &path, body.to_string()).await;
        assert_eq!(refused.error(), (403, "M_USER_SUSPENDED"), "{path}");
    }
    anna.redact(&room, &hers).await;
    anna.leave(&invited).await;
    anna.get("/sync").await.ok();
    anna.leave(&room).await;

    admin.put(SUSPEND, json!({ "suspend": false })).await.ok();
    anna.join(&room).await;
    assert_eq!(admin.put(SUSPEND, json!({})).await.error(), (400, "M_MISSING_PARAM"));
    assert_eq!(admin.put(SUSPEND, json!({ "suspend": "yes" })).await.error(), (400, "M_BAD_JSON"));
    let of = |user: &str| format!("/_synapse/admin/v1/suspend/{user}");
    assert_eq!(admin.put(&of("@x:test.example"), json!({ "suspend": true })).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(admin.put(&of("@x:other.example"), json!({ "suspend": true })).await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}

#[tokio::test]
async fn who_is_locked_can_only_log_out() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let path = "/_synapse/admin/v2/users/@anna:test.example";
    assert_eq!(admin.put(path, json!({ "locked": true })).await.ok()["locked"], true);
    let refused = anna.get("/sync").await;
    assert_eq!((refused.error(), &refused["soft_logout"]), ((401, "M_USER_LOCKED"), &json!(true)));
    let refused = server.client().log_in("anna", "password of anna", json!({})).await;
    assert_eq!(refused.error(), (401, "M_USER_LOCKED"));
    anna.post("/logout", json!({})).await.ok();
    admin.put(path, json!({ "locked": false })).await.ok();
    server.client().log_in("anna", "password of anna", json!({})).await.ok();
    server.finish().await;
}

const SHADOW: &str = "/_synapse/admin/v1/users/@anna:test.example/shadow_ban";

#[tokio::test]
async fn who_is_shadow_banned_notices_nothing_and_reaches_nobody() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.room_with(&[&bert]).await;
    let before = anna.say(&room, "before").await;
    admin.post(SHADOW, json!({})).await.ok();
    let tail = server.app().reader.tail();
    let said = anna.put(&format!("/rooms/{room}/send/m.room.message/1"), json!({ "body": "Hi" })).await.ok();
    let again = anna.put(&format!("/rooms/{room}/send/m.room.message/1"), json!({ "body": "Hi" })).await.ok();
    assert_eq!(said, again);
    assert_eq!(text(&said["event_id"]).len(), before.len());
    anna.set(&room, "m.room.topic", "", json!({ "topic": "new" })).await;
    anna.redact(&room, &before).await;
    let invite = json!({ "membership": "invite" });
    anna.set(&room, "m.room.member", "@carl:test.example", invite).await;
    let carl = server.user("carl").await;
    let after_carl = server.app().reader.tail();
    anna.invite(&room, &carl).await;
    let typing = json!({ "typing": true, "timeout": 30_000 });
    anna.put(&format!("/rooms/{room}/typing/{}", anna.user), typing).await.ok();
    assert_eq!((tail.0 + 1, after_carl), (after_carl.0, server.app().reader.tail()), "carl's registration is all");
    // They have their own rooms, to which nobody is invited, and a name that nobody sees.
    let own = anna.create(json!({ "invite": [carl.user] })).await;
    anna.say(&own, "alone").await;
    let synced = carl.get("/sync").await.ok();
    assert_eq!(synced["rooms"]["invite"], Value::Null);
    anna.put(&format!("/profile/{}/displayname", anna.user), json!({ "displayname": "Spam" })).await.ok();
    let member = bert.get(&format!("/rooms/{room}/state/m.room.member/{}", anna.user)).await.ok();
    assert_eq!(member.get("displayname"), None);
    let page = bert.page(&room, "dir=b&limit=1").await;
    assert_eq!(bodies(&page["chunk"]), ["before"]);
    assert_eq!(bert.get("/sync").await.ok()["rooms"]["join"][&room]["ephemeral"], Value::Null);

    admin.delete(SHADOW).await.ok();
    anna.say(&room, "after").await;
    assert_eq!(bodies(&bert.page(&room, "dir=b&limit=1").await["chunk"]), ["after"]);
    let of = |user: &str| format!("/_synapse/admin/v1/users/{user}/shadow_ban");
    assert_eq!(admin.post(&of("@x:test.example"), json!({})).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(admin.delete(&of("@x:other.example")).await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}

const RATE: &str = "/_synapse/admin/v1/users/@anna:test.example/override_ratelimit";

#[tokio::test]
async fn administrators_set_how_often_somebody_may_send() {
    let settings = [("rate_limits.enabled", "on"), ("rate_limits.message.burst", "2"), ("rate_limits.join.burst", "1")];
    let (server, clock) = TestServer::with_clock(&settings).await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let room = anna.create(json!({})).await;
    clock.advance(Duration::from_secs(600));
    // So many of five messages get through.
    let sent = async || {
        let mut sent = 0;
        for _ in 0..5 {
            let reply = anna.try_send(&room, "m.x", json!({})).await;
            if reply.status != 200 {
                assert_eq!(reply.error(), (429, "M_LIMIT_EXCEEDED"));
            }
            sent += usize::from(reply.status == 200);
        }
        clock.advance(Duration::from_secs(600));
        sent
    };
    assert_eq!(sent().await, 2);
    assert_eq!(admin.get(RATE).await.ok(), json!({}));
    let own = json!({ "messages_per_second": 1, "burst_count": 4 });
    assert_eq!(admin.post(RATE, own.clone()).await.ok(), own);
    assert_eq!(admin.get(RATE).await.ok(), own);
    assert_eq!(sent().await, 4);
    // Zero is without any limit; the body may be left out.
    let none = json!({ "messages_per_second": 0, "burst_count": 0 });
    assert_eq!(admin.send_raw(Method::POST, RATE, "").await.ok(), none);
    assert_eq!(sent().await, 5);
    anna.create(json!({})).await;
    anna.create(json!({})).await;
    assert_eq!(admin.delete(RATE).await.ok(), json!({}));
    assert_eq!(sent().await, 2);
    for body in [json!({ "messages_per_second": -1 }), json!({ "burst_count": "x" }), json!({ "burst_count": 1.5 })] {
        assert_eq!(admin.post(RATE, body.clone()).await.error(), (400, "M_INVALID_PARAM"), "{body}");
    }
    let of = |user: &str| format!("/_synapse/admin/v1/users/{user}/override_ratelimit");
    assert_eq!(admin.get(&of("@x:test.example")).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(admin.delete(&of("@x:test.example")).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(admin.get(&of("@x:other.example")).await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}

#[tokio::test]
async fn accounts_expire_and_are_renewed() {
    let settings = [("account_validity.enabled", "on"), ("account_validity.period_days", "1")];
    let (server, clock) = TestServer::with_clock(&settings).await;
    let anna = server.user("anna").await;
    clock.advance(Duration::from_secs(86_399));
    anna.get("/account/whoami").await.ok();
    clock.advance(Duration::from_secs(1));
    let admin = server.client().with_token("shared");
    for path in ["/account/whoami", "/sync"] {
        assert_eq!(anna.get(path).await.error(), (403, "ORG_MATRIX_EXPIRED_ACCOUNT"), "{path}");
    }
    let path = "/_synapse/admin/v1/account_validity/validity";
    let now = 1_700_086_400_000_u64;
    let renewed = admin.post(path, json!({ "user_id": anna.user })).await.ok();
    assert_eq!(renewed, json!({ "expiration_ts": now + 86_400_000 }));
    anna.get("/account/whoami").await.ok();
    admin.post(path, json!({ "user_id": anna.user, "expiration_ts": now })).await.ok();
    assert_eq!(anna.get("/account/whoami").await.error(), (403, "ORG_MATRIX_EXPIRED_ACCOUNT"));
    anna.post("/logout", json!({})).await.ok();
    assert_eq!(admin.post(path, json!({})).await.error(), (400, "M_UNKNOWN"));
    let wrong = json!({ "user_id": anna.user, "expiration_ts": "soon" });
    assert_eq!(admin.post(path, wrong).await.error(), (400, "M_INVALID_PARAM"));
    assert_eq!(admin.post(path, json!({ "user_id": "@x:test.example" })).await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;

    let (server, clock) = TestServer::with_clock(&[]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    admin.post(path, json!({ "user_id": anna.user, "expiration_ts": 1 })).await.ok();
    clock.advance(Duration::from_secs(60));
    anna.get("/account/whoami").await.ok();
    server.finish().await;
}

fn cross_signing(user: &Client) -> Value {
    let master = SigningKey::of_user();
    json!({ "master_key": master.cross_signing_key(&user.user, "master") })
}

#[tokio::test]
async fn keys_may_be_replaced_unasked_for_ten_minutes() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let path = "/_synapse/admin/v1/users/@anna:test.example/_allow_cross_signing_replacement_without_uia";
    assert_eq!(admin.post(path, json!({})).await.error(), (404, "M_NOT_FOUND"));
    let upload = async || anna.post("/keys/device_signing/upload", cross_signing(&anna)).await.status.as_u16();
    assert_eq!((upload().await, upload().await), (200, 401));
    let allowed = admin.post(path, json!({})).await.ok();
    assert_eq!(allowed, json!({ "updatable_without_uia_before_ms": 1_700_000_600_000_u64 }));
    assert_eq!((upload().await, upload().await), (200, 200));
    clock.advance(Duration::from_secs(600));
    assert_eq!(upload().await, 401);
    server.finish().await;
}

#[tokio::test]
async fn features_are_given_and_taken_away() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    server.user("anna").await;
    let path = "/_synapse/admin/v1/experimental_features/@anna:test.example";
    let has = |msc3881: bool, msc4222: bool| json!({ "features": { "msc3881": msc3881, "msc3575": false, "msc4222": msc4222 } });
    assert_eq!(admin.get(path).await.ok(), has(false, false));
    admin.put(path, json!({ "features": { "msc3881": true, "msc4222": true } })).await.ok();
    admin.put(path, json!({ "features": { "msc3881": false } })).await.ok();
    assert_eq!(admin.get(path).await.ok(), has(false, true));
    assert_eq!(admin.put(path, json!({ "features": {} })).await.error(), (400, "M_UNKNOWN"));
    let unknown = admin.put(path, json!({ "features": { "mscX": true } })).await;
    assert_eq!(unknown["error"], "'mscX' is not recognised as a valid experimental feature.");
    assert_eq!(admin.put(path, json!({ "features": { "msc3881": 1 } })).await.error(), (400, "M_BAD_JSON"));
    let elsewhere = "/_synapse/admin/v1/experimental_features/@x:other.example";
    assert_eq!(admin.get(elsewhere).await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}
