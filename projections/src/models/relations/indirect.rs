//! What relates to an event over others, for `/relations` with `recurse`.
//!
//! Table 10 `room | event id | position -> Descendant`: what relates to the event by two or three steps. An event that
//! relates to others writes a row for each such step, and connects a few of those that relate to it and came before it. A
//! redacted event takes out its own rows only: what lies behind it is left out when it is read.

use schemas::Nid;
use serde::{Deserialize, Serialize};

use super::{Child, RELATED, Related, children, children_before, parent_key};
use crate::{
    Batch, Model, Position, StoreError,
    keys::KeyBuf,
    models::events::{self, Head, Relation},
    read::{Range, Read, Row, Table, decode, malformed_key},
};

pub(super) const INDIRECT: Table = Table { model: Model::Relations, prefix: 10 };

/// Relations are followed so many steps.
pub const MAX_DEPTH: usize = 3;

/// When an event comes after events that relate to it, so many of them are connected with what it relates to.
const MAX_EARLY: usize = 32;

/// An event that relates to another over others.
#[derive(Clone, Serialize, Deserialize)]
struct Descendant {
    child: Child,
    /// The events in between.
    via: Vec<Nid>,
}

/// An event to which another relates, and the events in between.
struct Ancestor {
    id: String,
    via: Vec<Nid>,
}

/// What an event relates to by this relation of its own, nearest first.
fn ancestors(read: &dyn Read, room: Nid, relation: &Relation) -> Result<Vec<Ancestor>, StoreError> {
    let mut ancestors = vec![Ancestor { id: relation.parent.clone(), via: Vec::new() }];
    while let Some(Ancestor { id, via }) = ancestors.last().filter(|last| last.via.len() + 1 < MAX_DEPTH) {
        let shown = events::find(read, id)?.filter(|(_, head)| head.room == room && head.shown_at().is_some());
        let Some((event, relation)) = shown.and_then(|(event, head)| Some((event, head.relation?))) else { break };
        let via = [via.as_slice(), &[event]].concat();
        ancestors.push(Ancestor { id: relation.parent, via });
    }
    Ok(ancestors)
}

fn key(room: Nid, ancestor: &Ancestor, position: Position) -> KeyBuf {
    parent_key(room, &ancestor.id).raw(&position.to_bytes())
}

/// Notes to what an event relates over others, and over it.
pub(super) fn connect(head: &Head, related: &Related, child: &Child, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let room = head.room;
    let ancestors = ancestors(batch, room, &related.relation)?;
    for ancestor in ancestors.iter().filter(|ancestor| !ancestor.via.is_empty()) {
        let row = Descendant { child: child.clone(), via: ancestor.via.clone() };
        batch.put(INDIRECT, key(room, ancestor, related.position), &row);
    }
    let early = all(batch, room, &head.id, Position::START).take(MAX_EARLY).collect::<Result<Vec<_>, _>>()?;
    for (position, early) in early {
        for ancestor in &ancestors {
            let via = [early.via.as_slice(), &[child.event], &ancestor.via].concat();
            if via.len() < MAX_DEPTH {
                let row = Descendant { child: early.child.clone(), via };
                batch.put(INDIRECT, key(room, ancestor, position), &row);
            }
        }
    }
    Ok(())
}

/// Takes an event out of what it relates to over others.
pub(super) fn disconnect(head: &Head, related: &Related, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    for ancestor in ancestors(batch, head.room, &related.relation)?.iter().filter(|ancestor| !ancestor.via.is_empty()) {
        batch.delete(INDIRECT, key(head.room, ancestor, related.position));
    }
    Ok(())
}

/// What relates to an event by at most [`MAX_DEPTH`] steps, from a position on, in order.
pub fn descendants<'a>(
    read: &'a dyn Read,
    room: Nid,
    event: &str,
    from: Position,
) -> impl Iterator<Item = Result<(Position, Child), StoreError>> + use<'a> {
    still_related(read, all(read, room, event, from))
}

/// What relates to an event by at most [`MAX_DEPTH`] steps, before a position, from the last to the first.
pub fn descendants_before<'a>(
    read: &'a dyn Read,
    room: Nid,
    event: &str,
    before: Option<Position>,
) -> impl Iterator<Item = Result<(Position, Child), StoreError>> + use<'a> {
    let prefix = Vec::from(parent_key(room, event));
    let range = match before {
        Some(before) => Range::prefix_until(&prefix, &before.to_bytes()),
        None => Range::prefix(prefix.clone()),
    };
    let direct = children_before(read, room, event, None, before).map(direct);
    let start = prefix.len();
    let indirect = read.scan(INDIRECT, range.rev()).map(move |row| indirect(start, row));
    still_related(read, merge(direct, indirect, |a, b| a > b))
}

type Found = Result<(Position, Descendant), StoreError>;

/// All that ever related to an event, and was not redacted itself, from a position on.
fn all<'a>(read: &'a dyn Read, room: Nid, event: &str, from: Position) -> impl Iterator<Item = Found> + use<'a> {
    let prefix = Vec::from(parent_key(room, event));
    let range = Range::prefix_from(&prefix, &from.to_bytes());
    let direct = children(read, room, event, None, from).map(direct);
    let indirect = read.scan(INDIRECT, range).map(move |row| indirect(prefix.len(), row));
    merge(direct, indirect, |a, b| a < b)
}

fn direct(row: Result<(Position, Child), StoreError>) -> Found {
    row.map(|(position, child)| (position, Descendant { child, via: Vec::new() }))
}

fn indirect(start: usize, row: Result<Row, StoreError>) -> Found {
    let (key, value) = row?;
    let position = key.get(start..).and_then(Position::from_slice).ok_or_else(|| malformed_key(INDIRECT))?;
    Ok((position, decode(INDIRECT, &value)?))
}

/// Two orders as one; `first` says which of two positions comes first.
fn merge(
    a: impl Iterator<Item = Found>,
    b: impl Iterator<Item = Found>,
    first: fn(&Position, &Position) -> bool,
) -> impl Iterator<Item = Found> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(Ok((at, _))), Some(Ok((bt, _)))) if first(bt, at) => b.next(),
        (None, _) | (Some(Ok(_)), Some(Err(_))) => b.next(),
        _ => a.next(),
    })
}

/// Leaves out what lies behind a redacted event.
fn still_related<'a>(
    read: &'a dyn Read,
    found: impl Iterator<Item = Found> + 'a,
) -> impl Iterator<Item = Result<(Position, Child), StoreError>> + 'a {
    found.filter_map(move |row| {
        let related = row.and_then(|(position, Descendant { child, via })| {
            // What relates directly has a row only while it is not redacted.
            let last = if via.is_empty() { None } else { Some(&child.event) };
            for step in via.iter().chain(last) {
                if read.get(RELATED, &step.to_bytes())?.is_none() {
                    return Ok(None);
                }
            }
            Ok(Some((position, child)))
        });
        related.transpose()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{
        ALICE, BOB, World,
        rooms::{Event, Room},
    };

    const ID: &str = "!r:example.org";

    fn start() -> (World, Room) {
        let mut world = World::new();
        let mut room = Room::created(&mut world, ID, ALICE);
        world.fold(room.message("$root", ALICE, "Hi"));
        (world, room)
    }

    fn referring(room: &mut Room, id: &str, parent: &str) -> Event {
        let relates = json!({"rel_type": "m.reference", "event_id": parent});
        room.relating(id, BOB, relates, json!({"body": id})).without_state()
    }

    fn redaction(room: &mut Room, target: &str) -> Event {
        room.redaction(&format!("$red-{target}"), BOB, target, true).without_state()
    }

    /// The same forward, backward, and in two halves.
    fn deep(world: &World, event: &str) -> Vec<String> {
        let (view, room) = (world.view(), world.room(ID));
        let forward: Vec<_> = descendants(&view, room, event, Position::START).map(Result::unwrap).collect();
        let mut backward: Vec<_> = descendants_before(&view, room, event, None).map(Result::unwrap).collect();
        backward.reverse();
        assert_eq!(forward, backward);
        if let Some((middle, _)) = forward.get(forward.len() / 2) {
            let mut halves: Vec<_> =
                descendants_before(&view, room, event, Some(*middle)).map(Result::unwrap).collect();
            halves.reverse();
            halves.extend(descendants(&view, room, event, *middle).map(Result::unwrap));
            assert_eq!(halves, forward);
        }
        forward.into_iter().map(|(_, child)| events::head(&view, child.event).unwrap().unwrap().id).collect()
    }

    #[test]
    fn relations_are_followed_three_steps_and_stand_in_order() {
        let (mut world, mut room) = start();
        let links = [("$1", "$root"), ("$1b", "$root"), ("$2", "$1"), ("$3", "$2"), ("$2b", "$1b"), ("$4", "$3")];
        for (id, parent) in links {
            world.fold(referring(&mut room, id, parent));
        }
        world.fold(room.message("$plain", BOB, "x").without_state());
        let mut other = Room::other(&mut world, ALICE);
        world.fold(referring(&mut other, "$across", "$1"));
        assert_eq!(deep(&world, "$root"), ["$1", "$1b", "$2", "$3", "$2b"]);
        assert_eq!(deep(&world, "$1"), ["$2", "$3", "$4"]);
        assert_eq!(deep(&world, "$4"), [""; 0]);
        world.check_replay();
    }

    #[test]
    fn what_lies_behind_a_redacted_event_relates_no_more() {
        let (mut world, mut room) = start();
        for (id, parent) in [("$1", "$root"), ("$2", "$1"), ("$3", "$2")] {
            world.fold(referring(&mut room, id, parent));
        }
        world.fold(redaction(&mut room, "$2"));
        assert_eq!((deep(&world, "$root"), deep(&world, "$2")), (vec!["$1".to_owned()], vec!["$3".to_owned()]));
        world.fold(referring(&mut room, "$late", "$2"));
        world.fold(redaction(&mut room, "$3"));
        assert_eq!(
            (deep(&world, "$root"), deep(&world, "$1"), deep(&world, "$2")),
            (vec!["$1".to_owned()], vec![], vec!["$late".to_owned()])
        );
        world.check_replay();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// In whatever order events come and go, what is found are the shown events within three steps.
        #[test]
        fn descendants_are_found_in_any_order_of_coming(
            events in proptest::collection::vec((any::<prop::sample::Index>(), any::<[u32; 2]>()), 1..12),
        ) {
            let (mut world, mut room) = start();
            let (mut coming, mut parents) = (Vec::new(), Vec::new());
            for (n, (parent, [comes, goes])) in events.iter().enumerate() {
                let parent = parent.index(n + 1).checked_sub(1).map_or_else(|| "$root".to_owned(), |n| format!("$e{n}"));
                let id = format!("$e{n}");
                coming.push((*comes, referring(&mut room, &id, &parent)));
                parents.push((*goes, id, parent));
            }
            coming.sort_by_key(|(comes, _)| *comes);
            for (_, event) in coming {
                world.fold(event);
            }
            parents.sort();
            loop {
                let parent = |id: &str| parents.iter().find(|(_, child, _)| child == id).map(|(.., parent)| parent.as_str());
                for root in ["$root", "$e0", "$e1"] {
                    let within = |id: &str| {
                        let one = parent(id);
                        let two = one.and_then(parent);
                        [one, two, two.and_then(parent)].contains(&Some(root))
                    };
                    let mut expected: Vec<_> = parents.iter().map(|(_, id, _)| id.clone()).filter(|id| within(id)).collect();
                    let mut found = deep(&world, root);
                    expected.sort();
                    found.sort();
                    prop_assert_eq!(found, expected);
                }
                let Some((_, gone, _)) = parents.pop() else { break };
                world.fold(redaction(&mut room, &gone));
            }
            world.check_replay();
        }
    }
}
