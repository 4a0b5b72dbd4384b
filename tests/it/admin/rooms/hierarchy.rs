use std::time::Duration;

use serde_json::{Value, json};

use super::{of, told};
use crate::common::{Client, TestServer};

async fn space(owner: &Client, name: &str) -> String {
    owner.create(json!({ "name": name, "preset": "private_chat", "creation_content": { "type": "m.space" } })).await
}

async fn add(owner: &Client, space: &str, child: &str, content: Value) {
    owner.set(space, "m.space.child", child, content).await;
}

fn names(page: &Value) -> Vec<&str> {
    page["rooms"].as_array().unwrap().iter().map(|room| room["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_space_is_walked_through_depth_first() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let via = || json!({ "via": ["test.example"] });
    let [top, inner, deep] = [space(&anna, "top").await, space(&anna, "inner").await, space(&anna, "deep").await];
    let room = async |name: &str| anna.create(json!({ "name": name, "topic": "t" })).await;
    let [first, last, plain, left] = [room("first").await, room("last").await, room("plain").await, room("left").await];
    anna.leave(&left).await;
    let order = |order: &str| json!({ "via": ["test.example"], "order": order });
    add(&anna, &top, &last, order("z")).await;
    add(&anna, &top, "!hole:other.example", order("b")).await;
    add(&anna, &top, &inner, order("c")).await;
    add(&anna, &top, &first, order("a")).await;
    add(&anna, &top, &left, order("d")).await;
    // What has no order comes after, by time; without a way there it is no child, nor with an order that is none.
    clock.advance(Duration::from_secs(1));
    add(&anna, &top, &plain, json!({ "via": ["test.example"], "order": "\u{7f}" })).await;
    add(&anna, &top, &deep, json!({})).await;
    add(&anna, &inner, &deep, via()).await;
    // It goes in a circle; each room comes once.
    add(&anna, &deep, &top, via()).await;
    add(&anna, &deep, &last, via()).await;

    let path = of(&top, "/hierarchy");
    let whole = admin.get(&path).await.ok();
    assert_eq!(names(&whole), ["top", "first", "inner", "deep", "last", "plain"]);
    assert!(whole["next_batch"].is_null());
    let found = &whole["rooms"][1];
    assert_eq!(
        found,
        &json!({
            "room_id": first, "name": "first", "topic": "t", "num_joined_members": 1, "join_rule": "invite",
            "world_readable": false, "guest_can_join": true, "children_state": [], "room_version": found["room_version"],
        })
    );
    assert_eq!(
        (&whole["rooms"][0]["room_type"], whole["rooms"][0]["children_state"].as_array().unwrap().len()),
        (&json!("m.space"), 6)
    );
    let child = &whole["rooms"][0]["children_state"][0];
    let keys: Vec<_> = child.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["content", "origin_server_ts", "sender", "state_key", "type"]);
    assert_eq!((&child["state_key"], &child["content"]["order"]), (&json!(first), &json!("a")));

    let page = async |query: &str| admin.get(&format!("{path}?{query}")).await;
    assert_eq!(names(&page("max_depth=0").await.ok()), ["top"]);
    assert_eq!(names(&page("max_depth=1").await.ok()), ["top", "first", "inner", "last", "plain"]);
    // A page at a time.
    let (mut shown, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let found = page(&query).await.ok();
        shown.extend(names(&found).into_iter().map(str::to_owned));
        let Some(next) = found["next_batch"].as_str() else { break };
        query = format!("limit=2&from={next}");
    }
    assert_eq!(shown, names(&whole));
    let nothing = page("limit=0").await.ok();
    assert_eq!(nothing["rooms"], json!([]));
    assert_eq!(names(&page(&format!("from={}", nothing["next_batch"].as_str().unwrap())).await.ok()), names(&whole));

    // Where this server has nobody, there is nothing to show.
    for room in [&*left, "!none:test.example", "nonsense"] {
        assert_eq!(admin.get(&of(room, "/hierarchy")).await.ok(), json!({ "rooms": [] }));
    }
    server.finish().await;
}

#[tokio::test]
async fn a_token_is_for_one_caller_room_and_depth_and_for_five_minutes() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let (admin, other, anna) = (server.admin("root").await, server.admin("other").await, server.user("anna").await);
    let [top, inner] = [space(&anna, "top").await, space(&anna, "inner").await];
    add(&anna, &top, &inner, json!({ "via": ["test.example"] })).await;
    let path = of(&top, "/hierarchy");
    let page = async |query: &str| admin.get(&format!("{path}?{query}")).await;
    let begun = page("limit=1").await.ok();
    let from = format!("from={}", begun["next_batch"].as_str().unwrap());
    let unknown = (400, "M_INVALID_PARAM", "Unknown pagination token");
    assert_eq!(told(&other.get(&format!("{path}?{from}")).await), unknown);
    assert_eq!(told(&admin.get(&of(&inner, &format!("/hierarchy?{from}"))).await), unknown);
    assert_eq!(told(&page(&format!("{from}&max_depth=3")).await), unknown);
    for wrong in ["from=1.1.00", "from=", "from=nonsense", &from.replace("from=1.", "from=2.")] {
        assert_eq!(told(&page(wrong).await), unknown, "{wrong}");
    }
    page(&from).await.ok();
    clock.advance(Duration::from_secs(300));
    assert_eq!(told(&page(&from).await), unknown);
    assert_eq!(page("max_depth=-1").await.error(), (400, "M_INVALID_PARAM"));
    assert_eq!(page("limit=few").await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}
