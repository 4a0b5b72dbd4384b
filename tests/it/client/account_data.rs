use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn account_data_is_kept_for_its_user_alone() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let global = format!("/user/{}/account_data/org.example.a", alice.user);
    let of_room = format!("/user/{}/rooms/!room:test.example/account_data/org.example.a", alice.user);
    assert_eq!(alice.get(&global).await.error(), (404, "M_NOT_FOUND"));
    alice.put(&global, json!({ "n": 1 })).await.ok();
    alice.put(&of_room, json!({ "n": 2.5, "deep": [{}] })).await.ok();
    alice.put(&global, json!({ "n": 3 })).await.ok();
    assert_eq!(alice.get(&global).await.ok(), json!({ "n": 3 }));
    assert_eq!(alice.get(&of_room).await.ok(), json!({ "n": 2.5, "deep": [{}] }));

    assert_eq!(bob.get(&global).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.put(&of_room, json!({})).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(server.client().get(&global).await.error(), (401, "M_MISSING_TOKEN"));

    let before = server.app().view().unwrap().lsn();
    alice.put(&global, json!({ "n": 3 })).await.ok();
    assert_eq!(server.app().view().unwrap().lsn(), before, "what is so already is not recorded again");
    server.finish().await;
}

#[tokio::test]
async fn account_data_is_an_object_and_not_the_servers() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let path = |of: &str| format!("/user/{}{of}", alice.user);
    assert_eq!(alice.put(&path("/account_data/a"), json!([1])).await.error(), (400, "M_BAD_JSON"));
    let broken = alice.send_raw(http::Method::PUT, &path("/account_data/a"), "{nonsense").await;
    assert_eq!(broken.error(), (400, "M_NOT_JSON"));
    let bad_room = alice.put(&path("/rooms/@no:room/account_data/a"), json!({})).await;
    assert_eq!(bad_room.error(), (400, "M_INVALID_PARAM"));
    let long = "x".repeat(256);
    let too_long = alice.put(&path(&format!("/account_data/{long}")), json!({})).await;
    assert_eq!(too_long.error(), (400, "M_INVALID_PARAM"));
    for servers in ["m.push_rules", "m.fully_read"] {
        for of in ["", "/rooms/!room:test.example"] {
            let refused = alice.put(&path(&format!("{of}/account_data/{servers}")), json!({})).await;
            assert_eq!(refused.error(), (405, "M_BAD_JSON"), "{of} {servers}");
        }
    }
    let rules = alice.get(&path("/account_data/m.push_rules")).await.ok();
    assert!(rules["global"]["override"].is_array(), "{rules}");
    server.finish().await;
}

#[tokio::test]
async fn rooms_are_tagged() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let tags = format!("/user/{}/rooms/!room:test.example/tags", alice.user);
    let tag = |name: &str| format!("/user/{}/rooms/!room:test.example/tags/{name}", alice.user);
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": {} }));
    alice.put(&tag("m.favourite"), json!({ "order": 0.5, "org.example.more": true })).await.ok();
    alice.put(&tag("u.work"), json!({})).await.ok();
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": { "m.favourite": { "order": 0.5 }, "u.work": {} } }));
    let content = alice.get(&format!("/user/{}/rooms/!room:test.example/account_data/m.tag", alice.user)).await.ok();
    assert_eq!(content["tags"]["m.favourite"], json!({ "order": 0.5, "org.example.more": true }));

    alice.delete(&tag("u.work")).await.ok();
    alice.delete(&tag("u.work")).await.ok();
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": { "m.favourite": { "order": 0.5 } } }));
    assert_eq!(bob.get(&tags).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.put(&tag("u.x"), json!([0.5])).await.error(), (400, "M_BAD_JSON"));
    let long = "u".repeat(256);
    assert_eq!(alice.put(&tag(&long), json!({})).await.error(), (400, "M_INVALID_PARAM"));

    // What a client wrote there itself does no harm.
    let own = format!("/user/{}/rooms/!room:test.example/account_data/m.tag", alice.user);
    alice.put(&own, json!({ "tags": { "u.odd": 7 } })).await.ok();
    assert_eq!(alice.get(&tags).await.ok(), json!({ "tags": { "u.odd": {} } }));
    server.finish().await;
}

#[tokio::test]
async fn equal_filters_are_kept_once() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let filters = format!("/user/{}/filter", alice.user);
    let filter = json!({ "room": { "timeline": { "limit": 7 } }, "event_fields": ["type"] });
    let id = alice.post(&filters, filter.clone()).await.ok()["filter_id"].as_str().unwrap().to_owned();
    let before = server.app().view().unwrap().lsn();
    assert_eq!(alice.post(&filters, filter.clone()).await.ok()["filter_id"], id);
    assert_eq!(server.app().view().unwrap().lsn(), before);
    assert_ne!(alice.post(&filters, json!({})).await.ok()["filter_id"], id);
    assert_eq!(alice.get(&format!("{filters}/{id}")).await.ok(), filter);

    assert_eq!(alice.get(&format!("{filters}/nonsense")).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(bob.get(&format!("{filters}/{id}")).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(bob.get(&format!("/user/{}/filter/{id}", bob.user)).await.error(), (404, "M_NOT_FOUND"));
    let wrong = json!({ "room": { "timeline": { "limit": "many" } } });
    assert_eq!(alice.post(&filters, wrong).await.error(), (400, "M_BAD_JSON"));
    server.finish().await;
}
