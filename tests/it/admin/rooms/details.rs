use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{of, told};
use crate::common::TestServer;

#[tokio::test]
async fn details_say_all_that_is_known_of_a_room() {
    let server = TestServer::start().await;
    let (admin, anna, bert) = (server.admin("root").await, server.user("anna").await, server.user("bert").await);
    let body = json!({
        "preset": "public_chat", "name": "Tea", "topic": "and biscuits", "room_alias_name": "tea", "visibility": "public",
        "room_version": "11", "creation_content": { "type": "m.space", "m.federate": false },
        "initial_state": [
            { "type": "m.room.avatar", "content": { "url": "mxc://a/b" } },
            { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
        ],
    });
    let room = anna.create(body).await;
    bert.join(&room).await;
    bert.on_device("TABLET").await;
    let found = admin.get(&of(&room, "")).await.ok();
    assert_eq!(
        found,
        json!({
            "room_id": room, "name": "Tea", "topic": "and biscuits", "avatar": "mxc://a/b",
            "canonical_alias": "#tea:test.example", "joined_members": 2, "joined_local_members": 2,
            "joined_local_devices": 3, "version": "11", "creator": "@anna:test.example",
            "encryption": "m.megolm.v1.aes-sha2", "federatable": false, "public": true, "join_rules": "public",
            "guest_access": "forbidden", "history_visibility": "shared", "state_events": found["state_events"],
            "room_type": "m.space", "forgotten": false, "tombstoned": false, "replacement_room": null,
        })
    );
    let state = admin.get(&of(&room, "/state")).await.ok();
    assert_eq!(found["state_events"], state["state"].as_array().unwrap().len());

    anna.set(&room, "m.room.tombstone", "", json!({ "body": "moved", "replacement_room": "!new:test.example" })).await;
    let bare = bert.create(json!({ "room_version": "10" })).await;
    for who in [&anna, &bert] {
        who.leave(&room).await;
        who.post(&format!("/rooms/{room}/forget"), json!({})).await.ok();
    }
    let found = admin.get(&of(&room, "")).await.ok();
    let some = ["joined_members", "joined_local_devices", "forgotten", "tombstoned", "replacement_room"];
    assert_eq!(
        some.map(|key| found[key].clone()),
        [json!(0), json!(0), json!(true), json!(true), json!("!new:test.example")]
    );
    let found = admin.get(&of(&bare, "")).await.ok();
    let nulls = found.as_object().unwrap().iter().filter(|(_, value)| value.is_null()).map(|(key, _)| key.as_str());
    let nulls: BTreeSet<_> = nulls.collect();
    let expected = ["name", "topic", "avatar", "canonical_alias", "encryption", "room_type", "replacement_room"];
    assert_eq!(nulls, BTreeSet::from(expected));
    assert_eq!((&found["federatable"], &found["public"]), (&json!(true), &json!(false)));

    for room in ["!none:test.example", "nonsense", "%23tea:test.example"] {
        for what in ["", "/members", "/state"] {
            let reply = admin.get(&of(room, what)).await;
            assert_eq!(told(&reply), (404, "M_NOT_FOUND", "Room not found"), "{room}{what}");
        }
    }
    server.finish().await;
}

#[tokio::test]
async fn members_and_state_are_those_of_now_whoever_asks() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let (bert, carl) = (server.user("bert").await, server.user("carl").await);
    let room = anna.create(json!({ "name": "Ours" })).await;
    anna.invite(&room, &bert).await;
    anna.invite(&room, &carl).await;
    bert.join(&room).await;
    let members = async || {
        let found = admin.get(&of(&room, "/members")).await.ok();
        let mut members: Vec<_> =
            found["members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap().to_owned()).collect();
        assert_eq!(found["total"], members.len());
        members.sort();
        members
    };
    assert_eq!(members().await, ["@anna:test.example", "@bert:test.example"]);
    bert.leave(&room).await;
    assert_eq!(members().await, ["@anna:test.example"]);

    let events = async |query: &str| {
        let state = admin.get(&of(&room, &format!("/state{query}"))).await.ok();
        state["state"].as_array().unwrap().clone()
    };
    let named = events("?type=m.room.name").await;
    assert_eq!(named.len(), 1);
    let event = &named[0];
    assert_eq!(
        [&event["type"], &event["content"]["name"], &event["room_id"], &event["sender"], &event["state_key"]],
        [&json!("m.room.name"), &json!("Ours"), &json!(room), &json!("@anna:test.example"), &json!("")]
    );
    assert!(event["event_id"].is_string() && event["origin_server_ts"].is_u64());
    let of_members = events("?type=m.room.member").await;
    let shown: BTreeSet<_> = of_members.iter().map(|event| event["state_key"].as_str().unwrap()).collect();
    assert_eq!(shown, BTreeSet::from(["@anna:test.example", "@bert:test.example", "@carl:test.example"]));
    assert_eq!(events("?type=none").await, Vec::<Value>::new());
    // All of it is what a member gets.
    let ids = |events: &[Value]| -> BTreeSet<String> {
        events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    let seen = anna.get(&format!("/rooms/{room}/state")).await.ok();
    assert_eq!(ids(&events("").await), ids(seen.as_array().unwrap()));
    server.finish().await;
}
