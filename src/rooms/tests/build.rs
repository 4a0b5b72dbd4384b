use proptest::prelude::*;
use ruma::{
    CanonicalJsonObject, EventId, event_id,
    signatures::{Verified, reference_hash, verify_event},
};
use serde_json::{json, value::RawValue};

use crate::rooms::{
    BuildError, Builder, Built, Halves, MAX_PDU_BYTES, Pdu, Position, Prototype,
    build::content,
    testing::{Room, key, message, rules, state, user},
};

fn whole(built: &Built) -> CanonicalJsonObject {
    serde_json::from_str(&Halves::of(&built.learned).join().unwrap()).unwrap()
}

#[test]
fn events_of_every_version_are_signed_and_named_by_their_hash() {
    for version in 3..=12 {
        let (mut room, last) = Room::begin(version, json!({}));
        let built = room.build(&[&last], "@alice:a", message("Hi"));
        let event = whole(&built);
        assert_eq!(verify_event(&key("a").public_map(), &event, room.rules).unwrap(), Verified::All);
        let hash = reference_hash(&event, room.rules).unwrap();
        assert_eq!(built.pdu.id(), EventId::new_v2_or_v3(&hash).unwrap());
        assert_eq!(built.learned.id, built.pdu.id().as_str());
        assert_eq!((built.pdu.prev_events(), built.pdu.depth()), (&[last][..], 5));
        assert_eq!(built.pdu.content().get(), r#"{"body":"Hi","msgtype":"m.text"}"#);
        let cited: Vec<_> = built.pdu.auth_events().iter().map(|id| room.events[id].kind().to_owned()).collect();
        let create = if version < 12 { vec!["m.room.create"] } else { vec![] };
        assert_eq!(cited, [vec!["m.room.power_levels", "m.room.member"], create].concat(), "version {version}");
    }
}

#[test]
fn from_version_12_on_the_create_event_makes_the_room() {
    let (room, _) = Room::begin(12, json!({}));
    let create = room.events.values().find(|event| event.kind() == "m.room.create").unwrap();
    assert_eq!(room.id.as_ref().unwrap().strip_sigil(), &create.id().as_str()[1..]);
    assert!(room.events.values().all(|event| event.room_id() == room.id.as_ref().unwrap()));
}

#[test]
fn a_redaction_names_its_target_where_its_version_wants_it() {
    for version in 3..=12 {
        let (mut room, last) = Room::begin(version, json!({}));
        let target = event_id!("$target");
        let redaction = Prototype {
            redacts: Some(target.to_owned()),
            ..Prototype::message("m.room.redaction", CanonicalJsonObject::new())
        };
        let built = room.build(&[&last], "@alice:a", redaction);
        assert_eq!(built.pdu.redacts(&room.rules.redaction).unwrap(), target);
        assert_eq!(whole(&built).contains_key("redacts"), version < 11);
    }
}

fn build(what: Prototype, prev_events: &[ruma::OwnedEventId]) -> Result<Built, BuildError> {
    let key = key("a");
    let builder = Builder { rules: rules(11), key: &key };
    let position = Position { room_id: Some(ruma::room_id!("!room:a")), prev_events, depth: 1 };
    let at = ruma::MilliSecondsSinceUnixEpoch(ruma::uint!(1));
    builder.build(what, user("@alice:a"), at, position, |_: &_, _: &str| None::<Pdu>)
}

#[test]
fn events_have_at_most_65536_bytes() {
    let size = |text: usize| {
        build(message(&"x".repeat(text)), &[]).map(|built| Halves::of(&built.learned).join().unwrap().len())
    };
    let rest = size(1_000).unwrap() - 1_000;
    assert_eq!(size(MAX_PDU_BYTES - rest).unwrap(), MAX_PDU_BYTES);
    for text in [MAX_PDU_BYTES - rest + 1, MAX_PDU_BYTES, 10 * MAX_PDU_BYTES] {
        assert!(matches!(size(text), Err(BuildError::TooLarge(_))));
    }
}

#[test]
fn types_and_state_keys_have_at_most_255_bytes() {
    let long = "é".repeat(128);
    for what in [state(&long, "", json!({})), state("x", &long, json!({}))] {
        assert!(matches!(build(what, &[]), Err(BuildError::TooLarge(_))));
    }
    assert!(build(state("x", &long[2..], json!({})), &[]).is_ok());
}

#[test]
fn what_the_caller_should_know_better_is_refused() {
    let many = vec![event_id!("$e").to_owned(); 21];
    assert!(matches!(build(message(""), &many), Err(BuildError::Malformed(_))));
    assert!(build(message(""), &many[..20]).is_ok());
    assert!(matches!(build(state("m.room.member", "@a:b", json!({})), &[]), Err(BuildError::Forbidden(_))));
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

#[test]
fn content_that_is_not_canonical_is_refused_with_its_place() {
    let number = "is a number that events can't hold: send an integer between -(2^53)+1 and (2^53)-1, or a string";
    for (text, place) in [
        (r#"{"a":{"b":[1,{"c":1.5}]}}"#, ".a.b[1].c"),
        (r#"{"a":9007199254740992}"#, ".a"),
        (r#"{"a":-9007199254740992}"#, ".a"),
        (r#"{"a":1e3}"#, ".a"),
        (r#"{"a":-0}"#, ".a"),
        (r#"{"a":99999999999999999999}"#, ".a"),
    ] {
        assert_eq!(content(&raw(text)).unwrap_err().to_string(), format!("content{place} {number}"));
    }
    assert_eq!(content(&raw("[]")).unwrap_err().to_string(), "content must be an object");
    assert!(content(&raw(r#"{"a":9007199254740991,"b":-9007199254740991,"c":[null,true,"é"]}"#)).is_ok());
}

proptest! {
    #[test]
    fn content_takes_what_canonical_json_takes(text in "[\\[\\]{}\",:0-9a-c.eE-]{0,24}") {
        if let Ok(raw) = serde_json::from_str::<Box<RawValue>>(&format!("{{\"x\":{text}}}")) {
            let expected = serde_json::from_str::<CanonicalJsonObject>(raw.get()).ok();
            prop_assert_eq!(content(&raw).ok(), expected);
        }
    }
}

#[test]
fn everything_that_was_asked_of_the_state_was_announced() {
    let what = [
        message("x"),
        state("m.room.topic", "", json!({})),
        state("m.room.member", "@bob:b", json!({"membership": "invite"})),
        state("m.room.member", "@alice:a", json!({"membership": "join", "join_authorised_via_users_server": "@bob:b"})),
        state(
            "m.room.member",
            "@bob:b",
            json!({"membership": "invite", "third_party_invite": {"signed": {"token": "t", "mxid": "@bob:b", "signatures": {}}}}),
        ),
        state("m.room.power_levels", "", json!({"users": {"@bob:b": 5}})),
        state("m.room.third_party_invite", "t", json!({})),
    ];
    for version in 3..=12 {
        let (mut room, last) = Room::begin(version, json!({}));
        let last = room.member(&[&last], "@bob:b", "@bob:b", "join").unwrap();
        for what in &what {
            let key = key("a");
            let builder = Builder { rules: room.rules, key: &key };
            let needs = builder.needs(what, user("@alice:a")).unwrap();
            let before = room.before(&[&last]);
            let look = room.look(&before);
            let state = |event_type: &ruma::events::StateEventType, state_key: &str| {
                let asked = (event_type.clone(), state_key.to_owned());
                assert!(needs.contains(&asked), "{asked:?} for {what:?} in version {version}");
                look(event_type, state_key)
            };
            let position = Position { room_id: room.id.as_deref(), prev_events: &[], depth: 1 };
            let at = ruma::MilliSecondsSinceUnixEpoch(ruma::uint!(1));
            let built = builder.build(what.clone(), user("@alice:a"), at, position, state).unwrap();
            let _: Result<(), _> = crate::rooms::auth::authorise(&built.pdu, room.rules, state);
        }
    }
}
