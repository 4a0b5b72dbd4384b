//! What crosses nodes without being history: who lives, who types, who is there, who authenticates.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use everfold::nodes::{Message, Node, Told};
use http::StatusCode;
use serde_json::{Value, json};

use crate::common::{Chance, Client, HeldLog, Nodes, TestServer, until};

/// The numbers of the nodes that one takes for alive, besides itself.
fn alive(node: &TestServer) -> Vec<u32> {
    node.app().members.others_alive().iter().map(|member| member.node.number).collect()
}

#[tokio::test]
async fn nodes_learn_of_each_other_and_of_the_end() {
    let nodes = Nodes::start().await;
    until(async || alive(&nodes.first) == [1] && alive(&nodes.second) == [0]).await;
    let third = nodes.first.node(nodes.log.beside()).await;
    until(async || alive(&nodes.first) == [1, 2] && alive(&third) == [0, 1]).await;
    let urls = nodes.second.app().members.others_alive().into_iter().map(|member| member.url);
    let urls: Vec<_> = urls.map(Option::unwrap).collect();
    assert_eq!(urls, [nodes.first.url(), third.url()]);
    third.stop().await;
    until(async || alive(&nodes.first) == [1] && alive(&nodes.second) == [0]).await;
    nodes.finish().await;
}

#[tokio::test]
async fn nodes_that_are_not_of_one_server_are_not_ready() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let twin = server.node_with(log.beside(), &[("node.number", "0")]).await;
    let reason = "another process has this node's number, 0: give each its own (node.number)";
    for node in [&server, &twin] {
        let client = node.client();
        until(async || client.get("/health/ready").await.status == StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(client.get("/health/ready").await.json["conflict"], json!(reason));
    }
    twin.stop().await;

    let stranger = server.hub().join()(Node { number: 7, boot: "stranger".into() });
    stranger.tell(Message::Alive { url: None, key: "another key".into() });
    let told = |told: &Told| told.from.number == 7;
    until(async || server.hub().told().iter().any(told) && server.app().members.conflict().is_some()).await;
    let client = server.client();
    let reason = "node 7 signs by another key: give all nodes a copy of one signing.key";
    until(async || client.get("/health/ready").await.json["conflict"] == json!(reason)).await;
    assert!(alive(&server).is_empty());
    server.finish().await;
}

/// Who types in a room, as far as an answer of /sync says.
fn typing(sync: &Value, room: &str) -> Option<Value> {
    let events = sync["rooms"]["join"][room]["ephemeral"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == "m.typing").map(|event| event["content"]["user_ids"].clone())
}

fn type_path(room: &str, user: &Client) -> String {
    format!("/rooms/{room}/typing/{}", user.user)
}

async fn sync(client: &Client, since: &str, timeout_ms: u64) -> Value {
    client.get(&format!("/sync?since={since}&timeout={timeout_ms}")).await.ok()
}

/// The position of a client that has got everything.
async fn here(client: &Client) -> String {
    client.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned()
}

/// Syncs until an answer says something.
async fn until_said(client: &Client, since: &str, mut says: impl FnMut(&Value) -> bool) -> String {
    let mut since = since.to_owned();
    let saying = async {
        loop {
            let answer = sync(client, &since, 10_000).await;
            answer["next_batch"].as_str().unwrap().clone_into(&mut since);
            if says(&answer) {
                return since;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), saying).await.expect("it is said within 30 seconds")
}

/// Two nodes with a room of Alice's and Bob's, and each of them as a client of both.
struct Pair {
    nodes: Nodes,
    alice: [Client; 2],
    bob: [Client; 2],
    room: String,
}

impl Pair {
    async fn start() -> Self {
        let nodes = Nodes::start().await;
        let (bob, room) = (nodes.first.user("bob").await, nodes.room.clone());
        bob.join(&room).await;
        let alice = [nodes.alice.clone(), nodes.on_second(&nodes.alice).await];
        let bob = [bob.clone(), nodes.on_second(&bob).await];
        Self { nodes, alice, bob, room }
    }
}

#[tokio::test]
async fn typing_by_one_node_wakes_who_waits_by_another() {
    let Pair { nodes, alice, bob, room } = Pair::start().await;
    let since = here(&bob[0]).await;
    let users = json!([alice[0].user]);
    let (since, ()) =
        tokio::join!(until_said(&bob[1], &since, |answer| typing(answer, &room) == Some(users.clone())), async {
            until(async || nodes.second.app().syncs.notifier.waiters() > 0).await;
            alice[0].put(&type_path(&room, &alice[0]), json!({ "typing": true, "timeout": 30_000 })).await.ok();
        });
    // An answer of one node is as good with the other: nothing is said twice.
    let next = sync(&bob[0], &since, 0).await;
    assert_eq!((typing(&next, &room), next["next_batch"].as_str()), (None, Some(&*since)));
    alice[1].put(&type_path(&room, &alice[1]), json!({ "typing": false })).await.ok();
    let since = until_said(&bob[0], &since, |answer| typing(answer, &room) == Some(json!([]))).await;
    assert_eq!(typing(&sync(&bob[1], &since, 0).await, &room), None);
    nodes.finish().await;
}

#[tokio::test]
async fn presence_is_one_thing_on_all_nodes() {
    let Pair { nodes, alice, bob, .. } = Pair::start().await;
    let path = format!("/presence/{}/status", alice[0].user);
    let since = here(&bob[1]).await;
    alice[0].put(&path, json!({ "presence": "online", "status_msg": "here" })).await.ok();
    until_said(&bob[1], &since, |answer| answer["presence"]["events"].to_string().contains("here")).await;
    alice[1].put(&path, json!({ "presence": "unavailable", "status_msg": "there" })).await.ok();
    assert_eq!(alice[1].get(&path).await.ok()["status_msg"], "there", "at once by the node that was told");
    until(async || bob[0].get(&path).await.ok()["status_msg"] == "there").await;
    for client in &bob {
        assert_eq!(client.get(&path).await.ok()["presence"], "online", "so says the first node");
    }
    nodes.finish().await;
}

#[tokio::test]
async fn a_client_that_changes_nodes_at_random_misses_nothing_and_asks_no_more_than_others() {
    let Pair { nodes, alice, bob, room } = Pair::start().await;
    let mut chance = Chance::seeded(7);
    let mut since = here(&bob[0]).await;
    let (mut requests, mut notices) = (0, Vec::new());
    for round in 0..60 {
        let (by, types) = (chance.below(2), round % 2 == 0);
        alice[by].put(&type_path(&room, &alice[by]), json!({ "typing": types })).await.ok();
        let expected = if types { json!([alice[0].user]) } else { json!([]) };
        loop {
            let answer = sync(&bob[chance.below(2)], &since, 10_000).await;
            answer["next_batch"].as_str().unwrap().clone_into(&mut since);
            requests += 1;
            if let Some(users) = typing(&answer, &room) {
                notices.push(users.clone());
                assert_eq!(users, expected, "round {round}");
                break;
            }
        }
    }
    assert_eq!(notices.len(), 60);
    assert!(requests <= 70, "{requests} requests for 60 notices");
    // Where nothing happens, each answer takes its time.
    let began = std::time::Instant::now();
    for _ in 0..10 {
        let answer = sync(&bob[chance.below(2)], &since, 100).await;
        answer["next_batch"].as_str().unwrap().clone_into(&mut since);
    }
    assert!(began.elapsed() >= Duration::from_secs(1), "ten answers after {:?}", began.elapsed());
    nodes.finish().await;
}

#[tokio::test]
async fn a_node_that_hears_nothing_says_nothing_twice() {
    let Pair { nodes, alice, bob, room } = Pair::start().await;
    nodes.second.hub().cut_off(1);
    let since = here(&bob[1]).await;
    alice[0].put(&type_path(&room, &alice[0]), json!({ "typing": true })).await.ok();
    let mut since = until_said(&bob[0], &since, |answer| typing(answer, &room).is_some()).await;
    for client in [&bob[1], &bob[0], &bob[1], &bob[0], &bob[1]] {
        let answer = sync(client, &since, 50).await;
        assert_eq!(typing(&answer, &room), None);
        answer["next_batch"].as_str().unwrap().clone_into(&mut since);
    }
    nodes.second.hub().reconnect(1);
    // What another node has heard is waited for.
    nodes.second.hub().hold(1);
    alice[0].put(&type_path(&room, &alice[0]), json!({ "typing": false })).await.ok();
    let since = until_said(&bob[0], &since, |answer| typing(answer, &room) == Some(json!([]))).await;
    let (answer, ()) = tokio::join!(sync(&bob[1], &since, 0), async { nodes.second.hub().release(1) });
    assert_eq!(typing(&answer, &room), None);
    alice[0].put(&type_path(&room, &alice[0]), json!({ "typing": true })).await.ok();
    alice[1].put(&type_path(&room, &alice[1]), json!({ "typing": false })).await.ok();
    until_said(&bob[1], &since, |answer| typing(answer, &room) == Some(json!([]))).await;
    nodes.finish().await;
}

#[tokio::test]
async fn who_types_on_a_node_that_dies_stops() {
    let Pair { nodes, alice, bob, room } = Pair::start().await;
    let since = here(&bob[0]).await;
    alice[1].put(&type_path(&room, &alice[1]), json!({ "typing": true, "timeout": 120_000 })).await.ok();
    let since = until_said(&bob[0], &since, |answer| typing(answer, &room).is_some()).await;
    nodes.second.hub().cut_off(1);
    until_said(&bob[0], &since, |answer| typing(answer, &room) == Some(json!([]))).await;
    nodes.second.hub().reconnect(1);
    nodes.finish().await;
}

#[tokio::test]
async fn an_end_that_got_lost_is_told_again() {
    let Pair { nodes, alice, bob, room } = Pair::start().await;
    let since = here(&bob[1]).await;
    alice[0].put(&type_path(&room, &alice[0]), json!({ "typing": true })).await.ok();
    let since = until_said(&bob[1], &since, |answer| typing(answer, &room).is_some()).await;
    let lost = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lost);
    nodes.first.hub().lose(move |told| {
        matches!(told.message, Message::Typing { .. }) && counted.fetch_add(1, Ordering::SeqCst) == 0
    });
    alice[0].put(&type_path(&room, &alice[0]), json!({ "typing": false })).await.ok();
    until_said(&bob[1], &since, |answer| typing(answer, &room) == Some(json!([]))).await;
    assert!(lost.load(Ordering::SeqCst) > 1);
    nodes.first.hub().lose_nothing();
    nodes.finish().await;
}

#[tokio::test]
async fn a_new_node_takes_a_token_of_another_and_sends_what_is_current() {
    let Pair { nodes, alice, bob, room } = Pair::start().await;
    alice[0].put(&type_path(&room, &alice[0]), json!({ "typing": true, "timeout": 120_000 })).await.ok();
    let since = until_said(&bob[1], &here(&bob[1]).await, |_| true).await;
    let third = nodes.first.node(nodes.log.beside()).await;
    assert!(third.app().progress.reached(nodes.tail(), Duration::from_secs(10)).await);
    let newly = bob[0].at(third.url());
    let since = until_said(&newly, &since, |answer| typing(answer, &room) == Some(json!([alice[0].user]))).await;
    // And so it goes on by the others.
    assert_eq!(typing(&sync(&bob[0], &since, 0).await, &room), None);
    third.stop().await;
    nodes.finish().await;
}
