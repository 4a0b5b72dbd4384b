//! A projector, and servers beside it.

use std::{
    os::unix::fs::MetadataExt,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use everfold::{fold::RebuildError, processes, server::StartError};
use futures::future::join_all;
use projections::Model;
use serde_json::{Value, json};

use crate::common::{
    Beside, Client, PATIENCE, Reply, TestServer,
    rooms::{bodies, text, transaction},
    until,
};

/// The same user as a client of another process.
fn at(server: &TestServer, user: &Client) -> Client {
    user.at(server.url())
}

/// Two servers beside a projector, a user of each, and a room of Alice's that both servers show.
async fn two() -> (Beside, [TestServer; 2], [Client; 2], String) {
    let beside = Beside::start().await;
    let (a, b) = (beside.serve().await, beside.serve().await);
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let room = alice.room_with(&[]).await;
    beside.shown_by(&b).await;
    (beside, [a, b], [alice, bob], room)
}

#[tokio::test]
async fn what_one_process_writes_another_shows_and_wakes_for() {
    let (beside, [a, b], [alice, bob], room) = two().await;
    let login = b.client().log_in("alice", "password of alice", json!({})).await.ok();
    let elsewhere = b.client().logged_in(&login);
    bob.join(&room).await;
    beside.shown_by(&a).await;
    let since = text(&alice.get("/sync").await.ok()["next_batch"]);
    let heard = async {
        let mut since = since.clone();
        loop {
            // What else is new may come first.
            let news = alice.get(&format!("/sync?timeout=20000&since={since}")).await.ok();
            let shown = news["rooms"]["join"][&room]["timeline"]["events"].as_array();
            if let Some(event) = shown.into_iter().flatten().find(|event| event["content"]["body"] == "Hi") {
                return text(&event["event_id"]);
            }
            since = text(&news["next_batch"]);
        }
    };
    let (heard, said) = tokio::join!(tokio::time::timeout(PATIENCE, heard), bob.say(&room, "Hi"));
    assert_eq!(heard.expect("it is woken"), said);
    beside.shown_by(&b).await;
    // The token of one process is good at the other, as is what was said there.
    let there = elsewhere.get(&format!("/sync?since={since}")).await.ok();
    assert_eq!(bodies(&there["rooms"]["join"][&room]["timeline"]["events"]), ["Hi"]);
    beside.finish([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_in_one_process_shows_in_the_other() {
    let (beside, [a, b], [alice, bob], room) = two().await;
    bob.join(&room).await;
    beside.shown_by(&a).await;
    let numbers = [&a, &b].map(|server| server.app().members.own().number);
    assert!(numbers[0] != numbers[1] && !numbers.contains(&0), "{numbers:?}");
    let mut since = text(&alice.get("/sync").await.ok()["next_batch"]);
    let body = json!({ "typing": true, "timeout": 30_000 });
    bob.put(&format!("/rooms/{room}/typing/{}", bob.user), body).await.ok();
    let types = async {
        loop {
            let news = alice.get(&format!("/sync?timeout=20000&since={since}")).await.ok();
            let heard = &news["rooms"]["join"][&room]["ephemeral"]["events"];
            let typing = heard.as_array().into_iter().flatten().find(|event| event["type"] == "m.typing");
            if let Some(typing) = typing {
                return typing["content"]["user_ids"].clone();
            }
            since = text(&news["next_batch"]);
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, types).await.unwrap(), json!([bob.user]));
    beside.finish([a, b]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_agree_on_what_is_new_after_another_projector_has_come() {
    let (mut beside, [a, b], [alice, bob], room) = two().await;
    bob.join(&room).await;
    beside.shown_by(&a).await;
    let path = format!("/rooms/{room}/typing/{}", alice.user);
    alice.put(&path, json!({ "typing": true, "timeout": 120_000 })).await.ok();
    let early = text(&bob.at(a.url()).get("/sync").await.ok()["next_batch"]);
    b.stop().await;
    beside.stop_projecting().await;
    beside.project().await;
    let b = beside.serve().await;
    let both = [&a, &b].map(|server| bob.at(server.url()));
    let wait = Duration::from_millis(400);
    // A token goes from one to the other and back, and soon nothing more is new at either.
    for mut since in [early, text(&both[1].get("/sync").await.ok()["next_batch"])] {
        let mut quiet = 0;
        until(async || {
            for client in &both {
                let began = Instant::now();
                let answer = client.get(&format!("/sync?timeout={}&since={since}", wait.as_millis())).await.ok();
                since = text(&answer["next_batch"]);
                quiet = if began.elapsed() >= wait { quiet + 1 } else { 0 };
            }
            quiet >= 6
        })
        .await;
    }
    beside.finish([a, b]).await;
}

/// Sends until it is acknowledged, whatever happens to the server in between; the event's id and how often it was refused.
async fn send_at_last(user: &Client, path: &str, body: &Value, slowest: &AtomicUsize) -> (String, usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut refused = 0;
    loop {
        let began = Instant::now();
        let reply = user.put(path, body.clone()).await;
        slowest.fetch_max(began.elapsed().as_millis() as usize, Ordering::SeqCst);
        if reply.status == 200 {
            return (text(&reply.ok()["event_id"]), refused);
        }
        assert_eq!(reply.status, 503, "{:?}", reply.json);
        assert!(Instant::now() < deadline, "it never goes on");
        refused += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes and reads back at once, by the same process; the bodies that were acknowledged.
async fn write_and_read(
    user: Client,
    room: String,
    name: String,
    goes_on: &AtomicBool,
    slowest: &AtomicUsize,
) -> Vec<String> {
    let mut said = Vec::new();
    while goes_on.load(Ordering::SeqCst) || said.len() < 5 {
        let body = format!("{name} {}", said.len());
        let path = format!("/rooms/{room}/send/m.room.message/{}", transaction());
        let content = json!({ "msgtype": "m.text", "body": body });
        let (id, _) = send_at_last(&user, &path, &content, slowest).await;
        let read = user.get(&format!("/rooms/{room}/event/{id}")).await.ok();
        assert_eq!(read["content"]["body"], body, "what was acknowledged is read at once");
        let field = format!("/profile/{}/displayname", user.user);
        let named = user.put(&field, json!({ "displayname": body })).await;
        if named.status == 200 {
            assert_eq!(user.get(&field).await.ok()["displayname"], body);
        } else {
            assert_eq!(named.status, 503);
        }
        said.push(body);
    }
    said
}

/// Everything that was acknowledged is there, once.
async fn check_said(user: &Client, room: &str, said: &[Vec<String>]) {
    let mut found = Vec::new();
    let mut from = String::new();
    loop {
        let page = user.page(room, &format!("dir=f&limit=500{from}")).await;
        found.extend(bodies(&page["chunk"]).into_iter().map(ToOwned::to_owned));
        match page["end"].as_str() {
            Some(end) if !page["chunk"].as_array().unwrap().is_empty() => from = format!("&from={end}"),
            _ => break,
        }
    }
    for said in said {
        let name = said[0].split(' ').next().unwrap();
        let of_one: Vec<_> = found.iter().filter(|body| body.split(' ').next() == Some(name)).collect();
        assert_eq!(of_one, said.iter().collect::<Vec<_>>(), "in order, each once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_reads_what_it_wrote_while_models_are_rebuilt_and_the_projector_starts_again() {
    let mut beside = Beside::start().await;
    let (a, b) = (beside.serve().await, beside.serve().await);
    let alice = a.user("alice").await;
    let room = alice.room_with(&[]).await;
    beside.shown_by(&b).await;
    let mut users = Vec::new();
    for n in 0..6 {
        let server = [&a, &b][n % 2];
        let user = server.user(&format!("user{n}")).await;
        user.join(&room).await;
        users.push(user);
    }
    let (goes_on, slowest) = (AtomicBool::new(true), AtomicUsize::new(0));
    let work = users
        .iter()
        .enumerate()
        .map(|(n, user)| write_and_read(user.clone(), room.clone(), format!("user{n}"), &goes_on, &slowest));
    let meanwhile = async {
        for model in [Model::Profiles, Model::Timeline] {
            let cursor = b.rebuild(vec![model]).await.unwrap();
            assert!(b.app().progress.reached(cursor.lsn, PATIENCE).await);
        }
        let generations = async {
            loop {
                let view = a.app().view().unwrap();
                if view.generations().of(Model::Timeline).unwrap().generation == 2 {
                    break;
                }
                let mut progress = a.app().progress.watch();
                progress.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, generations).await.expect("the other process sees new tables");
        beside.stop_projecting().await;
        // What is folded is still read, and what writes is refused at once.
        let mut stopped = a.app().progress.watch_stopped();
        stopped.wait_for(Option::is_some).await.unwrap();
        let began = Instant::now();
        alice.get("/sync").await.ok();
        let refused: Reply =
            alice.try_send(&room, "m.room.message", json!({ "msgtype": "m.text", "body": "no" })).await;
        assert_eq!(refused.status, 503, "{:?}", refused.json);
        assert!(began.elapsed() < Duration::from_secs(30));
        let ready = reqwest::get(format!("{}/health/ready", a.url())).await.unwrap();
        assert_eq!(ready.status(), 503);
        assert!(ready.text().await.unwrap().contains("everfold project"), "it says what to do");
        assert!(matches!(a.rebuild(vec![Model::Push]).await, Err(RebuildError::Stopped)));
        beside.project().await;
        let body = json!({ "msgtype": "m.text", "body": "yes" });
        send_at_last(&alice, &format!("/rooms/{room}/send/m.room.message/yes"), &body, &slowest).await;
        goes_on.store(false, Ordering::SeqCst);
    };
    let (said, ()) = tokio::join!(join_all(work), meanwhile);
    assert!(slowest.load(Ordering::SeqCst) < 20_000, "nobody waited for ever");
    beside.shown_by(&a).await;
    beside.shown_by(&b).await;
    check_said(&alice, &room, &said).await;
    check_said(&at(&b, &alice), &room, &said).await;
    let metrics = reqwest::get(format!("{}/metrics", a.url())).await.unwrap().text().await.unwrap();
    for expected in ["everfold_views_instances ", "store=\"read-models\"", "everfold_views_seconds_count"] {
        assert!(metrics.contains(expected), "{expected}");
    }
    beside.finish([a, b]).await;
}

#[tokio::test]
async fn who_can_not_serve_or_project_is_told_why() {
    // A server has the folder open.
    let server = TestServer::start().await;
    let second = Beside::try_project(&server.app().config.data).await;
    assert!(matches!(second.err().unwrap(), StartError::Log(_)));
    server.finish().await;

    let mut beside = Beside::start().await;
    let second = Beside::try_project(beside.data()).await;
    assert!(matches!(second.err().unwrap(), StartError::Log(_)));
    let seven = [("node.number", "7")];
    let first = beside.try_serve(&seven).await.unwrap();
    assert_eq!(first.app().members.own().number, 7);
    let taken = beside.try_serve(&seven).await.err().unwrap().to_string();
    assert!(taken.contains("another process has the number 7"), "{taken}");
    let other = beside.try_serve(&[("server_name", "other.example")]).await.err().unwrap();
    assert!(other.to_string().contains("test.example"), "{other}");
    first.stop().await;
    beside.stop_projecting().await;
    let alone = beside.try_serve(&[]).await.err().unwrap().to_string();
    assert!(alone.contains("no projector runs on") && alone.contains("everfold project --data"), "{alone}");
    beside.project().await;
    let again = beside.try_serve(&seven).await.unwrap();
    let standing = processes::look(beside.data()).await.unwrap();
    assert!(standing.ready && standing.folded == standing.tail && standing.server_name == "test.example");
    beside.finish([again]).await;
}

#[tokio::test]
async fn a_data_folder_may_have_a_long_path() {
    let mut beside = Beside::start_in(&"long".repeat(40)).await;
    let socket = beside.projector().path();
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600, "for its owner alone");
    let server = beside.serve().await;
    server.user("alice").await;
    beside.stop_projecting().await;
    assert!(!socket.exists());
    beside.project().await;
    beside.finish([server]).await;
}
