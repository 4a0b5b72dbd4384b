use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn anybody_may_know_the_version() {
    let server = TestServer::start().await;
    let reply = server.client().get("/_synapse/admin/v1/server_version").await.ok();
    assert_eq!(reply["server_version"], concat!("Everfold ", env!("CARGO_PKG_VERSION")));
    server.finish().await;
}

#[tokio::test]
async fn administrators_ask_whether_a_name_is_free() {
    // Whoever may register.
    let server = TestServer::with(&[("registration.mode", "closed")]).await;
    let admin = server.admin("root").await;
    let ask = async |name: &str| admin.get(&format!("/_synapse/admin/v1/username_available?username={name}")).await;
    assert_eq!(ask("anna").await.ok(), json!({ "available": true }));
    assert_eq!(ask("root").await.error(), (400, "M_USER_IN_USE"));
    for wrong in ["Anna", "a%20b", "%C3%A4", "", "_bridge", "@anna:test.example"] {
        assert_eq!(ask(wrong).await.error(), (400, "M_INVALID_USERNAME"), "{wrong}");
    }
    let none = admin.get("/_synapse/admin/v1/username_available").await;
    assert_eq!(
        (none.error(), &none["error"]),
        ((400, "M_MISSING_PARAM"), &json!("Missing string query parameter username"))
    );
    server.finish().await;
}

#[tokio::test]
async fn nobody_has_uploaded_media() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let ask = async |query: &str| admin.get(&format!("/_synapse/admin/v1/statistics/users/media?{query}")).await;
    for query in ["", "order_by=media_count&dir=b&from=5&limit=0", "from_ts=1&until_ts=2&search_term=a"] {
        assert_eq!(ask(query).await.ok(), json!({ "users": [], "total": 0 }), "{query}");
    }
    for (query, message) in [
        (
            "order_by=name",
            "Query parameter 'order_by' must be one of ['media_length', 'media_count', 'user_id', 'displayname']",
        ),
        ("from=-1", "Query parameter from must be a positive integer."),
        ("limit=x", "Query parameter limit must be an integer"),
        ("from_ts=2&until_ts=2", "Query parameter until_ts must be greater than from_ts."),
        ("search_term=", "Query parameter search_term cannot be an empty string."),
        ("dir=x", "Query parameter 'dir' must be one of ['f', 'b']"),
    ] {
        let reply = ask(query).await;
        assert_eq!((reply.error(), &reply["error"]), ((400, "M_INVALID_PARAM"), &json!(message)));
    }
    server.finish().await;
}

#[tokio::test]
async fn the_largest_rooms_are_told() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let ask = async || admin.get("/_synapse/admin/v1/statistics/database/rooms").await.ok();
    assert_eq!(ask().await, json!({ "rooms": [] }));
    let mut rooms = Vec::new();
    for n in 0..12 {
        let room = anna.create(json!({})).await;
        for topic in 0..n {
            anna.set(&room, "m.room.topic", "", json!({ "topic": topic.to_string() })).await;
        }
        rooms.insert(0, room);
    }
    let told = ask().await;
    let told: Vec<_> = told["rooms"].as_array().unwrap().iter().map(|room| &room["room_id"]).collect();
    assert_eq!(told, rooms[..10].iter().collect::<Vec<_>>());
    let largest = &ask().await["rooms"][0]["estimated_size"];
    assert!((10_000..200_000).contains(&largest.as_u64().unwrap()), "{largest}");
    server.finish().await;
}
