//! Several nodes on one log, each a process with read models of its own.

use std::time::{Duration, Instant};

use futures::future::join_all;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    broker,
    client::Client,
    contention::Contention,
    served::{Place, Served},
};

/// What a node did alone, another does when it has been dead for so long.
const HAND_OVER: Duration = Duration::from_secs(15);
/// How long something may take that must happen.
const LONG: Duration = Duration::from_secs(60);

/// Places and servers, the first of which began the log.
fn start(brokers: &str, count: u32) -> Vec<(Place, Served)> {
    let place = Place::on(brokers);
    let served = place.start();
    let mut nodes = vec![(place, served)];
    for number in 1..count {
        let place = nodes[0].0.beside(number);
        let served = place.start();
        nodes.push((place, served));
    }
    nodes
}

fn client(served: &Served) -> Client {
    Client::new(served.url.clone())
}

/// Stops all, and checks that they have folded the same.
fn finish(nodes: Vec<(Place, Served)>) {
    let places: Vec<Place> = nodes
        .into_iter()
        .map(|(place, served)| {
            served.stop();
            place
        })
        .collect();
    let digests: Vec<Value> = places
        .iter()
        .map(|place| {
            // What was appended after the first had stopped is folded by a last start.
            place.start().stop();
            place.check();
            place.tool(&["digest"])
        })
        .collect();
    assert!(digests.iter().all(|digest| digest["digest"] == digests[0]["digest"]), "{digests:?}");
}

/// The id of the next message in a room, by long polls.
async fn next_message(client: &Client, room: &str, mut since: String) -> Value {
    loop {
        let news = client.get(&format!("/sync?timeout=30000&since={since}")).await.ok();
        // Before it, the same poll may tell who is there.
        if let Some(event) = news["rooms"]["join"][room]["timeline"]["events"].get(0) {
            return event["event_id"].clone();
        }
        news["next_batch"].as_str().unwrap().clone_into(&mut since);
    }
}

#[tokio::test]
async fn what_begins_on_one_node_goes_on_on_another() {
    let Some(brokers) = broker::address() else { return };
    let nodes = start(&brokers, 2);
    let [first, second] = [client(&nodes[0].1), client(&nodes[1].1)];
    // Nobody waits in between: the other node has to notice that it is behind.
    for n in 0..5 {
        let name = format!("alice{n}");
        let account = json!({ "username": name, "password": "a password", "auth": { "type": "m.login.dummy" } });
        let alice = first.logged_in(&first.post("/register", account).await.ok());
        let there = second.logged_in(&second.log_in(&name, "a password", json!({})).await.ok());
        let room = alice.post("/createRoom", json!({ "preset": "public_chat" })).await.ok();
        let room = room["room_id"].as_str().unwrap();
        let members = there.get(&format!("/rooms/{room}/joined_members")).await.ok();
        assert!(members["joined"][&alice.user].is_object(), "{members}");
        let since = alice.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
        let path = format!("/rooms/{room}/send/m.room.message/{n}");
        let say = alice.put(&path, json!({ "msgtype": "m.text", "body": "Hi" }));
        let (said, heard) = tokio::join!(say, next_message(&there, room, since));
        assert_eq!(said.ok()["event_id"], heard);
    }
    finish(nodes);
}

#[tokio::test]
async fn who_is_there_on_one_node_is_seen_on_another() {
    let Some(brokers) = broker::address() else { return };
    let nodes = start(&brokers, 2);
    let [alice, bob] = [nodes[0].1.register("alice").await, nodes[0].1.register("bob").await];
    let room = alice.post("/createRoom", json!({ "preset": "public_chat" })).await.ok();
    bob.post(&format!("/join/{}", room["room_id"].as_str().unwrap()), json!({})).await.ok();
    let there = nodes[1].1.client_of(&bob);
    let mut since = alice.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let says = json!({ "presence": "unavailable", "status_msg": "On another node" });
    there.put(&format!("/presence/{}/status", bob.user), says).await.ok();
    let began = Instant::now();
    loop {
        let news = alice.get(&format!("/sync?timeout=30000&since={since}")).await.ok();
        let heard = news["presence"]["events"].as_array().into_iter().flatten();
        let bobs = heard.filter(|event| event["sender"] == bob.user).map(|event| &event["content"]);
        if bobs.clone().any(|content| content["status_msg"] == "On another node") {
            break;
        }
        assert!(began.elapsed() < LONG, "nothing is heard of bob: {news}");
        news["next_batch"].as_str().unwrap().clone_into(&mut since);
    }
    let seen = alice.get(&format!("/presence/{}/status", bob.user)).await.ok();
    assert_eq!((&seen["presence"], &seen["status_msg"]), (&json!("unavailable"), &json!("On another node")));
    finish(nodes);
}

/// How many decisions of a node its rooms' homes have made.
async fn handed_over(node: &Served) -> u64 {
    let text = reqwest::get(format!("{}/metrics", node.url)).await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(r#"everfold_handovers_total{outcome="answered"} "#));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn what_is_overtaken_again_and_again_is_decided_by_the_rooms_home() {
    let Some(brokers) = broker::address() else { return };
    let nodes = start(&brokers, 2);
    let alice = nodes[0].1.register("alice").await;
    let everywhere = [&nodes[0].1, &nodes[1].1].map(|node| node.client_of(&alice));
    let room = alice.post("/createRoom", json!({})).await.ok();
    let path = format!("/rooms/{}/state/m.room.topic", room["room_id"].as_str().unwrap());
    let (began, mut round) = (Instant::now(), 0);
    let mut set = Vec::new();
    loop {
        // Each of them changes what all others rest on.
        let tries = (0..16).map(|n| {
            let topic = json!({ "topic": format!("{round} {n}") });
            everywhere[n % 2].put(&path, topic)
        });
        let replies = join_all(tries).await;
        let acknowledged = replies.into_iter().filter(|reply| reply.status == StatusCode::OK);
        set.extend(acknowledged.map(|reply| reply.ok()["event_id"].as_str().unwrap().to_owned()));
        let handed = [handed_over(&nodes[0].1).await, handed_over(&nodes[1].1).await];
        if handed.iter().sum::<u64>() > 0 {
            println!("{handed:?} handed over in {} rounds", round + 1);
            break;
        }
        assert!(began.elapsed() < LONG, "nothing was handed over in {round} rounds");
        round += 1;
    }
    let count = set.len();
    set.sort();
    set.dedup();
    assert_eq!(set.len(), count, "each is an event of its own");
    for client in &everywhere {
        for event in set.iter().rev().take(10) {
            client.get(&format!("{}/{event}", path.replace("state/m.room.topic", "event"))).await.ok();
        }
    }
    finish(nodes);
}

#[tokio::test]
async fn of_what_many_want_on_three_nodes_there_is_one_winner_each() {
    let Some(brokers) = broker::address() else { return };
    let rounds = std::env::var("EVERFOLD_TEST_STEPS").map_or(15, |text| text.parse().unwrap());
    let seed = std::env::var("EVERFOLD_TEST_SEED").map_or(1, |text| text.parse().unwrap());
    println!("EVERFOLD_TEST_SEED={seed}");
    let nodes = start(&brokers, 3);
    let mut crowd = Contention::gather(nodes.iter().map(|(_, served)| client(served)).collect(), seed).await;
    crowd.contend(rounds).await;
    crowd.check().await;
    finish(nodes);
}

#[tokio::test]
async fn a_node_that_was_killed_catches_up() {
    let Some(brokers) = broker::address() else { return };
    let mut nodes = start(&brokers, 2);
    let alice = nodes[0].1.register("alice").await;
    let room = alice.post("/createRoom", json!({ "preset": "public_chat" })).await.ok();
    let room = room["room_id"].as_str().unwrap().to_owned();
    let (place, killed) = nodes.remove(1);
    drop(killed);
    for n in 0..20 {
        let path = format!("/rooms/{room}/send/m.room.message/{n}");
        alice.put(&path, json!({ "msgtype": "m.text", "body": "meanwhile" })).await.ok();
    }
    let served = place.start();
    // It answers once it has folded what was on the log, and says so.
    assert_eq!(client(&served).get("/health/ready").await.status, StatusCode::OK);
    let there = served.client_of(&alice);
    let page = there.get(&format!("/rooms/{room}/messages?dir=b&limit=20")).await.ok();
    assert_eq!(page["chunk"].as_array().unwrap().len(), 20);
    assert_eq!(page["chunk"][19]["content"]["body"], "meanwhile");
    nodes.push((place, served));
    finish(nodes);
}

#[tokio::test]
async fn what_a_killed_node_had_begun_another_ends_and_does_nothing_twice() {
    const ROOMS: usize = 100;
    let Some(brokers) = broker::address() else { return };
    let mut nodes = start(&brokers, 2);
    let alice = nodes[0].1.register("alice").await;
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        let room = alice.post("/createRoom", json!({})).await.ok();
        rooms.push(room["room_id"].as_str().unwrap().to_owned());
    }
    let there = nodes[1].1.client_of(&alice);
    let name = format!("/profile/{}/displayname", alice.user);
    let is_renamed = async |room: &str| {
        let member = there.get(&format!("/rooms/{room}/state/m.room.member/{}", alice.user)).await.ok();
        member["displayname"] == "Alice"
    };
    let renamed = async || {
        let mut renamed = 0;
        for room in &rooms {
            renamed += usize::from(is_renamed(room).await);
        }
        renamed
    };
    let (place, killed) = nodes.remove(0);
    let rename = tokio::spawn(alice.request(Method::PUT, &name).json(&json!({ "displayname": "Alice" })).send());
    while !is_renamed(&rooms[0]).await {}
    drop(killed);
    let (since, left) = (Instant::now(), ROOMS - renamed().await);
    assert!(left > 0, "it was killed too late to leave anything");
    // The request was answered, or its connection broke off.
    drop(rename.await.unwrap());
    while renamed().await < ROOMS {
        assert!(since.elapsed() < HAND_OVER, "{left} rooms were left to another node, which has yet to end it");
    }
    println!("{left} rooms were left, and renamed within {:?}", since.elapsed());
    for room in &rooms {
        let page = there.get(&format!("/rooms/{room}/messages?dir=b&limit=100")).await.ok();
        let chunk = page["chunk"].as_array().unwrap();
        let members = chunk.iter().filter(|event| event["type"] == "m.room.member").count();
        assert_eq!(members, 2, "alice came, and was renamed, once: {page}");
    }
    let served = place.start();
    nodes.push((place, served));
    finish(nodes);
}

#[tokio::test]
async fn processes_beside_a_projector_read_what_they_wrote_and_wake() {
    let Some(brokers) = broker::address() else { return };
    let place = Place::on(&brokers);
    let projector = place.project();
    let beside = [place.serve_beside(), place.serve_beside()];
    let [alice, bob] = [beside[0].register("alice").await, beside[1].register("bob").await];
    let room = alice.post("/createRoom", json!({ "preset": "public_chat" })).await.ok();
    let room = room["room_id"].as_str().unwrap();
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    for n in 0..20 {
        let since = bob.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
        let (said, heard) = tokio::join!(
            async {
                let name = format!("/profile/{}/displayname", alice.user);
                alice.put(&name, json!({ "displayname": format!("alice {n}") })).await.ok();
                assert_eq!(alice.get(&name).await.ok()["displayname"], format!("alice {n}"));
                let path = format!("/rooms/{room}/send/m.room.message/{n}");
                let said = alice.put(&path, json!({ "msgtype": "m.text", "body": "Hi" })).await.ok();
                let event = said["event_id"].as_str().unwrap().to_owned();
                alice.get(&format!("/rooms/{room}/event/{event}")).await.ok();
                event
            },
            next_said(&bob, room, since),
        );
        assert_eq!(heard, said);
    }
    beside.into_iter().for_each(Served::stop);
    projector.stop();
    place.check();
}

/// The same, of messages alone.
async fn next_said(client: &Client, room: &str, mut since: String) -> Value {
    loop {
        let news = client.get(&format!("/sync?timeout=30000&since={since}")).await.ok();
        let events = news["rooms"]["join"][room]["timeline"]["events"].as_array().into_iter().flatten();
        if let Some(said) = events.clone().find(|event| event["type"] == "m.room.message") {
            return said["event_id"].clone();
        }
        news["next_batch"].as_str().unwrap().clone_into(&mut since);
    }
}

#[tokio::test]
async fn processes_beside_a_projector_are_nodes_too() {
    let Some(brokers) = broker::address() else { return };
    let place = Place::on(&brokers);
    let projector = place.project();
    let beside = [place.serve_beside(), place.serve_beside()];
    let other = place.beside(1);
    let node = other.start();
    let all = [&beside[0], &beside[1], &node].map(client).to_vec();
    let mut crowd = Contention::gather(all, 1).await;
    crowd.contend(8).await;
    // Another projector takes over in between.
    drop(projector);
    let projector = place.project();
    crowd.contend(4).await;
    crowd.check().await;
    beside.into_iter().for_each(Served::stop);
    projector.stop();
    finish(vec![(other, node)]);
    place.project().stop();
    place.check();
}
