//! Unread notifications, by exception: what a message costs does not depend on how many members its room has.
//!
//! How many unread notifications and highlights has this user in this room, and in each of its threads? ([`unread()`])
//!
//! | Table | Rows |
//! |---|---|
//! | 1 | `room ‖ lane ‖ position -> Totals`, how many events of each [`Class`] stand in the lane up to here |
//! | 2 | `room ‖ lane -> Head`, the last row of table 1 |
//! | 3 | `event -> Counted`, what the event put into the other tables |
//! | 4 | `room ‖ user ‖ lane ‖ position -> Class`, events that mention a user of this server |
//! | 5 | `room ‖ lane ‖ position -> Class`, events that were counted and then redacted |
//! | 6 | `room ‖ user ‖ lane -> position`, the last event that a user of this server sent |
//! | 7 | `room ‖ position ‖ thread -> ()`, the last event of each thread |
//! | 8 | `room ‖ user ‖ lane -> position`, the last row of table 4, as it was before redactions |
//! | 9 | `room -> position`, the last row of table 7 |
//!
//! A lane is a thread, or what is in none. Every event falls into one class by the default push rules, for a user to
//! whom it means nothing special; a difference of totals says how many of each class there are after what a user has
//! read. What remains are rows for exceptions: who was mentioned, and what was redacted since. To see that there are none,
//! which is so nearly always, costs a look at one key.
//!
//! The rules are ruma's and the versions of this model and `push_rules` are raised together when those change.

mod rules;
mod unread;

use std::{
    collections::BTreeSet,
    ops::{AddAssign, Index, IndexMut, SubAssign},
};

use ruma::push::FlattenedJson;
use schemas::{Fact, Nid, facts::HistoryWithdrawn};
use serde::{Deserialize, Serialize};

pub use self::unread::{Counts, Reader, Unread, unread};
use super::{
    events::{self, Effect, Head as Event},
    membership::{self, Membership},
};
use crate::{
    At, Batch, FoldError, Model, Position, Projection, StoreError,
    keys::KeyBuf,
    purge::Sweep,
    read::{Read, Table, row},
};

const TOTALS: Table = table(1);
const HEADS: Table = table(2);
const COUNTED: Table = table(3);
const MENTIONS: Table = table(4);
const REDACTED: Table = table(5);
const OWN: Table = table(6);
const THREADS: Table = table(7);
const LAST_MENTION: Table = table(8);
const LAST_THREAD: Table = table(9);

/// At most so many of those whom an event mentions are looked at, so that no event costs more than that.
const MAX_MENTIONS: usize = 500;

const fn table(prefix: u8) -> Table {
    Table { model: Model::Push, prefix }
}

/// This model's fold.
pub const PROJECTION: Projection =
    Projection { model: Model::Push, version: 2, reads: &[Model::Events, Model::State, Model::Membership], fold };

/// What an event is to a user to whom it means nothing special: the default rule that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
enum Class {
    Message,
    MessageOneToOne,
    Encrypted,
    EncryptedOneToOne,
    Call,
    /// A message to all in the room.
    RoomMention,
    Tombstone,
    /// Of a bot; does not notify by default.
    Notice,
    /// Of a message; does not notify by default.
    Edit,
}

impl Class {
    const ALL: [Self; 9] = [
        Self::Message,
        Self::MessageOneToOne,
        Self::Encrypted,
        Self::EncryptedOneToOne,
        Self::Call,
        Self::RoomMention,
        Self::Tombstone,
        Self::Notice,
        Self::Edit,
    ];
}

/// How many events there are of each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Totals([u64; Class::ALL.len()]);

impl Index<Class> for Totals {
    type Output = u64;

    fn index(&self, class: Class) -> &u64 {
        &self.0[class as usize]
    }
}

impl IndexMut<Class> for Totals {
    fn index_mut(&mut self, class: Class) -> &mut u64 {
        &mut self.0[class as usize]
    }
}

impl AddAssign<Class> for Totals {
    fn add_assign(&mut self, class: Class) {
        self[class] += 1;
    }
}

impl SubAssign<Class> for Totals {
    fn sub_assign(&mut self, class: Class) {
        self[class] = self[class].saturating_sub(1);
    }
}

impl SubAssign for Totals {
    fn sub_assign(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_sub(theirs);
        }
    }
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Head {
    last: Position,
    totals: Totals,
    /// The last of the lane's events that were redacted.
    redacted: Position,
}

#[derive(Serialize, Deserialize)]
struct Counted {
    lane: String,
    class: Option<Class>,
    mentioned: BTreeSet<String>,
}

/// The lane of what is in no thread.
const MAIN: &str = "";

fn lane_key(room: Nid, lane: &str) -> KeyBuf {
    KeyBuf::new().nid(room).str(lane)
}

fn user_key(room: Nid, user: &str, lane: &str) -> KeyBuf {
    KeyBuf::new().nid(room).str(user).str(lane)
}

fn place(key: KeyBuf, position: Position) -> KeyBuf {
    key.raw(&position.to_bytes())
}

/// The thread in which an event stands, or [`MAIN`].
fn lane_of(event: &FlattenedJson) -> &str {
    match event.get_str(r"content.m\.relates_to.rel_type") {
        Some("m.thread") => event.get_str(r"content.m\.relates_to.event_id").unwrap_or(MAIN),
        _ => MAIN,
    }
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Fact::HistoryWithdrawn(withdrawn) = fact {
        return withdraw(withdrawn, batch);
    }
    let Some(effect) = events::effect(at, fact, batch)? else { return Ok(()) };
    if let Some((event, head)) = effect.redacted(batch)? {
        uncount(event, &head, batch)?;
    }
    let Effect { event, ref head, .. } = effect;
    match head.shown_at().filter(|position| position.is_live()) {
        Some(_) if !effect.appears() || head.redacted_by.is_some() => Ok(()),
        Some(_) if head.event_type == "m.room.member" => leave(head, batch),
        Some(position) => count(event, head, position, batch),
        None => Ok(()),
    }
}

/// What is withdrawn counts no more; in a room that goes, there is nothing left that it could count in.
fn withdraw(fact: &HistoryWithdrawn, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let with_room = events::detached(batch, &fact.room)?.is_some();
    for id in &fact.events {
        let Some((event, head)) = events::find(batch, id)? else { continue };
        if with_room {
            batch.delete(COUNTED, event.to_bytes());
        } else {
            uncount(event, &head, batch)?;
        }
    }
    Ok(())
}

/// Forgets a room, but for what its events have put there: that goes with them.
pub(crate) fn purge(room: Nid, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    for table in [TOTALS, HEADS, MENTIONS, REDACTED, OWN, THREADS, LAST_MENTION, LAST_THREAD] {
        sweep.prefix(table, room.to_bytes())?;
    }
    Ok(())
}

/// A user of this server who is not in the room has nothing unread there.
fn leave(event: &Event, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(user) = event.state_key.as_deref() else { return Ok(()) };
    if is_local(batch, user)? && !is_member(batch, event.room, user)? {
        for table in [MENTIONS, LAST_MENTION, OWN] {
            batch.delete_prefix(table, KeyBuf::new().nid(event.room).str(user));
        }
    }
    Ok(())
}

fn is_local(read: &dyn Read, user: &str) -> Result<bool, StoreError> {
    Ok(membership::server_of(user) == membership::server(read)?)
}

fn is_member(read: &dyn Read, room: Nid, user: &str) -> Result<bool, StoreError> {
    Ok(membership::member(read, room, user)?.is_some_and(|member| member.membership == Membership::Join))
}

fn count(event: Nid, head: &Event, position: Position, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let room = head.room;
    let Some(text) = events::client(batch, event)? else { return Ok(()) };
    let Some(flat) = rules::flatten(&text) else { return Ok(()) };
    let rules::Sorted { class, mentions } = rules::sort(batch, room, head, &flat)?;
    let lane = lane_of(&flat);
    let own = class.is_some_and(|class| class != Class::Edit) && is_local(batch, &head.sender)?;
    if own {
        batch.put(OWN, user_key(room, &head.sender, lane), &position);
    }
    let mentioned = if mentions { mentioned(room, head, &flat, batch)? } else { BTreeSet::new() };
    if class.is_none() && mentioned.is_empty() {
        return Ok(());
    }
    let key = lane_key(room, lane);
    let mut of_lane: Head = row(batch, HEADS, &key)?.unwrap_or_default();
    let last = std::mem::replace(&mut of_lane.last, position);
    if position <= last {
        // It was let in late, among what was counted before.
        return Ok(());
    }
    if let Some(class) = class {
        of_lane.totals += class;
    }
    batch.put(TOTALS, place(key.clone(), position), &of_lane.totals);
    batch.put(HEADS, key, &of_lane);
    if lane != MAIN {
        batch.delete(THREADS, place(KeyBuf::new().nid(room), last).str(lane));
        batch.put(THREADS, place(KeyBuf::new().nid(room), position).str(lane), &());
        let latest: Position = row(batch, LAST_THREAD, room.to_bytes())?.unwrap_or_default();
        batch.put(LAST_THREAD, room.to_bytes(), &latest.max(position));
    }
    for user in &mentioned {
        batch.put(MENTIONS, place(user_key(room, user, lane), position), &class);
        batch.put(LAST_MENTION, user_key(room, user, lane), &position);
    }
    batch.put(COUNTED, event.to_bytes(), &Counted { lane: lane.to_owned(), class, mentioned });
    Ok(())
}

/// Members of this server whom an event mentions, but for its sender.
fn mentioned(room: Nid, head: &Event, flat: &FlattenedJson, batch: &Batch<'_>) -> Result<BTreeSet<String>, FoldError> {
    let mut mentioned = BTreeSet::new();
    for user in rules::mentioned_users(flat).take(MAX_MENTIONS) {
        if user != head.sender && is_local(batch, user)? && is_member(batch, room, user)? {
            mentioned.insert(user.to_owned());
        }
    }
    Ok(mentioned)
}

/// An event that was just redacted counts no more.
fn uncount(event: Nid, head: &Event, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(Counted { lane, class, mentioned }) = row(batch, COUNTED, event.to_bytes())? else { return Ok(()) };
    let Some(position) = head.shown_at() else { return Ok(()) };
    if let Some(class) = class {
        let key = lane_key(head.room, &lane);
        let mut of_lane: Head = row(batch, HEADS, &key)?.unwrap_or_default();
        of_lane.redacted = position.max(of_lane.redacted);
        batch.put(REDACTED, place(key.clone(), position), &class);
        batch.put(HEADS, key, &of_lane);
    }
    for user in mentioned {
        batch.delete(MENTIONS, place(user_key(head.room, &user, &lane), position));
    }
    batch.delete(COUNTED, event.to_bytes());
    Ok(())
}

#[cfg(test)]
mod tests;
