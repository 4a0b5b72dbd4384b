//! Events as clients see them (client-server API, `ClientEvent`): JSON text made from the two halves, without reading
//! the content.
//!
//! The text begins without `room_id` and `unsigned`, as /sync wants it; [`append_room_id`] and [`append_unsigned`] add
//! them, so that one text, made once, serves every endpoint.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Halves, PduError,
    entries::{Entries, ObjectWriter, quote},
    split::join_field,
};

#[derive(Deserialize)]
struct Skeleton<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow)]
    origin_server_ts: &'a RawValue,
    #[serde(borrow)]
    sender: &'a RawValue,
    #[serde(borrow)]
    state_key: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    event_type: &'a RawValue,
}

#[derive(Default, Deserialize)]
struct Rest<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

/// What a client sees of an event: its fields as JSON text, by reference where they stand in one half alone.
struct Seen<'a> {
    skeleton: Skeleton<'a>,
    content: Cow<'a, RawValue>,
}

impl<'a> Seen<'a> {
    fn of(halves: Halves<'a>) -> Result<Self, PduError> {
        let skeleton: Skeleton<'a> = serde_json::from_slice(halves.skeleton)?;
        let rest: Rest<'a> = halves.rest.map(serde_json::from_slice).transpose()?.unwrap_or_default();
        let content = join_field(skeleton.content, rest.content)?;
        Ok(Self { skeleton, content })
    }
}

/// The event without `room_id` and `unsigned`.
///
/// `redacts` is what the event redacts, if it is a redaction, as its room version's rules say: clients of both ages
/// find it, at the top level and in the content, whatever a sender wrote in the place that does not count. Without the
/// rest it is shown only where the redacted form still has it.
///
/// # Errors
/// When the halves are not those of an event.
pub fn event(id: &str, halves: Halves<'_>, redacts: Option<&str>) -> Result<String, PduError> {
    let Seen { skeleton, content } = Seen::of(halves)?;
    let mut content = Cow::Borrowed(content.get());
    let mut target = None;
    if let Some(id) = redacts
        && skeleton.event_type.get() == r#""m.room.redaction""#
    {
        let mut json = String::new();
        quote(id, &mut json);
        if let Some(with_target) = content_with_target(&content, &json, halves.rest.is_some())? {
            content = Cow::Owned(with_target);
            target = Some(json);
        }
    }

    let mut text = String::with_capacity(content.len() + id.len() + halves.skeleton.len() / 2);
    let mut object = ObjectWriter::new(&mut text);
    object.entry("content", &content);
    quote(id, object.key("event_id"));
    object.entry("origin_server_ts", skeleton.origin_server_ts.get());
    if let Some(target) = &target {
        object.entry("redacts", target);
    }
    object.entry("sender", skeleton.sender.get());
    if let Some(state_key) = skeleton.state_key {
        object.entry("state_key", state_key.get());
    }
    object.entry("type", skeleton.event_type.get());
    object.end();
    Ok(text)
}

/// A redaction's content with `redacts` set, or none where redaction has taken that away and `may_add` is false.
fn content_with_target(content: &str, target: &str, may_add: bool) -> Result<Option<String>, PduError> {
    let entries = Entries::of(content)?;
    if !may_add && !entries.0.iter().any(|(key, _)| key == "redacts") {
        return Ok(None);
    }
    let mut text = String::with_capacity(content.len() + target.len());
    let mut object = ObjectWriter::new(&mut text);
    for (key, value) in entries.0.iter().filter(|(key, _)| key != "redacts") {
        object.entry(key, value.get());
    }
    object.entry("redacts", target);
    object.end();
    Ok(Some(text))
}

/// The stripped form of a state event, as invites and knocks show it: content, sender, state key, type.
///
/// # Errors
/// When the halves are not those of a state event.
pub fn stripped(halves: Halves<'_>) -> Result<String, PduError> {
    let Seen { skeleton, content } = Seen::of(halves)?;
    let state_key = skeleton.state_key.ok_or(PduError::Field("state_key"))?;
    let mut text = String::with_capacity(content.get().len() + 128);
    let mut object = ObjectWriter::new(&mut text);
    object.entry("content", content.get());
    object.entry("sender", skeleton.sender.get());
    object.entry("state_key", state_key.get());
    object.entry("type", skeleton.event_type.get());
    object.end();
    Ok(text)
}

/// Adds the room id to an event's text, for every endpoint but /sync.
pub fn append_room_id(text: &mut String, room_id: &str) {
    let mut json = String::with_capacity(room_id.len() + 2);
    quote(room_id, &mut json);
    append(text, "room_id", &json);
}

/// Adds `unsigned` to an event's text; `unsigned` is a JSON object.
pub fn append_unsigned(text: &mut String, unsigned: &str) {
    append(text, "unsigned", unsigned);
}

/// Adds a field, which must not be there yet, to the text of an object that is not empty.
fn append(text: &mut String, key: &str, json: &str) {
    debug_assert!(text.ends_with('}') && text.len() > "{}".len());
    text.pop();
    text.push(',');
    quote(key, text);
    text.push(':');
    text.push_str(json);
    text.push('}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::{CanonicalJsonObject, room_version_rules::RoomVersionRules};
    use serde_json::{Value, json};

    use super::*;
    use crate::pdu::{split, testing::any_content};

    fn whole(fields: &Value) -> CanonicalJsonObject {
        let mut event = json!({
            "auth_events": [], "content": {}, "depth": 3, "hashes": {"sha256": "x"}, "origin_server_ts": 12,
            "prev_events": ["$p"], "room_id": "!r:x", "sender": "@a:x", "signatures": {"x": {}}, "type": "m.room.message",
        });
        for (key, value) in fields.as_object().unwrap() {
            event[key] = value.clone();
        }
        serde_json::from_value(event).unwrap()
    }

    fn shown(event: &CanonicalJsonObject, rules: &RoomVersionRules, redacts: Option<&str>, keep_rest: bool) -> Value {
        let (skeleton, rest) = split(event, &rules.redaction).unwrap();
        let rest = rest.as_deref().map(str::as_bytes).filter(|_| keep_rest);
        let text = super::event("$e", Halves { skeleton: skeleton.as_bytes(), rest }, redacts).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn shows_what_clients_need_and_nothing_else() {
        let message = whole(&json!({"content": {"body": "Hi"}}));
        assert_eq!(
            shown(&message, &RoomVersionRules::V12, None, true),
            json!({"content": {"body": "Hi"}, "event_id": "$e", "origin_server_ts": 12, "sender": "@a:x", "type": "m.room.message"})
        );
        let redacted = shown(&message, &RoomVersionRules::V12, None, false);
        assert_eq!(redacted["content"], json!({}));
        let topic = whole(&json!({"content": {"topic": "T"}, "state_key": "", "type": "m.room.topic"}));
        assert_eq!(shown(&topic, &RoomVersionRules::V12, None, true)["state_key"], "");
    }

    #[test]
    fn a_redaction_names_its_target_in_both_places() {
        let old =
            whole(&json!({"type": "m.room.redaction", "redacts": "$t", "content": {"reason": "r", "redacts": "$lie"}}));
        let new =
            whole(&json!({"type": "m.room.redaction", "redacts": "$lie", "content": {"reason": "r", "redacts": "$t"}}));
        for (event, rules) in [(&old, &RoomVersionRules::V10), (&new, &RoomVersionRules::V11)] {
            let seen = shown(event, rules, Some("$t"), true);
            assert_eq!(seen["redacts"], "$t");
            assert_eq!(seen["content"], json!({"reason": "r", "redacts": "$t"}));
            let without = shown(event, rules, None, true);
            assert_eq!(without.get("redacts"), None);
        }
        let seen = shown(&old, &RoomVersionRules::V10, Some("$t"), false);
        assert_eq!((seen.get("redacts"), &seen["content"]), (None, &json!({})));
        let seen = shown(&new, &RoomVersionRules::V11, Some("$t"), false);
        assert_eq!((&seen["redacts"], &seen["content"]), (&json!("$t"), &json!({"redacts": "$t"})));
    }

    #[test]
    fn room_id_and_unsigned_are_appended() {
        let (skeleton, rest) = split(&whole(&json!({})), &RoomVersionRules::V12.redaction).unwrap();
        assert_eq!(rest, None);
        let mut text = event("$e", Halves { skeleton: skeleton.as_bytes(), rest: None }, None).unwrap();
        append_room_id(&mut text, "!a\"b:x");
        append_unsigned(&mut text, r#"{"age":5}"#);
        let seen: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&seen["room_id"], &seen["unsigned"]), (&json!("!a\"b:x"), &json!({"age": 5})));
    }

    #[test]
    fn stripped_state_has_four_fields() {
        let name = whole(&json!({"content": {"name": "N"}, "state_key": "", "type": "m.room.name"}));
        let (skeleton, rest) = split(&name, &RoomVersionRules::V12.redaction).unwrap();
        let halves = Halves { skeleton: skeleton.as_bytes(), rest: rest.as_deref().map(str::as_bytes) };
        assert_eq!(
            stripped(halves).unwrap(),
            r#"{"content":{"name":"N"},"sender":"@a:x","state_key":"","type":"m.room.name"}"#
        );
    }

    proptest! {
        #[test]
        fn content_is_shown_as_it_is((event_type, content) in any_content()) {
            let event = whole(&json!({"type": event_type, "content": content}));
            for rules in crate::pdu::testing::ALL_RULES {
                let seen = shown(&event, rules, None, true);
                prop_assert_eq!(&seen["content"], &Value::from(event["content"].clone()));
            }
        }

        #[test]
        fn never_panics(skeleton: Vec<u8>, rest: Option<Vec<u8>>) {
            let halves = Halves { skeleton: &skeleton, rest: rest.as_deref() };
            let _ = (event("$e", halves, Some("$t")), stripped(halves));
        }
    }
}
