//! What several nodes owe a client: the room's home decides what is overtaken elsewhere, and only who has caught up
//! refuses.

use std::time::{Duration, Instant};

use everfold::nodes::{Message, Node};
use futures::future::join_all;
use projections::models::{events, timeline};
use schemas::{Key, Tag};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::common::{Client, Nodes, PATIENCE, Reply, TestServer, until};

const TOPIC: &str = "m.room.topic";

/// Two nodes that know of each other.
async fn together() -> Nodes {
    let nodes = Nodes::start().await;
    until(async || knows(&nodes.first, 1) && knows(&nodes.second, 0)).await;
    nodes.on_second(&nodes.alice).await;
    nodes
}

fn knows(node: &TestServer, number: u32) -> bool {
    node.app().members.roll().others.contains(&number)
}

/// A room whose home is a node, for all that the first knows.
async fn room_at(nodes: &Nodes, number: u32) -> String {
    loop {
        let room = nodes.alice.create(json!({ "preset": "public_chat" })).await;
        let home = nodes.first.app().members.home(&room).map_or(0, |home| home.node.number);
        if home == number {
            return room;
        }
    }
}

/// Lets whatever the first node decides about a room be overtaken.
fn contend(nodes: &Nodes, room: &str) {
    nodes.log.contend(&[Key::new(Tag::RoomState, room)]);
}

fn handed(node: &TestServer, outcome: &str) -> u64 {
    node.app().metrics.handovers_total.with_label_values(&[outcome]).get()
}

/// Sets a room's topic.
async fn set_topic(client: &Client, room: &str, topic: &str) -> Reply {
    client.put(&format!("/rooms/{room}/state/{TOPIC}"), json!({ "topic": topic })).await
}

/// The topics that a room has had.
fn topics(node: &TestServer, room: &str) -> Vec<String> {
    let view = node.app().view().unwrap();
    let room = events::room_nid(&view, room).unwrap().unwrap();
    let items = timeline::forward(&view, room, projections::Position::START);
    let heads = items.map(|item| events::head(&view, item.unwrap().1.event).unwrap().unwrap());
    heads.filter(|head| head.event_type == TOPIC).map(|head| head.id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_overtaken_twice_is_decided_by_the_rooms_home() {
    let nodes = together().await;
    let bob = nodes.first.user("bob").await;
    let room = room_at(&nodes, 1).await;
    contend(&nodes, &room);
    let before = nodes.tail();
    let reply = set_topic(&nodes.alice, &room, "of the home").await;
    assert!(reply.headers.keys().all(|name| !name.as_str().contains("everfold")), "{:?}", reply.headers);
    let event = reply.ok()["event_id"].as_str().unwrap().to_owned();
    // It can be read here at once.
    let path = format!("/rooms/{room}/state/{TOPIC}");
    assert_eq!(nodes.alice.get(&path).await.ok(), json!({ "topic": "of the home" }));
    assert_eq!((nodes.void(before), topics(&nodes.first, &room)), (2, vec![event]));
    assert_eq!((handed(&nodes.first, "answered"), nodes.second.app().metrics.handed_requests_total.get()), (1, 1));
    assert_eq!(nodes.first.app().metrics.handover_seconds.get_sample_count(), 1);

    let message = format!("/rooms/{room}/send/m.room.message/1");
    let send = async || nodes.alice.put(&message, json!({ "body": "hi", "msgtype": "m.text" })).await.ok();
    assert_eq!(send().await, send().await, "once");
    nodes.alice.post(&format!("/rooms/{room}/invite"), json!({ "user_id": bob.user })).await.ok();
    bob.post(&format!("/rooms/{room}/join"), json!({})).await.ok();
    assert_eq!(handed(&nodes.first, "answered"), 4);
    // What the home refuses is refused.
    assert_eq!(set_topic(&bob, &room, "of a guest").await.error(), (403, "M_FORBIDDEN"));
    nodes.log.contend(&[]);
    nodes.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_home_elsewhere_who_is_always_overtaken_starves() {
    let nodes = together().await;
    let room = room_at(&nodes, 1).await;
    contend(&nodes, &room);
    let began = Instant::now();
    set_topic(&nodes.alice, &room, "in time").await.ok();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // Nobody hears of the home any more.
    nodes.first.hub().cut_off(1);
    until(async || !knows(&nodes.first, 1)).await;
    assert_eq!(set_topic(&nodes.alice, &room, "never").await.error(), (503, "M_UNKNOWN"));
    nodes.log.contend(&[]);
    nodes.finish().await;
}

/// A node that is not there, but said so, and where it is reached.
async fn ghost(nodes: &Nodes) -> (u32, TcpListener) {
    let number = nodes.first.hub().number();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Some(format!("http://{}", listener.local_addr().unwrap()));
    let channel = nodes.first.hub().join()(Node { number, boot: "ghost".into() });
    let key = nodes.first.app().commands.parts().key.public().encode();
    let alive = Message::Alive { url, key };
    channel.tell(alive.clone());
    until(async || knows(&nodes.first, number) && knows(&nodes.second, number)).await;
    let beats = async move {
        loop {
            channel.tell(alive.clone());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::spawn(beats);
    (number, listener)
}

/// Reads a request of which something comes.
async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    loop {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            return request;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_does_not_answer_costs_time_alone() {
    let nodes = together().await;
    let (number, listener) = ghost(&nodes).await;
    let room = room_at(&nodes, number).await;
    let ask = |topic: &str| {
        let (alice, room, topic) = (nodes.alice.clone(), room.clone(), topic.to_owned());
        tokio::spawn(async move { set_topic(&alice, &room, &topic).await })
    };

    // It dies before it does anything.
    contend(&nodes, &room);
    let asked = ask("one");
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await;
    nodes.log.contend(&[]);
    drop(stream);
    asked.await.unwrap().ok();
    assert_eq!((handed(&nodes.first, "failed"), topics(&nodes.first, &room).len()), (1, 1));

    // It dies when it has done it, and before it says so: it is not done again.
    contend(&nodes, &room);
    let asked = ask("two");
    let (mut stream, _) = listener.accept().await.unwrap();
    let request = read_request(&mut stream).await;
    let mut second = TcpStream::connect(nodes.second.url().trim_start_matches("http://")).await.unwrap();
    second.write_all(&request).await.unwrap();
    assert!(second.read(&mut [0; 16]).await.unwrap() > 0);
    drop(stream);
    let event = asked.await.unwrap().ok()["event_id"].as_str().unwrap().to_owned();
    assert_eq!((topics(&nodes.first, &room).len(), topics(&nodes.first, &room).last()), (2, Some(&event)));

    // It is there, and silent.
    let asked = ask("three");
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await;
    nodes.log.contend(&[]);
    asked.await.unwrap().ok();
    drop((stream, listener));

    // It is gone, and not known to be.
    contend(&nodes, &room);
    let asked = ask("four");
    until(async || handed(&nodes.first, "failed") == 4).await;
    nodes.log.contend(&[]);
    asked.await.unwrap().ok();
    assert_eq!(topics(&nodes.first, &room).len(), 4);
    nodes.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_may_be_wrong_about_the_home() {
    let nodes = together().await;
    // The second hears nobody, and takes itself for the home of all rooms; what the first hands it, it decides.
    nodes.first.hub().hold(1);
    until(async || !knows(&nodes.second, 0)).await;
    let (of_second, of_first) = (room_at(&nodes, 1).await, room_at(&nodes, 0).await);
    contend(&nodes, &of_second);
    set_topic(&nodes.alice, &of_second, "by the second").await.ok();
    nodes.log.contend(&[]);
    // Both decide on a room of the first.
    let second = nodes.on_second(&nodes.alice).await;
    let set = (0..10).map(async |n| {
        let client = if n % 2 == 0 { &nodes.alice } else { &second };
        client.set(&of_first, "org.example.n", &n.to_string(), json!({ "n": n })).await
    });
    assert_eq!(join_all(set).await.len(), 10);
    assert_eq!((handed(&nodes.second, "answered"), handed(&nodes.second, "failed")), (0, 0));
    nodes.finish().await;
}

#[tokio::test]
async fn clients_can_not_hand_anything_over() {
    let nodes = together().await;
    for mark in ["", "nonce 1 127.0.0.1 00", "x"] {
        for node in [&nodes.first, &nodes.second] {
            let client = node.client().with_token(nodes.alice.token());
            let request = client.request(http::Method::PUT, &format!("/rooms/{}/state/{TOPIC}", nodes.room));
            let request = request.header("x-everfold-handed", mark).json(&json!({ "topic": "forged" }));
            assert_eq!(Reply::of(request).await.error(), (403, "M_FORBIDDEN"), "{mark:?}");
        }
    }
    nodes.finish().await;
}

#[tokio::test]
async fn a_handed_request_counts_where_it_came_to() {
    let slow = ("rate_limits.message.per_second", "0.01");
    let limits = [("rate_limits.enabled", "on"), ("rate_limits.message.burst", "3"), slow];
    let (first, log) =
        TestServer::with_log_of(everfold::log::EmbeddedOptions::default(), &limits, crate::common::HeldLog::over).await;
    let second = first.node_with(log.beside(), &limits).await;
    let (alice, bob) = (first.user("alice").await, first.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let nodes = Nodes { first, second, log, alice, room };
    until(async || knows(&nodes.first, 1) && knows(&nodes.second, 0)).await;
    let room = room_at(&nodes, 1).await;
    bob.join(&room).await;
    contend(&nodes, &room);
    let say = async |n: usize| {
        let path = format!("/rooms/{room}/send/m.room.message/{n}");
        bob.put(&path, json!({ "body": "hi", "msgtype": "m.text" })).await
    };
    for n in 0..3 {
        say(n).await.ok();
    }
    assert_eq!(say(3).await.error(), (429, "M_LIMIT_EXCEEDED"));
    assert_eq!(handed(&nodes.first, "answered"), 3);
    nodes.log.contend(&[]);
    // The home has counted none of them.
    let bob = nodes.on_second(&bob).await;
    let path = |n: usize| format!("/rooms/{room}/send/m.room.message/there{n}");
    for n in 0..3 {
        bob.put(&path(n), json!({ "body": "hi", "msgtype": "m.text" })).await.ok();
    }
    nodes.finish().await;
}

/// Lets every node of some set state in one room at once, and prints what that cost.
async fn hot_room(count: usize) {
    const WRITERS: usize = 4;
    const WRITES: usize = 8;
    let nodes = together().await;
    let third = nodes.first.node(nodes.log.beside()).await;
    until(async || knows(&nodes.first, 2) && knows(&nodes.second, 2) && knows(&third, 0) && knows(&third, 1)).await;
    let all = [&nodes.first, &nodes.second, &third];
    let before = nodes.tail();
    let began = Instant::now();
    let write = |node: &TestServer, name: String| {
        let (client, room) = (node.client().with_token(nodes.alice.token()), nodes.room.clone());
        async move {
            let mut slowest = Duration::ZERO;
            for n in 0..WRITES {
                let began = Instant::now();
                client.set(&room, "org.example.thing", &name, json!({ "n": n })).await;
                slowest = slowest.max(began.elapsed());
            }
            slowest
        }
    };
    let writers = (0..count * WRITERS).map(|n| write(all[n % count], n.to_string()));
    let slowest = join_all(writers).await.into_iter().max().unwrap();
    let took = began.elapsed();
    let requests = count * WRITERS * WRITES;
    assert!(nodes.first.app().progress.reached(nodes.tail(), PATIENCE).await);
    let again: u64 = all.iter().map(|node| node.app().metrics.decisions_again_total.get()).sum();
    let moved: u64 = all.iter().map(|node| handed(node, "answered")).sum();
    println!(
        "{count} nodes: {requests} changes of state of one room in {took:.2?}, the slowest in {slowest:.2?}: {} void \
         records, {again} decisions made again, {moved} handed to the room's home",
        nodes.void(before)
    );
    assert_eq!(nodes.shown(before).len(), requests, "each once");
    third.stop().await;
    nodes.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_room_is_written_from_all_nodes_at_once() {
    for count in 1..=3 {
        hot_room(count).await;
    }
}

/// Asks the first node something while it folds nothing, and lets it go on once it was asked.
async fn ask_behind(nodes: &Nodes, asked: impl Future<Output = Reply> + Send + 'static) -> Reply {
    let asked = tokio::spawn(asked);
    // By when it has answered others, the node was asked.
    for _ in 0..3 {
        nodes.first.client().get("/health/live").await.ok();
    }
    assert!(!asked.is_finished());
    nodes.log.release_reads();
    let reply = asked.await.unwrap();
    nodes.log.hold_reads();
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_has_caught_up_refuses() {
    let nodes = together().await;
    let (first, second) = (nodes.first.client(), nodes.second.client());
    nodes.log.hold_reads();
    let bob = nodes.second.user("bob").await;
    let here = first.with_token(bob.token());
    let whoami = ask_behind(&nodes, {
        let here = here.clone();
        async move { here.get("/account/whoami").await }
    });
    assert_eq!(whoami.await.ok()["user_id"], bob.user);

    nodes.second.user("carol").await;
    let client = first.clone();
    let login = ask_behind(&nodes, async move { client.log_in("carol", "password of carol", json!({})).await }).await;
    assert_eq!(login.ok()["user_id"], "@carol:test.example");

    let alice = second.with_token(nodes.alice.token());
    let room = alice.create(json!({ "preset": "public_chat", "room_alias_name": "new" })).await;
    let join = {
        let (here, path) = (here.clone(), "/join/%23new:test.example");
        async move { here.post(path, json!({ "reason": "as soon as it is there" })).await }
    };
    assert_eq!(ask_behind(&nodes, join).await.ok()["room_id"], room.as_str());
    nodes.log.release_reads();

    let again = || nodes.first.app().metrics.refusals_again_total.get();
    assert_eq!(again(), 3);
    // What there is nothing to wait for is refused at once.
    assert!(nodes.first.app().progress.reached(nodes.tail(), PATIENCE).await);
    assert_eq!(first.with_token("nonsense").get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(here.get("/rooms/!none/state").await.status, 403);
    assert_eq!(again(), 3);
    // What the request alone is at fault for needs no log.
    nodes.log.hold_reads();
    alice.set(&room, TOPIC, "", json!({ "topic": "more" })).await;
    let (path, body) = (format!("/rooms/{room}/state/{TOPIC}"), "{");
    assert_eq!(here.send_raw(http::Method::PUT, &path, body).await.error(), (400, "M_NOT_JSON"));
    assert_eq!(first.get("/account/whoami").await.error(), (401, "M_MISSING_TOKEN"));
    assert_eq!(here.get("/no/such/endpoint").await.error(), (404, "M_UNRECOGNIZED"));
    nodes.log.release_reads();
    assert_eq!(again(), 3);
    nodes.finish().await;
}
