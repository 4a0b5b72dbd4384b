//! Two nodes on one log: what one decides while the other's records come in between.

use everfold::commands::{Error, inbound::Received};
use futures::future::join_all;
use projections::models::events;
use ruma::api::error::ErrorKind;
use schemas::{Lsn, facts::Verdict};
use serde_json::json;

use crate::common::{
    Nodes, PATIENCE, Reply, Sent,
    remote::{Remote, ends, message},
    rooms::ids,
    until,
};

#[tokio::test]
async fn a_change_of_state_by_another_node_voids_all_messages_in_flight() {
    let nodes = Nodes::start().await;
    let alice = nodes.on_second(&nodes.alice).await;
    let before = nodes.tail();
    nodes.log.hold_next(64);
    let sending = nodes.send(&nodes.alice, 64);
    nodes.until_held(64).await;
    let topic = alice.set(&nodes.room, "m.room.topic", "", json!({ "topic": "in between" })).await;
    nodes.log.release();
    let sent = nodes.check_order(sending.await.unwrap(), before);
    assert_eq!(nodes.void(before), 64);
    let shown = nodes.shown(before);
    assert_eq!(shown.len(), 65, "each once");
    assert_eq!((&shown[0].id, &shown[1].prev_events), (&topic, &vec![topic.clone()]));
    assert!(shown[2..].iter().zip(&sent).all(|(head, before)| head.prev_events == [before.as_str()]));
    let topic = shown[0].origin_server_ts;
    assert!(shown[1..].iter().all(|head| head.origin_server_ts <= topic), "they state when they were asked for");
    nodes.finish().await;
}

#[tokio::test]
async fn what_was_appended_before_the_change_stands() {
    let nodes = Nodes::start().await;
    let before = nodes.tail();
    nodes.log.hold_after(20, 44);
    let sending = nodes.send(&nodes.alice, 64);
    nodes.until_held(44).await;
    let alice = nodes.on_second(&nodes.alice).await;
    let topic = alice.set(&nodes.room, "m.room.topic", "", json!({ "topic": "in between" })).await;
    nodes.log.release();
    nodes.check_order(sending.await.unwrap(), before);
    assert_eq!(nodes.void(before), 44);
    let shown = nodes.shown(before);
    assert_eq!((shown.len(), &shown[20].id), (65, &topic));
    nodes.finish().await;
}

#[tokio::test]
async fn what_messages_do_not_rest_on_voids_none() {
    let nodes = Nodes::start().await;
    let bob = nodes.first.user("bob").await;
    bob.join(&nodes.room).await;
    let carol = nodes.first.user("carol").await;
    let before = nodes.tail();
    nodes.log.hold_next(64);
    let sending = nodes.send(&nodes.alice, 64);
    nodes.until_held(64).await;
    let (bob, carol) = (nodes.on_second(&bob).await, nodes.on_second(&carol).await);
    let said = bob.say(&nodes.room, "in between").await;
    let other = carol.room_with(&[]).await;
    carol.set(&other, "m.room.topic", "", json!({ "topic": "elsewhere" })).await;
    nodes.log.release();
    let sent = nodes.check_order(sending.await.unwrap(), before);
    assert_eq!(nodes.void(before), 0);
    let shown = nodes.shown(before);
    assert_eq!((shown.len(), &shown[0].id), (65, &said));
    let merge = nodes.alice.say(&nodes.room, "on both").await;
    let merge = nodes.shown(before).into_iter().find(|head| head.id == merge).unwrap();
    let mut both = merge.prev_events;
    both.sort();
    let mut expected = vec![said, sent[63].clone()];
    expected.sort();
    assert_eq!(both, expected);
    nodes.finish().await;
}

#[tokio::test]
async fn messages_behind_one_that_is_void_follow_in_their_order() {
    let nodes = Nodes::start().await;
    let bob = nodes.first.user("bob").await;
    bob.join(&nodes.room).await;
    let elsewhere = nodes.on_second(&bob).await;
    let before = nodes.tail();
    nodes.log.hold_next(64);
    let mut sending = Vec::new();
    for (user, messages) in [(&nodes.alice, 20), (&bob, 1), (&nodes.alice, 43)] {
        sending.push(nodes.send(user, messages));
        nodes.until_held(messages).await;
    }
    elsewhere.post("/logout", json!({})).await.ok();
    nodes.log.release();
    let mut sent = Vec::new();
    for sending in sending {
        sent.push(sending.await.unwrap());
    }
    let [mut first, of_bob, behind] = <[Sent; 3]>::try_from(sent).unwrap();
    assert!(
        matches!(&of_bob[..], [Err(Error::Refused(refusal))] if refusal.kind.errcode().as_str() == "M_UNKNOWN_TOKEN")
    );
    first.extend(behind);
    nodes.check_order(first, before);
    assert_eq!((nodes.void(before), nodes.shown(before).len()), (44, 63), "what came before Bob's stands");
    nodes.finish().await;
}

#[tokio::test]
async fn a_change_of_state_is_voided_by_another_and_by_nothing_else() {
    let nodes = Nodes::start().await;
    let bob = nodes.first.user("bob").await;
    bob.join(&nodes.room).await;
    let (alice, bob) = (nodes.on_second(&nodes.alice).await, nodes.on_second(&bob).await);
    let topic = async |text: &str| nodes.alice.set(&nodes.room, "m.room.topic", "", json!({ "topic": text })).await;
    let before = nodes.tail();
    nodes.log.hold_next(1);
    let (set, ()) = tokio::join!(topic("one"), async {
        nodes.until_held(1).await;
        bob.say(&nodes.room, "in between").await;
        nodes.log.release();
    });
    assert_eq!(nodes.void(before), 0);
    assert_eq!(ends(&nodes.first, &nodes.room).len(), 2, "both stand, beside each other");

    let alice = nodes.on_second(&alice).await;
    let before = nodes.tail();
    nodes.log.hold_next(1);
    let (set_again, name) = tokio::join!(topic("two"), async {
        nodes.until_held(1).await;
        let name = alice.set(&nodes.room, "m.room.name", "", json!({ "name": "in between" })).await;
        nodes.log.release();
        name
    });
    assert_eq!(nodes.void(before), 1);
    let [named, topical] = <[events::Head; 2]>::try_from(nodes.shown(before)).unwrap();
    assert_eq!((&named.id, &topical.id), (&name, &set_again));
    assert_eq!(topical.prev_events, [name]);
    assert!(named.prev_events.contains(&set), "{:?}", named.prev_events);
    nodes.finish().await;
}

#[tokio::test]
async fn who_was_banned_by_another_node_has_said_nothing() {
    let nodes = Nodes::start().await;
    let bob = nodes.first.user("bob").await;
    bob.join(&nodes.room).await;
    let alice = nodes.on_second(&nodes.alice).await;
    let before = nodes.tail();
    nodes.log.hold_next(10);
    let sending = nodes.send(&bob, 10);
    nodes.until_held(10).await;
    alice.post(&format!("/rooms/{}/ban", nodes.room), json!({ "user_id": bob.user })).await.ok();
    nodes.log.release();
    for refused in sending.await.unwrap() {
        assert!(matches!(refused, Err(Error::Refused(refusal)) if refusal.kind == ErrorKind::Forbidden));
    }
    assert_eq!((nodes.void(before), nodes.shown(before).len()), (10, 1));
    nodes.finish().await;
}

#[tokio::test]
async fn an_event_of_another_server_is_judged_again() {
    const EVE: &str = "@eve:e.example";
    let nodes = Nodes::start().await;
    let mut eve = Remote::joined(&nodes.first, &nodes.room, EVE).await;
    let alice = nodes.on_second(&nodes.alice).await;
    let said = eve.send(EVE, message("Hi"));
    let before = nodes.tail();
    nodes.log.hold_next(1);
    let (delivered, ()) = tokio::join!(eve.deliver(&nodes.first, &said), async {
        nodes.until_held(1).await;
        alice.post(&format!("/rooms/{}/ban", nodes.room), json!({ "user_id": EVE })).await.ok();
        nodes.log.release();
    });
    assert_eq!(delivered, Received::Placed(Verdict::SoftFailed));
    assert_eq!((nodes.void(before), nodes.shown(before).len()), (1, 1), "the ban alone is shown");
    nodes.finish().await;
}

#[tokio::test]
async fn a_token_is_good_on_a_node_that_has_yet_to_come_so_far() {
    let nodes = Nodes::start().await;
    let alice = nodes.on_second(&nodes.alice).await;
    let room = format!("/rooms/{}", nodes.room);
    let parent = alice.say(&nodes.room, "a beginning").await;
    nodes.log.hold_reads();
    let relation = json!({ "rel_type": "m.thread", "event_id": parent });
    let content = json!({ "msgtype": "m.text", "body": "news", "m.relates_to": relation });
    let news = alice.send(&nodes.room, "m.room.message", content).await;
    alice
        .set(&nodes.room, "m.room.member", &nodes.alice.user, json!({ "membership": "join", "displayname": "new" }))
        .await;
    let since = alice.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let behind = &nodes.alice;
    let questions = [
        format!("{room}/messages?dir=b&limit=5&from={since}"),
        format!("/_matrix/client/v1{room}/relations/{parent}?from={since}"),
        format!("/_matrix/client/v1{room}/threads?from={since}"),
        format!("{room}/members?at={since}"),
    ];
    let asking = join_all(questions.iter().map(|question| behind.get(question)));
    let folding = async {
        // Meanwhile the others are asked, which would be answered by now.
        for _ in 0..20 {
            behind.get("/account/whoami").await.ok();
        }
        nodes.log.release_reads();
    };
    let (answers, ()) = futures::join!(asking, folding);
    let [messages, relations, threads, members] = <[Reply; 4]>::try_from(answers).unwrap();
    assert!(ids(&messages.ok()["chunk"]).contains(&news.as_str()));
    assert_eq!(ids(&relations.ok()["chunk"]), [news]);
    assert_eq!(ids(&threads.ok()["chunk"]), [parent]);
    assert_eq!(members.ok()["chunk"][0]["content"]["displayname"], "new");
    nodes.finish().await;
}

#[tokio::test]
async fn who_joined_by_another_node_is_not_refused_for_the_messages_in_flight() {
    let nodes = Nodes::start().await;
    let bob = nodes.first.user("bob").await;
    let there = nodes.on_second(&bob).await;
    nodes.log.hold_next(1);
    let sending = nodes.send(&nodes.alice, 1);
    nodes.until_held(1).await;
    there.join(&nodes.room).await;
    assert!(nodes.first.app().progress.reached(nodes.tail(), PATIENCE).await);
    let calls = nodes.log.calls().len();
    let (said, ()) = tokio::join!(bob.say(&nodes.room, "I am here"), async {
        until(async || nodes.log.calls().len() > calls).await;
        nodes.log.release();
    });
    let sent = sending.await.unwrap().remove(0).unwrap();
    let ids: Vec<String> = nodes.shown(Lsn::ZERO).into_iter().map(|head| head.id).collect();
    assert!(ids.contains(&said) && ids.contains(&sent.to_string()), "{ids:?}");
    nodes.finish().await;
}
