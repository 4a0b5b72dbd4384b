//! What users may do whose account or device does not stand as it should.

use schemas::facts::AccountStatusSet;
use serde_json::json;

use crate::common::{Client, TestServer};

fn status(user: &Client, locked: bool, suspended: bool) -> AccountStatusSet {
    AccountStatusSet { user: user.user.clone(), locked, suspended }
}

#[tokio::test]
async fn who_is_suspended_reads_and_keeps_their_own_things() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    server.record([status(&alice, false, true).into()]).await;
    let name = format!("/profile/{}/displayname", alice.user);
    let refused = alice.put(&name, json!({ "displayname": "Alice" })).await;
    assert_eq!(refused.error(), (403, "M_USER_SUSPENDED"));
    assert_eq!(alice.delete(&name).await.error(), (403, "M_USER_SUSPENDED"));
    alice.put(&format!("/user/{}/account_data/a", alice.user), json!({})).await.ok();
    alice.put("/sendToDevice/m.test/1", json!({ "messages": { alice.user.clone(): { "*": {} } } })).await.ok();
    alice.put("/pushrules/global/content/a", json!({ "pattern": "a", "actions": [] })).await.ok();

    server.record([status(&alice, false, false).into()]).await;
    alice.put(&name, json!({ "displayname": "Alice" })).await.ok();
    server.finish().await;
}

#[tokio::test]
async fn who_is_locked_keeps_their_session_and_does_nothing() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    server.record([status(&alice, true, false).into()]).await;
    for path in ["/pushrules/", "/devices"] {
        let refused = alice.get(path).await;
        assert_eq!((refused.error(), &refused["soft_logout"]), ((401, "M_USER_LOCKED"), &json!(true)), "{path}");
    }
    server.record([status(&alice, false, false).into()]).await;
    alice.get("/devices").await.ok();
    server.finish().await;
}
