//! Room history visibility: who sees what, by when they were what to the room.

use serde_json::json;

use crate::common::{
    Client, TestServer,
    rooms::{bodies, ids},
};

const ALL: &[usize] = &[1, 2, 3];

/// What a user sees, each way of asking: a page backward, a page forward, and one by one.
async fn seen(who: &Client, room: &str, events: &[String]) -> Vec<usize> {
    let mut single = Vec::new();
    for (n, event) in events.iter().enumerate() {
        let reply = who.get(&format!("/rooms/{room}/event/{event}")).await;
        let context = who.get(&format!("/rooms/{room}/context/{event}?limit=0")).await;
        if reply.status == 200 {
            single.push(n + 1);
            assert_eq!(context.ok()["event"]["event_id"], json!(event));
        } else {
            assert_eq!(reply.error(), (404, "M_NOT_FOUND"));
            assert!(matches!(context.error(), (404, "M_NOT_FOUND") | (403, "M_FORBIDDEN")));
        }
    }
    for direction in ["b", "f"] {
        let reply = who.get(&format!("/rooms/{room}/messages?dir={direction}&limit=100")).await;
        if reply.status != 200 {
            assert_eq!((reply.error(), single.is_empty()), ((403, "M_FORBIDDEN"), true));
            continue;
        }
        let page = reply.ok();
        assert_eq!(page.get("end"), None, "there is nothing more");
        let mut paged: Vec<usize> = bodies(&page["chunk"]).iter().map(|body| body.parse().unwrap()).collect();
        paged.sort_unstable();
        assert_eq!(paged, single, "{direction}");
    }
    single
}

#[tokio::test]
async fn who_sees_what() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (before, after) = (server.user("before").await, server.user("after").await);
    let (invited, left, stranger) =
        (server.user("invited").await, server.user("left").await, server.user("stranger").await);
    // In the order of the readers below.
    let table: [(&str, [&[usize]; 5]); 4] = [
        ("world_readable", [ALL, ALL, ALL, ALL, ALL]),
        ("shared", [ALL, ALL, ALL, &[1], &[]]),
        ("invited", [ALL, &[3], ALL, &[1], &[]]),
        ("joined", [ALL, &[3], &[3], &[1], &[]]),
    ];
    for (visibility, expected) in table {
        let content = json!({ "history_visibility": visibility });
        let state = json!([{ "type": "m.room.history_visibility", "content": content }]);
        let room = alice.create(json!({ "preset": "public_chat", "initial_state": state })).await;
        before.join(&room).await;
        left.join(&room).await;
        alice.invite(&room, &invited).await;
        let mut events = vec![alice.say(&room, "1").await];
        left.leave(&room).await;
        events.push(alice.say(&room, "2").await);
        after.join(&room).await;
        invited.join(&room).await;
        events.push(alice.say(&room, "3").await);
        let readers = [&before, &after, &invited, &left, &stranger];
        for (who, expected) in readers.into_iter().zip(expected) {
            assert_eq!(seen(who, &room, &events).await, expected, "{visibility}: {}", who.user);
        }
        // Who comes again sees what was shared meanwhile.
        left.join(&room).await;
        let expected = if matches!(visibility, "shared" | "world_readable") { ALL } else { &[1] };
        assert_eq!(seen(&left, &room, &events).await, expected, "{visibility}: again");
    }
    server.finish().await;
}

#[tokio::test]
async fn what_was_sent_under_a_rule_stays_under_it() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let set = |visibility: &str| {
        let (alice, room, content) = (alice.clone(), room.clone(), json!({ "history_visibility": visibility }));
        async move { alice.set(&room, "m.room.history_visibility", "", content).await }
    };
    set("joined").await;
    let first = alice.say(&room, "1").await;
    let change = set("world_readable").await;
    let second = alice.say(&room, "2").await;
    let closing = set("joined").await;
    let third = alice.say(&room, "3").await;
    bob.join(&room).await;
    let events = [first, second, third];
    assert_eq!(seen(&bob, &room, &events).await, [2]);
    // A change of the rule is seen if either rule shows it.
    let page = bob.page(&room, "dir=b&limit=100").await;
    assert!(ids(&page["chunk"]).contains(&change.as_str()) && ids(&page["chunk"]).contains(&closing.as_str()));
    server.finish().await;
}

#[tokio::test]
async fn own_memberships_are_seen_and_said_of_each_event() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let state = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let room = alice.create(json!({ "preset": "public_chat", "initial_state": state })).await;
    alice.say(&room, "hidden").await;
    alice.invite(&room, &bob).await;
    bob.join(&room).await;
    alice.say(&room, "in").await;
    alice.post(&format!("/rooms/{room}/kick"), json!({ "user_id": bob.user })).await.ok();
    alice.say(&room, "out").await;
    alice.post(&format!("/rooms/{room}/ban"), json!({ "user_id": bob.user })).await.ok();
    let chunk = bob.page(&room, "dir=f").await["chunk"].clone();
    let seen: Vec<_> = chunk
        .as_array()
        .unwrap()
        .iter()
        // What was sent before the rule was set is shared.
        .filter(|event| event["sender"] != json!(alice.user) || event["content"]["membership"] != "join")
        .filter_map(|event| {
            let what = event["content"]["membership"].as_str().or(event["content"]["body"].as_str())?;
            Some((what.to_owned(), event["unsigned"]["membership"].as_str().unwrap().to_owned()))
        })
        .collect();
    let pair = |what: &str, membership: &str| (what.to_owned(), membership.to_owned());
    assert_eq!(seen, [pair("join", "join"), pair("in", "join"), pair("leave", "leave")]);
    let all = alice.page(&room, "dir=f&limit=100").await["chunk"].clone();
    let create = &all[0]["unsigned"];
    assert_eq!(create["membership"], "leave");
    server.finish().await;
}

#[tokio::test]
async fn ignored_users_are_not_shown_but_what_they_set_is() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let hidden = bob.say(&room, "noise").await;
    alice.say(&room, "word").await;
    let list = json!({ "ignored_users": { (bob.user.clone()): {}, (alice.user.clone()): {} } });
    let path = format!("/user/{}/account_data/m.ignored_user_list", alice.user);
    alice.put(&path, list).await.ok();
    let page = alice.page(&room, "dir=b&limit=100").await;
    assert_eq!(bodies(&page["chunk"]), ["word"]);
    assert!(page["chunk"].as_array().unwrap().iter().any(|event| event["sender"] == json!(bob.user)));
    let context = alice.get(&format!("/rooms/{room}/context/{hidden}")).await.ok();
    assert_eq!((bodies(&context["events_after"]), &context["event"]["event_id"]), (vec!["word"], &json!(hidden)));
    alice.put(&path, json!({ "ignored_users": ["nonsense"] })).await.ok();
    assert_eq!(bodies(&alice.page(&room, "dir=b&limit=100").await["chunk"]), ["word", "noise"]);
    server.finish().await;
}
