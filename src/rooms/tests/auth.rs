use std::collections::BTreeSet;

use ruma::{
    events::{StateEventType, room::member::MembershipState},
    room_id,
};
use serde_json::json;

use crate::rooms::{
    Pdu,
    auth::allowed_by_auth_events,
    join_rules::{WayIn, authoriser, way_in},
    membership, over,
    testing::{Room, message, state, user},
    versions,
};

#[test]
fn only_members_speak_and_they_are_told_why_not() {
    for version in 3..=12 {
        let (mut room, start) = Room::begin(version, json!({}));
        let refused = room.send(&[&start], "@bob:b", message("Hi")).unwrap_err();
        assert_eq!(refused.to_string(), "sender's membership is not `join`");
        let joined = room.member(&[&start], "@bob:b", "@bob:b", "join").unwrap();
        assert!(room.send(&[&joined], "@bob:b", message("Hi")).is_ok());
        let refused = room.send(&[&joined], "@bob:b", state("m.room.topic", "", json!({}))).unwrap_err();
        assert!(refused.to_string().contains("does not have enough power"), "{refused}");
        let banned = room.member(&[&joined], "@alice:a", "@bob:b", "ban").unwrap();
        assert!(room.send(&[&banned], "@bob:b", message("Hi")).is_err());
        let refused = room.member(&[&banned], "@bob:b", "@bob:b", "join").unwrap_err();
        assert_eq!(refused.to_string(), "banned user cannot join room");
    }
}

#[test]
fn a_failing_look_up_fails_the_decision() {
    let member = |state: &dyn Fn(&StateEventType, &str) -> Option<Pdu>| membership(user("@alice:a"), state);
    let decided = over(|_, _| Ok::<_, &str>(None), member);
    assert_eq!(decided, Ok(MembershipState::Leave));
    assert_eq!(over(|_, key| Err(key.to_owned()), member), Err("@alice:a".to_owned()));
}

#[test]
fn an_invitation_opens_a_closed_room() {
    for version in 3..=12 {
        let (mut room, start) = Room::begin(version, json!({}));
        let closed = room.send(&[&start], "@alice:a", state("m.room.join_rules", "", json!({ "join_rule": "invite" })));
        let closed = closed.unwrap();
        let before = room.before(&[&closed]);
        assert_eq!(way_in(user("@bob:b"), room.look(&before), room.rules), WayIn::Closed { knock: false });
        assert!(room.member(&[&closed], "@bob:b", "@bob:b", "join").is_err());
        let invited = room.member(&[&closed], "@alice:a", "@bob:b", "invite").unwrap();
        let before = room.before(&[&invited]);
        assert_eq!(way_in(user("@bob:b"), room.look(&before), room.rules), WayIn::Open);
        assert!(room.member(&[&invited], "@bob:b", "@bob:b", "join").is_ok());
    }
}

#[test]
fn knocking_begins_with_version_7() {
    for version in 3..=12 {
        let (mut room, start) = Room::begin(version, json!({}));
        let knock = state("m.room.join_rules", "", json!({ "join_rule": "knock" }));
        let closed = room.send(&[&start], "@alice:a", knock).unwrap();
        let before = room.before(&[&closed]);
        let way = way_in(user("@bob:b"), room.look(&before), room.rules);
        assert_eq!(way, WayIn::Closed { knock: version >= 7 });
        assert_eq!(room.member(&[&closed], "@bob:b", "@bob:b", "knock").is_ok(), version >= 7, "version {version}");
    }
}

#[test]
fn a_restricted_room_lets_in_whom_a_member_with_power_vouches_for() {
    let rule = json!({
        "join_rule": "restricted",
        "allow": [
            { "type": "m.room_membership", "room_id": "!other:a" },
            { "type": "m.room_membership" },
            { "type": "org.example.odd", "room_id": "!odd:a" },
            7,
        ],
    });
    for version in 8..=12 {
        let (mut room, start) = Room::begin(version, json!({ "invite": 50 }));
        let carol = room.member(&[&start], "@carol:a", "@carol:a", "join").unwrap();
        let closed = room.send(&[&carol], "@alice:a", state("m.room.join_rules", "", rule.clone())).unwrap();
        let before = room.before(&[&closed]);
        let through = BTreeSet::from([room_id!("!other:a").to_owned()]);
        assert_eq!(way_in(user("@bob:b"), room.look(&before), room.rules), WayIn::Through(through));

        let join = |via: Option<&str>| {
            let mut content = json!({ "membership": "join" });
            if let Some(via) = via {
                content["join_authorised_via_users_server"] = via.into();
            }
            state("m.room.member", "@bob:b", content)
        };
        for via in [None, Some("@carol:a"), Some("@dave:a")] {
            assert!(room.send(&[&closed], "@bob:b", join(via)).is_err(), "{via:?}");
        }
        let users = ["@dave:a", "@carol:a", "@alice:a"].map(user);
        let via = authoriser(users, room.look(&before), room.rules).unwrap().unwrap();
        assert_eq!(via, "@alice:a");
        assert!(room.send(&[&closed], "@bob:b", join(Some(via.as_str()))).is_ok());
    }
    let (mut room, start) = Room::begin(7, json!({}));
    let closed = room.send(&[&start], "@alice:a", state("m.room.join_rules", "", rule)).unwrap();
    let before = room.before(&[&closed]);
    assert_eq!(way_in(user("@bob:b"), room.look(&before), room.rules), WayIn::Closed { knock: false });
}

#[test]
fn creators_of_version_12_stand_above_all_levels() {
    let mut room = Room::empty(12);
    let create = json!({ "room_version": "12", "additional_creators": ["@bob:b"] });
    let create = room.send(&[], "@alice:a", state("m.room.create", "", create)).unwrap();
    let alice = room.member(&[&create], "@alice:a", "@alice:a", "join").unwrap();
    for creator in ["@alice:a", "@bob:b"] {
        let levels = state("m.room.power_levels", "", json!({ "users": { creator: 100 } }));
        assert!(room.send(&[&alice], "@alice:a", levels).is_err());
    }
    let levels = json!({ "users": { "@carol:b": 9_007_199_254_740_991_i64 }, "events": { "m.room.topic": 1000 } });
    let levels = room.send(&[&alice], "@alice:a", state("m.room.power_levels", "", levels)).unwrap();
    let public = state("m.room.join_rules", "", json!({ "join_rule": "public" }));
    let mut last = room.send(&[&levels], "@alice:a", public).unwrap();
    for user in ["@bob:b", "@carol:b"] {
        last = room.member(&[&last], user, user, "join").unwrap();
    }
    assert!(room.send(&[&last], "@bob:b", state("m.room.topic", "", json!({ "topic": "T" }))).is_ok());
    assert!(room.member(&[&last], "@carol:b", "@bob:b", "ban").is_err());
    assert!(room.member(&[&last], "@bob:b", "@carol:b", "ban").is_ok());
}

#[test]
fn the_id_of_a_room_must_be_that_of_a_create_event() {
    let (mut room, start) = Room::begin(12, json!({}));
    let said = room.send(&[&start], "@alice:a", message("Hi")).unwrap();
    let mut odd = Room::empty(12);
    odd.id = Some(ruma::RoomId::new_v2(&said.as_str()[1..]).unwrap());
    odd.events = room.events.clone();
    odd.after = room.after.clone();
    let event = odd.build(&[&start], "@alice:a", message("Ho")).pdu;
    assert!(versions::create_event_id(event.room_id(), odd.rules).is_some_and(|id| id == said));
    assert!(allowed_by_auth_events(&event, odd.rules, |id| odd.events.get(id).cloned()).is_err());
}

#[test]
fn auth_events_must_be_there_and_fit() {
    for version in 3..=12 {
        let (mut room, start) = Room::begin(version, json!({}));
        let event = room.build(&[&start], "@alice:a", message("Hi")).pdu;
        let check = |fetch: &dyn Fn(&ruma::EventId) -> Option<Pdu>| allowed_by_auth_events(&event, room.rules, fetch);
        check(&|id| room.events.get(id).cloned()).unwrap();
        let missing = check(&|id| room.events.get(id).filter(|event| event.kind() != "m.room.member").cloned());
        assert!(missing.unwrap_err().to_string().starts_with("failed to find auth event"));
        for kind in ["m.room.member", "m.room.create"] {
            let rejected = |id: &_| {
                room.events.get(id).cloned().map(|event| {
                    let bad = event.kind() == kind;
                    event.rejected(bad)
                })
            };
            assert!(check(&rejected).unwrap_err().to_string().starts_with("rejected"), "{kind}");
        }
        let stranger = room.events.values().find(|event| event.kind() == "m.room.join_rules").cloned();
        assert!(check(&|_| stranger.clone()).unwrap_err().to_string().starts_with("unexpected auth event"));
    }
}
