use serde_json::{Value, json};

use crate::common::{Client, TestServer, rooms::bodies};

const PATH: &str = "/_matrix/client/v2_alpha/sync";

/// The events that a batch names, in its order.
fn resolve(room: &Value, batch: &str) -> Value {
    let ids = room[batch]["events"].as_array().unwrap();
    ids.iter().map(|id| room["event_map"][id.as_str().unwrap()].clone()).collect()
}

#[tokio::test]
async fn the_early_form_says_the_same_with_events_in_a_map() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let (invited, left) =
        (alice.create(json!({ "name": "A name", "invite": [bob.user] })).await, bob.create(json!({})).await);
    let sync = bob.get(PATH).await.ok();
    let joined = &sync["rooms"]["joined"][&room];
    let types: Vec<_> =
        resolve(joined, "timeline").as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
    assert_eq!((&types[0], types.last().unwrap()), (&json!("m.room.create"), &json!("m.room.member")));
    assert!(joined["event_map"].as_object().unwrap().values().all(|event| event["event_id"].is_null()));
    let told = sync["rooms"]["invited"][&invited]["invite_state"]["events"].as_array().unwrap();
    assert!(told.iter().any(|event| event["type"] == "m.room.name"));
    assert_eq!(sync["rooms"]["archived"], json!({}));

    bob.leave(&left).await;
    for n in 0..11 {
        alice.say(&room, &n.to_string()).await;
    }
    bob.put(&format!("/rooms/{room}/send/m.room.message/mine"), json!({ "body": "own" })).await.ok();
    bob.put(&format!("/rooms/{room}/typing/{}", bob.user), json!({ "typing": true })).await.ok();
    let new = bob.get(&format!("{PATH}?since={}&timeout=0", sync["next_batch"].as_str().unwrap())).await.ok();
    let joined = &new["rooms"]["joined"][&room];
    let events = resolve(joined, "timeline");
    assert_eq!(bodies(&events).last(), Some(&"own"));
    assert_eq!((events.as_array().unwrap().len(), &joined["timeline"]["limited"]), (10, &json!(true)));
    assert!(joined["timeline"]["prev_batch"].is_string());
    let own = &events[9]["unsigned"];
    assert_eq!((&own["txn_id"], &own["transaction_id"]), (&json!("mine"), &Value::Null));
    let typing = &joined["ephemeral"]["events"][0];
    assert_eq!((&typing["room_id"], &typing["content"]["user_ids"]), (&json!(room), &json!([bob.user])));
    let archived = &new["rooms"]["archived"][&left];
    assert_eq!(resolve(archived, "timeline")[0]["content"]["membership"], "leave");
    assert_eq!(archived["ephemeral"], Value::Null);
    assert_eq!(refused(&bob, "?since=nonsense").await, (400, "M_INVALID_PARAM".to_owned()));
    assert_eq!(refused(&server.client(), "").await, (401, "M_MISSING_TOKEN".to_owned()));
    server.finish().await;
}

async fn refused(client: &Client, query: &str) -> (u16, String) {
    let reply = client.get(&format!("{PATH}{query}")).await;
    let (status, code) = reply.error();
    (status, code.to_owned())
}
