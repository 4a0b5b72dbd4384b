//! Who is in which room, both ways, as the rooms' current states have it.
//!
//! In which rooms is this user, and how? Who is in this room, in which order did they come, how many are they, of which
//! servers? What changed for this user since this Lsn? Which is this server, and who is local?
//!
//! Tables: 1 `room | user -> Member`; 2 `user | membership | room -> Member`, rooms that the user has not forgotten;
//! 3 `room | membership | since | user -> ()`, members in the order of their coming; 4 `room -> Counts`; 5 `room | server
//! -> number of joined users`; 6 `room | user -> ()`, joined users of this server; 7 `user | lsn | room -> Change`, for users
//! of this server; 8 `-> name of this server`; 9 `room | lsn | user -> ()`, where table 7 has a room's; 10
//! `user | lsn -> Departure`, rooms that an administrator took away.
//!
//! A message changes nothing here, and no change costs more in a larger room.

#[cfg(test)]
mod tests;

use schemas::{
    Fact, Lsn, Nid, Origin,
    facts::{RoomForgotten, StateChange},
};
use serde::{Deserialize, Serialize};

use super::events;
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    purge::Sweep,
    read::{Range, Read, Table, decode, malformed_key, row, rows},
};

const MEMBERS: Table = Table { model: Model::Membership, prefix: 1 };
const ROOMS: Table = Table { model: Model::Membership, prefix: 2 };
const ORDER: Table = Table { model: Model::Membership, prefix: 3 };
const COUNTS: Table = Table { model: Model::Membership, prefix: 4 };
const SERVERS: Table = Table { model: Model::Membership, prefix: 5 };
const LOCAL: Table = Table { model: Model::Membership, prefix: 6 };
const CHANGES: Table = Table { model: Model::Membership, prefix: 7 };
const SERVER: Table = Table { model: Model::Membership, prefix: 8 };
const CHANGES_IN: Table = Table { model: Model::Membership, prefix: 9 };
const DEPARTURES: Table = Table { model: Model::Membership, prefix: 10 };

/// So long it is told from which rooms somebody was brought out, by log time.
const DEPARTURES_TOLD_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// At most so many of a user's that are over are forgotten with each new one.
const FORGET: usize = 2;

/// This model's fold.
pub const PROJECTION: Projection =
    Projection { model: Model::Membership, version: 2, reads: &[Model::Staging, Model::Events], fold };

/// What a user is to a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Membership {
    /// In it.
    Join,
    /// Invited.
    Invite,
    /// Asking to be let in.
    Knock,
    /// Not in it any more, or never was but turned away or withdrawn.
    Leave,
    /// Banned.
    Ban,
}

impl Membership {
    const ALL: [Self; 5] = [Self::Join, Self::Invite, Self::Knock, Self::Leave, Self::Ban];

    /// As in the content of `m.room.member`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Knock => "knock",
            Self::Leave => "leave",
            Self::Ban => "ban",
        }
    }

    /// The membership with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|membership| membership.name() == name)
    }

    /// Neither in the room nor on the way in: the room can be forgotten.
    #[must_use]
    pub const fn is_out(self) -> bool {
        matches!(self, Self::Leave | Self::Ban)
    }
}

/// A user's membership of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// What it is.
    pub membership: Membership,
    /// The `m.room.member` event in the current state.
    pub event: Nid,
    /// The fact by which the membership became what it is: changes of profile leave it.
    pub since: Nid,
    /// What it was before.
    pub previous: Option<Membership>,
    /// The user left and has forgotten the room.
    pub forgotten: bool,
}

/// How many members a room has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// In it.
    pub joined: u64,
    /// In it, of this server.
    pub joined_local: u64,
    /// Invited.
    pub invited: u64,
    /// Asking to be let in.
    pub knocked: u64,
    /// Left.
    pub left: u64,
    /// Banned.
    pub banned: u64,
    /// Users of this server who have anything to do with the room and have not forgotten it.
    pub remembered: u64,
}

impl Counts {
    fn change(&mut self, member: &Member, local: bool, by: i64) {
        let count = match member.membership {
            Membership::Join => &mut self.joined,
            Membership::Invite => &mut self.invited,
            Membership::Knock => &mut self.knocked,
            Membership::Leave => &mut self.left,
            Membership::Ban => &mut self.banned,
        };
        *count = count.saturating_add_signed(by);
        if local && member.membership == Membership::Join {
            self.joined_local = self.joined_local.saturating_add_signed(by);
        }
        if local && !member.forgotten {
            self.remembered = self.remembered.saturating_add_signed(by);
        }
    }
}

/// How a local user's membership of a room changed with one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it was before the record.
    pub from: Option<Membership>,
    /// What it was after it; none where the state event was removed.
    pub to: Option<Membership>,
    /// The fact that made the change.
    pub by: Nid,
}

/// A room that an administrator took away, to be told to whoever was brought out of it: when it is gone, nothing else says
/// so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Departure {
    room: String,
    at_ms: u64,
}

/// The server part of a user id; all of it where it has none.
#[must_use]
pub fn server_of(user: &str) -> &str {
    user.split_once(':').map_or(user, |(_, server)| server)
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::Genesis(genesis) => batch.put(SERVER, [], &genesis.server_name),
        Fact::RoomForgotten(forgotten) => forget(at, forgotten, batch)?,
        _ => {
            let Some(effect) = events::state_effect(at, fact, batch)? else { return Ok(()) };
            let members: Vec<_> = effect.current.iter().filter(|change| change.event_type == "m.room.member").collect();
            if !members.is_empty() {
                change_members(at, effect.head.room, &members, batch)?;
            }
        }
    }
    Ok(())
}

fn change_members(at: &At<'_>, room: Nid, members: &[&StateChange], batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let server = server(batch)?;
    let mut counts = counts(batch, room)?;
    for change in members {
        let user = change.state_key.as_str();
        let local = server_of(user) == server;
        let old = member(batch, room, user)?;
        let new = member_by(at, change, old.as_ref(), batch)?;
        if old == new {
            continue;
        }
        if let Some(old) = &old {
            counts.change(old, local, -1);
        }
        if let Some(new) = &new {
            counts.change(new, local, 1);
        }
        index(room, user, old.as_ref(), new.as_ref(), batch);
        let (from, to) = (old.map(|old| old.membership), new.map(|new| new.membership));
        if from != to {
            count_server(room, user, from, to, batch)?;
            if local {
                note_change(at, room, user, from, to, batch)?;
            }
        }
        batch.touch_user(user);
    }
    batch.put(COUNTS, room.to_bytes(), &counts);
    Ok(())
}

/// A user's membership after a change.
fn member_by(
    at: &At<'_>,
    change: &StateChange,
    old: Option<&Member>,
    batch: &Batch<'_>,
) -> Result<Option<Member>, StoreError> {
    let Some(id) = &change.event else { return Ok(None) };
    let Some((event, head)) = events::find(batch, id)? else { return Ok(None) };
    Ok(head.membership.map(|membership| match old {
        Some(old) if old.membership == membership => Member { event, ..*old },
        _ => Member { membership, event, since: at.nid(), previous: old.map(|old| old.membership), forgotten: false },
    }))
}

/// Keeps the tables that only repeat what [`MEMBERS`] has in another order.
fn index(room: Nid, user: &str, old: Option<&Member>, new: Option<&Member>, batch: &mut Batch<'_>) {
    let place = |member: &Member| (member.membership, member.since);
    if old.map(place) != new.map(place) {
        if let Some(old) = old {
            batch.delete(ORDER, order_key(room, user, old));
            batch.delete(ROOMS, room_key(user, old.membership, room));
        }
        if let Some(new) = new {
            batch.put(ORDER, order_key(room, user, new), &());
        }
    }
    match new {
        Some(new) => {
            batch.put(MEMBERS, member_key(room, user), new);
            if new.forgotten {
                batch.delete(ROOMS, room_key(user, new.membership, room));
            } else {
                batch.put(ROOMS, room_key(user, new.membership, room), new);
            }
        }
        None => batch.delete(MEMBERS, member_key(room, user)),
    }
}

/// Counts a server's joined users, and lists the local ones.
fn count_server(
    room: Nid,
    user: &str,
    from: Option<Membership>,
    to: Option<Membership>,
    batch: &mut Batch<'_>,
) -> Result<(), StoreError> {
    let by = i64::from(to == Some(Membership::Join)) - i64::from(from == Some(Membership::Join));
    if by == 0 {
        return Ok(());
    }
    let of = server_of(user);
    let key = KeyBuf::new().nid(room).str(of);
    let count = row::<u64>(batch, SERVERS, &key)?.unwrap_or_default().saturating_add_signed(by);
    match count {
        0 => batch.delete(SERVERS, key),
        count => batch.put(SERVERS, key, &count),
    }
    if of == server(batch)? {
        match by {
            1.. => batch.put(LOCAL, member_key(room, user), &()),
            _ => batch.delete(LOCAL, member_key(room, user)),
        }
    }
    Ok(())
}

fn note_change(
    at: &At<'_>,
    room: Nid,
    user: &str,
    from: Option<Membership>,
    to: Option<Membership>,
    batch: &mut Batch<'_>,
) -> Result<(), StoreError> {
    let key = change_key(user, at.lsn, room);
    let before = row::<Change>(batch, CHANGES, &key)?.map_or(from, |earlier| earlier.from);
    batch.put(CHANGES, key, &Change { from: before, to, by: at.nid() });
    batch.put(CHANGES_IN, KeyBuf::new().nid(room).lsn(at.lsn).str(user), &());
    Ok(())
}

/// Forgets a room.
pub(crate) fn purge(room: Nid, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    for (key, _) in sweep.rows(CHANGES_IN, room.to_bytes())? {
        if sweep.is_full() {
            break;
        }
        let mut parts = KeyReader::new(&key[Nid::LEN..]);
        let (lsn, user) = parts.lsn().zip(parts.str()).ok_or_else(|| malformed_key(CHANGES_IN))?;
        sweep.delete(CHANGES, change_key(&user, lsn, room))?;
        sweep.delete(CHANGES_IN, key)?;
    }
    for (key, value) in sweep.rows(MEMBERS, room.to_bytes())? {
        if sweep.is_full() {
            break;
        }
        let user = user_at(MEMBERS, &key)?;
        let member: Member = decode(MEMBERS, &value)?;
        sweep.delete(ROOMS, room_key(&user, member.membership, room))?;
        sweep.delete(MEMBERS, key)?;
    }
    for table in [ORDER, COUNTS, SERVERS, LOCAL] {
        sweep.prefix(table, room.to_bytes())?;
    }
    Ok(())
}

fn change_key(user: &str, lsn: Lsn, room: Nid) -> KeyBuf {
    KeyBuf::new().str(user).lsn(lsn).nid(room)
}

fn forget(at: &At<'_>, fact: &RoomForgotten, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(room) = events::room_nid(batch, &fact.room)? else { return Ok(()) };
    let Some(old) = member(batch, room, &fact.user)? else { return Ok(()) };
    if old.forgotten || !old.membership.is_out() {
        return Ok(());
    }
    let new = Member { forgotten: true, ..old };
    let local = server_of(&fact.user) == server(batch)?;
    let mut counts = counts(batch, room)?;
    counts.change(&old, local, -1);
    counts.change(&new, local, 1);
    batch.put(COUNTS, room.to_bytes(), &counts);
    index(room, &fact.user, Some(&old), Some(&new), batch);
    batch.touch_user(&fact.user);
    if local && matches!(at.header.origin, Origin::Admin { .. }) {
        note_departure(at, fact, batch)?;
    }
    Ok(())
}

fn note_departure(at: &At<'_>, fact: &RoomForgotten, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let of_user = Vec::from(KeyBuf::new().str(&fact.user));
    let oldest = rows::<Departure>(batch, DEPARTURES, Range::prefix(of_user.clone())).take(FORGET);
    for (key, departure) in oldest.collect::<Result<Vec<_>, _>>()? {
        if departure.at_ms.saturating_add(DEPARTURES_TOLD_MS) < at.log_time.ms {
            batch.delete(DEPARTURES, key);
        }
    }
    let departure = Departure { room: fact.room.clone(), at_ms: at.log_time.ms };
    batch.put(DEPARTURES, [&*of_user, &at.lsn.to_bytes()].concat(), &departure);
    Ok(())
}

fn member_key(room: Nid, user: &str) -> KeyBuf {
    KeyBuf::new().nid(room).str(user)
}

fn room_key(user: &str, membership: Membership, room: Nid) -> KeyBuf {
    KeyBuf::new().str(user).u8(membership as u8).nid(room)
}

fn order_key(room: Nid, user: &str, member: &Member) -> KeyBuf {
    KeyBuf::new().nid(room).u8(member.membership as u8).nid(member.since).str(user)
}

/// The name of this server, as its log began; empty before that.
///
/// # Errors
/// When the store fails.
pub fn server(read: &dyn Read) -> Result<String, StoreError> {
    Ok(row(read, SERVER, [])?.unwrap_or_default())
}

/// A user's membership of a room.
///
/// # Errors
/// When the store fails.
pub fn member(read: &dyn Read, room: Nid, user: &str) -> Result<Option<Member>, StoreError> {
    row(read, MEMBERS, member_key(room, user))
}

/// How many members a room has.
///
/// # Errors
/// When the store fails.
pub fn counts(read: &dyn Read, room: Nid) -> Result<Counts, StoreError> {
    Ok(row(read, COUNTS, room.to_bytes())?.unwrap_or_default())
}

/// The rooms to which a user stands thus and which they have not forgotten.
pub fn rooms_of<'a>(
    read: &'a dyn Read,
    user: &str,
    membership: Membership,
) -> impl Iterator<Item = Result<(Nid, Member), StoreError>> + 'a {
    let prefix = Vec::from(KeyBuf::new().str(user).u8(membership as u8));
    rooms_in(read, prefix)
}

/// All rooms with which a user has to do and which they have not forgotten.
pub fn all_rooms_of<'a>(
    read: &'a dyn Read,
    user: &str,
) -> impl Iterator<Item = Result<(Nid, Member), StoreError>> + 'a {
    rooms_in(read, KeyBuf::new().str(user).into())
}

fn rooms_in(read: &dyn Read, prefix: Vec<u8>) -> impl Iterator<Item = Result<(Nid, Member), StoreError>> + '_ {
    rows(read, ROOMS, Range::prefix(prefix)).map(|row| {
        let (key, member) = row?;
        let room = key.len().checked_sub(Nid::LEN).and_then(|at| Nid::from_slice(&key[at..]));
        Ok((room.ok_or_else(|| malformed_key(ROOMS))?, member))
    })
}

/// Whether two users are in one room. It costs what the one with fewer rooms has of them.
///
/// # Errors
/// When the store fails.
pub fn share_room(read: &dyn Read, one: &str, other: &str) -> Result<bool, StoreError> {
    let is_in = |user, room: Result<(Nid, Member), StoreError>| -> Result<bool, StoreError> {
        Ok(member(read, room?.0, user)?.is_some_and(|member| member.membership == Membership::Join))
    };
    let of_one = rooms_of(read, one, Membership::Join);
    for (of_one, of_other) in of_one.zip(rooms_of(read, other, Membership::Join)) {
        if is_in(other, of_one)? || is_in(one, of_other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The users who stand thus to a room, in the order in which they came to it: the first of them are its heroes.
pub fn users_in(
    read: &dyn Read,
    room: Nid,
    membership: Membership,
) -> impl Iterator<Item = Result<String, StoreError>> + '_ {
    rows::<()>(read, ORDER, Range::prefix(KeyBuf::new().nid(room).u8(membership as u8)))
        .map(|row| Ok(place(&row?.0)?.2))
}

/// The users who stand to a room in one way or another, way by way from one on in the order of [`Membership`], each in the
/// order in which they came to it; with the fact by which they did.
pub fn users_from(
    read: &dyn Read,
    room: Nid,
    first: Membership,
) -> impl Iterator<Item = Result<(Membership, Nid, String), StoreError>> + '_ {
    rows::<()>(read, ORDER, Range::prefix_from(&room.to_bytes(), &[first as u8])).map(|row| place(&row?.0))
}

/// Those who are in a room or on the way in, in an order of their own, after one of them: with each their place in that
/// order. What comes during the walk is at its end, or among those on the way in.
pub fn in_turn<'a>(
    read: &'a dyn Read,
    room: Nid,
    after: Option<(Membership, Nid, &str)>,
) -> impl Iterator<Item = Result<(Membership, Nid, String), StoreError>> + use<'a> {
    let from = match after {
        // A key with one more byte is the first one after it.
        Some((membership, since, user)) => KeyBuf::new().u8(membership as u8).nid(since).str(user).u8(0),
        None => KeyBuf::new(),
    };
    let to = KeyBuf::new().nid(room).u8(Membership::Leave as u8);
    let range = Range { from: [&room.to_bytes(), from.as_ref()].concat(), to: Some(to.into()), reverse: false };
    rows::<()>(read, ORDER, range).map(|row| place(&row?.0))
}

/// The ids of rooms out of which an administrator brought a user after a record; they may be gone, or joined again.
pub fn departures<'a>(
    read: &'a dyn Read,
    user: &str,
    after: Lsn,
) -> impl Iterator<Item = Result<String, StoreError>> + use<'a> {
    let prefix = Vec::from(KeyBuf::new().str(user));
    let range = Range::prefix_from(&prefix, &after.next().to_bytes());
    rows::<Departure>(read, DEPARTURES, range).map(|row| Ok(row?.1.room))
}

/// What a key of [`ORDER`] says.
fn place(key: &[u8]) -> Result<(Membership, Nid, String), StoreError> {
    let mut parts = KeyReader::new(key);
    let mut read = || {
        let (_, number) = (parts.nid()?, parts.u8()?);
        Some((Membership::ALL.get(usize::from(number)).copied()?, parts.nid()?, parts.str()?))
    };
    read().ok_or_else(|| malformed_key(ORDER))
}

/// All members of a room that the server ever knew, by user id, from one on.
pub fn members_of<'a>(
    read: &'a dyn Read,
    room: Nid,
    from: &str,
) -> impl Iterator<Item = Result<(String, Member), StoreError>> + 'a {
    let from = Vec::from(KeyBuf::new().str(from));
    rows(read, MEMBERS, Range::prefix_from(&room.to_bytes(), &from)).map(|row| {
        let (key, member) = row?;
        Ok((user_at(MEMBERS, &key)?, member))
    })
}

/// The joined users of this server in a room, by user id.
pub fn local_users_in(read: &dyn Read, room: Nid) -> impl Iterator<Item = Result<String, StoreError>> + '_ {
    rows::<()>(read, LOCAL, Range::prefix(room.to_bytes())).map(|row| user_at(LOCAL, &row?.0))
}

/// The servers with joined users in a room and how many each has, by name.
pub fn servers_in(read: &dyn Read, room: Nid) -> impl Iterator<Item = Result<(String, u64), StoreError>> + '_ {
    rows(read, SERVERS, Range::prefix(room.to_bytes())).map(|row| {
        let (key, count) = row?;
        Ok((user_at(SERVERS, &key)?, count))
    })
}

/// Whether a server has a joined user in a room.
///
/// # Errors
/// When the store fails.
pub fn is_server_in(read: &dyn Read, room: Nid, server: &str) -> Result<bool, StoreError> {
    Ok(read.get(SERVERS, KeyBuf::new().nid(room).str(server).as_ref())?.is_some())
}

fn user_at(table: Table, key: &[u8]) -> Result<String, StoreError> {
    let user = key.get(Nid::LEN..).and_then(|user| KeyReader::new(user).str());
    user.ok_or_else(|| malformed_key(table))
}

/// How a local user's memberships changed after a record, in the log's order.
pub fn changes_since<'a>(
    read: &'a dyn Read,
    user: &str,
    lsn: Lsn,
) -> impl Iterator<Item = Result<(Lsn, Nid, Change), StoreError>> + 'a {
    let prefix = Vec::from(KeyBuf::new().str(user));
    let start = prefix.len();
    rows(read, CHANGES, Range::prefix_from(&prefix, &lsn.next().to_bytes())).map(move |row| {
        let (key, change) = row?;
        let mut parts = KeyReader::new(&key[start..]);
        let place = parts.lsn().zip(parts.nid());
        let (lsn, room) = place.ok_or_else(|| malformed_key(CHANGES))?;
        Ok((lsn, room, change))
    })
}
