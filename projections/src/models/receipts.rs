//! How far users have read in each room.
//!
//! Which receipts has a room, as this user may see them? Which of them are new since? How far has this user read? In
//! which rooms did a receipt move?
//!
//! Tables: 1 `room | user | kind | thread -> Stored`, the furthest; 2 `room | lsn | user | kind | thread -> ()`, the last
//! change of each; 3 `lsn | room -> ()`, the last change in each room; 4 `room -> lsn`, where table 3 has it.
//!
//! Receipts move forward in the room's order only. One for an event that nobody sees there has no effect.

use schemas::{
    Fact, Lsn, Nid,
    facts::{ReceiptKind, ReceiptSet},
};
use serde::{Deserialize, Serialize};

use super::events;
use crate::{
    At, Batch, FoldError, Model, Position, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    purge::Sweep,
    read::{Range, Read, Table, malformed_key, row, rows},
};

const RECEIPTS: Table = Table { model: Model::Receipts, prefix: 1 };
const CHANGES: Table = Table { model: Model::Receipts, prefix: 2 };
const ROOMS: Table = Table { model: Model::Receipts, prefix: 3 };
const LAST_IN_ROOM: Table = Table { model: Model::Receipts, prefix: 4 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Receipts, version: 1, reads: &[Model::Events], fold };

#[derive(Serialize, Deserialize)]
struct Stored {
    event: String,
    at_ms: u64,
    position: Position,
    changed: Lsn,
}

/// How far somebody has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Full user id.
    pub user: String,
    /// Public or private.
    pub kind: ReceiptKind,
    /// None is unthreaded; `main` or the event id of a thread's root.
    pub thread: Option<String>,
    /// Event id of what was read last.
    pub event: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Where the event stands in the room.
    pub position: Position,
}

/// `user | kind | thread`. No thread sorts before every thread.
fn owner(key: KeyBuf, user: &str, kind: ReceiptKind, thread: Option<&str>) -> KeyBuf {
    let key = key.str(user).u8(kind_number(kind));
    match thread {
        None => key.u8(0),
        Some(thread) => key.u8(1).str(thread),
    }
}

const fn kind_number(kind: ReceiptKind) -> u8 {
    match kind {
        ReceiptKind::Public => 0,
        ReceiptKind::Private => 1,
    }
}

fn read_owner(key: &mut KeyReader<'_>) -> Option<(String, ReceiptKind, Option<String>)> {
    let user = key.str()?;
    let kind = if key.u8()? == kind_number(ReceiptKind::Public) { ReceiptKind::Public } else { ReceiptKind::Private };
    let thread = if key.u8()? == 0 { None } else { Some(key.str()?) };
    Some((user, kind, thread))
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::ReceiptSet(f) => set(at, f, batch),
        _ => Ok(()),
    }
}

/// Forgets a room.
pub(crate) fn purge(room: Nid, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    if let Some(last) = row::<Lsn>(sweep.batch, LAST_IN_ROOM, room.to_bytes())? {
        sweep.delete(ROOMS, KeyBuf::new().lsn(last).nid(room))?;
        sweep.delete(LAST_IN_ROOM, room.to_bytes())?;
    }
    for table in [RECEIPTS, CHANGES] {
        sweep.prefix(table, room.to_bytes())?;
    }
    Ok(())
}

fn set(at: &At<'_>, fact: &ReceiptSet, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(event) = events::nid(batch, &fact.event)? else { return Ok(()) };
    let Some(head) = events::head(batch, event)? else { return Ok(()) };
    let Some(position) = head.shown_at() else { return Ok(()) };
    if events::room_nid(batch, &fact.room)? != Some(head.room) {
        return Ok(());
    }
    let (room, thread) = (head.room, fact.thread.as_deref());
    let key = owner(KeyBuf::new().nid(room), &fact.user, fact.kind, thread);
    let change = |lsn| owner(KeyBuf::new().nid(room).lsn(lsn), &fact.user, fact.kind, thread);
    if let Some(before) = row::<Stored>(batch, RECEIPTS, &key)? {
        if before.position >= position {
            return Ok(());
        }
        batch.delete(CHANGES, change(before.changed));
    }
    let stored = Stored { event: fact.event.clone(), at_ms: fact.at_ms, position, changed: at.lsn };
    batch.put(RECEIPTS, key, &stored);
    batch.put(CHANGES, change(at.lsn), &());
    if let Some(before) = row::<Lsn>(batch, LAST_IN_ROOM, room.to_bytes())? {
        batch.delete(ROOMS, KeyBuf::new().lsn(before).nid(room));
    }
    batch.put(ROOMS, KeyBuf::new().lsn(at.lsn).nid(room), &());
    batch.put(LAST_IN_ROOM, room.to_bytes(), &at.lsn);
    batch.touch_user(&fact.user);
    if fact.kind == ReceiptKind::Public {
        batch.touch_room(room);
    }
    Ok(())
}

/// The record that last moved a receipt in a room.
///
/// # Errors
/// When the store fails.
pub fn last_in_room(read: &dyn Read, room: Nid) -> Result<Option<Lsn>, StoreError> {
    row(read, LAST_IN_ROOM, room.to_bytes())
}

/// The receipts in a room that `viewer` may see: all public ones, and their own.
///
/// # Errors
/// When the store fails.
pub fn in_room(read: &dyn Read, room: Nid, viewer: &str) -> Result<Vec<Receipt>, StoreError> {
    let all = scan(read, KeyBuf::new().nid(room));
    all.filter(|receipt| receipt.as_ref().map_or(true, |receipt| receipt.is_seen_by(viewer))).collect()
}

/// A user's own receipts in a room.
///
/// # Errors
/// When the store fails.
pub fn of_user(read: &dyn Read, room: Nid, user: &str) -> Result<Vec<Receipt>, StoreError> {
    scan(read, KeyBuf::new().nid(room).str(user)).collect()
}

impl Receipt {
    fn is_seen_by(&self, viewer: &str) -> bool {
        self.kind == ReceiptKind::Public || self.user == viewer
    }
}

fn scan(read: &dyn Read, prefix: KeyBuf) -> impl Iterator<Item = Result<Receipt, StoreError>> + '_ {
    rows(read, RECEIPTS, Range::prefix(prefix)).map(|row| {
        let (key, stored) = row?;
        let mut key = KeyReader::new(&key);
        let owner = key.nid().and_then(|_| read_owner(&mut key)).ok_or_else(|| malformed_key(RECEIPTS))?;
        Ok(receipt(owner, stored))
    })
}

fn receipt((user, kind, thread): (String, ReceiptKind, Option<String>), stored: Stored) -> Receipt {
    let Stored { event, at_ms, position, .. } = stored;
    Receipt { user, kind, thread, event, at_ms, position }
}

/// The receipts in a room that moved after a position of the log, as `viewer` may see them.
///
/// # Errors
/// When the store fails.
pub fn changed_after(read: &dyn Read, room: Nid, viewer: &str, after: Lsn) -> Result<Vec<Receipt>, StoreError> {
    let prefix = room.to_bytes();
    let mut changed = Vec::new();
    for change in read.scan(CHANGES, Range::prefix_from(&prefix, &after.next().to_bytes())) {
        let (key, _) = change?;
        let mut key = KeyReader::new(&key[prefix.len()..]);
        let (user, kind, thread) =
            key.lsn().and_then(|_| read_owner(&mut key)).ok_or_else(|| malformed_key(CHANGES))?;
        if kind == ReceiptKind::Private && user != viewer {
            continue;
        }
        let key = owner(KeyBuf::new().nid(room), &user, kind, thread.as_deref());
        if let Some(stored) = row(read, RECEIPTS, key)? {
            changed.push(receipt((user, kind, thread), stored));
        }
    }
    Ok(changed)
}

/// Rooms in which a receipt moved after a position of the log, each once, with when it did last; in that order.
pub fn rooms_after(read: &dyn Read, after: Lsn) -> impl Iterator<Item = Result<(Lsn, Nid), StoreError>> + '_ {
    let range = Range { from: after.next().to_bytes().to_vec(), to: None, reverse: false };
    read.scan(ROOMS, range).map(|row| {
        let (key, _) = row?;
        let mut key = KeyReader::new(&key);
        key.lsn().zip(key.nid()).ok_or_else(|| malformed_key(ROOMS))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{ALICE, BOB, ROOM, World, live};

    fn read_by(user: &str, kind: ReceiptKind, thread: Option<&str>, event: &str) -> Fact {
        ReceiptSet {
            user: user.into(),
            room: ROOM.into(),
            kind,
            thread: thread.map(Into::into),
            event: event.into(),
            at_ms: 5,
        }
        .into()
    }

    /// A room with a few events, and its short id.
    fn world() -> (World, Nid) {
        let mut world = World::new();
        world.apply(live("$create", &json!({ "type": "m.room.create", "state_key": "" })));
        for id in ["$1", "$2", "$3"] {
            world.apply(live(id, &json!({})));
        }
        let room = events::room_nid(&world.view(), ROOM).unwrap().unwrap();
        (world, room)
    }

    /// A line each.
    fn lines(receipts: Vec<Receipt>) -> Vec<String> {
        let line = |r: Receipt| format!("{} {:?} {} {}", r.user, r.kind, r.thread.as_deref().unwrap_or("-"), r.event);
        receipts.into_iter().map(line).collect()
    }

    #[test]
    fn the_furthest_wins_by_user_kind_and_thread() {
        let (mut world, room) = world();
        let start = world.view().lsn();
        use ReceiptKind::{Private, Public};
        world.apply([read_by(ALICE, Public, None, "$2"), read_by(ALICE, Public, Some("main"), "$1")]);
        world.apply([read_by(ALICE, Public, None, "$1"), read_by(BOB, Private, None, "$3")]);
        world.apply([read_by(ALICE, Public, None, "$unknown"), read_by(ALICE, Public, None, "$2")]);
        let alice = ["@alice:example.org Public - $2", "@alice:example.org Public main $1"];
        assert_eq!(lines(in_room(&world.view(), room, ALICE).unwrap()), alice);
        assert_eq!(lines(in_room(&world.view(), room, BOB).unwrap()).len(), 3);
        assert_eq!(lines(of_user(&world.view(), room, BOB).unwrap()), ["@bob:example.org Private - $3"]);
        assert_eq!(lines(changed_after(&world.view(), room, ALICE, start).unwrap()), alice);

        let second = world.view().lsn();
        assert_eq!(rooms_after(&world.view(), start).count(), 1);
        assert_eq!(rooms_after(&world.view(), second).count(), 0);
        let touched = world.fold([read_by(BOB, Private, None, "$3"), read_by(ALICE, Public, None, "$3")]).touched;
        assert!(touched.rooms.contains(&room) && touched.users.contains(ALICE) && !touched.users.contains(BOB));
        assert_eq!(
            lines(changed_after(&world.view(), room, ALICE, second).unwrap()),
            ["@alice:example.org Public - $3"]
        );
        world.check_replay();
    }

    #[test]
    fn private_receipts_wake_their_user_alone() {
        let (mut world, room) = world();
        let touched = world.fold([read_by(BOB, ReceiptKind::Private, None, "$3")]).touched;
        assert!(touched.users.contains(BOB) && touched.rooms.is_empty());
        assert_eq!(changed_after(&world.view(), room, ALICE, Lsn::ZERO).unwrap(), []);
        assert_eq!(changed_after(&world.view(), room, BOB, Lsn::ZERO).unwrap().len(), 1);
    }

    #[test]
    fn a_receipt_counts_in_the_room_of_its_event_only() {
        let (mut world, room) = world();
        world.apply(live("$other", &json!({ "room_id": "!other:example.org" })));
        world.apply([read_by(ALICE, ReceiptKind::Public, None, "$other")]);
        assert_eq!(in_room(&world.view(), room, ALICE).unwrap(), []);
    }
}
