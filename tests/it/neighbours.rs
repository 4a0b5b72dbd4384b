//! What crosses nodes without being history: who lives, who types, who is there, who authenticates.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use everfold::{
    log::{EmbeddedOptions, LogReader},
    nodes::{Message, Node, Told},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::common::{Chance, Client, HeldLog, Nodes, PATIENCE, Reply, TestServer, broker, until};

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
    tokio::time::timeout(PATIENCE, saying).await.expect("it is said in time")
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
    assert!(third.app().progress.reached(nodes.tail(), PATIENCE).await);
    let newly = bob[0].at(third.url());
    let since = until_said(&newly, &since, |answer| typing(answer, &room) == Some(json!([alice[0].user]))).await;
    // And so it goes on by the others.
    assert_eq!(typing(&sync(&bob[0], &since, 0).await, &room), None);
    third.stop().await;
    nodes.finish().await;
}

/// Sends the form of a stage, as a browser does.
async fn submit(client: &Client, stage: &str, session: &str, form: &str) -> Reply {
    let path = format!("/auth/{stage}/fallback/web?session={session}");
    let request = client.request(Method::POST, &path).header("content-type", "application/x-www-form-urlencoded");
    Reply::of(request.body(form.to_owned())).await
}

#[tokio::test]
async fn no_client_gets_to_another_node_before_its_authentication() {
    let Pair { nodes, alice, .. } = Pair::start().await;
    for node in [0, 1] {
        nodes.first.hub().delay(node, Duration::from_millis(300));
    }
    let begun = alice[0].post("/account/password", json!({ "new_password": "another password" })).await;
    let session = begun["session"].as_str().unwrap();
    let browser = nodes.second.client();
    assert_eq!(submit(&browser, "m.login.password", session, "password=password+of+alice").await.status, 200);
    let change = json!({ "new_password": "another password", "auth": { "session": session } });
    alice[0].post("/account/password", change).await.ok();
    nodes.finish().await;
}

#[tokio::test]
async fn what_begins_to_authenticate_on_one_node_finishes_on_another() {
    let Pair { nodes, alice, .. } = Pair::start().await;
    let session = |reply: Reply| reply["session"].as_str().unwrap().to_owned();
    // A device is deleted: by a password that the other node gets.
    let phone = alice[0].on_device("PHONE").await;
    let path = format!("/devices/{}", phone.device);
    let delete = async |by: usize, auth: Value| {
        Reply::of(alice[by].request(Method::DELETE, &path).json(&json!({ "auth": auth }))).await
    };
    let begun = session(alice[0].delete(&path).await);
    assert!(nodes.second.app().progress.reached(nodes.tail(), PATIENCE).await);
    let wrong = delete(
        1,
        json!({ "type": "m.login.password", "password": "wrong", "session": begun,
        "identifier": { "type": "m.id.user", "user": alice[0].user } }),
    )
    .await;
    assert_eq!((wrong.status.as_u16(), wrong["session"].as_str()), (401, Some(&*begun)), "it is the same session");
    let mut auth = alice[0].password_auth("password of alice");
    auth["session"] = json!(begun);
    delete(1, auth).await.ok();
    assert_eq!(phone.at(nodes.second.url()).get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));

    // A password is changed: the page is opened on the other node, and the request repeated on the first.
    let change = |session: &str| json!({ "new_password": "another password", "auth": { "session": session } });
    let begun = session(alice[0].post("/account/password", json!({ "new_password": "another password" })).await);
    let browser = nodes.second.client();
    assert_eq!(browser.get(&format!("/auth/m.login.password/fallback/web?session={begun}")).await.status, 200);
    assert_eq!(submit(&browser, "m.login.password", &begun, "password=wrong").await.status, 403);
    assert_eq!(alice[0].post("/account/password", change(&begun)).await.status, 401, "not yet");
    assert_eq!(submit(&browser, "m.login.password", &begun, "password=password+of+alice").await.status, 200);
    alice[0].post("/account/password", change(&begun)).await.ok();
    nodes.finish().await;
}

#[tokio::test]
async fn a_registration_begins_on_one_node_and_finishes_on_another() {
    let settings = [("registration.mode", "token")];
    let (first, log) = TestServer::with_log_of(EmbeddedOptions::default(), &settings, HeldLog::over).await;
    let second = first.node_with(log.beside(), &settings).await;
    let admin = first.admin("root").await;
    let tokens = "/_synapse/admin/v1/registration_tokens";
    for token in ["come-in", "withdrawn"] {
        admin.post(&format!("{tokens}/new"), json!({ "token": token, "uses_allowed": 1 })).await.ok();
    }
    let caught_up = async || assert!(second.app().progress.reached(log.tail(), PATIENCE).await);
    caught_up().await;
    let (here, there) = (first.client(), second.client());
    let body = json!({ "username": "bob", "password": "password of bob" });
    let with = |session: &str| {
        let mut body = body.clone();
        body["auth"] = json!({ "session": session });
        body
    };
    let begin = async || here.post("/register", body.clone()).await["session"].as_str().unwrap().to_owned();

    // The stage is completed on the node where it began, and then its token is withdrawn.
    let session = begin().await;
    assert_eq!(submit(&here, "m.login.registration_token", &session, "token=withdrawn").await.status, 200);
    admin.delete(&format!("{tokens}/withdrawn")).await.ok();
    caught_up().await;
    let reply = there.post("/register", with(&session)).await;
    assert_eq!((reply.status.as_u16(), &reply["completed"]), (401, &json!(null)), "{}", reply.text);

    let session = begin().await;
    assert_eq!(submit(&there, "m.login.registration_token", &session, "token=come-in").await.status, 200);
    let other = json!({ "username": "carol", "password": "password of carol", "auth": { "session": session } });
    assert_eq!(here.post("/register", other).await.status, 401, "it is for another request");
    here.post("/register", with(&session)).await.ok();
    let used = admin.get(&format!("{tokens}/come-in")).await.ok();
    assert_eq!(used["completed"], 1, "whichever node it was given to");
    let told = first.hub().told().into_iter().map(|told| serde_json::to_string(&told).unwrap());
    let told: Vec<String> = told.filter(|told| told.contains("Authentication")).collect();
    assert!(told.len() >= 4, "{told:?}");
    assert!(told.iter().all(|told| !told.contains("come-in") && !told.contains(&session)), "{told:?}");
    second.stop().await;
    first.finish().await;
}

#[tokio::test]
async fn an_authentication_goes_on_by_itself_where_nobody_can_be_heard() {
    let Pair { nodes, alice, .. } = Pair::start().await;
    let body = json!({ "new_password": "another password" });
    let begun = alice[0].post("/account/password", body.clone()).await;
    nodes.second.hub().cut_off(1);
    let mut body = body;
    body["auth"] = alice[1].password_auth("password of alice");
    body["auth"]["session"] = begun["session"].clone();
    alice[1].post("/account/password", body).await.ok();
    nodes.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_nodes_hear_each_other_through_a_topic_beside_the_log() {
    let Some(broker) = broker::address() else { return };
    let log = format!("kafka://{broker}/neighbours-{}", std::process::id());
    let first = TestServer::with(&[("log.backend", &log)]).await;
    let second = first.other(&[("log.backend", &log), ("node.number", "1")]).await;
    until(async || alive(&first) == [1] && alive(&second) == [0]).await;
    let (alice, bob) = (first.user("alice").await, first.user("bob").await);
    let room = alice.room_with(&[]).await;
    bob.join(&room).await;
    let bob = [bob.clone(), bob.at(second.url())];
    let began = here(&bob[0]).await;
    // On a slow machine, nodes take each other for dead now and then, and what they told for ended: that is made good.
    let types = async || {
        alice.put(&type_path(&room, &alice), json!({ "typing": true, "timeout": 120_000 })).await.ok();
    };
    types().await;
    let mut since = until_said(&bob[1], &began, |answer| typing(answer, &room) == Some(json!([alice.user]))).await;
    // An answer that was on its way may not count what it shows already; soon one does.
    until(async || {
        let answer = sync(&bob[0], &since, 0).await;
        answer["next_batch"].as_str().unwrap().clone_into(&mut since);
        typing(&answer, &room).is_none()
    })
    .await;
    // A stage is completed elsewhere. Where the broker is too slow, the client begins anew.
    let (body, browser) = (json!({ "new_password": "another password" }), second.client());
    until(async || {
        let begun = alice.post("/account/password", body.clone()).await;
        let session = begun["session"].as_str().unwrap();
        let submitted = submit(&browser, "m.login.password", session, "password=password+of+alice").await;
        let mut change = body.clone();
        change["auth"] = json!({ "session": session });
        submitted.status == 200 && alice.post("/account/password", change).await.status == 200
    })
    .await;
    types().await;
    // A node that stops says so, and its successor takes tokens from before.
    second.stop().await;
    until(async || alive(&first).is_empty()).await;
    let second = first.other(&[("log.backend", &log), ("node.number", "1")]).await;
    let bob = bob[0].at(second.url());
    until_said(&bob, &since, |answer| typing(answer, &room) == Some(json!([alice.user]))).await;
    second.stop().await;
    let app = first.app();
    assert!(app.progress.reached(app.reader.tail(), PATIENCE).await);
    first.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_halt_keep_nobody_waiting_and_typing_is_made_good() {
    let Some(broker) = broker::Broker::start() else { return };
    let log = format!("kafka://{}/log", broker.address());
    let first = TestServer::with(&[("log.backend", &log)]).await;
    let second = first.other(&[("log.backend", &log), ("node.number", "1")]).await;
    let (alice, bob) = (first.user("alice").await, first.user("bob").await);
    let room = alice.room_with(&[]).await;
    bob.join(&room).await;
    let bob = [bob.clone(), bob.at(second.url())];
    let since = here(&bob[0]).await;
    until_said(&bob[1], &since, |_| true).await;
    broker.signal("-STOP");
    let began = std::time::Instant::now();
    alice.put(&type_path(&room, &alice), json!({ "typing": true, "timeout": 120_000 })).await.ok();
    for client in &bob {
        sync(client, &since, 50).await;
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    broker.signal("-CONT");
    until_said(&bob[1], &since, |answer| typing(answer, &room) == Some(json!([alice.user]))).await;
    second.stop().await;
    let app = first.app();
    assert!(app.progress.reached(app.reader.tail(), PATIENCE).await);
    first.finish().await;
}
