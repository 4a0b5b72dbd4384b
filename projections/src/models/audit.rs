//! Who did what to whom, when and why: one row a record, found by position, by who did it, by whom or what it was done to, by
//! room and by what was done. Void records are among them.
//!
//! Tables: 1 `lsn -> Entry`; 2 `user | lsn -> ()`; 3 `key of the room's state | lsn -> ()`; 4 `target | lsn -> ()`; 5
//! `fact's number | lsn -> ()`, for facts that are not written all the time; 6 `lsn -> ()`, what administrators did.

mod search;

use std::collections::BTreeSet;

use schemas::{Fact, Header, Key, Lsn, Origin, RecordId, Tag, admission::Void, facts::StateChange};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use search::{Page, Wanted, at_time, page};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, row},
};

const ENTRIES: Table = Table { model: Model::Audit, prefix: 1 };
const BY_USER: Table = Table { model: Model::Audit, prefix: 2 };
const BY_ROOM: Table = Table { model: Model::Audit, prefix: 3 };
const BY_TARGET: Table = Table { model: Model::Audit, prefix: 4 };
const BY_FACT: Table = Table { model: Model::Audit, prefix: 5 };
const BY_ADMINISTRATORS: Table = Table { model: Model::Audit, prefix: 6 };

/// Facts that are written all the time, by number: who looks for one of them looks through the trail.
const FREQUENT: [u16; 10] = [10, 11, 12, 13, 17, 62, 63, 90, 100, 101];

/// So many targets of a record are noted, and so many bytes of each.
const MAX_TARGETS: usize = 1_000;
const MAX_TARGET_BYTES: usize = 255;

/// The fold itself is [`fold_record`], which the projector calls once for each record, void or not.
pub const PROJECTION: Projection = Projection { model: Model::Audit, version: 3, reads: &[], fold: nothing };

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
    /// To whom or what: users, rooms, aliases, registration tokens, events.
    pub targets: Vec<String>,
    /// The words of whoever did it.
    pub reason: Option<String>,
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
        targets: targets(&at.header.origin, facts),
        reason: reason(facts),
        void,
    };
    batch.put(ENTRIES, at.lsn.to_bytes(), &entry);
    if let Some(user) = user(&at.header.origin) {
        batch.put(BY_USER, KeyBuf::new().str(user).lsn(at.lsn), &());
    }
    for target in &entry.targets {
        batch.put(BY_TARGET, KeyBuf::new().str(target).lsn(at.lsn), &());
    }
    for number in entry.facts.iter().filter(|number| !FREQUENT.contains(number)) {
        batch.put(BY_FACT, KeyBuf::new().raw(&number.to_be_bytes()).lsn(at.lsn), &());
    }
    if matches!(at.header.origin, Origin::Admin { .. }) {
        batch.put(BY_ADMINISTRATORS, at.lsn.to_bytes(), &());
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

/// To whom or what a record does something, besides whoever caused it.
fn targets(origin: &Origin, facts: &[Fact]) -> Vec<String> {
    let by_administrator = matches!(origin, Origin::Admin { .. });
    let mut targets = BTreeSet::new();
    for fact in facts {
        match fact {
            Fact::EventPlaced(f) => targets.extend(members(&f.current)),
            Fact::EventRestated(f) => targets.extend(members(&f.current)),
            Fact::EventReported(f) => targets.extend([f.sender.clone(), f.room.clone(), f.event.clone()]),
            Fact::RoomReported(f) => targets.extend([f.room.clone()]),
            Fact::UserReported(f) => targets.extend([f.target.clone()]),
            fact if by_administrator && !FREQUENT.contains(&fact.number()) => targets.extend(subjects(fact)),
            _ => {}
        }
    }
    let other = |target: &String| target.len() <= MAX_TARGET_BYTES && user(origin) != Some(target);
    targets.into_iter().filter(other).take(MAX_TARGETS).collect()
}

/// The users whose memberships a change of state is about.
fn members(current: &[StateChange]) -> impl Iterator<Item = String> {
    current.iter().filter(|change| change.event_type == "m.room.member").map(|change| change.state_key.clone())
}

/// What a fact names, by the names that facts give to what they are about.
fn subjects(fact: &Fact) -> Vec<String> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(fact) else { return Vec::new() };
    let named = ["user", "target", "room", "alias", "token", "event"].map(|name| fields.remove(name));
    named.into_iter().flatten().filter_map(|value| value.as_str().map(ToOwned::to_owned)).collect()
}

/// The words of whoever caused a record, as the first of its facts with some has them.
fn reason(facts: &[Fact]) -> Option<String> {
    facts.iter().find_map(|fact| match fact {
        Fact::RoomBlocked(f) => f.reason.clone(),
        Fact::EventReported(f) => f.reason.clone(),
        Fact::RoomReported(f) => Some(f.reason.clone()),
        Fact::UserReported(f) => Some(f.reason.clone()),
        _ => None,
    })
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
        Fact::ExtremitiesRemoved(f) => Some(&f.room),
        Fact::AccountDataSet(f) => f.room.as_ref(),
        Fact::TagSet(f) => Some(&f.room),
        Fact::ReceiptSet(f) => Some(&f.room),
        Fact::AliasSet(f) => Some(&f.room),
        Fact::RoomDetached(f) => Some(&f.room),
        Fact::RoomPurged(f) => Some(&f.room),
        Fact::HistoryWithdrawn(f) => Some(&f.room),
        Fact::JobStarted(f) => f.resource.as_ref().filter(|resource| resource.starts_with('!')),
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
