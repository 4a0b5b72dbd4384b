//! What is not a room's history: counts, account data, receipts, typing, presence, messages to the device, keys.

use serde_json::{Value, json};

use super::{ask, content, events, filtered, first, next, token};
use crate::common::{Client, SigningKey, TestServer, rooms::text};

fn counts(room: &Value) -> (u64, u64) {
    let count = |name: &str| room["unread_notifications"][name].as_u64().unwrap();
    (count("notification_count"), count("highlight_count"))
}

#[tokio::test]
async fn unread_messages_are_counted_per_thread_too() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let sync = first(&bob).await;
    let root = alice.say(&room, "root").await;
    let mention = json!({ "msgtype": "m.text", "body": "bob?", "m.mentions": { "user_ids": [bob.user] } });
    alice.send(&room, "m.room.message", mention).await;
    bob.say(&other_room(&bob).await, "own messages don't count").await;
    let sync = next(&bob, &sync).await;
    assert_eq!(counts(&sync["rooms"]["join"][&room]), (2, 1));
    assert_eq!(sync["rooms"]["join"][&room]["unread_thread_notifications"], Value::Null);

    let relates = json!({ "rel_type": "m.thread", "event_id": root });
    let threaded = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relates });
    let in_thread = alice.send(&room, "m.room.message", threaded).await;
    let by_thread = json!({ "room": { "timeline": { "unread_thread_notifications": true } } });
    let room_of = |sync: Value| sync["rooms"]["join"][&room].clone();
    let threads = room_of(filtered(&bob, &by_thread).await);
    assert_eq!(counts(&threads), (2, 1));
    let expected = json!({ &root: { "notification_count": 1, "highlight_count": 0 } });
    assert_eq!(threads["unread_thread_notifications"], expected);
    assert_eq!(counts(&room_of(next(&bob, &sync).await)), (3, 1), "a client that knows no threads gets the sum");

    // Reading on is news by itself, also on other devices.
    let sync = next(&bob, &sync).await;
    let receipt = format!("/rooms/{room}/receipt/m.read.private/{in_thread}");
    bob.post(&receipt, json!({ "thread_id": root })).await.ok();
    let sync = next(&bob, &sync).await;
    assert_eq!(counts(&sync["rooms"]["join"][&room]), (2, 1));
    bob.post(&receipt, json!({})).await.ok();
    let sync = next(&bob, &sync).await;
    assert_eq!(counts(&sync["rooms"]["join"][&room]), (0, 0));
    alice.say(&room, "again").await;
    assert_eq!(counts(&next(&bob, &sync).await["rooms"]["join"][&room]), (1, 0));
    server.finish().await;
}

async fn other_room(client: &Client) -> String {
    client.create(json!({})).await
}

#[tokio::test]
async fn account_data_tags_and_rules_come_once() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let sync = first(&alice).await;
    assert!(content(&sync["account_data"], "m.push_rules")["global"]["override"].is_array());
    let own = format!("/user/{}", alice.user);
    alice.put(&format!("{own}/account_data/org.example.a"), json!({ "n": 1 })).await.ok();
    alice.put(&format!("{own}/rooms/{room}/account_data/org.example.b"), json!({ "n": 2 })).await.ok();
    alice.put(&format!("{own}/rooms/{room}/tags/u.work"), json!({ "order": 0.5 })).await.ok();
    assert_eq!(next(&bob, &first(&bob).await).await["rooms"], Value::Null);

    for sync in [&next(&alice, &sync).await, &first(&alice).await] {
        assert_eq!(content(&sync["account_data"], "org.example.a"), &json!({ "n": 1 }));
        let of_room = &sync["rooms"]["join"][&room]["account_data"];
        assert_eq!(content(of_room, "org.example.b"), &json!({ "n": 2 }));
        assert_eq!(content(of_room, "m.tag"), &json!({ "tags": { "u.work": { "order": 0.5 } } }));
    }
    let sync = next(&alice, &sync).await;
    let nothing = next(&alice, &sync).await;
    assert_eq!((&nothing["rooms"], &nothing["account_data"]), (&Value::Null, &Value::Null));
    alice.put("/pushrules/global/override/.m.rule.master/enabled", json!({ "enabled": true })).await.ok();
    assert!(content(&next(&alice, &sync).await["account_data"], "m.push_rules")["global"].is_object());

    let filter =
        json!({ "account_data": { "types": ["org.*"] }, "room": { "account_data": { "not_types": ["m.tag"] } } });
    let chosen = filtered(&alice, &filter).await;
    assert_eq!(events(&chosen["account_data"]).count(), 1);
    assert_eq!(events(&chosen["rooms"]["join"][&room]["account_data"]).count(), 1);
    server.finish().await;
}

#[tokio::test]
async fn receipts_and_typing_are_told_as_they_change() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&bob]).await;
    let hello = alice.say(&room, "hello").await;
    let sync = first(&alice).await;
    bob.post(&format!("/rooms/{room}/receipt/m.read/{hello}"), json!({})).await.ok();
    bob.put(&format!("/rooms/{room}/typing/{}", bob.user), json!({ "typing": true })).await.ok();
    let sync = next(&alice, &sync).await;
    let ephemeral = &sync["rooms"]["join"][&room]["ephemeral"];
    assert!(content(ephemeral, "m.receipt")[&hello]["m.read"][&bob.user]["ts"].is_u64(), "{sync}");
    assert_eq!(content(ephemeral, "m.typing"), &json!({ "user_ids": [bob.user] }));
    assert_eq!(sync["rooms"]["join"][&room]["timeline"]["events"], Value::Null);
    let nothing = next(&alice, &sync).await;
    assert_eq!(nothing["rooms"], Value::Null);
    bob.put(&format!("/rooms/{room}/typing/{}", bob.user), json!({ "typing": false })).await.ok();
    let stopped = next(&alice, &sync).await;
    assert_eq!(content(&stopped["rooms"]["join"][&room]["ephemeral"], "m.typing"), &json!({ "user_ids": [] }));

    // Who comes in sees what is current, however long ago it began.
    bob.put(&format!("/rooms/{room}/typing/{}", bob.user), json!({ "typing": true })).await.ok();
    let before = first(&carol).await;
    carol.join(&room).await;
    let ephemeral = next(&carol, &before).await["rooms"]["join"][&room]["ephemeral"].clone();
    assert_eq!(content(&ephemeral, "m.typing"), &json!({ "user_ids": [bob.user] }));
    assert!(content(&ephemeral, "m.receipt")[&hello].is_object());
    let none = filtered(&carol, &json!({ "room": { "ephemeral": { "types": ["m.receipt"] } } })).await;
    assert_eq!(events(&none["rooms"]["join"][&room]["ephemeral"]).count(), 1);
    server.finish().await;
}

#[tokio::test]
async fn syncing_makes_present_unless_it_says_otherwise() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    alice.room_with(&[&bob]).await;
    let presence = |sync: &Value, of: &Client| {
        let found = events(&sync["presence"]).find(|event| event["sender"] == of.user);
        found.map_or(Value::Null, |event| event["content"]["presence"].clone())
    };
    let offline = [("set_presence", "offline")];
    let start = ask(&bob, &offline).await.ok();
    assert_eq!(presence(&start, &alice), Value::Null);
    first(&alice).await;
    first(&carol).await;
    let sync = ask(&bob, &[("since", token(&start)), offline[0]]).await.ok();
    assert_eq!((presence(&sync, &alice), presence(&sync, &carol)), (json!("online"), Value::Null));
    ask(&alice, &[("set_presence", "unavailable")]).await.ok();
    let sync = ask(&bob, &[("since", token(&sync)), offline[0]]).await.ok();
    assert_eq!(presence(&sync, &alice), json!("unavailable"));
    assert_eq!(alice.get(&format!("/presence/{}/status", bob.user)).await.ok()["presence"], "offline");
    let filter = json!({ "presence": { "types": [] } }).to_string();
    let sync = ask(&bob, &[("filter", &filter), offline[0]]).await.ok();
    assert_eq!(sync["presence"], Value::Null);
    server.finish().await;
}

/// The numbers in a sync's messages to the device.
fn numbers(sync: &Value) -> Vec<u64> {
    events(&sync["to_device"]).map(|event| event["content"]["n"].as_u64().unwrap()).collect()
}

async fn send_to(from: &Client, to: &Client, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let messages = json!({ &to.user: { &to.device: { "n": n } } });
        from.put(&format!("/sendToDevice/m.test/{n}"), json!({ "messages": messages })).await.ok();
    }
}

#[tokio::test]
async fn messages_to_devices_come_exactly_once() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let start = first(&bob).await;
    send_to(&alice, &bob, 0..250).await;
    let one = next(&bob, &start).await;
    let event = &one["to_device"]["events"][0];
    assert_eq!(event, &json!({ "type": "m.test", "sender": alice.user, "content": { "n": 0 } }));
    assert_eq!(numbers(&one), (0..100).collect::<Vec<_>>());
    // A lost answer is asked for again.
    assert_eq!(numbers(&next(&bob, &start).await), numbers(&one));
    assert_eq!(token(&one).split('_').count(), 4, "the token says how far the messages went");
    let two = next(&bob, &one).await;
    assert_eq!(numbers(&two), (100..200).collect::<Vec<_>>());
    // Who begins anew is not told again what has arrived.
    assert_eq!(numbers(&first(&bob).await), (100..200).collect::<Vec<_>>());
    let three = next(&bob, &two).await;
    assert_eq!((numbers(&three), token(&three).split('_').count()), ((200..250).collect(), 3));
    assert_eq!(numbers(&next(&bob, &three).await), Vec::<u64>::new());

    // What has arrived is gone after a restart too.
    let server = server.restart().await;
    let bob = server.client().with_token(bob.token());
    assert_eq!(numbers(&first(&bob).await), Vec::<u64>::new());
    assert_eq!(numbers(&next(&bob, &two).await), Vec::<u64>::new());
    server.finish().await;
}

#[tokio::test]
async fn changed_devices_are_named_and_keys_counted() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let encrypted = json!([{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }]);
    let room = alice.create(json!({ "preset": "public_chat", "initial_state": encrypted })).await;
    let start = first(&alice).await;
    let counts = |sync: &Value| sync["device_one_time_keys_count"].clone();
    assert_eq!((counts(&start), &start["device_lists"]), (json!({ "signed_curve25519": 0 }), &Value::Null));
    assert_eq!(start["device_unused_fallback_key_types"], json!([]));

    let upload = async |of: &Client| {
        let keys = json!({ "device_keys": SigningKey::of_device(&of.device).device_keys(of) });
        of.post("/keys/upload", keys).await.ok()
    };
    upload(&bob).await;
    upload(&carol).await;
    bob.join(&room).await;
    let sync = next(&alice, &start).await;
    assert_eq!(sync["device_lists"], json!({ "changed": [bob.user] }), "who comes in is new");
    let tablet = bob.on_device("TABLET").await;
    upload(&tablet).await;
    let sync = next(&alice, &sync).await;
    assert_eq!(sync["device_lists"], json!({ "changed": [bob.user] }));
    upload(&alice).await;
    let sync = next(&alice, &sync).await;
    assert_eq!(sync["device_lists"], json!({ "changed": [alice.user] }), "one's own too");
    bob.leave(&room).await;
    let sync = next(&alice, &sync).await;
    assert_eq!(sync["device_lists"], json!({ "left": [bob.user] }));

    // An invitation that is refused tells nobody who is there.
    let before = first(&carol).await;
    alice.invite(&room, &carol).await;
    carol.leave(&room).await;
    assert_eq!(next(&carol, &before).await["device_lists"], Value::Null);

    let signed = |n: u8| json!({ "key": format!("{n:0>43}"), "signatures": { &alice.user: { "ed25519:D": "c2ln" } } });
    let key = |n: u8| (format!("signed_curve25519:K{n}"), signed(n));
    let keys: serde_json::Map<String, Value> = (0..3).map(key).collect();
    let fallback = json!({ "signed_curve25519:F": signed(9) });
    alice.post("/keys/upload", json!({ "one_time_keys": keys, "fallback_keys": fallback })).await.ok();
    let sync = next(&alice, &sync).await;
    assert_eq!(counts(&sync), json!({ "signed_curve25519": 3 }));
    assert_eq!(sync["device_unused_fallback_key_types"], json!(["signed_curve25519"]));
    let claim = json!({ "one_time_keys": { &alice.user: { &alice.device: "signed_curve25519" } } });
    for left in [2, 1, 0, 0] {
        bob.post("/keys/claim", claim.clone()).await.ok();
        assert_eq!(counts(&next(&alice, &sync).await), json!({ "signed_curve25519": left }));
    }
    assert_eq!(next(&alice, &sync).await["device_unused_fallback_key_types"], json!([]));
    assert_eq!(text(&sync["next_batch"]).chars().next(), Some('s'));
    server.finish().await;
}
