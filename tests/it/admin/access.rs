//! Who may use the administrators' endpoints: all that the heads of their files name, so that new ones are asked by
//! themselves.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::json;

use crate::common::{Client, Reply, TestServer, endpoints::endpoints};

/// What is for those who have a secret of another kind, or for anybody.
const OPEN: &[&str] = &["/_synapse/admin/v1/register", "/_synapse/admin/v1/server_version"];

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];

/// All paths of administrators, each with its methods.
fn served() -> BTreeMap<String, BTreeSet<String>> {
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for endpoint in endpoints() {
        if ["/_synapse/admin/", "/_everfold/admin/"].iter().any(|begin| endpoint.path.starts_with(begin)) {
            let bare = |segment: &str| if segment.starts_with('{') { "{}".into() } else { segment.to_owned() };
            let path: Vec<String> = endpoint.path.split('/').map(bare).collect();
            served.entry(path.join("/")).or_default().insert(endpoint.method);
        }
    }
    assert!(served.len() > 10, "the heads of the files have another shape than this test reads");
    served
}

/// A path with parameters that make no sense, and a query that makes none either.
fn nonsense(path: &str) -> String {
    path.replace("{}", "%ff%00") + "?limit=many&from=-1&dir=x&order_by=nothing&valid=perhaps&ts=now"
}

async fn ask(client: &Client, method: &Method, path: &str) -> Reply {
    client.send_raw(method.clone(), path, "{ this is not JSON").await
}

#[tokio::test]
async fn who_is_no_administrator_learns_nothing_else() {
    let server = TestServer::with(&[("registration.guests", "on")]).await;
    let stranger = server.client();
    let wrong = stranger.with_token("guess");
    let anna = server.user("anna").await;
    let guest = stranger.logged_in(&stranger.post("/register?kind=guest", json!({})).await.ok());
    let mut failed = Vec::new();
    for (path, methods) in served() {
        if OPEN.contains(&path.as_str()) {
            continue;
        }
        let path = nonsense(&path);
        for method in METHODS.iter().filter(|method| methods.contains(method.as_str())) {
            for (client, expected) in [
                (&stranger, (401, "M_MISSING_TOKEN")),
                (&wrong, (401, "M_UNKNOWN_TOKEN")),
                (&guest, (403, "M_GUEST_ACCESS_FORBIDDEN")),
                (&anna, (403, "M_FORBIDDEN")),
            ] {
                let reply = ask(client, method, &path).await;
                if (reply.status.as_u16(), reply["errcode"].as_str().unwrap_or_default()) != expected {
                    failed.push(format!("{method} {path}: {} {}, not {expected:?}", reply.status, reply.text));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    server.finish().await;
}

#[tokio::test]
async fn nothing_that_administrators_send_is_a_fault_of_the_server() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let mut failed = Vec::new();
    for (path, methods) in served() {
        for method in METHODS.iter().filter(|method| methods.contains(method.as_str())) {
            for path in [nonsense(&path), path.replace("{}", "%00"), path.replace("{}", "@root:test.example")] {
                let reply = ask(&admin, method, &path).await;
                if reply.status.is_server_error() || (reply.status != 200 && !reply["error"].is_string()) {
                    failed.push(format!("{method} {path}: {} {}", reply.status, reply.text));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    server.finish().await;
}

#[tokio::test]
async fn a_method_that_an_endpoint_does_not_have_is_named_so() {
    let server = TestServer::start().await;
    let mut failed = Vec::new();
    for (path, methods) in served() {
        let path = path.replace("{}", "something");
        for method in METHODS.iter().filter(|method| !methods.contains(method.as_str())) {
            let reply = ask(&server.client(), method, &path).await;
            if (reply.status.as_u16(), reply["errcode"].as_str()) != (405, Some("M_UNRECOGNIZED")) {
                failed.push(format!("{method} {path}: {} {}", reply.status, reply.text));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    server.finish().await;
}
