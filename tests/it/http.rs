//! What holds for every request.

use ::http::Method;

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
async fn health_and_metrics() {
    let server = TestServer::start().await;
    let client = server.client();
    client.get("/health/live").await.ok();
    let ready = client.get("/health/ready").await.ok();
    assert_eq!((&ready["ready"], &ready["tail"], &ready["folded"]), (&true.into(), &1.into(), &1.into()));
    client.get("/_matrix/client/versions").await.ok();
    let metrics = client.get("/metrics").await;
    for expected in [
        "everfold_http_requests_total{method=\"GET\",route=\"/_matrix/client/versions\",status=\"200\"} 1",
        "everfold_log_tail_lsn 1",
        "everfold_fold_lag{projection=\"accounts\"} 0",
        "everfold_rocksdb{property=\"estimate-num-keys\",store=\"read-models\"}",
    ] {
        assert!(metrics.text.contains(expected), "{expected} is not in {}", metrics.text);
    }
    server.finish().await;

    let server = TestServer::with(&[("telemetry.metrics", "off")]).await;
    assert_eq!(server.client().get("/metrics").await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}
