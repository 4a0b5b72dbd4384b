use serde_json::json;

use crate::common::TestServer;

#[tokio::test]
async fn members_report_events_that_they_see() {
    let server = TestServer::start().await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.room_with(&[&bert]).await;
    let event = anna.say(&room, "buy this").await;
    let path = format!("/rooms/{room}/report/{event}");
    assert_eq!(bert.post(&path, json!({ "reason": "spam", "score": -100 })).await.ok(), json!({}));
    bert.post(&path, json!({})).await.ok();
    let old = bert.post(&format!("/_matrix/client/r0/rooms/{room}/report/{event}"), json!({ "reason": "again" })).await;
    assert_eq!(old.ok(), json!({}));
    for wrong in [json!({ "reason": 7 }), json!({ "score": "bad" }), json!({ "score": 1.5 }), json!({ "score": true })]
    {
        assert_eq!(bert.post(&path, wrong.clone()).await.error(), (400, "M_BAD_JSON"), "{wrong}");
    }
    let long = json!({ "reason": "ä".repeat(1_001) });
    assert_eq!(bert.post(&path, long).await.error(), (400, "M_BAD_JSON"));
    bert.post(&path, json!({ "reason": "ä".repeat(1_000) })).await.ok();

    let carl = server.user("carl").await;
    assert_eq!(carl.post(&path, json!({})).await.error(), (404, "M_NOT_FOUND"), "not in the room");
    let other = bert.create(json!({})).await;
    for path in [
        format!("/rooms/{other}/report/{event}"),
        format!("/rooms/{room}/report/$nothing"),
        format!("/rooms/!nothing:test.example/report/{event}"),
    ] {
        assert_eq!(bert.post(&path, json!({})).await.error(), (404, "M_NOT_FOUND"), "{path}");
    }
    anna.redact(&room, &event).await;
    assert_eq!(bert.post(&path, json!({})).await.error(), (404, "M_NOT_FOUND"), "nothing is left of it");
    assert_eq!(server.client().post(&path, json!({})).await.error(), (401, "M_MISSING_TOKEN"));
    server.finish().await;
}

#[tokio::test]
async fn anybody_reports_rooms_and_users() {
    let server = TestServer::start().await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.create(json!({})).await;
    bert.post(&format!("/rooms/{room}/report"), json!({ "reason": "awful" })).await.ok();
    let unstable = format!("/_matrix/client/unstable/org.matrix.msc4151/rooms/{room}/report");
    bert.post(&unstable, json!({ "reason": "" })).await.ok();
    let none = bert.post("/rooms/!nothing:test.example/report", json!({ "reason": "awful" })).await;
    assert_eq!(none.error(), (404, "M_NOT_FOUND"));
    assert_eq!(bert.post(&format!("/rooms/{room}/report"), json!({ "reason": 7 })).await.error(), (400, "M_BAD_JSON"));

    let path = "/users/@anna:test.example/report";
    bert.post(path, json!({ "reason": "rude" })).await.ok();
    assert_eq!(bert.post(path, json!({})).await.error(), (400, "M_MISSING_PARAM"));
    assert_eq!(bert.post(path, json!({ "reason": "a".repeat(1_001) })).await.error(), (400, "M_BAD_JSON"));
    // Who is there is not told.
    for user in ["@nobody:test.example", "@anna:other.example"] {
        bert.post(&format!("/users/{user}/report"), json!({ "reason": "rude" })).await.ok();
    }
    assert_eq!(bert.post("/users/anna/report", json!({ "reason": "rude" })).await.error(), (400, "M_INVALID_PARAM"));
    let list = server.admin("root").await.get("/_synapse/admin/v1/user_reports").await.ok();
    assert_eq!((&list["total"], &list["user_reports"][0]["target_user_id"]), (&json!(1), &json!("@anna:test.example")));
    server.finish().await;
}

#[tokio::test]
async fn reports_are_limited() {
    let server = TestServer::with(&[
        ("rate_limits.enabled", "on"),
        ("rate_limits.report.burst", "2"),
        ("rate_limits.report.per_second", "0.001"),
    ])
    .await;
    let anna = server.user("anna").await;
    let report = async || anna.post("/users/@nobody:test.example/report", json!({ "reason": "rude" })).await;
    report().await.ok();
    report().await.ok();
    assert_eq!(report().await.error(), (429, "M_LIMIT_EXCEEDED"));
    server.finish().await;
}
