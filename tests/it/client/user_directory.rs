use serde_json::json;

use crate::common::{Client, TestServer};

/// The ids of the users found, and whether there are more.
async fn search(client: &Client, term: &str, limit: usize) -> (Vec<String>, bool) {
    let found = client.post("/user_directory/search", json!({ "search_term": term, "limit": limit })).await.ok();
    let results = found["results"].as_array().unwrap().iter();
    let ids = results.map(|user| user["user_id"].as_str().unwrap().to_owned()).collect();
    (ids, found["limited"].as_bool().unwrap())
}

#[tokio::test]
async fn users_are_found_by_name_where_they_can_be_seen() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let name = format!("/profile/{}/displayname", alice.user);
    alice.put(&name, json!({ "displayname": "Alice Cooper" })).await.ok();
    let none = (Vec::new(), false);
    assert_eq!(search(&bob, "alice", 10).await, none);

    let room = alice.create(json!({ "preset": "private_chat", "invite": [bob.user] })).await;
    bob.join(&room).await;
    let found = (vec![alice.user.clone()], false);
    for term in ["alice", "ALICE Cooper", "coop", "@alice", &alice.user, "alice :test.example"] {
        assert_eq!(search(&bob, term, 10).await, found, "{term}");
    }
    for term in ["", "@", "lice", "alice somebody", "example.org"] {
        assert_eq!(search(&bob, term, 10).await, none, "{term}");
    }
    assert_eq!(search(&carol, "alice", 10).await, none);
    assert_eq!(search(&alice, "alice", 10).await, none, "nobody looks for themselves");

    alice.create(json!({ "preset": "public_chat" })).await;
    assert_eq!(search(&carol, "alice", 10).await, found);
    assert_eq!(search(&carol, "alice", 0).await, (Vec::new(), true));
    let shown = carol.post("/user_directory/search", json!({ "search_term": "cooper" })).await.ok();
    assert_eq!(shown["results"], json!([{ "user_id": alice.user, "display_name": "Alice Cooper" }]));
    server.finish().await;
}
