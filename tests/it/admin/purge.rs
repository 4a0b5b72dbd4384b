use projections::{
    Position, View,
    models::{events, timeline},
};
use serde_json::{Value, json};

use crate::common::{
    Client, TestServer,
    rooms::{bodies, text},
    until,
};

/// Waits for the end of a purge.
async fn ended(admin: &Client, id: &str) -> Value {
    let path = format!("/_synapse/admin/v1/purge_history_status/{id}");
    until(async || admin.get(&path).await.ok()["status"] != "active").await;
    admin.get(&path).await.ok()
}

fn known(view: &View, event: &str) -> bool {
    events::nid(view, event).unwrap().is_some()
}

fn path(room: &str) -> String {
    format!("/_synapse/admin/v1/purge_history/{room}")
}

#[tokio::test]
async fn what_is_before_a_point_goes_and_the_rest_stays() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.room_with(&[&bert]).await;
    let mut said = Vec::new();
    for n in 0..250 {
        said.push(anna.say(&room, &n.to_string()).await);
    }
    let relates = json!({ "rel_type": "m.annotation", "event_id": said[249], "key": "+" });
    bert.send(&room, "m.reaction", json!({ "m.relates_to": relates })).await;
    let since = text(&bert.get("/sync").await.ok()["next_batch"]);
    let state = anna.get(&format!("/rooms/{room}/state")).await.ok();

    // Events of this server's own users are taken out of the order, and stay known.
    let begun = admin.post(&format!("/_synapse/admin/v1/purge_history/{room}/{}", said[100]), json!({})).await.ok();
    assert_eq!(ended(&admin, &text(&begun["purge_id"])).await, json!({ "status": "complete" }));
    let page = anna.page(&room, "dir=f&limit=3").await;
    assert_eq!(bodies(&page["chunk"]), ["100", "101", "102"]);
    assert_eq!(anna.get(&format!("/rooms/{room}/event/{}", said[99])).await.error(), (404, "M_NOT_FOUND"));
    assert!(known(&server.app().view().unwrap(), &said[99]));

    // With `delete_local_events` they are forgotten.
    let body = json!({ "purge_up_to_event_id": said[249], "delete_local_events": true });
    let begun = admin.post(&path(&room), body).await.ok();
    assert_eq!(ended(&admin, &text(&begun["purge_id"])).await, json!({ "status": "complete" }));
    let view = server.app().view().unwrap();
    assert!(said[100..249].iter().all(|event| !known(&view, event)) && known(&view, &said[249]));
    let nid = events::room_nid(&view, &room).unwrap().unwrap();
    assert_eq!(timeline::forward(&view, nid, Position::START).count(), 2);
    drop(view);
    assert_eq!(bodies(&anna.page(&room, "dir=b&limit=100").await["chunk"]), ["249"]);
    let now = anna.get(&format!("/rooms/{room}/state")).await.ok();
    assert_eq!(now.as_array().unwrap().len(), state.as_array().unwrap().len(), "the room is what it was");

    // The room goes on, and so do syncs.
    let next = bert.say(&room, "next").await;
    let sync = bert.get(&format!("/sync?since={since}")).await.ok();
    assert_eq!(sync["rooms"]["join"][&room]["timeline"]["events"][0]["event_id"], json!(next));
    bert.get("/sync").await.ok();
    bert.leave(&room).await;
    bert.join(&room).await;

    let tasks = admin.get("/_synapse/admin/v1/scheduled_tasks?action_name=purge_history").await.ok();
    let tasks = tasks["scheduled_tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    assert!(tasks[1]["result"]["purged"]["keys"].as_u64() > Some(1_000), "{tasks:?}");
    server.finish().await;
}

#[tokio::test]
async fn a_purge_up_to_a_time_and_what_is_refused() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let (room, other) = (anna.room_with(&[]).await, anna.room_with(&[]).await);
    anna.say(&room, "early").await;
    let last = anna.say(&room, "last").await;
    let elsewhere = anna.say(&other, "elsewhere").await;
    let far = json!({ "purge_up_to_ts": 9_999_999_999_999_u64, "delete_local_events": true });
    let begun = admin.post(&path(&room), far).await.ok();
    ended(&admin, &text(&begun["purge_id"])).await;
    assert_eq!(anna.page(&room, "dir=f").await["chunk"].as_array().unwrap().len(), 1, "the last event stays");
    assert!(known(&server.app().view().unwrap(), &last));

    let refused = async |body: Value| admin.post(&path(&room), body).await;
    assert_eq!(refused(json!({ "purge_up_to_ts": 0 })).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(refused(json!({ "purge_up_to_ts": 0 })).await["error"], "there is no event to be purged");
    assert_eq!(refused(json!({ "purge_up_to_ts": "now" })).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(refused(json!({})).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(refused(json!({})).await["error"], "must specify purge_up_to_event_id or purge_up_to_ts");
    assert_eq!(refused(json!({ "purge_up_to_event_id": "$none" })).await.error(), (404, "M_NOT_FOUND"));
    let wrong = refused(json!({ "purge_up_to_event_id": elsewhere })).await;
    assert_eq!((wrong.error(), &wrong["error"]), ((400, "M_UNKNOWN"), &json!("Event is for wrong room.")));
    let none = admin.get("/_synapse/admin/v1/purge_history_status/none").await;
    assert_eq!((none.error(), &none["error"]), ((404, "M_NOT_FOUND"), &json!("purge id 'none' not found")));
    server.finish().await;
}
