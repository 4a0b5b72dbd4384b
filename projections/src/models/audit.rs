//! Who did what, when: one row a record, by position, by user and by room. Void records are among them.
//!
//! Tables: 1 `lsn -> Entry`; 2 `user | lsn -> ()`; 3 `key of the room's state | lsn -> ()`.

use std::collections::BTreeSet;

use schemas::{Fact, Header, Key, Lsn, Origin, RecordId, Tag, admission::Void};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, row},
};

const ENTRIES: Table = Table { model: Model::Audit, prefix: 1 };
const BY_USER: Table = Table { model: Model::Audit, prefix: 2 };
const BY_ROOM: Table = Table { model: Model::Audit, prefix: 3 };

/// The fold itself is [`fold_record`], which the projector calls once for each record, void or not.
pub const PROJECTION: Projection = Projection { model: Model::Audit, version: 2, reads: &[], fold: nothing };

fn nothing(_: &At<'_>, _: &Fact, _: &mut Batch<'_>) -> Result<(), FoldError> {
    Ok(())
}

/// A record in the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Log time, milliseconds since the Unix epoch.
    pub log_time_ms: u64,
    /// The record's id.
    pub id: RecordId,
    /// Who.
    pub origin: Origin,
    /// What: numbers of the facts, each once.
    pub facts: Vec<u16>,
    /// Why it had no effect, if it had none.
    pub void: Option<Void>,
}

pub(crate) fn fold_record(at: &At<'_>, facts: &[Fact], void: Option<Void>, batch: &mut Batch<'_>) {
    let numbers: BTreeSet<u16> = facts.iter().map(Fact::number).collect();
    let entry = Entry {
        log_time_ms: at.log_time.ms,
        id: at.header.id,
        origin: at.header.origin.clone(),
        facts: numbers.into_iter().collect(),
        void,
    };
    batch.put(ENTRIES, at.lsn.to_bytes(), &entry);
    if let Some(user) = user(&at.header.origin) {
        batch.put(BY_USER, KeyBuf::new().str(user).lsn(at.lsn), &());
    }
    for room in rooms(at.header, facts) {
        batch.put(BY_ROOM, KeyBuf::new().raw(&room.0).lsn(at.lsn), &());
    }
}

/// The user who caused a record, if one did.
#[must_use]
pub fn user(origin: &Origin) -> Option<&str> {
    match origin {
        Origin::User { user, .. } | Origin::Admin { user } => Some(user),
        _ => None,
    }
}

/// Whether a record says something about a room: a fact names it, or the decision rested on it. Places and verdicts of
/// events name the event alone.
#[must_use]
pub fn is_about(header: &Header, facts: &[Fact], room: &str) -> bool {
    rooms(header, facts).contains(&Key::new(Tag::RoomState, room))
}

/// The rooms that a record says something about, each as the key of its state.
fn rooms(header: &Header, facts: &[Fact]) -> BTreeSet<Key> {
    let named: BTreeSet<&str> = facts.iter().flat_map(named).collect();
    let named = named.into_iter().map(|room| Key::new(Tag::RoomState, room));
    let guarded = header.reads.iter().map(|read| read.key).chain(header.writes.iter().copied());
    named.chain(guarded.filter(|key| key.0[0] == Tag::RoomState as u8)).collect()
}

/// The rooms that a fact names.
fn named(fact: &Fact) -> Vec<&str> {
    let room = match fact {
        Fact::EventBodies(part) => return part.events.iter().map(|event| event.room.as_str()).collect(),
        Fact::EventLearned(f) => Some(&f.room),
        Fact::RoomForgotten(f) => Some(&f.room),
        Fact::RoomBlocked(f) => Some(&f.room),
        Fact::AccountDataSet(f) => f.room.as_ref(),
        Fact::TagSet(f) => Some(&f.room),
        Fact::ReceiptSet(f) => Some(&f.room),
        Fact::AliasSet(f) => Some(&f.room),
        Fact::RoomPublished(f) => Some(&f.room),
        Fact::EventReported(f) => Some(&f.room),
        Fact::RoomReported(f) => Some(&f.room),
        _ => None,
    };
    room.into_iter().map(String::as_str).collect()
}

/// The record at a position.
///
/// # Errors
/// When the store fails.
pub fn entry(read: &dyn Read, lsn: Lsn) -> Result<Option<Entry>, StoreError> {
    row(read, ENTRIES, lsn.to_bytes())
}

/// Positions of the records that a user caused, from one on.
pub fn of_user<'a>(read: &'a dyn Read, user: &str, from: Lsn) -> impl Iterator<Item = Result<Lsn, StoreError>> + 'a {
    positions(read, BY_USER, KeyBuf::new().str(user), from)
}

/// Positions of the records that say something about a room, from one on.
pub fn of_room<'a>(read: &'a dyn Read, room: &str, from: Lsn) -> impl Iterator<Item = Result<Lsn, StoreError>> + 'a {
    positions(read, BY_ROOM, KeyBuf::new().raw(&Key::new(Tag::RoomState, room).0), from)
}

fn positions(
    read: &dyn Read,
    table: Table,
    prefix: KeyBuf,
    from: Lsn,
) -> impl Iterator<Item = Result<Lsn, StoreError>> + '_ {
    let prefix = Vec::from(prefix);
    let start = prefix.len();
    read.scan(table, Range::prefix_from(&prefix, &from.to_bytes())).map(move |row| {
        let (key, _) = row?;
        let lsn = key[start..].try_into().map(Lsn::from_bytes);
        lsn.map_err(|_| crate::read::malformed_key(table))
    })
}

#[cfg(test)]
mod tests {
    use schemas::{
        Expect, Read as Guard,
        facts::{EventBodies, EventPlaced, EventRestated, Placement, StagedEvents, TagSet, Verdict, Visibility},
    };
    use serde_json::json;

    use super::*;
    use crate::{
        models::staging,
        testing::{ALICE, BOB, ROOM, World, live},
    };

    fn by(user: &str) -> impl FnOnce(&mut Header) {
        let origin = Origin::User { user: user.to_owned(), device: None };
        |header| header.origin = origin
    }

    /// As whatever is decided about a room.
    fn resting_on(room: &str) -> impl FnOnce(&mut Header) {
        let key = Key::new(Tag::RoomState, room);
        move |header| header.reads.push(Guard { key, expect: Expect::Absent })
    }

    fn trail(positions: impl Iterator<Item = Result<Lsn, StoreError>>) -> Vec<Lsn> {
        positions.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn each_record_has_its_entry() {
        let mut world = World::new();
        let [learned, placed] = live("$a:x", &json!({}));
        let said = world.apply_as(by(ALICE), [learned.clone(), learned, placed]);
        let again = world.apply_as(|header| header.id = RecordId(world_id(said)), []);
        let view = world.view();
        let found = entry(&view, said).unwrap().unwrap();
        assert_eq!((user(&found.origin), found.facts, found.void), (Some(ALICE), vec![10, 11], None));
        assert_eq!(found.log_time_ms + 1_000, world.log_time().ms);
        let found = entry(&view, again).unwrap().unwrap();
        assert_eq!((user(&found.origin), found.void), (None, Some(Void::Repeated(said))));
        assert_eq!(entry(&view, again.next()).unwrap(), None);
        world.check_replay();
    }

    fn world_id(lsn: Lsn) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&lsn.to_bytes());
        id
    }

    #[test]
    fn trails_of_users_are_their_own() {
        let mut world = World::new();
        let first = world.apply_as(by(ALICE), []);
        let second = world.apply_as(by(BOB), []);
        let third = world.apply_as(|header| header.origin = Origin::Admin { user: ALICE.into() }, []);
        world.apply_as(by("@alice:example.organised"), []);
        let view = world.view();
        assert_eq!(trail(of_user(&view, ALICE, Lsn::ZERO)), [first, third]);
        assert_eq!(trail(of_user(&view, ALICE, first.next())), [third]);
        assert_eq!(trail(of_user(&view, BOB, Lsn::ZERO)), [second]);
        assert_eq!(trail(of_user(&view, "@alice:example", Lsn::ZERO)), []);
    }

    #[test]
    fn a_rooms_trail_has_what_names_it_and_what_rests_on_it() {
        let mut world = World::new();
        let tag = |room: &str| TagSet { user: ALICE.into(), room: room.into(), tag: "u.a".into(), content: None };
        let tagged = world.apply([tag(ROOM).into()]);
        let elsewhere = world.apply([tag("!other:example.org").into()]);

        let [Fact::EventLearned(learned), Fact::EventPlaced(placed)] = live("$a:x", &json!({})) else { panic!() };
        let part = EventBodies { set: schemas::Blob(vec![1; 16]), n: 0, events: vec![learned] };
        let staged =
            StagedEvents { set: part.set.clone(), count: 1, sha256: staging::checksum(std::slice::from_ref(&part)) };
        let bodies = world.apply([part.into()]);
        let decided = world.apply_as(resting_on(ROOM), [staged.into(), placed.into()]);

        let [learned, Fact::EventPlaced(placed)] = live("$b:x", &json!({})) else { panic!() };
        let outlier = EventPlaced { class: Placement::Outlier, ..placed };
        let kept = world.apply_as(resting_on(ROOM), [learned, outlier.into()]);
        let restated = EventRestated {
            id: "$b:x".into(),
            class: Placement::Live,
            verdict: Verdict::Accepted,
            state_before: None,
            current: Vec::new(),
            visibility: Visibility::Shared,
        };
        let in_place = world.apply_as(resting_on(ROOM), [restated.into()]);
        let view = world.view();
        assert_eq!(trail(of_room(&view, ROOM, Lsn::ZERO)), [tagged, bodies, decided, kept, in_place]);
        assert_eq!(trail(of_room(&view, ROOM, kept)), [kept, in_place]);
        assert_eq!(trail(of_room(&view, "!other:example.org", Lsn::ZERO)), [elsewhere]);
        world.check_replay();
    }
}
