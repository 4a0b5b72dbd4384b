use ruma::{
    MilliSecondsSinceUnixEpoch, RoomVersionId, api::client::room::create_room::v3::Request, room_alias_id, room_id,
    uint,
};
use serde_json::{Value, json};

use crate::rooms::{
    Builder, Prototype,
    create::{Begun, CreateError, Founding, Profile, begin, prototypes},
    testing::{key, rules, user},
};

/// A request as a client's JSON says it.
fn request(body: &Value) -> Request {
    use ruma::api::IncomingRequestExt;
    let body = serde_json::to_vec(body).unwrap();
    let http = http::Request::post("/_matrix/client/v3/createRoom").body(&body[..]).unwrap();
    Request::try_from_http_request(http, &[] as &[&str]).unwrap()
}

fn implied(version: u8, body: &Value) -> Result<Vec<Prototype>, CreateError> {
    let founding = Founding {
        creator: user("@alice:a"),
        version: &RoomVersionId::try_from(version.to_string()).unwrap(),
        rules: rules(version),
        alias: body.get("room_alias_name").map(|_| room_alias_id!("#pub:a")),
    };
    prototypes(&request(body), founding, |user| Profile { display_name: Some(user.localpart().into()), avatar: None })
}

fn begun(version: u8, body: &Value) -> Result<Begun, CreateError> {
    let key = key("a");
    let builder = Builder { rules: rules(version), key: &key };
    let room_id = (version < 12).then_some(room_id!("!room:a"));
    begin(builder, implied(version, body)?, user("@alice:a"), room_id, MilliSecondsSinceUnixEpoch(uint!(1)))
}

fn names(events: &[Prototype]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}", event.kind, event.state_key.clone().unwrap())).collect()
}

fn content(events: &[Prototype], kind: &str) -> Value {
    let event = events.iter().rev().find(|event| event.kind == kind).unwrap();
    serde_json::to_value(&event.content).unwrap()
}

#[test]
fn events_come_in_the_order_of_the_specification_and_are_allowed() {
    let body = json!({
        "preset": "public_chat", "room_alias_name": "pub", "name": "The Pub", "topic": "Hour",
        "invite": ["@bob:b", "@bob:b", "@carol:a"], "is_direct": true,
        "initial_state": [
            { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
            { "type": "m.room.name", "state_key": "", "content": { "name": "overridden" } },
            { "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
        ],
    });
    for version in 3..=12 {
        let events = implied(version, &body).unwrap();
        assert_eq!(
            names(&events),
            [
                "m.room.create ",
                "m.room.member @alice:a",
                "m.room.power_levels ",
                "m.room.canonical_alias ",
                "m.room.join_rules ",
                "m.room.history_visibility ",
                "m.room.guest_access ",
                "m.room.encryption ",
                "m.room.name ",
                "m.room.topic ",
                "m.room.member @bob:b",
                "m.room.member @carol:a",
            ]
        );
        assert_eq!(content(&events, "m.room.guest_access"), json!({ "guest_access": "can_join" }));
        assert_eq!(content(&events, "m.room.name"), json!({ "name": "The Pub" }));
        assert_eq!(content(&events, "m.room.topic")["topic"], "Hour");
        let invite = json!({ "membership": "invite", "displayname": "carol", "is_direct": true });
        assert_eq!(content(&events, "m.room.member"), invite);
        let begun = begun(version, &body).unwrap();
        assert_eq!((begun.events.len(), begun.state.len()), (12, 12));
        for (n, pair) in begun.events.windows(2).enumerate() {
            assert_eq!(pair[1].pdu.prev_events(), [pair[0].pdu.id()]);
            assert_eq!(pair[1].pdu.depth(), n as u64 + 2);
            assert_eq!(pair[1].pdu.room_id(), pair[0].pdu.room_id());
        }
    }
}

#[test]
fn presets_set_who_may_join() {
    for (body, join_rule, guests) in [
        (json!({}), "invite", "can_join"),
        (json!({ "visibility": "public" }), "public", "forbidden"),
        (json!({ "visibility": "public", "preset": "private_chat" }), "invite", "can_join"),
        (json!({ "preset": "trusted_private_chat" }), "invite", "can_join"),
    ] {
        let events = implied(12, &body).unwrap();
        assert_eq!(content(&events, "m.room.join_rules"), json!({ "join_rule": join_rule }));
        assert_eq!(content(&events, "m.room.guest_access"), json!({ "guest_access": guests }));
        assert_eq!(content(&events, "m.room.history_visibility"), json!({ "history_visibility": "shared" }));
    }
}

#[test]
fn trusted_friends_are_the_creators_equals() {
    let body = json!({
        "preset": "trusted_private_chat", "invite": ["@bob:b", "@carol:a"],
        "creation_content": { "additional_creators": ["@carol:a", "@dave:a"] },
    });
    let old = implied(11, &body).unwrap();
    let users = json!({ "@alice:a": 100, "@bob:b": 100, "@carol:a": 100 });
    assert_eq!(content(&old, "m.room.power_levels")["users"], users);
    let new = implied(12, &body).unwrap();
    let creators = json!(["@carol:a", "@dave:a", "@bob:b"]);
    assert_eq!(content(&new, "m.room.create")["additional_creators"], creators);
    assert_eq!(content(&new, "m.room.power_levels")["users"], json!({}));
    assert!(begun(11, &body).is_ok() && begun(12, &body).is_ok());
}

#[test]
fn the_create_event_says_what_the_server_knows() {
    let body = json!({
        "creation_content": { "m.federate": false, "creator": "@liar:a", "room_version": "1", "type": "m.space", "x": [1] },
    });
    let old = content(&implied(10, &body).unwrap(), "m.room.create");
    assert_eq!(
        old,
        json!({ "creator": "@alice:a", "m.federate": false, "room_version": "10", "type": "m.space", "x": [1] })
    );
    let new = content(&implied(11, &body).unwrap(), "m.room.create");
    assert_eq!(new, json!({ "m.federate": false, "room_version": "11", "type": "m.space", "x": [1] }));
}

#[test]
fn power_levels_can_be_overridden_within_the_rules() {
    let body = json!({ "power_level_content_override": { "events": { "x": 5 }, "invite": 7 } });
    for (version, events) in [(11, json!({ "x": 5 })), (12, json!({ "x": 5, "m.room.tombstone": 150 }))] {
        let levels = content(&implied(version, &body).unwrap(), "m.room.power_levels");
        assert_eq!((&levels["events"], &levels["invite"], &levels["ban"]), (&events, &json!(7), &json!(50)));
        assert!(begun(version, &body).is_ok());
    }
    let powerless = json!({ "power_level_content_override": { "users": { "@bob:b": 100 } } });
    assert!(matches!(begun(11, &powerless), Err(CreateError::InvalidState(_))));
    assert!(begun(12, &powerless).is_ok());
    let creator = json!({ "power_level_content_override": { "users": { "@alice:a": 100 } } });
    let refused = begun(12, &creator).err().unwrap();
    assert_eq!(refused.to_string(), "m.room.power_levels: creator user IDs are not allowed in the `users` field");
    let words = json!({ "power_level_content_override": { "ban": "50" } });
    assert!(matches!(begun(12, &words), Err(CreateError::InvalidState(_))));
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    let third_party = json!({
        "invite_3pid": [{ "id_server": "i", "id_access_token": "t", "medium": "email", "address": "a@b" }],
    });
    assert!(matches!(implied(12, &third_party), Err(CreateError::ThirdPartyInvite)));
    for body in [
        json!({ "initial_state": [{ "type": "x", "state_key": "", "content": { "a": 1.5 } }] }),
        json!({ "initial_state": [{ "type": "x", "state_key": "", "content": [] }] }),
        json!({ "initial_state": [{ "state_key": "", "content": {} }] }),
        json!({ "creation_content": { "m.federate": "no" } }),
        json!({ "creation_content": { "additional_creators": ["bob"] } }),
        json!({ "power_level_content_override": { "ban": 0.5 } }),
    ] {
        assert!(matches!(implied(12, &body), Err(CreateError::Malformed(_))), "{body}");
    }
    for body in [
        json!({ "invite": ["@alice:a"] }),
        json!({ "initial_state": [{ "type": "m.room.create", "state_key": "", "content": {} }] }),
        json!({ "initial_state": [{ "type": "m.room.member", "state_key": "@bob:b", "content": { "membership": "join" } }] }),
    ] {
        assert!(matches!(begun(12, &body), Err(CreateError::InvalidState(_))), "{body}");
    }
    let large = json!({ "name": "x".repeat(70_000) });
    assert!(matches!(begun(12, &large), Err(CreateError::TooLarge(_))));
}
