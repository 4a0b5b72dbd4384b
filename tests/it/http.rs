//! What holds for every request.

use std::convert::Infallible;

use ::http::Method;
use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;

use crate::common::{Reply, TestServer};

#[tokio::test]
async fn unknown_paths_and_methods_are_unrecognized() {
    let server = TestServer::start().await;
    let client = server.client();
    assert_eq!(client.get("/nonsense").await.error(), (404, "M_UNRECOGNIZED"));
    assert_eq!(client.get("/_matrix").await.error(), (404, "M_UNRECOGNIZED"));
    let wrong = client.delete("/_matrix/client/versions").await;
    assert_eq!(wrong.error(), (405, "M_UNRECOGNIZED"));
    assert_eq!(wrong.header("allow"), "GET,HEAD");
    assert_eq!(client.request(Method::HEAD, "/_matrix/client/versions").send().await.unwrap().status(), 200);
    server.finish().await;
}

#[tokio::test]
async fn browsers_of_any_origin_may_ask() {
    let server = TestServer::start().await;
    let preflight = client_options(&server, "/_matrix/client/v3/capabilities").await;
    assert_eq!(preflight.status, 200);
    for path in ["/_matrix/client/versions", "/nonsense"] {
        assert_eq!(server.client().get(path).await.header("access-control-allow-origin"), "*", "{path}");
    }
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(preflight.header("access-control-allow-methods").contains(method), "{method}");
    }
    for name in ["x-requested-with", "content-type", "authorization"] {
        assert!(preflight.header("access-control-allow-headers").to_lowercase().contains(name), "{name}");
    }
    server.finish().await;
}

async fn client_options(server: &TestServer, path: &str) -> Reply {
    let request = server.client().request(Method::OPTIONS, path);
    Reply::of(request.header("Origin", "https://app.example").header("Access-Control-Request-Method", "GET")).await
}

#[tokio::test]
async fn bodies_are_bounded_in_size_and_nesting() {
    let server = TestServer::with(&[("http.body_bytes", "100000")]).await;
    let alice = server.user("alice").await;
    let path = "/user/@alice:test.example/account_data/org.example";
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    alice.send_raw(Method::PUT, path, nested(100)).await.ok();
    assert_eq!(alice.send_raw(Method::PUT, path, nested(101)).await.error(), (400, "M_BAD_JSON"));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(alice.send_raw(Method::PUT, path, large.clone()).await.error(), (413, "M_TOO_LARGE"));
    // Without a length announced.
    let parts: Vec<_> = large.into_bytes().chunks(1000).map(|part| Ok(Frame::data(part.to_vec().into()))).collect();
    let body: StreamBody<_> = StreamBody::new(futures::stream::iter::<Vec<Result<Frame<Bytes>, Infallible>>>(parts));
    let streamed = alice.send_raw(Method::PUT, path, reqwest::Body::wrap(body)).await;
    assert_eq!(streamed.error(), (413, "M_TOO_LARGE"));
    // Nobody makes the server read who may not.
    let stranger = server.client().send_raw(Method::PUT, path, "x".repeat(200_000)).await;
    assert_eq!(stranger.error(), (401, "M_MISSING_TOKEN"));
    server.finish().await;
}

#[tokio::test]
async fn rate_limits_go_by_the_address_that_a_trusted_proxy_names() {
    let limits =
        [("rate_limits.enabled", "on"), ("rate_limits.login.burst", "1"), ("rate_limits.login.per_second", "0.001")];
    for (proxies, seen) in [("127.0.0.1", [403, 429, 403, 429]), ("", [403, 429, 429, 429])] {
        let server = TestServer::with(&[&limits[..], &[("http.trusted_proxies", proxies)]].concat()).await;
        let body = serde_json::json!({
            "type": "m.login.password", "password": "x", "identifier": { "type": "m.id.user", "user": "nobody" },
        });
        let mut found = Vec::new();
        for address in ["10.0.0.1", "10.0.0.1", "10.0.0.2", "spoofed, 10.0.0.9, 10.0.0.2"] {
            let request = server.client().request(Method::POST, "/login").header("X-Forwarded-For", address);
            found.push(Reply::of(request.json(&body)).await.error().0);
        }
        assert_eq!(found, seen, "{proxies}");
        server.finish().await;
    }
}

#[tokio::test]
async fn a_post_without_a_body_is_one_with_an_empty_object() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.post("/createRoom", json!({ "preset": "public_chat" })).await.ok();
    let bob = server.user("bob").await;
    let path = format!("/join/{}", room["room_id"].as_str().unwrap());
    bob.send_raw(Method::POST, &path, "").await.ok();
    server.finish().await;
}
