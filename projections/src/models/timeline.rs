//! One order of the events in each room, for /sync and pagination.
//!
//! What comes after or before this position? What did a room's last event stand at? In which rooms did something happen
//! between two positions of the log? Which events has nobody built on yet?
//!
//! Tables: 1 `room | position -> event nid`; 2 `room -> [Extremity]`; 3 `room -> position` of the last live event;
//! 4 `position's lsn, index -> room`, over all rooms.
//!
//! Only accepted events are here. Backfilled history has its place before an anchor, and is no activity.

use schemas::{
    Fact, Lsn, Nid,
    facts::{EventPlaced, EventRestated, Placement, Verdict},
};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Position, Projection, Range, StoreError,
    keys::KeyBuf,
    models::events::{self, Head},
    read::{Read, Table, malformed_key, row},
};

const ORDER: Table = Table { model: Model::Timeline, prefix: 1 };
const EXTREMITIES: Table = Table { model: Model::Timeline, prefix: 2 };
const LAST: Table = Table { model: Model::Timeline, prefix: 3 };
const ACTIVITY: Table = Table { model: Model::Timeline, prefix: 4 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Timeline, version: 1, reads: &[Model::Events], fold };

/// An event that nobody has built on yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extremity {
    /// The event.
    pub nid: Nid,
    /// Event id.
    pub id: String,
    /// By its server's word.
    pub depth: u64,
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::EventPlaced(f) => place(at, f, batch),
        Fact::EventRestated(f) => restate(at, f, batch),
        _ => Ok(()),
    }
}

fn place(at: &At<'_>, fact: &EventPlaced, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let (event, head) = events::known(at, &fact.id, batch)?;
    let Some(position) = head.shown_at() else { return Ok(()) };
    if !is_new(at, &fact.class, position, head.room, batch)? {
        return Ok(());
    }
    insert(event, &head, position, batch);
    if matches!(fact.class, Placement::Live) {
        let mut extremities = extremities(batch, head.room)?;
        extremities.retain(|extremity| !head.prev_events.contains(&extremity.id));
        extremities.push(Extremity { nid: event, id: head.id.clone(), depth: head.depth });
        batch.put(EXTREMITIES, head.room.to_bytes(), &extremities);
    }
    Ok(())
}

/// A soft-failed event that enters the state is shown from now on; others have built on it already.
fn restate(at: &At<'_>, fact: &EventRestated, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let (event, head) = events::known(at, &fact.id, batch)?;
    if let (Some(position), Verdict::Accepted) = (head.shown_at(), fact.verdict)
        && is_new(at, &fact.class, position, head.room, batch)?
    {
        insert(event, &head, position, batch);
    }
    Ok(())
}

/// A placement that was there before is a no-op: the event then stands elsewhere, or here already.
fn is_new(at: &At<'_>, class: &Placement, position: Position, room: Nid, batch: &Batch<'_>) -> Result<bool, FoldError> {
    let fits = match class {
        Placement::Live => position == Position::live(at.nid()),
        Placement::History { .. } => !position.is_live(),
        Placement::Outlier => false,
    };
    Ok(fits && batch.get(ORDER, key(room, position).as_ref())?.is_none())
}

fn insert(event: Nid, head: &Head, position: Position, batch: &mut Batch<'_>) {
    batch.put_raw(ORDER, key(head.room, position), event.to_bytes().to_vec());
    if position.is_live() {
        batch.put(LAST, head.room.to_bytes(), &position);
        let place = &position.to_bytes()[..Nid::LEN];
        batch.put_raw(ACTIVITY, place, head.room.to_bytes().to_vec());
        batch.touch_room(head.room);
    }
}

fn key(room: Nid, position: Position) -> KeyBuf {
    KeyBuf::new().nid(room).raw(&position.to_bytes())
}

/// Events that nobody has built on yet, oldest first.
///
/// # Errors
/// When the store fails.
pub fn extremities(read: &dyn Read, room: Nid) -> Result<Vec<Extremity>, StoreError> {
    Ok(row(read, EXTREMITIES, room.to_bytes())?.unwrap_or_default())
}

/// Where a room's last live event stands.
///
/// # Errors
/// When the store fails.
pub fn last(read: &dyn Read, room: Nid) -> Result<Option<Position>, StoreError> {
    row(read, LAST, room.to_bytes())
}

/// Events after a position and up to another (inclusive), oldest first.
pub fn forward(
    read: &dyn Read,
    room: Nid,
    after: Option<Position>,
    until: Option<Position>,
) -> impl Iterator<Item = Result<(Position, Nid), StoreError>> + '_ {
    page(read, room, after, until, false)
}

/// Events up to a position (inclusive) and after another, newest first.
pub fn backward(
    read: &dyn Read,
    room: Nid,
    until: Option<Position>,
    after: Option<Position>,
) -> impl Iterator<Item = Result<(Position, Nid), StoreError>> + '_ {
    page(read, room, after, until, true)
}

fn page(
    read: &dyn Read,
    room: Nid,
    after: Option<Position>,
    until: Option<Position>,
    reverse: bool,
) -> impl Iterator<Item = Result<(Position, Nid), StoreError>> + '_ {
    // A key with one more byte is the first one after it.
    let next = |position: Position| Vec::from(key(room, position).u8(0));
    let whole = Range::prefix(room.to_bytes());
    let range = Range { from: after.map_or(whole.from, next), to: until.map(next).or(whole.to), reverse };
    read.scan(ORDER, range).map(|row| {
        let (key, event) = row?;
        let position = key.get(Nid::LEN..).and_then(Position::from_slice);
        position.zip(Nid::from_slice(&event)).ok_or_else(|| malformed_key(ORDER))
    })
}

/// Rooms in which something was sent after one position of the log and up to another, in order; a room may come again.
pub fn activity(read: &dyn Read, after: Lsn, until: Lsn) -> impl Iterator<Item = Result<(Lsn, Nid), StoreError>> + '_ {
    let range =
        Range { from: after.next().to_bytes().to_vec(), to: Some(until.next().to_bytes().to_vec()), reverse: false };
    read.scan(ACTIVITY, range).map(|row| {
        let (place, room) = row?;
        let place = Nid::from_slice(&place).ok_or_else(|| malformed_key(ACTIVITY))?;
        let room = Nid::from_slice(&room).ok_or_else(|| malformed_key(ACTIVITY))?;
        Ok((place.lsn, room))
    })
}
