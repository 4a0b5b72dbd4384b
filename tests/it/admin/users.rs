use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn administrators_list_users_a_page_at_a_time() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    for name in ["anna", "bert", "carl"] {
        server.user(name).await;
    }
    let gone = server.user("gone").await;
    let auth = json!({ "auth": gone.password_auth("password of gone") });
    gone.post("/account/deactivate", auth).await.ok();
    let list = async |query: &str| {
        let page = admin.get(&format!("/_synapse/admin/v2/users?{query}")).await.ok();
        let names: Vec<_> = page["users"].as_array().unwrap().iter().map(|user| user["name"].clone()).collect();
        (names, page["next_token"].as_str().map(ToOwned::to_owned))
    };
    let id = |name: &str| json!(format!("@{name}:test.example"));
    assert_eq!(list("").await, (vec![id("anna"), id("bert"), id("carl"), id("root")], None));
    let (first, next) = list("limit=2").await;
    assert_eq!(first, [id("anna"), id("bert")]);
    assert_eq!(list(&format!("limit=2&from={}", next.unwrap())).await, (vec![id("carl"), id("root")], None));
    assert_eq!(list("name=ar&deactivated=true").await.0, [id("carl")]);
    assert_eq!(list("deactivated=true").await.0.len(), 5);
    assert_eq!(admin.get("/_synapse/admin/v2/users?limit=many").await.error(), (400, "M_INVALID_PARAM"));
    let anna = server.client().log_in("anna", "password of anna", json!({})).await.ok();
    let anna = server.client().logged_in(&anna);
    assert_eq!(anna.get("/_synapse/admin/v2/users").await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(
        server.client().with_token("guess").get("/_synapse/admin/v2/users").await.error(),
        (401, "M_UNKNOWN_TOKEN")
    );
    server.client().with_token("shared").get("/_synapse/admin/v2/users").await.ok();
    server.finish().await;
}

#[tokio::test]
async fn administrators_are_made_and_passwords_reset() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let path = "/_synapse/admin/v1/users/@anna:test.example/admin";
    assert_eq!(admin.get(path).await.ok()["admin"], false);
    admin.put(path, json!({ "admin": true })).await.ok();
    assert_eq!(anna.get(path).await.ok()["admin"], true);
    anna.put(path, json!({ "admin": false })).await.ok();
    assert_eq!(anna.get(path).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(admin.put(path, json!({})).await.error(), (400, "M_MISSING_PARAM"));
    let nobody = "/_synapse/admin/v1/users/@nobody:test.example/admin";
    assert_eq!(admin.put(nobody, json!({ "admin": true })).await.error(), (404, "M_NOT_FOUND"));
    for wrong in ["@anna:other.example", "anna", "%ff"] {
        let path = format!("/_synapse/admin/v1/users/{wrong}/admin");
        assert_eq!(admin.get(&path).await.error(), (400, "M_INVALID_PARAM"), "{wrong}");
    }

    let path = "/_synapse/admin/v1/reset_password/@anna:test.example";
    let reset = |password: &str, log_out: bool| json!({ "new_password": password, "logout_devices": log_out });
    assert_eq!(admin.post(path, reset("weak", true)).await.error(), (400, "M_WEAK_PASSWORD"));
    admin.post(path, reset("another password", false)).await.ok();
    anna.get("/account/whoami").await.ok();
    admin.post(path, reset("a third password", true)).await.ok();
    assert_eq!(anna.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    server.client().log_in("anna", "a third password", json!({})).await.ok();
    server.finish().await;
}
