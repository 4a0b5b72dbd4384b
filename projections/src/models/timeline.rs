//! The order of every room's events, its ends, its gaps, and which rooms have news.
//!
//! What happened in this room, forward or backward from here? After which events is the next one to be built? Where are
//! events missing? Which rooms have news since this Lsn?
//!
//! Tables: 1 `room | position -> Item`; 2 `room -> [Extremity]`, the forward extremities; 3 `room | event id -> ()` and
//! `room | event id | position -> ()`, events that one in the order refers to and that are not in the order themselves; 4
//! `room | position | event id -> ()`, those of them that are missing or outliers, by who refers to them; 5 `lsn | room ->
//! ()`, activity; 6 `room -> Last`; 7 `lsn -> lsn`, the first record of each new epoch and the last before it; 8 `room | lsn
//! -> ()`, activity by events that were learned by another record.
//!
//! Events are in the order once they are accepted, live or history. A live one is activity, and so is a change of the
//! current state.

#[cfg(test)]
mod tests;

use schemas::{
    Fact, Lsn, Nid,
    facts::{ExtremitiesRemoved, HistoryWithdrawn},
};
use serde::{Deserialize, Serialize};

use super::events::{self, Class, Effect, Head};
use crate::{
    At, Batch, FoldError, Model, Position, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    purge::Sweep,
    read::{Range, Read, Row, Table, decode, malformed_key, row, rows},
};

const ORDER: Table = Table { model: Model::Timeline, prefix: 1 };
const EXTREMITIES: Table = Table { model: Model::Timeline, prefix: 2 };
const REFERRED: Table = Table { model: Model::Timeline, prefix: 3 };
const GAPS: Table = Table { model: Model::Timeline, prefix: 4 };
const ACTIVITY: Table = Table { model: Model::Timeline, prefix: 5 };
const LATE: Table = Table { model: Model::Timeline, prefix: 8 };
const LAST: Table = Table { model: Model::Timeline, prefix: 6 };
const EPOCHS: Table = Table { model: Model::Timeline, prefix: 7 };

/// Behind a new event, so many events that are not in the order are looked through for extremities it replaces.
const HIDDEN_STEPS: usize = 64;

/// This model's fold.
pub const PROJECTION: Projection =
    Projection { model: Model::Timeline, version: 2, reads: &[Model::Staging, Model::Events], fold };

/// An event in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The event.
    pub event: Nid,
    /// When it came, some event before it was missing: what is shown before it may not be what happened before it.
    pub after_gap: bool,
}

/// An event that no other accepted live event refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extremity {
    /// The event.
    pub event: Nid,
    /// Its id.
    pub id: String,
    /// Its depth.
    pub depth: u64,
}

/// A place in the order before which events are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where the event stands that refers to the missing one.
    pub before: Position,
    /// The missing event's id.
    pub missing: String,
}

/// When something last happened in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The last record with activity.
    pub activity: Lsn,
    /// The last live event.
    pub live: Option<Position>,
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Fact::Epoch(epoch) = fact {
        batch.put(EPOCHS, at.lsn.to_bytes(), &epoch.fork);
        return Ok(());
    }
    if let Fact::ExtremitiesRemoved(removed) = fact {
        return remove(removed, batch);
    }
    if let Fact::HistoryWithdrawn(withdrawn) = fact {
        return Ok(withdraw(withdrawn, batch)?);
    }
    let Some(effect) = events::effect(at, fact, batch)? else { return Ok(()) };
    let room = effect.head.room;
    let appears = effect.placed.position.filter(|_| effect.appears());
    if effect.placed.class != Class::Outlier {
        let referred = settle_references(&effect, batch)?;
        if let Some(position) = appears {
            let after_gap = note_missing(&effect.head, position, batch)?;
            batch.put(ORDER, order_key(room, position), &Item { event: effect.event, after_gap });
            if position.is_live() {
                advance(&effect, referred, batch)?;
            }
        }
    }
    let live = appears.filter(|position| position.is_live());
    if live.is_some() || !effect.current.is_empty() {
        let last = last(batch, room)?;
        batch.put(LAST, room.to_bytes(), &Last { activity: at.lsn, live: live.or(last.live) });
        batch.put(ACTIVITY, activity_key(at.lsn, room), &());
        if effect.event.lsn != at.lsn {
            batch.put(LATE, KeyBuf::new().nid(room).lsn(at.lsn), &());
        }
        batch.touch_room(room);
    }
    Ok(())
}

fn remove(fact: &ExtremitiesRemoved, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(room) = events::room_nid(batch, &fact.room)? else { return Ok(()) };
    let mut extremities = extremities(batch, room)?;
    extremities.retain(|extremity| !fact.events.contains(&extremity.id));
    batch.put(EXTREMITIES, room.to_bytes(), &extremities);
    Ok(())
}

/// Takes events out of the order, and with the room itself also what happened by them.
fn withdraw(fact: &HistoryWithdrawn, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let with_room = events::detached(batch, &fact.room)?.is_some();
    for id in &fact.events {
        let Some((event, head)) = events::find(batch, id)? else { continue };
        if let Some(position) = head.shown_at() {
            batch.delete(ORDER, order_key(head.room, position));
            batch.delete_prefix(GAPS, order_key(head.room, position));
            for missing in &head.prev_events {
                batch.delete(REFERRED, referred_key(head.room, missing).raw(&position.to_bytes()));
            }
        }
        if with_room {
            batch.delete(ACTIVITY, activity_key(event.lsn, head.room));
        }
    }
    Ok(())
}

/// Forgets a room, but for its activity by events: that goes with them.
pub(crate) fn purge(room: Nid, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    for (key, _) in sweep.rows(LATE, room.to_bytes())? {
        if sweep.is_full() {
            break;
        }
        let lsn = KeyReader::new(&key[Nid::LEN..]).lsn().ok_or_else(|| malformed_key(LATE))?;
        sweep.delete(ACTIVITY, activity_key(lsn, room))?;
        sweep.delete(LATE, key)?;
    }
    for table in [ORDER, EXTREMITIES, REFERRED, GAPS, LAST] {
        sweep.prefix(table, room.to_bytes())?;
    }
    Ok(())
}

/// For a position in a future that was lost when an older copy of the log was restored: the last record before it, with
/// which the log goes on. None for a position that the log went by, or will.
///
/// # Errors
/// When the store fails.
pub fn fork_before(read: &dyn Read, lost: Lsn) -> Result<Option<Lsn>, StoreError> {
    let later = Range { from: lost.next().to_bytes().into(), to: None, reverse: false };
    let next = rows::<Lsn>(read, EPOCHS, later).next().transpose()?;
    Ok(next.map(|(_, fork)| fork).filter(|fork| *fork < lost))
}

fn order_key(room: Nid, position: Position) -> KeyBuf {
    KeyBuf::new().nid(room).raw(&position.to_bytes())
}

fn activity_key(lsn: Lsn, room: Nid) -> KeyBuf {
    KeyBuf::new().lsn(lsn).nid(room)
}

fn referred_key(room: Nid, id: &str) -> KeyBuf {
    KeyBuf::new().nid(room).str(id)
}

fn gap_key(room: Nid, position: Position, missing: &str) -> KeyBuf {
    order_key(room, position).str(missing)
}

/// An event that others refer to is no longer missing. Says whether one in the order refers to it.
fn settle_references(effect: &Effect<'_>, batch: &mut Batch<'_>) -> Result<bool, FoldError> {
    let Effect { head, placed, .. } = effect;
    let prefix = referred_key(head.room, &head.id);
    // Most events come before what refers to them: to see that costs a look at one key.
    if batch.get(REFERRED, prefix.as_ref())?.is_none() {
        return Ok(false);
    }
    let start = prefix.as_ref().len();
    let range = Range::prefix_from(prefix.as_ref(), &Position::START.to_bytes());
    let referring = batch.scan(REFERRED, range).map(|row| {
        let (key, _) = row?;
        Position::from_slice(&key[start..]).ok_or_else(|| malformed_key(REFERRED))
    });
    for position in referring.collect::<Result<Vec<_>, StoreError>>()? {
        batch.delete(GAPS, gap_key(head.room, position, &head.id));
    }
    if placed.is_shown() {
        batch.delete_prefix(REFERRED, prefix);
    }
    Ok(true)
}

/// Notes which events before this one are not in the order. Says whether any is missing altogether.
fn note_missing(head: &Head, position: Position, batch: &mut Batch<'_>) -> Result<bool, FoldError> {
    let mut missing = false;
    for id in &head.prev_events {
        let placed = previous(head.room, id, batch)?.and_then(|previous| previous.placed);
        if placed.is_some_and(|placed| placed.is_shown()) {
            continue;
        }
        let key = referred_key(head.room, id);
        batch.put(REFERRED, &key, &());
        batch.put(REFERRED, key.raw(&position.to_bytes()), &());
        if placed.is_none_or(|placed| placed.class == Class::Outlier) {
            batch.put(GAPS, gap_key(head.room, position, id), &());
            missing = true;
        }
    }
    Ok(missing)
}

/// A previous event, if it is known and of the same room.
fn previous(room: Nid, id: &str, read: &dyn Read) -> Result<Option<Head>, StoreError> {
    let previous = events::find(read, id)?.map(|(_, previous)| previous);
    Ok(previous.filter(|previous| previous.room == room))
}

/// A live event takes the place of the extremities that it follows.
fn advance(effect: &Effect<'_>, referred: bool, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let room = effect.head.room;
    let Left { mut extremities, hidden } = left(batch, room, &effect.head.prev_events)?;
    for id in hidden {
        // Should it appear one day, it has been followed already.
        batch.put(REFERRED, referred_key(room, &id), &());
    }
    if !referred {
        let Head { id, depth, .. } = &effect.head;
        extremities.push(Extremity { event: effect.event, id: id.clone(), depth: *depth });
    }
    batch.put(EXTREMITIES, room.to_bytes(), &extremities);
    Ok(())
}

/// What a new event leaves.
struct Left {
    extremities: Vec<Extremity>,
    /// The hidden events that it follows.
    hidden: Vec<String>,
}

/// The extremities that an event with these previous events doesn't follow, not behind hidden events either.
fn left(read: &dyn Read, room: Nid, prev_events: &[String]) -> Result<Left, StoreError> {
    let mut left = Left { extremities: extremities(read, room)?, hidden: Vec::new() };
    let mut todo = vec![prev_events.to_vec()];
    for _ in 0..HIDDEN_STEPS {
        let Some(prev_events) = todo.pop() else { break };
        for id in prev_events {
            let before = left.extremities.len();
            left.extremities.retain(|extremity| extremity.id != id);
            if left.extremities.len() < before {
                continue;
            }
            let previous = previous(room, &id, read)?;
            let is_hidden = |head: &Head| head.placed.is_some_and(|p| p.class == Class::Live && !p.is_shown());
            if let Some(previous) = previous.filter(is_hidden) {
                todo.push(previous.prev_events);
                left.hidden.push(id);
            }
        }
    }
    Ok(left)
}

/// The forward extremities that are left once a live event with these previous events is accepted.
///
/// # Errors
/// When the store fails.
pub fn extremities_left(read: &dyn Read, room: Nid, prev_events: &[String]) -> Result<Vec<Extremity>, StoreError> {
    Ok(left(read, room, prev_events)?.extremities)
}

/// Whether an event that is not in the order is followed by one that is: it can't become an extremity.
///
/// # Errors
/// When the store fails.
pub fn is_followed(read: &dyn Read, room: Nid, id: &str) -> Result<bool, StoreError> {
    Ok(read.get(REFERRED, referred_key(room, id).as_ref())?.is_some())
}

/// The forward extremities of a room, oldest first: the next event is built on them.
///
/// # Errors
/// When the store fails.
pub fn extremities(read: &dyn Read, room: Nid) -> Result<Vec<Extremity>, StoreError> {
    Ok(row(read, EXTREMITIES, room.to_bytes())?.unwrap_or_default())
}

/// The events of a room from a position on, in order.
pub fn forward(
    read: &dyn Read,
    room: Nid,
    from: Position,
) -> impl Iterator<Item = Result<(Position, Item), StoreError>> + '_ {
    read.scan(ORDER, Range::prefix_from(&room.to_bytes(), &from.to_bytes())).map(item)
}

/// The events of a room before a position, from the last to the first.
pub fn backward(
    read: &dyn Read,
    room: Nid,
    before: Position,
) -> impl Iterator<Item = Result<(Position, Item), StoreError>> + '_ {
    read.scan(ORDER, Range::prefix_until(&room.to_bytes(), &before.to_bytes()).rev()).map(item)
}

fn item(row: Result<Row, StoreError>) -> Result<(Position, Item), StoreError> {
    let (key, value) = row?;
    let position = key.get(Nid::LEN..).and_then(Position::from_slice).ok_or_else(|| malformed_key(ORDER))?;
    Ok((position, decode(ORDER, &value)?))
}

/// What stands at a position of a room.
///
/// # Errors
/// When the store fails.
pub fn item_at(read: &dyn Read, room: Nid, position: Position) -> Result<Option<Item>, StoreError> {
    row(read, ORDER, order_key(room, position))
}

/// The gaps of a room from a position on, in order. A backfill starts from what refers to the missing events.
pub fn gaps(read: &dyn Read, room: Nid, from: Position) -> impl Iterator<Item = Result<Gap, StoreError>> + '_ {
    read.scan(GAPS, Range::prefix_from(&room.to_bytes(), &from.to_bytes())).map(gap)
}

/// The gaps of a room before a position, from the last to the first.
pub fn gaps_before(read: &dyn Read, room: Nid, before: Position) -> impl Iterator<Item = Result<Gap, StoreError>> + '_ {
    read.scan(GAPS, Range::prefix_until(&room.to_bytes(), &before.to_bytes()).rev()).map(gap)
}

fn gap(row: Result<Row, StoreError>) -> Result<Gap, StoreError> {
    let (key, _) = row?;
    let place = key.get(Nid::LEN..).and_then(|rest| rest.split_at_checked(Position::LEN));
    let gap = place.and_then(|(position, id)| {
        Some(Gap { before: Position::from_slice(position)?, missing: KeyReader::new(id).str()? })
    });
    gap.ok_or_else(|| malformed_key(GAPS))
}

/// When something last happened in a room.
///
/// # Errors
/// When the store fails.
pub fn last(read: &dyn Read, room: Nid) -> Result<Last, StoreError> {
    Ok(row(read, LAST, room.to_bytes())?.unwrap_or_default())
}

/// Rooms in which something happened after one record and up to another, in the log's order; a room comes once for each
/// record.
pub fn activity(read: &dyn Read, after: Lsn, until: Lsn) -> impl Iterator<Item = Result<(Lsn, Nid), StoreError>> + '_ {
    let (from, to) = (after.next().to_bytes().to_vec(), until.next().to_bytes().to_vec());
    rows::<()>(read, ACTIVITY, Range { from, to: Some(to), reverse: false }).map(|row| {
        let (key, ()) = row?;
        let mut parts = KeyReader::new(&key);
        parts.lsn().zip(parts.nid()).ok_or_else(|| malformed_key(ACTIVITY))
    })
}
