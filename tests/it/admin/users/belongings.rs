use serde_json::{Value, json};

use crate::common::{Client, TestServer};

async fn of(admin: &Client, user: &Client, what: &str) -> Value {
    admin.get(&format!("/_synapse/admin/v1/users/{}/{what}", user.user)).await.ok()
}

#[tokio::test]
async fn rooms_memberships_and_account_data_are_shown() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let one = anna.room_with(&[&bert]).await;
    let two = bert.create(json!({ "invite": [anna.user] })).await;
    let left = anna.create(json!({})).await;
    anna.leave(&left).await;
    assert_eq!(of(&admin, &anna, "joined_rooms").await, json!({ "joined_rooms": [one], "total": 1 }));
    let expected = json!({ "memberships": { one.clone(): "join", two: "invite", left: "leave" } });
    assert_eq!(of(&admin, &anna, "memberships").await, expected);
    let elsewhere = "/_synapse/admin/v1/users/@x:other.example/joined_rooms";
    assert_eq!(admin.get(elsewhere).await.ok()["total"], 0);

    anna.put(&format!("/user/{}/account_data/org.a", anna.user), json!({ "a": 1 })).await.ok();
    anna.put(&format!("/user/{}/rooms/{one}/account_data/org.b", anna.user), json!({ "b": 2 })).await.ok();
    let data = json!({ "global": { "org.a": { "a": 1 } }, "rooms": { one: { "org.b": { "b": 2 } } } });
    assert_eq!(of(&admin, &anna, "accountdata").await, json!({ "account_data": data }));
    for what in ["accountdata", "pushers"] {
        let at = |user: &str| format!("/_synapse/admin/v1/users/{user}/{what}");
        assert_eq!(admin.get(&at("@nobody:test.example")).await.error(), (404, "M_NOT_FOUND"));
        assert_eq!(admin.get(&at("@x:other.example")).await.error(), (400, "M_UNKNOWN"));
    }
    server.finish().await;
}

#[tokio::test]
async fn invitations_and_joins_are_counted() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.create(json!({ "preset": "public_chat", "invite": [bert.user] })).await;
    bert.join(&room).await;
    bert.leave(&room).await;
    anna.invite(&room, &bert).await;
    let sent = |since: u64| format!("sent_invite_count?from_ts={since}");
    let joined = |since: u64| format!("cumulative_joined_room_count?from_ts={since}");
    assert_eq!(of(&admin, &anna, &sent(0)).await, json!({ "invite_count": 2 }));
    assert_eq!(of(&admin, &bert, &sent(0)).await, json!({ "invite_count": 0 }));
    assert_eq!(of(&admin, &anna, &sent(u64::MAX)).await, json!({ "invite_count": 0 }));
    assert_eq!(of(&admin, &bert, &joined(0)).await, json!({ "cumulative_joined_room_count": 1 }));
    assert_eq!(of(&admin, &bert, &joined(u64::MAX)).await, json!({ "cumulative_joined_room_count": 0 }));
    for path in [
        "/_synapse/admin/v1/users/@anna:test.example/sent_invite_count",
        "/_synapse/admin/v1/users/@anna:test.example/cumulative_joined_room_count",
    ] {
        assert_eq!(admin.get(path).await.error(), (400, "M_MISSING_PARAM"));
        assert_eq!(admin.get(&format!("{path}?from_ts=x")).await.error(), (400, "M_INVALID_PARAM"));
    }
    server.finish().await;
}

fn pusher(key: &str, append: bool) -> Value {
    json!({
        "app_id": "org.example", "pushkey": key, "kind": "http", "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en", "data": { "url": "https://push.example/_matrix/push/v1/notify" },
        "append": append,
    })
}

#[tokio::test]
async fn pushers_are_set_and_end_with_their_device() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let phone = anna.on_device("PHONE").await;
    let keys = async |user: &Client| {
        let pushers = user.get("/pushers").await.ok()["pushers"].clone();
        pushers
            .as_array()
            .unwrap()
            .iter()
            .map(|pusher| pusher["pushkey"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    phone.post("/pushers/set", pusher("one", false)).await.ok();
    anna.post("/pushers/set", pusher("two", false)).await.ok();
    let mut both = keys(&anna).await;
    both.sort();
    assert_eq!(both, ["one", "two"]);
    let shown = of(&admin, &anna, "pushers").await;
    assert_eq!(shown["total"], 2);
    let mut said = pusher("one", false);
    said.as_object_mut().unwrap().remove("append");
    assert!(shown["pushers"].as_array().unwrap().contains(&said), "{shown}");

    // A key is one user's, unless it is to be several's.
    bert.post("/pushers/set", pusher("two", true)).await.ok();
    assert_eq!((keys(&anna).await.len(), keys(&bert).await.len()), (2, 1));
    bert.post("/pushers/set", pusher("two", false)).await.ok();
    assert_eq!((keys(&anna).await, keys(&bert).await), (vec!["one".to_owned()], vec!["two".to_owned()]));
    phone.post("/logout", json!({})).await.ok();
    assert!(keys(&anna).await.is_empty());
    let gone = json!({ "app_id": "org.example", "pushkey": "two", "kind": null });
    bert.post("/pushers/set", gone.clone()).await.ok();
    bert.post("/pushers/set", gone).await.ok();
    assert!(keys(&bert).await.is_empty());
    assert_eq!(bert.post("/pushers/set", pusher(&"x".repeat(513), false)).await.error(), (400, "M_INVALID_PARAM"));
    assert_eq!(bert.post("/pushers/set", json!({ "kind": "http" })).await.error().0, 400);
    let server = server.restart().await;
    server.finish().await;
}
