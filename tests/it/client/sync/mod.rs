mod cost;
mod devices;
mod early;
mod filters;
mod following;
mod notices;
mod rooms;
mod state;
mod timeline;
mod waiting;

use serde_json::Value;

use crate::common::{Client, Reply};

/// A request for what is new, with these query parameters.
async fn ask(client: &Client, parameters: &[(&str, &str)]) -> Reply {
    let encode = |text: &str| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        text.bytes().map(byte).collect()
    };
    let query: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    client.get(&format!("/sync?{}", query.join("&"))).await
}

/// Everything.
async fn first(client: &Client) -> Value {
    ask(client, &[]).await.ok()
}

/// Everything, as a filter wants it.
async fn filtered(client: &Client, filter: &Value) -> Value {
    ask(client, &[("filter", &filter.to_string())]).await.ok()
}

/// What is new since a sync, without waiting.
async fn next(client: &Client, last: &Value) -> Value {
    ask(client, &[("since", token(last))]).await.ok()
}

fn token(sync: &Value) -> &str {
    sync["next_batch"].as_str().unwrap()
}

fn events(section: &Value) -> impl Iterator<Item = &Value> {
    section["events"].as_array().into_iter().flatten()
}

/// Types and state keys of a section's events, sorted.
fn places(section: &Value) -> Vec<String> {
    let place = |event: &Value| format!("{} {}", event["type"].as_str().unwrap(), event["state_key"].as_str().unwrap());
    let mut places: Vec<_> = events(section).map(place).collect();
    places.sort();
    places
}

/// The content of a section's last event of a type; null if there is none.
fn content<'a>(section: &'a Value, event_type: &str) -> &'a Value {
    let found = events(section).filter(|event| event["type"] == event_type).last();
    found.map_or(&Value::Null, |event| &event["content"])
}
