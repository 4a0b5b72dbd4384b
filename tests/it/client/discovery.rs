use crate::common::TestServer;

#[tokio::test]
async fn versions_and_capabilities() {
    let server = TestServer::start().await;
    let versions = server.client().get("/_matrix/client/versions").await.ok();
    assert!(versions["versions"].as_array().unwrap().contains(&"v1.1".into()));
    // A token that is over must not keep a client from finding out what the server can do.
    server.client().with_token("over").get("/_matrix/client/versions").await.ok();
    assert_eq!(server.client().get("/capabilities").await.error(), (401, "M_MISSING_TOKEN"));
    assert_eq!(server.client().with_token("over").get("/capabilities").await.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(server.client().get("/capabilities?access_token=over").await.error(), (401, "M_UNKNOWN_TOKEN"));
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
