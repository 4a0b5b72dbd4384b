//! What administrators clear away, while everybody goes on.

use serde_json::{Value, json};

use super::Town;
use crate::common::{Client, TestServer, until};

impl Town {
    pub(super) async fn clear(&self, server: &TestServer) {
        let root = self.people.borrow()[0].clone();
        let [abe, kim] = [server.user("abe").await, server.user("kim").await];
        for round in 0..3 {
            let room = abe.room_with(&[&kim]).await;
            let mut last = String::new();
            for n in 0..20 {
                last = [&abe, &kim][n % 2].say(&room, &n.to_string()).await;
            }
            let body = json!({ "rooms": [room], "limit": 3, "reason": "spam" });
            let redacted = root.post(&format!("/_synapse/admin/v1/user/{}/redact", kim.user), body).await.ok();
            complete(&root, &format!("user/redact_status/{}", id(&redacted, "redact_id"))).await;
            let body = json!({ "purge_up_to_event_id": last, "delete_local_events": round != 1 });
            let purged = root.post(&format!("/_synapse/admin/v1/purge_history/{room}"), body).await.ok();
            complete(&root, &format!("purge_history_status/{}", id(&purged, "purge_id"))).await;
            let path = format!("/_synapse/admin/v1/rooms/{room}");
            let deletion = root.request(http::Method::DELETE, &path).json(&json!({ "block": round == 2 }));
            crate::common::Reply::of(deletion).await.ok();
        }
    }
}

fn id<'a>(reply: &'a Value, name: &str) -> &'a str {
    reply[name].as_str().unwrap()
}

async fn complete(root: &Client, status: &str) {
    until(async || root.get(&format!("/_synapse/admin/v1/{status}")).await.ok()["status"] == "complete").await;
}
