use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::common::{
    Client, TestServer,
    rooms::{bodies, ids, text},
};

/// All pages from a token on, as ids in the order of time, and how many pages there were.
async fn all(who: &Client, room: &str, direction: &str, from: Option<&str>, limit: usize) -> (Vec<String>, usize) {
    let (mut found, mut pages, mut from) = (Vec::new(), 0, from.map(str::to_owned));
    loop {
        let at = from.as_ref().map_or_else(String::new, |from| format!("&from={from}"));
        let page = who.page(room, &format!("dir={direction}&limit={limit}{at}")).await;
        if let Some(from) = &from {
            assert_eq!(page["start"], json!(from));
        }
        pages += 1;
        assert!(page["chunk"].as_array().unwrap().len() <= limit);
        found.extend(ids(&page["chunk"]).into_iter().map(str::to_owned));
        match page.get("end") {
            Some(end) => from = Some(text(end)),
            None => break,
        }
    }
    if direction == "b" {
        found.reverse();
    }
    (found, pages)
}

#[tokio::test]
async fn pages_have_neither_gaps_nor_doubles() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut sent = Vec::new();
    for n in 0..23 {
        sent.push(alice.say(&room, &n.to_string()).await);
        if n % 5 == 0 {
            sent.push(alice.set(&room, "m.room.topic", "", json!({ "topic": n.to_string() })).await);
        }
    }
    let (whole, pages) = all(&bob, &room, "f", None, 1000).await;
    assert_eq!((pages, &whole[whole.len() - sent.len()..]), (1, &sent[..]));
    for limit in [1, 4, 7, whole.len(), whole.len() - 1] {
        let expected = (whole.clone(), whole.len().div_ceil(limit));
        assert_eq!(all(&bob, &room, "b", None, limit).await, expected, "{limit}");
        assert_eq!(all(&bob, &room, "f", None, limit).await, expected, "{limit}");
    }
    // New events don't move what is paged through.
    let page = bob.page(&room, "dir=b&limit=5").await;
    alice.say(&room, "new").await;
    let (rest, _) = all(&bob, &room, "b", page["end"].as_str(), 4).await;
    assert_eq!(rest, whole[..whole.len() - 5]);
    let (newer, _) = all(&bob, &room, "f", page["start"].as_str(), 4).await;
    assert_eq!(newer.len(), 1);
    // Between two tokens.
    let (start, end) = (text(&page["start"]), text(&page["end"]));
    let between = bob.page(&room, &format!("dir=b&limit=100&from={start}&to={end}")).await;
    assert_eq!((between["chunk"].as_array().unwrap().len(), between.get("end")), (5, None));
    let forward = bob.page(&room, &format!("dir=f&limit=100&from={end}&to={start}")).await;
    assert_eq!(ids(&forward["chunk"]), whole[whole.len() - 5..]);
    server.finish().await;
}

#[tokio::test]
async fn pages_go_on_where_sync_stopped() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    for n in 0..12 {
        alice.say(&room, &n.to_string()).await;
    }
    let filter = r#"{"room":{"timeline":{"limit":5}}}"#;
    let sync = alice.get(&format!("/sync?filter={}", filter.replace('"', "%22"))).await.ok();
    let timeline = &sync["rooms"]["join"][&room]["timeline"];
    assert_eq!(bodies(&timeline["events"]), ["7", "8", "9", "10", "11"]);
    let (before, _) = all(&alice, &room, "b", timeline["prev_batch"].as_str(), 3).await;
    let (whole, _) = all(&alice, &room, "f", None, 100).await;
    assert_eq!(before, whole[..whole.len() - 5]);
    let next = text(&sync["next_batch"]);
    assert_eq!(all(&alice, &room, "b", Some(&next), 100).await.0, whole);
    alice.say(&room, "later").await;
    let page = alice.page(&room, &format!("dir=f&from={next}")).await;
    assert_eq!((bodies(&page["chunk"]), page.get("end")), (vec!["later"], None));
    server.finish().await;
}

#[tokio::test]
async fn filters_choose_and_lazy_pages_bring_their_members() {
    let server = TestServer::start().await;
    let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
    let room = alice.room_with(&[&bob, &eve]).await;
    let picture = json!({ "msgtype": "m.image", "body": "picture", "url": "mxc://test.example/a" });
    alice.send(&room, "m.room.message", picture).await;
    for n in 0..6 {
        bob.say(&room, &n.to_string()).await;
        alice.send(&room, "org.example.noise", json!({ "body": "noise" })).await;
    }
    let filtered = |filter: Value| {
        let (who, room) = (eve.clone(), room.clone());
        let filter: String = url_encoded(&filter.to_string());
        async move { who.page(&room, &format!("dir=b&limit=3&filter={filter}")).await }
    };
    let page = filtered(json!({ "types": ["m.room.message"] })).await;
    assert_eq!(bodies(&page["chunk"]), ["5", "4", "3"]);
    assert!(page["end"].is_string() && page.get("state").is_none());
    let page = filtered(json!({ "not_types": ["org.example.*"], "not_senders": [alice.user] })).await;
    assert_eq!(bodies(&page["chunk"]), ["5", "4", "3"]);
    let page = filtered(json!({ "contains_url": true })).await;
    assert_eq!((bodies(&page["chunk"]), page.get("end")), (vec!["picture"], None));
    let page = filtered(json!({ "types": [] })).await;
    assert_eq!((bodies(&page["chunk"]).len(), page.get("end")), (0, None));
    let page = filtered(json!({ "not_rooms": [room] })).await;
    assert_eq!((bodies(&page["chunk"]).len(), page.get("end")), (0, None));
    let page = filtered(json!({ "lazy_load_members": true, "types": ["m.room.message"] })).await;
    assert_eq!(senders(&page["state"]), BTreeSet::from([bob.user.as_str()]));
    assert_eq!(page["state"][0]["room_id"], json!(room));
    assert_eq!(eve.get(&format!("/rooms/{room}/messages?dir=b&filter=nonsense")).await.error().0, 400);
    server.finish().await;
}

fn senders(events: &Value) -> BTreeSet<&str> {
    events.as_array().unwrap().iter().map(|event| event["state_key"].as_str().unwrap()).collect()
}

fn url_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn limits_are_bounded_and_tokens_checked() {
    let server = TestServer::with(&[("limits.events_per_page", "4")]).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({})).await;
    for limit in ["limit=1000000", "limit=9007199254740991", ""] {
        assert_eq!(ids(&alice.page(&room, &format!("dir=b&{limit}")).await["chunk"]).len(), 4, "{limit}");
    }
    assert_eq!(ids(&alice.page(&room, "dir=b&limit=0").await["chunk"]).len(), 1);
    for query in [
        "",
        "dir=x",
        "dir=b&limit=-1",
        "dir=b&limit=x",
        "dir=b&from=x",
        "dir=b&from=t1",
        "dir=b&to=s1",
        "dir=b&from=t99999999999999999.0",
        "dir=b&from=t9007199254740991.65535",
        "dir=f&from=s9007199254740991_a_0",
    ] {
        assert_eq!(alice.get(&format!("/rooms/{room}/messages?{query}")).await.error().0, 400, "{query}");
    }
    for token in ["t0.0", "s0_a_0", "t5.0-4294967295"] {
        for direction in ["b", "f"] {
            alice.page(&room, &format!("dir={direction}&from={token}")).await;
        }
    }
    for there in [&room, "!none:test.example"] {
        for path in
            ["messages?dir=b", "context/$x", "state", "members", "joined_members", "aliases", "state/m.room.create"]
        {
            assert_eq!(bob.get(&format!("/rooms/{there}/{path}")).await.error(), (403, "M_FORBIDDEN"), "{path}");
        }
        assert_eq!(bob.get(&format!("/rooms/{there}/event/$x")).await.error(), (404, "M_NOT_FOUND"));
    }
    server.finish().await;
}

#[tokio::test]
async fn context_is_what_stands_around_an_event() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut sent = Vec::new();
    for n in 0..9 {
        sent.push(if n % 2 == 0 { &alice } else { &bob }.say(&room, &n.to_string()).await);
    }
    let path = format!("/rooms/{room}/context/{}", sent[4]);
    let found = bob.get(&format!("{path}?limit=5")).await.ok();
    assert_eq!(found["event"]["content"]["body"], "4");
    assert_eq!(bodies(&found["events_before"]), ["3", "2"]);
    assert_eq!(bodies(&found["events_after"]), ["5", "6", "7"]);
    assert!(found["state"].as_array().unwrap().len() > 5);
    let older = bob.page(&room, &format!("dir=b&limit=2&from={}", text(&found["start"]))).await;
    assert_eq!(bodies(&older["chunk"]), ["1", "0"]);
    let newer = bob.page(&room, &format!("dir=f&limit=2&from={}", text(&found["end"]))).await;
    assert_eq!(bodies(&newer["chunk"]), ["8"]);

    let alone = bob.get(&format!("{path}?limit=0")).await.ok();
    assert_eq!((alone.get("events_before"), alone.get("events_after")), (None, None));
    let from = |token: &Value| text(token);
    let (start, end) = (from(&alone["start"]), from(&alone["end"]));
    assert_eq!(bodies(&bob.page(&room, &format!("dir=b&limit=1&from={start}")).await["chunk"]), ["3"]);
    assert_eq!(bodies(&bob.page(&room, &format!("dir=f&limit=1&from={end}")).await["chunk"]), ["5"]);

    let lazy = url_encoded(&json!({ "lazy_load_members": true }).to_string());
    let found = bob.get(&format!("{path}?limit=0&filter={lazy}")).await.ok();
    let members: Vec<_> =
        found["state"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.member").collect();
    assert_eq!((members.len(), &members[0]["state_key"]), (1, &json!(alice.user)));
    let default = bob.get(&path).await.ok();
    assert_eq!(bodies(&default["events_before"]).len() + bodies(&default["events_after"]).len(), 8);
    let elsewhere = alice.create(json!({})).await;
    let other = alice.say(&elsewhere, "x").await;
    assert_eq!(alice.get(&format!("/rooms/{room}/context/{other}")).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(alice.get(&format!("/rooms/{room}/event/{other}")).await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn an_event_is_found_by_its_time() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let mut sent = Vec::new();
    for n in 0..8 {
        clock.advance(Duration::from_secs(60));
        sent.push((alice.say(&room, &n.to_string()).await, 1_700_000_060_000 + n * 60_000));
        let elsewhere = alice.create(json!({})).await;
        alice.say(&elsewhere, "elsewhere").await;
    }
    let at = |ts: u64, direction: &str| {
        let path = format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event?ts={ts}&dir={direction}");
        let alice = alice.clone();
        async move { alice.get(&path).await }
    };
    for (n, (id, ts)) in sent.iter().enumerate() {
        let found = at(*ts, "f").await.ok();
        assert_eq!((&found["event_id"], &found["origin_server_ts"]), (&json!(id), &json!(ts)));
        assert_eq!(at(*ts, "b").await.ok()["event_id"], json!(id));
        assert_eq!(at(ts - 1, "f").await.ok()["event_id"], json!(id));
        assert_eq!(at(ts + 1, "b").await.ok()["event_id"], json!(id));
        if n > 0 {
            assert_eq!(at(ts - 1, "b").await.ok()["event_id"], json!(sent[n - 1].0));
        }
    }
    assert_eq!(at(0, "b").await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(at(1_800_000_000_000, "f").await.error(), (404, "M_NOT_FOUND"));
    assert!(at(0, "f").await.ok()["event_id"].is_string());
    server.finish().await;
}
