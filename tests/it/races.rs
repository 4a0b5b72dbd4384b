//! What many want at once, one gets, and the others are told why not.

use std::collections::BTreeSet;

use everfold::commands::{Request, Sender, events::By};
use futures::future::join_all;
use projections::models::accounts;
use ruma::RoomId;
use schemas::RecordId;
use serde_json::{Value, json};

use crate::common::{Client, Reply, TestServer};

const MANY: usize = 24;

/// How many were answered with 200; all others must have got this error.
fn winners(replies: &[Reply], error: (u16, &str)) -> usize {
    let lost: Vec<&Reply> = replies.iter().filter(|reply| reply.status != 200).collect();
    lost.iter().for_each(|reply| assert_eq!(reply.error(), error));
    replies.len() - lost.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_name_has_one_owner() {
    let server = TestServer::start().await;
    let client = server.client();
    let register = |n: usize| {
        let name = if n.is_multiple_of(2) { "carol" } else { "CaRoL" };
        let body = json!({ "username": name, "password": format!("pass {n:04}"), "auth": { "type": "m.login.dummy" } });
        let client = client.clone();
        async move { client.post("/register", body).await }
    };
    let replies = join_all((0..MANY).map(register)).await;
    assert_eq!(winners(&replies, (400, "M_USER_IN_USE")), 1);
    let winner = replies.iter().position(|reply| reply.status == 200).unwrap();
    for n in [winner, (winner + 1) % MANY] {
        let logged_in = client.log_in("carol", &format!("pass {n:04}"), json!({})).await;
        assert_eq!(logged_in.status == 200, n == winner, "only the winner's password counts");
    }
    assert!(accounts::get(&server.app().view().unwrap(), "@carol:test.example").unwrap().is_some());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_points_to_one_room() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let rooms = join_all((0..MANY).map(|_| alice.create(json!({})))).await;
    let path = "/directory/room/%23fought:test.example";
    let replies = join_all(rooms.iter().map(|room| alice.put(path, json!({ "room_id": room })))).await;
    assert_eq!(winners(&replies, (409, "M_UNKNOWN")), 1);
    let winner = replies.iter().position(|reply| reply.status == 200).unwrap();
    assert_eq!(alice.get(path).await.ok()["room_id"], rooms[winner].as_str());

    // A room that can't have its alias is not created.
    let before = alice.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len();
    let body = json!({ "room_alias_name": "new" });
    let replies = join_all((0..MANY).map(|_| alice.post("/createRoom", body.clone()))).await;
    assert_eq!(winners(&replies, (400, "M_ROOM_IN_USE")), 1);
    assert_eq!(alice.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len(), before + 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_time_key_is_given_away_once() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let askers = [server.user("bob").await, server.user("carol").await];
    let key = |n: usize| {
        let signatures = json!({ alice.user.clone(): { "ed25519:D": "c2ln" } });
        (format!("signed_curve25519:{n}"), json!({ "key": format!("{n:0>43}"), "signatures": signatures }))
    };
    let keys: serde_json::Map<String, Value> = (0..MANY).map(key).collect();
    alice.post("/keys/upload", json!({ "one_time_keys": keys })).await.ok();
    let wanted = json!({ "one_time_keys": { alice.user.clone(): { alice.device.clone(): "signed_curve25519" } } });
    let claims = (0..MANY + 8).map(|n| askers[n % 2].post("/keys/claim", wanted.clone()));
    let mut given = Vec::new();
    for reply in join_all(claims).await {
        let keys = reply.ok()["one_time_keys"][&alice.user][&alice.device].clone();
        given.extend(keys.as_object().into_iter().flatten().map(|(id, _)| id.clone()));
    }
    assert_eq!(given.len(), MANY);
    assert_eq!(given.into_iter().collect::<BTreeSet<_>>().len(), MANY, "a key was given away twice");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_takes_effect_once() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let send = |who: &Client, body: &str, id: &str| {
        let (who, path) = (who.clone(), format!("/rooms/{room}/send/m.room.message/{id}"));
        let body = json!({ "msgtype": "m.text", "body": body });
        async move { who.put(&path, body).await.ok()["event_id"].clone() }
    };
    let same = join_all((0..MANY).map(|_| send(&alice, "same", "1"))).await;
    assert!(same.iter().all(|id| *id == same[0]), "{same:?}");
    // Transactions belong to a user's device, and what a repeated one says doesn't matter.
    assert_eq!(send(&alice, "another", "1").await, same[0]);
    assert_ne!(send(&bob, "of bob", "1").await, same[0]);
    assert_ne!(send(&alice, "different", "2").await, same[0]);
    let sync = alice.get("/sync").await.ok();
    let timeline = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap();
    let said: Vec<&str> = timeline.iter().filter_map(|event| event["content"]["body"].as_str()).collect();
    assert_eq!(said, ["same", "of bob", "different"]);

    let target = same[0].as_str().unwrap();
    let path = format!("/rooms/{room}/redact/{target}/3");
    let redact = join_all((0..MANY).map(|_| alice.put(&path, json!({})))).await;
    let redactions: BTreeSet<String> = redact.into_iter().map(|reply| reply.ok()["event_id"].to_string()).collect();
    assert_eq!(redactions.len(), 1);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_has_one_history() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let path = format!("/rooms/{room}/state/m.room.topic");
    let set = (0..MANY).map(async |n| alice.put(&path, json!({ "topic": n.to_string() })).await);
    let set: BTreeSet<String> =
        join_all(set).await.into_iter().map(|reply| reply.ok()["event_id"].to_string()).collect();
    assert_eq!(set.len(), MANY);
    let sync = alice.get(&format!("/sync?filter={}", "{\"room\":{\"timeline\":{\"limit\":100}}}")).await.ok();
    let timeline = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().clone();
    let topics: Vec<&Value> = timeline.iter().filter(|event| event["type"] == "m.room.topic").collect();
    assert_eq!(topics.iter().map(|event| event["event_id"].to_string()).collect::<BTreeSet<_>>(), set);
    for pair in topics.windows(2) {
        assert_eq!(pair[1]["unsigned"]["replaces_state"], pair[0]["event_id"], "each knows the one before it");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_closes_lets_in_those_who_were_first() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let guests = join_all((0..MANY).map(async |n| server.user(&format!("guest{n}")).await)).await;
    let path = format!("/rooms/{room}/join");
    let join = async |guest: &Client| guest.post(&path, json!({})).await;
    let close = async {
        let rules = json!({ "join_rule": "invite" });
        alice.put(&format!("/rooms/{room}/state/m.room.join_rules"), rules).await.ok()
    };
    let (early, late) = guests.split_at(MANY / 2);
    let (first, _, second) = futures::join!(join_all(early.iter().map(join)), close, join_all(late.iter().map(join)));
    let replies: Vec<Reply> = first.into_iter().chain(second).collect();
    winners(&replies, (403, "M_FORBIDDEN"));
    for (guest, reply) in guests.iter().zip(&replies) {
        let joined = guest.get("/joined_rooms").await.ok();
        assert_eq!(joined["joined_rooms"].as_array().unwrap().len(), usize::from(reply.status == 200));
    }
    server.finish().await;
}

/// A request that is sent again while the first is on its way, and messages after it: nothing may be built on the event
/// of the second, which never comes to be.
#[tokio::test]
async fn what_follows_a_message_that_was_sent_twice_stands() {
    // Long syncs, so that all of it is on its way at once.
    let server = TestServer::with(&[("log.sync_delay_ms", "20")]).await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let id = RoomId::parse(&room).unwrap();
    let commands = server.app().commands.clone();
    let sender = Sender::new(alice.user.as_str().try_into().unwrap(), alice.device.as_str().into());
    for round in 0..3_u8 {
        let send = |transaction: u8| {
            let request = Request { id: Some(RecordId([round * 16 + transaction; 16])), ..Request::from(&sender) };
            let by = By { sender: sender.clone(), request, transaction: Some(format!("{round}-{transaction}")) };
            let content = serde_json::from_value(json!({ "body": "hello", "msgtype": "m.text" })).unwrap();
            commands.send_message(by, &id, "m.room.message", content)
        };
        let sent = join_all([1, 2, 1, 3, 2, 4].map(send)).await;
        let sent: Vec<_> = sent.into_iter().map(Result::unwrap).collect();
        assert_eq!((&sent[0], &sent[1]), (&sent[2], &sent[4]), "once each");
        assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), 4);
    }
    drop(commands);
    server.finish().await;
}
