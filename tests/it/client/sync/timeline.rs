use serde_json::{Value, json};

use super::{ask, content, events, filtered, first, next, places, token};
use crate::common::{
    TestServer,
    rooms::{bodies, ids, text},
};

#[tokio::test]
async fn a_timeline_says_where_it_begins() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let sync = first(&alice).await;
    let timeline = &sync["rooms"]["join"][&room]["timeline"];
    assert_ne!(timeline["limited"], true);
    assert_eq!(events(timeline).next().unwrap()["type"], "m.room.create");
    assert_eq!(events(timeline).next().unwrap()["room_id"], Value::Null, "the section names the room");

    for n in 0..12 {
        alice.say(&room, &n.to_string()).await;
    }
    let new = next(&alice, &sync).await;
    let timeline = &new["rooms"]["join"][&room]["timeline"];
    assert_eq!(timeline["limited"], true);
    assert_eq!(bodies(&timeline["events"]), ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]);
    let limit = |limit: u64| json!({ "room": { "timeline": { "limit": limit } } });
    let none = filtered(&alice, &limit(0)).await["rooms"]["join"][&room].clone();
    assert_eq!((events(&none["timeline"]).count(), &none["timeline"]["limited"]), (0, &json!(true)));
    assert!(places(&none["state"]).contains(&"m.room.create ".to_owned()));
    let many = filtered(&alice, &limit(1_000_000)).await["rooms"]["join"][&room]["timeline"].clone();
    assert_eq!((bodies(&many["events"]).len(), many["limited"] == true), (12, false));

    let nothing = next(&alice, &new).await;
    assert_eq!(nothing["rooms"], Value::Null, "{nothing}");
    server.finish().await;
}

#[tokio::test]
async fn a_timeline_is_no_longer_than_the_settings_say() {
    let server = TestServer::with(&[("limits.sync_timeline_events", "3")]).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    for n in 0..5 {
        alice.say(&room, &n.to_string()).await;
    }
    for limit in [json!({}), json!({ "limit": 100 })] {
        let sync = filtered(&alice, &json!({ "room": { "timeline": limit } })).await;
        let timeline = &sync["rooms"]["join"][&room]["timeline"];
        assert_eq!((bodies(&timeline["events"]), &timeline["limited"]), (vec!["2", "3", "4"], &json!(true)));
    }
    server.finish().await;

    let server = TestServer::with(&[("limits.sync_timeline_events", "150")]).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    futures::future::join_all((0..160).map(|n| alice.say(&room, if n % 2 == 0 { "even" } else { "odd" }))).await;
    let sync = filtered(&alice, &json!({ "room": { "timeline": { "limit": 1000 } } })).await;
    assert_eq!(bodies(&sync["rooms"]["join"][&room]["timeline"]["events"]).len(), 150);
    server.finish().await;
}

#[tokio::test]
async fn own_events_come_back_with_their_transaction() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let other = alice.on_device("OTHER").await;
    let room = alice.create(json!({})).await;
    let sync = first(&alice).await;
    let path = format!("/rooms/{room}/send/m.room.message/mine");
    let id = text(&alice.put(&path, json!({ "body": "hello" })).await.ok()["event_id"]);
    for (client, transaction) in [(&alice, json!("mine")), (&other, Value::Null)] {
        let new = next(client, &sync).await;
        let event = &new["rooms"]["join"][&room]["timeline"]["events"][0];
        assert_eq!((&event["event_id"], &event["unsigned"]["transaction_id"]), (&json!(id), &transaction));
        assert!(event["unsigned"]["age"].as_i64().unwrap() >= 0);
        assert_eq!(event["unsigned"]["membership"], "join");
    }
    alice.redact(&room, &id).await;
    let new = first(&alice).await;
    let timeline = &new["rooms"]["join"][&room]["timeline"]["events"];
    let event = timeline.as_array().unwrap().iter().find(|event| event["event_id"] == id).unwrap();
    assert_eq!((&event["content"], &event["unsigned"]["redacted_because"]["redacts"]), (&json!({}), &json!(id)));
    assert_eq!(event["unsigned"]["redacted_because"]["content"]["redacts"], id);
    server.finish().await;
}

#[tokio::test]
async fn filters_choose_rooms_types_and_senders() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (room, other) = (alice.room_with(&[&bob]).await, alice.create(json!({})).await);
    alice.say(&room, "of alice").await;
    bob.say(&room, "of bob").await;
    bob.send(&room, "m.room.encrypted", json!({ "body": "secret" })).await;
    bob.send(&room, "org.example.other", json!({ "body": "other" })).await;
    bob.send(&room, "m.room.message", json!({ "body": "picture", "url": "mxc://x/y" })).await;

    let seen = async |timeline: Value| {
        let sync = filtered(&alice, &json!({ "room": { "timeline": timeline } })).await;
        let shown = events(&sync["rooms"]["join"][&room]["timeline"]);
        shown.filter_map(|event| event["content"]["body"].as_str()).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(seen(json!({ "types": ["m.room.*"] })).await, "of alice, of bob, secret, picture");
    assert_eq!(seen(json!({ "types": ["*.other"] })).await, "other");
    assert_eq!(seen(json!({ "types": [] })).await, "");
    assert_eq!(seen(json!({ "types": ["m.room.*"], "not_types": ["m.room.e*"] })).await, "of alice, of bob, picture");
    assert_eq!(seen(json!({ "senders": [alice.user] })).await, "of alice");
    assert_eq!(seen(json!({ "not_senders": [alice.user], "types": ["m.room.message"] })).await, "of bob, picture");
    assert_eq!(seen(json!({ "contains_url": true })).await, "picture");
    assert_eq!(seen(json!({ "contains_url": false, "types": ["m.room.message"] })).await, "of alice, of bob");
    assert_eq!(seen(json!({ "not_rooms": [room] })).await, "");

    let rooms = async |filter: Value| {
        let sync = filtered(&alice, &json!({ "room": filter })).await;
        let rooms = sync["rooms"]["join"].as_object().cloned().unwrap_or_default();
        (rooms.contains_key(&room), rooms.contains_key(&other))
    };
    assert_eq!(rooms(json!({ "rooms": [room] })).await, (true, false));
    assert_eq!(rooms(json!({ "not_rooms": [room] })).await, (false, true));
    assert_eq!(rooms(json!({ "rooms": [room, other], "not_rooms": [room] })).await, (false, true));
    assert_eq!(rooms(json!({ "rooms": [] })).await, (false, false));

    // What the timeline leaves out is in the state, where that wants it.
    let filter = json!({ "room": {
        "timeline": { "types": ["m.room.message"] },
        "state": { "types": ["m.room.name", "m.room.topic"] },
    } });
    alice.set(&room, "m.room.name", "", json!({ "name": "A name" })).await;
    let state = filtered(&alice, &filter).await["rooms"]["join"][&room]["state"].clone();
    assert_eq!(places(&state), ["m.room.name "]);
    server.finish().await;
}

#[tokio::test]
async fn a_filter_is_given_whole_or_by_its_id() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({})).await;
    for body in ["one", "two", "three"] {
        alice.say(&room, body).await;
    }
    let filter = json!({ "room": { "timeline": { "limit": 2 } }, "account_data": { "types": [] } });
    let id = text(&alice.post(&format!("/user/{}/filter", alice.user), filter.clone()).await.ok()["filter_id"]);
    let by_id = ask(&alice, &[("filter", &id)]).await.ok();
    assert_eq!(bodies(&by_id["rooms"]["join"][&room]["timeline"]["events"]), ["two", "three"]);
    assert_eq!(by_id["account_data"], Value::Null);
    let whole = filtered(&alice, &filter).await;
    assert_eq!(
        ids(&whole["rooms"]["join"][&room]["timeline"]["events"]),
        ids(&by_id["rooms"]["join"][&room]["timeline"]["events"])
    );

    assert_eq!(ask(&bob, &[("filter", &id)]).await.error(), (400, "M_INVALID_PARAM"));
    for wrong in ["{", r#"{"room":7}"#, r#"{"room":{"timeline":{"limit":-1}}}"#] {
        assert_eq!(ask(&alice, &[("filter", wrong)]).await.status, 400, "{wrong}");
    }
    server.finish().await;
}

#[tokio::test]
async fn who_is_ignored_is_not_heard() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let ignoring = |users: Value| {
        let path = format!("/user/{}/account_data/m.ignored_user_list", alice.user);
        let alice = alice.clone();
        async move { alice.put(&path, json!({ "ignored_users": users })).await.ok() }
    };
    ignoring(json!({ bob.user.clone(): {}, alice.user.clone(): {} })).await;
    let before = first(&alice).await;
    bob.say(&room, "of bob").await;
    alice.say(&room, "of alice").await;
    bob.put(&format!("/profile/{}/displayname", bob.user), json!({ "displayname": "Robert" })).await.ok();
    let invited = bob.create(json!({ "invite": [alice.user] })).await;
    let sync = next(&alice, &before).await;
    let timeline = &sync["rooms"]["join"][&room]["timeline"];
    assert_eq!(bodies(&timeline["events"]), ["of alice"]);
    assert_eq!(content(timeline, "m.room.member")["displayname"], "Robert", "state is shown whoever sent it");
    assert_eq!(sync["rooms"]["invite"], Value::Null);

    ignoring(json!({})).await;
    let sync = first(&alice).await;
    assert_eq!(bodies(&sync["rooms"]["join"][&room]["timeline"]["events"]), ["of bob", "of alice"]);
    assert!(sync["rooms"]["invite"][&invited].is_object());
    server.finish().await;
}

#[tokio::test]
async fn tokens_that_are_none_are_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for junk in ["", "s", "nonsense", "s1", "s-1_b_0", "s1_b_0_x", "s99999999999999999999_b_0", "s1_é_0"] {
        assert_eq!(ask(&alice, &[("since", junk)]).await.error(), (400, "M_INVALID_PARAM"), "{junk}");
    }
    assert_eq!(ask(&alice, &[("timeout", "long")]).await.status, 400);
    assert_eq!(ask(&alice, &[("full_state", "perhaps")]).await.status, 400);
    let sync = first(&alice).await;
    assert_eq!(server.client().get(&format!("/sync?since={}", token(&sync))).await.error(), (401, "M_MISSING_TOKEN"));
    server.finish().await;
}
