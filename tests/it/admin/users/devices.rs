use http::Method;
use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn devices_are_listed_made_renamed_and_logged_out() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let all = "/_synapse/admin/v2/users/@anna:test.example/devices";
    let phone = "/_synapse/admin/v2/users/@anna:test.example/devices/PHONE";
    anna.get("/account/whoami").await.ok();
    let listed = admin.get(all).await.ok();
    let device = &listed["devices"][0];
    assert_eq!(
        (&listed["total"], &device["device_id"], &device["user_id"]),
        (&json!(1), &json!(anna.device), &json!(anna.user))
    );
    assert_eq!((&device["last_seen_ip"], &device["dehydrated"]), (&json!("127.0.0.1"), &json!(false)));
    assert!(device["last_seen_ts"].is_u64());

    for _ in 0..2 {
        assert_eq!(admin.post(all, json!({ "device_id": "PHONE" })).await.status, 201);
    }
    admin.put(phone, json!({ "display_name": "Phone" })).await.ok();
    admin.send_raw(Method::PUT, phone, "").await.ok();
    let shown = admin.get(phone).await.ok();
    assert_eq!((&shown["display_name"], &shown["last_seen_ts"]), (&json!("Phone"), &json!(null)));
    assert_eq!(anna.get("/devices/PHONE").await.ok()["display_name"], "Phone");
    admin.delete(phone).await.ok();
    admin.delete(phone).await.ok();
    assert_eq!(admin.get(phone).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(admin.put(phone, json!({ "display_name": "x" })).await.error(), (404, "M_NOT_FOUND"));

    let (desk, tv) = (anna.on_device("DESK").await, anna.on_device("TV").await);
    let some = "/_synapse/admin/v2/users/@anna:test.example/delete_devices";
    admin.post(some, json!({ "devices": ["DESK", anna.device, "GONE"] })).await.ok();
    for out in [&desk, &anna] {
        assert_eq!(out.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    }
    tv.get("/account/whoami").await.ok();
    assert_eq!(admin.post(some, json!({})).await.error(), (400, "M_MISSING_PARAM"));
    assert_eq!(admin.post(some, json!({ "devices": "TV" })).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(admin.post(all, json!({})).await.error(), (400, "M_UNKNOWN"));
    assert_eq!(admin.post(all, json!({ "device_id": 7 })).await.error(), (400, "M_UNKNOWN"));
    assert_eq!(admin.post(all, json!({ "device_id": "x".repeat(256) })).await.error(), (400, "M_INVALID_PARAM"));
    for (path, error) in [
        ("/_synapse/admin/v2/users/@nobody:test.example/devices", (404, "M_NOT_FOUND")),
        ("/_synapse/admin/v2/users/@anna:other.example/devices", (400, "M_UNKNOWN")),
        ("/_synapse/admin/v2/users/@nobody:test.example/devices/X", (404, "M_NOT_FOUND")),
    ] {
        assert_eq!(admin.get(path).await.error(), error, "{path}");
    }
    server.finish().await;
}
