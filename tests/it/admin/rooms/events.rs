use std::time::Duration;

use serde_json::json;

use super::{of, told};
use crate::common::{
    TestServer,
    rooms::{bodies, ids, text},
};

/// `{"event_format":"federation"}`
const FEDERATION: &str = "%7B%22event_format%22%3A%22federation%22%7D";
/// `{"types":["m.room.name"]}`
const NAMES: &str = "%7B%22types%22%3A%5B%22m.room.name%22%5D%7D";

#[tokio::test]
async fn history_is_shown_to_administrators_whatever_its_visibility() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let visibility = json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
    let room = anna.create(json!({ "initial_state": [visibility] })).await;
    for n in 0..15 {
        anna.say(&room, &n.to_string()).await;
    }
    let page = async |query: &str| admin.get(&of(&room, &format!("/messages?{query}"))).await.ok();
    // Forward from the beginning, ten at a time, unless it is asked for otherwise.
    let first = page("").await;
    assert_eq!(first["chunk"].as_array().unwrap().len(), 10);
    assert_eq!(first["chunk"][0]["type"], "m.room.create");
    assert!(first["state"].is_null());
    assert_eq!(first["chunk"][0]["room_id"], room);
    let second = page(&format!("limit=1000&from={}", text(&first["end"]))).await;
    let said: Vec<_> = (0..15).map(|n| n.to_string()).collect();
    let shown: Vec<_> = [&first, &second].into_iter().flat_map(|page| bodies(&page["chunk"])).collect();
    assert_eq!(shown, said);
    // Who watches goes on from the end.
    let watched = text(&second["end"]);
    let last = page(&format!("from={watched}")).await;
    assert_eq!((&last["chunk"], &last["end"]), (&json!([]), &json!(null)));
    anna.say(&room, "new").await;
    assert_eq!(bodies(&page(&format!("from={watched}")).await["chunk"]), ["new"]);
    let latest = page("dir=b&limit=2&from=END").await;
    assert_eq!(bodies(&latest["chunk"]), ["new", "14"]);
    let between = page(&format!("dir=b&to={}", text(&latest["end"]))).await;
    assert_eq!(bodies(&between["chunk"]), ["new", "14"]);
    let filtered = page(&format!("limit=100&filter={NAMES}")).await;
    assert_eq!(filtered["chunk"], json!([]));

    for raw in [format!("filter={FEDERATION}"), "raw=".to_owned()] {
        let page = page(&format!("dir=b&limit=1&{raw}")).await;
        let event = &page["chunk"][0];
        assert!(event["hashes"].is_object() && event["auth_events"].is_array(), "{event}");
        assert_eq!((&event["room_id"], &event["content"]["body"]), (&json!(room), &json!("new")));
    }
    for (query, code, message) in [
        ("from=nonsense", "M_UNKNOWN", "'from' parameter is invalid"),
        ("to=nonsense", "M_UNKNOWN", "'to' parameter is invalid"),
        ("limit=-1", "M_INVALID_PARAM", "Query parameter limit must be a positive integer."),
        ("dir=x", "M_INVALID_PARAM", "Query parameter 'dir' must be one of ['f', 'b']"),
        ("filter=x", "M_NOT_JSON", "Query parameter filter must be a valid JSON object"),
    ] {
        let reply = admin.get(&of(&room, &format!("/messages?{query}"))).await;
        assert_eq!(told(&reply), (400, code, message));
    }
    let none = admin.get(&of("!none:test.example", "/messages")).await.ok();
    assert_eq!((&none["chunk"], &none["end"]), (&json!([]), &json!(null)));
    server.finish().await;
}

#[tokio::test]
async fn an_event_is_shown_in_its_context() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let room = anna.create(json!({ "name": "Ours" })).await;
    let elsewhere = anna.create(json!({})).await;
    let mut said = Vec::new();
    for n in 0..9 {
        said.push(anna.say(&room, &n.to_string()).await);
    }
    let context = async |event: &str, query: &str| {
        let path = format!("/_synapse/admin/v1/rooms/{room}/context/{event}");
        admin.get(&(path + query)).await
    };
    let found = context(&said[4], "?limit=5").await.ok();
    assert_eq!(bodies(&found["events_before"]), ["3", "2"]);
    assert_eq!(bodies(&found["events_after"]), ["5", "6", "7"]);
    assert_eq!(found["event"]["event_id"], json!(said[4]));
    assert!(found["state"].as_array().unwrap().iter().any(|event| event["type"] == "m.room.name"));
    let before = admin.get(&of(&room, &format!("/messages?dir=b&limit=1&from={}", text(&found["start"])))).await.ok();
    assert_eq!(bodies(&before["chunk"]), ["1"]);
    let after = admin.get(&of(&room, &format!("/messages?limit=1&from={}", text(&found["end"])))).await.ok();
    assert_eq!(bodies(&after["chunk"]), ["8"]);
    let alone = context(&said[4], "?limit=0").await.ok();
    assert_eq!((&alone["events_before"], &alone["events_after"]), (&json!([]), &json!([])));
    assert_eq!(context(&said[0], "").await.ok()["events_after"].as_array().unwrap().len(), 5);

    for event in ["$none", "nonsense"] {
        assert_eq!(told(&context(event, "").await), (404, "M_NOT_FOUND", "Event not found."));
    }
    for room in [&*elsewhere, "!none:test.example", "nonsense"] {
        let reply = admin.get(&of(room, &format!("/context/{}", said[4]))).await;
        assert_eq!(told(&reply), (404, "M_NOT_FOUND", "Event not found."));
    }
    assert_eq!(context(&said[4], "?limit=few").await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}

#[tokio::test]
async fn the_event_next_to_a_time_is_found() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let room = anna.create(json!({})).await;
    clock.advance(Duration::from_secs(60));
    let first = anna.say(&room, "first").await;
    clock.advance(Duration::from_secs(60));
    let second = anna.say(&room, "second").await;
    let at = 1_700_000_000_000_u64;
    let near = async |query: String| admin.get(&of(&room, &format!("/timestamp_to_event?{query}"))).await;
    for (ts, dir, event, sent) in [
        (at + 1, "&dir=f", &first, at + 60_000),
        (at + 60_000, "", &first, at + 60_000),
        (at + 60_001, "", &second, at + 120_000),
        (at + 119_999, "&dir=b", &first, at + 60_000),
        (at + 120_000, "&dir=b", &second, at + 120_000),
    ] {
        let found = near(format!("ts={ts}{dir}")).await.ok();
        assert_eq!(found, json!({ "event_id": event, "origin_server_ts": sent }), "{ts}{dir}");
    }
    let reply = near(format!("ts={}", at + 120_001)).await;
    let message = format!("Unable to find event from {} in direction Direction.FORWARDS", at + 120_001);
    assert_eq!(told(&reply), (404, "M_NOT_FOUND", &*message));
    let reply = near("ts=5&dir=b".to_owned()).await;
    assert_eq!(told(&reply), (404, "M_NOT_FOUND", "Unable to find event from 5 in direction Direction.BACKWARDS"));
    let reply = near(String::new()).await;
    assert_eq!(told(&reply), (400, "M_MISSING_PARAM", "Missing required integer query parameter ts"));
    assert_eq!(near("ts=now".to_owned()).await.error(), (400, "M_INVALID_PARAM"));
    for room in ["!none:test.example", "nonsense"] {
        assert_eq!(admin.get(&of(room, "/timestamp_to_event?ts=1")).await.error(), (404, "M_NOT_FOUND"));
    }
    server.finish().await;
}

#[tokio::test]
async fn any_event_is_fetched_by_its_id() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let room = anna.create(json!({})).await;
    let said = anna.say(&room, "hello").await;
    let fetch = async |event: &str| admin.get(&format!("/_synapse/admin/v1/fetch_event/{event}")).await;
    let event = fetch(&said).await.ok()["event"].clone();
    assert_eq!([&event["event_id"], &event["content"]["body"]], [&json!(said), &json!("hello")]);
    assert_eq!((&event["room_id"], event["prev_events"].as_array().unwrap().len()), (&json!(room), 1));
    assert!(event["unsigned"]["age"].is_i64() || event["unsigned"]["age"].is_u64());
    anna.redact(&room, &said).await;
    let redacted = fetch(&said).await.ok()["event"].clone();
    assert_eq!(redacted["content"], json!({}));
    let by = redacted["unsigned"]["redacted_because"]["event_id"].clone();
    assert_eq!(ids(&anna.get(&format!("/rooms/{room}/messages?dir=b&limit=1")).await.ok()["chunk"]), [text(&by)]);
    assert_eq!(told(&fetch("$none").await), (404, "M_NOT_FOUND", "Event not found"));
    server.finish().await;
}
