//! What administrators ask for who look for spam: how many people this server's users have invited, and how many rooms they
//! have joined, since when.
//!
//! How many invitations has this user sent since then? How many rooms have they joined since then, left or not?
//!
//! Tables: 1 `user | log time | fact -> number of invitations so far`; 2 `user | log time | room -> ()`, of each room the
//! last join; 3 `user | room -> log time` of it; 4 `room | user -> ()`, whoever joined.

use schemas::{Fact, Nid};

use super::{
    events,
    membership::{self, Membership, server_of},
};
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    purge::Sweep,
    read::{Range, Read, Table, malformed_key, row, rows},
};

const INVITATIONS: Table = Table { model: Model::Activity, prefix: 1 };
const JOINS: Table = Table { model: Model::Activity, prefix: 2 };
const LAST_JOINS: Table = Table { model: Model::Activity, prefix: 3 };
const JOINED: Table = Table { model: Model::Activity, prefix: 4 };

/// This model's fold.
pub const PROJECTION: Projection =
    Projection { model: Model::Activity, version: 2, reads: &[Model::Staging, Model::Events, Model::Membership], fold };

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(effect) = events::state_effect(at, fact, batch)? else { return Ok(()) };
    let server = membership::server(batch)?;
    let (sender, room) = (&effect.head.sender, effect.head.room);
    let invites = effect.appears() && effect.head.membership == Some(Membership::Invite);
    if invites && server_of(sender) == server {
        let count = last(batch, sender, u64::MAX)? + 1;
        batch.put(INVITATIONS, KeyBuf::new().str(sender).u64(at.log_time.ms).nid(at.nid()), &count);
    }
    for change in effect.current.iter().filter(|change| change.event_type == "m.room.member") {
        let user = &change.state_key;
        let member = membership::member(batch, room, user)?;
        let joins = member.is_some_and(|m| m.membership == Membership::Join && m.since == at.nid());
        if joins && server_of(user) == server {
            join(user, room, at.log_time.ms, batch)?;
        }
    }
    Ok(())
}

fn join(user: &str, room: Nid, at_ms: u64, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let key = KeyBuf::new().str(user).nid(room);
    if let Some(before) = row::<u64>(batch, LAST_JOINS, &key)? {
        batch.delete(JOINS, KeyBuf::new().str(user).u64(before).nid(room));
    }
    batch.put(LAST_JOINS, key, &at_ms);
    batch.put(JOINED, KeyBuf::new().nid(room).str(user), &());
    batch.put(JOINS, KeyBuf::new().str(user).u64(at_ms).nid(room), &());
    Ok(())
}

/// Forgets a room, and that people have joined it.
pub(crate) fn purge(room: Nid, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    for (key, _) in sweep.rows(JOINED, room.to_bytes())? {
        if sweep.is_full() {
            break;
        }
        let user = KeyReader::new(&key[Nid::LEN..]).str().ok_or_else(|| malformed_key(JOINED))?;
        let last = KeyBuf::new().str(&user).nid(room);
        if let Some(at_ms) = row::<u64>(sweep.batch, LAST_JOINS, &last)? {
            sweep.delete(JOINS, KeyBuf::new().str(&user).u64(at_ms).nid(room))?;
            sweep.delete(LAST_JOINS, last)?;
        }
        sweep.delete(JOINED, key)?;
    }
    Ok(())
}

/// How many invitations a user had sent before a time.
fn last(read: &dyn Read, user: &str, before_ms: u64) -> Result<u64, StoreError> {
    let (prefix, to) = (Vec::from(KeyBuf::new().str(user)), KeyBuf::new().u64(before_ms));
    let before = Range::prefix_until(&prefix, to.as_ref()).rev();
    Ok(rows(read, INVITATIONS, before).next().transpose()?.map_or(0, |(_, count)| count))
}

/// How many invitations a user of this server has sent since a log time (inclusive), milliseconds since the Unix epoch.
///
/// # Errors
/// When the store fails.
pub fn invitations(read: &dyn Read, user: &str, since_ms: u64) -> Result<u64, StoreError> {
    Ok(last(read, user, u64::MAX)? - last(read, user, since_ms)?)
}

/// How many rooms a user of this server has joined since a log time (inclusive), whether or not they are still there. It
/// costs what they are.
///
/// # Errors
/// When the store fails.
pub fn joined_rooms(read: &dyn Read, user: &str, since_ms: u64) -> Result<u64, StoreError> {
    let since = Range::prefix_from(KeyBuf::new().str(user).as_ref(), KeyBuf::new().u64(since_ms).as_ref());
    let mut count = 0;
    for row in read.scan(JOINS, since) {
        row?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, BOB, World, rooms::Room};

    #[test]
    fn invitations_and_joins_are_counted_from_a_time_on() {
        let mut world = World::new();
        let mut room = Room::created(&mut world, "!r:example.org", ALICE);
        let begin = world.log_time().ms;
        assert_eq!(joined_rooms(&world.view(), ALICE, 0).unwrap(), 1);
        assert_eq!(joined_rooms(&world.view(), ALICE, begin + 1).unwrap(), 0);
        let invite = |id: &str, room: &mut Room| room.member(id, BOB, "invite");
        let join = |id: &str, room: &mut Room| room.member(id, BOB, "join");
        world.fold(join("$1", &mut room));
        let first = world.log_time().ms;
        world.fold(room.member("$2", BOB, "leave"));
        world.fold(join("$3", &mut room));
        assert_eq!(joined_rooms(&world.view(), BOB, first).unwrap(), 1, "of a room the last join counts");
        assert_eq!(joined_rooms(&world.view(), BOB, world.log_time().ms + 1).unwrap(), 0);

        // It is the sender who invites: the tests' members send their own memberships.
        world.fold(room.member("$4", BOB, "leave"));
        world.fold(invite("$5", &mut room));
        let at = world.log_time().ms;
        world.fold(invite("$6", &mut room));
        let sent = |since| invitations(&world.view(), BOB, since).unwrap();
        assert_eq!([sent(0), sent(at), sent(at + 1), sent(u64::MAX)], [2, 2, 1, 0]);
        assert_eq!(invitations(&world.view(), ALICE, 0).unwrap(), 0);
        world.check_replay();
    }
}
