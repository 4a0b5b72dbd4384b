use std::collections::BTreeSet;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{Client, TestServer, rooms::text};

async fn state(client: &Client, room: &str, path: &str) -> Value {
    client.get(&format!("/rooms/{room}/state/{path}")).await.ok()
}

#[tokio::test]
async fn a_room_begins_as_its_creator_says() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.put("/profile/@alice:test.example/displayname", json!({ "displayname": "Alice" })).await.ok();
    let room = alice
        .create(json!({
            "preset": "public_chat", "visibility": "public", "room_alias_name": "tea", "name": "Tea", "topic": "Leaves",
            "invite": [bob.user], "is_direct": true,
            "creation_content": { "m.federate": false, "type": "m.space" },
            "initial_state": [
                { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
                { "type": "org.example", "state_key": "k", "content": { "a": 1 } },
            ],
            "power_level_content_override": { "events_default": 7, "users": { (alice.user.clone()): 100 } },
            "room_version": "10",
        }))
        .await;
    assert!(room.ends_with(":test.example"), "{room}");
    let create = state(&alice, &room, "m.room.create").await;
    assert_eq!(
        (&create["room_version"], &create["type"], &create["m.federate"]),
        (&"10".into(), &"m.space".into(), &false.into())
    );
    assert_eq!(create["creator"], json!(alice.user));
    assert_eq!(state(&alice, &room, "m.room.join_rules").await["join_rule"], "public");
    assert_eq!(state(&alice, &room, "m.room.history_visibility").await["history_visibility"], "shared");
    assert_eq!(state(&alice, &room, "m.room.guest_access").await["guest_access"], "can_join");
    assert_eq!(state(&alice, &room, "m.room.name").await["name"], "Tea");
    assert_eq!(state(&alice, &room, "m.room.topic").await["topic"], "Leaves");
    assert_eq!(state(&alice, &room, "m.room.canonical_alias").await["alias"], "#tea:test.example");
    assert_eq!(state(&alice, &room, "org.example/k").await, json!({ "a": 1 }));
    assert_eq!(state(&alice, &room, "m.room.power_levels").await["events_default"], 7);
    let own = state(&alice, &room, &format!("m.room.member/{}", alice.user)).await;
    assert_eq!((&own["membership"], &own["displayname"]), (&"join".into(), &"Alice".into()));
    let invited = state(&alice, &room, &format!("m.room.member/{}", bob.user)).await;
    assert_eq!((&invited["membership"], &invited["is_direct"]), (&"invite".into(), &true.into()));
    assert_eq!(alice.get("/directory/list/room/".to_owned().as_str()).await.status, 404);
    assert_eq!(alice.get(&format!("/directory/list/room/{room}")).await.ok()["visibility"], "public");
    assert_eq!(bob.get("/directory/room/%23tea:test.example").await.ok()["room_id"], json!(room));
    server.finish().await;
}

#[tokio::test]
async fn presets_and_versions() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({})).await;
    assert!(!room.contains(':'), "the default version makes ids without a server: {room}");
    assert_eq!(state(&alice, &room, "m.room.create").await["room_version"], "12");
    assert_eq!(state(&alice, &room, "m.room.join_rules").await["join_rule"], "invite");
    let trusted = json!({ "preset": "trusted_private_chat", "invite": [bob.user], "room_version": "11" });
    let room = alice.create(trusted).await;
    let levels = state(&alice, &room, "m.room.power_levels").await;
    assert_eq!(levels["users"][&bob.user], levels["users"][&alice.user]);
    for version in 6..=12 {
        let room = alice.create(json!({ "room_version": version.to_string(), "name": "N" })).await;
        alice.say(&room, "hello").await;
        assert_eq!(alice.page(&room, "dir=b&limit=1").await["chunk"][0]["content"]["body"], "hello", "{version}");
    }
    server.finish().await;
}

#[tokio::test]
async fn the_default_version_is_a_setting() {
    let server = TestServer::with(&[("rooms.default_version", "10")]).await;
    let alice = server.user("alice").await;
    for (body, version) in [(json!({}), "10"), (json!({ "room_version": "12" }), "12")] {
        let room = alice.create(body).await;
        assert_eq!(state(&alice, &room, "m.room.create").await["room_version"], version);
    }
    let offered = alice.get("/capabilities").await.ok();
    assert_eq!(offered["capabilities"]["m.room_versions"]["default"], "10");
    server.finish().await;
}

#[tokio::test]
async fn rooms_that_make_no_sense_are_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.create(json!({ "room_alias_name": "taken" })).await;
    for (body, error) in [
        (json!({ "room_version": "none" }), (400, "M_UNSUPPORTED_ROOM_VERSION")),
        (json!({ "room_version": "13" }), (400, "M_UNSUPPORTED_ROOM_VERSION")),
        (json!({ "room_version": "1" }), (400, "M_UNSUPPORTED_ROOM_VERSION")),
        (json!({ "room_version": "5" }), (400, "M_UNSUPPORTED_ROOM_VERSION")),
        (json!({ "room_alias_name": "taken" }), (400, "M_ROOM_IN_USE")),
        (json!({ "room_alias_name": "a b" }), (400, "M_INVALID_PARAM")),
        (json!({ "room_alias_name": "a:b" }), (400, "M_INVALID_PARAM")),
        (json!({ "room_alias_name": "x".repeat(300) }), (400, "M_INVALID_PARAM")),
        (json!({ "invite": ["@nobody:test.example"] }), (404, "M_NOT_FOUND")),
        (json!({ "invite": ["nobody"] }), (400, "M_BAD_JSON")),
        (json!({ "initial_state": [{ "type": "x" }] }), (400, "M_BAD_JSON")),
        (json!({ "initial_state": [{ "type": "x", "content": { "a": 1.5 } }] }), (400, "M_BAD_JSON")),
        (
            json!({ "initial_state": [
                { "type": "m.room.member", "state_key": "@nobody:test.example", "content": { "membership": "invite" } },
            ] }),
            (400, "M_INVALID_ROOM_STATE"),
        ),
        (json!({ "preset": 5 }), (400, "M_BAD_JSON")),
        (json!({ "name": "x".repeat(70_000) }), (413, "M_TOO_LARGE")),
        (json!({ "power_level_content_override": { "users": { "@a:x": "a lot" } } }), (400, "M_INVALID_ROOM_STATE")),
    ] {
        let reply = alice.post("/createRoom", body.clone()).await;
        assert_eq!(reply.error(), error, "{body} {}", reply.text);
    }
    assert_eq!(server.client().post("/createRoom", json!({})).await.error(), (401, "M_MISSING_TOKEN"));
    assert_eq!(alice.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn one_of_many_rooms_gets_a_contended_alias() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let tries = join_all((0..12).map(|_| alice.post("/createRoom", json!({ "room_alias_name": "one" })))).await;
    let (made, refused): (Vec<_>, Vec<_>) = tries.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(made.len(), 1);
    assert!(refused.iter().all(|reply| reply.error() == (400, "M_ROOM_IN_USE")));
    let found = alice.get("/directory/room/%23one:test.example").await.ok();
    assert_eq!(found["room_id"], made[0]["room_id"]);
    // Who lost has made nothing.
    assert_eq!(alice.get("/joined_rooms").await.ok()["joined_rooms"], json!([made[0]["room_id"]]));
    server.finish().await;
}

#[tokio::test]
async fn a_summary_is_for_those_who_may_come_in() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let summary =
        |who: Client, room: String| async move { who.get(&format!("/_matrix/client/v1/room_summary/{room}")).await };
    let body = json!({ "preset": "public_chat", "name": "N", "topic": "T", "room_alias_name": "open" });
    let open = alice.create(body).await;
    let seen = summary(bob.clone(), "%23open:test.example".into()).await.ok();
    assert_eq!((&seen["room_id"], &seen["name"], &seen["num_joined_members"]), (&json!(open), &"N".into(), &1.into()));
    assert_eq!(
        (seen.get("join_rule"), &seen["room_version"], seen.get("membership")),
        (None, &"12".into(), None),
        "without a join rule it is public"
    );
    assert_eq!(summary(server.client(), open.clone()).await.ok()["topic"], "T");
    assert_eq!(summary(alice.clone(), open.clone()).await.ok()["membership"], "join");

    let closed = alice.create(json!({ "name": "secret" })).await;
    assert_eq!(summary(bob.clone(), closed.clone()).await.error(), (404, "M_NOT_FOUND"));
    alice.invite(&closed, &bob).await;
    assert_eq!(summary(bob.clone(), closed.clone()).await.ok()["membership"], "invite");
    let allow = json!([{ "type": "m.room_membership", "room_id": open }]);
    let body = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } }]);
    let restricted = alice.create(json!({ "initial_state": body })).await;
    assert_eq!(summary(bob.clone(), restricted.clone()).await.error(), (404, "M_NOT_FOUND"));
    bob.join(&open).await;
    let seen = summary(bob.clone(), restricted.clone()).await.ok();
    assert_eq!((&seen["join_rule"], text(&seen["allowed_room_ids"][0])), (&"restricted".into(), open));
    assert_eq!(summary(server.client(), restricted).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(summary(bob, "!none:test.example".into()).await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn the_same_room_may_be_asked_for_many_times_in_a_millisecond() {
    let (server, _clock) = TestServer::with_clock(&[]).await;
    let alice = server.user("alice").await;
    let rooms = join_all((0..40).map(|_| alice.create(json!({ "room_version": "12" })))).await;
    assert_eq!(rooms.iter().collect::<BTreeSet<_>>().len(), rooms.len(), "the id is a hash of who, what and when");
    server.finish().await;
}

#[tokio::test]
async fn what_is_too_much_for_one_record_is_refused_before_it() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let state = |n: usize| json!({ "type": "org.example.note", "state_key": n.to_string(), "content": { "n": n } });
    let states = |n: usize| (0..n).map(state).collect::<Vec<_>>();
    let body = |n: usize| json!({ "initial_state": states(n), "invite": [bob.user] });
    let before = server.app().view().unwrap().lsn();
    for n in [300, 500, 10_000] {
        assert_eq!(alice.post("/createRoom", body(n)).await.error(), (413, "M_TOO_LARGE"));
    }
    let many: Vec<_> = (0..2_000).map(|n| format!("@user{n}:test.example")).collect();
    assert_eq!(alice.post("/createRoom", json!({ "invite": many })).await.error(), (413, "M_TOO_LARGE"));
    assert_eq!(server.app().view().unwrap().lsn(), before, "nothing was recorded");
    let room = alice.create(body(150)).await;
    assert_eq!(state(7)["content"], alice.get(&format!("/rooms/{room}/state/org.example.note/7")).await.ok());
    server.finish().await;
}
