//! How long is waited, for what, and what becomes of it when nobody waits any more.

use std::time::{Duration, Instant};

use everfold::log::EmbeddedOptions;
use futures::future::join_all;
use http::Method;
use schemas::{Key, Lsn, Tag};
use serde_json::{Value, json};

use crate::common::{Client, HeldLog, Reply, TestServer, until};

/// For longer than this, what rests on others is not decided again.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long a token ahead is waited for.
const AHEAD: Duration = Duration::from_secs(5);

fn come_back(reply: &Reply) {
    assert_eq!(reply.error(), (503, "M_UNKNOWN"), "{}", reply.text);
    assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn what_is_overtaken_again_and_again_is_told_to_come_back() {
    let slow = EmbeddedOptions { sync_delay: Duration::from_millis(50), ..EmbeddedOptions::default() };
    let (server, log) = TestServer::with_log_of(slow, &[], HeldLog::over).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (room, other) = (alice.create(json!({})).await, alice.create(json!({})).await);
    let data = format!("/user/{}/account_data/org.example", alice.user);
    let topic = format!("/rooms/{room}/state/m.room.topic");
    let message = format!("/rooms/{other}/send/m.room.message/1");
    let ask = async || {
        futures::join!(
            alice.put(&data, json!({ "n": 1 })),
            alice.put(&topic, json!({ "topic": "new" })),
            alice.put(&message, json!({ "body": "Hi", "msgtype": "m.text" })),
        )
    };
    let [user, rooms] = [Key::new(Tag::UserStatus, &alice.user), Key::new(Tag::RoomState, &room)];
    log.contend(&[user, rooms, Key::new(Tag::RoomState, &other)]);
    let began = Instant::now();
    let (data_set, topic_set, sent) = ask().await;
    assert!(began.elapsed() >= PATIENCE, "{:?}", began.elapsed());
    [&data_set, &topic_set, &sent].into_iter().for_each(come_back);
    // Others are not held up.
    bob.put(&format!("/user/{}/account_data/org.example", bob.user), json!({})).await.ok();
    log.contend(&[]);
    assert_eq!(alice.get(&data).await.error(), (404, "M_NOT_FOUND"), "nothing has changed");
    assert_eq!(alice.get(&topic).await.error(), (404, "M_NOT_FOUND"));
    let (data_set, topic_set, sent) = ask().await;
    [data_set, topic_set, sent].into_iter().for_each(|reply| drop(reply.ok()));
    server.finish().await;
}

#[tokio::test]
async fn what_the_log_does_not_confirm_is_told_to_come_back_when_the_request_is_ten_seconds_old() {
    let slow = EmbeddedOptions { sync_delay: Duration::from_millis(50), ..EmbeddedOptions::default() };
    let (server, log) = TestServer::with_log_of(slow, &[], HeldLog::over).await;
    let alice = server.user("alice").await;
    let (room, data) = (alice.create(json!({})).await, format!("/user/{}/account_data/org.example", alice.user));
    let message = format!("/rooms/{room}/send/m.room.message/1");
    let hello = || json!({ "body": "Hi", "msgtype": "m.text" });
    let (topic, began) = (format!("/rooms/{room}/state/m.room.topic"), Instant::now());
    // All that is decided for the first six seconds is void; then nothing is confirmed.
    log.contend(&[Key::new(Tag::RoomState, &room), Key::new(Tag::UserStatus, &alice.user)]);
    let ask = async {
        futures::join!(
            alice.put(&message, hello()),
            alice.put(&topic, json!({ "topic": "late" })),
            alice.put(&data, json!({ "n": 1 })),
        )
    };
    let hold = async {
        until(async || began.elapsed() >= PATIENCE * 6 / 10).await;
        log.contend(&[]);
        log.hold_next(100);
    };
    let ((sent, set, kept), ()) = futures::join!(ask, hold);
    let took = began.elapsed();
    [&sent, &set, &kept].into_iter().for_each(come_back);
    assert!(took >= PATIENCE && took < PATIENCE + Duration::from_secs(3), "{took:?}");
    // It is there in the end, once.
    log.hold_next(0);
    log.release();
    let id = alice.put(&message, hello()).await.ok()["event_id"].clone();
    let page = alice.page(&room, "dir=b").await;
    let sent = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message");
    assert_eq!(sent.map(|event| &event["event_id"]).collect::<Vec<_>>(), [&id]);
    assert_eq!(alice.get(&data).await.ok(), json!({ "n": 1 }));
    server.finish().await;
}

#[tokio::test]
async fn a_lane_begins_again_from_the_read_models_after_what_was_not_confirmed() {
    const ON_THE_WAY: usize = 5;
    for appended in [0, 2, ON_THE_WAY] {
        let (server, log) = TestServer::with_log(HeldLog::over).await;
        let alice = server.user("alice").await;
        let room = alice.create(json!({})).await;
        let send = async |n: usize| {
            let path = format!("/rooms/{room}/send/m.room.message/{n}");
            alice.put(&path, json!({ "body": n.to_string(), "msgtype": "m.text" })).await
        };
        // One builds on another, and of none is known whether the log has it; some first ones it has.
        log.hold_next(ON_THE_WAY);
        let given_up = async {
            for _ in 0..ON_THE_WAY {
                log.held().await;
            }
            log.give_up(appended);
        };
        let (replies, ()) = futures::join!(join_all((0..ON_THE_WAY).map(send)), given_up);
        replies.iter().for_each(come_back);
        // What comes next needs none of it, and what comes again is there once.
        let next = send(ON_THE_WAY).await.ok()["event_id"].clone();
        let mut ids = Vec::new();
        for n in 0..ON_THE_WAY {
            ids.push(send(n).await.ok()["event_id"].clone());
        }
        ids.insert(appended, next);
        let page = alice.page(&room, "dir=f&limit=100").await;
        let said = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message");
        assert_eq!(said.map(|event| event["event_id"].clone()).collect::<Vec<_>>(), ids);
        server.finish().await;
    }
}

/// A sync token so many records further.
fn further(token: &Value, records: u64) -> String {
    let (lsn, rest) = token.as_str().unwrap()[1..].split_once('_').unwrap();
    format!("s{}_{rest}", lsn.parse::<u64>().unwrap() + records)
}

#[tokio::test]
async fn a_token_ahead_of_this_node_is_waited_for() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let last = alice.get("/sync").await.ok()["next_batch"].clone();
    let sync = |since: &str| format!("/sync?timeout=0&since={since}");

    let soon = sync(&further(&last, 3));
    let write = async {
        for n in 0..3 {
            bob.put(&format!("/user/{}/account_data/org.example", bob.user), json!({ "n": n })).await.ok();
        }
    };
    let (reply, ()) = futures::join!(alice.get(&soon), write);
    let next = reply.ok()["next_batch"].clone();
    let lsn = |token: &str| Lsn(token[1..].split('_').next().unwrap().parse().unwrap());
    assert!(lsn(next.as_str().unwrap()) >= lsn(&further(&last, 3)), "{next} is before what was asked for");

    // What doesn't come is not waited for for ever.
    let began = Instant::now();
    let never = further(&next, 1_000_000);
    let changes = format!("/keys/changes?from={never}&to={never}");
    let never = sync(&never);
    let (synced, changed) = futures::join!(alice.get(&never), alice.get(&changes));
    assert!(began.elapsed() >= AHEAD, "{:?}", began.elapsed());
    [&synced, &changed].into_iter().for_each(come_back);
    alice.get(&sync(next.as_str().unwrap())).await.ok();
    server.finish().await;
}

/// Begins a request, and goes away while it is on its way to the log.
async fn drop_midway(server: &TestServer, log: &HeldLog, who: &Client, method: Method, path: &str, body: Value) {
    log.hold_next(1);
    let request = who.request(method, path).json(&body);
    let asking = tokio::spawn(request.send());
    log.held().await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    // By when it has answered others, the server knows.
    server.client().get("/health/live").await.ok();
    let tail = server.app().reader.tail();
    log.release();
    assert!(server.app().progress.reached(tail.next(), PATIENCE).await, "{path} was not folded");
}

#[tokio::test]
async fn a_dropped_connection_leaves_nothing_half_done() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let rooms = async |who: &Client| who.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len();
    let hello = || json!({ "body": "Hi", "msgtype": "m.text" });

    let new = json!({ "name": "Left alone", "room_alias_name": "alone" });
    drop_midway(&server, &log, &alice, Method::POST, "/createRoom", new).await;
    assert_eq!(rooms(&alice).await, 2);
    let found = alice.get("/directory/room/%23alone:test.example").await.ok()["room_id"].as_str().unwrap().to_owned();
    let name = alice.get(&format!("/rooms/{found}/state/m.room.name")).await.ok();
    assert_eq!(name, json!({ "name": "Left alone" }));
    alice.say(&found, "still here").await;

    let send = format!("/rooms/{room}/send/m.room.message/1");
    drop_midway(&server, &log, &alice, Method::PUT, &send, hello()).await;
    let again = alice.put(&send, hello()).await.ok()["event_id"].clone();
    let page = alice.page(&room, "dir=b").await;
    let sent = page["chunk"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.message");
    assert_eq!(sent.map(|event| &event["event_id"]).collect::<Vec<_>>(), [&again], "it was sent, once");

    let topic = format!("/rooms/{room}/state/m.room.topic");
    drop_midway(&server, &log, &alice, Method::PUT, &topic, json!({ "topic": "set" })).await;
    assert_eq!(alice.get(&topic).await.ok(), json!({ "topic": "set" }));
    drop_midway(&server, &log, &bob, Method::POST, &format!("/rooms/{room}/join"), json!({})).await;
    assert_eq!(rooms(&bob).await, 1);
    bob.say(&room, "I am in").await;
    let data = format!("/user/{}/account_data/org.example", bob.user);
    drop_midway(&server, &log, &bob, Method::PUT, &data, json!({ "n": 1 })).await;
    assert_eq!(bob.get(&data).await.ok(), json!({ "n": 1 }));
    server.finish().await;
}

#[tokio::test]
async fn what_is_on_the_log_but_can_not_be_read_yet_is_not_waited_for_for_ever() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let data = format!("/user/{}/account_data/org.example", alice.user);
    let message = format!("/rooms/{room}/send/m.room.message/1");
    let hi = json!({ "body": "Hi", "msgtype": "m.text" });
    log.hold_reads();
    let began = Instant::now();
    let (sent, set) = futures::join!(alice.put(&message, hi.clone()), alice.put(&data, json!({ "n": 1 })));
    [&sent, &set].into_iter().for_each(come_back);
    assert!((PATIENCE..2 * PATIENCE).contains(&began.elapsed()), "{:?}", began.elapsed());
    log.release_reads();
    // It takes effect all the same, once.
    let id = alice.put(&message, hi).await.ok()["event_id"].clone();
    let page = alice.get(&format!("/rooms/{room}/messages?dir=b")).await.ok();
    let sent: Vec<_> =
        page["chunk"].as_array().unwrap().iter().filter(|event| event["content"]["body"] == "Hi").collect();
    assert_eq!(sent.len(), 1, "{page}");
    assert_eq!(sent[0]["event_id"], id);
    assert_eq!(alice.get(&data).await.ok(), json!({ "n": 1 }));
    server.finish().await;
}
