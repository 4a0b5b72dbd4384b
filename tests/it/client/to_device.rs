use futures::future::join_all;
use projections::models::to_device::{self, Message};
use schemas::Lsn;
use serde_json::{Value, json};

use crate::common::{Client, TestServer};

/// What waits for a device: sender, type and content.
fn waiting(server: &TestServer, user: &Client) -> Vec<(String, String, Value)> {
    let read = |message: Message| {
        let content = serde_json::from_slice(message.content.open().unwrap()).unwrap();
        (message.sender, message.event_type, content)
    };
    let view = server.app().view().unwrap();
    let waiting = to_device::after(&view, &user.user, &user.device, Lsn::ZERO, 1_000).unwrap();
    waiting.messages.into_iter().map(read).collect()
}

#[tokio::test]
async fn messages_go_to_named_devices_or_to_all() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let tablet = bob.on_device("TABLET").await;
    let message = |n: u8| (alice.user.clone(), "m.test".to_owned(), json!({ "n": n }));

    let to = |devices: Value| json!({ "messages": { bob.user.clone(): devices } });
    alice.put("/sendToDevice/m.test/1", to(json!({ "TABLET": { "n": 1 }, "GONE": { "n": 0 } }))).await.ok();
    alice.put("/sendToDevice/m.test/2", to(json!({ "*": { "n": 2 } }))).await.ok();
    alice.put("/sendToDevice/m.test/3", to(json!({ "*": { "n": 3 }, "TABLET": { "n": 4 } }))).await.ok();
    assert_eq!(waiting(&server, &tablet), [message(1), message(2), message(4)]);
    assert_eq!(waiting(&server, &bob), [message(2), message(3)]);
    assert_eq!(waiting(&server, &alice), []);

    // To nobody, nothing is recorded.
    let before = server.app().view().unwrap().lsn();
    alice.put("/sendToDevice/m.test/4", to(json!({ "GONE": {} }))).await.ok();
    alice.put("/sendToDevice/m.test/5", json!({ "messages": { "@nobody:test.example": { "*": {} } } })).await.ok();
    assert_eq!(server.app().view().unwrap().lsn(), before);
    server.finish().await;
}

#[tokio::test]
async fn a_repeated_request_sends_once_however_often_it_comes() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let send = |path: &str| {
        let body = json!({ "messages": { bob.user.clone(): { bob.device.clone(): { "path": path } } } });
        let (alice, path) = (alice.clone(), path.to_owned());
        async move { alice.put(&path, body).await.ok() }
    };
    join_all((0..20).map(|_| send("/sendToDevice/m.test/same"))).await;
    assert_eq!(waiting(&server, &bob).len(), 1);
    // Another type, another device or another user has transactions of its own.
    send("/sendToDevice/m.other/same").await;
    let body = json!({ "messages": { bob.user.clone(): { bob.device.clone(): {} } } });
    alice.on_device("OTHER").await.put("/sendToDevice/m.test/same", body.clone()).await.ok();
    bob.put("/sendToDevice/m.test/same", body).await.ok();
    assert_eq!(waiting(&server, &bob).len(), 4);
    server.finish().await;
}

#[tokio::test]
async fn what_can_not_be_sent_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let send = async |messages: Value| alice.put("/sendToDevice/m.test/1", json!({ "messages": messages })).await;
    assert_eq!(send(json!({ alice.user.clone(): { "*": 7 } })).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(send(json!({ alice.user.clone(): [] })).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(send(json!({ "nobody": { "*": {} } })).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(send(json!({ "@x:elsewhere.example": { "*": {} } })).await.error(), (400, "M_INVALID_PARAM"));
    assert_eq!(alice.put("/sendToDevice/m.test/1", json!({})).await.error(), (400, "M_MISSING_PARAM"));
    // What fits into one body, but not into one record once it is spelled out.
    for n in 0..4 {
        alice.on_device(&format!("DEVICE{n}")).await;
    }
    let large = json!({ alice.user.clone(): { "*": { "text": "x".repeat(300_000) } } });
    assert_eq!(send(large).await.error(), (413, "M_TOO_LARGE"));
    server.finish().await;
}
