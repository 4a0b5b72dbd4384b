//! How events relate to one another: edits, reactions, threads, references.
//!
//! What relates to this event, of which kind, in order? What is its last edit? Has this user reacted like this before?
//! Which threads has a room, who takes part, how long are they? In which thread is this event?
//!
//! Tables: 1 `room | parent id | position -> Child`; 2 `room | parent id | rel_type | position -> Child`; 3 `event ->
//! Related`, to take a relation back; 4 `room | parent id | sender | event type | origin_server_ts | event id -> event`, edits;
//! 5 `room | parent id | event type | key | sender | event -> ()`, annotations; 6 `room | root id -> Thread`; 7 `room |
//! position of the latest | root id -> ()`, threads in order; 8 `room | parent id | rel_type | user -> number of the user's
//! events that relate so`; 9 `room | parent id -> ()`, to which something related at some time.
//!
//! What relates over others has a table in `indirect`.
//!
//! A relation holds while its event is in the order of its room and not redacted. Its parent need not be known, and is
//! named by its id: whoever asks knows the parent and its sender.

mod indirect;
#[cfg(test)]
mod tests;

pub use indirect::{MAX_DEPTH, descendants, descendants_before};

use schemas::{Fact, Nid};
use serde::{Deserialize, Serialize};

use super::events::{self, Head, Relation};
use crate::{
    At, Batch, FoldError, Model, Position, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    purge::Sweep,
    read::{Range, Read, Row, Table, decode, malformed_key, row, rows},
};

const CHILDREN: Table = Table { model: Model::Relations, prefix: 1 };
const BY_TYPE: Table = Table { model: Model::Relations, prefix: 2 };
const RELATED: Table = Table { model: Model::Relations, prefix: 3 };
const EDITS: Table = Table { model: Model::Relations, prefix: 4 };
const ANNOTATIONS: Table = Table { model: Model::Relations, prefix: 5 };
const THREADS: Table = Table { model: Model::Relations, prefix: 6 };
const THREAD_ORDER: Table = Table { model: Model::Relations, prefix: 7 };
const SENDERS: Table = Table { model: Model::Relations, prefix: 8 };
const PARENTS: Table = Table { model: Model::Relations, prefix: 9 };

const ANNOTATION: &str = "m.annotation";
const THREAD: &str = "m.thread";

/// This model's fold.
pub const PROJECTION: Projection =
    Projection { model: Model::Relations, version: 2, reads: &[Model::Staging, Model::Events], fold };

/// An event that relates to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// The event.
    pub event: Nid,
    /// How it relates.
    pub rel_type: String,
    /// Its type.
    pub event_type: String,
}

/// A reaction, or another annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The annotating event's type.
    pub event_type: String,
    /// What it says.
    pub key: String,
    /// Who says so.
    pub sender: String,
    /// The annotating event.
    pub event: Nid,
}

/// A thread, without its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// How many events it has.
    pub count: u64,
    /// The last of them.
    pub latest: Nid,
    /// Where that stands.
    pub position: Position,
}

#[derive(Serialize, Deserialize)]
struct Related {
    relation: Relation,
    position: Position,
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Fact::HistoryWithdrawn(withdrawn) = fact {
        return withdraw(&withdrawn.events, batch);
    }
    let Some(effect) = events::effect(at, fact, batch)? else { return Ok(()) };
    if let (Some(relation), Some(position), true) = (&effect.head.relation, effect.placed.position, effect.appears()) {
        let related = Related { relation: relation.clone(), position };
        relate(effect.event, &effect.head, &related, batch)?;
    }
    if let Some((event, head)) = effect.redacted(batch)?
        && let Some(related) = row::<Related>(batch, RELATED, event.to_bytes())?
    {
        unrelate(event, &head, &related, batch)?;
    }
    Ok(())
}

/// What is withdrawn relates to nothing any more.
fn withdraw(ids: &[String], batch: &mut Batch<'_>) -> Result<(), FoldError> {
    for id in ids {
        if let Some((event, head)) = events::find(batch, id)?
            && let Some(related) = row::<Related>(batch, RELATED, event.to_bytes())?
        {
            unrelate(event, &head, &related, batch)?;
        }
    }
    Ok(())
}

/// Forgets a room, but for what each event relates to: that goes with it.
pub(crate) fn purge(room: Nid, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    for table in [CHILDREN, BY_TYPE, EDITS, ANNOTATIONS, THREADS, THREAD_ORDER, SENDERS, PARENTS, indirect::INDIRECT] {
        sweep.prefix(table, room.to_bytes())?;
    }
    Ok(())
}

fn relate(event: Nid, head: &Head, related: &Related, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Related { relation, position } = related;
    let child = Child { event, rel_type: relation.rel_type.clone(), event_type: head.event_type.clone() };
    batch.put(PARENTS, parent_key(head.room, &relation.parent), &());
    batch.put(CHILDREN, child_key(head, related), &child);
    batch.put(BY_TYPE, typed_key(head, related), &child);
    indirect::connect(head, related, &child, batch)?;
    batch.put(RELATED, event.to_bytes(), related);
    if relation.replaces {
        batch.put_raw(EDITS, edit_key(head, related), event.to_bytes().to_vec());
    }
    if let Some(key) = annotation_key(event, head, related) {
        batch.put(ANNOTATIONS, key, &());
    }
    if relation.rel_type == THREAD {
        let place = parent_key(head.room, &relation.parent);
        let thread = row::<Thread>(batch, THREADS, &place)?;
        let count = thread.map_or(0, |thread| thread.count) + 1;
        let new = match thread {
            Some(thread) if thread.position > *position => Thread { count, ..thread },
            _ => Thread { count, latest: event, position: *position },
        };
        keep_thread(head.room, &relation.parent, thread.as_ref(), Some(&new), batch);
    }
    count_sender(head, related, 1, batch)
}

/// Takes a relation back. The head's own is gone by now.
fn unrelate(event: Nid, head: &Head, related: &Related, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let relation = &related.relation;
    batch.delete(CHILDREN, child_key(head, related));
    batch.delete(BY_TYPE, typed_key(head, related));
    indirect::disconnect(head, related, batch)?;
    batch.delete(RELATED, event.to_bytes());
    if relation.replaces {
        batch.delete(EDITS, edit_key(head, related));
    }
    if let Some(key) = annotation_key(event, head, related) {
        batch.delete(ANNOTATIONS, key);
    }
    if relation.rel_type == THREAD {
        let old = row::<Thread>(batch, THREADS, parent_key(head.room, &relation.parent))?;
        let latest = children_before(batch, head.room, &relation.parent, Some(THREAD), None).next().transpose()?;
        let count = old.map_or(0, |old| old.count).saturating_sub(1);
        let new = latest.map(|(position, child)| Thread { count, latest: child.event, position });
        keep_thread(head.room, &relation.parent, old.as_ref(), new.as_ref(), batch);
    }
    count_sender(head, related, -1, batch)
}

fn keep_thread(room: Nid, root: &str, old: Option<&Thread>, new: Option<&Thread>, batch: &mut Batch<'_>) {
    let order_key = |thread: &Thread| KeyBuf::new().nid(room).raw(&thread.position.to_bytes()).str(root);
    if let Some(old) = old.filter(|old| new.is_none_or(|new| new.position != old.position)) {
        batch.delete(THREAD_ORDER, order_key(old));
    }
    match new {
        Some(new) => {
            batch.put(THREADS, parent_key(room, root), new);
            batch.put(THREAD_ORDER, order_key(new), &());
        }
        None => batch.delete(THREADS, parent_key(room, root)),
    }
}

fn count_sender(head: &Head, related: &Related, by: i64, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Relation { parent, rel_type, .. } = &related.relation;
    let key = parent_key(head.room, parent).str(rel_type).str(&head.sender);
    match row::<u64>(batch, SENDERS, &key)?.unwrap_or_default().saturating_add_signed(by) {
        0 => batch.delete(SENDERS, key),
        count => batch.put(SENDERS, key, &count),
    }
    Ok(())
}

fn parent_key(room: Nid, parent: &str) -> KeyBuf {
    KeyBuf::new().nid(room).str(parent)
}

fn child_key(head: &Head, related: &Related) -> KeyBuf {
    parent_key(head.room, &related.relation.parent).raw(&related.position.to_bytes())
}

fn typed_key(head: &Head, related: &Related) -> KeyBuf {
    let Related { relation, position } = related;
    parent_key(head.room, &relation.parent).str(&relation.rel_type).raw(&position.to_bytes())
}

fn edits_prefix(room: Nid, parent: &str, sender: &str, event_type: &str) -> KeyBuf {
    parent_key(room, parent).str(sender).str(event_type)
}

fn edit_key(head: &Head, related: &Related) -> KeyBuf {
    let prefix = edits_prefix(head.room, &related.relation.parent, &head.sender, &head.event_type);
    prefix.u64(head.origin_server_ts).str(&head.id)
}

fn annotation_key(event: Nid, head: &Head, related: &Related) -> Option<KeyBuf> {
    let Relation { rel_type, parent, key, .. } = &related.relation;
    let key = key.as_ref().filter(|_| rel_type == ANNOTATION)?;
    Some(parent_key(head.room, parent).str(&head.event_type).str(key).str(&head.sender).nid(event))
}

/// Whether anything relates to an event, or did before it was redacted: a quick look before all that follows.
///
/// # Errors
/// When the store fails.
pub fn is_parent(read: &dyn Read, room: Nid, event: &str) -> Result<bool, StoreError> {
    Ok(read.get(PARENTS, parent_key(room, event).as_ref())?.is_some())
}

/// What relates to an event, or relates in one way, from a position on, in order.
pub fn children<'a>(
    read: &'a dyn Read,
    room: Nid,
    parent: &str,
    rel_type: Option<&str>,
    from: Position,
) -> impl Iterator<Item = Result<(Position, Child), StoreError>> + use<'a> {
    let (table, prefix) = children_in(room, parent, rel_type);
    let start = prefix.len();
    read.scan(table, Range::prefix_from(&prefix, &from.to_bytes())).map(move |row| child(table, start, row))
}

/// What relates to an event, or relates in one way, before a position, from the last to the first.
pub fn children_before<'a>(
    read: &'a dyn Read,
    room: Nid,
    parent: &str,
    rel_type: Option<&str>,
    before: Option<Position>,
) -> impl Iterator<Item = Result<(Position, Child), StoreError>> + use<'a> {
    let (table, prefix) = children_in(room, parent, rel_type);
    let start = prefix.len();
    let range = match before {
        Some(before) => Range::prefix_until(&prefix, &before.to_bytes()),
        None => Range::prefix(prefix),
    };
    read.scan(table, range.rev()).map(move |row| child(table, start, row))
}

fn children_in(room: Nid, parent: &str, rel_type: Option<&str>) -> (Table, Vec<u8>) {
    let prefix = parent_key(room, parent);
    match rel_type {
        Some(rel_type) => (BY_TYPE, prefix.str(rel_type).into()),
        None => (CHILDREN, prefix.into()),
    }
}

fn child(table: Table, start: usize, row: Result<Row, StoreError>) -> Result<(Position, Child), StoreError> {
    let (key, value) = row?;
    let position = key.get(start..).and_then(Position::from_slice).ok_or_else(|| malformed_key(table))?;
    Ok((position, decode(table, &value)?))
}

/// The edit that counts: the last by its sender's clock, then by event id, of those by the event's own sender and of its
/// type (client-server API, "Validity of replacement events"). What is redacted, a state event or an edit has none.
///
/// # Errors
/// When the store fails.
pub fn replacement(read: &dyn Read, parent: &Head) -> Result<Option<Nid>, StoreError> {
    let is_edit = parent.relation.as_ref().is_some_and(|relation| relation.rel_type == "m.replace");
    if parent.redacted_by.is_some() || parent.state_key.is_some() || is_edit {
        return Ok(None);
    }
    let prefix = edits_prefix(parent.room, &parent.id, &parent.sender, &parent.event_type);
    let last = read.scan(EDITS, Range::prefix(prefix).rev()).next().transpose()?;
    last.map(|(_, event)| Nid::from_slice(&event).ok_or_else(|| malformed_key(EDITS))).transpose()
}

/// An event's annotations, by type of the annotating event, key and sender, so that equal ones stand together.
pub fn annotations<'a>(
    read: &'a dyn Read,
    room: Nid,
    parent: &str,
) -> impl Iterator<Item = Result<Annotation, StoreError>> + use<'a> {
    let prefix = Vec::from(parent_key(room, parent));
    let start = prefix.len();
    read.scan(ANNOTATIONS, Range::prefix(prefix)).map(move |row| {
        let (key, _) = row?;
        let mut parts = KeyReader::new(&key[start..]);
        let mut read = || {
            let (event_type, key, sender) = (parts.str()?, parts.str()?, parts.str()?);
            Some(Annotation { event_type, key, sender, event: parts.nid()? })
        };
        read().ok_or_else(|| malformed_key(ANNOTATIONS))
    })
}

/// Whether a user has annotated an event with this key already: a second time is refused.
///
/// # Errors
/// When the store fails.
pub fn has_annotated(
    read: &dyn Read,
    parent: &Head,
    event_type: &str,
    key: &str,
    sender: &str,
) -> Result<bool, StoreError> {
    let prefix = parent_key(parent.room, &parent.id).str(event_type).str(key).str(sender);
    Ok(read.scan(ANNOTATIONS, Range::prefix(prefix)).next().transpose()?.is_some())
}

/// The thread of which an event is the root.
///
/// # Errors
/// When the store fails.
pub fn thread(read: &dyn Read, room: Nid, root: &str) -> Result<Option<Thread>, StoreError> {
    row(read, THREADS, parent_key(room, root))
}

/// How many events a user has sent in a thread; the root is not looked at.
///
/// # Errors
/// When the store fails.
pub fn sent_in_thread(read: &dyn Read, room: Nid, root: &str, user: &str) -> Result<u64, StoreError> {
    Ok(row(read, SENDERS, parent_key(room, root).str(THREAD).str(user))?.unwrap_or_default())
}

/// In which ways events relate to one, and who sent them: each pair once, however many they are.
pub fn relating<'a>(
    read: &'a dyn Read,
    room: Nid,
    parent: &str,
) -> impl Iterator<Item = Result<(String, String), StoreError>> + use<'a> {
    let prefix = Vec::from(parent_key(room, parent));
    let start = prefix.len();
    rows::<u64>(read, SENDERS, Range::prefix(prefix)).map(move |row| {
        let (key, _) = row?;
        let mut pair = KeyReader::new(&key[start..]);
        pair.str().zip(pair.str()).ok_or_else(|| malformed_key(SENDERS))
    })
}

/// The threads of a room whose latest events stand before a position, from the last to the first: those positions, and
/// the ids of the roots, which need not be known.
pub fn threads(
    read: &dyn Read,
    room: Nid,
    before: Option<Position>,
) -> impl Iterator<Item = Result<(Position, String), StoreError>> + '_ {
    let range = match before {
        Some(before) => Range::prefix_until(&room.to_bytes(), &before.to_bytes()),
        None => Range::prefix(room.to_bytes()),
    };
    rows::<()>(read, THREAD_ORDER, range.rev()).map(|row| {
        let (key, ()) = row?;
        let place = key.get(Nid::LEN..).and_then(|rest| rest.split_at_checked(Position::LEN));
        let place = place.and_then(|(position, root)| Position::from_slice(position).zip(KeyReader::new(root).str()));
        place.ok_or_else(|| malformed_key(THREAD_ORDER))
    })
}

/// The root of the thread that an event is in, itself or by what it relates to; none is the main timeline (client-server
/// API, "Threaded read receipts").
///
/// # Errors
/// When the store fails.
pub fn thread_of(read: &dyn Read, event: &Head) -> Result<Option<String>, StoreError> {
    let mut relation = event.relation.clone();
    for _ in 0..MAX_DEPTH {
        let Some(Relation { rel_type, parent, .. }) = relation else { return Ok(None) };
        if rel_type == THREAD {
            return Ok(Some(parent));
        }
        let next = events::find(read, &parent)?.map(|(_, parent)| parent).filter(|parent| parent.room == event.room);
        relation = next.and_then(|parent| parent.relation);
    }
    Ok(None)
}
