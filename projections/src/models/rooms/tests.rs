use proptest::{collection::vec, prelude::*};
use schemas::{
    Fact,
    facts::{RoomBlocked, RoomPublished},
};
use serde_json::{Value as Json, json};

use super::*;
use crate::{
    Range, Row,
    testing::{
        ALICE, World,
        rooms::{Room, change},
    },
};

const EVE: &str = "@eve:elsewhere.org";

fn set(world: &mut World, room: &mut Room, id: &str, event_type: &str, content: Json) {
    world.fold(room.state(id, ALICE, event_type, "", content));
}

fn published(room: &str, published: bool) -> Fact {
    RoomPublished { room: room.into(), published }.into()
}

fn found(world: &World, room: &str) -> Summary {
    summary(&world.view(), world.room(room)).unwrap().unwrap()
}

fn ids(world: &World, rows: &[Nid]) -> Vec<String> {
    rows.iter().map(|room| summary(&world.view(), *room).unwrap().unwrap().id).collect()
}

fn listed(world: &World, order: Order, falling: bool, filter: &Filter) -> Vec<String> {
    let page = page(&world.view(), order, falling, filter, 0, usize::MAX).unwrap();
    assert_eq!(page.total, page.rows.len() as u64);
    ids(world, &page.rows)
}

#[test]
fn the_settings_are_those_of_the_current_state() {
    let mut world = World::new();
    let mut room = Room::made(&mut world, "!r:x", ALICE);
    let fresh = found(&world, "!r:x");
    let figures = Figures { public: false, state_events: 2, joined: 1, joined_local: 1 };
    assert_eq!((fresh.id.as_str(), fresh.figures), ("!r:x", figures));
    let made =
        Settings { creator: Some(ALICE.into()), version: Some("11".into()), federatable: true, ..Settings::default() };
    assert_eq!(fresh.settings, made);

    for (id, event_type, content) in [
        ("$name", "m.room.name", json!({"name": "Tea"})),
        ("$topic", "m.room.topic", json!({"topic": "Green"})),
        ("$avatar", "m.room.avatar", json!({"url": "mxc://x/y"})),
        ("$alias", "m.room.canonical_alias", json!({"alias": "#tea:x"})),
        ("$rules", "m.room.join_rules", json!({"join_rule": "knock"})),
        ("$guests", "m.room.guest_access", json!({"guest_access": "can_join"})),
        ("$history", "m.room.history_visibility", json!({"history_visibility": "joined"})),
        ("$crypt", "m.room.encryption", json!({"algorithm": "m.megolm.v1.aes-sha2"})),
        ("$end", "m.room.tombstone", json!({"replacement_room": "!s:x"})),
        ("$other", "m.room.power_levels", json!({"name": "no"})),
    ] {
        set(&mut world, &mut room, id, event_type, content);
    }
    world.fold(room.state("$keyed", ALICE, "m.room.name", "key", json!({"name": "no"})));
    let expected = Settings {
        name: Some("Tea".into()),
        topic: Some("Green".into()),
        avatar: Some("mxc://x/y".into()),
        canonical_alias: Some("#tea:x".into()),
        join_rule: Some("knock".into()),
        guest_access: Some("can_join".into()),
        history_visibility: Some("joined".into()),
        encryption: Some("m.megolm.v1.aes-sha2".into()),
        tombstoned: true,
        replacement: Some("!s:x".into()),
        ..made
    };
    let full = found(&world, "!r:x");
    assert_eq!((full.settings, full.figures.state_events), (expected.clone(), 13));

    // A state event that lost the resolution says nothing; one that left the state says nothing any more.
    world.fold(room.state("$lost", ALICE, "m.room.name", "", json!({"name": "Coffee"})).keep_current());
    assert_eq!(found(&world, "!r:x").settings, expected);
    let mut gone = room.message("$gone", ALICE, "x");
    gone.placed.current = vec![change("m.room.tombstone", "", None)];
    world.fold(gone);
    assert_eq!(found(&world, "!r:x").settings, Settings { tombstoned: false, replacement: None, ..expected });

    set(&mut world, &mut room, "$odd", "m.room.name", json!({"name": 5}));
    set(&mut world, &mut room, "$empty", "m.room.topic", json!({"topic": ""}));
    let odd = found(&world, "!r:x").settings;
    assert_eq!((odd.name, odd.topic), (None, None));
    world.check_replay();
}

#[test]
fn the_create_event_names_its_creator_by_its_version() {
    let mut world = World::new();
    for (n, (content, creator, federatable)) in [
        (json!({"room_version": "10", "creator": EVE, "type": "m.space"}), EVE, true),
        (json!({"room_version": "11", "creator": EVE, "m.federate": false}), ALICE, false),
        (json!({"creator": EVE}), EVE, true),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("!{n}:x");
        let mut room = Room::new(&id);
        set(&mut world, &mut room, &format!("$create{n}"), "m.room.create", content.clone());
        let settings = found(&world, &id).settings;
        assert_eq!((settings.creator.as_deref(), settings.federatable), (Some(creator), federatable));
        assert_eq!(settings.room_type.as_deref(), content["type"].as_str());
        assert_eq!(settings.version.as_deref(), Some(content["room_version"].as_str().unwrap_or("1")));
    }
}

#[test]
fn a_redacted_setting_is_none_while_it_stands() {
    let mut world = World::new();
    let mut room = Room::made(&mut world, "!r:x", ALICE);
    set(&mut world, &mut room, "$old", "m.room.name", json!({"name": "Old"}));
    set(&mut world, &mut room, "$new", "m.room.name", json!({"name": "New"}));
    world.fold(room.redaction("$r1", ALICE, "$old", true));
    assert_eq!(found(&world, "!r:x").settings.name.as_deref(), Some("New"));
    world.fold(room.redaction("$r2", ALICE, "$new", true));
    assert_eq!(found(&world, "!r:x").settings.name, None);
    assert_eq!(listed(&world, Order::Name, false, &Filter::default()), ["!r:x"]);
    world.check_replay();
}

#[test]
fn rooms_stand_in_every_order_and_move_with_their_values() {
    let mut world = World::new();
    let ids = ["!a:x", "!b:x", "!c:x"];
    let mut rooms = ids.map(|id| Room::made(&mut world, id, ALICE));
    set(&mut world, &mut rooms[0], "$na", "m.room.name", json!({"name": "zebra"}));
    set(&mut world, &mut rooms[2], "$nc", "m.room.name", json!({"name": "Zebra"}));
    world.fold(rooms[1].member("$eve", EVE, "join"));
    world.fold([published("!c:x", true)]);

    let all = Filter::default();
    for (order, rising) in [
        (Order::Name, ["!c:x", "!a:x", "!b:x"]),
        (Order::CanonicalAlias, ids),
        (Order::JoinedMembers, ["!a:x", "!c:x", "!b:x"]),
        (Order::JoinedLocalMembers, ids),
        (Order::Version, ids),
        (Order::Creator, ids),
        (Order::Encryption, ids),
        (Order::Federatable, ids),
        (Order::Public, ["!a:x", "!b:x", "!c:x"]),
        (Order::JoinRules, ids),
        (Order::GuestAccess, ids),
        (Order::HistoryVisibility, ids),
        (Order::StateEvents, ids),
    ] {
        assert_eq!(listed(&world, order, false, &all), rising, "{order:?}");
        let falling: Vec<_> = rising.into_iter().rev().collect();
        assert_eq!(listed(&world, order, true, &all), falling, "{order:?}");
    }

    set(&mut world, &mut rooms[1], "$nb", "m.room.name", json!({"name": "Aardvark"}));
    set(&mut world, &mut rooms[0], "$na2", "m.room.name", json!({}));
    set(&mut world, &mut rooms[2], "$crypt", "m.room.encryption", json!({"algorithm": "m.x"}));
    world.fold(rooms[1].member("$eve-left", EVE, "leave"));
    world.fold([published("!c:x", false), published("!a:x", true), published("!none:x", true)]);
    assert_eq!(listed(&world, Order::Name, false, &all), ["!b:x", "!c:x", "!a:x"]);
    assert_eq!(listed(&world, Order::JoinedMembers, false, &all), ids);
    assert_eq!(listed(&world, Order::Encryption, false, &all), ["!c:x", "!a:x", "!b:x"]);
    assert_eq!(listed(&world, Order::Public, true, &all), ["!a:x", "!c:x", "!b:x"]);
    assert_eq!(listed(&world, Order::StateEvents, true, &all), ["!c:x", "!b:x", "!a:x"]);
    assert_eq!(entries(&world).len(), Order::ALL.len() * ids.len());
    world.check_replay();
}

#[test]
fn pages_follow_each_other() {
    let mut world = World::new();
    for n in 0..5 {
        Room::made(&mut world, &format!("!{n}:x"), ALICE);
    }
    for (falling, expected) in
        [(false, [["!0:x", "!1:x"], ["!2:x", "!3:x"]]), (true, [["!4:x", "!3:x"], ["!2:x", "!1:x"]])]
    {
        for (offset, expected) in [(0, &expected[0][..]), (2, &expected[1]), (5, &[]), (u64::MAX, &[])] {
            let found = page(&world.view(), Order::JoinedMembers, falling, &Filter::default(), offset, 2).unwrap();
            assert_eq!(
                (ids(&world, &found.rows), found.total),
                (expected.iter().map(ToString::to_string).collect(), 5)
            );
        }
    }
}

#[test]
fn rooms_are_found_by_name_alias_or_id_and_filtered() {
    let mut world = World::new();
    let ids = ["!a:x", "!b:x", "!c:x"];
    let mut rooms = ids.map(|id| Room::made(&mut world, id, ALICE));
    set(&mut world, &mut rooms[0], "$na", "m.room.name", json!({"name": "Grüner TEE"}));
    set(&mut world, &mut rooms[1], "$ab", "m.room.canonical_alias", json!({"alias": "#Tee_Haus:c.org"}));
    world.fold(rooms[2].member("$gone", ALICE, "leave"));
    world.fold([published("!b:x", true)]);

    let find = |term: Option<&str>, public, empty| {
        let filter = Filter { term: term.map(Into::into), public, empty };
        listed(&world, Order::Creator, false, &filter)
    };
    assert_eq!(find(Some("tee"), None, None), ["!a:x", "!b:x"]);
    assert_eq!(find(Some("GRÜN"), None, None), ["!a:x"]);
    assert_eq!(find(Some("c.org"), None, None), [""; 0]);
    assert_eq!(find(Some("#"), None, None), [""; 0]);
    assert_eq!(find(Some("!c:x"), None, None), ["!c:x"]);
    assert_eq!(find(Some("!C:x"), None, None), [""; 0]);
    assert_eq!(find(Some("tee"), Some(true), None), ["!b:x"]);
    assert_eq!(find(None, Some(false), None), ["!a:x", "!c:x"]);
    assert_eq!(find(None, None, Some(true)), ["!c:x"]);
    assert_eq!(find(None, Some(true), Some(true)), [""; 0]);
    assert_eq!(find(None, None, None), ids);
}

#[test]
fn a_room_without_create_event_is_not_listed() {
    let mut world = World::new();
    let mut room = Room::new("!far:x");
    world.fold(room.state("$invite", EVE, "m.room.member", ALICE, json!({"membership": "invite"})));
    set(&mut world, &mut room, "$name", "m.room.name", json!({"name": "Far"}));
    assert_eq!(summary(&world.view(), world.room("!far:x")).unwrap(), None);
    assert_eq!(listed(&world, Order::Name, false, &Filter::default()), [""; 0]);

    set(&mut world, &mut room, "$create", "m.room.create", json!({"room_version": "11"}));
    let settings = found(&world, "!far:x").settings;
    assert_eq!(settings.name.as_deref(), Some("Far"));
    assert_eq!(listed(&world, Order::Name, false, &Filter { empty: Some(true), ..Filter::default() }), ["!far:x"]);
    world.check_replay();
}

#[test]
fn long_texts_and_odd_ones_keep_their_order() {
    let mut world = World::new();
    let long = "é".repeat(20_000);
    for (id, name) in [("!a:x", format!("{long}b")), ("!b:x", format!("{long}a")), ("!c:x", "a\0b".into())] {
        let mut room = Room::made(&mut world, id, ALICE);
        set(&mut world, &mut room, &format!("$n{id}"), "m.room.name", json!({"name": name}));
    }
    assert_eq!(listed(&world, Order::Name, false, &Filter::default()), ["!c:x", "!a:x", "!b:x"]);
}

#[test]
fn the_first_block_counts_until_it_is_lifted() {
    let mut world = World::new();
    let blocked = |blocked, reason: &str| -> Fact {
        RoomBlocked { room: "!unknown:x".into(), blocked, reason: Some(reason.into()) }.into()
    };
    let reason = |world: &World| block(&world.view(), "!unknown:x").unwrap().map(|block| block.reason.unwrap());
    world.fold([blocked(false, "")]);
    assert_eq!(reason(&world), None);
    world.fold([blocked(true, "spam")]);
    let at_ms = world.log_time().ms;
    world.fold([blocked(true, "more spam")]);
    assert_eq!(reason(&world).as_deref(), Some("spam"));
    assert_eq!(block(&world.view(), "!unknown:x").unwrap().unwrap().at_ms, at_ms);
    world.fold([blocked(false, "")]);
    assert_eq!(reason(&world), None);
    world.check_replay();
}

#[test]
fn a_message_costs_nothing_and_a_change_what_it_changes() {
    let mut world = World::new();
    let mut room = Room::made(&mut world, "!r:x", ALICE);
    let before = entries(&world);
    world.fold(room.message("$m", ALICE, "Hi"));
    assert_eq!(entries(&world), before);
    world.fold(room.member("$eve", EVE, "join"));
    let after = entries(&world);
    // All members and the state's events.
    assert_eq!(after.iter().filter(|key| !before.contains(key)).count(), 2);
}

/// The entries of all orders, without what counts them.
fn entries(world: &World) -> Vec<Row> {
    let rows = world.view().scan(ORDERS, Range::prefix([])).map(Result::unwrap).collect::<Vec<_>>();
    rows.into_iter().filter(|(key, _)| key[1] == 0).collect()
}

/// A room, and what changes of it.
type Change = (usize, u8, u8);

fn apply(world: &mut World, rooms: &mut [Option<Room>], n: usize, (at, kind, to): Change) {
    let at = at % rooms.len();
    let id = format!("!{at}:x");
    let Some(room) = &mut rooms[at] else {
        rooms[at] = Some(Room::made(world, &id, ALICE));
        return;
    };
    let text = ["", "Tea", "tea house", "House", "t"][usize::from(to) % 5];
    let (event_type, content) = match kind % 8 {
        0 | 1 => ("m.room.name", json!({"name": text})),
        2 => ("m.room.canonical_alias", json!({"alias": format!("#{text}:tea")})),
        3 => ("m.room.join_rules", json!({"join_rule": text})),
        4 => ("m.room.encryption", json!({"algorithm": text})),
        5 => {
            let user = [ALICE, EVE, "@bob:example.org"][usize::from(to) % 3];
            let membership = if to % 2 == 0 { "join" } else { "leave" };
            world.fold(room.member(&format!("$e{n}"), user, membership));
            return;
        }
        6 => {
            world.fold([published(&id, to % 2 == 0)]);
            return;
        }
        _ => ("m.room.create", json!({"room_version": format!("{to}"), "m.federate": to % 2 == 0})),
    };
    set(world, room, &format!("$e{n}"), event_type, content);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_changes_leave_what_a_sort_of_all_rooms_would(
        changes in vec((0..6_usize, any::<u8>(), any::<u8>()), 1..50),
        (offset, limit) in (0..6_u64, 0..6_usize),
        term in proptest::option::of("t|e|tea|ea h|TEA|!1:x|x|house"),
        (public, empty) in any::<(Option<bool>, Option<bool>)>(),
    ) {
        let mut world = World::new();
        let mut rooms = vec![None; 6];
        for (n, change) in changes.into_iter().enumerate() {
            apply(&mut world, &mut rooms, n, change);
        }
        let view = world.view();
        let mut all: Vec<Summary> = rooms.iter().flatten().map(|room| found(&world, &room.id)).collect();
        let filter = Filter { term, public, empty };
        let taken = |room: &Summary| {
            let found = filter.term.as_ref().is_none_or(|term| room.id == *term || room.is_named(&Term::new(term)));
            found && public.is_none_or(|it| it == room.figures.public) && empty.is_none_or(|it| it == (room.figures.joined == 0))
        };
        for order in Order::ALL {
            all.sort_by_key(|room| order.place(room));
            for falling in [false, true] {
                let mut expected: Vec<_> = all.iter().filter(|room| taken(room)).map(|room| room.id.clone()).collect();
                if falling {
                    expected.reverse();
                }
                prop_assert_eq!(listed(&world, order, falling, &filter), expected.clone());
                let found = page(&view, order, falling, &filter, offset, limit).unwrap();
                prop_assert_eq!(found.total, expected.len() as u64);
                let expected: Vec<_> = expected.into_iter().skip(usize::try_from(offset).unwrap()).take(limit).collect();
                prop_assert_eq!(ids(&world, &found.rows), expected);
            }
        }
        world.check_replay();
    }
}
