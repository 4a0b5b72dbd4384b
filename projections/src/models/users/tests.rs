use proptest::{collection::vec, prelude::*};
use schemas::{
    Fact, Json,
    facts::{
        AccountDeactivated, AccountReactivated, AccountStatusSet, AdminSet, DeviceAdded, DeviceSeen, DevicesSeen,
        ProfileFieldSet, ShadowBanSet, UserKind, UserRegistered, UserTypeSet,
    },
};

use super::*;
use crate::testing::World;

const NAMES: [&str; 6] = ["anna", "bert", "nan", "bannana", "x", "an.example"];

fn id(n: usize) -> String {
    format!("@{}:example.org", NAMES[n % NAMES.len()])
}

fn registered(n: usize, kind: UserKind) -> Fact {
    UserRegistered { user: id(n), password: None, admin: false, kind, registration_token: None }.into()
}

fn changed(n: usize, kind: u8, to: u8) -> Fact {
    let (user, yes) = (id(n), to.is_multiple_of(2));
    let text = ["Anna", "an", "Ban ann", "", "ÄNNA"][usize::from(to) % 5];
    let field = |field: &str| -> Fact {
        let value = (to % 6 != 5).then(|| Json::of(text).unwrap());
        ProfileFieldSet { user: user.clone(), field: field.into(), value }.into()
    };
    match kind % 10 {
        0 => registered(n, if yes { UserKind::Guest } else { UserKind::Regular }),
        1 => AccountDeactivated { user, erase: yes }.into(),
        2 => AccountReactivated { user }.into(),
        3 => AdminSet { user, admin: yes }.into(),
        4 => AccountStatusSet { user, locked: yes, suspended: !yes }.into(),
        5 => ShadowBanSet { user, banned: yes }.into(),
        6 => UserTypeSet { user, user_type: [None, Some("bot"), Some("support")][usize::from(to) % 3].map(Into::into) }
            .into(),
        7 => field("displayname"),
        8 => field("avatar_url"),
        _ => {
            let seen = DeviceSeen { user, device: "D".into(), at_ms: to.into(), address: None, user_agent: None };
            DevicesSeen { seen: vec![seen] }.into()
        }
    }
}

fn ids(world: &World, page: &Page) -> Vec<String> {
    page.rows.iter().map(|user| get(&world.view(), *user).unwrap().unwrap().id).collect()
}

fn all(world: &World) -> Vec<User> {
    let page = page(&world.view(), Order::Name, false, &Filter::default(), 0, usize::MAX).unwrap();
    page.rows.iter().map(|user| get(&world.view(), *user).unwrap().unwrap()).collect()
}

fn takes(filter: &Filter, user: &User) -> bool {
    let has = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
    let found = match (&filter.name, &filter.user_id) {
        (Some(name), _) => has(user.localpart(), name) || user.display_name.as_ref().is_some_and(|it| has(it, name)),
        (None, Some(part)) => has(&user.id, part),
        (None, None) => true,
    };
    let fits = |wanted: Option<bool>, is| wanted.is_none_or(|wanted| wanted == is);
    found
        && fits(filter.guests, user.guest)
        && fits(filter.deactivated, user.deactivated)
        && fits(filter.admins, user.admin)
        && fits(filter.locked, user.locked)
        && !filter.not_types.contains(&user.user_type.clone().unwrap_or_default())
}

fn filter() -> impl Strategy<Value = Filter> {
    let name = proptest::option::weighted(0.4, "an|N|na|ä|x|anna|example|an ");
    let user_id = proptest::option::weighted(
        0.6,
        "an|N|na:|a:ex|@an|@|:|ORG|example|e.org|anna:example.org|anna:other|an.ex|org:",
    );
    let not_types = prop_oneof![Just(vec![]), Just(vec![""]), Just(vec!["bot", "other"]), Just(vec!["", "support"])];
    let flags = any::<[Option<bool>; 4]>();
    (name, user_id, flags, not_types).prop_map(|(name, user_id, [guests, deactivated, admins, locked], not_types)| {
        let not_types = not_types.into_iter().map(Into::into).collect();
        Filter { name, user_id, guests, deactivated, admins, locked, not_types }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_changes_leave_what_a_sort_of_all_users_would(
        changes in vec((0..NAMES.len(), any::<u8>(), any::<u8>()), 1..60),
        filters in vec(filter(), 1..8),
        (offset, limit) in (0..4_u64, 0..4_usize),
    ) {
        let mut world = World::new();
        for n in 0..4 {
            let device = DeviceAdded { user: id(n), device: "D".into(), display_name: None };
            world.apply([registered(n, UserKind::Regular), device.into()]);
        }
        for (n, kind, to) in changes {
            world.apply([changed(n, kind, to)]);
        }
        let mut users = all(&world);
        prop_assert!(users.len() >= 4);
        for filter in filters {
            for order in Order::ALL {
                for falling in [false, true] {
                    users.sort_by(|a, b| {
                        let values = order.value(a).key().cmp(&order.value(b).key());
                        (if falling { values.reverse() } else { values }).then_with(|| a.id.cmp(&b.id))
                    });
                    let expected = users.iter().filter(|user| takes(&filter, user)).map(|user| user.id.clone());
                    let expected: Vec<_> = expected.collect();
                    let found = page(&world.view(), order, falling, &filter, offset, limit).unwrap();
                    prop_assert_eq!(found.total, expected.len() as u64, "{:?}", filter);
                    let expected: Vec<_> =
                        expected.into_iter().skip(usize::try_from(offset).unwrap()).take(limit).collect();
                    prop_assert_eq!(ids(&world, &found), expected, "{:?} {:?} {}", filter, order, falling);
                }
            }
        }
        world.check_replay();
    }
}

#[test]
fn a_user_is_shown_as_they_are() {
    let mut world = World::new();
    world.apply([
        registered(0, UserKind::Guest),
        DeviceAdded { user: id(0), device: "D".into(), display_name: None }.into(),
    ]);
    let created_at_ms = world.log_time().ms;
    for kind in 1..10 {
        // Deactivated, and active again, along the way.
        world.apply([changed(0, kind, 4)]);
    }
    let expected = User {
        id: id(0),
        guest: true,
        admin: true,
        locked: true,
        suspended: false,
        shadow_banned: true,
        deactivated: false,
        erased: false,
        user_type: Some("bot".into()),
        display_name: Some("ÄNNA".into()),
        avatar_url: Some("ÄNNA".into()),
        created_at_ms,
        last_seen_ms: all(&world)[0].last_seen_ms,
        type_number: 1,
    };
    assert_eq!(all(&world), [expected]);
}

#[test]
fn types_that_come_too_late_are_listed_together() {
    let mut world = World::new();
    for n in 0..20 {
        let user = format!("@u{n}:example.org");
        let set = UserTypeSet { user: user.clone(), user_type: Some(format!("type{n}")) };
        let kind = UserKind::Regular;
        let made = UserRegistered { user, password: None, admin: false, kind, registration_token: None };
        world.apply([made.into(), set.into()]);
    }
    let without = |types: &[&str]| {
        let not_types = types.iter().map(ToString::to_string).collect();
        page(&world.view(), Order::UserType, false, &Filter { not_types, ..Filter::default() }, 0, 99).unwrap().total
    };
    assert_eq!(without(&["type0", "type13"]), 18);
    assert_eq!(without(&["type14", "type19", ""]), 20);
    world.check_replay();
}
