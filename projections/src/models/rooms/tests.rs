use schemas::{
    Fact,
    facts::{RoomBlocked, RoomPublished},
};
use serde_json::{Value as Json, json};

use super::*;
use crate::testing::{
    ALICE, World,
    rooms::{Room, change},
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

fn listed(world: &World, order: Order, falling: bool, filter: &Filter) -> Vec<String> {
    let view = world.view();
    let rooms =
        list(&view, order, falling, None, filter).map(|row| summary(&view, row.unwrap().1).unwrap().unwrap().id);
    let rooms: Vec<_> = rooms.collect();
    assert_eq!(count(&view, filter).unwrap(), rooms.len() as u64);
    rooms
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
    let keys = world.view().scan(ORDERS, Range::prefix([])).count();
    assert_eq!(keys, Order::ALL.len() * ids.len());
    world.check_replay();
}

#[test]
fn a_page_goes_on_where_the_last_one_ended() {
    let mut world = World::new();
    let ids: Vec<_> = (0..5).map(|n| format!("!{n}:x")).collect();
    for id in &ids {
        Room::made(&mut world, id, ALICE);
    }
    let (view, all) = (world.view(), Filter::default());
    for falling in [false, true] {
        let (mut after, mut seen) = (None, Vec::new());
        while let Some(row) = list(&view, Order::JoinedMembers, falling, after.as_ref(), &all).nth(1) {
            let (place, room) = row.unwrap();
            seen.push(summary(&view, room).unwrap().unwrap().id);
            after = Some(place);
        }
        let expected = if falling { ["!3:x", "!1:x"] } else { ["!1:x", "!3:x"] };
        assert_eq!(seen, expected);
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
    let keys = |world: &World| world.view().scan(ORDERS, Range::prefix([])).collect::<Result<Vec<_>, _>>().unwrap();
    let before = keys(&world);
    world.fold(room.message("$m", ALICE, "Hi"));
    assert_eq!(keys(&world), before);
    world.fold(room.member("$eve", EVE, "join"));
    let after = keys(&world);
    // All members and the state's events.
    assert_eq!(after.iter().filter(|key| !before.contains(key)).count(), 2);
}
