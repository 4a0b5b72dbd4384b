use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::common::{Client, TestServer, rooms::text};

async fn members(who: &Client, room: &str, query: &str) -> BTreeSet<(String, String)> {
    let found = who.get(&format!("/rooms/{room}/members{query}")).await.ok();
    let member = |event: &Value| {
        assert_eq!((&event["type"], &event["room_id"]), (&"m.room.member".into(), &json!(room)));
        (text(&event["state_key"]), text(&event["content"]["membership"]))
    };
    found["chunk"].as_array().unwrap().iter().map(member).collect()
}

fn set(of: &[(&Client, &str)]) -> BTreeSet<(String, String)> {
    of.iter().map(|(who, membership)| (who.user.clone(), (*membership).to_owned())).collect()
}

#[tokio::test]
async fn members_now_then_and_by_membership() {
    let server = TestServer::start().await;
    let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
    let room = alice.room_with(&[&bob]).await;
    let then = text(&alice.get("/sync").await.ok()["next_batch"]);
    alice.say(&room, "between").await;
    alice.invite(&room, &eve).await;
    bob.leave(&room).await;
    let all = [(&alice, "join"), (&bob, "leave"), (&eve, "invite")];
    assert_eq!(members(&alice, &room, "").await, set(&all));
    assert_eq!(members(&alice, &room, &format!("?at={then}")).await, set(&[(&alice, "join"), (&bob, "join")]));
    assert_eq!(members(&alice, &room, "?membership=join").await, set(&all[..1]));
    assert_eq!(members(&alice, &room, "?not_membership=leave").await, set(&[all[0], all[2]]));
    assert_eq!(members(&alice, &room, "?membership=leave&not_membership=invite").await, set(&all[..2]));
    let page = alice.page(&room, "dir=b&limit=2").await;
    // Just before the invitation.
    let at = text(&page["end"]);
    assert_eq!(members(&alice, &room, &format!("?at={at}")).await, set(&[(&alice, "join"), (&bob, "join")]));
    assert_eq!(alice.get(&format!("/rooms/{room}/members?at=x")).await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}

#[tokio::test]
async fn who_has_left_sees_the_state_of_their_leaving() {
    let server = TestServer::start().await;
    let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
    let room = alice.room_with(&[&bob]).await;
    alice.set(&room, "m.room.topic", "", json!({ "topic": "then" })).await;
    bob.leave(&room).await;
    alice.set(&room, "m.room.topic", "", json!({ "topic": "now" })).await;
    alice.set(&room, "m.room.name", "", json!({ "name": "now" })).await;
    eve.join(&room).await;
    alice.post(&format!("/rooms/{room}/ban"), json!({ "user_id": bob.user })).await.ok();
    let state = |who: &Client, end: &str| {
        let (who, path) = (who.clone(), format!("/rooms/{room}/state{end}"));
        async move { who.get(&path).await }
    };
    assert_eq!(state(&alice, "/m.room.topic").await.ok()["topic"], "now");
    assert_eq!(state(&bob, "/m.room.topic").await.ok()["topic"], "then");
    assert_eq!(state(&bob, "/m.room.name").await.error(), (404, "M_NOT_FOUND"));
    let all = state(&bob, "").await.ok();
    let names = |all: &Value| -> BTreeSet<String> {
        all.as_array().unwrap().iter().map(|event| format!("{}{}", event["type"], event["state_key"])).collect()
    };
    assert!(!names(&all).contains(&format!("\"m.room.member\"\"{}\"", eve.user)));
    assert!(names(&state(&alice, "").await.ok()).contains(&format!("\"m.room.member\"\"{}\"", eve.user)));
    assert_eq!(members(&bob, &room, "").await, set(&[(&alice, "join"), (&bob, "leave")]));
    assert_eq!(bob.get(&format!("/rooms/{room}/joined_members")).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.page(&room, "dir=b&limit=1").await["chunk"][0]["content"]["membership"], "leave");
    server.finish().await;
}

#[tokio::test]
async fn invited_users_see_nothing_yet_and_anybody_what_the_world_may_read() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "invite": [bob.user] })).await;
    let paths = ["messages?dir=b", "state", "members", "joined_members", "state/m.room.create", "aliases"];
    for path in paths {
        assert_eq!(bob.get(&format!("/rooms/{room}/{path}")).await.error(), (403, "M_FORBIDDEN"), "{path}");
    }
    bob.leave(&room).await;
    for path in paths {
        assert_eq!(bob.get(&format!("/rooms/{room}/{path}")).await.error(), (403, "M_FORBIDDEN"), "{path}");
    }
    alice.set(&room, "m.room.history_visibility", "", json!({ "history_visibility": "world_readable" })).await;
    for path in paths.into_iter().filter(|path| *path != "joined_members") {
        bob.get(&format!("/rooms/{room}/{path}")).await.ok();
    }
    assert_eq!(bob.get(&format!("/rooms/{room}/joined_members")).await.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}

#[tokio::test]
async fn joined_members_show_their_profiles() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.put(&format!("/profile/{}/displayname", alice.user), json!({ "displayname": "Alice" })).await.ok();
    alice.put(&format!("/profile/{}/avatar_url", alice.user), json!({ "avatar_url": "mxc://a/b" })).await.ok();
    let room = alice.room_with(&[&bob]).await;
    let joined = bob.get(&format!("/rooms/{room}/joined_members")).await.ok();
    let expected = json!({
        (alice.user.clone()): { "display_name": "Alice", "avatar_url": "mxc://a/b" }, (bob.user.clone()): {},
    });
    assert_eq!(joined["joined"], expected);
    bob.leave(&room).await;
    let joined = alice.get(&format!("/rooms/{room}/joined_members")).await.ok();
    assert_eq!(joined["joined"].as_object().unwrap().len(), 1);
    server.finish().await;
}
