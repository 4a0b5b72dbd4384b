use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{Client, HeldLog, Reply, TestServer};

async fn act(who: &Client, room: &str, what: &str, body: Value) -> Reply {
    who.post(&format!("/rooms/{room}/{what}"), body).await
}

async fn member(who: &Client, room: &str, of: &Client) -> Value {
    who.get(&format!("/rooms/{room}/state/m.room.member/{}", of.user)).await.ok()
}

#[tokio::test]
async fn people_come_and_go() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "room_alias_name": "tea" })).await;
    assert_eq!(act(&bob, &room, "join", json!({})).await.error(), (403, "M_FORBIDDEN"));
    act(&alice, &room, "invite", json!({ "user_id": bob.user, "reason": "come" })).await.ok();
    assert_eq!(member(&alice, &room, &bob).await, json!({ "membership": "invite", "reason": "come" }));
    let joined = bob.post("/join/%23tea:test.example?via=test.example", json!({ "reason": "hi" })).await.ok();
    assert_eq!(joined["room_id"], json!(room));
    assert_eq!(member(&bob, &room, &bob).await["membership"], "join");
    // Once more changes nothing.
    let before = alice.page(&room, "dir=b&limit=1").await;
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    assert_eq!(alice.page(&room, "dir=b&limit=1").await["chunk"][0]["event_id"], before["chunk"][0]["event_id"]);
    assert_eq!(bob.get("/joined_rooms").await.ok(), json!({ "joined_rooms": [room] }));

    act(&bob, &room, "leave", json!({ "reason": "bye" })).await.ok();
    assert_eq!(member(&alice, &room, &bob).await, json!({ "membership": "leave", "reason": "bye" }));
    assert_eq!(bob.get("/joined_rooms").await.ok(), json!({ "joined_rooms": [] }));
    act(&bob, &room, "leave", json!({})).await.ok();
    assert_eq!(act(&bob, &room, "join", json!({})).await.error(), (403, "M_FORBIDDEN"));
    act(&alice, &room, "invite", json!({ "user_id": bob.user })).await.ok();
    act(&bob, &room, "leave", json!({})).await.ok();
    assert_eq!(member(&alice, &room, &bob).await["membership"], "leave");
    server.finish().await;
}

#[tokio::test]
async fn moderators_kick_and_ban() {
    let server = TestServer::start().await;
    let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
    let room = alice.room_with(&[&bob, &eve]).await;
    let about = |of: &Client| json!({ "user_id": of.user, "reason": "r" });
    for what in ["kick", "ban"] {
        assert_eq!(act(&bob, &room, what, about(&eve)).await.error(), (403, "M_FORBIDDEN"));
    }
    act(&alice, &room, "kick", about(&eve)).await.ok();
    assert_eq!(member(&alice, &room, &eve).await, json!({ "membership": "leave", "reason": "r" }));
    assert_eq!(act(&alice, &room, "kick", about(&eve)).await.error(), (403, "M_FORBIDDEN"));
    eve.join(&room).await;
    act(&alice, &room, "ban", about(&eve)).await.ok();
    act(&alice, &room, "ban", about(&eve)).await.ok();
    assert_eq!(member(&alice, &room, &eve).await["membership"], "ban");
    assert_eq!(act(&eve, &room, "join", json!({})).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(act(&alice, &room, "invite", about(&eve)).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(act(&bob, &room, "unban", about(&eve)).await.error(), (403, "M_FORBIDDEN"));
    act(&alice, &room, "unban", about(&eve)).await.ok();
    assert_eq!(act(&alice, &room, "unban", about(&eve)).await.error().0, 400);
    eve.join(&room).await;
    assert_eq!(act(&alice, &room, "kick", json!({})).await.error(), (400, "M_MISSING_PARAM"));
    assert_eq!(act(&alice, &room, "kick", json!({ "user_id": "eve" })).await.error(), (400, "M_BAD_JSON"));
    server.finish().await;
}

#[tokio::test]
async fn a_room_is_forgotten_once_it_is_left() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.say(&room, "before").await;
    assert_eq!(act(&bob, &room, "forget", json!({})).await.error(), (400, "M_UNKNOWN"));
    bob.leave(&room).await;
    assert_eq!(bob.page(&room, "dir=b").await["chunk"][0]["content"]["membership"], "leave");
    act(&bob, &room, "forget", json!({})).await.ok();
    act(&bob, &room, "forget", json!({})).await.ok();
    for path in ["messages?dir=b", "state", "members", "state/m.room.create"] {
        assert_eq!(bob.get(&format!("/rooms/{room}/{path}")).await.error(), (403, "M_FORBIDDEN"), "{path}");
    }
    assert_eq!(act(&bob, "!none:test.example", "forget", json!({})).await.error(), (404, "M_NOT_FOUND"));
    bob.join(&room).await;
    assert!(bob.page(&room, "dir=b&limit=100").await["chunk"].as_array().unwrap().len() > 5);
    server.finish().await;
}

#[tokio::test]
async fn knocking_and_restricted_rooms() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let rule = |content: Value| json!([{ "type": "m.room.join_rules", "content": content }]);
    let room = alice.create(json!({ "initial_state": rule(json!({ "join_rule": "knock" })) })).await;
    assert_eq!(act(&bob, &room, "join", json!({})).await.error(), (403, "M_FORBIDDEN"));
    let knocked = bob.post(&format!("/knock/{room}?via=test.example"), json!({ "reason": "please" })).await.ok();
    assert_eq!(knocked, json!({ "room_id": room }));
    assert_eq!(member(&alice, &room, &bob).await["membership"], "knock");
    alice.invite(&room, &bob).await;
    bob.join(&room).await;

    let club = alice.create(json!({ "preset": "public_chat" })).await;
    assert_eq!(bob.post(&format!("/knock/{club}"), json!({})).await.error(), (403, "M_FORBIDDEN"));
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let restricted = json!({ "join_rule": "restricted", "allow": allow });
    let room = alice.create(json!({ "initial_state": rule(restricted) })).await;
    assert_eq!(act(&bob, &room, "join", json!({})).await.error(), (403, "M_FORBIDDEN"));
    bob.join(&club).await;
    bob.join(&room).await;
    assert_eq!(member(&bob, &room, &bob).await["join_authorised_via_users_server"], json!(alice.user));
    server.finish().await;
}

#[tokio::test]
async fn what_is_not_there_and_who_is_not_in_it() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let none = "!none:test.example";
    let room = alice.create(json!({})).await;
    assert_eq!(act(&bob, none, "join", json!({})).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(bob.post("/join/%23none:test.example", json!({})).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(bob.post("/knock/%23none:test.example", json!({})).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(bob.post("/join/nonsense", json!({})).await.error().0, 400);
    assert_eq!(act(&bob, none, "leave", json!({})).await.error(), (404, "M_NOT_FOUND"));
    for there in [none, &room] {
        for what in ["invite", "kick", "ban", "unban"] {
            let reply = act(&bob, there, what, json!({ "user_id": alice.user })).await;
            assert_eq!(reply.error(), (403, "M_FORBIDDEN"), "{what} {}", reply.text);
        }
    }
    let by_mail = json!({ "id_server": "x", "id_access_token": "x", "medium": "email", "address": "a@b.example" });
    assert_eq!(act(&alice, &room, "invite", by_mail).await.error(), (403, "M_THREEPID_DENIED"));
    assert_eq!(
        act(&alice, &room, "invite", json!({ "user_id": "@no:test.example" })).await.error(),
        (404, "M_NOT_FOUND")
    );
    assert_eq!(act(&alice, &room, "invite", json!({ "user_id": alice.user })).await.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}

#[tokio::test]
async fn guests_join_where_guests_may() {
    let server = TestServer::with(&[("registration.guests", "on")]).await;
    let alice = server.user("alice").await;
    let guest = server.client().post("/register?kind=guest", json!({})).await.ok();
    let guest = server.client().logged_in(&guest);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    assert_eq!(act(&guest, &room, "join", json!({})).await.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    alice.set(&room, "m.room.guest_access", "", json!({ "guest_access": "can_join" })).await;
    guest.join(&room).await;
    guest.say(&room, "hello").await;
    assert_eq!(guest.post("/createRoom", json!({})).await.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    server.finish().await;
}

/// Sends a membership of one's own, or of somebody else, as a state event.
async fn put(who: &Client, room: &str, of: &Client, content: Value) -> Reply {
    who.put(&format!("/rooms/{room}/state/m.room.member/{}", of.user), content).await
}

#[tokio::test]
async fn a_join_that_is_sent_as_state_is_a_join() {
    let server = TestServer::with(&[("registration.guests", "on")]).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let guest = server.client().post("/register?kind=guest", json!({})).await.ok();
    let guest = server.client().logged_in(&guest);
    let join = json!({ "membership": "join" });
    let club = alice.create(json!({ "preset": "public_chat" })).await;
    assert_eq!(put(&guest, &club, &guest, join.clone()).await.error(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    alice.set(&club, "m.room.guest_access", "", json!({ "guest_access": "can_join" })).await;
    put(&guest, &club, &guest, join.clone()).await.ok();
    guest.say(&club, "hello").await;

    // Nobody lets themselves into a restricted room.
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rule = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } }]);
    let room = alice.create(json!({ "initial_state": rule })).await;
    let by_alice = json!({ "membership": "join", "join_authorised_via_users_server": alice.user, "note": "mine" });
    for content in [&join, &by_alice] {
        assert_eq!(put(&bob, &room, &bob, content.clone()).await.error(), (403, "M_FORBIDDEN"));
    }
    bob.join(&club).await;
    put(&bob, &room, &bob, by_alice).await.ok();
    let joined = member(&bob, &room, &bob).await;
    assert_eq!((&joined["join_authorised_via_users_server"], &joined["note"]), (&json!(alice.user), &json!("mine")));
    put(&bob, &room, &bob, json!({ "membership": "join", "displayname": "Bobby" })).await.ok();
    assert_eq!(member(&bob, &room, &bob).await, json!({ "membership": "join", "displayname": "Bobby" }));
    server.finish().await;
}

#[tokio::test]
async fn an_invitation_rests_on_the_account_however_it_is_sent() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    for (n, way) in ["invite", "state", "createRoom"].into_iter().enumerate() {
        let bob = server.user(&format!("bob{n}")).await;
        log.hold_next(1);
        let inviting = tokio::spawn({
            let (alice, room, bob) = (alice.clone(), room.clone(), bob.clone());
            async move {
                match way {
                    "invite" => act(&alice, &room, "invite", json!({ "user_id": bob.user })).await,
                    "state" => put(&alice, &room, &bob, json!({ "membership": "invite" })).await,
                    _ => alice.post("/createRoom", json!({ "invite": [bob.user] })).await,
                }
            }
        });
        log.held().await;
        // The account ends after it was decided, and before the invitation is on the log.
        let auth = json!({ "auth": bob.password_auth(&format!("password of bob{n}")) });
        bob.post("/account/deactivate", auth).await.ok();
        log.release();
        assert_eq!(inviting.await.unwrap().error(), (404, "M_NOT_FOUND"), "{way}");
    }
    server.finish().await;
}

#[tokio::test]
async fn many_join_at_once() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let others = join_all((0..12).map(|n| {
        let server = &server;
        async move { server.user(&format!("user{n}")).await }
    }))
    .await;
    join_all(others.iter().map(|other| other.join(&room))).await;
    let members = alice.get(&format!("/rooms/{room}/joined_members")).await.ok();
    assert_eq!(members["joined"].as_object().unwrap().len(), 13);
    server.finish().await;
}

#[tokio::test]
async fn joining_is_limited() {
    let server = TestServer::with(&[
        ("rate_limits.enabled", "on"),
        ("rate_limits.join.burst", "2"),
        ("rate_limits.join.per_second", "0.01"),
    ])
    .await;
    let (alice, admin) = (server.user("alice").await, server.admin("admin").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    alice.join(&room).await;
    let as_state = put(&alice, &room, &alice, json!({ "membership": "join" })).await;
    assert_eq!(as_state.error(), (429, "M_LIMIT_EXCEEDED"));
    let limited = act(&alice, &room, "join", json!({})).await;
    assert_eq!(limited.error(), (429, "M_LIMIT_EXCEEDED"));
    assert!(limited["retry_after_ms"].as_u64().unwrap() > 50_000 && !limited.header("retry-after").is_empty());
    for _ in 0..5 {
        admin.join(&room).await;
    }
    server.finish().await;
}
