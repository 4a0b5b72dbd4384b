use serde_json::{Value, json};

use crate::common::TestServer;

const TOKENS: &str = "/_synapse/admin/v1/registration_tokens";
const NEW: &str = "/_synapse/admin/v1/registration_tokens/new";

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said() {
    let (server, _) = TestServer::with_clock(&[]).await;
    let admin = server.admin("root").await;
    let length = "length must be greater than zero and not greater than 64";
    let size = "token must not be empty and must not be longer than 64 characters";
    let letters = "token must consist only of characters matched by the regex [A-Za-z0-9._~-]";
    let (uses, time, past) = (
        "uses_allowed must be a non-negative integer or null",
        "expiry_time must be an integer or null",
        "expiry_time must not be in the past",
    );
    for (body, message) in [
        (json!({ "token": 7 }), "token must be a string"),
        (json!({ "token": null }), "token must be a string"),
        (json!({ "token": "" }), size),
        (json!({ "token": "a".repeat(65) }), size),
        (json!({ "token": "a b" }), letters),
        (json!({ "token": "ä" }), letters),
        (json!({ "length": "7" }), "length must be an integer"),
        (json!({ "length": 7.5 }), "length must be an integer"),
        (json!({ "length": true }), "length must be an integer"),
        (json!({ "length": 0 }), length),
        (json!({ "length": 65 }), length),
        (json!({ "length": -3 }), length),
        (json!({ "uses_allowed": -1 }), uses),
        (json!({ "uses_allowed": "many" }), uses),
        (json!({ "uses_allowed": 1.5 }), uses),
        (json!({ "expiry_time": "soon" }), time),
        (json!({ "expiry_time": 1.5 }), time),
        (json!({ "expiry_time": 1 }), past),
        (json!({ "expiry_time": -1 }), past),
    ] {
        let reply = admin.post(NEW, body.clone()).await;
        assert_eq!((reply.error(), &reply["error"]), ((400, "M_INVALID_PARAM"), &json!(message)), "{body}");
    }
    admin.post(NEW, json!({ "token": "come-in", "length": "not asked for" })).await.ok();
    let again = admin.post(NEW, json!({ "token": "come-in" })).await;
    assert_eq!((again.error(), &again["error"]), ((400, "M_INVALID_PARAM"), &json!("Token already exists: come-in")));
    let one = format!("{TOKENS}/come-in");
    for (body, message) in [
        (json!({ "uses_allowed": "many" }), uses),
        (json!({ "expiry_time": true }), time),
        (json!({ "expiry_time": 1_699_999_999_999_u64 }), past),
    ] {
        let reply = admin.put(&one, body.clone()).await;
        assert_eq!((reply.error(), &reply["error"]), ((400, "M_INVALID_PARAM"), &json!(message)), "{body}");
    }
    assert_eq!(admin.put(&one, json!([])).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(admin.get(&format!("{TOKENS}?valid=perhaps")).await.error(), (400, "M_INVALID_PARAM"));
    let nothing = format!("{TOKENS}/nothing");
    for reply in [admin.get(&nothing).await, admin.put(&nothing, json!({})).await, admin.delete(&nothing).await] {
        assert_eq!(reply.error(), (404, "M_NOT_FOUND"));
        assert_eq!(reply["error"], "No such registration token: nothing");
    }
    server.finish().await;
}

#[tokio::test]
async fn tokens_are_made_listed_changed_and_removed() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let admin = server.admin("root").await;
    let now = 1_700_000_000_000_u64;
    for (length, expected) in [(None, 16), (Some(1), 1), (Some(64), 64)] {
        let body = length.map_or_else(|| json!({}), |length| json!({ "length": length }));
        let made = admin.post(NEW, body).await.ok();
        let token = made["token"].as_str().unwrap();
        assert_eq!(token.len(), expected, "{token}");
        assert_eq!(
            made,
            json!({ "token": token, "uses_allowed": null, "pending": 0, "completed": 0, "expiry_time": null })
        );
        admin.delete(&format!("{TOKENS}/{token}")).await.ok();
    }
    // The path at which tokens are made is a token's, too.
    let made = admin.post(NEW, json!({ "token": "new", "uses_allowed": 0, "expiry_time": now })).await.ok();
    assert_eq!(admin.get(NEW).await.ok(), made);
    assert_eq!(admin.put(NEW, json!({ "uses_allowed": 2 })).await.ok()["uses_allowed"], 2);
    admin.delete(NEW).await.ok();

    let made = admin.post(NEW, json!({ "token": "b.~_-", "uses_allowed": 3, "expiry_time": now + 60_000 })).await;
    let expected = json!({
        "token": "b.~_-", "uses_allowed": 3, "pending": 0, "completed": 0, "expiry_time": now + 60_000,
    });
    assert_eq!(made.ok(), expected);
    admin.post(NEW, json!({ "token": "a" })).await.ok();
    admin.post(NEW, json!({ "token": "used-up", "uses_allowed": 0 })).await.ok();
    let list = async |query: &str| {
        let list = admin.get(&format!("{TOKENS}{query}")).await.ok();
        let token = |token: &Value| token["token"].as_str().unwrap().to_owned();
        list["registration_tokens"].as_array().unwrap().iter().map(token).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, ["a", "b.~_-", "used-up"]);
    assert_eq!(
        (list("?valid=true").await, list("?valid=false").await),
        (vec!["a".into(), "b.~_-".into()], vec!["used-up".into()])
    );
    clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(list("?valid=true").await, ["a"]);

    let one = format!("{TOKENS}/b.~_-");
    // What is left out stays, null takes a limit away.
    assert_eq!(admin.put(&one, json!({})).await.ok(), expected);
    let changed = admin.put(&one, json!({ "expiry_time": null })).await.ok();
    assert_eq!((&changed["uses_allowed"], &changed["expiry_time"]), (&json!(3), &Value::Null));
    let changed = admin.put(&one, json!({ "uses_allowed": null, "expiry_time": now + 90_000 })).await.ok();
    assert_eq!((&changed["uses_allowed"], &changed["expiry_time"]), (&Value::Null, &json!(now + 90_000)));
    assert_eq!(admin.get(&one).await.ok(), changed);
    assert_eq!(admin.delete(&one).await.ok(), json!({}));
    assert_eq!(list("").await, ["a", "used-up"]);
    server.finish().await;
}
