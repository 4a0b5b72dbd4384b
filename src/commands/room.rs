//! A room as decisions see it, and the making of its next event.

use projections::{
    Pdu, StoreError, View,
    models::{
        events,
        membership::{self, Membership},
        rooms,
        state::{self, State},
        timeline,
    },
};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, UInt, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use schemas::{
    Draft, Key, Nid, Read, Tag,
    facts::{EventPlaced, EventTransaction, Placement, StateBase, StateBefore, StateChange, Verdict},
};

use super::{Error, Parts, Refusal, Sender, lane::Tip, unchanged};
use crate::rooms::{BuildError, Builder, Forbidden, Position, Prototype, auth, over, redaction, versions, visibility};

/// At most so many forward extremities become the parents of one event; the rest follow with the next ones.
const MAX_PREV_EVENTS: usize = 10;

/// A room in a view.
pub struct Room<'a> {
    /// Where it is read from.
    pub view: &'a View,
    /// Its short id.
    pub nid: Nid,
    /// Its id.
    pub id: OwnedRoomId,
    /// Its version's rules.
    pub rules: &'static RoomVersionRules,
    /// Its version.
    pub version: RoomVersionId,
    /// Its current state.
    pub current: State,
}

impl<'a> Room<'a> {
    /// The room, if this server has its state.
    ///
    /// # Errors
    /// When the store fails.
    pub fn find(view: &'a View, id: &RoomId) -> Result<Option<Self>, StoreError> {
        let Some(nid) = events::room_nid(view, id.as_str())? else { return Ok(None) };
        let Some(room) = events::room(view, nid)? else { return Ok(None) };
        let state = state::current(view, nid)?;
        let version = room.version.and_then(|version| RoomVersionId::try_from(version).ok());
        let (Some(version), false) = (version, state.is_empty()) else { return Ok(None) };
        let Ok(rules) = versions::rules(&version) else { return Ok(None) };
        Ok(Some(Self { view, nid, id: id.to_owned(), rules, version, current: state }))
    }

    /// The room, or `M_NOT_FOUND`.
    ///
    /// # Errors
    /// When there is no such room here.
    pub fn get(view: &'a View, id: &RoomId) -> Result<Self, Error> {
        Self::find(view, id)?.ok_or_else(|| Refusal::not_found("this server doesn't know the room").into())
    }

    /// The room for something that only its members can do, or `M_FORBIDDEN`: who is not in it need not know whether it
    /// exists.
    ///
    /// # Errors
    /// When there is no such room here.
    pub fn of_members(view: &'a View, id: &RoomId) -> Result<Self, Error> {
        Self::find(view, id)?.ok_or_else(|| Refusal::forbidden("you are not in this room").into())
    }

    /// An event of the current state.
    ///
    /// # Errors
    /// When the store fails.
    pub fn state(&self, event_type: &StateEventType, state_key: &str) -> Result<Option<Pdu>, StoreError> {
        match state::get(self.view, &self.current, &event_type.to_string(), state_key)? {
            Some(event) => events::pdu(self.view, event),
            None => Ok(None),
        }
    }

    /// Asks the rules about the current state.
    ///
    /// # Errors
    /// When the store fails in one of the look-ups.
    pub fn with_state<T>(
        &self,
        decide: impl FnOnce(&dyn Fn(&StateEventType, &str) -> Option<Pdu>) -> T,
    ) -> Result<T, StoreError> {
        over(|event_type, state_key| self.state(event_type, state_key), decide)
    }

    /// A user's membership in the current state; `leave` for who was never there.
    ///
    /// # Errors
    /// When the store fails.
    pub fn membership(&self, user: &UserId) -> Result<Membership, StoreError> {
        let member = membership::member(self.view, self.nid, user.as_str())?;
        Ok(member.map_or(Membership::Leave, |member| member.membership))
    }
}

/// An event to be, and the request that it comes from.
pub struct NewEvent {
    /// What it says.
    pub prototype: Prototype,
    /// The transaction id of the request.
    pub transaction: Option<String>,
    /// The guards of the sender.
    pub sender_reads: Vec<Read>,
}

/// A draft of a record with one event.
pub struct Composed {
    /// The record.
    pub draft: Draft,
    /// The event's id.
    pub id: OwnedEventId,
    /// Its depth.
    pub depth: u64,
    /// Whether the set of states after the forward extremities changes.
    pub changes_state: bool,
}

/// Builds the next event of a room on its tip, authorises and signs it, and drafts its record.
///
/// # Errors
/// When the rules forbid it, or it is too large.
pub fn compose(parts: &Parts, room: &Room<'_>, tip: &Tip, sender: &Sender, event: NewEvent) -> Result<Composed, Error> {
    let extremities = timeline::extremities(room.view, room.nid)?;
    let (prev, depth) = match &tip.before {
        Some((id, depth)) => (vec![id.clone()], *depth),
        None => {
            let newest = extremities.iter().rev().take(MAX_PREV_EVENTS);
            let depth = extremities.iter().map(|extremity| extremity.depth).max().unwrap_or_default();
            (newest.filter_map(|extremity| OwnedEventId::try_from(extremity.id.as_str()).ok()).collect(), depth)
        }
    };
    let NewEvent { prototype, transaction, sender_reads } = event;
    let builder = Builder { rules: room.rules, key: &parts.key };
    let place = Position { room_id: Some(&room.id), prev_events: &prev, depth: depth.saturating_add(1) };
    let at = now(parts);
    let is_state = prototype.state_key.is_some();
    let cached = |event_type: &StateEventType, state_key: &str| {
        tip.state.get(&room.current, event_type, state_key, || room.state(event_type, state_key))
    };
    let (built, seen, redacts) = over(cached, |state| -> Result<_, Error> {
        let built = builder.build(prototype, &sender.user, at, place, state)?;
        auth::authorise(&built.pdu, room.rules, state)?;
        let redacts = redaction::effect(&built.pdu, state, room.rules)?;
        Ok((built, visibility::of(state), redacts))
    })??;
    // With several forward extremities the new event merges them, which is a change of the set of states after them.
    let changes_state = is_state || (tip.before.is_none() && extremities.len() > 1);
    let id = built.pdu.id().to_owned();
    let mut draft = guards(room, sender_reads)?;
    let change = StateChange {
        event_type: built.pdu.kind().to_owned(),
        state_key: built.pdu.state_key().unwrap_or_default().to_owned(),
        event: Some(id.to_string()),
    };
    let placed = EventPlaced {
        id: id.to_string(),
        class: Placement::Live,
        verdict: Verdict::Accepted,
        state_before: Some(state_before(room, built.pdu.prev_events())?),
        current: if is_state { vec![change] } else { Vec::new() },
        visibility: seen,
        servers: other_servers(room, parts)?,
        redacts,
    };
    let depth = built.pdu.depth();
    if changes_state {
        draft.writes.push(Key::new(Tag::RoomState, room.id.as_str()));
    }
    if *built.pdu.event_type() == TimelineEventType::RoomMember
        && let Some(user) = built.pdu.state_key()
    {
        draft.writes.push(Key::pair(Tag::Membership, room.id.as_str(), user));
    }
    draft.facts.push(built.learned.into());
    draft.facts.push(placed.into());
    if let Some(transaction) = transaction {
        let device = sender.device.to_string();
        draft.facts.push(EventTransaction { event: id.to_string(), device, transaction }.into());
    }
    Ok(Composed { draft, id, depth, changes_state })
}

/// What every decision about a room rests on, besides the sender's own guards.
///
/// # Errors
/// When the room is blocked, or the store fails.
pub fn guards(room: &Room<'_>, sender_reads: Vec<Read>) -> Result<Draft, Error> {
    let keys = [Key::new(Tag::RoomState, room.id.as_str()), Key::new(Tag::RoomAdmin, room.id.as_str())];
    let mut reads = sender_reads;
    for key in keys {
        reads.push(unchanged(room.view, key)?);
    }
    Ok(Draft { reads, ..Draft::default() })
}

/// Nobody does anything in a room that is blocked, except leave it.
///
/// # Errors
/// `M_FORBIDDEN` if it is.
pub fn not_blocked(room: &Room<'_>) -> Result<(), Error> {
    if rooms::block(room.view, room.id.as_str())?.is_some() {
        return Err(Refusal::forbidden("this room has been blocked by the server's administrators").into());
    }
    Ok(())
}

/// The state before a local event is the room's current state, which resolves the states after all its parents.
fn state_before(room: &Room<'_>, prev: &[OwnedEventId]) -> Result<StateBefore, Error> {
    let Some(first) = prev.first() else {
        return Ok(StateBefore { base: StateBase::Empty, delta: Vec::new() });
    };
    let base = StateBase::After(first.to_string());
    let Some(event) = events::nid(room.view, first.as_str())? else {
        // A message in flight: it changes no state, so the state after it is the current one.
        return Ok(StateBefore { base, delta: Vec::new() });
    };
    let after = state::after(room.view, event)?
        .ok_or_else(|| Error::Internal(format!("the room's extremity {first} has no state")))?;
    let mut delta = Vec::new();
    for difference in state::diff(room.view, &after, &room.current) {
        let difference = difference?;
        let event = difference.after.map(|event| events::head(room.view, event)).transpose()?.flatten();
        delta.push(StateChange {
            event_type: difference.event_type,
            state_key: difference.state_key,
            event: event.map(|event| event.id),
        });
    }
    Ok(StateBefore { base, delta })
}

fn other_servers(room: &Room<'_>, parts: &Parts) -> Result<Vec<String>, StoreError> {
    let servers = membership::servers_in(room.view, room.nid).map(|server| Ok(server?.0));
    servers.filter(|server| !matches!(server, Ok(name) if name == parts.server_name.as_str())).collect()
}

/// The time that a new event states.
pub(super) fn now(parts: &Parts) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::new_saturating(parts.now_ms()))
}

impl From<Forbidden> for Error {
    fn from(forbidden: Forbidden) -> Self {
        Refusal::forbidden(forbidden.0).into()
    }
}

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::TooLarge(message) => Refusal::too_large(message).into(),
            BuildError::Forbidden(forbidden) => Refusal::bad_json(forbidden.0).into(),
            BuildError::Malformed(message) => Self::Internal(message),
        }
    }
}

/// Canonical JSON of an object, or why it can't be one.
///
/// # Errors
/// `M_BAD_JSON` for numbers that are not integers or too large.
pub fn canonical(content: &str) -> Result<CanonicalJsonObject, Refusal> {
    serde_json::from_str(content)
        .map_err(|error| Refusal::bad_json(format!("the content is not canonical JSON (integers only): {error}")))
}
