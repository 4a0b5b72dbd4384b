use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{Client, Reply};

/// What people do in rooms, where it must succeed.
impl Client {
    /// Creates a room; its id.
    pub async fn create(&self, body: Value) -> String {
        text(&self.post("/createRoom", body).await.ok()["room_id"])
    }

    /// Creates a room that anybody may join, with others in it.
    pub async fn room_with(&self, others: &[&Client]) -> String {
        let room = self.create(json!({ "preset": "public_chat" })).await;
        for other in others {
            other.join(&room).await;
        }
        room
    }

    pub async fn join(&self, room: &str) {
        self.post(&format!("/rooms/{room}/join"), json!({})).await.ok();
    }

    pub async fn leave(&self, room: &str) {
        self.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    }

    pub async fn invite(&self, room: &str, other: &Client) {
        self.post(&format!("/rooms/{room}/invite"), json!({ "user_id": other.user })).await.ok();
    }

    /// Sends a message; its id.
    pub async fn say(&self, room: &str, body: &str) -> String {
        self.send(room, "m.room.message", json!({ "msgtype": "m.text", "body": body })).await
    }

    /// Sends an event; its id.
    pub async fn send(&self, room: &str, kind: &str, content: Value) -> String {
        text(&self.try_send(room, kind, content).await.ok()["event_id"])
    }

    /// Sends an event with a new transaction id.
    pub async fn try_send(&self, room: &str, kind: &str, content: Value) -> Reply {
        self.put(&format!("/rooms/{room}/send/{kind}/{}", transaction()), content).await
    }

    /// Sets state; the event's id.
    pub async fn set(&self, room: &str, kind: &str, state_key: &str, content: Value) -> String {
        text(&self.put(&format!("/rooms/{room}/state/{kind}/{state_key}"), content).await.ok()["event_id"])
    }

    /// Redacts an event; the redaction's id.
    pub async fn redact(&self, room: &str, event: &str) -> String {
        let path = format!("/rooms/{room}/redact/{event}/{}", transaction());
        text(&self.put(&path, json!({ "reason": "spam" })).await.ok()["event_id"])
    }

    /// A page of a room's history.
    pub async fn page(&self, room: &str, query: &str) -> Value {
        self.get(&format!("/rooms/{room}/messages?{query}")).await.ok()
    }
}

/// A transaction id that was not used before.
pub fn transaction() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// The bodies of messages among events.
pub fn bodies(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

/// The ids of events.
pub fn ids(events: &Value) -> Vec<&str> {
    events.as_array().unwrap().iter().filter_map(|event| event["event_id"].as_str()).collect()
}
