use http::Method;
use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn a_password_changes_with_the_old_one() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let other = server.client().log_in("alice", "password of alice", json!({})).await.ok();
    let other = server.client().logged_in(&other);
    let change = json!({ "new_password": "another password" });
    assert_eq!(server.client().post("/account/password", change.clone()).await.error(), (401, "M_MISSING_TOKEN"));
    let offered = alice.post("/account/password", change.clone()).await;
    assert_eq!((offered.status.as_u16(), &offered["flows"]), (401, &json!([{ "stages": ["m.login.password"] }])));

    let with = |mut auth: serde_json::Value, session: &serde_json::Value| {
        auth["session"] = session.clone();
        json!({ "new_password": "another password", "auth": auth })
    };
    let wrong = with(alice.password_auth("wrong"), &offered["session"]);
    let wrong = alice.post("/account/password", wrong).await;
    assert_eq!((wrong.error(), &wrong["session"]), ((401, "M_FORBIDDEN"), &offered["session"]));
    let bob = server.user("bob").await;
    let stranger = with(bob.password_auth("password of bob"), &offered["session"]);
    assert_eq!(alice.post("/account/password", stranger).await.error(), (403, "M_FORBIDDEN"));
    let weak = json!({ "new_password": "weak", "auth": alice.password_auth("password of alice") });
    assert_eq!(alice.post("/account/password", weak).await.error(), (400, "M_WEAK_PASSWORD"));

    let right = with(alice.password_auth("password of alice"), &offered["session"]);
    alice.post("/account/password", right).await.ok();
    alice.get("/account/whoami").await.ok();
    assert_eq!(other.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    let login = async |password| server.client().log_in("alice", password, json!({})).await;
    assert_eq!(login("password of alice").await.error(), (403, "M_FORBIDDEN"));
    let other = server.client().logged_in(&login("another password").await.ok());

    let keep = json!({
        "new_password": "a third password", "logout_devices": false, "auth": alice.password_auth("another password"),
    });
    alice.post("/account/password", keep).await.ok();
    other.get("/account/whoami").await.ok();
    server.finish().await;
}

#[tokio::test]
async fn an_authentication_is_for_one_request_and_may_be_repeated() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let change = |password: &str, auth| json!({ "new_password": password, "auth": auth });
    let offered = alice.post("/account/password", json!({ "new_password": "another password" })).await;
    let session = &offered["session"];
    let mut auth = alice.password_auth("password of alice");
    auth["session"] = session.clone();
    alice.post("/account/password", change("another password", auth)).await.ok();
    // Its reply may have been lost.
    alice.post("/account/password", change("another password", json!({ "session": session }))).await.ok();
    let other = alice.post("/account/password", change("something else", json!({ "session": session }))).await;
    assert_eq!(other.status, 401);
    assert_ne!(&other["session"], session);
    let elsewhere = alice.post("/account/deactivate", json!({ "auth": { "session": session } })).await;
    assert_eq!(elsewhere.status, 401);
    server.finish().await;
}

#[tokio::test]
async fn a_password_without_a_name_is_that_of_the_token() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    server.user("bob").await;
    let auth = |password: &str| json!({ "type": "m.login.password", "password": password });
    let change = |auth: serde_json::Value| json!({ "new_password": "password of alice", "auth": auth });
    alice.post("/account/password", change(auth("password of alice"))).await.ok();
    let wrong = alice.post("/account/password", change(auth("password of bob"))).await;
    assert_eq!(wrong.error(), (401, "M_FORBIDDEN"));
    // As older clients name the user.
    let named = |user: &str| json!({ "type": "m.login.password", "user": user, "password": "password of alice" });
    alice.post("/account/password", change(named("alice"))).await.ok();
    assert_eq!(alice.post("/account/password", change(named("bob"))).await.error(), (403, "M_FORBIDDEN"));
    let other = alice.on_device("OTHER").await;
    let body = json!({ "auth": auth("password of alice") });
    alice.request(Method::DELETE, "/devices/OTHER").json(&body).send().await.unwrap().error_for_status().unwrap();
    assert_eq!(other.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    alice.post("/account/deactivate", body).await.ok();
    server.finish().await;
}

#[tokio::test]
async fn whoever_deactivates_their_account_leaves_nothing_open() {
    for erase in [false, true] {
        let server = TestServer::start().await;
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let profile = format!("/profile/{}/displayname", alice.user);
        alice.put(&profile, json!({ "displayname": "Alice" })).await.ok();
        let key = |id: &str| json!({ "key": format!("{id:0>43}"), "signatures": { alice.user.clone(): { "ed25519:D": "c2ln" } } });
        let keys = json!({ "one_time_keys": { "signed_curve25519:A": key("A"), "signed_curve25519:B": key("B") } });
        alice.post("/keys/upload", keys).await.ok();
        let claim = json!({ "one_time_keys": { alice.user.clone(): { alice.device.clone(): "signed_curve25519" } } });
        let claimed = async || bob.post("/keys/claim", claim.clone()).await.ok()["one_time_keys"].clone();
        assert_ne!(claimed().await, json!({}));
        let knock = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
        let [joined, invited, knocked, banned] = [
            alice.room_with(&[&bob]).await,
            bob.create(json!({ "invite": [alice.user] })).await,
            bob.create(json!({ "initial_state": knock })).await,
            bob.create(json!({ "preset": "public_chat" })).await,
        ];
        alice.post(&format!("/knock/{knocked}"), json!({})).await.ok();
        alice.join(&banned).await;
        bob.post(&format!("/rooms/{banned}/ban"), json!({ "user_id": alice.user })).await.ok();
        let other = alice.on_device("OTHER").await;

        let body = json!({ "erase": erase, "auth": alice.password_auth("password of alice") });
        alice.post("/account/deactivate", body).await.ok();
        for (room, membership) in [(&joined, "leave"), (&invited, "leave"), (&knocked, "leave"), (&banned, "ban")] {
            let member = bob.get(&format!("/rooms/{room}/state/m.room.member/{}", alice.user)).await.ok();
            assert_eq!(member, json!({ "membership": membership }));
        }
        assert_eq!(other.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
        assert_eq!(claimed().await, json!({}));
        let invite = bob.post(&format!("/rooms/{joined}/invite"), json!({ "user_id": alice.user })).await;
        assert_eq!(invite.error(), (404, "M_NOT_FOUND"));
        let shown = bob.get(&profile).await;
        assert_eq!((erase, shown.status.as_u16()), if erase { (true, 404) } else { (false, 200) });
        server.finish().await;
    }
}

#[tokio::test]
async fn a_deactivated_account_is_over() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    assert_eq!(alice.post("/account/deactivate", json!({})).await.status, 401);
    let body = json!({ "erase": true, "auth": alice.password_auth("password of alice") });
    assert_eq!(alice.post("/account/deactivate", body).await.ok()["id_server_unbind_result"], "success");
    assert_eq!(alice.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    let login = server.client().log_in("alice", "password of alice", json!({})).await;
    assert_eq!(login.error(), (403, "M_USER_DEACTIVATED"));
    let again = server.client().get("/register/available?username=alice").await;
    assert_eq!(again.error(), (400, "M_USER_IN_USE"));
    server.finish().await;
}
