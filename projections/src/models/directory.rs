//! Where aliases point, and the public list of rooms.
//!
//! Which room has this alias, who made it, and through which servers can the room be joined? Which aliases has this
//! room? Is this room published? Which rooms are, the largest first, and how many?
//!
//! Tables: 1 `alias -> Alias`; 2 `room id | alias -> ()`; 3 `room -> joined members`, the published rooms and under which
//! number each is listed; 4 `joined members, falling | room id -> room`, the list; 5 `-> how many rooms are published`.
//!
//! An alias may point to a room of which this server knows nothing else; what is published it must know. A message changes
//! nothing here, and a membership rewrites a published room's one key in the list, if its number changes.

use schemas::{
    Fact, Nid,
    facts::{AliasRemoved, AliasSet, RoomPublished},
};
use serde::{Deserialize, Serialize};

use super::{events, membership};
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const ALIASES: Table = Table { model: Model::Directory, prefix: 1 };
const OF_ROOMS: Table = Table { model: Model::Directory, prefix: 2 };
const PUBLISHED: Table = Table { model: Model::Directory, prefix: 3 };
const LIST: Table = Table { model: Model::Directory, prefix: 4 };
const TOTAL: Table = Table { model: Model::Directory, prefix: 5 };

/// This model's fold.
pub const PROJECTION: Projection = Projection {
    model: Model::Directory,
    version: 1,
    reads: &[Model::Staging, Model::Events, Model::Membership],
    fold,
};

/// An alias of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// Id of the room to which it points.
    pub room: String,
    /// Who made it.
    pub creator: String,
    /// Servers through which the room can be joined.
    pub servers: Vec<String>,
}

/// A room's place in the public list: it lies just at the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many members are joined.
    pub joined: u64,
    /// Room id.
    pub room: String,
}

impl Place {
    fn key(&self) -> KeyBuf {
        KeyBuf::new().u64(!self.joined).raw(self.room.as_bytes())
    }
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::AliasSet(f) => set_alias(f, batch)?,
        Fact::AliasRemoved(f) => remove_alias(f, batch)?,
        Fact::RoomPublished(f) => publish(f, batch)?,
        Fact::RoomDetached(f) => detach(&f.room, batch)?,
        _ => {
            let Some(effect) = events::state_effect(at, fact, batch)? else { return Ok(()) };
            if effect.current.iter().any(|change| change.event_type == "m.room.member") {
                count_members(effect.head.room, batch)?;
            }
        }
    }
    Ok(())
}

fn alias_key(alias: &str) -> KeyBuf {
    KeyBuf::new().str(alias)
}

fn room_key(room: &str, alias: &str) -> KeyBuf {
    KeyBuf::new().str(room).str(alias)
}

fn set_alias(fact: &AliasSet, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Some(before) = alias(batch, &fact.alias)? {
        batch.delete(OF_ROOMS, room_key(&before.room, &fact.alias));
    }
    let AliasSet { alias, room, creator, servers } = fact.clone();
    batch.put(OF_ROOMS, room_key(&room, &alias), &());
    batch.put(ALIASES, alias_key(&alias), &Alias { room, creator, servers });
    Ok(())
}

fn remove_alias(fact: &AliasRemoved, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Some(before) = alias(batch, &fact.alias)? {
        batch.delete(OF_ROOMS, room_key(&before.room, &fact.alias));
        batch.delete(ALIASES, alias_key(&fact.alias));
    }
    Ok(())
}

fn publish(fact: &RoomPublished, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(room) = events::room_nid(batch, &fact.room)? else { return Ok(()) };
    let listed = listed(batch, room)?;
    if listed.is_some() == fact.published {
        return Ok(());
    }
    let joined = if fact.published { Some(membership::counts(batch, room)?.joined) } else { None };
    relist(room, &fact.room, listed, joined, batch);
    let total = total(batch)?.saturating_add_signed(if fact.published { 1 } else { -1 });
    batch.put(TOTAL, [], &total);
    Ok(())
}

/// A room that is taken away is not listed any more. Its aliases were removed before.
fn detach(id: &str, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(room) = events::detached(batch, id)? else { return Ok(()) };
    if let Some(listed) = listed(batch, room)? {
        relist(room, id, Some(listed), None, batch);
        let total = total(batch)?.saturating_sub(1);
        batch.put(TOTAL, [], &total);
    }
    Ok(())
}

fn count_members(room: Nid, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(listed) = listed(batch, room)? else { return Ok(()) };
    let joined = membership::counts(batch, room)?.joined;
    if joined != listed
        && let Some(head) = events::room(batch, room)?
    {
        relist(room, &head.id, Some(listed), Some(joined), batch);
    }
    Ok(())
}

fn relist(room: Nid, id: &str, from: Option<u64>, to: Option<u64>, batch: &mut Batch<'_>) {
    let key = |joined| Place { joined, room: id.to_owned() }.key();
    if let Some(from) = from {
        batch.delete(LIST, key(from));
    }
    match to {
        Some(to) => {
            batch.put_raw(LIST, key(to), room.to_bytes().to_vec());
            batch.put(PUBLISHED, room.to_bytes(), &to);
        }
        None => batch.delete(PUBLISHED, room.to_bytes()),
    }
}

fn listed(read: &dyn Read, room: Nid) -> Result<Option<u64>, StoreError> {
    row(read, PUBLISHED, room.to_bytes())
}

/// An alias, if it points anywhere.
///
/// # Errors
/// When the store fails.
pub fn alias(read: &dyn Read, alias: &str) -> Result<Option<Alias>, StoreError> {
    row(read, ALIASES, alias_key(alias))
}

/// The aliases of the room with this id, in order.
pub fn aliases_of<'a>(read: &'a dyn Read, room: &str) -> impl Iterator<Item = Result<String, StoreError>> + 'a {
    let prefix = Vec::from(KeyBuf::new().str(room));
    let start = prefix.len();
    rows::<()>(read, OF_ROOMS, Range::prefix(prefix)).map(move |row| {
        let (key, ()) = row?;
        KeyReader::new(&key[start..]).str().ok_or_else(|| malformed_key(OF_ROOMS))
    })
}

/// Whether a room stands in the public list.
///
/// # Errors
/// When the store fails.
pub fn is_published(read: &dyn Read, room: Nid) -> Result<bool, StoreError> {
    Ok(listed(read, room)?.is_some())
}

/// How many rooms stand in the public list.
///
/// # Errors
/// When the store fails.
pub fn total(read: &dyn Read) -> Result<u64, StoreError> {
    Ok(row(read, TOTAL, [])?.unwrap_or_default())
}

/// The public list after a place, or all of it: rooms with more joined members first, equals by room id.
pub fn published<'a>(
    read: &'a dyn Read,
    after: Option<&Place>,
) -> impl Iterator<Item = Result<(Place, Nid), StoreError>> + 'a {
    // A key with one more byte is the first one after it.
    let from = after.map_or_else(Vec::new, |place| place.key().u8(0).into());
    list(read, Range { from, to: None, reverse: false })
}

/// The public list before a place, backward from there.
pub fn published_before<'a>(
    read: &'a dyn Read,
    before: &Place,
) -> impl Iterator<Item = Result<(Place, Nid), StoreError>> + 'a {
    list(read, Range { from: Vec::new(), to: Some(before.key().into()), reverse: true })
}

fn list(read: &dyn Read, range: Range) -> impl Iterator<Item = Result<(Place, Nid), StoreError>> + '_ {
    read.scan(LIST, range).map(|row| {
        let (key, value) = row?;
        let mut parts = KeyReader::new(&key);
        let joined = parts.u64().map(|joined| !joined);
        let room = String::from_utf8(parts.rest().to_vec()).ok();
        let place = joined.zip(room).map(|(joined, room)| Place { joined, room });
        place.zip(Nid::from_slice(&value)).ok_or_else(|| malformed_key(LIST))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ALICE, World, rooms::Room};

    fn set(alias: &str, room: &str) -> Fact {
        let (alias, room) = (alias.into(), room.into());
        AliasSet { alias, room, creator: ALICE.into(), servers: vec!["example.org".into()] }.into()
    }

    fn published(room: &str, published: bool) -> Fact {
        RoomPublished { room: room.into(), published }.into()
    }

    fn aliases(world: &World, room: &str) -> Vec<String> {
        aliases_of(&world.view(), room).collect::<Result<_, _>>().unwrap()
    }

    fn place(joined: u64, room: &str) -> Place {
        Place { joined, room: room.into() }
    }

    fn listed(world: &World) -> Vec<Place> {
        let view = world.view();
        let list: Vec<_> = super::published(&view, None).map(Result::unwrap).collect();
        assert_eq!(total(&view).unwrap(), list.len() as u64);
        for (place, room) in &list {
            assert_eq!(*room, world.room(&place.room));
            assert!(is_published(&view, *room).unwrap());
        }
        list.into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn an_alias_points_to_one_room_at_a_time() {
        let mut world = World::new();
        world.fold([set("#b:example.org", "!1:x"), set("#a:example.org", "!1:x"), set("#c:example.org", "!10:x")]);
        let alias = |world: &World, alias| super::alias(&world.view(), alias).unwrap();
        let found = alias(&world, "#a:example.org").unwrap();
        assert_eq!((found.room.as_str(), found.creator.as_str()), ("!1:x", ALICE));
        assert_eq!(found.servers, ["example.org"]);
        assert_eq!(aliases(&world, "!1:x"), ["#a:example.org", "#b:example.org"]);

        world.fold([set("#a:example.org", "!2:x")]);
        assert_eq!(alias(&world, "#a:example.org").unwrap().room, "!2:x");
        assert_eq!(
            (aliases(&world, "!1:x"), aliases(&world, "!2:x")),
            (vec!["#b:example.org".to_owned()], vec!["#a:example.org".to_owned()])
        );

        let removed = |alias: &str| Fact::from(AliasRemoved { alias: alias.into() });
        world.fold([removed("#a:example.org"), removed("#none:example.org")]);
        assert_eq!(alias(&world, "#a:example.org"), None);
        assert_eq!(aliases(&world, "!2:x"), [""; 0]);
        world.check_replay();
    }

    #[test]
    fn the_list_has_the_largest_room_first_and_follows_the_members() {
        let mut world = World::new();
        let ids = ["!a:x", "!b:x", "!c:x"];
        let mut rooms = ids.map(|id| Room::made(&mut world, id, ALICE));
        world.fold(ids.map(|id| published(id, true)));
        assert_eq!(listed(&world), ids.map(|id| place(1, id)));

        world.fold(rooms[1].member("$bob", "@bob:x", "join"));
        assert_eq!(listed(&world), [place(2, "!b:x"), place(1, "!a:x"), place(1, "!c:x")]);
        world.fold(rooms[1].member("$bob-left", "@bob:x", "leave"));
        world.fold(rooms[2].member("$eve", "@eve:x", "join"));
        assert_eq!(listed(&world), [place(2, "!c:x"), place(1, "!a:x"), place(1, "!b:x")]);

        let view = world.view();
        let after: Vec<_> = super::published(&view, Some(&place(1, "!a:x"))).map(|row| row.unwrap().0).collect();
        assert_eq!(after, [place(1, "!b:x")]);
        let before: Vec<_> = published_before(&view, &place(1, "!b:x")).map(|row| row.unwrap().0).collect();
        assert_eq!(before, [place(1, "!a:x"), place(2, "!c:x")]);

        world.fold([
            published("!c:x", false),
            published("!c:x", false),
            published("!a:x", true),
            published("!no:x", true),
        ]);
        world.fold(rooms[2].member("$eve-left", "@eve:x", "leave"));
        assert_eq!(listed(&world), [place(1, "!a:x"), place(1, "!b:x")]);
        world.check_replay();
    }

    #[test]
    fn only_a_published_room_whose_number_changes_is_listed_anew() {
        let mut world = World::new();
        let mut room = Room::created(&mut world, "!r:x", ALICE);
        let invite = |room: &mut Room, id: &str| room.member(id, "@guest:x", "invite");
        let quiet = world.fold(invite(&mut room, "$1")).cost.writes;
        world.fold([published("!r:x", true)]);
        assert_eq!(world.fold(room.member("$2", "@other:x", "invite")).cost.writes, quiet);
        let listed = world.fold(room.member("$3", "@third:x", "join")).cost.writes;
        world.fold([published("!r:x", false)]);
        let unlisted = world.fold(room.member("$4", "@fourth:x", "join")).cost.writes;
        assert_eq!(listed, unlisted + 3);
    }
}
