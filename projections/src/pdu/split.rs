//! An event in two halves: the *skeleton*, which redaction keeps, and the *rest*, which it removes.
//!
//! Both are canonical JSON of the same nesting, so that together they give back the exact bytes that were signed:
//!
//! ```text
//! event     {"content":{"body":"Hi","msgtype":"m.text"},"depth":7,…,"type":"m.room.message"}
//! skeleton  {"content":{},"depth":7,…,"type":"m.room.message"}
//! rest      {"content":{"body":"Hi","msgtype":"m.text"}}
//! ```

use std::{borrow::Cow, cmp::Ordering};

use ruma::{
    CanonicalJsonObject, EventId, RoomId,
    canonical_json::{CanonicalJsonValue, RedactingSerializer},
    room_version_rules::RedactionRules,
};
use schemas::{Json, Part, facts::EventLearned};
use serde_json::value::RawValue;

use super::{
    PduError,
    entries::{Entries, ObjectWriter, quote},
};

/// The two halves of an event's bytes. Without the rest it is the redacted event.
#[derive(Clone, Copy, Debug)]
pub struct Halves<'a> {
    /// What redaction keeps.
    pub skeleton: &'a [u8],
    /// What redaction removes; none where that is nothing, or where it was forgotten.
    pub rest: Option<&'a [u8]>,
}

impl<'a> Halves<'a> {
    /// The bytes of a fact; a sealed rest counts as forgotten.
    #[must_use]
    pub fn of(learned: &'a EventLearned) -> Self {
        Self { skeleton: &learned.skeleton.0, rest: learned.rest.as_ref().and_then(Part::open) }
    }

    /// The exact canonical JSON that was divided.
    ///
    /// # Errors
    /// When the halves don't belong together.
    pub fn join(self) -> Result<String, PduError> {
        let skeleton = text(self.skeleton)?;
        match self.rest {
            None => Ok(skeleton.to_owned()),
            Some(rest) => {
                let mut whole = String::with_capacity(skeleton.len() + rest.len());
                merge(skeleton, text(rest)?, &mut whole)?;
                Ok(whole)
            }
        }
    }
}

/// The fact that states an event's bytes.
///
/// # Errors
/// When `event` has no `type`.
pub fn learn(
    id: &EventId,
    room: &RoomId,
    event: &CanonicalJsonObject,
    rules: &RedactionRules,
    redacted_copy: bool,
) -> Result<EventLearned, PduError> {
    let (skeleton, rest) = split(event, rules)?;
    Ok(EventLearned {
        id: id.to_string(),
        room: room.to_string(),
        skeleton: Json::from(skeleton),
        rest: rest.map(Part::clear),
        redacted_copy,
    })
}

/// Divides an event into skeleton and rest; no rest where redaction removes nothing.
///
/// # Errors
/// When the event has no `type`.
pub fn split(event: &CanonicalJsonObject, rules: &RedactionRules) -> Result<(String, Option<String>), PduError> {
    let skeleton = RedactingSerializer::new().rules(rules).serialize(event)?;
    let mut rest = String::new();
    remove(event, &skeleton, &mut rest)?;
    let rest = (rest.len() > "{}".len()).then_some(rest);
    Ok((skeleton, rest))
}

/// Writes what `kept` lacks of `whole`. ruma alone knows what redaction keeps: this looks at what it did.
fn remove(whole: &CanonicalJsonObject, kept: &str, out: &mut String) -> Result<(), PduError> {
    let kept = Entries::of(kept)?;
    let mut kept = kept.0.iter().peekable();
    let mut object = ObjectWriter::new(out);
    for (key, value) in whole {
        match kept.next_if(|(kept, _)| kept == key) {
            None => write_value(value, object.key(key)),
            Some((_, kept)) => {
                let CanonicalJsonValue::Object(child) = value else { continue };
                let mut removed = String::new();
                remove(child, kept.get(), &mut removed)?;
                if removed.len() > "{}".len() {
                    object.entry(key, &removed);
                }
            }
        }
    }
    object.end();
    Ok(())
}

/// Writes canonical JSON.
fn write_value(value: &CanonicalJsonValue, out: &mut String) {
    match value {
        CanonicalJsonValue::String(text) => quote(text, out),
        other => out.push_str(&other.to_string()),
    }
}

/// Joins two objects whose common keys hold objects only; keys stay in order.
fn merge(kept: &str, removed: &str, out: &mut String) -> Result<(), PduError> {
    let kept = Entries::of(kept)?;
    let removed = Entries::of(removed)?;
    let (mut kept, mut removed) = (kept.0.iter().peekable(), removed.0.iter().peekable());
    let mut object = ObjectWriter::new(out);
    loop {
        let order = match (kept.peek(), removed.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let left = if order.is_le() { kept.next() } else { None };
        let right = if order.is_ge() { removed.next() } else { None };
        match (left, right) {
            (Some((key, a)), Some((_, b))) => merge(a.get(), b.get(), object.key(key))?,
            (Some((key, value)), None) | (None, Some((key, value))) => object.entry(key, value.get()),
            (None, None) => break,
        }
    }
    object.end();
    Ok(())
}

/// Joins the halves of one field.
pub(super) fn join_field<'a>(kept: &'a RawValue, removed: Option<&'a RawValue>) -> Result<Cow<'a, RawValue>, PduError> {
    match removed {
        None => Ok(Cow::Borrowed(kept)),
        Some(removed) if kept.get() == "{}" => Ok(Cow::Borrowed(removed)),
        Some(removed) => {
            let mut joined = String::with_capacity(kept.get().len() + removed.get().len());
            merge(kept.get(), removed.get(), &mut joined)?;
            Ok(Cow::Owned(RawValue::from_string(joined)?))
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, PduError> {
    std::str::from_utf8(bytes).map_err(|_| PduError::Text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::{canonical_json::redact, room_version_rules::RoomVersionRules};

    use super::*;
    use crate::pdu::testing::{ALL_RULES, any_event};

    fn halves<'a>(skeleton: &'a str, rest: Option<&'a String>) -> Halves<'a> {
        Halves { skeleton: skeleton.as_bytes(), rest: rest.map(String::as_bytes) }
    }

    proptest! {
        #[test]
        fn halves_give_back_the_exact_bytes_under_every_rule(event in any_event()) {
            let whole = serde_json::to_string(&event).unwrap();
            for rules in ALL_RULES {
                let (skeleton, rest) = split(&event, &rules.redaction).unwrap();
                prop_assert_eq!(&halves(&skeleton, rest.as_ref()).join().unwrap(), &whole);
                let redacted = redact(event.clone(), &rules.redaction, None).unwrap();
                prop_assert_eq!(&skeleton, &serde_json::to_string(&redacted).unwrap());
                prop_assert_eq!(rest.is_none(), skeleton == whole);
            }
        }

        #[test]
        fn joining_never_panics(skeleton: Vec<u8>, rest: Option<Vec<u8>>) {
            let _ = Halves { skeleton: &skeleton, rest: rest.as_deref() }.join();
        }
    }

    fn event(text: &str) -> CanonicalJsonObject {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_message_keeps_its_content_in_the_rest() {
        let event =
            event(r#"{"content":{"body":"Hi \"you\"\n","msgtype":"m.text"},"depth":7,"type":"m.room.message"}"#);
        let (skeleton, rest) = split(&event, &RoomVersionRules::V11.redaction).unwrap();
        assert_eq!(skeleton, r#"{"content":{},"depth":7,"type":"m.room.message"}"#);
        assert_eq!(rest.unwrap(), r#"{"content":{"body":"Hi \"you\"\n","msgtype":"m.text"}}"#);
    }

    #[test]
    fn the_halves_of_a_nested_field_lie_in_the_same_nesting() {
        let event = event(
            r#"{"content":{"membership":"invite","reason":"r","third_party_invite":{"display_name":"B","signed":{"token":"t"}}},"type":"m.room.member"}"#,
        );
        let (skeleton, rest) = split(&event, &RoomVersionRules::V11.redaction).unwrap();
        assert_eq!(
            skeleton,
            r#"{"content":{"membership":"invite","third_party_invite":{"signed":{"token":"t"}}},"type":"m.room.member"}"#
        );
        let rest = rest.unwrap();
        assert_eq!(rest, r#"{"content":{"reason":"r","third_party_invite":{"display_name":"B"}}}"#);
    }

    #[test]
    fn halves_that_do_not_belong_together_are_an_error() {
        for rest in [r#"{"depth":{}}"#, "[]", "{", r#"{"content":1}"#] {
            let halves = Halves { skeleton: br#"{"content":{},"depth":7}"#, rest: Some(rest.as_bytes()) };
            assert!(halves.join().is_err(), "{rest}");
        }
    }
}
