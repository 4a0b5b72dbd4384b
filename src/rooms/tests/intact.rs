use schemas::{
    Blob, Fact, Json, Part,
    facts::{EventBodies, EventLearned},
};
use serde_json::json;

use crate::rooms::{
    intact,
    testing::{Room, key, message, state},
};

fn events(version: u8) -> Vec<EventLearned> {
    let (mut room, last) = Room::begin(version, json!({}));
    let message = room.build(&[&last], "@alice:a", message("Hi, all"));
    let topic = room.build(&[&last], "@alice:a", state("m.room.topic", "", json!({ "topic": "Weather" })));
    let mut begun = Room::empty(version);
    let mut content = json!({ "room_version": version.to_string() });
    if version < 11 {
        content["creator"] = "@alice:a".into();
    }
    let create = begun.build(&[], "@alice:a", state("m.room.create", "", content));
    vec![message.learned, topic.learned, create.learned]
}

fn check(event: &EventLearned) -> Result<(), String> {
    intact::check(&Fact::from(event.clone()), Some(&key("a")))
}

fn swap(json: &Json, from: &str, to: &str) -> Json {
    assert!(json.as_str().contains(from), "{from} is not in {json:?}");
    Json::from(json.as_str().replacen(from, to, 1))
}

#[test]
fn events_of_every_version_are_intact() {
    for version in 3..=12 {
        for event in events(version) {
            check(&event).unwrap_or_else(|why| panic!("version {version}: {why}"));
            let without_key = intact::check(&Fact::from(event.clone()), None);
            without_key.unwrap();
            let bodies = EventBodies { set: Blob(vec![1; 16]), n: 0, events: vec![event] };
            intact::check(&Fact::from(bodies), Some(&key("a"))).unwrap();
        }
    }
}

#[test]
fn whatever_is_altered_is_found() {
    for version in 3..=12 {
        let message = events(version).remove(0);
        let rest = message.rest.as_ref().and_then(Part::open).unwrap();
        let rest = |from: &str, to: &str| Some(Part::clear(swap(&Json(rest.to_vec()), from, to).0));
        let skeleton = |from: &str, to: &str| swap(&message.skeleton, from, to);
        let other_room = message.room.replacen('!', "!x", 1);
        let cases = [
            ("content", EventLearned { rest: rest("Hi", "Ho"), ..message.clone() }),
            ("content", EventLearned { rest: None, ..message.clone() }),
            ("canonical", EventLearned { rest: rest("Hi", "\\u0048i"), ..message.clone() }),
            ("id", EventLearned { skeleton: skeleton("@alice:a", "@alicf:a"), ..message.clone() }),
            ("id", EventLearned { id: message.id.replacen('$', "$x", 1), ..message.clone() }),
            ("room", EventLearned { room: other_room, ..message.clone() }),
            ("signature", EventLearned { skeleton: skeleton("ed25519:a_test", "ed25519:a_tesu"), ..message.clone() }),
            (
                "signature",
                EventLearned { skeleton: skeleton("{\"a\":{\"ed25519", "{\"b\":{\"ed25519"), ..message.clone() },
            ),
            ("own", EventLearned { rest: None, redacted_copy: true, ..message.clone() }),
            ("malformed", EventLearned { skeleton: skeleton("{", "["), ..message.clone() }),
        ];
        for (expected, event) in cases {
            let why = check(&event).expect_err(expected);
            assert!(why.starts_with("event $") && why.contains(expected), "version {version}, {expected}: {why}");
        }
        let (before, _) =
            message.skeleton.as_str().split_once("ed25519:a_test\":\"").map(|(b, _)| (b.len(), ())).unwrap();
        let mut flipped = message.clone();
        let letter = before + "ed25519:a_test\":\"".len() + 5;
        flipped.skeleton.0[letter] = if flipped.skeleton.0[letter] == b'A' { b'B' } else { b'A' };
        assert!(check(&flipped).unwrap_err().contains("signature"));
    }
}

#[test]
fn what_other_servers_signed_is_checked_as_far_as_it_can_be() {
    let event = events(11).remove(0);
    let fact = |event: &EventLearned| Fact::from(event.clone());
    intact::check(&fact(&event), Some(&key("b"))).unwrap();
    let redacted = EventLearned { rest: None, redacted_copy: true, ..event.clone() };
    intact::check(&fact(&redacted), Some(&key("b"))).unwrap();
    let sealed = Part::Sealed { key_id: Blob(vec![1]), algorithm: 1, nonce: Blob(vec![2]), ciphertext: Blob(vec![3]) };
    intact::check(&fact(&EventLearned { rest: Some(sealed), ..event.clone() }), Some(&key("a"))).unwrap();
    let altered = EventLearned { rest: Some(Part::clear("{\"content\":{}}")), ..event };
    assert!(intact::check(&fact(&altered), Some(&key("b"))).unwrap_err().contains("content"));
}
