use ruma::{events::room::power_levels::UserPowerLevel, int};
use serde_json::json;

use crate::rooms::{
    Power, Prototype,
    redaction::{effect, may_ask},
    testing::{Room, message, state, user},
    visibility,
};

#[test]
fn levels_are_those_of_the_room_and_of_its_creators() {
    let levels = json!({
        "users": { "@bob:b": 50 }, "users_default": 1, "events": { "m.room.topic": 0 }, "invite": 2, "ban": 50, "kick": 50,
    });
    for version in [6, 11, 12] {
        let (room, start) = Room::begin(version, levels.clone());
        let power = |state: &_| Power::of(room.look(state), room.rules).unwrap();
        let after = room.before(&[&start]);
        let power_now = power(&after);
        let (alice, bob, carol) = (user("@alice:a"), user("@bob:b"), user("@carol:b"));
        let founder = if version < 12 { UserPowerLevel::Int(int!(100)) } else { UserPowerLevel::Infinite };
        assert_eq!(power_now.level(alice), founder);
        assert_eq!(
            (power_now.level(bob), power_now.level(carol)),
            (UserPowerLevel::Int(int!(50)), UserPowerLevel::Int(int!(1)))
        );
        assert!(power_now.may_send(carol, "m.room.message") && power_now.may_set(carol, "m.room.topic"));
        assert!(!power_now.may_set(carol, "m.room.name") && power_now.may_set(bob, "m.room.name"));
        assert!(!power_now.may_invite(carol) && power_now.may_invite(bob));
        assert!(power_now.may_kick(bob, carol) && power_now.may_ban(bob, carol));
        assert!(!power_now.may_kick(carol, bob) && !power_now.may_ban(bob, bob));
        assert!(power_now.may_ban(alice, bob) && !power_now.may_ban(bob, alice));
        assert!(power_now.may_redact_any(bob) && !power_now.may_redact_any(carol));
        assert!(power_now.creators().contains(alice) && power_now.creators().len() == 1);

        // Without power levels the creator has all the power, and nobody else any.
        let first = room.events.values().find(|event| event.kind() == "m.room.create").unwrap().id().to_owned();
        let before = room.before(&[&first]);
        let power = power(&before);
        assert!(power.may_set(alice, "x") && !power.may_set(bob, "x") && power.may_send(bob, "x"));
        assert!(Power::of(|_: &_, _: &str| None, room.rules).is_err());
    }
}

#[test]
fn a_redaction_carries_what_its_sender_may() {
    for version in 3..=12 {
        let (mut room, start) = Room::begin(version, json!({}));
        let bob = room.member(&[&start], "@bob:b", "@bob:b", "join").unwrap();
        let target = room.send(&[&bob], "@alice:a", message("Hi")).unwrap();
        for (sender, may) in [("@alice:a", true), ("@bob:b", false)] {
            let redaction =
                Prototype { redacts: Some(target.clone()), ..Prototype::message("m.room.redaction", [].into()) };
            let redaction = room.build(&[&target], sender, redaction).pdu;
            let before = room.before(&[&target]);
            let effect = effect(&redaction, room.look(&before), room.rules).unwrap().unwrap();
            assert_eq!((effect.target, effect.may_redact_any), (target.to_string(), may));
            assert_eq!(may_ask(user(sender), user("@alice:a"), room.look(&before), room.rules).is_ok(), may);
            assert!(may_ask(user(sender), user(sender), room.look(&before), room.rules).is_ok());
        }
        let before = room.before(&[&target]);
        assert_eq!(effect(&room.events[&target], room.look(&before), room.rules).unwrap(), None);
    }
}

#[test]
fn visibility_is_shared_unless_it_is_set_and_understood() {
    use schemas::facts::Visibility as V;
    let (mut room, start) = Room::begin(12, json!({}));
    assert_eq!(visibility::of(room.look(&room.before(&[&start]))), V::Shared);
    for (word, expected) in [
        (json!("world_readable"), V::WorldReadable),
        (json!("shared"), V::Shared),
        (json!("invited"), V::Invited),
        (json!("joined"), V::Joined),
        (json!("odd"), V::Shared),
        (json!(5), V::Shared),
    ] {
        let set = state("m.room.history_visibility", "", json!({ "history_visibility": word }));
        let set = room.send(&[&start], "@alice:a", set).unwrap();
        let after = room.before(&[&set]);
        assert_eq!(visibility::of(room.look(&after)), expected);
    }
}
