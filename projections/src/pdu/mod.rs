//! Events as rooms know them: [`Pdu`] for rules and read models, the two [`Halves`] of their bytes, and the text that
//! clients see ([`client`]).

pub mod client;
mod entries;
mod split;
#[cfg(test)]
pub(crate) mod testing;

use std::{borrow::Cow, fmt, sync::Arc};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    events::TimelineEventType, room_version_rules::RedactionRules, state_res,
};
use schemas::facts::EventLearned;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

pub use entries::{ObjectWriter, quote};
pub use split::{Halves, learn, split};

/// No event type or state key is longer, in bytes (client-server API, "Size limits").
pub const MAX_FIELD_BYTES: usize = 255;

/// Why bytes are not an event.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    /// The bytes are not UTF-8.
    #[error("the event is not UTF-8 text")]
    Text,
    /// Not JSON, or fields of other types.
    #[error("the event is malformed: {0}")]
    Json(#[from] serde_json::Error),
    /// A field is missing, or is not what it must be.
    #[error("the event's `{0}` is missing or malformed")]
    Field(&'static str),
    /// A field is too long.
    #[error("the event's `{0}` is longer than 255 bytes")]
    TooLong(&'static str),
}

/// An event (PDU), read once and cheap to clone. It holds what rules look at; the exact bytes are [`Halves`].
#[derive(Clone)]
pub struct Pdu {
    inner: Arc<Inner>,
    rejected: bool,
}

struct Inner {
    id: OwnedEventId,
    room_id: OwnedRoomId,
    /// A create event of room version 12 or later names no room: its own id makes the room's.
    names_room: bool,
    sender: OwnedUserId,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    kind: Box<str>,
    event_type: TimelineEventType,
    state_key: Option<String>,
    content: Box<RawValue>,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: UInt,
    redacts: Option<OwnedEventId>,
}

#[derive(Deserialize)]
struct Skeleton<'a> {
    auth_events: Vec<OwnedEventId>,
    #[serde(borrow)]
    content: &'a RawValue,
    depth: UInt,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    prev_events: Vec<OwnedEventId>,
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    state_key: Option<String>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct Rest<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
}

impl Pdu {
    /// Reads an event from its two halves. The id is the caller's to know: it is not computed here.
    ///
    /// # Errors
    /// When a field is missing, malformed or too long. Room versions whose `prev_events` are pairs (1 and 2) are
    /// malformed here.
    pub fn new(id: OwnedEventId, halves: Halves<'_>) -> Result<Self, PduError> {
        let skeleton: Skeleton<'_> = serde_json::from_slice(halves.skeleton)?;
        let rest: Rest<'_> = halves.rest.map(serde_json::from_slice).transpose()?.unwrap_or_default();
        let content = split::join_field(skeleton.content, rest.content)?.into_owned();
        if !content.get().starts_with('{') {
            return Err(PduError::Field("content"));
        }
        if skeleton.event_type.len() > MAX_FIELD_BYTES {
            return Err(PduError::TooLong("type"));
        }
        if skeleton.state_key.as_ref().is_some_and(|key| key.len() > MAX_FIELD_BYTES) {
            return Err(PduError::TooLong("state_key"));
        }
        let event_type = TimelineEventType::from(&*skeleton.event_type);
        let names_room = skeleton.room_id.is_some();
        let room_id = match skeleton.room_id {
            Some(room_id) => room_id,
            None if event_type == TimelineEventType::RoomCreate => room_id_of_create(&id)?,
            None => return Err(PduError::Field("room_id")),
        };
        let redacts = rest.redacts.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let inner = Inner {
            id,
            room_id,
            names_room,
            sender: skeleton.sender,
            origin_server_ts: skeleton.origin_server_ts,
            kind: skeleton.event_type.into(),
            event_type,
            state_key: skeleton.state_key,
            content,
            prev_events: skeleton.prev_events,
            auth_events: skeleton.auth_events,
            depth: skeleton.depth,
            redacts,
        };
        Ok(Self { inner: Arc::new(inner), rejected: false })
    }

    /// The event that a fact states.
    ///
    /// # Errors
    /// As [`Pdu::new`].
    pub fn learned(learned: &EventLearned) -> Result<Self, PduError> {
        let id = EventId::parse(&learned.id).map_err(|_| PduError::Field("event_id"))?;
        Self::new(id, Halves::of(learned))
    }

    /// The same event, known to have been rejected on receipt: what refers to it as an auth event is rejected too.
    #[must_use]
    pub fn rejected(mut self, rejected: bool) -> Self {
        self.rejected = rejected;
        self
    }

    /// Event id.
    #[must_use]
    pub fn id(&self) -> &EventId {
        &self.inner.id
    }

    /// Room id; for a create event that names none, the one that its own id makes.
    #[must_use]
    pub fn room_id(&self) -> &RoomId {
        &self.inner.room_id
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> &UserId {
        &self.inner.sender
    }

    /// When its server says that it was sent.
    #[must_use]
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.inner.origin_server_ts
    }

    /// Its type, to the letter.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.inner.kind
    }

    /// Its type, for comparing: ruma reads a few unstable names as the stable ones that came of them.
    #[must_use]
    pub fn event_type(&self) -> &TimelineEventType {
        &self.inner.event_type
    }

    /// Its content, an object.
    #[must_use]
    pub fn content(&self) -> &RawValue {
        &self.inner.content
    }

    /// Its content as a type of the caller's, if it fits.
    #[must_use]
    pub fn content_as<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.inner.content.get()).ok()
    }

    /// State key; there is one if and only if it is a state event.
    #[must_use]
    pub fn state_key(&self) -> Option<&str> {
        self.inner.state_key.as_deref()
    }

    /// The events that its sender saw last.
    #[must_use]
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.inner.prev_events
    }

    /// The state events that allow it.
    #[must_use]
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.inner.auth_events
    }

    /// One more than the greatest depth before it, by its sender's word.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.inner.depth.into()
    }

    /// What it redacts under its room version's rules, if it is a redaction that names a target.
    #[must_use]
    pub fn redacts(&self, rules: &RedactionRules) -> Option<OwnedEventId> {
        #[derive(Deserialize)]
        struct Content {
            redacts: OwnedEventId,
        }
        if self.inner.event_type != TimelineEventType::RoomRedaction {
            return None;
        }
        if rules.content_field_redacts {
            self.content_as::<Content>().map(|content| content.redacts)
        } else {
            self.inner.redacts.clone()
        }
    }
}

/// Whether a redaction takes effect on an event of its room (room version 3 and later, "Handling redactions"): its sender
/// may redact anybody's events, or is of the author's server.
#[must_use]
pub fn redaction_applies(may_redact_any: bool, sender: &UserId, author: &UserId) -> bool {
    may_redact_any || sender.server_name() == author.server_name()
}

/// From room version 12 on, the id of a room is that of its create event under another sigil.
fn room_id_of_create(id: &EventId) -> Result<OwnedRoomId, PduError> {
    let hash = id.as_str().strip_prefix('$').unwrap_or_default();
    RoomId::new_v2(hash).map_err(|_| PduError::Field("event_id"))
}

impl fmt::Debug for Pdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { id, kind, state_key, sender, content, .. } = &*self.inner;
        write!(f, "{id} {kind} {state_key:?} by {sender}: {content}")
    }
}

impl state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.inner.id
    }

    fn room_id(&self) -> Option<&RoomId> {
        self.inner.names_room.then_some(&*self.inner.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.inner.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.inner.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.inner.event_type
    }

    fn content(&self) -> &RawValue {
        &self.inner.content
    }

    fn state_key(&self) -> Option<&str> {
        self.inner.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.inner.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.inner.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.inner.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ruma::{CanonicalJsonObject, event_id, room_version_rules::RoomVersionRules, state_res::Event};
    use serde_json::{Value, json};

    use super::*;
    use crate::pdu::testing::{ALL_RULES, any_event};

    fn pdu(fields: &Value, rules: &RoomVersionRules) -> Result<Pdu, PduError> {
        let mut event = json!({
            "auth_events": ["$a"], "content": {"body": "Hi"}, "depth": 3, "hashes": {}, "origin_server_ts": 12,
            "prev_events": ["$p"], "room_id": "!r:x", "sender": "@a:x", "signatures": {}, "type": "m.room.message",
        });
        for (key, value) in fields.as_object().unwrap() {
            event[key] = value.clone();
        }
        event.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let event: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        Pdu::learned(&learn(event_id!("$e"), ruma::room_id!("!r:x"), &event, &rules.redaction, false)?)
    }

    #[test]
    fn reads_every_field() {
        let pdu = pdu(&json!({"state_key": "k"}), &RoomVersionRules::V12).unwrap().rejected(true);
        assert_eq!((pdu.id().as_str(), pdu.room_id().as_str(), pdu.sender().as_str()), ("$e", "!r:x", "@a:x"));
        assert_eq!((pdu.kind(), pdu.state_key()), ("m.room.message", Some("k")));
        assert_eq!(pdu.event_type(), &TimelineEventType::RoomMessage);
        assert_eq!((pdu.content().get(), pdu.depth()), (r#"{"body":"Hi"}"#, 3));
        assert_eq!((pdu.prev_events()[0].as_str(), pdu.auth_events()[0].as_str()), ("$p", "$a"));
        assert!(Event::rejected(&pdu) && !Event::rejected(&pdu.rejected(false)));
    }

    #[test]
    fn a_create_event_without_room_makes_its_own() {
        let create = pdu(&json!({"type": "m.room.create", "state_key": "", "room_id": null}), &RoomVersionRules::V12);
        let create = create.unwrap();
        assert_eq!((create.room_id().as_str(), Event::room_id(&create)), ("!e", None));
        assert!(pdu(&json!({"room_id": null}), &RoomVersionRules::V12).is_err());
    }

    #[test]
    fn what_a_redaction_redacts_stands_where_its_version_says() {
        let fields = json!({"type": "m.room.redaction", "redacts": "$top", "content": {"redacts": "$content"}});
        for rules in ALL_RULES {
            let redaction = match pdu(&fields, rules) {
                Ok(pdu) => pdu.redacts(&rules.redaction).unwrap(),
                Err(error) => panic!("{error}"),
            };
            let expected = if rules.redaction.content_field_redacts { "$content" } else { "$top" };
            assert_eq!(redaction, expected);
        }
        let message = pdu(&json!({"redacts": "$top"}), &RoomVersionRules::V6).unwrap();
        assert_eq!(message.redacts(&RoomVersionRules::V6.redaction), None);
        let odd = pdu(&json!({"type": "m.room.redaction", "redacts": 5}), &RoomVersionRules::V6).unwrap();
        assert_eq!(odd.redacts(&RoomVersionRules::V6.redaction), None);
    }

    #[test]
    fn a_type_is_kept_to_the_letter() {
        let name = "org.matrix.call.sdp_stream_metadata_changed";
        let pdu = pdu(&json!({"type": name}), &RoomVersionRules::V12).unwrap();
        assert_eq!(pdu.kind(), name);
        assert_ne!(pdu.event_type().to_string(), name, "ruma has no aliases any more: `kind` may go");
    }

    #[test]
    fn refuses_what_is_malformed_or_too_long() {
        let long = "x".repeat(256);
        for fields in [
            json!({"type": long}),
            json!({"state_key": long}),
            json!({"sender": format!("@{long}:x")}),
            json!({"room_id": long}),
            json!({"sender": "a"}),
            json!({"depth": -1}),
            json!({"depth": null}),
            json!({"origin_server_ts": "now"}),
            json!({"content": []}),
            json!({"content": null}),
            json!({"prev_events": [["$p", {"sha256": "x"}]]}),
            json!({"auth_events": "$a"}),
        ] {
            assert!(pdu(&fields, &RoomVersionRules::V12).is_err(), "{fields}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(event in any_event(), skeleton: Vec<u8>, rest: Option<Vec<u8>>) {
            let _ = Pdu::new(event_id!("$e").to_owned(), Halves { skeleton: &skeleton, rest: rest.as_deref() });
            let learned = learn(event_id!("$e"), ruma::room_id!("!r:x"), &event, &ALL_RULES[11].redaction, false).unwrap();
            let _ = Pdu::learned(&learned);
        }
    }
}
