use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::common::{
    TestServer,
    rooms::{bodies, text, transaction},
};

const HELLO: &str = r#"{"msgtype":"m.text","body":"hello"}"#;

#[tokio::test]
async fn a_transaction_is_carried_out_once_over_restarts_too() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let other_device = server.client().log_in("alice", "password of alice", json!({})).await.ok();
    let room = alice.create(json!({})).await;
    let path = format!("/rooms/{room}/send/m.room.message/txn");
    let message = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let first = alice.put(&path, message("one")).await.ok()["event_id"].clone();
    assert_eq!(alice.put(&path, message("two")).await.ok()["event_id"], first);
    assert_eq!(alice.put(&format!("/_matrix/client/r0{path}"), message("two")).await.ok()["event_id"], first);
    let event = alice.get(&format!("/rooms/{room}/event/{}", text(&first))).await.ok();
    assert_eq!((&event["unsigned"]["transaction_id"], &event["room_id"]), (&"txn".into(), &json!(room)));
    let redaction = format!("/rooms/{room}/redact/{}/txn", text(&first));
    let redacted = alice.put(&redaction, json!({})).await.ok()["event_id"].clone();
    assert_ne!(redacted, first);

    let server = server.restart().await;
    let again = server.client().with_token(alice.token());
    assert_eq!(again.put(&path, message("three")).await.ok()["event_id"], first);
    assert_eq!(again.put(&redaction, json!({})).await.ok()["event_id"], redacted);
    // Another type, or another device, is another request.
    assert_ne!(again.put(&format!("/rooms/{room}/send/org.example/txn"), json!({})).await.ok()["event_id"], first);
    let other_device = server.client().logged_in(&other_device);
    assert_ne!(other_device.put(&path, message("four")).await.ok()["event_id"], first);
    let event = other_device.get(&format!("/rooms/{room}/event/{}", text(&first))).await.ok();
    assert_eq!(event["unsigned"].get("transaction_id"), None);
    assert_eq!(bodies(&again.page(&room, "dir=b").await["chunk"]), ["four"]);
    server.finish().await;
}

#[tokio::test]
async fn a_contended_transaction_is_carried_out_once() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let path = format!("/rooms/{room}/send/m.room.message/txn");
    let replies =
        join_all((0..24).map(|n| alice.put(&path, json!({ "msgtype": "m.text", "body": n.to_string() })))).await;
    let ids: Vec<Value> = replies.into_iter().map(|reply| reply.ok()["event_id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!(bodies(&alice.page(&room, "dir=b").await["chunk"]).len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn pipelined_messages_keep_their_order_and_state_comes_between() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let many = |who: crate::common::Client, name: &'static str| {
        let room = room.clone();
        async move {
            for n in 0..20 {
                who.say(&room, &format!("{name}{n}")).await;
            }
        }
    };
    let topics = async {
        for n in 0..5 {
            alice.set(&room, "m.room.topic", "", json!({ "topic": n.to_string() })).await;
        }
    };
    tokio::join!(many(alice.clone(), "a"), many(alice.clone(), "b"), many(bob.clone(), "c"), topics);
    let chunk = alice.page(&room, "dir=f&limit=200").await["chunk"].clone();
    let bodies = bodies(&chunk);
    assert_eq!(bodies.len(), 60);
    for name in ["a", "b", "c"] {
        let of: Vec<_> = bodies.iter().filter(|body| body.starts_with(name)).collect();
        assert!(of.iter().enumerate().all(|(n, body)| ***body == format!("{name}{n}")), "{of:?}");
    }
    server.finish().await;
}

#[tokio::test]
async fn contended_state_has_one_last_word() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let levels = alice.get(&format!("/rooms/{room}/state/m.room.power_levels")).await.ok();
    let mut open = levels.clone();
    open["state_default"] = 0.into();
    alice.set(&room, "m.room.power_levels", "", open).await;
    let set = |n: usize| {
        let (who, room) = (if n.is_multiple_of(2) { alice.clone() } else { bob.clone() }, room.clone());
        async move { who.set(&room, "org.example", "k", json!({ "n": n })).await }
    };
    let ids = join_all((0..16).map(set)).await;
    let chunk = alice.page(&room, "dir=b&limit=16").await["chunk"].clone();
    let order: Vec<_> = chunk.as_array().unwrap().iter().map(|event| text(&event["event_id"])).collect();
    assert!(ids.iter().all(|id| order.contains(id)));
    let now = alice.get(&format!("/rooms/{room}/state/org.example/k")).await.ok();
    assert_eq!(now, chunk[0]["content"]);
    // Each says what it replaced.
    for pair in chunk.as_array().unwrap().windows(2) {
        assert_eq!(pair[0]["unsigned"]["replaces_state"], pair[1]["event_id"]);
        assert_eq!(pair[0]["unsigned"]["prev_content"], pair[1]["content"]);
    }
    server.finish().await;
}

#[tokio::test]
async fn state_keys_may_be_empty_and_equal_state_is_said_once() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let state = |end: &str| format!("/rooms/{room}/state/org.example{end}");
    let first = alice.put(&state(""), json!({ "a": 1 })).await.ok()["event_id"].clone();
    assert_eq!(alice.put(&state("/"), json!({ "a": 1 })).await.ok()["event_id"], first);
    assert_ne!(alice.put(&state("/k"), json!({ "a": 1 })).await.ok()["event_id"], first);
    assert_ne!(alice.put(&state("/"), json!({ "a": 2 })).await.ok()["event_id"], first);
    for path in [state(""), state("/"), format!("/_matrix/client/r0{}", state(""))] {
        assert_eq!(alice.get(&path).await.ok(), json!({ "a": 2 }), "{path}");
    }
    assert_eq!(alice.get(&state("/k")).await.ok(), json!({ "a": 1 }));
    let odd = "/%2Fa%20b%25%C3%A9";
    alice.put(&state(odd), json!({ "a": 3 })).await.ok();
    let event = alice.get(&format!("{}?format=event", state(odd))).await.ok();
    assert_eq!((&event["state_key"], &event["content"]), (&"/a b%é".into(), &json!({ "a": 3 })));
    server.finish().await;
}

#[tokio::test]
async fn event_types_are_taken_to_the_letter() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    for kind in ["m.beacon", "m.call.notify", "org.matrix.call.sdp_stream_metadata_changed", "m.image", "Ä b/c"] {
        let path = kind.replace('Ä', "%C3%84").replace(' ', "%20").replace('/', "%2F");
        alice.send(&room, &path, json!({})).await;
        assert_eq!(alice.page(&room, "dir=b&limit=1").await["chunk"][0]["type"], kind);
        let id = alice.set(&room, &path, "k", json!({ "of": kind })).await;
        assert_eq!(alice.get(&format!("/rooms/{room}/event/{id}")).await.ok()["type"], kind);
        assert_eq!(alice.get(&format!("/rooms/{room}/state/{path}/k")).await.ok()["of"], kind);
    }
    server.finish().await;
}

#[tokio::test]
async fn redactions_take_content_away_and_say_why() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for version in ["10", "12"] {
        let room = alice.create(json!({ "preset": "public_chat", "room_version": version })).await;
        bob.join(&room).await;
        let (own, alices) = (bob.say(&room, "mine").await, alice.say(&room, "hers").await);
        let redact = |event: &str| format!("/rooms/{room}/redact/{event}/{}", transaction());
        assert_eq!(bob.put(&redact(&alices), json!({})).await.error(), (403, "M_FORBIDDEN"));
        let by_send = json!({ "redacts": alices });
        assert_eq!(bob.try_send(&room, "m.room.redaction", by_send).await.error(), (403, "M_FORBIDDEN"));
        assert_eq!(bob.try_send(&room, "m.room.redaction", json!({})).await.error(), (400, "M_BAD_JSON"));
        assert_eq!(bob.put(&redact("$none"), json!({})).await.error(), (404, "M_NOT_FOUND"));
        let elsewhere = alice.create(json!({})).await;
        let elsewhere = alice.say(&elsewhere, "x").await;
        assert_eq!(alice.put(&redact(&elsewhere), json!({})).await.error(), (404, "M_NOT_FOUND"));
        let redaction = bob.redact(&room, &own).await;
        let event = alice.get(&format!("/rooms/{room}/event/{own}")).await.ok();
        assert_eq!(event["content"], json!({}));
        let because = &event["unsigned"]["redacted_because"];
        assert_eq!((&because["event_id"], &because["redacts"]), (&json!(redaction), &json!(own)));
        assert_eq!((&because["content"]["reason"], &because["room_id"]), (&"spam".into(), &json!(room)));
        let redaction = alice.redact(&room, &alices).await;
        let event = bob.get(&format!("/rooms/{room}/event/{redaction}")).await.ok();
        assert_eq!((&event["redacts"], &event["content"]["redacts"]), (&json!(alices), &json!(alices)));
        let topic = alice.set(&room, "m.room.topic", "", json!({ "topic": "T" })).await;
        alice.redact(&room, &topic).await;
        assert_eq!(alice.get(&format!("/rooms/{room}/state/m.room.topic")).await.ok(), json!({}));
    }
    server.finish().await;
}

#[tokio::test]
async fn what_can_not_be_sent() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({})).await;
    let send = |room: &str| format!("/rooms/{room}/send/m.room.message/{}", transaction());
    let state = |room: &str| format!("/rooms/{room}/state/m.room.topic");
    for there in [&room, "!none:test.example"] {
        for path in [send(there), state(there), format!("/rooms/{there}/redact/$x/{}", transaction())] {
            assert_eq!(bob.put(&path, json!({})).await.error(), (403, "M_FORBIDDEN"), "{path}");
        }
    }
    for path in [send(&room), state(&room)] {
        for (body, error) in [
            ("{", (400, "M_NOT_JSON")),
            ("[]", (400, "M_BAD_JSON")),
            ("5", (400, "M_BAD_JSON")),
            (r#"{"a":1.5}"#, (400, "M_BAD_JSON")),
            (r#"{"a":9007199254740993}"#, (400, "M_BAD_JSON")),
        ] {
            assert_eq!(alice.send_raw(Method::PUT, &path, body).await.error(), error, "{path} {body}");
        }
        let large = json!({ "body": "x".repeat(66_000) });
        assert_eq!(alice.put(&path, large).await.error(), (413, "M_TOO_LARGE"), "{path}");
    }
    let long = "x".repeat(256);
    for path in [
        format!("/rooms/{room}/send/{long}/t"),
        format!("/rooms/{room}/state/{long}"),
        format!("/rooms/{room}/state/x/{long}"),
    ] {
        assert_eq!(alice.put(&path, json!({})).await.error().0 / 100, 4, "{path}");
    }
    assert_eq!(alice.send_raw(Method::PUT, &send(&room), HELLO).await.status, 200);
    assert_eq!(alice.send_raw(Method::PUT, &send("nonsense"), HELLO).await.error().0, 400);
    assert_eq!(server.client().send_raw(Method::PUT, &send(&room), HELLO).await.error(), (401, "M_MISSING_TOKEN"));
    alice.invite(&room, &bob).await;
    assert_eq!(bob.put(&send(&room), json!({})).await.error(), (403, "M_FORBIDDEN"));
    bob.join(&room).await;
    assert_eq!(bob.put(&state(&room), json!({ "topic": "T" })).await.error(), (403, "M_FORBIDDEN"));
    let invite = |user: &str| {
        let (alice, path) = (alice.clone(), format!("/rooms/{room}/state/m.room.member/{user}"));
        async move { alice.put(&path, json!({ "membership": "invite" })).await }
    };
    assert_eq!(invite("@nobody:test.example").await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(invite("@alice:elsewhere.example").await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(invite("nonsense").await.error(), (400, "M_INVALID_PARAM"));
    let carol = server.user("carol").await;
    invite(&carol.user).await.ok();
    carol.join(&room).await;
    let alias = json!({ "alias": "#none:test.example" });
    assert_eq!(
        alice.put(&format!("/rooms/{room}/state/m.room.canonical_alias"), alias).await.error(),
        (400, "M_BAD_ALIAS")
    );
    server.finish().await;
}

#[tokio::test]
async fn sending_is_limited() {
    let server = TestServer::with(&[
        ("rate_limits.enabled", "on"),
        ("rate_limits.message.burst", "3"),
        ("rate_limits.message.per_second", "0.01"),
    ])
    .await;
    let (alice, admin) = (server.user("alice").await, server.admin("admin").await);
    let room = alice.room_with(&[&admin]).await;
    let event = alice.say(&room, "1").await;
    alice.set(&room, "m.room.topic", "", json!({ "topic": "2" })).await;
    alice.redact(&room, &event).await;
    assert_eq!(alice.try_send(&room, "m.room.message", json!({})).await.error(), (429, "M_LIMIT_EXCEEDED"));
    for _ in 0..5 {
        admin.say(&room, "unlimited").await;
    }
    server.finish().await;
}
