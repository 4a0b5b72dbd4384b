use serde_json::{Value, json};

use crate::common::{Client, TestServer, rooms::text, until};

fn path(user: &Client) -> String {
    format!("/_synapse/admin/v1/user/{}/redact", user.user)
}

/// Redacts, and says how that ended.
async fn redact(admin: &Client, user: &Client, body: Value) -> Value {
    let id = text(&admin.post(&path(user), body).await.ok()["redact_id"]);
    let path = format!("/_synapse/admin/v1/user/redact_status/{id}");
    until(async || ["complete", "failed"].map(Value::from).contains(&admin.get(&path).await.ok()["status"])).await;
    admin.get(&path).await.ok()
}

/// What can still be read of these events.
async fn readable(reader: &Client, room: &str, events: &[String]) -> Vec<String> {
    let mut readable = Vec::new();
    for event in events {
        let event = reader.get(&format!("/rooms/{room}/event/{event}")).await.ok();
        readable.extend(event["content"]["body"].as_str().map(ToOwned::to_owned));
    }
    readable
}

#[tokio::test]
async fn what_a_user_wrote_is_redacted_in_all_their_rooms_or_some() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let (one, two) = (anna.room_with(&[&bert, &admin]).await, anna.room_with(&[&bert]).await);
    let (mut in_one, mut in_two) = (Vec::new(), Vec::new());
    for n in 0..70 {
        in_one.push(bert.say(&one, &n.to_string()).await);
    }
    in_two.push(bert.say(&two, "two").await);
    let hers = [anna.say(&one, "hers").await];

    let done = redact(&admin, &bert, json!({ "rooms": [one], "limit": 1, "reason": "spam" })).await;
    assert_eq!(done, json!({ "status": "complete", "failed_redactions": {} }));
    assert_eq!(readable(&anna, &one, &in_one).await.len(), 69, "the newest alone");
    let last = anna.get(&format!("/rooms/{one}/event/{}", in_one[69])).await.ok();
    let because = &last["unsigned"]["redacted_because"];
    assert_eq!((&because["sender"], &because["content"]["reason"]), (&json!(bert.user), &json!("spam")));

    let done = redact(&admin, &bert, json!({ "rooms": [] })).await;
    assert_eq!(done, json!({ "status": "complete", "failed_redactions": {} }));
    assert_eq!(readable(&anna, &one, &in_one).await, [""; 0]);
    assert_eq!(readable(&anna, &two, &in_two).await, [""; 0]);
    assert_eq!(readable(&anna, &one, &hers).await, ["hers"]);
    server.finish().await;
}

#[tokio::test]
async fn each_redaction_that_fails_is_named_with_its_reason() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.room_with(&[&bert]).await;
    let said = bert.say(&room, "said").await;
    // The administrator is not in the room.
    let done = redact(&admin, &bert, json!({ "rooms": [room], "use_admin": true })).await;
    let why = &done["failed_redactions"][&said];
    assert_eq!((&done["status"], why), (&json!("complete"), &json!("you are not in this room")), "{done}");
    // Whoever sets the levels may redact what others wrote.
    admin.put(&format!("/_synapse/admin/v1/users/{}/admin", anna.user), json!({ "admin": true })).await.ok();
    let done = redact(&anna, &bert, json!({ "rooms": [room], "use_admin": true })).await;
    assert_eq!(done, json!({ "status": "complete", "failed_redactions": {} }));
    let redacted = anna.get(&format!("/rooms/{room}/event/{said}")).await.ok();
    assert_eq!(redacted["unsigned"]["redacted_because"]["sender"], json!(anna.user));

    for (body, error) in [
        (json!({}), (400, "M_MISSING_PARAM")),
        (json!({ "rooms": "all" }), (400, "M_BAD_JSON")),
        (json!({ "rooms": [], "limit": -1 }), (400, "M_UNKNOWN")),
        (json!({ "rooms": [], "use_admin": 1 }), (400, "M_BAD_JSON")),
        (json!({ "rooms": [], "reason": 1 }), (400, "M_BAD_JSON")),
    ] {
        assert_eq!(admin.post(&path(&bert), body.clone()).await.error(), error, "{body}");
    }
    let none = admin.get("/_synapse/admin/v1/user/redact_status/none").await;
    assert_eq!((none.error(), &none["error"]), ((404, "M_NOT_FOUND"), &json!("redact id 'none' not found")));
    let nobody = admin.post("/_synapse/admin/v1/user/nobody/redact", json!({ "rooms": [] })).await;
    assert_eq!(nobody.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}
