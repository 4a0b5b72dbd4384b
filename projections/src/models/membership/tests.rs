use schemas::facts::{Placement, Verdict};
use serde_json::json;

use super::*;
use crate::testing::{
    ALICE, BOB, SERVER, World,
    rooms::{Room, change},
};

const ID: &str = "!r:example.org";
const EVE: &str = "@eve:elsewhere.org";

fn start() -> (World, Room) {
    let mut world = World::new();
    let room = Room::created(&mut world, ID, ALICE);
    (world, room)
}

fn of(world: &World, user: &str) -> Option<Membership> {
    member(&world.view(), world.room(ID), user).unwrap().map(|member| member.membership)
}

fn users(world: &World, membership: Membership) -> Vec<String> {
    users_in(&world.view(), world.room(ID), membership).collect::<Result<_, _>>().unwrap()
}

fn rooms(world: &World, user: &str, membership: Membership) -> usize {
    rooms_of(&world.view(), user, membership).map(Result::unwrap).count()
}

fn count(world: &World) -> Counts {
    counts(&world.view(), world.room(ID)).unwrap()
}

#[test]
fn the_way_of_a_user_through_a_room() {
    use Membership::{Ban, Invite, Join, Knock, Leave};
    let (mut world, mut room) = start();
    let begin = world.view().lsn();
    let mut previous = None;
    for (n, (name, membership)) in
        [("knock", Knock), ("invite", Invite), ("join", Join), ("leave", Leave), ("ban", Ban), ("leave", Leave)]
            .into_iter()
            .enumerate()
    {
        let id = format!("${n}");
        let applied = world.fold(room.member(&id, BOB, name));
        assert_eq!(applied.touched.users, [BOB.to_owned()].into());
        let found = member(&world.view(), world.room(ID), BOB).unwrap().unwrap();
        let since = world.head(&id).placed.unwrap().by;
        let expected = Member { membership, event: world.event(&id), since, previous, forgotten: false };
        assert_eq!(found, expected);
        previous = Some(membership);
        assert_eq!(users(&world, membership).last().unwrap(), BOB);
        assert_eq!(all_rooms_of(&world.view(), BOB).map(Result::unwrap).collect::<Vec<_>>(), [(world.room(ID), found)]);
        assert_eq!(rooms(&world, BOB, membership), 1);
        let counts = count(&world);
        let of = [counts.joined - 1, counts.invited, counts.knocked, counts.left, counts.banned];
        let expected = [Join, Invite, Knock, Leave, Ban].map(|each| u64::from(each == membership));
        assert_eq!((of, counts.joined_local, counts.remembered), (expected, 1 + u64::from(membership == Join), 2));
    }
    let view = world.view();
    let changes: Vec<_> = changes_since(&view, BOB, begin).map(Result::unwrap).collect();
    assert_eq!(changes.len(), 6);
    let (lsn, nid, change) = changes[2];
    assert_eq!((lsn, nid, change.from, change.to), (Lsn(5), world.room(ID), Some(Invite), Some(Join)));
    assert_eq!(changes_since(&view, BOB, Lsn(5)).count(), 3);
    world.check_replay();
}

#[test]
fn members_stand_in_the_order_in_which_they_came() {
    let (mut world, mut room) = start();
    for (id, user) in [("$eve", EVE), ("$bob", BOB)] {
        world.fold(room.member(id, user, "join"));
    }
    let lsn = world.view().lsn();
    let profile = json!({"membership": "join", "displayname": "E"});
    let applied = world.fold(room.state("$name", EVE, "m.room.member", EVE, profile));
    assert!(applied.touched.users.contains(EVE));
    assert_eq!(users(&world, Membership::Join), [ALICE, EVE, BOB]);
    let (view, nid) = (world.view(), world.room(ID));
    let eve = member(&view, nid, EVE).unwrap().unwrap();
    assert_eq!((eve.event, eve.since), (world.event("$name"), world.head("$eve").placed.unwrap().by));
    assert_eq!(changes_since(&view, EVE, lsn).count(), 0);

    let all: Vec<_> = members_of(&view, nid, "").map(|row| row.unwrap().0).collect();
    let by_way: Vec<_> = users_from(&view, nid, Membership::Join).map(Result::unwrap).collect();
    let by = |id: &str| world.head(id).placed.unwrap().by;
    let expected = [(ALICE, "$creator"), (EVE, "$eve"), (BOB, "$bob")];
    assert_eq!(by_way, expected.map(|(user, id)| (Membership::Join, by(id), user.to_owned())));
    assert_eq!(users_from(&view, nid, Membership::Invite).count(), 0);
    assert_eq!(all, [ALICE, BOB, EVE]);
    assert_eq!(members_of(&view, nid, BOB).count(), 2);
    assert_eq!(local_users_in(&view, nid).map(Result::unwrap).collect::<Vec<_>>(), [ALICE, BOB]);
    let servers: Vec<_> = servers_in(&view, nid).map(Result::unwrap).collect();
    assert_eq!(servers, [("elsewhere.org".to_owned(), 1), (SERVER.to_owned(), 2)]);
    assert!(is_server_in(&view, nid, SERVER).unwrap() && !is_server_in(&view, nid, "else").unwrap());

    world.fold(room.member("$left", BOB, "leave"));
    world.fold(room.member("$again", BOB, "join"));
    world.fold(room.member("$gone", EVE, "leave"));
    assert_eq!(users(&world, Membership::Join), [ALICE, BOB]);
    let (way, by, user) = users_from(&world.view(), nid, Membership::Join).last().unwrap().unwrap();
    assert_eq!((way, by, user.as_str()), (Membership::Leave, world.head("$gone").placed.unwrap().by, EVE));
    assert!(!is_server_in(&world.view(), nid, "elsewhere.org").unwrap());
    world.check_replay();
}

#[test]
fn membership_follows_the_current_state_and_not_the_event() {
    let (mut world, mut room) = start();
    world.fold(room.member("$bob", BOB, "join").keep_current());
    assert_eq!(of(&world, BOB), None);
    world.fold(room.member("$eve", EVE, "join").keep_current().verdict(Verdict::SoftFailed));
    let mut merge = room.message("$merge", ALICE, "Hi");
    merge.placed.current = vec![
        change("m.room.member", BOB, Some("$bob")),
        change("m.room.member", EVE, Some("$eve")),
        change("m.room.member", ALICE, None),
    ];
    let applied = world.fold(merge);
    assert_eq!(applied.touched.users, [ALICE, BOB, EVE].map(ToOwned::to_owned).into());
    assert_eq!((of(&world, BOB), of(&world, ALICE)), (Some(Membership::Join), None));
    assert_eq!(users(&world, Membership::Join), [BOB, EVE]);
    assert_eq!((count(&world).joined, count(&world).joined_local), (2, 1));
    assert_eq!(all_rooms_of(&world.view(), ALICE).count(), 0);
    let view = world.view();
    let change = changes_since(&view, ALICE, Lsn(2)).next().unwrap().unwrap().2;
    assert_eq!((change.from, change.to), (Some(Membership::Join), None));
    world.check_replay();
}

#[test]
fn changes_of_one_record_count_as_one() {
    let (mut world, mut room) = start();
    let facts: Vec<_> =
        ["invite", "join"].into_iter().flat_map(|name| room.member(&format!("${name}"), BOB, name)).collect();
    world.fold(facts);
    let view = world.view();
    let changes: Vec<_> = changes_since(&view, BOB, Lsn(0)).map(|row| row.unwrap().2).collect();
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].from, changes[0].to), (None, Some(Membership::Join)));
}

#[test]
fn an_invitation_from_elsewhere_needs_no_more_of_the_room() {
    let mut world = World::new();
    let mut room = Room::new(ID);
    let fields = json!({"sender": EVE, "type": "m.room.member", "state_key": BOB, "content": {"membership": "invite"}});
    world.fold(room.live("$invite", &fields).class(Placement::Outlier).without_state());
    assert_eq!(rooms(&world, BOB, Membership::Invite), 1);
    assert_eq!((count(&world).invited, count(&world).joined_local), (1, 0));
}

#[test]
fn users_share_a_room_while_both_are_in_one() {
    let (mut world, mut room) = start();
    let shared = |world: &World| {
        let view = world.view();
        let both = [share_room(&view, ALICE, BOB).unwrap(), share_room(&view, BOB, ALICE).unwrap()];
        assert_eq!(both[0], both[1]);
        both[0]
    };
    world.fold(room.member("$invite", BOB, "invite"));
    assert!(!shared(&world));
    world.fold(room.member("$bob", BOB, "join"));
    assert!(shared(&world));
    world.fold(room.member("$left", ALICE, "leave"));
    assert!(!shared(&world));
}

#[test]
fn a_room_is_forgotten_only_from_outside() {
    let (mut world, mut room) = start();
    let forget = |user: &str| Fact::from(RoomForgotten { user: user.into(), room: ID.into() });
    world.fold(room.member("$bob", BOB, "join"));
    assert!(world.fold([forget(BOB)]).touched.users.is_empty());
    world.fold(room.member("$left", BOB, "leave"));
    assert_eq!((count(&world).remembered, rooms(&world, BOB, Membership::Leave)), (2, 1));
    assert!(world.fold([forget(BOB), forget(EVE)]).touched.users.contains(BOB));
    assert_eq!((count(&world).remembered, count(&world).left, all_rooms_of(&world.view(), BOB).count()), (1, 1, 0));
    assert!(member(&world.view(), world.room(ID), BOB).unwrap().unwrap().forgotten);
    assert!(world.fold([forget(BOB)]).touched.users.is_empty());

    world.fold(room.member("$again", BOB, "join"));
    assert_eq!((count(&world).remembered, rooms(&world, BOB, Membership::Join)), (2, 1));
    assert!(!member(&world.view(), world.room(ID), BOB).unwrap().unwrap().forgotten);
    world.check_replay();
}
