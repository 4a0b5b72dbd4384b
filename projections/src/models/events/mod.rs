//! Every event that the server knows, once: what it is, its bytes, its place and verdict, and the text clients get.
//!
//! Which event has this id? Of what room, type and sender is it, and where does it stand? What are its exact bytes?
//! What do clients see of it? Was it redacted, and by which event? Which room has this id, and of what version is it?
//!
//! Tables: 1 `event id -> nid`; 2 `nid -> Head`; 3 `nid -> skeleton`; 4 `nid -> Part`, the rest, dropped by redaction;
//! 5 `nid -> text for clients`, without `room_id` and `unsigned`; 6 `target id -> ()` and `target id | redaction -> ()`,
//! redactions whose target is not known yet; 7 `room id -> room`; 8 `room -> Room`; 9 `nid -> Transaction`; 10 `room
//! | nid -> ()`, a room's events; 11 `room id -> room`, rooms that are being purged.
//!
//! An event is learned once: the first bytes count. It is placed once; then a restatement may change, as it takes effect:
//!
//! | from | to |
//! |---|---|
//! | outlier | anything |
//! | live or history, accepted | the same, with another state |
//! | live or history, soft-failed or rejected | the same class with any verdict |
//!
//! What the table doesn't have has no effect: neither the fact's place nor its state. A redaction takes effect when it is
//! accepted and no outlier, whichever of the two events comes first, if it may redact any event or both senders are of
//! one server (room version 3, "Handling redactions").

mod fold;
mod forget;
#[cfg(test)]
mod tests;

use ruma::EventId;
use schemas::{
    Fact, Json, Lsn, Nid, Part,
    facts::{Redaction, StateBefore, StateChange, Verdict, Visibility},
};
use serde::{Deserialize, Serialize};

use super::membership::Membership;
use crate::{
    At, Halves, Model, Pdu, PduError, Position, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, malformed_key, row, rows},
};

const IDS: Table = Table { model: Model::Events, prefix: 1 };
const HEADS: Table = Table { model: Model::Events, prefix: 2 };
const SKELETONS: Table = Table { model: Model::Events, prefix: 3 };
const RESTS: Table = Table { model: Model::Events, prefix: 4 };
const TEXTS: Table = Table { model: Model::Events, prefix: 5 };
const PENDING: Table = Table { model: Model::Events, prefix: 6 };
const ROOM_IDS: Table = Table { model: Model::Events, prefix: 7 };
const ROOMS: Table = Table { model: Model::Events, prefix: 8 };
const TRANSACTIONS: Table = Table { model: Model::Events, prefix: 9 };
const OF_ROOMS: Table = Table { model: Model::Events, prefix: 10 };
const DETACHED: Table = Table { model: Model::Events, prefix: 11 };

/// This model's fold.
pub const PROJECTION: Projection =
    Projection { model: Model::Events, version: 2, reads: &[Model::Staging], fold: fold::fold };

/// All that is asked of an event without looking at its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Event id.
    pub id: String,
    /// Its room's short id.
    pub room: Nid,
    /// Its type.
    pub event_type: String,
    /// Full user id.
    pub sender: String,
    /// There is one if and only if it is a state event.
    pub state_key: Option<String>,
    /// When its server says that it was sent, milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// By its sender's word, one more than the greatest depth before it.
    pub depth: u64,
    /// Ids of the events that its sender saw last.
    pub prev_events: Vec<String>,
    /// What an `m.room.member` event says.
    pub membership: Option<Membership>,
    /// What it relates to; nothing once it is redacted.
    pub relation: Option<Relation>,
    /// Only its redacted form ever came.
    pub redacted_copy: bool,
    /// What it redacts.
    pub redaction: Option<Redaction>,
    /// The first event that redacted it.
    pub redacted_by: Option<Nid>,
    /// Where it stands; nowhere yet if it is only learned.
    pub placed: Option<Placed>,
}

impl Head {
    /// Its place in the order of its room, where clients see it, if it is accepted and no outlier.
    #[must_use]
    pub fn shown_at(&self) -> Option<Position> {
        self.placed.and_then(|placed| placed.position)
    }

    /// Whether it was rejected on receipt.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.placed.is_some_and(|placed| placed.verdict == Verdict::Rejected)
    }
}

/// `m.relates_to` (client-server API, "Forming relationships between events").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// `rel_type`.
    pub rel_type: String,
    /// Id of the event that it relates to.
    pub parent: String,
    /// An annotation's key.
    pub key: Option<String>,
    /// It has what a replacement must have: new content, or all of it encrypted, and no state key.
    pub replaces: bool,
}

/// Where an event stands, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The fact that says so.
    pub by: Nid,
    /// Live, history or outlier.
    pub class: Class,
    /// What was decided.
    pub verdict: Verdict,
    /// History visibility in the state before it.
    pub visibility: Visibility,
    /// Its place in the order of its room, if it is accepted and no outlier.
    pub position: Option<Position>,
    /// Whether it was in that order before that fact.
    pub was_shown: bool,
}

impl Placed {
    /// It is in the order of its room: accepted and no outlier.
    #[must_use]
    pub const fn is_shown(&self) -> bool {
        self.position.is_some()
    }
}

/// How an event is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// It happened while the server was in the room.
    Live,
    /// It was backfilled.
    History,
    /// Another event refers to it.
    Outlier,
}

/// A room that some known event is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Its id.
    pub id: String,
    /// Its version, once an accepted create event is known.
    pub version: Option<String>,
    /// That create event.
    pub create: Option<Nid>,
}

/// By which request a local event was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The sender's device id.
    pub device: String,
    /// The transaction id that it chose.
    pub id: String,
}

/// An event's bytes; without the rest it is the redacted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// What redaction keeps.
    pub skeleton: Json,
    /// What redaction removes.
    pub rest: Option<Part>,
}

impl Bytes {
    /// As they are joined and read; a sealed rest counts as forgotten.
    #[must_use]
    pub fn halves(&self) -> Halves<'_> {
        Halves { skeleton: &self.skeleton.0, rest: self.rest.as_ref().and_then(Part::open) }
    }
}

/// The short id of the event with this id.
///
/// # Errors
/// When the store fails.
pub fn nid(read: &dyn Read, id: &str) -> Result<Option<Nid>, StoreError> {
    nid_at(read, IDS, id)
}

/// All that is asked of an event without looking at its content.
///
/// # Errors
/// When the store fails.
pub fn head(read: &dyn Read, event: Nid) -> Result<Option<Head>, StoreError> {
    row(read, HEADS, event.to_bytes())
}

/// The event with this id.
///
/// # Errors
/// When the store fails.
pub fn find(read: &dyn Read, id: &str) -> Result<Option<(Nid, Head)>, StoreError> {
    let Some(event) = nid(read, id)? else { return Ok(None) };
    Ok(head(read, event)?.map(|head| (event, head)))
}

/// The events that a record taught, in its order.
pub fn learned_by(read: &dyn Read, lsn: Lsn) -> impl Iterator<Item = Result<Head, StoreError>> + '_ {
    rows(read, HEADS, Range::prefix(lsn.to_bytes())).map(|row| Ok(row?.1))
}

/// What clients see of an event, without `room_id` and `unsigned` ([`crate::pdu::client`] adds them).
///
/// # Errors
/// When the store fails.
pub fn client(read: &dyn Read, event: Nid) -> Result<Option<String>, StoreError> {
    let text = read.get(TEXTS, &event.to_bytes())?.map(String::from_utf8).transpose();
    text.map_err(|_| corrupt(TEXTS, "an event's text is not UTF-8"))
}

/// An event's bytes.
///
/// # Errors
/// When the store fails.
pub fn bytes(read: &dyn Read, event: Nid) -> Result<Option<Bytes>, StoreError> {
    let key = event.to_bytes();
    let Some(skeleton) = read.get(SKELETONS, &key)? else { return Ok(None) };
    Ok(Some(Bytes { skeleton: Json(skeleton), rest: row(read, RESTS, key)? }))
}

/// An event as rules look at it.
///
/// # Errors
/// When the store fails.
pub fn pdu(read: &dyn Read, event: Nid) -> Result<Option<Pdu>, StoreError> {
    let (Some(head), Some(bytes)) = (head(read, event)?, bytes(read, event)?) else { return Ok(None) };
    let pdu = parse(&head.id, bytes.halves()).map_err(|error| corrupt(SKELETONS, &error.to_string()))?;
    Ok(Some(pdu.rejected(head.is_rejected())))
}

/// The event with this id, as rules look at it.
///
/// # Errors
/// When the store fails.
pub fn pdu_by_id(read: &dyn Read, id: &EventId) -> Result<Option<Pdu>, StoreError> {
    match nid(read, id.as_str())? {
        Some(event) => pdu(read, event),
        None => Ok(None),
    }
}

/// The short id of the room with this id, if some event of it is known. The server need not be in it.
///
/// # Errors
/// When the store fails.
pub fn room_nid(read: &dyn Read, id: &str) -> Result<Option<Nid>, StoreError> {
    nid_at(read, ROOM_IDS, id)
}

/// A room.
///
/// # Errors
/// When the store fails.
pub fn room(read: &dyn Read, room: Nid) -> Result<Option<Room>, StoreError> {
    row(read, ROOMS, room.to_bytes())
}

/// The short ids of all known events of a room, in the order in which they were learned.
pub fn of_room(read: &dyn Read, room: Nid) -> impl Iterator<Item = Result<Nid, StoreError>> + '_ {
    rows::<()>(read, OF_ROOMS, Range::prefix(room.to_bytes())).map(|row| {
        let (key, ()) = row?;
        key.get(Nid::LEN..).and_then(Nid::from_slice).ok_or_else(|| malformed_key(OF_ROOMS))
    })
}

/// The short id of a room that is being purged, by its id: nobody finds it otherwise.
///
/// # Errors
/// When the store fails.
pub fn detached(read: &dyn Read, id: &str) -> Result<Option<Nid>, StoreError> {
    nid_at(read, DETACHED, id)
}

/// By which request of which device a local event was sent.
///
/// # Errors
/// When the store fails.
pub fn transaction(read: &dyn Read, event: Nid) -> Result<Option<Transaction>, StoreError> {
    row(read, TRANSACTIONS, event.to_bytes())
}

pub(crate) use forget::purge;

/// A placement that took effect, for the folds below.
pub(crate) struct Effect<'a> {
    pub(crate) event: Nid,
    pub(crate) head: Head,
    pub(crate) placed: Placed,
    pub(crate) state_before: Option<&'a StateBefore>,
    pub(crate) current: &'a [StateChange],
}

impl Effect<'_> {
    /// With this fact the event got into the order of its room.
    pub(crate) const fn appears(&self) -> bool {
        self.placed.is_shown() && !self.placed.was_shown
    }

    /// What this fact's event, a redaction, has just redacted.
    pub(crate) fn redacted(&self, read: &dyn Read) -> Result<Option<(Nid, Head)>, StoreError> {
        let Some(redaction) = self.head.redaction.as_ref().filter(|_| self.appears()) else { return Ok(None) };
        Ok(find(read, &redaction.target)?.filter(|(_, target)| target.redacted_by == Some(self.event)))
    }
}

/// What a fact places or restates, if that took effect.
pub(crate) fn effect<'a>(at: &At<'_>, fact: &'a Fact, read: &dyn Read) -> Result<Option<Effect<'a>>, StoreError> {
    let (id, state_before, current) = match fact {
        Fact::EventPlaced(f) => (&f.id, f.state_before.as_ref(), &f.current),
        Fact::EventRestated(f) => (&f.id, f.state_before.as_ref(), &f.current),
        _ => return Ok(None),
    };
    let Some((event, head)) = find(read, id)? else { return Ok(None) };
    let placed = head.placed.filter(|placed| placed.by == at.nid());
    Ok(placed.map(|placed| Effect { event, head, placed, state_before, current }))
}

/// Like [`effect`], for folds that look only at the current state: a message costs them nothing.
pub(crate) fn state_effect<'a>(at: &At<'_>, fact: &'a Fact, read: &dyn Read) -> Result<Option<Effect<'a>>, StoreError> {
    match fact {
        Fact::EventPlaced(f) if f.current.is_empty() && f.redacts.is_none() => Ok(None),
        _ => effect(at, fact, read),
    }
}

fn nid_at(read: &dyn Read, table: Table, id: &str) -> Result<Option<Nid>, StoreError> {
    let Some(bytes) = read.get(table, id.as_bytes())? else { return Ok(None) };
    Nid::from_slice(&bytes).map(Some).ok_or_else(|| corrupt(table, "a short id has ten bytes"))
}

fn parse(id: &str, halves: Halves<'_>) -> Result<Pdu, PduError> {
    let id = EventId::parse(id).map_err(|_| PduError::Field("event_id"))?;
    Pdu::new(id, halves)
}

fn corrupt(table: Table, why: &str) -> StoreError {
    StoreError::Row { table: table.to_string(), source: schemas::DecodeError::Malformed(why.to_owned()) }
}

fn pending_key(target: &str) -> KeyBuf {
    KeyBuf::new().str(target)
}

fn of_room_key(room: Nid, event: Nid) -> KeyBuf {
    KeyBuf::new().nid(room).nid(event)
}
