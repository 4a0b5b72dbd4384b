use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn versions_and_capabilities() {
    let server = TestServer::start().await;
    let versions = server.client().get("/_matrix/client/versions").await.ok();
    let announced = versions["versions"].as_array().unwrap();
    assert!(announced.contains(&"r0.6.1".into()) && announced.contains(&"v1.12".into()));
    assert!(!announced.contains(&"v1.13".into()), "it has reports of rooms, which are not served");
    // A token that is over must not keep a client from finding out what the server can do.
    server.client().with_token("over").get("/_matrix/client/versions").await.ok();
    assert_eq!(server.client().get("/capabilities").await.error(), (401, "M_MISSING_TOKEN"));
    assert_eq!(server.client().with_token("over").get("/capabilities").await.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(server.client().get("/capabilities?access_token=over").await.error(), (401, "M_UNKNOWN_TOKEN"));
    server.finish().await;
}

#[tokio::test]
async fn what_is_announced_is_served() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let capabilities = alice.get("/capabilities").await.ok()["capabilities"].clone();
    let stable: serde_json::Map<_, _> = (6..=12).map(|version: u8| (version.to_string(), "stable".into())).collect();
    assert_eq!(capabilities["m.room_versions"], json!({ "default": "12", "available": stable }));
    for version in 1..=13 {
        let created = alice.post("/createRoom", json!({ "room_version": version.to_string() })).await;
        match capabilities["m.room_versions"]["available"].get(version.to_string()) {
            Some(_) => drop(created.ok()),
            None => assert_eq!(created.error(), (400, "M_UNSUPPORTED_ROOM_VERSION"), "{version}"),
        }
    }
    assert_eq!(capabilities["m.3pid_changes"]["enabled"], false);
    assert_eq!(alice.post("/account/3pid/add", json!({})).await.error(), (404, "M_UNRECOGNIZED"));
    assert_ne!(capabilities["m.change_password"]["enabled"], false);
    assert_eq!(alice.post("/account/password", json!({ "new_password": "another password" })).await.status, 401);
    assert_ne!(capabilities["m.set_displayname"]["enabled"], false);
    assert_eq!(capabilities["m.profile_fields"]["enabled"], true);

    let features = server.client().get("/_matrix/client/versions").await.ok()["unstable_features"].clone();
    assert_eq!(features, json!({ "uk.tcpip.msc4133": true, "uk.tcpip.msc4133.stable": true }));
    for version in ["v3", "unstable/uk.tcpip.msc4133"] {
        let path = format!("/_matrix/client/{version}/profile/{}/m.tz", alice.user);
        alice.put(&path, json!({ "m.tz": version })).await.ok();
        assert_eq!(alice.get(&path).await.ok()["m.tz"], version);
    }
    server.finish().await;
}

#[tokio::test]
async fn well_known_tells_what_is_set() {
    let server = TestServer::start().await;
    for path in ["/.well-known/matrix/client", "/.well-known/matrix/server", "/.well-known/matrix/support"] {
        assert_eq!(server.client().get(path).await.error(), (404, "M_NOT_FOUND"), "{path}");
    }
    server.finish().await;

    let server = TestServer::with(&[
        ("http.public_url", "https://matrix.test.example/"),
        ("well_known.server", "matrix.test.example:443"),
        ("well_known.identity_server", "https://id.test.example"),
        ("admin_contact", "admin@test.example"),
    ])
    .await;
    let client = server.client().get("/.well-known/matrix/client").await.ok();
    assert_eq!(client["m.homeserver"]["base_url"], "https://matrix.test.example");
    assert_eq!(client["m.identity_server"]["base_url"], "https://id.test.example");
    let found = server.client().get("/.well-known/matrix/server").await.ok();
    assert_eq!(found["m.server"], "matrix.test.example:443");
    let support = server.client().get("/.well-known/matrix/support").await.ok();
    assert_eq!(support["contacts"][0]["email_address"], "admin@test.example");
    server.finish().await;
}
