use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{Client, TestServer, rooms::bodies};

const SEND: &str = "/_synapse/admin/v1/send_server_notice";

const ON: (&str, &str) = ("server_notices.localpart", "notices");

fn notice(to: &str, body: &str) -> Value {
    json!({ "user_id": to, "content": { "msgtype": "m.text", "body": body } })
}

/// The rooms to which somebody is invited, or in which they are.
async fn rooms(who: &Client, what: &str) -> Vec<String> {
    let sync = who.get("/sync").await.ok();
    sync["rooms"][what].as_object().map(|rooms| rooms.keys().cloned().collect()).unwrap_or_default()
}

async fn state(who: &Client, room: &str, what: &str) -> Value {
    who.get(&format!("/rooms/{room}/state/{what}")).await.ok()
}

#[tokio::test]
async fn a_notice_comes_into_a_room_that_is_made_for_it() {
    let server = TestServer::with(&[ON, ("server_notices.room_topic", "Listen")]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let sent = admin.post(SEND, notice(&anna.user, "one")).await.ok();
    let event = sent["event_id"].as_str().unwrap();
    let [room] = rooms(&anna, "invite").await.try_into().unwrap();
    let tags = anna.get(&format!("/user/{}/rooms/{room}/tags", anna.user)).await.ok();
    assert_eq!(tags, json!({ "tags": { "m.server_notice": {} } }));

    // The invitation can't be refused, in either way.
    let refused = anna.post(&format!("/rooms/{room}/leave"), json!({})).await;
    assert_eq!(refused.error(), (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"));
    let left = json!({ "membership": "leave" });
    let refused = anna.put(&format!("/rooms/{room}/state/m.room.member/{}", anna.user), left).await;
    assert_eq!(refused.error(), (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"));

    anna.join(&room).await;
    let found = anna.get(&format!("/rooms/{room}/event/{event}")).await.ok();
    assert_eq!((&found["sender"], &found["content"]["body"]), (&json!("@notices:test.example"), &json!("one")));
    assert_eq!(state(&anna, &room, "m.room.name").await["name"], "Server Notices");
    assert_eq!(state(&anna, &room, "m.room.topic").await["topic"], "Listen");
    let member = state(&anna, &room, "m.room.member/@notices:test.example").await;
    assert_eq!((&member["displayname"], &member["membership"]), (&json!("Server Notices"), &json!("join")));
    assert_eq!(anna.try_send(&room, "m.room.message", json!({ "body": "no" })).await.error(), (403, "M_FORBIDDEN"));

    // The room is used again, for state and other types, too.
    admin.post(SEND, notice(&anna.user, "two")).await.ok();
    let typed = json!({ "user_id": anna.user, "type": "org.example.notice", "content": { "body": "three" } });
    admin.post(SEND, typed).await.ok();
    let stated = json!({ "user_id": anna.user, "type": "org.example.state", "state_key": "k", "content": { "n": 4 } });
    admin.post(SEND, stated).await.ok();
    let page = anna.page(&room, "dir=f&limit=100").await;
    assert_eq!(bodies(&page["chunk"]), ["one", "two", "three"]);
    assert_eq!(state(&anna, &room, "org.example.state/k").await, json!({ "n": 4 }));
    assert_eq!(rooms(&anna, "join").await, std::slice::from_ref(&room));

    // Once somebody has left it, they get another.
    anna.leave(&room).await;
    admin.post(SEND, notice(&anna.user, "five")).await.ok();
    let [other] = rooms(&anna, "invite").await.try_into().unwrap();
    assert_ne!(other, room);
    server.finish().await;
}

#[tokio::test]
async fn a_transaction_has_one_effect() {
    let server = TestServer::with(&[ON]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let path = "/_synapse/admin/v1/send_server_notice/t1";
    let first = admin.put(path, notice(&anna.user, "one")).await.ok();
    let room = rooms(&anna, "invite").await.remove(0);
    anna.join(&room).await;
    anna.leave(&room).await;
    assert_eq!(admin.put(path, notice(&anna.user, "one")).await.ok(), first);
    assert_eq!(rooms(&anna, "invite").await, Vec::<String>::new(), "and no other room");
    let other = server.admin("second").await;
    assert_ne!(other.put(path, notice(&anna.user, "one")).await.ok(), first, "another's transaction");
    server.finish().await;
}

#[tokio::test]
async fn one_room_is_made_however_many_notices_come_first() {
    let server = TestServer::with(&[ON, ("server_notices.auto_join", "on")]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let sent = join_all((0..8).map(|n| admin.post(SEND, notice(&anna.user, &n.to_string())))).await;
    sent.into_iter().for_each(|reply| drop(reply.ok()));
    let [room] = rooms(&anna, "join").await.try_into().unwrap();
    assert_eq!(bodies(&anna.page(&room, "dir=f&limit=100").await["chunk"]).len(), 8);
    server.finish().await;
}

#[tokio::test]
async fn settings_reach_a_room_with_the_next_notice() {
    let server = TestServer::with(&[ON, ("server_notices.auto_join", "on")]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    admin.post(SEND, notice(&anna.user, "one")).await.ok();
    let [room] = rooms(&anna, "join").await.try_into().unwrap();
    let renamed = [
        ON,
        ("server_notices.display_name", "Staff"),
        ("server_notices.room_name", "News"),
        ("server_notices.room_avatar_url", "mxc://test.example/picture"),
    ];
    let server = server.restart_with(&renamed).await;
    let (admin, anna) = (admin.at(server.url()), anna.at(server.url()));
    admin.post(SEND, notice(&anna.user, "two")).await.ok();
    assert_eq!(rooms(&anna, "join").await, std::slice::from_ref(&room));
    assert_eq!(state(&anna, &room, "m.room.name").await["name"], "News");
    assert_eq!(state(&anna, &room, "m.room.avatar").await["url"], "mxc://test.example/picture");
    assert_eq!(state(&anna, &room, "m.room.member/@notices:test.example").await["displayname"], "Staff");
    server.finish().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_notice_is_said() {
    let server = TestServer::with(&[ON]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    for (body, error, message) in [
        (json!({}), (400, "M_MISSING_PARAM"), "Missing params: ['user_id', 'content']"),
        (json!({ "user_id": anna.user }), (400, "M_MISSING_PARAM"), "Missing params: ['content']"),
        (notice("@nobody:test.example", "x"), (404, "M_NOT_FOUND"), "User not found"),
        (notice("@a:b.example", "x"), (400, "M_UNKNOWN"), "Server notices can only be sent to local users"),
        (json!({ "user_id": anna.user, "content": 7 }), (400, "M_BAD_JSON"), "Param 'content' must be an object"),
    ] {
        let reply = admin.post(SEND, body.clone()).await;
        assert_eq!((reply.error(), &reply["error"]), (error, &json!(message)), "{body}");
    }
    assert_eq!(admin.post(SEND, notice("anna", "x")).await.error(), (400, "M_INVALID_PARAM"));
    for wrong in [json!({ "type": 7 }), json!({ "state_key": 7 }), json!({ "content": { "n": 1.5 } })] {
        let mut body = notice(&anna.user, "x");
        body.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        assert_eq!(admin.post(SEND, body).await.error(), (400, "M_BAD_JSON"), "{wrong}");
    }
    server.finish().await;

    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let off = admin.post(SEND, notice(&anna.user, "x")).await;
    assert_eq!(
        (off.error(), off["error"].as_str()),
        ((400, "M_UNKNOWN"), Some("Server notices are not enabled on this server"))
    );
    server.finish().await;

    // A person must not be taken for the server.
    let server = TestServer::with(&[ON]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    server.user("notices").await;
    assert_eq!(admin.post(SEND, notice(&anna.user, "x")).await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}
