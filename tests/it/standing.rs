//! What users may do whose account or device does not stand as it should.

use schemas::facts::{AccountStatusSet, RoomBlocked};
use serde_json::json;

use crate::common::{Client, TestServer};

fn status(user: &Client, locked: bool, suspended: bool) -> AccountStatusSet {
    AccountStatusSet { user: user.user.clone(), locked, suspended }
}

#[tokio::test]
async fn who_is_suspended_reads_and_keeps_their_own_things() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    server.record([status(&alice, false, true).into()]).await;
    let name = format!("/profile/{}/displayname", alice.user);
    let refused = alice.put(&name, json!({ "displayname": "Alice" })).await;
    assert_eq!(refused.error(), (403, "M_USER_SUSPENDED"));
    assert_eq!(alice.delete(&name).await.error(), (403, "M_USER_SUSPENDED"));
    alice.put(&format!("/user/{}/account_data/a", alice.user), json!({})).await.ok();
    alice.put("/sendToDevice/m.test/1", json!({ "messages": { alice.user.clone(): { "*": {} } } })).await.ok();
    alice.put("/pushrules/global/content/a", json!({ "pattern": "a", "actions": [] })).await.ok();

    server.record([status(&alice, false, false).into()]).await;
    alice.put(&name, json!({ "displayname": "Alice" })).await.ok();
    server.finish().await;
}

#[tokio::test]
async fn who_is_locked_keeps_their_session_and_does_nothing() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    server.record([status(&alice, true, false).into()]).await;
    for path in ["/pushrules/", "/devices"] {
        let refused = alice.get(path).await;
        assert_eq!((refused.error(), &refused["soft_logout"]), ((401, "M_USER_LOCKED"), &json!(true)), "{path}");
    }
    server.record([status(&alice, false, false).into()]).await;
    alice.get("/devices").await.ok();
    server.finish().await;
}

#[tokio::test]
async fn who_is_in_a_blocked_room_can_only_leave_it() {
    let server = TestServer::start().await;
    let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
    let dave = server.user("dave").await;
    let room = alice.room_with(&[&bob]).await;
    alice.invite(&room, &dave).await;
    let event = alice.say(&room, "before").await;
    let block = async |blocked: bool| {
        let fact = RoomBlocked { room: room.clone(), blocked, reason: Some("spam".into()) };
        server.record([fact.into()]).await;
    };
    let at = |path: &str| format!("/rooms/{room}/{path}");
    let target = json!({ "user_id": carol.user });
    let hello = json!({ "body": "Hi", "msgtype": "m.text" });
    let posts = [
        (&carol, at("join"), json!({})),
        (&dave, at("join"), json!({})),
        (&carol, format!("/join/{room}"), json!({})),
        (&alice, at("invite"), target.clone()),
        (&alice, at("kick"), json!({ "user_id": bob.user })),
        (&alice, at("ban"), target),
    ];
    let puts = [
        (&alice, at("send/m.room.message/1"), hello.clone()),
        (&bob, at("send/m.room.message/2"), hello),
        (&alice, at("state/m.room.topic/"), json!({ "topic": "new" })),
        (&alice, at(&format!("redact/{event}/3")), json!({})),
        (&alice, "/directory/room/%23new:test.example".to_owned(), json!({ "room_id": room })),
        (&alice, format!("/directory/list/room/{room}"), json!({ "visibility": "public" })),
    ];
    block(true).await;
    let before = server.app().reader.tail();
    for (who, path, body) in &posts {
        assert_eq!(who.post(path, body.clone()).await.error(), (403, "M_FORBIDDEN"), "{path}");
    }
    for (who, path, body) in &puts {
        assert_eq!(who.put(path, body.clone()).await.error(), (403, "M_FORBIDDEN"), "{path}");
    }
    assert_eq!(server.app().reader.tail(), before);
    // What was said can be read, and nobody has to stay.
    alice.page(&room, "dir=b").await;
    bob.leave(&room).await;
    dave.leave(&room).await;

    block(false).await;
    carol.join(&room).await;
    for (who, path, body) in puts.iter().filter(|(who, ..)| who.user == alice.user) {
        who.put(path, body.clone()).await.ok();
    }
    server.finish().await;
}
