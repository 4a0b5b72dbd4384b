use ruma::{CanonicalJsonObject, CanonicalJsonValue, room_version_rules::RoomVersionRules, signatures::PublicKeyMap};
use serde_json::{Value, json, value::to_raw_value};

use crate::rooms::{
    Built, Halves, MAX_PDU_BYTES,
    check::{Dropped, Unverified},
    testing::{Room, key, message, rules, state},
};

fn event(version: u8, body: &str) -> (Built, CanonicalJsonObject) {
    let (mut room, last) = Room::begin(version, json!({}));
    let built = room.build(&[&last], "@alice:a", message(body));
    let whole = serde_json::from_str(&Halves::of(&built.learned).join().unwrap()).unwrap();
    (built, whole)
}

fn receive(
    event: &CanonicalJsonObject,
    rules: &'static RoomVersionRules,
    keys: &PublicKeyMap,
) -> Result<Built, Dropped> {
    Unverified::read(&to_raw_value(event).unwrap(), rules)?.verify(keys)
}

#[test]
fn what_was_signed_comes_through_as_it_is() {
    for version in 3..=12 {
        let (built, mut event) = event(version, "Hi");
        event.insert(
            "unsigned".into(),
            serde_json::from_value(json!({ "age": 5, "x": "y".repeat(MAX_PDU_BYTES) })).unwrap(),
        );
        let unverified = Unverified::read(&to_raw_value(&event).unwrap(), rules(version)).unwrap();
        assert_eq!(unverified.signers().unwrap().iter().map(|server| server.as_str()).collect::<Vec<_>>(), ["a"]);
        let received = unverified.verify(&key("a").public_map()).unwrap();
        assert_eq!(received.learned, built.learned);
        assert_eq!(format!("{:?}", received.pdu), format!("{:?}", built.pdu));
    }
}

#[test]
fn a_create_event_makes_its_room() {
    let mut room = Room::empty(12);
    let built = room.build(&[], "@alice:a", state("m.room.create", "", json!({ "room_version": "12" })));
    let event = serde_json::from_str(&Halves::of(&built.learned).join().unwrap()).unwrap();
    let received = receive(&event, room.rules, &key("a").public_map()).unwrap();
    assert_eq!((received.pdu.room_id(), &received.learned), (built.pdu.room_id(), &built.learned));
}

#[test]
fn altered_content_leaves_the_redacted_form() {
    for version in 3..=12 {
        let (built, mut event) = event(version, "Hi");
        event.insert("content".into(), serde_json::from_value(json!({ "body": "Ho" })).unwrap());
        let received = receive(&event, rules(version), &key("a").public_map()).unwrap();
        assert_eq!(received.pdu.id(), built.pdu.id());
        assert_eq!(received.pdu.content().get(), "{}");
        assert!(received.learned.redacted_copy);
        assert_eq!((&received.learned.skeleton, &received.learned.rest), (&built.learned.skeleton, &None));
    }
}

#[test]
fn what_nobody_answers_for_is_dropped() {
    let (_, event) = event(12, "Hi");
    let keys = key("a").public_map();
    let altered = |key: &str, value: Value| {
        let mut event = event.clone();
        event.insert(key.into(), serde_json::from_value(value).unwrap());
        receive(&event, rules(12), &keys)
    };
    assert!(receive(&event, rules(12), &PublicKeyMap::new()).is_err());
    assert!(receive(&event, rules(12), &key("b").public_map()).is_err());
    assert!(altered("sender", json!("@bob:a")).is_err());
    assert!(altered("sender", json!("@bob:b")).is_err());
    assert!(altered("depth", json!(7)).is_err());
    assert!(altered("prev_events", json!([])).is_err());
    assert!(altered("signatures", json!({})).is_err());
    assert!(altered("signatures", json!({ "a": { "ed25519:a_test": "AAAA" } })).is_err());
}

/// A restricted join needs the signature of the server that vouches for it, too.
#[test]
fn who_vouches_for_a_join_signs_too() {
    let (mut room, last) = Room::begin(10, json!({}));
    let content = json!({ "membership": "join", "join_authorised_via_users_server": "@alice:a" });
    let built = room.build(&[&last], "@bob:b", state("m.room.member", "@bob:b", content));
    let mut event: CanonicalJsonObject = serde_json::from_str(&Halves::of(&built.learned).join().unwrap()).unwrap();
    let mut keys = key("b").public_map();
    keys.extend(key("a").public_map());
    assert!(receive(&event, room.rules, &keys).is_err());
    key("a").hash_and_sign(&mut event, &room.rules.redaction).unwrap();
    assert_eq!(receive(&event, room.rules, &keys).unwrap().pdu.id(), built.pdu.id());
}

#[test]
fn no_event_has_more_than_65536_bytes() {
    let size = |body: usize| {
        let (_, event) = event(12, &"x".repeat(body));
        (serde_json::to_string(&event).unwrap().len(), receive(&event, rules(12), &key("a").public_map()))
    };
    let rest = size(1_000).0 - 1_000;
    let (bytes, received) = size(MAX_PDU_BYTES - rest);
    assert_eq!(bytes, MAX_PDU_BYTES);
    assert!(received.is_ok());
    let (_, mut event) = event(12, &"x".repeat(MAX_PDU_BYTES - rest));
    event.insert("z".into(), true.into());
    assert!(receive(&event, rules(12), &key("a").public_map()).unwrap_err().to_string().contains("bytes"));
}

/// Every field is left out once, and is once everything that it should not be; the event is signed again each time, so
/// that only the format can be what is wrong.
#[test]
fn malformed_fields_never_get_through_as_something_else() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(9_007_199_254_740_991_i64),
        json!(""),
        json!("x".repeat(256)),
        json!("@:"),
        json!([]),
        json!([[], {}, 1]),
        json!(vec!["$x"; 21]),
        json!({}),
        json!({ "sha256": 5, "a": 5, "membership": [] }),
    ];
    let key = key("a");
    for version in [3, 6, 11, 12] {
        let rules = rules(version);
        let (_, event) = event(version, "Hi");
        for field in event.keys() {
            let values = odd.iter().cloned().map(Some).chain([None]);
            for value in values {
                let mut event = event.clone();
                match value {
                    Some(value) => event.insert(field.clone(), CanonicalJsonValue::try_from(value).unwrap()),
                    None => event.remove(field),
                };
                let resigned = event.clone();
                let _ = key.hash_and_sign(&mut event, &rules.redaction);
                for event in [resigned, event] {
                    if let Ok(built) = receive(&event, rules, &key.public_map()) {
                        let whole: CanonicalJsonObject =
                            serde_json::from_str(&Halves::of(&built.learned).join().unwrap()).unwrap();
                        assert!(built.learned.redacted_copy || whole == event);
                    }
                }
            }
        }
    }
    let float = r#"{"content":{"x":1.5},"type":"x"}"#.to_owned();
    let float = serde_json::value::RawValue::from_string(float).unwrap();
    assert!(Unverified::read(&float, rules(12)).is_err());
}
