//! Users' account data, global and by room, with tags, and their filters.
//!
//! What is this user's account data of this type? What of it changed after a position? What does this filter say?
//!
//! Tables: 1 `user | room | type -> Entry`, where the room is empty for what is global; 2 `user | lsn | room | type -> ()`,
//! the last change of each entry; 3 `user | filter id -> JSON`; 4 `room | user -> ()`, who has some for a room.
//!
//! Tags are operations that give the content of `m.tag`.

use schemas::{Fact, Json, Lsn, facts::TagSet};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    purge::Sweep,
    read::{Range, Read, Table, decode, malformed_key, row, rows},
};

const ENTRIES: Table = Table { model: Model::AccountData, prefix: 1 };
const CHANGES: Table = Table { model: Model::AccountData, prefix: 2 };
const FILTERS: Table = Table { model: Model::AccountData, prefix: 3 };
const OF_ROOMS: Table = Table { model: Model::AccountData, prefix: 4 };

/// The type under which a room's tags stand.
pub const TAGS: &str = "m.tag";

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::AccountData, version: 2, reads: &[], fold };

#[derive(Serialize, Deserialize)]
struct Entry {
    changed: Lsn,
    content: Json,
}

/// One piece of account data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountData {
    /// Room id; none is global.
    pub room: Option<String>,
    /// Event type.
    pub event_type: String,
    /// Content, an object.
    pub content: Json,
}

fn key(user: &str, room: Option<&str>, event_type: &str) -> KeyBuf {
    KeyBuf::new().str(user).str(room.unwrap_or_default()).str(event_type)
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::AccountDataSet(f) => set(at, &f.user, f.room.as_deref(), &f.event_type, f.content.clone(), batch)?,
        Fact::TagSet(f) => tag(at, f, batch)?,
        Fact::FilterStored(f) => batch.put(FILTERS, KeyBuf::new().str(&f.user).str(&f.id), &f.filter),
        Fact::AccountDeactivated(f) => {
            for table in [ENTRIES, CHANGES, FILTERS] {
                batch.delete_prefix(table, KeyBuf::new().str(&f.user));
            }
        }
        _ => {}
    }
    Ok(())
}

fn set(
    at: &At<'_>,
    user: &str,
    room: Option<&str>,
    event_type: &str,
    content: Json,
    batch: &mut Batch<'_>,
) -> Result<(), FoldError> {
    let change = |lsn| KeyBuf::new().str(user).lsn(lsn).str(room.unwrap_or_default()).str(event_type);
    if let Some(before) = row::<Entry>(batch, ENTRIES, key(user, room, event_type))? {
        batch.delete(CHANGES, change(before.changed));
    }
    if let Some(room) = room {
        batch.put(OF_ROOMS, KeyBuf::new().str(room).str(user), &());
    }
    batch.put(CHANGES, change(at.lsn), &());
    batch.put(ENTRIES, key(user, room, event_type), &Entry { changed: at.lsn, content });
    batch.touch_user(user);
    Ok(())
}

/// Forgets what users have for a room.
pub(crate) fn purge(room: &str, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    let prefix = Vec::from(KeyBuf::new().str(room));
    for (key, _) in sweep.rows(OF_ROOMS, prefix.clone())? {
        if sweep.is_full() {
            break;
        }
        let user = KeyReader::new(&key[prefix.len()..]).str().ok_or_else(|| malformed_key(OF_ROOMS))?;
        for (entry, value) in sweep.rows(ENTRIES, KeyBuf::new().str(&user).str(room))? {
            if sweep.is_full() {
                break;
            }
            let changed = decode::<Entry>(ENTRIES, &value)?.changed;
            let mut parts = KeyReader::new(&entry);
            let event_type = parts.str().and_then(|_| parts.str()).and_then(|_| parts.str());
            let event_type = event_type.ok_or_else(|| malformed_key(ENTRIES))?;
            sweep.delete(CHANGES, KeyBuf::new().str(&user).lsn(changed).str(room).str(&event_type))?;
            sweep.delete(ENTRIES, entry)?;
        }
        if sweep.is_full() {
            // The user may have more.
            return Ok(());
        }
        sweep.delete(OF_ROOMS, key)?;
    }
    Ok(())
}

fn tag(at: &At<'_>, fact: &TagSet, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let before = get(batch, &fact.user, Some(&fact.room), TAGS)?;
    let mut content: Map<String, Value> = before.and_then(|content| content.read().ok()).unwrap_or_default();
    let mut tags = match content.remove("tags") {
        Some(Value::Object(tags)) => tags,
        _ => Map::new(),
    };
    match &fact.content {
        Some(tag) => {
            tags.insert(fact.tag.clone(), tag.read().unwrap_or_else(|_| Map::new().into()));
        }
        None if tags.remove(&fact.tag).is_none() => return Ok(()),
        None => {}
    }
    content.insert("tags".into(), tags.into());
    set(at, &fact.user, Some(&fact.room), TAGS, Value::Object(content).to_string().into(), batch)
}

/// Account data of one type, global or of a room.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, user: &str, room: Option<&str>, event_type: &str) -> Result<Option<Json>, StoreError> {
    Ok(row::<Entry>(read, ENTRIES, key(user, room, event_type))?.map(|entry| entry.content))
}

/// All account data of a user that is global, or all for one room, in the order of the types.
///
/// # Errors
/// When the store fails.
pub fn all(read: &dyn Read, user: &str, room: Option<&str>) -> Result<Vec<AccountData>, StoreError> {
    under(read, KeyBuf::new().str(user).str(room.unwrap_or_default())).collect()
}

/// All account data of a user: what is global first, then room by room, in the order of the types.
pub fn everything<'a>(
    read: &'a dyn Read,
    user: &str,
) -> impl Iterator<Item = Result<AccountData, StoreError>> + use<'a> {
    under(read, KeyBuf::new().str(user))
}

fn under(read: &dyn Read, prefix: KeyBuf) -> impl Iterator<Item = Result<AccountData, StoreError>> + '_ {
    rows::<Entry>(read, ENTRIES, Range::prefix(prefix)).map(|row| {
        let (key, entry) = row?;
        let mut key = KeyReader::new(&key);
        let names = key.str().and_then(|_| key.str()).zip(key.str());
        let (room, event_type) = names.ok_or_else(|| malformed_key(ENTRIES))?;
        Ok(AccountData { room: Some(room).filter(|room| !room.is_empty()), event_type, content: entry.content })
    })
}

/// What of a user's account data changed after a position, as it is now; in the order of the changes.
///
/// # Errors
/// When the store fails.
pub fn changed_after(read: &dyn Read, user: &str, after: Lsn) -> Result<Vec<AccountData>, StoreError> {
    let prefix = Vec::from(KeyBuf::new().str(user));
    let mut changed = Vec::new();
    for row in read.scan(CHANGES, Range::prefix_from(&prefix, KeyBuf::new().lsn(after).u8(0xff).as_ref())) {
        let (key, _) = row?;
        let mut key = KeyReader::new(&key[prefix.len()..]);
        let names = key.lsn().and_then(|_| key.str()).zip(key.str());
        let (room, event_type) = names.ok_or_else(|| malformed_key(CHANGES))?;
        let room = Some(room).filter(|room| !room.is_empty());
        if let Some(content) = get(read, user, room.as_deref(), &event_type)? {
            changed.push(AccountData { room, event_type, content });
        }
    }
    Ok(changed)
}

/// A filter by its id.
///
/// # Errors
/// When the store fails.
pub fn filter(read: &dyn Read, user: &str, id: &str) -> Result<Option<Json>, StoreError> {
    row(read, FILTERS, KeyBuf::new().str(user).str(id))
}

#[cfg(test)]
mod tests {
    use schemas::facts::{AccountDataSet, AccountDeactivated, FilterStored};

    use super::*;
    use crate::testing::World;

    const ALICE: &str = "@alice:example.org";
    const ROOM: &str = "!room:example.org";

    fn set(room: Option<&str>, event_type: &str, content: &str) -> Fact {
        AccountDataSet {
            user: ALICE.into(),
            room: room.map(Into::into),
            event_type: event_type.into(),
            content: content.to_owned().into(),
        }
        .into()
    }

    fn tagged(tag: &str, content: Option<&str>) -> Fact {
        let content = content.map(|text| text.to_owned().into());
        TagSet { user: ALICE.into(), room: ROOM.into(), tag: tag.into(), content }.into()
    }

    /// What changed, a line each.
    fn changed(world: &World, after: Lsn) -> Vec<String> {
        let line = |data: AccountData| {
            format!("{} {} {:?}", data.room.as_deref().unwrap_or("-"), data.event_type, data.content)
        };
        changed_after(&world.view(), ALICE, after).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn the_last_content_wins_and_shows_up_as_one_change() {
        let mut world = World::new();
        let start = world.apply([set(None, "a", r#"{"n":1}"#), set(Some(ROOM), "a", r#"{"n":2}"#)]);
        assert_eq!(changed(&world, Lsn::ZERO), [r#"- a {"n":1}"#, r#"!room:example.org a {"n":2}"#]);
        assert_eq!(changed(&world, start), [""; 0]);
        let applied = world.fold([set(None, "a", r#"{"n":3}"#), set(None, "b", "{}")]);
        assert!(applied.touched.users.contains(ALICE));
        assert_eq!(changed(&world, start), [r#"- a {"n":3}"#, "- b {}"]);
        assert_eq!(changed(&world, Lsn::ZERO).len(), 3);
        let types = |room| all(&world.view(), ALICE, room).unwrap().into_iter().map(|data| data.event_type);
        assert_eq!(types(None).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(types(Some(ROOM)).collect::<Vec<_>>(), ["a"]);
        world.apply([AccountDeactivated { user: ALICE.into(), erase: false }.into()]);
        assert_eq!(changed(&world, Lsn::ZERO), [""; 0]);
        world.check_replay();
    }

    #[test]
    fn tags_are_operations_on_the_content_of_m_tag() {
        let mut world = World::new();
        world.apply([tagged("m.favourite", Some(r#"{"order":0.5}"#)), tagged("u.work", Some("{}"))]);
        let tags = |world: &World| get(&world.view(), ALICE, Some(ROOM), TAGS).unwrap().unwrap();
        assert_eq!(tags(&world).as_str(), r#"{"tags":{"m.favourite":{"order":0.5},"u.work":{}}}"#);
        let lsn = world.apply([tagged("u.work", None)]);
        assert_eq!(tags(&world).as_str(), r#"{"tags":{"m.favourite":{"order":0.5}}}"#);
        world.apply([tagged("u.work", None)]);
        assert_eq!(changed(&world, lsn), [""; 0]);
        world.apply([set(Some(ROOM), TAGS, r#"{"tags":7}"#), tagged("u.home", Some("{}"))]);
        assert_eq!(tags(&world).as_str(), r#"{"tags":{"u.home":{}}}"#);
        world.check_replay();
    }

    #[test]
    fn filters_are_kept_by_user_and_id() {
        let mut world = World::new();
        let stored = FilterStored { user: ALICE.into(), id: "f".into(), filter: "{}".to_owned().into() };
        world.apply([stored.clone().into(), stored.into()]);
        assert_eq!(filter(&world.view(), ALICE, "f").unwrap(), Some("{}".to_owned().into()));
        assert_eq!(filter(&world.view(), "@bob:example.org", "f").unwrap(), None);
    }
}
