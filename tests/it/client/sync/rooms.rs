use serde_json::{Value, json};

use super::{content, events, filtered, first, next, places};
use crate::common::{
    Client, TestServer,
    rooms::{bodies, text},
};

fn membership<'a>(section: &'a Value, user: &Client) -> &'a Value {
    let own = events(section).filter(|event| event["type"] == "m.room.member" && event["state_key"] == user.user);
    own.last().map_or(&Value::Null, |event| &event["content"]["membership"])
}

#[tokio::test]
async fn who_joins_gets_the_whole_room() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "preset": "public_chat", "name": "A name" })).await;
    for n in 0..12 {
        alice.say(&room, &n.to_string()).await;
    }
    let before = first(&bob).await;
    assert_eq!(before["rooms"], Value::Null);
    bob.join(&room).await;
    let sync = next(&bob, &before).await;
    let joined = &sync["rooms"]["join"][&room];
    assert_eq!(joined["timeline"]["limited"], true);
    assert_eq!(bodies(&joined["timeline"]["events"]).len(), 9);
    assert_eq!(membership(&joined["timeline"], &bob), "join");
    assert_eq!(content(&joined["state"], "m.room.name")["name"], "A name");
    assert_eq!(joined["summary"]["m.joined_member_count"], 2);

    // Away and back again: what happened meanwhile is there, and the timeline doesn't join on to what was before.
    bob.leave(&room).await;
    let left = next(&bob, &sync).await;
    alice.set(&room, "m.room.name", "", json!({ "name": "Another" })).await;
    bob.join(&room).await;
    let back = next(&bob, &left).await;
    let joined = &back["rooms"]["join"][&room];
    assert_eq!(joined["timeline"]["limited"], true);
    assert_eq!(content(&joined["timeline"], "m.room.name")["name"], "Another");
    assert!(places(&joined["state"]).contains(&"m.room.create ".to_owned()));
    // The same to a client that saw nothing of the leaving.
    let at_once = next(&bob, &sync).await;
    assert_eq!(at_once["rooms"]["join"][&room]["timeline"]["limited"], true);
    assert_eq!(at_once["rooms"]["leave"], Value::Null);
    server.finish().await;
}

#[tokio::test]
async fn who_leaves_sees_how_it_ended() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let before = first(&bob).await;
    alice.say(&room, "seen").await;
    alice.set(&room, "m.room.name", "", json!({ "name": "seen" })).await;
    let path = format!("/rooms/{room}/kick");
    alice.post(&path, json!({ "user_id": bob.user, "reason": "enough" })).await.ok();
    alice.say(&room, "unseen").await;
    alice.set(&room, "m.room.name", "", json!({ "name": "unseen" })).await;

    let sync = next(&bob, &before).await;
    assert_eq!(sync["rooms"]["join"], Value::Null);
    let left = &sync["rooms"]["leave"][&room];
    assert_eq!(bodies(&left["timeline"]["events"]), ["seen"]);
    assert_eq!(content(&left["timeline"], "m.room.name")["name"], "seen");
    assert_eq!(content(&left["timeline"], "m.room.member")["reason"], "enough");
    assert_eq!(next(&bob, &sync).await["rooms"], Value::Null, "it is told once");
    assert_eq!(first(&bob).await["rooms"], Value::Null, "who begins anew has not to see it");

    let with_left = json!({ "room": { "include_leave": true } });
    let left = filtered(&bob, &with_left).await["rooms"]["leave"][&room].clone();
    assert_eq!(bodies(&left["timeline"]["events"]), ["seen"]);
    assert_eq!(membership(&left["timeline"], &bob), "leave");

    // A ban of somebody who is gone shows nothing of what happened since.
    alice.post(&format!("/rooms/{room}/ban"), json!({ "user_id": bob.user })).await.ok();
    let banned = next(&bob, &sync).await["rooms"]["leave"][&room].clone();
    assert_eq!(membership(&banned["timeline"], &bob), "ban");
    assert_eq!((events(&banned["timeline"]).count(), events(&banned["state"]).count()), (1, 0), "{banned}");
    let whole = filtered(&bob, &with_left).await["rooms"]["leave"][&room].clone();
    assert!(!whole.to_string().contains("unseen"), "{whole}");

    bob.post(&format!("/rooms/{room}/forget"), json!({})).await.ok();
    assert_eq!(filtered(&bob, &with_left).await["rooms"], Value::Null);
    server.finish().await;
}

#[tokio::test]
async fn who_came_and_went_between_two_syncs_sees_both() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "preset": "public_chat", "name": "A name" })).await;
    let before = first(&bob).await;
    for body in ["first", "second"] {
        bob.join(&room).await;
        alice.say(&room, body).await;
        bob.leave(&room).await;
    }
    alice.say(&room, "unseen").await;
    let sync = next(&bob, &before).await;
    let left = &sync["rooms"]["leave"][&room];
    assert_eq!(bodies(&left["timeline"]["events"]), ["first", "second"]);
    let all = [&left["state"], &left["timeline"]].map(|section| content(section, "m.room.name").clone());
    assert!(all.contains(&json!({ "name": "A name" })), "{left}");

    bob.join(&room).await;
    alice.say(&room, "third").await;
    bob.leave(&room).await;
    let sync = next(&bob, &sync).await;
    assert!(bodies(&sync["rooms"]["leave"][&room]["timeline"]["events"]).contains(&"third"));
    server.finish().await;
}

#[tokio::test]
async fn who_is_invited_sees_what_the_room_is_and_no_more() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let body = json!({ "preset": "private_chat", "name": "A name", "topic": "secret", "is_direct": true });
    let room = alice.create(body).await;
    let before = first(&bob).await;
    alice.set(&room, "m.room.pinned_events", "", json!({ "pinned": [] })).await;
    alice.invite(&room, &bob).await;
    let sync = next(&bob, &before).await;
    assert_eq!(sync, {
        let mut again = next(&bob, &before).await;
        again["next_batch"] = sync["next_batch"].clone();
        again
    });
    for sync in [&sync, &first(&bob).await] {
        let invited = &sync["rooms"]["invite"][&room]["invite_state"];
        let told = places(invited);
        for place in ["m.room.create ", "m.room.name ", "m.room.join_rules "] {
            assert!(told.contains(&place.to_owned()), "{place} {told:?}");
        }
        assert!(!told.contains(&"m.room.pinned_events ".to_owned()));
        for (user, expected) in [(&alice, "join"), (&bob, "invite")] {
            assert_eq!(membership(invited, user), expected);
        }
        for event in events(invited) {
            let keys: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
            assert!(keys.iter().all(|key| ["content", "sender", "state_key", "type"].contains(key)), "{keys:?}");
        }
    }

    // Who refuses is told nothing of the room.
    alice.set(&room, "m.room.topic", "", json!({ "topic": "more secret" })).await;
    bob.leave(&room).await;
    let refused = next(&bob, &sync).await["rooms"].clone();
    assert_eq!(refused["invite"], Value::Null);
    assert_eq!(membership(&refused["leave"][&room]["timeline"], &bob), "leave");
    assert!(!refused.to_string().contains("secret"), "{refused}");
    let whole = filtered(&bob, &json!({ "room": { "include_leave": true } })).await["rooms"].clone();
    assert!(!whole.to_string().contains("secret"), "{whole}");
    server.finish().await;
}

#[tokio::test]
async fn who_knocks_sees_what_they_knock_on() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let rules = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
    let room = alice.create(json!({ "name": "A name", "initial_state": rules })).await;
    let before = first(&bob).await;
    let reply = bob.post(&format!("/knock/{room}"), json!({ "reason": "please" })).await.ok();
    assert_eq!(text(&reply["room_id"]), room);
    let sync = next(&bob, &before).await;
    let knocked = &sync["rooms"]["knock"][&room]["knock_state"];
    assert_eq!(
        (membership(knocked, &bob), content(knocked, "m.room.name")),
        (&json!("knock"), &json!({ "name": "A name" }))
    );
    assert!(first(&bob).await["rooms"]["knock"][&room].is_object());

    alice.invite(&room, &bob).await;
    let sync = next(&bob, &sync).await;
    assert_eq!(sync["rooms"]["knock"], Value::Null);
    assert_eq!(membership(&sync["rooms"]["invite"][&room]["invite_state"], &bob), "invite");
    bob.join(&room).await;
    let sync = next(&bob, &sync).await;
    assert!(sync["rooms"]["join"][&room].is_object() && sync["rooms"]["invite"].is_null());
    server.finish().await;
}
