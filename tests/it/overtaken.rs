//! What a decision rests on may be another by the time its record is on the log: then it is void, and decided again, with
//! what is so by now. A test for each guard.

use everfold::commands::{Error, accounts};
use schemas::{
    Key, Origin, Tag,
    facts::{AccountStatusSet, RegistrationTokenSet, RoomBlocked, UserKind},
};
use serde_json::{Value, json};

use crate::common::{Client, Nodes, Reply, SigningKey, TestServer};

fn auth(user: &Client, name: &str) -> Value {
    json!({ "auth": user.password_auth(&format!("password of {name}")) })
}

#[tokio::test]
async fn who_leaves_the_allowing_room_does_not_get_in() {
    let nodes = Nodes::start().await;
    let carol = nodes.first.user("carol").await;
    carol.join(&nodes.room).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": nodes.room }]);
    let rules = json!({ "join_rule": "restricted", "allow": allow });
    let rules = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rules }]);
    let room = nodes.alice.create(json!({ "initial_state": rules })).await;
    let elsewhere = nodes.on_second(&carol).await;
    let join = format!("/rooms/{room}/join");
    let refused = nodes.overtake(carol.post(&join, json!({})), elsewhere.leave(&nodes.room)).await;
    assert_eq!(refused.error(), (403, "M_FORBIDDEN"));
    carol.join(&nodes.room).await;
    carol.join(&room).await;
    nodes.finish().await;
}

#[tokio::test]
async fn who_has_gone_is_not_invited() {
    let nodes = Nodes::start().await;
    let bob = nodes.first.user("bob").await;
    let elsewhere = nodes.on_second(&bob).await;
    let invite = json!({ "user_id": bob.user });
    let gone = async { drop(elsewhere.post("/account/deactivate", auth(&bob, "bob")).await.ok()) };
    let path = format!("/rooms/{}/invite", nodes.room);
    let refused = nodes.overtake(nodes.alice.post(&path, invite), gone).await;
    assert_eq!(refused.error(), (404, "M_NOT_FOUND"));
    nodes.finish().await;
}

#[tokio::test]
async fn a_room_that_is_blocked_in_between_takes_nothing() {
    let nodes = Nodes::start().await;
    let (bob, room) = (nodes.first.user("bob").await, &nodes.room);
    let alias = "/directory/room/%23new:test.example";
    let block = async |blocked: bool| {
        let fact = RoomBlocked { room: room.clone(), blocked, reason: None };
        nodes.on_second(&bob).await;
        nodes.second.record_writing(&[Key::new(Tag::RoomAdmin, room)], [fact.into()]).await;
    };
    let requests = [
        (&bob, format!("/rooms/{room}/join"), json!({})),
        (&nodes.alice, format!("/rooms/{room}/invite"), json!({ "user_id": bob.user })),
        (&nodes.alice, format!("/rooms/{room}/send/m.room.message/1"), json!({ "body": "Hi", "msgtype": "m.text" })),
        (&nodes.alice, format!("/rooms/{room}/state/m.room.topic/"), json!({ "topic": "new" })),
        (&nodes.alice, alias.to_owned(), json!({ "room_id": room })),
    ];
    for (who, path, body) in requests {
        let request = async {
            if path.ends_with("join") || path.ends_with("invite") {
                who.post(&path, body).await
            } else {
                who.put(&path, body).await
            }
        };
        let refused = nodes.overtake(request, block(true)).await;
        assert_eq!(refused.error(), (403, "M_FORBIDDEN"), "{path}");
        block(false).await;
    }
    bob.join(room).await;
    nodes.finish().await;
}

#[tokio::test]
async fn an_account_that_changes_in_between_counts_as_it_is() {
    let nodes = Nodes::start().await;
    let bob = nodes.first.user("bob").await;
    bob.join(&nodes.room).await;
    let elsewhere = nodes.on_second(&bob).await;
    let set = async |locked: bool, suspended: bool| {
        let fact = AccountStatusSet { user: bob.user.clone(), locked, suspended };
        nodes.second.record_writing(&[Key::new(Tag::UserStatus, &bob.user)], [fact.into()]).await;
    };
    let data = format!("/user/{}/account_data/org.example", bob.user);
    let say = |n: u8| format!("/rooms/{}/send/m.room.message/{n}", nodes.room);
    let hello = || json!({ "body": "Hi", "msgtype": "m.text" });

    let refused = nodes.overtake(bob.put(&data, json!({})), set(true, false)).await;
    assert_eq!(refused.error(), (401, "M_USER_LOCKED"));
    set(false, false).await;
    nodes.on_second(&bob).await;
    let refused = nodes.overtake(bob.put(&say(1), hello()), set(true, false)).await;
    assert_eq!(refused.error(), (401, "M_USER_LOCKED"));
    set(false, false).await;
    let refused = nodes.overtake(bob.put(&say(2), hello()), set(false, true)).await;
    assert_eq!(refused.error(), (403, "M_USER_SUSPENDED"));
    set(false, false).await;
    // What is said of the account rests on it, and holds if that is as before.
    nodes.overtake(bob.put(&data, json!({ "n": 1 })), set(false, false)).await.ok();
    let gone = async { drop(elsewhere.post("/account/deactivate", auth(&bob, "bob")).await.ok()) };
    let refused = nodes.overtake(bob.put(&say(3), hello()), gone).await;
    assert_eq!(refused.error(), (401, "M_UNKNOWN_TOKEN"));
    nodes.finish().await;
}

#[tokio::test]
async fn a_device_that_is_logged_out_in_between_writes_nothing() {
    let nodes = Nodes::start().await;
    let elsewhere = nodes.on_second(&nodes.alice).await;
    let data = format!("/user/{}/account_data/org.example", nodes.alice.user);
    let log_out = async { drop(elsewhere.post("/logout", json!({})).await.ok()) };
    let refused = nodes.overtake(nodes.alice.put(&data, json!({})), log_out).await;
    assert_eq!(refused.error(), (401, "M_UNKNOWN_TOKEN"));
    nodes.finish().await;
}

#[tokio::test]
async fn of_two_that_use_a_refresh_token_the_later_goes_on() {
    let nodes = Nodes::start().await;
    let extra = json!({ "refresh_token": true });
    let login = nodes.alice.log_in("alice", "password of alice", extra).await.ok();
    let refresh = json!({ "refresh_token": login["refresh_token"] });
    nodes.on_second(&nodes.alice).await;
    let (here, there) = (nodes.first.client(), nodes.second.client());
    let other = async { drop(there.post("/refresh", refresh.clone()).await.ok()) };
    let late = nodes.overtake(here.post("/refresh", refresh.clone()), other).await;
    // The same token again before its successor was used is a client that has not got the answer: it may.
    let next = json!({ "refresh_token": late.ok()["refresh_token"] });
    // Of the two successors the later counts.
    here.post("/refresh", next).await.ok();
    assert_eq!(here.post("/refresh", refresh).await.error(), (401, "M_UNKNOWN_TOKEN"));
    nodes.finish().await;
}

/// Registers with a registration token that is good once.
async fn register(server: &TestServer, name: &str) -> Result<(), Error> {
    let account = accounts::NewAccount {
        user: format!("@{name}:test.example").try_into().unwrap(),
        password: None,
        admin: false,
        kind: UserKind::Regular,
        registration_token: Some("once".into()),
        display_name: None,
        user_type: None,
        expires_at_ms: None,
    };
    accounts::register(&server.app().commands, Origin::Server, account, None).await
}

#[tokio::test]
async fn a_registration_token_is_used_as_often_as_it_may() {
    let nodes = Nodes::start().await;
    let token = RegistrationTokenSet { token: "once".into(), uses_allowed: Some(1), expires_at_ms: None };
    nodes.first.record_writing(&[Key::new(Tag::RegistrationToken, "once")], [token.into()]).await;
    nodes.on_second(&nodes.alice).await;
    let other = async { register(&nodes.second, "emil").await.unwrap() };
    let late = nodes.overtake(register(&nodes.first, "dora"), other).await;
    assert!(matches!(&late, Err(Error::Refused(refusal)) if refusal.kind.errcode().as_str() == "M_FORBIDDEN"));
    nodes.finish().await;
}

#[tokio::test]
async fn a_user_name_is_taken_by_who_is_first_on_the_log() {
    let nodes = Nodes::start().await;
    let register = async |server: &TestServer, name: &str| -> Reply {
        let auth = json!({ "type": "m.login.dummy" });
        server.client().post("/register", json!({ "username": name, "password": "a password", "auth": auth })).await
    };
    let other = async { drop(register(&nodes.second, "DORA").await.ok()) };
    let late = nodes.overtake(register(&nodes.first, "dora"), other).await;
    assert_eq!(late.error(), (400, "M_USER_IN_USE"));
    nodes.finish().await;
}

#[tokio::test]
async fn cross_signing_keys_that_came_in_between_are_not_replaced_unasked() {
    let nodes = Nodes::start().await;
    let elsewhere = nodes.on_second(&nodes.alice).await;
    let path = "/keys/device_signing/upload";
    let keys = || json!({ "master_key": SigningKey::of_user().cross_signing_key(&nodes.alice.user, "master") });
    let (first, second) = (keys(), keys());
    let other = async { drop(elsewhere.post(path, second.clone()).await.ok()) };
    let late = nodes.overtake(nodes.alice.post(path, first), other).await;
    // Refused; and where the nodes know of each other by now, carried out again, and so asked to confirm.
    assert!(late.status == 403 || late.status == 401 && late["flows"].is_array(), "{}", late.text);
    let query = json!({ "device_keys": { nodes.alice.user.clone(): [] } });
    let shown = nodes.alice.post("/keys/query", query).await.ok();
    assert_eq!(shown["master_keys"][&nodes.alice.user], second["master_key"]);
    nodes.finish().await;
}
