//! Events of this server: from what is to be sent to a signed event with its id.

use std::fmt;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, Int, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt,
    UserId, events::TimelineEventType, room_version_rules::RoomVersionRules, signatures::reference_hash,
};
use schemas::facts::EventLearned;
use serde_json::{Value, value::RawValue};

use super::{
    Forbidden, Halves, MAX_PDU_BYTES, Pdu, PduError, State,
    auth::{self, StateKey},
    learn,
};
use crate::keys::OwnKey;

/// No event refers to more events before it (server-server API, "PDUs").
pub const MAX_PREV_EVENTS: usize = 20;

/// What is to be sent, before it has a place in a room.
#[derive(Clone, Debug, PartialEq)]
pub struct Prototype {
    /// Event type, to the letter.
    pub kind: String,
    /// State key of a state event.
    pub state_key: Option<String>,
    /// Content.
    pub content: CanonicalJsonObject,
    /// What a redaction redacts; it goes where the room version wants it.
    pub redacts: Option<OwnedEventId>,
}

impl Prototype {
    /// A message.
    pub fn message(kind: impl Into<String>, content: CanonicalJsonObject) -> Self {
        Self { kind: kind.into(), state_key: None, content, redacts: None }
    }

    /// A state event.
    pub fn state(kind: impl Into<String>, state_key: impl Into<String>, content: CanonicalJsonObject) -> Self {
        Self { state_key: Some(state_key.into()), ..Self::message(kind, content) }
    }
}

/// Where an event is to stand.
#[derive(Clone, Copy, Debug)]
pub struct Position<'a> {
    /// Its room; none only for a create event that makes the room's id.
    pub room_id: Option<&'a RoomId>,
    /// The room's forward extremities, at most [`MAX_PREV_EVENTS`].
    pub prev_events: &'a [OwnedEventId],
    /// One more than the greatest depth among them.
    pub depth: u64,
}

/// A signed event: what rules look at, and the fact that states its bytes.
#[derive(Clone, Debug)]
pub struct Built {
    /// For rules.
    pub pdu: Pdu,
    /// For the log.
    pub learned: EventLearned,
}

/// Why an event can't be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// It, or one of its fields, is larger than events may be.
    #[error("the event is too large: {0}")]
    TooLarge(String),
    /// Its content is not what its type wants, so that the rules can't be asked.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// It is not an event, for a reason that the caller could have known.
    #[error("the event can't be built: {0}")]
    Malformed(String),
}

/// Signs events for rooms of one version.
#[derive(Clone, Copy)]
pub struct Builder<'a> {
    /// The rules of the room's version.
    pub rules: &'static RoomVersionRules,
    /// This server's key.
    pub key: &'a OwnKey,
}

impl Builder<'_> {
    /// Gives an event its place, auth events out of `state`, hashes, signature and id. It does not ask whether the
    /// event is allowed: [`auth::authorise`] does.
    ///
    /// # Errors
    /// When it is too large or malformed.
    pub fn build(
        &self,
        what: Prototype,
        sender: &UserId,
        at: MilliSecondsSinceUnixEpoch,
        position: Position<'_>,
        state: impl State,
    ) -> Result<Built, BuildError> {
        let auth_events = self.auth_events(&what, sender, state)?;
        let mut event = self.lay_out(what, sender, at, position, &auth_events)?;
        let malformed = |error: &dyn fmt::Display| BuildError::Malformed(error.to_string());
        self.key.hash_and_sign(&mut event, &self.rules.redaction).map_err(|error| match error {
            ruma::signatures::JsonError::PduTooLarge => too_large(),
            error => malformed(&error),
        })?;
        let hash = reference_hash(&event, self.rules).map_err(|error| malformed(&error))?;
        let id = EventId::new_v2_or_v3(&hash).map_err(|error| malformed(&error))?;
        let room = position.room_id.map_or_else(|| RoomId::new_v2(&hash), |room| Ok(room.to_owned()));
        let room = room.map_err(|error| malformed(&error))?;
        let learned = learn(&id, &room, &event, &self.rules.redaction, false).map_err(|error| malformed(&error))?;
        let halves = Halves::of(&learned);
        // The halves together are a little longer than the whole: only near the limit is the whole worth making.
        if halves.skeleton.len() + halves.rest.map_or(0, <[u8]>::len) > MAX_PDU_BYTES
            && halves.join().map_err(|error| malformed(&error))?.len() > MAX_PDU_BYTES
        {
            return Err(too_large());
        }
        let pdu = Pdu::new(id, halves).map_err(|error| match error {
            PduError::TooLong(_) => BuildError::TooLarge(error.to_string()),
            error => malformed(&error),
        })?;
        Ok(Built { pdu, learned })
    }

    /// The state that building and authorising an event look at, for reading it beforehand.
    ///
    /// # Errors
    /// When the content is not what the type wants.
    pub fn needs(&self, what: &Prototype, sender: &UserId) -> Result<Vec<StateKey>, Forbidden> {
        let event_type = TimelineEventType::from(what.kind.as_str());
        let rules = &self.rules.authorization;
        auth::needs(&event_type, sender, what.state_key.as_deref(), &content_for_rules(&event_type, what)?, rules)
    }

    fn auth_events(
        &self,
        what: &Prototype,
        sender: &UserId,
        state: impl State,
    ) -> Result<Vec<OwnedEventId>, Forbidden> {
        let event_type = TimelineEventType::from(what.kind.as_str());
        let content = content_for_rules(&event_type, what)?;
        let rules = &self.rules.authorization;
        let keys = auth::selection(&event_type, sender, what.state_key.as_deref(), &content, rules)?;
        Ok(keys.iter().filter_map(|(event_type, key)| state(event_type, key)).map(|pdu| pdu.id().to_owned()).collect())
    }

    fn lay_out(
        &self,
        mut what: Prototype,
        sender: &UserId,
        at: MilliSecondsSinceUnixEpoch,
        position: Position<'_>,
        auth_events: &[OwnedEventId],
    ) -> Result<CanonicalJsonObject, BuildError> {
        if position.prev_events.len() > MAX_PREV_EVENTS {
            return Err(BuildError::Malformed(format!("it refers to more than {MAX_PREV_EVENTS} events before it")));
        }
        let mut event = CanonicalJsonObject::new();
        let mut put = |key: &str, value: CanonicalJsonValue| event.insert(key.to_owned(), value);
        if let Some(target) = what.redacts {
            if self.rules.redaction.content_field_redacts {
                what.content.insert("redacts".into(), target.as_str().into());
            } else {
                put("redacts", target.as_str().into());
            }
        }
        put("auth_events", ids(auth_events));
        put("content", what.content.into());
        put("depth", UInt::new_saturating(position.depth).into());
        put("origin_server_ts", at.get().into());
        put("prev_events", ids(position.prev_events));
        if let Some(room_id) = position.room_id {
            put("room_id", room_id.as_str().into());
        }
        put("sender", sender.as_str().into());
        if let Some(state_key) = what.state_key {
            put("state_key", CanonicalJsonValue::String(state_key));
        }
        put("type", CanonicalJsonValue::String(what.kind));
        Ok(event)
    }
}

/// The content as the rules for selecting auth events read it: they look into that of membership events alone.
fn content_for_rules(event_type: &TimelineEventType, what: &Prototype) -> Result<Box<RawValue>, Forbidden> {
    let content = if *event_type == TimelineEventType::RoomMember {
        serde_json::value::to_raw_value(&what.content)
    } else {
        serde_json::value::to_raw_value(&CanonicalJsonObject::new())
    };
    content.map_err(|error| Forbidden(error.to_string()))
}

fn ids(ids: &[OwnedEventId]) -> CanonicalJsonValue {
    CanonicalJsonValue::Array(ids.iter().map(|id| id.as_str().into()).collect())
}

fn too_large() -> BuildError {
    BuildError::TooLarge(format!("events have at most {MAX_PDU_BYTES} bytes"))
}

/// Why JSON can't be the content of an event: where, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("content{path} {why}")]
pub struct ContentError {
    path: String,
    why: &'static str,
}

impl ContentError {
    const fn here(why: &'static str) -> Self {
        Self { path: String::new(), why }
    }

    fn within(mut self, step: &str) -> Self {
        self.path.insert_str(0, step);
        self
    }
}

/// The content of an event to be sent, if it is canonical JSON (appendices, "Canonical JSON").
///
/// # Errors
/// When it is not an object, or holds a number that is not an integer of at most 53 bits.
pub fn content(json: &RawValue) -> Result<CanonicalJsonObject, ContentError> {
    match serde_json::from_str(json.get()) {
        Ok(Value::Object(fields)) => object(fields),
        Ok(_) => Err(ContentError::here("must be an object")),
        Err(_) => Err(ContentError::here("is nested too deeply")),
    }
}

fn object(fields: serde_json::Map<String, Value>) -> Result<CanonicalJsonObject, ContentError> {
    let field = |(key, value)| match canonical(value) {
        Ok(value) => Ok((key, value)),
        Err(error) => Err(error.within(&format!(".{key}"))),
    };
    fields.into_iter().map(field).collect()
}

fn canonical(value: Value) -> Result<CanonicalJsonValue, ContentError> {
    Ok(match value {
        Value::Null => CanonicalJsonValue::Null,
        Value::Bool(truth) => CanonicalJsonValue::Bool(truth),
        Value::String(text) => CanonicalJsonValue::String(text),
        Value::Number(number) => {
            let integer = number.as_i64().and_then(Int::new);
            CanonicalJsonValue::Integer(integer.ok_or(ContentError::here(
                "is a number that events can't hold: send an integer between -(2^53)+1 and (2^53)-1, or a string",
            ))?)
        }
        Value::Array(items) => {
            let item = |(n, item)| canonical(item).map_err(|error| error.within(&format!("[{n}]")));
            CanonicalJsonValue::Array(items.into_iter().enumerate().map(item).collect::<Result<_, _>>()?)
        }
        Value::Object(fields) => CanonicalJsonValue::Object(object(fields)?),
    })
}
