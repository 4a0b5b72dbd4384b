//! State resolution: the one state of a room after a fork, and how two states differ.
//!
//! ruma has the algorithm (version 2, and 2.1 for room version 12). It wants whole states and whole auth chains; in a
//! room with ten thousand members, reading those would cost more than all else. What it makes of them depends only on
//! - the entries that conflict, and the agreed entries that the rules ask for when these are checked, and
//! - the *difference* of the auth chains: what some states' chains have and others' lack.
//!
//! The difference is found from the conflicting events outwards. An event that all states agree on has its whole auth
//! chain in all of them, so nothing behind it can differ:
//!
//! ```text
//!   conflicting   T1        T2        walk their auth events, noting which states got where;
//!                 │ ╲     ╱ │         stop at what is agreed
//!                 │   ╲ ╱   │
//!   old levels    P1   ╳    M2        reached by some states only, so far
//!                 ▲  ╱   ╲  ▲
//!   agreed        P3 ─────▶ M5        but behind P3 and M5, so in every chain: no difference
//! ```

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::{RoomVersionRules, StateResolutionV2Rules},
    state_res::{self, utils::event_id_set::EventIdSet},
};
use schemas::facts::StateChange;

use super::{Pdu, auth};

/// A state: event ids by type and state key.
pub type StateMap = BTreeMap<(String, String), OwnedEventId>;

/// No resolution looks at more events.
const MAX_EVENTS: usize = 100_000;
/// No resolution has more states: an event has at most 20 before it, and a server some extremities more.
const MAX_STATES: usize = 64;

/// Why states can't be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// An event that a state or an auth chain names is not there.
    #[error("event {0} is needed for state resolution, and is not there")]
    Missing(OwnedEventId),
    /// It would take too many events or states.
    #[error("state resolution would take too much work")]
    TooMuch,
    /// The room's version has an algorithm that this server doesn't know.
    #[error("state resolution of this room version is not supported")]
    Unsupported,
    /// An event in an auth chain is not what its type wants.
    #[error("state resolution failed: {0}")]
    Malformed(String),
}

/// A type and a state key.
pub type Place = (String, String);

/// Where states conflict: the event there in each state, the states always in the same order.
pub type Conflicts = BTreeMap<Place, Vec<Option<OwnedEventId>>>;

/// What resolution asks of whoever keeps the states.
pub trait Forked {
    /// Any event that a state or an auth chain names, marked if it was rejected.
    fn event(&self, id: &EventId) -> Option<Pdu>;

    /// The event that all states have at a place where they don't conflict.
    fn agreed(&self, place: &Place) -> Option<OwnedEventId>;

    /// All events that all states have. It is seldom asked for, and seldom to the end.
    fn all_agreed(&self) -> Box<dyn Iterator<Item = OwnedEventId> + '_>;
}

/// What the resolved state has where the states conflict, and at places that none of them has. It costs the conflicts
/// and the auth chains that differ, not the states.
///
/// # Errors
/// When an event is not there, or when it would take too much work.
pub fn settle(rules: &RoomVersionRules, conflicts: &Conflicts, room: &impl Forked) -> Result<StateMap, ResolveError> {
    let states = conflicts.values().map(Vec::len).max().unwrap_or(0);
    if states == 0 {
        return Ok(StateMap::new());
    }
    if states > MAX_STATES {
        return Err(ResolveError::TooMuch);
    }
    let algorithm = rules.state_res.v2_rules().ok_or(ResolveError::Unsupported)?;
    let fork = Fork { states, conflicts, room, events: Events::new(room) };
    let mut settled = StateMap::new();
    for id in fork.run(rules, algorithm)? {
        let place = place_of(&fork.events.need(&id)?);
        // What is agreed stays, whatever older events the algorithm tried in its place.
        if fork.agreed(&place).is_none() {
            settled.insert(place, id);
        }
    }
    Ok(settled)
}

/// The resolution of whole states.
///
/// # Errors
/// As [`settle`].
pub fn resolve(
    rules: &RoomVersionRules,
    states: &[&StateMap],
    fetch: impl Fn(&EventId) -> Option<Pdu>,
) -> Result<StateMap, ResolveError> {
    let Some((&first, others)) = states.split_first() else { return Ok(StateMap::new()) };
    let places: BTreeSet<&Place> = others.iter().flat_map(|other| unlike(first, other)).collect();
    let at = |place: &Place| states.iter().map(|state| state.get(place).cloned()).collect();
    let conflicts = places.into_iter().map(|place| (place.clone(), at(place))).collect();
    let settled = settle(rules, &conflicts, &Whole { first, conflicts: &conflicts, fetch })?;
    let mut state = first.clone();
    state.retain(|place, _| !conflicts.contains_key(place));
    state.extend(settled);
    Ok(state)
}

/// Whole states, all in memory.
struct Whole<'a, F> {
    first: &'a StateMap,
    conflicts: &'a Conflicts,
    fetch: F,
}

impl<F: Fn(&EventId) -> Option<Pdu>> Forked for Whole<'_, F> {
    fn event(&self, id: &EventId) -> Option<Pdu> {
        (self.fetch)(id)
    }

    fn agreed(&self, place: &Place) -> Option<OwnedEventId> {
        self.first.get(place).cloned()
    }

    fn all_agreed(&self) -> Box<dyn Iterator<Item = OwnedEventId> + '_> {
        let agreed = self.first.iter().filter(|(place, _)| !self.conflicts.contains_key(*place));
        Box::new(agreed.map(|(_, id)| id.clone()))
    }
}

/// What changes from one state to another.
#[must_use]
pub fn delta(from: &StateMap, to: &StateMap) -> Vec<StateChange> {
    let change = |place: &Place| StateChange {
        event_type: place.0.clone(),
        state_key: place.1.clone(),
        event: to.get(place).map(ToString::to_string),
    };
    unlike(from, to).into_iter().map(change).collect()
}

fn place_of(event: &Pdu) -> Place {
    (event.kind().to_owned(), event.state_key().unwrap_or_default().to_owned())
}

/// The places where two states have unlike events, in order.
fn unlike<'a>(a: &'a StateMap, b: &'a StateMap) -> Vec<&'a Place> {
    let (mut left, mut right) = (a.iter().peekable(), b.iter().peekable());
    let mut places = Vec::new();
    loop {
        match (left.peek(), right.peek()) {
            (Some((place, x)), Some((other, y))) if place == other => {
                if x != y {
                    places.push(*place);
                }
                left.next();
                right.next();
            }
            (Some((place, _)), Some((other, _))) if place > other => {
                places.push(*other);
                right.next();
            }
            (Some((place, _)), _) => {
                places.push(*place);
                left.next();
            }
            (None, Some((other, _))) => {
                places.push(*other);
                right.next();
            }
            (None, None) => return places,
        }
    }
}

/// States that differ.
struct Fork<'a, R> {
    states: usize,
    conflicts: &'a Conflicts,
    room: &'a R,
    events: Events<'a, R>,
}

impl<R: Forked> Fork<'_, R> {
    /// The events of the resolved state, without most of what is agreed.
    fn run(
        &self,
        rules: &RoomVersionRules,
        algorithm: &StateResolutionV2Rules,
    ) -> Result<Vec<OwnedEventId>, ResolveError> {
        let difference = self.auth_difference()?;
        let subgraph = if algorithm.consider_conflicted_state_subgraph { self.subgraph()? } else { EventIdSet::new() };
        let conflicting = self.conflicting_events().map(|(_, id)| id);
        let asked = self.asked_for(difference.iter().chain(subgraph.iter()).chain(conflicting), rules)?;
        let maps: Vec<_> = (0..self.states).map(|n| self.reduced(n, &asked)).collect();
        // Any two chains that differ so will do.
        let chains = vec![difference, EventIdSet::new()];
        let fetch = |id: &EventId| self.events.get(id);
        let resolved =
            state_res::resolve(&rules.authorization, algorithm, &maps, chains, fetch, |_| Some(subgraph.clone()));
        self.events.all_there()?;
        match resolved {
            Ok(state) => Ok(state.into_values().collect()),
            Err(error) => Err(ResolveError::Malformed(error.to_string())),
        }
    }

    /// The conflicting events, each with the number of the state that has it.
    fn conflicting_events(&self) -> impl Iterator<Item = (usize, &OwnedEventId)> {
        let events = self.conflicts.values().flat_map(|events| events.iter().enumerate());
        events.filter_map(|(n, event)| event.as_ref().map(|id| (n, id)))
    }

    /// The event that all states have at a place.
    fn agreed(&self, place: &Place) -> Option<OwnedEventId> {
        if self.conflicts.contains_key(place) { None } else { self.room.agreed(place) }
    }

    /// What is in the auth chains of some states, but not of all. As everywhere in Matrix, a state's chain holds its
    /// own events too.
    fn auth_difference(&self) -> Result<EventIdSet<OwnedEventId>, ResolveError> {
        let everywhere = u64::MAX >> (MAX_STATES - self.states);
        let mut reached: HashMap<OwnedEventId, u64> = HashMap::new();
        let mut todo: Vec<_> = self.conflicting_events().map(|(n, id)| (id.clone(), 1 << n)).collect();
        while let Some((id, by)) = todo.pop() {
            let known = reached.entry(id.clone()).or_default();
            let new = by & !*known;
            if new == 0 {
                continue;
            }
            *known |= new;
            let event = self.events.need(&id)?;
            if self.agreed(&place_of(&event)).as_ref() == Some(&id) {
                *known = everywhere;
            } else {
                todo.extend(event.auth_events().iter().map(|id| (id.clone(), new)));
            }
        }
        reached.retain(|_, by| *by != everywhere);
        for (_, id) in self.conflicting_events() {
            // These are looked at anyway, whether the chains differ by them or not.
            reached.remove(id);
        }
        let mut open: HashSet<OwnedEventId> = reached.into_keys().collect();
        self.drop_what_is_behind_agreed(&mut open)?;
        Ok(open.into_iter().collect())
    }

    /// Takes away what is in the auth chain of an agreed event, trying first the agreed events that are likely to lead
    /// there: those that came in the place of the open ones, and those that all others cite.
    fn drop_what_is_behind_agreed(&self, open: &mut HashSet<OwnedEventId>) -> Result<(), ResolveError> {
        let mut likely = BTreeSet::from(CITED_BY_ALL.map(|kind| (kind.to_owned(), String::new())));
        for id in open.iter() {
            likely.insert(place_of(&self.events.need(id)?));
        }
        let likely = likely.iter().filter_map(|place| self.agreed(place));
        // A chain of closures: what comes last is not even begun unless it is needed.
        let all = std::iter::once_with(|| self.room.all_agreed()).flatten();
        let mut seen = HashSet::new();
        for root in likely.chain(all) {
            let mut todo = vec![root];
            while let Some(id) = todo.pop() {
                if open.is_empty() {
                    return Ok(());
                }
                if !seen.insert(id.clone()) {
                    continue;
                }
                open.remove(&id);
                todo.extend_from_slice(self.events.need(&id)?.auth_events());
            }
        }
        Ok(())
    }

    /// The conflicted state subgraph: all events on paths of auth events from one conflicting event to another.
    fn subgraph(&self) -> Result<EventIdSet<OwnedEventId>, ResolveError> {
        let ends: Vec<OwnedEventId> = self.conflicting_events().map(|(_, id)| id.clone()).collect();
        let mut cited_by: HashMap<OwnedEventId, Vec<OwnedEventId>> = HashMap::new();
        let mut seen = HashSet::new();
        let mut todo = ends.clone();
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                for cited in self.events.need(&id)?.auth_events() {
                    cited_by.entry(cited.clone()).or_default().push(id.clone());
                    todo.push(cited.clone());
                }
            }
        }
        let mut subgraph = EventIdSet::new();
        let mut todo = ends;
        while let Some(id) = todo.pop() {
            if subgraph.insert(id.clone()) {
                todo.extend_from_slice(cited_by.get(&id).map_or(&[], Vec::as_slice));
            }
        }
        Ok(subgraph)
    }

    /// The places that the rules look at for these events; and the power levels, by which all are ordered.
    fn asked_for<'i>(
        &self,
        events: impl Iterator<Item = &'i OwnedEventId>,
        rules: &RoomVersionRules,
    ) -> Result<BTreeSet<Place>, ResolveError> {
        let mut asked = BTreeSet::from([("m.room.power_levels".to_owned(), String::new())]);
        for id in events {
            let event = self.events.need(id)?;
            let (kind, key) = (event.event_type(), event.state_key());
            let keys = auth::needs(kind, event.sender(), key, event.content(), &rules.authorization);
            // An event whose needs can't be told is malformed, and the rules refuse it.
            let keys = keys.unwrap_or_default();
            asked.extend(keys.into_iter().map(|(event_type, state_key)| (event_type.to_string(), state_key)));
        }
        Ok(asked)
    }

    /// As much of a state as resolution looks at.
    fn reduced(&self, n: usize, asked: &BTreeSet<Place>) -> state_res::StateMap<OwnedEventId> {
        let conflicting = self.conflicts.iter().map(|(place, events)| (place, events.get(n).cloned().flatten()));
        let agreed = asked.iter().map(|place| (place, self.agreed(place)));
        let entries = conflicting.chain(agreed).filter_map(|(place, id)| Some((place, id?)));
        entries.map(|((kind, key), id)| ((StateEventType::from(kind.as_str()), key.clone()), id)).collect()
    }
}

/// State that nearly every event has in its auth chain.
const CITED_BY_ALL: [&str; 3] = ["m.room.create", "m.room.join_rules", "m.room.power_levels"];

/// The events of a room, each fetched once, and not without end.
struct Events<'a, R> {
    room: &'a R,
    known: RefCell<HashMap<OwnedEventId, Pdu>>,
    failure: RefCell<Option<ResolveError>>,
}

impl<'a, R: Forked> Events<'a, R> {
    fn new(room: &'a R) -> Self {
        Self { room, known: RefCell::default(), failure: RefCell::default() }
    }

    fn get(&self, id: &EventId) -> Option<Pdu> {
        if let Some(event) = self.known.borrow().get(id) {
            return Some(event.clone());
        }
        let full = self.known.borrow().len() >= MAX_EVENTS;
        let event = if full { None } else { self.room.event(id) };
        match &event {
            Some(event) => {
                self.known.borrow_mut().insert(id.to_owned(), event.clone());
            }
            None => {
                let failure = if full { ResolveError::TooMuch } else { ResolveError::Missing(id.to_owned()) };
                self.failure.borrow_mut().get_or_insert(failure);
            }
        }
        event
    }

    fn need(&self, id: &EventId) -> Result<Pdu, ResolveError> {
        self.get(id).ok_or_else(|| self.all_there().err().unwrap_or_else(|| ResolveError::Missing(id.to_owned())))
    }

    /// Fails if anything that was asked for was not there: ruma goes on without, to another result.
    fn all_there(&self) -> Result<(), ResolveError> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }
}
