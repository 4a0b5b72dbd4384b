//! What was said in a room.

use projections::{
    Position, View,
    models::{events, timeline},
};
use serde_json::Value;

/// The texts of a room's messages with the ids of their events, in its order.
pub fn said(view: &View, room: &str) -> Vec<(String, String)> {
    let room = events::room_nid(view, room).unwrap().unwrap();
    let mut said = Vec::new();
    for row in timeline::forward(view, room, Position::START) {
        let event = row.unwrap().1.event;
        let id = events::head(view, event).unwrap().unwrap().id;
        let event: Value = serde_json::from_str(&events::client(view, event).unwrap().unwrap()).unwrap();
        if let Some(body) = event["content"]["body"].as_str() {
            said.push((body.to_owned(), id));
        }
    }
    said
}

/// The same, of which none is there twice, must be what was acknowledged.
pub fn check_said(view: &View, room: &str, acknowledged: impl IntoIterator<Item = (String, String)>) {
    let (mut said, mut acknowledged) = (said(view, room), Vec::from_iter(acknowledged));
    said.sort();
    acknowledged.sort();
    assert!(!acknowledged.is_empty());
    assert_eq!(said, acknowledged, "each message once, as the event that was told");
}
