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
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedEventId, OwnedRoomId, RoomId, RoomVersionId,
    UInt, UserId, events::StateEventType, room_version_rules::RoomVersionRules,
};
use schemas::{
    Draft, Fact, Key, Nid, Read, Tag,
    facts::{EventPlaced, EventTransaction, Placement, Verdict},
};

use super::{
    Error, Parts, Refusal,
    forks::{Before, Outcome},
    lane::Tip,
    unchanged,
};
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
    /// The sender's device and the transaction id of its request.
    pub transaction: Option<(OwnedDeviceId, String)>,
    /// The guards of the sender.
    pub sender_reads: Vec<Read>,
    /// When it was asked for: the same however often it is decided.
    pub at: MilliSecondsSinceUnixEpoch,
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

/// What an event is built on.
struct Parents {
    ids: Vec<OwnedEventId>,
    /// The greatest among them.
    depth: u64,
    before: Before,
    in_flight: bool,
}

impl Parents {
    /// The message in flight, or the room's newest forward extremities.
    fn of(room: &Room<'_>, tip: &Tip) -> Result<Self, Error> {
        if let Some((id, depth)) = &tip.before
            && events::nid(room.view, id.as_str())?.is_none()
        {
            let (ids, before) = (vec![id.clone()], Before::in_flight(room, id));
            return Ok(Self { ids, depth: *depth, before, in_flight: true });
        }
        let extremities = timeline::extremities(room.view, room.nid)?;
        let depth = extremities.iter().map(|extremity| extremity.depth).max().unwrap_or_default();
        let newest = extremities.iter().rev().take(MAX_PREV_EVENTS);
        let ids: Vec<_> = newest.filter_map(|extremity| OwnedEventId::try_from(&*extremity.id).ok()).collect();
        let before = Before::resolve(room, &ids)?;
        Ok(Self { ids, depth, before, in_flight: false })
    }
}

/// Builds the next event of a room on its tip, authorises and signs it, and drafts its record.
///
/// # Errors
/// When the rules forbid it, or it is too large.
pub fn compose(parts: &Parts, room: &Room<'_>, tip: &Tip, sender: &UserId, event: NewEvent) -> Result<Composed, Error> {
    let Parents { ids, depth, before, in_flight } = Parents::of(room, tip)?;
    let NewEvent { prototype, transaction, sender_reads, at } = event;
    let builder = Builder { rules: room.rules, key: &parts.key };
    let place = Position { room_id: Some(&room.id), prev_events: &ids, depth: depth.saturating_add(1) };
    let look = |event_type: &StateEventType, state_key: &str| {
        let read = || before.state.pdu(room.view, event_type, state_key);
        match before.state.as_stored() {
            Some(state) => tip.state.get(state, event_type, state_key, read),
            None => read(),
        }
    };
    let (built, seen, redacts) = over(look, |state| -> Result<_, Error> {
        let built = builder.build(prototype, sender, at, place, state)?;
        auth::authorise(&built.pdu, room.rules, state)?;
        let redacts = redaction::effect(&built.pdu, state, room.rules)?;
        Ok((built, visibility::of(state), redacts))
    })??;
    if before.state.as_stored() != Some(&room.current) {
        // It need not be the current state, where the room has more forks than an event has parents.
        room.with_state(|state| auth::allowed_by_state(&built.pdu, room.rules, state))??;
    }
    // A message in flight and what follows it change nothing else.
    let outcome = if in_flight { Outcome::default() } else { Outcome::of(room, &built.pdu, &before.state)? };
    let id = built.pdu.id().to_owned();
    let mut draft = guards(room, sender_reads)?;
    draft.writes = outcome.writes;
    let placed = EventPlaced {
        id: id.to_string(),
        class: Placement::Live,
        verdict: Verdict::Accepted,
        state_before: Some(before.stated),
        current: outcome.current,
        visibility: seen,
        servers: other_servers(room, parts)?,
        redacts,
    };
    let depth = built.pdu.depth();
    draft.facts.push(built.learned.into());
    draft.facts.extend(outcome.restated.into_iter().map(Fact::from));
    draft.facts.push(placed.into());
    if let Some((device, transaction)) = transaction {
        draft.facts.push(EventTransaction { event: id.to_string(), device: device.to_string(), transaction }.into());
    }
    Ok(Composed { draft, id, depth, changes_state: outcome.changes_states })
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

fn other_servers(room: &Room<'_>, parts: &Parts) -> Result<Vec<String>, StoreError> {
    let servers = membership::servers_in(room.view, room.nid).map(|server| Ok(server?.0));
    servers.filter(|server| !matches!(server, Ok(name) if name == parts.server_name.as_str())).collect()
}

/// The time that a new event states.
pub fn now(parts: &Parts) -> MilliSecondsSinceUnixEpoch {
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
