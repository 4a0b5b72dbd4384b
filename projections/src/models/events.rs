//! Every event that the server knows, and what was decided about it.
//!
//! Which event is this, in which room, and what does it say? Was it accepted, and where does it stand? What do clients
//! see of it? Was it redacted, and by what? Which version has a room?
//!
//! Tables: 1 `event id -> nid`; 2 `nid -> Body`; 3 `nid -> Head`; 4 `nid -> client JSON`; 5 `event id -> [Pending]`,
//! redactions that came before their target; 6 `room id -> nid`; 7 `nid -> Room`; 8 `nid -> Transaction`.
//!
//! An event's nid is the fact that learned it; a room's is the first fact that named it.

use ruma::{
    EventId, OwnedEventId, RoomVersionId, UserId, events::TimelineEventType, room_version_rules::RedactionRules,
};
use schemas::{
    Fact, Json, Nid, Part,
    facts::{EventLearned, EventPlaced, EventRestated, EventTransaction, Placement, Redaction, Verdict, Visibility},
};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Position, Projection, StoreError,
    pdu::{Halves, Pdu, client, redaction_applies},
    read::{Read, Table, decode, row},
};

const IDS: Table = Table { model: Model::Events, prefix: 1 };
const BODIES: Table = Table { model: Model::Events, prefix: 2 };
const HEADS: Table = Table { model: Model::Events, prefix: 3 };
const CLIENT: Table = Table { model: Model::Events, prefix: 4 };
const PENDING: Table = Table { model: Model::Events, prefix: 5 };
const ROOM_IDS: Table = Table { model: Model::Events, prefix: 6 };
const ROOMS: Table = Table { model: Model::Events, prefix: 7 };
const TRANSACTIONS: Table = Table { model: Model::Events, prefix: 8 };

/// At most so many redactions wait for one target: what else names it later is without effect anyway.
const MAX_PENDING: usize = 64;

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Events, version: 1, reads: &[], fold };

/// An event's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// What redaction keeps.
    pub skeleton: Json,
    /// What redaction removes; none where there is nothing, or once it is forgotten.
    pub rest: Option<Part>,
}

/// What is asked of an event most often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Event id.
    pub id: String,
    /// Room.
    pub room: Nid,
    /// Event type.
    pub event_type: String,
    /// Full user id.
    pub sender: String,
    /// State key, for state events.
    pub state_key: Option<String>,
    /// By its server's word, milliseconds since the Unix epoch.
    pub origin_server_ts: u64,
    /// By its server's word.
    pub depth: u64,
    /// Event ids that it follows.
    pub prev_events: Vec<String>,
    /// Only the redacted form was ever known.
    pub redacted_copy: bool,
    /// What was decided; none while it is only learned.
    pub placed: Option<Placed>,
    /// The redaction that took effect on it.
    pub redacted_by: Option<Nid>,
}

/// What was decided about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Its place in the room's order; none for an outlier.
    pub position: Option<Position>,
    /// Accepted, soft-failed or rejected.
    pub verdict: Verdict,
    /// History visibility in the state before it.
    pub visibility: Visibility,
}

impl Head {
    /// Whether it stands in the room's order, for clients to see.
    #[must_use]
    pub fn shown_at(&self) -> Option<Position> {
        self.placed.filter(|placed| placed.verdict == Verdict::Accepted).and_then(|placed| placed.position)
    }

    /// Whether it was rejected on receipt.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.placed.is_some_and(|placed| placed.verdict == Verdict::Rejected)
    }
}

/// A room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Room id.
    pub id: String,
    /// Room version, once its create event is known.
    pub version: Option<String>,
    /// Event id of its create event.
    pub create: Option<String>,
}

impl Room {
    /// The rules by which it redacts; those of version 11 while nobody knows.
    #[must_use]
    pub fn redaction_rules(&self) -> RedactionRules {
        let version = self.version.as_deref().and_then(|version| RoomVersionId::try_from(version).ok());
        version.and_then(|version| version.rules()).map_or(RedactionRules::V11, |rules| rules.redaction)
    }
}

/// By which request of which device an event was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The sender's device id.
    pub device: String,
    /// The transaction id.
    pub id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    redaction: Nid,
    may_redact_any: bool,
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::EventLearned(f) => learn(at, f, batch),
        Fact::EventPlaced(f) => place(at, f, batch),
        Fact::EventRestated(f) => restate(at, f, batch),
        Fact::EventTransaction(f) => note_transaction(f, batch),
        _ => Ok(()),
    }
}

fn learn(at: &At<'_>, learned: &EventLearned, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if nid(batch, &learned.id)?.is_some() {
        return Ok(());
    }
    let event = at.nid();
    let pdu = Pdu::learned(learned).map_err(|error| at.refuse(format!("{}: {error}", learned.id)))?;
    let (room_nid, mut room) = match room_nid(batch, &learned.room)? {
        Some(nid) => (nid, room(batch, nid)?.ok_or_else(|| at.refuse("its room has no row"))?),
        None => {
            let room = Room { id: learned.room.clone(), version: None, create: None };
            batch.put_raw(ROOM_IDS, &learned.room, event.to_bytes().to_vec());
            batch.put(ROOMS, event.to_bytes(), &room);
            (event, room)
        }
    };
    if *pdu.event_type() == TimelineEventType::RoomCreate && room.create.is_none() {
        #[derive(Deserialize)]
        struct Create {
            room_version: Option<String>,
        }
        let version = pdu.content_as::<Create>().and_then(|create| create.room_version);
        room.version = Some(version.unwrap_or_else(|| "1".to_owned()));
        room.create = Some(learned.id.clone());
        batch.put(ROOMS, room_nid.to_bytes(), &room);
    }
    let head = Head {
        id: learned.id.clone(),
        room: room_nid,
        event_type: pdu.kind().to_owned(),
        sender: pdu.sender().to_string(),
        state_key: pdu.state_key().map(str::to_owned),
        origin_server_ts: pdu.origin_server_ts().get().into(),
        depth: pdu.depth(),
        prev_events: pdu.prev_events().iter().map(ToString::to_string).collect(),
        redacted_copy: learned.redacted_copy,
        placed: None,
        redacted_by: None,
    };
    batch.put_raw(IDS, &learned.id, event.to_bytes().to_vec());
    batch.put(HEADS, event.to_bytes(), &head);
    show(at, event, &head, &pdu, Halves::of(learned), &room, batch)?;
    let body = Body { skeleton: learned.skeleton.clone(), rest: learned.rest.clone() };
    batch.put(BODIES, event.to_bytes(), &body);
    Ok(())
}

/// Writes what clients see of an event.
fn show(
    at: &At<'_>,
    event: Nid,
    head: &Head,
    pdu: &Pdu,
    halves: Halves<'_>,
    room: &Room,
    batch: &mut Batch<'_>,
) -> Result<(), FoldError> {
    let redacts = pdu.redacts(&room.redaction_rules());
    let text = client::event(&head.id, halves, redacts.as_deref().map(EventId::as_str))
        .map_err(|error| at.refuse(format!("{}: {error}", head.id)))?;
    batch.put_raw(CLIENT, event.to_bytes(), text.into_bytes());
    Ok(())
}

fn place(at: &At<'_>, fact: &EventPlaced, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let (event, mut head) = known(at, &fact.id, batch)?;
    if head.placed.is_some() {
        return Ok(());
    }
    let position = position(at, &fact.class, batch)?;
    head.placed = Some(Placed { position, verdict: fact.verdict, visibility: fact.visibility });
    batch.put(HEADS, event.to_bytes(), &head);
    if let (Some(redaction), Verdict::Accepted) = (&fact.redacts, fact.verdict) {
        redact(at, event, &head, redaction, batch)?;
    }
    for pending in row::<Vec<Pending>>(batch, PENDING, &fact.id)?.unwrap_or_default() {
        if let Some(redaction) = self::head(batch, pending.redaction)? {
            apply(at, pending.redaction, &redaction, event, pending.may_redact_any, batch)?;
        }
    }
    Ok(())
}

/// What an [`EventRestated`] may change: an outlier gets its place, and a soft-failed or rejected event is accepted. All
/// else is without effect.
fn restate(at: &At<'_>, fact: &EventRestated, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let (event, mut head) = known(at, &fact.id, batch)?;
    let Some(placed) = head.placed else { return Ok(()) };
    if !may_become(&placed, fact) {
        return Ok(());
    }
    let position = match placed.position {
        Some(position) if placed.verdict == fact.verdict => Some(position),
        _ => position(at, &fact.class, batch)?,
    };
    head.placed = Some(Placed { position, verdict: fact.verdict, visibility: fact.visibility });
    batch.put(HEADS, event.to_bytes(), &head);
    Ok(())
}

/// The table of transitions: from (placed, verdict) to (placed, verdict).
pub(crate) fn may_become(placed: &Placed, fact: &EventRestated) -> bool {
    let gets_place = placed.position.is_none() && !matches!(fact.class, Placement::Outlier);
    let keeps_place = placed.position.is_some() && !matches!(fact.class, Placement::Outlier);
    match (placed.verdict, fact.verdict) {
        // An outlier gets its place.
        (Verdict::Accepted, Verdict::Accepted | Verdict::SoftFailed | Verdict::Rejected) => gets_place,
        // A soft-failed event enters the state; partial state completes.
        (Verdict::SoftFailed | Verdict::Rejected, Verdict::Accepted) => gets_place || keeps_place,
        _ => false,
    }
}

fn position(at: &At<'_>, class: &Placement, batch: &Batch<'_>) -> Result<Option<Position>, FoldError> {
    match class {
        Placement::Live => Ok(Some(Position::live(at.nid()))),
        Placement::Outlier => Ok(None),
        Placement::History { anchor, order } => {
            let (_, head) = known(at, anchor, batch)?;
            let anchor = head.placed.and_then(|placed| placed.position);
            let anchor = anchor.ok_or_else(|| at.refuse("the anchor of history has no place itself"))?;
            Ok(Some(Position::before(anchor, *order)))
        }
    }
}

fn redact(
    at: &At<'_>,
    redaction: Nid,
    redaction_head: &Head,
    redacts: &Redaction,
    batch: &mut Batch<'_>,
) -> Result<(), FoldError> {
    match nid(batch, &redacts.target)? {
        Some(target) => apply(at, redaction, redaction_head, target, redacts.may_redact_any, batch),
        None => {
            let mut pending: Vec<Pending> = row(batch, PENDING, &redacts.target)?.unwrap_or_default();
            if pending.len() < MAX_PENDING {
                pending.push(Pending { redaction, may_redact_any: redacts.may_redact_any });
                batch.put(PENDING, &redacts.target, &pending);
            }
            Ok(())
        }
    }
}

fn apply(
    at: &At<'_>,
    redaction: Nid,
    redaction_head: &Head,
    target: Nid,
    may_redact_any: bool,
    batch: &mut Batch<'_>,
) -> Result<(), FoldError> {
    let Some(mut head) = head(batch, target)? else { return Ok(()) };
    let room = room(batch, head.room)?.ok_or_else(|| at.refuse("its room has no row"))?;
    let allowed = applies(may_redact_any, &redaction_head.sender, &head.sender);
    if head.redacted_by.is_some() || head.room != redaction_head.room || !allowed {
        return Ok(());
    }
    let Some(mut body) = body(batch, target)? else { return Ok(()) };
    body.rest = None;
    head.redacted_by = Some(redaction);
    let halves = Halves { skeleton: &body.skeleton.0, rest: None };
    let pdu = pdu_of(&head, halves).map_err(|error| at.refuse(format!("{}: {error}", head.id)))?;
    show(at, target, &head, &pdu, halves, &room, batch)?;
    batch.put(BODIES, target.to_bytes(), &body);
    batch.put(HEADS, target.to_bytes(), &head);
    batch.delete(PENDING, &head.id);
    Ok(())
}

/// Whether a redaction takes effect: its sender may redact all, or is of the author's server.
fn applies(may_redact_any: bool, sender: &str, author: &str) -> bool {
    match (<&UserId>::try_from(sender), <&UserId>::try_from(author)) {
        (Ok(sender), Ok(author)) => redaction_applies(may_redact_any, sender, author),
        _ => false,
    }
}

fn note_transaction(fact: &EventTransaction, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Some(event) = nid(batch, &fact.event)?
        && transaction(batch, event)?.is_none()
    {
        let transaction = Transaction { device: fact.device.clone(), id: fact.transaction.clone() };
        batch.put(TRANSACTIONS, event.to_bytes(), &transaction);
    }
    Ok(())
}

/// An event that a fact names; the fact can't be folded without it.
pub(crate) fn known(at: &At<'_>, id: &str, batch: &Batch<'_>) -> Result<(Nid, Head), FoldError> {
    let event = nid(batch, id)?.ok_or_else(|| at.refuse(format!("it names {id}, which nobody has learned")))?;
    let head = head(batch, event)?.ok_or_else(|| at.refuse(format!("{id} has no head")))?;
    Ok((event, head))
}

fn read_nid(table: Table, bytes: Option<Vec<u8>>) -> Result<Option<Nid>, StoreError> {
    let malformed = || StoreError::Row { table: table.to_string(), source: schemas::DecodeError::Truncated };
    bytes.map(|bytes| Nid::from_slice(&bytes).ok_or_else(malformed)).transpose()
}

/// An event's short id.
///
/// # Errors
/// When the store fails.
pub fn nid(read: &dyn Read, id: &str) -> Result<Option<Nid>, StoreError> {
    read_nid(IDS, read.get(IDS, id.as_bytes())?)
}

/// What is asked of an event most often.
///
/// # Errors
/// When the store fails.
pub fn head(read: &dyn Read, event: Nid) -> Result<Option<Head>, StoreError> {
    row(read, HEADS, event.to_bytes())
}

/// An event's bytes.
///
/// # Errors
/// When the store fails.
pub fn body(read: &dyn Read, event: Nid) -> Result<Option<Body>, StoreError> {
    row(read, BODIES, event.to_bytes())
}

/// An event as the rules see it; redacted if it is.
///
/// # Errors
/// When the store fails.
pub fn pdu(read: &dyn Read, event: Nid) -> Result<Option<Pdu>, StoreError> {
    let (Some(head), Some(body)) = (head(read, event)?, body(read, event)?) else { return Ok(None) };
    let halves = Halves { skeleton: &body.skeleton.0, rest: body.rest.as_ref().and_then(Part::open) };
    let malformed = |error: crate::pdu::PduError| StoreError::Row {
        table: BODIES.to_string(),
        source: schemas::DecodeError::Malformed(error.to_string()),
    };
    pdu_of(&head, halves).map(Some).map_err(malformed)
}

/// An event by its full id.
///
/// # Errors
/// When the store fails.
pub fn pdu_by_id(read: &dyn Read, id: &EventId) -> Result<Option<Pdu>, StoreError> {
    match nid(read, id.as_str())? {
        Some(event) => pdu(read, event),
        None => Ok(None),
    }
}

fn pdu_of(head: &Head, halves: Halves<'_>) -> Result<Pdu, crate::pdu::PduError> {
    let id = OwnedEventId::try_from(head.id.as_str()).map_err(|_| crate::pdu::PduError::Field("event_id"))?;
    Ok(Pdu::new(id, halves)?.rejected(head.is_rejected()))
}

/// What clients see of an event: JSON text without `room_id` and `unsigned`.
///
/// # Errors
/// When the store fails.
pub fn client(read: &dyn Read, event: Nid) -> Result<Option<String>, StoreError> {
    let text = read.get(CLIENT, &event.to_bytes())?;
    let malformed = |_| StoreError::Row {
        table: CLIENT.to_string(),
        source: schemas::DecodeError::Malformed("it is not UTF-8".to_owned()),
    };
    text.map(|text| String::from_utf8(text).map_err(malformed)).transpose()
}

/// By which request an event was sent, if a local device sent it by one with a transaction id.
///
/// # Errors
/// When the store fails.
pub fn transaction(read: &dyn Read, event: Nid) -> Result<Option<Transaction>, StoreError> {
    row(read, TRANSACTIONS, event.to_bytes())
}

/// A room's short id.
///
/// # Errors
/// When the store fails.
pub fn room_nid(read: &dyn Read, id: &str) -> Result<Option<Nid>, StoreError> {
    read_nid(ROOM_IDS, read.get(ROOM_IDS, id.as_bytes())?)
}

/// A room.
///
/// # Errors
/// When the store fails.
pub fn room(read: &dyn Read, room: Nid) -> Result<Option<Room>, StoreError> {
    row(read, ROOMS, room.to_bytes())
}

/// Event ids of the events that a record placed, in its order.
///
/// # Errors
/// When the store fails.
pub fn learned_by(read: &dyn Read, lsn: schemas::Lsn) -> Result<Vec<Head>, StoreError> {
    let range = crate::Range::prefix(lsn.to_bytes());
    read.scan(HEADS, range).map(|row| decode(HEADS, &row?.1)).collect()
}
