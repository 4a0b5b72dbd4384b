use std::{path::Path, time::Duration};

use schemas::Lsn;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{ask, first, next, token};
use crate::common::{Client, PATIENCE, TestServer, rooms::bodies, until};

/// More than any test takes: who is not woken is noticed.
const LONG: &str = "110000";

/// A sync that waits.
fn wait(client: &Client, last: &Value) -> JoinHandle<Value> {
    let (client, since) = (client.clone(), token(last).to_owned());
    tokio::spawn(async move { ask(&client, &[("since", &since), ("timeout", LONG)]).await.ok() })
}

/// Until so many wait.
async fn waiting(server: &TestServer, many: usize) {
    until(async || server.app().syncs.notifier.waiters() == many).await;
}

async fn woken(waiting: JoinHandle<Value>) -> Value {
    tokio::time::timeout(PATIENCE, waiting).await.expect("not woken").unwrap()
}

fn tail(server: &TestServer) -> Lsn {
    server.app().view().unwrap().lsn()
}

#[tokio::test]
async fn who_waits_is_woken_by_what_concerns_them() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&bob]).await;
    let of_carol = carol.create(json!({})).await;
    // Everybody's presence is settled.
    for client in [&alice, &bob, &carol] {
        first(client).await;
    }
    let (mut last, last_of_carol) = (first(&bob).await, first(&carol).await);
    let idle = wait(&carol, &last_of_carol);
    waiting(&server, 1).await;
    let mut watch = server.app().syncs.notifier.watch(carol.user.as_str().try_into().unwrap()).unwrap();

    let own = format!("/user/{}", bob.user);
    let typing = format!("/rooms/{room}/typing/{}", alice.user);
    let to_bob = json!({ "messages": { &bob.user: { "*": {} } } });
    type Check = fn(&Value) -> &Value;
    let news: [(&Client, String, Value, Check); 6] = [
        (
            &alice,
            format!("/rooms/{room}/send/m.room.message/a"),
            json!({ "body": "hello" }),
            |sync| &sync["rooms"]["join"],
        ),
        (&alice, format!("/rooms/{room}/state/m.room.name/"), json!({ "name": "x" }), |sync| &sync["rooms"]["join"]),
        (&alice, typing, json!({ "typing": true }), |sync| &sync["rooms"]["join"]),
        (&alice, "/sendToDevice/m.test/a".to_owned(), to_bob, |sync| &sync["to_device"]["events"]),
        (&bob, format!("{own}/account_data/org.example"), json!({}), |sync| &sync["account_data"]["events"]),
        (&bob, format!("{own}/rooms/{room}/tags/u.x"), json!({}), |sync| &sync["rooms"]["join"]),
    ];
    for (who, path, body, check) in news {
        let waits = wait(&bob, &last);
        waiting(&server, 2 + 1).await;
        who.put(&path, body).await.ok();
        let sync = woken(waits).await;
        assert!(!check(&sync).is_null(), "{path} {sync}");
        last = next(&bob, &sync).await;
    }
    let others = alice.create(json!({})).await;
    let waits = wait(&bob, &last);
    waiting(&server, 3).await;
    alice.invite(&others, &bob).await;
    assert!(woken(waits).await["rooms"]["invite"][&others].is_object());

    // All that did not concern who waits all the time.
    assert!(futures::FutureExt::now_or_never(watch.changed()).is_none(), "somebody was woken for nothing");
    carol.say(&of_carol, "at last").await;
    assert_eq!(bodies(&woken(idle).await["rooms"]["join"][&of_carol]["timeline"]["events"]), ["at last"]);
    server.finish().await;
}

#[tokio::test]
async fn a_room_that_one_comes_into_wakes_from_then_on() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let mut last = first(&bob).await;
    for _ in 0..3 {
        let waits = wait(&bob, &last);
        waiting(&server, 1).await;
        bob.join(&room).await;
        last = woken(waits).await;
        let waits = wait(&bob, &last);
        waiting(&server, 1).await;
        alice.say(&room, "hello").await;
        last = woken(waits).await;
        assert_eq!(bodies(&last["rooms"]["join"][&room]["timeline"]["events"]), ["hello"]);
        let waits = wait(&bob, &last);
        waiting(&server, 1).await;
        bob.leave(&room).await;
        last = woken(waits).await;
        assert!(last["rooms"]["leave"][&room].is_object());
    }
    server.finish().await;
}

#[tokio::test]
async fn many_wait_and_none_is_forgotten() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut others = Vec::new();
    for n in 0..20 {
        others.push(server.user(&format!("user{n}")).await);
    }
    let room = alice.room_with(&others.iter().collect::<Vec<_>>()).await;
    for other in &others {
        first(other).await;
    }
    for round in 0..3 {
        let mut waits = Vec::new();
        for other in &others {
            waits.push(wait(other, &first(other).await));
        }
        // Some register before it is said, some after: either way they get it.
        if round > 0 {
            waiting(&server, others.len()).await;
        }
        alice.say(&room, "hello").await;
        for waits in waits {
            assert_eq!(bodies(&woken(waits).await["rooms"]["join"][&room]["timeline"]["events"]), ["hello"]);
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn nobody_waits_longer_than_the_settings_say() {
    let server = TestServer::with(&[("limits.sync_timeout_seconds", "1")]).await;
    let alice = server.user("alice").await;
    first(&alice).await;
    let last = first(&alice).await;
    let began = std::time::Instant::now();
    let sync = woken(wait(&alice, &last)).await;
    assert_eq!(token(&sync), token(&last));
    assert!(began.elapsed() >= Duration::from_secs(1));
    server.finish().await;
}

#[tokio::test]
async fn a_sync_that_waits_counts_as_present() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.room_with(&[&bob]).await;
    first(&bob).await;
    let waits = wait(&bob, &first(&bob).await);
    waiting(&server, 1).await;
    clock.advance(Duration::from_secs(100));
    server.app().ephemeral.expire();
    let seen = async || alice.get(&format!("/presence/{}/status", bob.user)).await.ok()["presence"].clone();
    assert_eq!(seen().await, "online");
    bob.put(&format!("/user/{}/account_data/org.example", bob.user), json!({})).await.ok();
    woken(waits).await;
    clock.advance(Duration::from_secs(61));
    server.app().ephemeral.expire();
    assert_eq!(seen().await, "offline");
    server.finish().await;
}

#[tokio::test]
async fn a_token_ahead_is_waited_for() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let sync = first(&alice).await;
    let (lsn, rest) = token(&sync)[1..].split_once('_').unwrap();
    let ahead = json!({ "next_batch": format!("s{}_{rest}", lsn.parse::<u64>().unwrap() + 1) });
    let waits = wait(&alice, &ahead);
    alice.say(&room, "before the token").await;
    let said = alice.say(&room, "after it").await;
    let sync = woken(waits).await;
    assert_eq!(sync["rooms"]["join"][&room]["timeline"]["events"][0]["event_id"], said);
    server.finish().await;
}

#[tokio::test]
async fn tokens_outlive_restarts_and_rebuilds() {
    let mut server = TestServer::start().await;
    let (mut alice, mut bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut last = first(&bob).await;
    let rebuild = |folder: &Path| std::fs::remove_dir_all(folder).unwrap();
    for round in 0..4 {
        bob.put(&format!("/rooms/{room}/typing/{}", bob.user), json!({ "typing": true })).await.ok();
        alice.say(&room, &format!("before {round}")).await;
        server = server
            .restart_after(|config| {
                if round % 2 == 1 {
                    rebuild(&config.read_models_folder());
                }
            })
            .await
            .unwrap();
        let again = |client: &Client| {
            let mut again = server.client().with_token(client.token());
            again.user.clone_from(&client.user);
            again
        };
        (alice, bob) = (again(&alice), again(&bob));
        alice.say(&room, &format!("after {round}")).await;
        let sync = next(&bob, &last).await;
        let joined = &sync["rooms"]["join"][&room];
        assert_eq!(bodies(&joined["timeline"]["events"]), [format!("before {round}"), format!("after {round}")]);
        assert_ne!(joined["timeline"]["limited"], true);
        // Nothing of it comes again, and who has a token of another run waits like everybody.
        let again = next(&bob, &sync).await;
        assert_eq!(again["rooms"], Value::Null, "{again}");
        last = again;
    }
    server.finish().await;
}

#[tokio::test]
async fn syncing_records_nothing() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let to_bob = json!({ "messages": { &bob.user: { "*": {} } } });
    alice.put("/sendToDevice/m.test/a", to_bob).await.ok();
    let mut last = first(&bob).await;
    let before = tail(&server);
    for _ in 0..500 {
        last = next(&bob, &last).await;
    }
    assert_eq!(tail(&server), before, "idle");
    let mut n = before;
    for _ in 0..500 {
        alice.say(&room, "hello").await;
        last = next(&bob, &last).await;
        assert_eq!(bodies(&last["rooms"]["join"][&room]["timeline"]["events"]), ["hello"]);
        n = n.next();
        assert_eq!(tail(&server), n, "a message is one record, and its syncs are none");
    }
    // What has arrived of the messages to the device is noted once, at the end.
    server.app().acknowledged.flush(&server.app().commands).await.unwrap();
    assert_eq!(tail(&server), n.next());
    server.app().acknowledged.flush(&server.app().commands).await.unwrap();
    assert_eq!(tail(&server), n.next());
    server.finish().await;
}
