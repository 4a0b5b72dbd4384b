use serde_json::json;

use super::{of, told};
use crate::common::{
    TestServer,
    remote::{Remote, at, ends, message, topic},
};

const BOB: &str = "@bob:b.example";

#[tokio::test]
async fn what_comes_next_is_not_built_on_extremities_that_were_removed() {
    let (server, _) = TestServer::with_clock(&[]).await;
    let (admin, alice) = (server.admin("root").await, server.user("alice").await);
    let levels = json!({ "events_default": 0, "state_default": 0 });
    let body = json!({ "preset": "public_chat", "room_alias_name": "forked", "power_level_content_override": levels });
    let room = alice.create(body).await;
    let mut bob = Remote::joined(&server, &room, BOB).await;
    let path = of(&room, "/forward_extremities");
    let shown = async || admin.get(&path).await.ok();
    assert_eq!(shown().await["count"], 1);
    assert_eq!(admin.delete(&path).await.ok(), json!({ "deleted": 0 }));

    // Three of Bob's that know nothing of each other, one of which changes the state.
    for what in [message("one"), topic("changed"), message("two")] {
        let event = bob.send_aside(BOB, what);
        bob.deliver(&server, &event).await;
    }
    let forked = ends(&server, &room);
    assert_eq!(forked.len(), 3);
    assert!(at(&server, &room, "m.room.topic", "").is_some());
    let found = shown().await;
    assert_eq!(found["count"], 3);
    for (shown, id) in found["results"].as_array().unwrap().iter().zip(&forked) {
        assert_eq!(shown["event_id"], json!(id));
        assert!(shown["depth"].is_u64() && shown["state_group"].is_u64() && shown["received_ts"].is_u64(), "{shown}");
    }
    let groups: std::collections::BTreeSet<_> =
        found["results"].as_array().unwrap().iter().map(|shown| shown["state_group"].as_u64()).collect();
    assert_eq!(groups.len(), 2, "two of them have one state");

    assert_eq!(admin.delete(&of("%23forked:test.example", "/forward_extremities")).await.ok(), json!({ "deleted": 2 }));
    assert_eq!(ends(&server, &room), [forked[2].clone()], "the one that came last stays");
    assert_eq!(at(&server, &room, "m.room.topic", ""), None, "the state is that of its branch");
    let state = alice.get(&format!("/rooms/{room}/state/m.room.topic")).await;
    assert_eq!(state.error(), (404, "M_NOT_FOUND"));
    let said = alice.say(&room, "three").await;
    let event = admin.get(&format!("/_synapse/admin/v1/fetch_event/{said}")).await.ok()["event"].clone();
    assert_eq!(event["prev_events"], json!([forked[2]]));
    assert_eq!(ends(&server, &room), [said]);
    // A branch that was given up can still be gone on with.
    let event = bob.send_aside(BOB, message("four"));
    bob.deliver(&server, &event).await;
    assert_eq!(shown().await["count"], 2);
    assert_eq!(
        alice.get("/sync").await.ok()["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().len(),
        10
    );

    for room in ["!none:test.example", "!unknown"] {
        assert_eq!(admin.get(&of(room, "/forward_extremities")).await.ok(), json!({ "count": 0, "results": [] }));
        let message = format!("No forward extremity event found for room {room}");
        let reply = admin.delete(&of(room, "/forward_extremities")).await;
        assert_eq!(told(&reply), (400, "M_UNKNOWN", &*message));
    }
    let reply = admin.get(&of("room", "/forward_extremities")).await;
    assert_eq!(told(&reply), (400, "M_UNKNOWN", "room was not legal room ID or room alias"));
    server.finish().await;
}
