use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn fields_are_set_read_and_deleted() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let profile = format!("/profile/{}", alice.user);

    alice.put(&format!("{profile}/displayname"), json!({ "displayname": "Alice" })).await.ok();
    alice.put(&format!("{profile}/m.tz"), json!({ "m.tz": "Europe/London" })).await.ok();
    let pronouns = json!({ "com.example.pronouns": [{ "subject": "she" }] });
    alice.put(&format!("{profile}/com.example.pronouns"), pronouns.clone()).await.ok();

    // Anybody may read them.
    let anybody = server.client();
    assert_eq!(anybody.get(&format!("{profile}/displayname")).await.ok(), json!({ "displayname": "Alice" }));
    assert_eq!(bob.get(&format!("{profile}/com.example.pronouns")).await.ok(), pronouns);
    let whole = anybody.get(&profile).await.ok();
    assert_eq!((&whole["displayname"], &whole["m.tz"]), (&json!("Alice"), &json!("Europe/London")));

    // Only the user may change them.
    let set = bob.put(&format!("{profile}/displayname"), json!({ "displayname": "Mallory" })).await;
    assert_eq!(set.error(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.delete(&format!("{profile}/displayname")).await.error(), (403, "M_FORBIDDEN"));

    alice.delete(&format!("{profile}/displayname")).await.ok();
    alice.delete(&format!("{profile}/displayname")).await.ok();
    assert_eq!(anybody.get(&format!("{profile}/displayname")).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(anybody.get("/profile/@nobody:test.example").await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(anybody.get("/profile/nobody").await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}

#[tokio::test]
async fn an_empty_name_or_avatar_is_none() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let path = format!("/profile/{}/avatar_url", alice.user);
    alice.put(&path, json!({ "avatar_url": "mxc://test.example/abc" })).await.ok();
    assert_eq!(alice.get(&path).await.ok()["avatar_url"], "mxc://test.example/abc");
    alice.put(&path, json!({ "avatar_url": "" })).await.ok();
    assert_eq!(alice.get(&path).await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn profiles_and_their_fields_have_limits() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let set = async |field: &str, value: serde_json::Value| {
        let reply = alice.put(&format!("/profile/{}/{field}", alice.user), json!({ field: value })).await;
        if reply.status == 200 { "ok".to_owned() } else { format!("{:?}", reply.error()) }
    };
    let long = format!("com.{}", "x".repeat(252));
    assert_eq!(set(&long, json!("x")).await, r#"(400, "M_KEY_TOO_LARGE")"#);
    assert_eq!(set("pronouns", json!("x")).await, r#"(400, "M_INVALID_PARAM")"#);
    assert_eq!(set("displayname", json!("x".repeat(257))).await, r#"(400, "M_INVALID_PARAM")"#);
    assert_eq!(set("displayname", json!(7)).await, r#"(400, "M_BAD_JSON")"#);
    assert_eq!(set("com.example.one", json!("x".repeat(40_000))).await, "ok");
    assert_eq!(set("com.example.two", json!("x".repeat(40_000))).await, r#"(400, "M_PROFILE_TOO_LARGE")"#);
    // It counts once, however often it is replaced.
    assert_eq!(set("com.example.one", json!("y".repeat(60_000))).await, "ok");
    assert_eq!(set("com.example.one", json!(null)).await, "ok");
    let path = format!("/profile/{}/displayname", alice.user);
    assert_eq!(alice.put(&path, json!({ "name": "x" })).await.error(), (400, "M_MISSING_PARAM"));
    alice.put(&path, json!({ "more": 1, "displayname": "x", "less": {} })).await.ok();
    assert_eq!(alice.get(&path).await.ok(), json!({ "displayname": "x" }));
    server.finish().await;
}

#[tokio::test]
async fn what_is_so_already_is_not_recorded_again() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let path = format!("/profile/{}/displayname", alice.user);
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    let before = server.app().view().unwrap().lsn();
    alice.put(&path, json!({ "displayname": "Alice" })).await.ok();
    assert_eq!(server.app().view().unwrap().lsn(), before);
    server.finish().await;
}

#[tokio::test]
async fn rooms_learn_of_a_new_name_and_avatar() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut rooms = Vec::new();
    for _ in 0..3 {
        rooms.push(alice.create(json!({})).await);
    }
    let member = async |room: &str| {
        let mut sync = alice.get("/sync").await.ok();
        let events = sync["rooms"]["join"][room]["timeline"]["events"].take();
        let last = events.as_array().unwrap().iter().rfind(|event| event["state_key"] == alice.user.as_str());
        last.unwrap()["content"].clone()
    };
    let profile = format!("/profile/{}", alice.user);
    alice.put(&format!("{profile}/displayname"), json!({ "displayname": "Alice" })).await.ok();
    alice.put(&format!("{profile}/avatar_url"), json!({ "avatar_url": "mxc://test.example/a" })).await.ok();
    let before = server.app().view().unwrap().lsn();
    alice.put(&format!("{profile}/m.tz"), json!({ "m.tz": "Europe/London" })).await.ok();
    assert_eq!(server.app().view().unwrap().lsn(), before.next(), "other fields are no matter of rooms");
    let shown = json!({ "membership": "join", "displayname": "Alice", "avatar_url": "mxc://test.example/a" });
    for room in &rooms {
        assert_eq!(member(room).await, shown);
    }
    alice.delete(&format!("{profile}/avatar_url")).await.ok();
    assert_eq!(member(&rooms[0]).await, json!({ "membership": "join", "displayname": "Alice" }));
    server.finish().await;
}
