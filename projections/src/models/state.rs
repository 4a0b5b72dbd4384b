//! The state of rooms: before and after every placed event, now, and as of any record.
//!
//! What is the name of this room, who is a member of it? What was the state before this event? As of this Lsn? What
//! changed between the two?
//!
//! Tables: 1 `room | node -> Node`, the trees of all states of a room, which share what they have in common;
//! 2 `event -> Around`, its states before and after; 3 `room -> Current`; 4 `room | lsn -> Tree`, the current state after
//! each record that changed it; 5 `set -> Set`, states that were staged; 6 `room | set -> ()`.
//! Keys in a tree: `event type | state key`.
//!
//! The current state is what the facts say it is, resolved when they were decided. It may stand alone: of a room to which
//! a user is invited from elsewhere, it has the invitation and no more.

#[cfg(test)]
mod tests;

use schemas::{
    Blob, Fact, Lsn, Nid,
    facts::{HistoryWithdrawn, StateBase, StateBefore, StateChange, StateSet, Verdict},
};
use serde::{Deserialize, Serialize};

use super::{
    events::{self, Effect},
    staging,
};
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    purge::Sweep,
    read::{Range, Read, Table, decode, malformed_key, row},
    tree::{Author, Changes, Tree, Trees},
};

const NODES: Table = Table { model: Model::State, prefix: 1 };
const AROUND: Table = Table { model: Model::State, prefix: 2 };
const CURRENT: Table = Table { model: Model::State, prefix: 3 };
const HISTORY: Table = Table { model: Model::State, prefix: 4 };
const SETS: Table = Table { model: Model::State, prefix: 5 };
const SETS_OF: Table = Table { model: Model::State, prefix: 6 };

/// This model's fold.
pub const PROJECTION: Projection =
    Projection { model: Model::State, version: 3, reads: &[Model::Staging, Model::Events], fold };

/// A state of a room, at some point. It is a name for what is stored: copying it costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    room: Nid,
    tree: Tree,
}

impl State {
    /// The state of a room before its first event.
    #[must_use]
    pub fn empty(room: Nid) -> Self {
        Self { room, tree: Tree::default() }
    }

    /// How many state events it has.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.tree.len()
    }

    /// The record that made it, by which two states of a room are told apart; zero for an empty one.
    #[must_use]
    pub fn made_by(&self) -> Lsn {
        self.tree.made_by().unwrap_or_default()
    }

    /// It has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A state event in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Event type.
    pub event_type: String,
    /// State key.
    pub state_key: String,
    /// The event.
    pub event: Nid,
}

/// A place where two states differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Event type.
    pub event_type: String,
    /// State key.
    pub state_key: String,
    /// The event in the first state.
    pub before: Option<Nid>,
    /// The event in the second state.
    pub after: Option<Nid>,
}

/// The current state of a room, and the record that last changed it: before that one it was another.
#[derive(Default, Serialize, Deserialize)]
struct Current {
    tree: Tree,
    since: Lsn,
}

#[derive(Serialize, Deserialize)]
struct Around {
    room: Nid,
    before: Tree,
    /// None where it is the same.
    after: Option<Tree>,
}

#[derive(Serialize, Deserialize)]
struct Set {
    /// Of which room its events are; none if it has no events.
    room: Option<Nid>,
    tree: Tree,
}

const fn trees(room: Nid) -> Trees {
    Trees { table: NODES, scope: room }
}

fn tree_key(event_type: &str, state_key: &str) -> Vec<u8> {
    KeyBuf::new().str(event_type).raw(state_key.as_bytes()).into()
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Fact::StateSet(set) = fact {
        return keep_set(at, set, batch);
    }
    if let Fact::HistoryWithdrawn(withdrawn) = fact {
        return Ok(withdraw(withdrawn, batch)?);
    }
    let Some(effect) = events::effect(at, fact, batch)? else { return Ok(()) };
    let mut author = Author::new(at.nid());
    let around = match effect.state_before {
        Some(before) => Some(surround(at, &effect, before, &mut author, batch)?),
        None => None,
    };
    if !effect.current.is_empty() {
        change_current(at, &effect, around.as_ref(), &mut author, batch)?;
    }
    Ok(())
}

/// Notes the states before and after an event.
fn surround(
    at: &At<'_>,
    effect: &Effect<'_>,
    before: &StateBefore,
    author: &mut Author,
    batch: &mut Batch<'_>,
) -> Result<Around, FoldError> {
    let trees = trees(effect.head.room);
    let base = base(at, effect.head.room, &before.base, batch)?;
    let delta = changes(at, effect.head.room, &before.delta, batch)?;
    let current = current_row(batch, effect.head.room)?.tree;
    // After a fork the way back to the current state is another one, to another tree with the same entries. They become
    // one again, so that what follows is stored once.
    let merges = base != current && leads_to(&trees, &base, &delta, &current, batch)?;
    let before = if merges { current } else { trees.apply(batch, author, &base, &delta)? };
    let after = match own_change(effect) {
        Some(own) => Some(trees.apply(batch, author, &before, &own)?),
        None => None,
    };
    let around = Around { room: effect.head.room, before, after };
    batch.put(AROUND, effect.event.to_bytes(), &around);
    Ok(around)
}

/// Whether these changes of one tree give the entries of another.
fn leads_to(trees: &Trees, from: &Tree, delta: &Changes, to: &Tree, batch: &Batch<'_>) -> Result<bool, StoreError> {
    let differences = trees.diff(batch, from, to).take(delta.len() + 1);
    let differences: Changes = differences.map(|found| found.map(|d| (d.key, d.after))).collect::<Result<_, _>>()?;
    Ok(differences == *delta)
}

/// What an event changes in the state after it, by itself.
fn own_change(effect: &Effect<'_>) -> Option<Changes> {
    let head = &effect.head;
    let state_key = head.state_key.as_ref().filter(|_| effect.placed.verdict != Verdict::Rejected)?;
    Some(Changes::from([(tree_key(&head.event_type, state_key), Some(effect.event))]))
}

fn base(at: &At<'_>, room: Nid, base: &StateBase, batch: &Batch<'_>) -> Result<Tree, FoldError> {
    match base {
        StateBase::Empty => Ok(Tree::default()),
        StateBase::After(id) => {
            let state = events::nid(batch, id)?.map(|nid| after(batch, nid)).transpose()?.flatten();
            state
                .filter(|state| state.room == room)
                .map(|state| state.tree)
                .ok_or_else(|| at.refuse(format!("the state after {id} is not known")))
        }
        StateBase::Set(name) => {
            let set: Option<Set> = row(batch, SETS, &name.0)?;
            let set = set.filter(|set| set.room.is_none_or(|of| of == room));
            set.map(|set| set.tree).ok_or_else(|| at.refuse("it names a state that was not staged for its room"))
        }
    }
}

fn changes(at: &At<'_>, room: Nid, changes: &[StateChange], batch: &Batch<'_>) -> Result<Changes, FoldError> {
    let mut keyed = Changes::new();
    for change in changes {
        let event = match &change.event {
            None => None,
            Some(id) => match events::find(batch, id)? {
                Some((event, head)) if head.room == room => Some(event),
                _ => return Err(at.refuse(format!("the state event {id} is not known in this room"))),
            },
        };
        keyed.insert(tree_key(&change.event_type, &change.state_key), event);
    }
    Ok(keyed)
}

fn change_current(
    at: &At<'_>,
    effect: &Effect<'_>,
    around: Option<&Around>,
    author: &mut Author,
    batch: &mut Batch<'_>,
) -> Result<(), FoldError> {
    let room = effect.head.room;
    let old = current_row(batch, room)?.tree;
    let delta = changes(at, room, effect.current, batch)?;
    // The common case: the event stands on the current state and makes the next, which is then in the trees already.
    let next = around.filter(|around| around.before == old && own_change(effect).as_ref() == Some(&delta));
    let new = match next.and_then(|around| around.after) {
        Some(after) => after,
        None => trees(room).apply(batch, author, &old, &delta)?,
    };
    if new != old {
        batch.put(CURRENT, room.to_bytes(), &Current { tree: new, since: at.lsn });
        batch.put(HISTORY, KeyBuf::new().nid(room).lsn(at.lsn), &new);
    }
    Ok(())
}

fn keep_set(at: &At<'_>, set: &StateSet, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let entries = staging::state(at, set, batch)?;
    let first = entries.iter().find_map(|entry| entry.event.as_deref());
    let first = first.map(|id| events::find(batch, id)).transpose()?.flatten();
    let (room, tree) = match first.map(|(_, head)| head.room) {
        Some(room) => {
            let entries = changes(at, room, &entries, batch)?;
            (Some(room), trees(room).apply(batch, &mut Author::new(at.nid()), &Tree::default(), &entries)?)
        }
        None if entries.is_empty() => (None, Tree::default()),
        None => return Err(at.refuse("it stages a state of events that are not known")),
    };
    if let Some(room) = room {
        batch.put(SETS_OF, KeyBuf::new().nid(room).raw(&set.set.0), &());
    }
    batch.put(SETS, &set.set.0, &Set { room, tree });
    Ok(())
}

/// The states around events that are withdrawn; those around state events go only with the room itself.
fn withdraw(fact: &HistoryWithdrawn, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let with_room = events::detached(batch, &fact.room)?.is_some();
    for id in &fact.events {
        let Some((event, head)) = events::find(batch, id)? else { continue };
        if with_room || head.state_key.is_none() {
            batch.delete(AROUND, event.to_bytes());
        }
    }
    Ok(())
}

/// Forgets a room's states, but for those around events: they go with those.
pub(crate) fn purge(room: Nid, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    for (key, _) in sweep.rows(SETS_OF, room.to_bytes())? {
        if sweep.is_full() {
            break;
        }
        sweep.delete(SETS, &key[Nid::LEN..])?;
        sweep.delete(SETS_OF, key)?;
    }
    for table in [NODES, CURRENT, HISTORY] {
        sweep.prefix(table, room.to_bytes())?;
    }
    Ok(())
}

/// The current state of a room; empty if there is none.
///
/// # Errors
/// When the store fails.
pub fn current(read: &dyn Read, room: Nid) -> Result<State, StoreError> {
    Ok(State { room, tree: current_row(read, room)?.tree })
}

fn current_row(read: &dyn Read, room: Nid) -> Result<Current, StoreError> {
    Ok(row(read, CURRENT, room.to_bytes())?.unwrap_or_default())
}

/// What was the current state of a room when the record at `lsn` was folded; it costs no more than the current one where
/// that is still the same.
///
/// # Errors
/// When the store fails.
pub fn as_of(read: &dyn Read, room: Nid, lsn: Lsn) -> Result<State, StoreError> {
    let current = current_row(read, room)?;
    if current.since <= lsn {
        return Ok(State { room, tree: current.tree });
    }
    let until = Range::prefix_until(&room.to_bytes(), &lsn.next().to_bytes()).rev();
    let tree = read.scan(HISTORY, until).next().transpose()?.map(|(_, value)| decode(HISTORY, &value)).transpose()?;
    Ok(State { room, tree: tree.unwrap_or_default() })
}

/// The records that changed the current state of a room, from one on in one direction (inclusive).
pub fn changed_by(
    read: &dyn Read,
    room: Nid,
    from: Lsn,
    falling: bool,
) -> impl Iterator<Item = Result<Lsn, StoreError>> + '_ {
    let range = if falling {
        Range::prefix_until(&room.to_bytes(), &from.next().to_bytes()).rev()
    } else {
        Range::prefix_from(&room.to_bytes(), &from.to_bytes())
    };
    read.scan(HISTORY, range).map(|row| {
        let (key, _) = row?;
        let mut parts = KeyReader::new(&key);
        parts.nid().and_then(|_| parts.lsn()).ok_or_else(|| malformed_key(HISTORY))
    })
}

/// The state before an event, if it is known.
///
/// # Errors
/// When the store fails.
pub fn before(read: &dyn Read, event: Nid) -> Result<Option<State>, StoreError> {
    let around: Option<Around> = row(read, AROUND, event.to_bytes())?;
    Ok(around.map(|around| State { room: around.room, tree: around.before }))
}

/// The state after an event, if it is known.
///
/// # Errors
/// When the store fails.
pub fn after(read: &dyn Read, event: Nid) -> Result<Option<State>, StoreError> {
    let around: Option<Around> = row(read, AROUND, event.to_bytes())?;
    Ok(around.map(|around| State { room: around.room, tree: around.after.unwrap_or(around.before) }))
}

/// A state that was staged under this name, if it has events.
///
/// # Errors
/// When the store fails.
pub fn staged(read: &dyn Read, name: &Blob) -> Result<Option<State>, StoreError> {
    let set: Option<Set> = row(read, SETS, &name.0)?;
    Ok(set.and_then(|set| Some(State { room: set.room?, tree: set.tree })))
}

/// The event at a place in a state.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, state: &State, event_type: &str, state_key: &str) -> Result<Option<Nid>, StoreError> {
    trees(state.room).get(read, &state.tree, &tree_key(event_type, state_key))
}

/// All of a state, in order of types and state keys.
pub fn all<'a>(read: &'a dyn Read, state: &State) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'a> {
    trees(state.room).scan(read, &state.tree, &[]).map(entry)
}

/// The events of one type in a state, in order of state keys.
pub fn of_type<'a>(
    read: &'a dyn Read,
    state: &State,
    event_type: &str,
) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'a> {
    trees(state.room).scan(read, &state.tree, KeyBuf::new().str(event_type).as_ref()).map(entry)
}

/// All of a state but the events of one type, in order; it costs no more where there are many of that type.
pub fn except_type<'a>(
    read: &'a dyn Read,
    state: &State,
    event_type: &str,
) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'a> {
    trees(state.room).scan_without(read, &state.tree, KeyBuf::new().str(event_type).as_ref()).map(entry)
}

fn entry(found: Result<(Vec<u8>, Nid), StoreError>) -> Result<Entry, StoreError> {
    let (key, event) = found?;
    let (event_type, state_key) = place(&key)?;
    Ok(Entry { event_type, state_key, event })
}

/// Where two states of one room differ; it costs the differences. States of two rooms have nothing in common.
pub fn diff<'a>(
    read: &'a dyn Read,
    before: &State,
    after: &State,
) -> impl Iterator<Item = Result<Difference, StoreError>> + 'a {
    let same_room = before.room == after.room;
    let none = Tree::default();
    let from = if same_room { &before.tree } else { &none };
    trees(after.room).diff(read, from, &after.tree).map(|difference| {
        let difference = difference?;
        let (event_type, state_key) = place(&difference.key)?;
        Ok(Difference { event_type, state_key, before: difference.before, after: difference.after })
    })
}

fn place(key: &[u8]) -> Result<(String, String), StoreError> {
    let mut parts = KeyReader::new(key);
    let event_type = parts.str();
    let state_key = String::from_utf8(parts.rest().to_vec()).ok();
    event_type.zip(state_key).ok_or_else(|| malformed_key(NODES))
}
