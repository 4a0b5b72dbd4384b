use serde_json::{Value, json};

use crate::common::{Client, Reply, TestServer};

const EVENTS: &str = "/_synapse/admin/v1/event_reports";
const USERS: &str = "/_synapse/admin/v1/user_reports";
const ROOMS: &str = "/_everfold/admin/v1/room_reports";

/// The numbers in a list, the total and where it goes on.
async fn list(admin: &Client, path: &str, query: &str) -> (Vec<u64>, u64, Option<u64>) {
    let list = admin.get(&format!("{path}?{query}")).await.ok();
    let name = path.rsplit('/').next().unwrap();
    let ids = list[name].as_array().unwrap().iter().map(|report| report["id"].as_u64().unwrap()).collect();
    (ids, list["total"].as_u64().unwrap(), list["next_token"].as_u64())
}

async fn lists_that_are_refused(admin: &Client) {
    for (query, message) in [
        ("limit=-1", "Query parameter limit must be a positive integer."),
        ("from=x", "Query parameter from must be an integer"),
        ("dir=up", "Query parameter 'dir' must be one of ['f', 'b']"),
    ] {
        let refused = admin.get(&format!("{EVENTS}?{query}")).await;
        assert_eq!((refused.error(), &refused["error"]), ((400, "M_INVALID_PARAM"), &json!(message)));
    }
}

#[tokio::test]
async fn event_reports_are_listed_shown_and_removed() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let body = json!({ "preset": "public_chat", "name": "Hall", "room_alias_name": "hall" });
    let (hall, yard) = (anna.create(body).await, bert.create(json!({ "preset": "public_chat" })).await);
    bert.join(&hall).await;
    anna.join(&yard).await;
    let (spam, reply) = (anna.say(&hall, "buy this").await, bert.say(&yard, "no").await);
    let report = async |by: &Client, room: &str, event: &str, body: Value| {
        by.post(&format!("/rooms/{room}/report/{event}"), body).await.ok();
    };
    report(&bert, &hall, &spam, json!({ "reason": "spam", "score": -100 })).await;
    report(&anna, &yard, &reply, json!({})).await;
    report(&anna, &hall, &spam, json!({ "reason": "mine" })).await;

    assert_eq!(list(&admin, EVENTS, "").await, (vec![3, 2, 1], 3, None));
    assert_eq!(list(&admin, EVENTS, "dir=f").await, (vec![1, 2, 3], 3, None));
    assert_eq!(list(&admin, EVENTS, "limit=2").await, (vec![3, 2], 3, Some(2)));
    assert_eq!(list(&admin, EVENTS, "limit=2&from=2").await, (vec![1], 3, None));
    assert_eq!(list(&admin, EVENTS, "limit=1&from=1&dir=f").await, (vec![2], 3, Some(2)));
    assert_eq!(list(&admin, EVENTS, "from=7").await, (vec![], 3, None));
    assert_eq!(list(&admin, EVENTS, "limit=0").await, (vec![], 3, Some(0)));
    assert_eq!(list(&admin, EVENTS, "user_id=@anna:test.example").await, (vec![3, 2], 2, None));
    assert_eq!(list(&admin, EVENTS, "user_id=ann").await, (vec![3, 2], 2, None), "a part of it");
    assert_eq!(list(&admin, EVENTS, &format!("room_id={hall}")).await, (vec![3, 1], 2, None));
    assert_eq!(list(&admin, EVENTS, &format!("room_id={hall}&user_id=ann")).await, (vec![3], 1, None));
    assert_eq!(list(&admin, EVENTS, "event_sender_user_id=@bert:test.example").await, (vec![2], 1, None));
    assert_eq!(list(&admin, EVENTS, "event_sender_user_id=bert").await, (vec![], 0, None), "not a part of it");
    assert_eq!(list(&admin, EVENTS, "user_id=&room_id=&event_sender_user_id=").await.1, 3);
    lists_that_are_refused(&admin).await;

    let mut first = admin.get("/_synapse/admin/v1/event_reports/1").await.ok();
    let event = first["event_json"].take();
    assert_eq!((&event["content"]["body"], &event["sender"]), (&json!("buy this"), &json!("@anna:test.example")));
    assert!(event["signatures"].is_object() && event["room_id"] == *hall, "{event}");
    assert!(first["received_ts"].take().as_u64().is_some());
    let expected = json!({
        "id": 1, "event_id": spam, "room_id": hall, "user_id": "@bert:test.example", "sender": "@anna:test.example",
        "reason": "spam", "score": -100, "name": "Hall", "canonical_alias": "#hall:test.example",
        "received_ts": null, "event_json": null,
    });
    assert_eq!(first, expected);
    let second = admin.get("/_synapse/admin/v1/event_reports/2").await.ok();
    for key in ["reason", "score", "name", "canonical_alias"] {
        assert_eq!(second[key], Value::Null, "{key}");
    }

    for wrong in ["x", "-1", "1.5", "%20"] {
        let refused = admin.get(&format!("{EVENTS}/{wrong}")).await;
        let message = "The report_id parameter must be a string representing a positive integer.";
        assert_eq!((refused.error(), &refused["error"]), ((400, "M_INVALID_PARAM"), &json!(message)), "{wrong}");
        assert_eq!(admin.delete(&format!("{EVENTS}/{wrong}")).await.error(), (400, "M_INVALID_PARAM"));
    }
    assert_eq!(admin.delete("/_synapse/admin/v1/event_reports/2").await.ok(), json!({}));
    for number in ["2", "0", "99999999999999999999999"] {
        for reply in [admin.get(&format!("{EVENTS}/{number}")).await, admin.delete(&format!("{EVENTS}/{number}")).await]
        {
            assert_eq!((reply.error(), &reply["error"]), ((404, "M_NOT_FOUND"), &json!("Event report not found")));
        }
    }
    assert_eq!(list(&admin, EVENTS, "").await, (vec![3, 1], 2, None));
    // A number doesn't come again.
    report(&anna, &yard, &reply, json!({})).await;
    assert_eq!(list(&admin, EVENTS, "limit=1").await, (vec![4], 3, Some(1)));
    anna.redact(&hall, &spam).await;
    let redacted = admin.get("/_synapse/admin/v1/event_reports/1").await.ok();
    assert_eq!(redacted["event_json"]["content"], json!({}));
    server.finish().await;
}

#[tokio::test]
async fn user_and_room_reports_are_listed_shown_and_removed() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.create(json!({ "name": "Hall" })).await;
    anna.post("/users/@bert:test.example/report", json!({ "reason": "rude" })).await.ok();
    bert.post("/users/@anna:test.example/report", json!({ "reason": "lies" })).await.ok();
    bert.post(&format!("/rooms/{room}/report"), json!({ "reason": "" })).await.ok();

    assert_eq!(list(&admin, USERS, "").await, (vec![2, 1], 2, None));
    assert_eq!(list(&admin, USERS, "limit=1&dir=f").await, (vec![1], 2, Some(1)));
    assert_eq!(list(&admin, USERS, "user_id=@anna:test.example").await, (vec![1], 1, None));
    assert_eq!(list(&admin, USERS, "target_user_id=@anna:test.example").await, (vec![2], 1, None));
    assert_eq!(list(&admin, USERS, "target_user_id=test.ex&user_id=bert").await, (vec![2], 1, None));
    let shown = admin.get("/_synapse/admin/v1/user_reports/1").await.ok();
    let expected = json!({
        "id": 1, "received_ts": shown["received_ts"], "user_id": "@anna:test.example",
        "target_user_id": "@bert:test.example", "reason": "rude",
    });
    assert_eq!(shown, expected);
    admin.delete("/_synapse/admin/v1/user_reports/1").await.ok();
    let gone = admin.get("/_synapse/admin/v1/user_reports/1").await;
    assert_eq!((gone.error(), &gone["error"]), ((404, "M_NOT_FOUND"), &json!("User report not found")));

    assert_eq!(list(&admin, ROOMS, &format!("room_id={room}&user_id=bert")).await, (vec![1], 1, None));
    let shown = admin.get("/_everfold/admin/v1/room_reports/1").await.ok();
    let expected = json!({
        "id": 1, "received_ts": shown["received_ts"], "user_id": "@bert:test.example", "reason": "",
        "room_id": room, "name": "Hall", "canonical_alias": null,
    });
    assert_eq!(shown, expected);
    admin.delete("/_everfold/admin/v1/room_reports/1").await.ok();
    assert_eq!(admin.delete("/_everfold/admin/v1/room_reports/1").await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn reports_stay_where_a_room_is_purged() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.create(json!({ "preset": "public_chat", "name": "Hall" })).await;
    bert.join(&room).await;
    let event = anna.say(&room, "buy this").await;
    bert.post(&format!("/rooms/{room}/report/{event}"), json!({ "reason": "spam" })).await.ok();
    bert.post(&format!("/rooms/{room}/report"), json!({ "reason": "awful" })).await.ok();
    let sizes = "/_synapse/admin/v1/statistics/database/rooms";
    assert_eq!(admin.get(sizes).await.ok()["rooms"].as_array().unwrap().len(), 1);
    let delete = admin.request(http::Method::DELETE, &format!("/_synapse/admin/v1/rooms/{room}"));
    Reply::of(delete.json(&json!({}))).await.ok();
    assert_eq!(admin.get(sizes).await.ok()["rooms"], json!([]), "nothing is left of it");

    let shown = admin.get("/_synapse/admin/v1/event_reports/1").await.ok();
    assert_eq!((&shown["reason"], &shown["sender"]), (&json!("spam"), &json!("@anna:test.example")));
    assert_eq!((&shown["name"], &shown["event_json"]), (&Value::Null, &Value::Null));
    assert_eq!(list(&admin, EVENTS, &format!("room_id={room}")).await, (vec![1], 1, None));
    assert_eq!(list(&admin, ROOMS, &format!("room_id={room}")).await, (vec![1], 1, None));
    server.finish().await;
}
