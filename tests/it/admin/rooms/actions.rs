use http::Method;
use serde_json::{Value, json};

use super::{of, told};
use crate::common::TestServer;

#[tokio::test]
async fn a_blocked_room_can_only_be_left() {
    let server = TestServer::start().await;
    let (admin, other) = (server.admin("root").await, server.admin("other").await);
    let (anna, bert, carl) = (server.user("anna").await, server.user("bert").await, server.user("carl").await);
    let room = anna.room_with(&[&carl]).await;
    anna.invite(&room, &bert).await;
    let path = of(&room, "/block");
    assert_eq!(admin.get(&path).await.ok(), json!({ "block": false }));
    // It need not be blocked to be let be.
    assert_eq!(admin.put(&path, json!({ "block": false })).await.ok(), json!({ "block": false }));
    assert_eq!(admin.put(&path, json!({ "block": true, "reason": "spam" })).await.ok(), json!({ "block": true }));
    assert_eq!(other.put(&path, json!({ "block": true })).await.ok(), json!({ "block": true }));
    // The first one counts.
    assert_eq!(other.get(&path).await.ok(), json!({ "block": true, "user_id": "@root:test.example" }));

    assert_eq!(bert.post(&format!("/rooms/{room}/join"), json!({})).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(bert.post(&format!("/join/{room}"), json!({})).await.error(), (403, "M_FORBIDDEN"));
    let invitation = json!({ "user_id": other.user });
    assert_eq!(anna.post(&format!("/rooms/{room}/invite"), invitation).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(anna.try_send(&room, "m.room.message", json!({ "body": "b" })).await.error(), (403, "M_FORBIDDEN"));
    let name = anna.put(&format!("/rooms/{room}/state/m.room.name"), json!({ "name": "n" })).await;
    assert_eq!(name.error(), (403, "M_FORBIDDEN"));
    carl.leave(&room).await;
    bert.leave(&room).await;
    assert_eq!(carl.post(&format!("/rooms/{room}/join"), json!({})).await.error(), (403, "M_FORBIDDEN"));
    admin.put(&path, json!({ "block": false })).await.ok();
    carl.join(&room).await;

    // A room that nobody here knows can be blocked.
    for room in ["!unknown:other.example", "!nGSVJTcqzSs6ZPTBfRr-abcdefghijklmnopqrstuvwx"] {
        admin.put(&of(room, "/block"), json!({ "block": true })).await.ok();
        assert_eq!(admin.get(&of(room, "/block")).await.ok()["block"], true);
    }
    for room in ["room", "%23alias:test.example", "@anna:test.example"] {
        for reply in [admin.get(&of(room, "/block")).await, admin.put(&of(room, "/block"), json!({})).await] {
            let message = format!("{} is not a legal room ID", room.replace("%23", "#"));
            assert_eq!(told(&reply), (400, "M_UNKNOWN", &*message));
        }
    }
    for (body, code, message) in [
        ("", "M_NOT_JSON", "Content not JSON."),
        ("[]", "M_BAD_JSON", "Content must be a JSON object."),
        ("{}", "M_MISSING_PARAM", "Missing params: ['block']"),
        (r#"{"block":1}"#, "M_BAD_JSON", "Param 'block' must be a boolean."),
    ] {
        let reply = admin.send_raw(Method::PUT, &path, body).await;
        assert_eq!(told(&reply), (400, code, message));
    }
    server.finish().await;
}

async fn levels(reader: &crate::common::Client, room: &str) -> Value {
    reader.get(&format!("/rooms/{room}/state/m.room.power_levels")).await.ok()["users"].clone()
}

#[tokio::test]
async fn administrators_get_the_power_of_the_most_powerful_local_member() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert, carl) = (server.user("anna").await, server.user("bert").await, server.user("carl").await);
    let body = json!({ "room_version": "10", "room_alias_name": "ours", "preset": "private_chat" });
    let room = anna.create(body).await;
    anna.invite(&room, &bert).await;
    bert.join(&room).await;
    let users = json!({ "users": { &anna.user: 100, &bert.user: 60, "@eve:other.example": 100 } });
    anna.set(&room, "m.room.power_levels", "", users).await;

    // The caller, if nobody is named; who is not in a private room is invited.
    let path = of(&room, "/make_room_admin");
    assert_eq!(admin.send_raw(Method::POST, &path, "").await.ok(), json!({}));
    assert_eq!(levels(&anna, &room).await[&admin.user], 100);
    let member = anna.get(&format!("/rooms/{room}/state/m.room.member/{}", admin.user)).await.ok();
    assert_eq!(member["membership"], "invite");
    admin.join(&room).await;
    // Once more changes nothing.
    admin.post(&path, json!({})).await.ok();

    // The highest who is in the room grants what they have, by the alias, too.
    anna.leave(&room).await;
    admin.leave(&room).await;
    admin.post(&of("%23ours:test.example", "/make_room_admin"), json!({ "user_id": carl.user })).await.ok();
    assert_eq!(levels(&bert, &room).await[&carl.user], 60);
    carl.join(&room).await;

    // Nobody of this server with power.
    let none = (400, "M_UNKNOWN", "No local admin user in room");
    let weak = (400, "M_UNKNOWN", "No local admin user in room with power to update power levels.");
    let quiet = anna.create(json!({ "room_version": "10", "preset": "public_chat" })).await;
    bert.join(&quiet).await;
    anna.set(&quiet, "m.room.power_levels", "", json!({ "users": { &anna.user: 100, &bert.user: 10 } })).await;
    anna.leave(&quiet).await;
    assert_eq!(told(&admin.post(&of(&quiet, "/make_room_admin"), json!({})).await), weak);
    bert.leave(&quiet).await;
    assert_eq!(told(&admin.post(&of(&quiet, "/make_room_admin"), json!({})).await), none);

    for (room, message) in
        [("!none:test.example", "Server not in room"), ("nonsense", "nonsense was not legal room ID or room alias")]
    {
        assert_eq!(told(&admin.post(&of(room, "/make_room_admin"), json!({})).await), (400, "M_UNKNOWN", message));
    }
    let reply = admin.post(&of("%23none:test.example", "/make_room_admin"), json!({})).await;
    assert_eq!(told(&reply), (404, "M_NOT_FOUND", "Room alias #none:test.example not found"));
    let reply = admin.post(&of("%23far:other.example", "/make_room_admin"), json!({})).await;
    assert_eq!(told(&reply), (502, "M_UNKNOWN", "Failed to fetch alias"));
    assert_eq!(admin.post(&path, json!({ "user_id": "carl" })).await.error(), (400, "M_INVALID_PARAM"));
    assert_eq!(admin.post(&path, json!({ "user_id": 1 })).await.error(), (400, "M_BAD_JSON"));
    let secret = server.client().with_token("shared");
    assert_eq!(secret.send_raw(Method::POST, &path, "").await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}

#[tokio::test]
async fn power_is_granted_in_every_kind_of_room() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    // In room version 12 the creator's power is in no list: what they grant is 100.
    for (version, preset) in
        [("10", "public_chat"), ("11", "private_chat"), ("12", "public_chat"), ("12", "private_chat")]
    {
        let room = anna.create(json!({ "room_version": version, "preset": preset })).await;
        admin.post(&of(&room, "/make_room_admin"), json!({})).await.ok();
        assert_eq!(levels(&anna, &room).await[&admin.user], 100, "{version}");
        let member = anna.get(&format!("/rooms/{room}/state/m.room.member/{}", admin.user)).await;
        let invited = preset == "private_chat";
        assert_eq!(member["membership"] == "invite", invited, "{version} {preset}");
        admin.join(&room).await;
        admin.set(&room, "m.room.name", "", json!({ "name": "mine" })).await;
    }
    server.finish().await;
}

#[tokio::test]
async fn administrators_let_users_join() {
    let server = TestServer::start().await;
    let (admin, anna, bert) = (server.admin("root").await, server.user("anna").await, server.user("bert").await);
    let joined = async |room: &str| {
        let rooms = bert.get("/joined_rooms").await.ok();
        rooms["joined_rooms"].as_array().unwrap().iter().any(|joined| joined == room)
    };
    let join = |room: &str| format!("/_synapse/admin/v1/join/{room}");
    let who = || json!({ "user_id": "@bert:test.example" });
    let public = anna.create(json!({ "preset": "public_chat", "room_alias_name": "open" })).await;
    let reply = admin.post(&join("%23open:test.example"), who()).await.ok();
    assert_eq!(reply, json!({ "room_id": public }));
    assert!(joined(&public).await);
    // A private one only where the administrator may invite; who is in it stays.
    let private = anna.create(json!({ "preset": "private_chat" })).await;
    assert_eq!(admin.post(&join(&private), who()).await.error(), (403, "M_FORBIDDEN"));
    assert!(!joined(&private).await);
    anna.invite(&private, &admin).await;
    admin.join(&private).await;
    for _ in 0..2 {
        admin.post(&join(&private), who()).await.ok();
    }
    assert!(joined(&private).await);
    let secret = server.client().with_token("shared");
    bert.leave(&public).await;
    secret.post(&join(&public), who()).await.ok();
    assert!(joined(&public).await);
    bert.leave(&private).await;
    assert_eq!(secret.post(&join(&private), who()).await.error(), (403, "M_FORBIDDEN"));
    anna.post(&format!("/rooms/{public}/ban"), who()).await.ok();
    assert_eq!(admin.post(&join(&public), who()).await.error(), (403, "M_FORBIDDEN"));

    for (room, body, error) in [
        (&*public, json!({}), (400, "M_MISSING_PARAM", "Missing params: ['user_id']")),
        (
            &public,
            json!({ "user_id": "@eve:other.example" }),
            (400, "M_UNKNOWN", "This endpoint can only be used with local users"),
        ),
        (&public, json!({ "user_id": "@none:test.example" }), (404, "M_NOT_FOUND", "User not found")),
        ("room", who(), (400, "M_UNKNOWN", "room was not legal room ID or room alias")),
        ("%23no:test.example", who(), (404, "M_NOT_FOUND", "Room alias #no:test.example not found")),
    ] {
        assert_eq!(told(&admin.post(&join(room), body).await), error);
    }
    assert_eq!(admin.post(&join("!none:test.example"), who()).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(admin.post(&join(&public), json!({ "user_id": "bert" })).await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}
