use schemas::{
    Blob,
    facts::{DeviceAdded, NamedKey, OneTimeKeysUploaded, SessionOpened},
};
use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn devices_are_listed_and_renamed() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let named = json!({ "device_id": "DESK", "initial_device_display_name": "desk" });
    server.client().log_in("alice", "password of alice", named).await.ok();
    let listed = alice.get("/devices").await.ok();
    let desk = listed["devices"].as_array().unwrap().iter().find(|device| device["device_id"] == "DESK").unwrap();
    assert_eq!(desk["display_name"], "desk");
    let own = alice.get(&format!("/devices/{}", alice.device)).await.ok();
    assert_eq!(own["last_seen_ip"], "127.0.0.1");
    assert!(own["last_seen_ts"].is_u64());
    assert_eq!(alice.get("/devices/NONE").await.error(), (404, "M_NOT_FOUND"));

    alice.put("/devices/DESK", json!({ "display_name": "table" })).await.ok();
    alice.put("/devices/DESK", json!({})).await.ok();
    assert_eq!(alice.get("/devices/DESK").await.ok()["display_name"], "table");
    assert_eq!(alice.put("/devices/NONE", json!({ "display_name": "x" })).await.error(), (404, "M_NOT_FOUND"));
    let long = json!({ "display_name": "x".repeat(101) });
    assert_eq!(alice.put("/devices/DESK", long).await.error(), (400, "M_INVALID_PARAM"));
    let bob = server.user("bob").await;
    assert_eq!(bob.get("/devices/DESK").await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn any_number_of_devices_end_at_once() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for n in 0..250 {
        let (user, device) = (alice.user.clone(), format!("D{n}"));
        let key = |n: usize| NamedKey { id: format!("curve25519:{n}"), key: "\"key\"".to_owned().into() };
        let keys = OneTimeKeysUploaded { user: user.clone(), device: device.clone(), keys: (0..40).map(key).collect() };
        let added = DeviceAdded { user: user.clone(), device: device.clone(), display_name: None };
        let session = SessionOpened {
            user,
            device,
            access: Blob(format!("{n:032}").into_bytes()),
            access_expires_at_ms: None,
            refresh: Some(Blob(format!("r{n:031}").into_bytes())),
        };
        server.record([added.into(), session.into(), keys.into()]).await;
    }
    assert_eq!(alice.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 251);
    alice.post("/logout/all", json!({})).await.ok();
    assert_eq!(alice.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    let alice = alice.on_device("NEW").await;
    assert_eq!(alice.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 1);
    server.finish().await;
}

#[tokio::test]
async fn devices_end_with_the_password() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let login = async |device: &str| {
        let reply = server.client().log_in("alice", "password of alice", json!({ "device_id": device })).await.ok();
        server.client().logged_in(&reply)
    };
    let (one, two, three) = (login("ONE").await, login("TWO").await, login("THREE").await);
    let offered = alice.delete("/devices/ONE").await;
    assert_eq!((offered.status.as_u16(), &offered["flows"]), (401, &json!([{ "stages": ["m.login.password"] }])));
    let auth = json!({ "auth": alice.password_auth("password of alice") });
    let delete = alice.request(http::Method::DELETE, "/devices/ONE").json(&auth);
    crate::common::Reply::of(delete).await.ok();
    assert_eq!(one.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));

    let several = json!({ "devices": ["TWO", "THREE", "NONE"], "auth": auth["auth"] });
    two.post("/delete_devices", several).await.ok();
    assert_eq!(two.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(three.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(alice.get("/devices").await.ok()["devices"].as_array().unwrap().len(), 1);
    assert_eq!(alice.post("/delete_devices", json!({})).await.error(), (400, "M_MISSING_PARAM"));
    server.finish().await;
}
