//! A room's states where its events fork: before an event, after it, and now.
//!
//! The state before an event resolves the states after its previous events; a room's current state resolves those after
//! its forward extremities. Where all of them are alike, which is nearly always, nothing is resolved, and no more is read
//! than their names.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use projections::{
    Pdu, StoreError, View,
    models::{
        events::{self, Class},
        state::{self, State},
        timeline::{self, Extremity},
    },
};
use ruma::{EventId, OwnedEventId, events::StateEventType};
use schemas::{
    Key, Nid, Tag,
    facts::{EventRestated, Placement, StateBase, StateBefore, StateChange, Verdict},
};

use super::{Error, room::Room};
use crate::rooms::resolve::{Conflicts, Forked, Place, ResolveError, settle};

/// A room has no more forward extremities: no resolution takes more states. Beyond that only events that follow one of
/// them are taken.
pub const MAX_EXTREMITIES: usize = 64;

/// A state as a decision has it: a stored one, and what is different from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Variant {
    stored: State,
    changes: BTreeMap<Place, Option<OwnedEventId>>,
}

impl From<State> for Variant {
    fn from(stored: State) -> Self {
        Self { stored, changes: BTreeMap::new() }
    }
}

impl Variant {
    /// The stored state that this is, if nothing is different from it.
    #[must_use]
    pub fn as_stored(&self) -> Option<&State> {
        self.changes.is_empty().then_some(&self.stored)
    }

    /// The state after an event, of which this is the state before.
    fn after(&self, event: &Pdu) -> Self {
        let mut after = self.clone();
        if let Some(state_key) = event.state_key() {
            let place = (event.kind().to_owned(), state_key.to_owned());
            after.changes.insert(place, Some(event.id().to_owned()));
        }
        after
    }

    fn at(&self, view: &View, place: &Place) -> Result<Option<OwnedEventId>, Error> {
        if let Some(change) = self.changes.get(place) {
            return Ok(change.clone());
        }
        let (event_type, state_key) = place;
        state::get(view, &self.stored, event_type, state_key)?.map(|event| id_of(view, event)).transpose()
    }

    /// The event at a place, for the rules.
    ///
    /// # Errors
    /// When the store fails.
    pub fn pdu(&self, view: &View, event_type: &StateEventType, state_key: &str) -> Result<Option<Pdu>, StoreError> {
        let place = (event_type.to_string(), state_key.to_owned());
        match self.changes.get(&place) {
            Some(Some(id)) => events::pdu_by_id(view, id),
            Some(None) => Ok(None),
            None => match state::get(view, &self.stored, &place.0, state_key)? {
                Some(event) => events::pdu(view, event),
                None => Ok(None),
            },
        }
    }

    /// The places where two states have unlike events. It costs the differences.
    fn unlike(&self, other: &Self, view: &View) -> Result<BTreeSet<Place>, Error> {
        let mut places: BTreeSet<Place> = self.changes.keys().chain(other.changes.keys()).cloned().collect();
        if self.stored != other.stored {
            for difference in state::diff(view, &self.stored, &other.stored) {
                let difference = difference?;
                places.insert((difference.event_type, difference.state_key));
            }
        }
        let mut unlike = BTreeSet::new();
        for place in places {
            if self.at(view, &place)? != other.at(view, &place)? {
                unlike.insert(place);
            }
        }
        Ok(unlike)
    }

    fn is_in(&self, states: &[Self], view: &View) -> Result<bool, Error> {
        if states.contains(self) {
            return Ok(true);
        }
        for state in states {
            if self.unlike(state, view)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The state before an event.
pub struct Before {
    /// For rules.
    pub state: Variant,
    /// For the log.
    pub stated: StateBefore,
}

impl Before {
    /// The state before an event that comes after these, each of which is placed.
    ///
    /// # Errors
    /// When the state can't be resolved.
    pub fn resolve(room: &Room<'_>, prev_events: &[OwnedEventId]) -> Result<Self, Error> {
        let mut states = Vec::new();
        for id in prev_events {
            let event = events::nid(room.view, id.as_str())?;
            let state = event.map(|event| state::after(room.view, event)).transpose()?.flatten();
            let state = state.ok_or_else(|| Error::Internal(format!("the state after {id} is not known")))?;
            states.push(Variant::from(state));
        }
        let Some(Resolved { state, nearest }) = resolve(room, &states, None)? else {
            let stated = StateBefore { base: StateBase::Empty, delta: Vec::new() };
            return Ok(Self { state: State::empty(room.nid).into(), stated });
        };
        let base = StateBase::After(prev_events[nearest].to_string());
        let delta = state.changes.iter().map(|(place, event)| change(place, event.as_ref())).collect();
        Ok(Self { state, stated: StateBefore { base, delta } })
    }

    /// The state before an event that comes after a message in flight, which changes no state.
    #[must_use]
    pub fn in_flight(room: &Room<'_>, message: &EventId) -> Self {
        let base = StateBase::After(message.to_string());
        Self { state: room.current.into(), stated: StateBefore { base, delta: Vec::new() } }
    }
}

/// What an accepted live event makes of its room.
#[derive(Default)]
pub struct Outcome {
    /// How the current state changes.
    pub current: Vec<StateChange>,
    /// Soft-failed events that get into it.
    pub restated: Vec<EventRestated>,
    /// The keys that this changes.
    pub writes: Vec<Key>,
    /// Whether the set of states after the forward extremities changes.
    pub changes_states: bool,
}

impl Outcome {
    /// What the room's extremities and current state are once an event is accepted that comes after this state.
    ///
    /// # Errors
    /// When the state can't be resolved, or the room has too many forks already.
    pub fn of(room: &Room<'_>, event: &Pdu, before: &Variant) -> Result<Self, Error> {
        let view = room.view;
        let prev_events: Vec<String> = event.prev_events().iter().map(ToString::to_string).collect();
        let extremities = timeline::extremities(view, room.nid)?;
        let left = timeline::extremities_left(view, room.nid, &prev_events)?;
        let old = states_after(view, &extremities)?;
        let mut new = states_after(view, &left)?;
        if !timeline::is_followed(view, room.nid, event.id().as_str())? {
            if left.len() == extremities.len() && left.len() >= MAX_EXTREMITIES {
                return Err(Error::Unavailable("the room has too many forks; try again once some are merged".into()));
            }
            new.push(before.after(event));
        }
        let resolved = resolve(room, &new, Some(event))?.map(|resolved| resolved.state);
        let current = resolved.map(|state| differences(room, &state)).transpose()?.unwrap_or_default();
        let changes_states = !current.is_empty() || !is_same_set(&old, &new, view)?;
        Self::made(room, current, changes_states, Some(event.id()))
    }

    /// What a room's current state is once it has only this one of its extremities.
    ///
    /// # Errors
    /// When the store fails.
    pub fn of_one_end(room: &Room<'_>, end: &Extremity) -> Result<Self, Error> {
        let states = states_after(room.view, std::slice::from_ref(end))?;
        let current = states.first().map(|state| differences(room, state)).transpose()?.unwrap_or_default();
        // Whoever has decided by the extremities that were there decides again.
        Self::made(room, current, true, None)
    }

    fn made(
        room: &Room<'_>,
        current: Vec<StateChange>,
        changes_states: bool,
        new: Option<&EventId>,
    ) -> Result<Self, Error> {
        let restated = restated(room.view, new, &current)?;
        let mut outcome = Self { current, restated, writes: Vec::new(), changes_states };
        outcome.writes = writes(room, &outcome);
        Ok(outcome)
    }
}

/// How a room's current state has to change to become another.
fn differences(room: &Room<'_>, to: &Variant) -> Result<Vec<StateChange>, Error> {
    let places = Variant::from(room.current).unlike(to, room.view)?;
    places.iter().map(|place| Ok(change(place, to.at(room.view, place)?.as_ref()))).collect()
}

/// The keys of what an event changes: the room's state, and the memberships that become others.
fn writes(room: &Room<'_>, outcome: &Outcome) -> Vec<Key> {
    let state = outcome.changes_states.then(|| Key::new(Tag::RoomState, room.id.as_str()));
    let members = outcome.current.iter().filter(|change| change.event_type == "m.room.member");
    let members = members.map(|change| Key::pair(Tag::Membership, room.id.as_str(), &change.state_key));
    state.into_iter().chain(members).collect()
}

fn is_same_set(old: &[Variant], new: &[Variant], view: &View) -> Result<bool, Error> {
    for (some, others) in [(old, new), (new, old)] {
        for state in some {
            if !state.is_in(others, view)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// What was soft-failed is accepted once it is in the current state: later events brought it there.
fn restated(view: &View, new: Option<&EventId>, current: &[StateChange]) -> Result<Vec<EventRestated>, Error> {
    let mut restated = BTreeMap::new();
    for id in current.iter().filter_map(|change| change.event.as_deref()).filter(|id| new.is_none_or(|new| new != *id))
    {
        let Some((nid, head)) = events::find(view, id)? else { continue };
        let Some(placed) = head.placed else { continue };
        if placed.verdict == Verdict::SoftFailed && placed.class == Class::Live {
            let restatement = EventRestated {
                id: head.id,
                class: Placement::Live,
                verdict: Verdict::Accepted,
                state_before: None,
                current: Vec::new(),
                visibility: placed.visibility,
            };
            restated.insert(nid, restatement);
        }
    }
    Ok(restated.into_values().collect())
}

fn change(place: &Place, event: Option<&OwnedEventId>) -> StateChange {
    let (event_type, state_key) = place.clone();
    StateChange { event_type, state_key, event: event.map(ToString::to_string) }
}

fn id_of(view: &View, event: Nid) -> Result<OwnedEventId, Error> {
    let id = events::head(view, event)?.and_then(|head| OwnedEventId::try_from(head.id).ok());
    id.ok_or_else(|| Error::Internal(format!("the event {event:?} of a state is not known")))
}

/// The states after some extremities, each once.
fn states_after(view: &View, extremities: &[Extremity]) -> Result<Vec<Variant>, Error> {
    let mut states = Vec::new();
    for Extremity { event, id, .. } in extremities {
        let state = state::after(view, *event)?;
        let state = state.ok_or_else(|| Error::Internal(format!("the room's extremity {id} has no state")))?.into();
        if !states.contains(&state) {
            states.push(state);
        }
    }
    Ok(states)
}

/// One state made of several.
struct Resolved {
    /// It.
    state: Variant,
    /// The number of the state from which it differs least: what is different there, is different from that.
    nearest: usize,
}

/// Resolves states; none of them has no result. `new` is an event in one of them that is not stored yet.
fn resolve(room: &Room<'_>, states: &[Variant], new: Option<&Pdu>) -> Result<Option<Resolved>, Error> {
    let Some((first, others)) = states.split_first() else { return Ok(None) };
    let mut places = BTreeSet::new();
    for other in others {
        places.extend(first.unlike(other, room.view)?);
    }
    if places.is_empty() {
        return Ok(Some(Resolved { state: first.clone(), nearest: 0 }));
    }
    let mut conflicts = Conflicts::new();
    for place in places {
        let at = states.iter().map(|state| state.at(room.view, &place)).collect::<Result<_, _>>()?;
        conflicts.insert(place, at);
    }
    let fork = Fork { view: room.view, first, conflicts: &conflicts, new, failure: RefCell::default() };
    let settled = settle(room.rules, &conflicts, &fork);
    if let Some(error) = fork.failure.into_inner() {
        return Err(error);
    }
    let settled = settled?;
    let differs = |n: usize| conflicts.iter().filter(|(place, at)| at[n].as_ref() != settled.get(*place)).count();
    let nearest = (0..states.len()).min_by_key(|n| differs(*n)).unwrap_or_default();
    let mut state = states[nearest].clone();
    for place in conflicts.keys().chain(settled.keys()) {
        let event = settled.get(place);
        if state.at(room.view, place)?.as_ref() != event {
            state.changes.insert(place.clone(), event.cloned());
        }
    }
    Ok(Some(Resolved { state, nearest }))
}

/// States that differ, as resolution asks for them.
struct Fork<'a> {
    view: &'a View,
    first: &'a Variant,
    conflicts: &'a Conflicts,
    new: Option<&'a Pdu>,
    /// The first look-up that failed.
    failure: RefCell<Option<Error>>,
}

impl Fork<'_> {
    fn look<T>(&self, found: Result<Option<T>, impl Into<Error>>) -> Option<T> {
        found.unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error.into());
            None
        })
    }
}

impl Forked for Fork<'_> {
    fn event(&self, id: &EventId) -> Option<Pdu> {
        let new = self.new.filter(|new| new.id() == id).cloned();
        new.or_else(|| self.look(events::pdu_by_id(self.view, id)))
    }

    fn agreed(&self, place: &Place) -> Option<OwnedEventId> {
        self.look(self.first.at(self.view, place))
    }

    fn all_agreed(&self) -> Box<dyn Iterator<Item = OwnedEventId> + '_> {
        let changes = &self.first.changes;
        let changed = changes.iter().filter(|(place, _)| !self.conflicts.contains_key(*place));
        let stored = state::all(self.view, &self.first.stored).filter_map(move |entry| {
            let entry = self.look(entry.map(Some))?;
            let place = (entry.event_type, entry.state_key);
            let agreed = !self.conflicts.contains_key(&place) && !changes.contains_key(&place);
            if agreed { self.look(id_of(self.view, entry.event).map(Some)) } else { None }
        });
        Box::new(changed.filter_map(|(_, event)| event.clone()).chain(stored))
    }
}

impl From<ResolveError> for Error {
    fn from(error: ResolveError) -> Self {
        match error {
            ResolveError::TooMuch => Self::Unavailable(error.to_string()),
            error => Self::Internal(error.to_string()),
        }
    }
}
