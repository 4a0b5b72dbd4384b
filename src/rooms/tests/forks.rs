use std::{
    cell::Cell,
    collections::{BTreeSet, HashSet},
};

use proptest::{collection::vec, prelude::*};
use ruma::{
    EventId, OwnedEventId,
    state_res::{self, utils::event_id_set::EventIdSet},
};
use serde_json::{Value, json};

use crate::rooms::{
    Halves, Pdu, StateMap,
    resolve::{Conflicts, Forked, Place, ResolveError, delta, resolve, settle},
    testing::{Room, message, rules, state},
};

fn levels(version: u8) -> Value {
    match version {
        12 => json!({ "users": { "@bob:b": 50 } }),
        _ => json!({ "users": { "@alice:a": 100, "@bob:b": 50 } }),
    }
}

/// A room with Alice (the creator), Bob (who may moderate) and Carol.
fn room(version: u8) -> (Room, OwnedEventId) {
    let (mut room, start) = Room::begin(version, levels(version));
    let bob = room.member(&[&start], "@bob:b", "@bob:b", "join").unwrap();
    let carol = room.member(&[&bob], "@carol:c", "@carol:c", "join").unwrap();
    (room, carol)
}

fn topic(text: &str) -> crate::rooms::Prototype {
    state("m.room.topic", "", json!({ "topic": text }))
}

#[test]
fn a_ban_wins_over_what_the_banned_do_meanwhile() {
    for version in 3..=12 {
        let (mut room, start) = room(version);
        let levels = state("m.room.power_levels", "", {
            let mut levels = levels(version);
            levels["events"] = json!({ "m.room.topic": 0 });
            levels
        });
        let start = room.send(&[&start], "@alice:a", levels).unwrap();
        let banned = room.member(&[&start], "@alice:a", "@bob:b", "ban").unwrap();
        let said = room.send(&[&start], "@bob:b", message("still here")).unwrap();
        let set = room.send(&[&said], "@bob:b", topic("Bob was here")).unwrap();
        let kicked = room.member(&[&set], "@bob:b", "@carol:c", "leave").unwrap();
        let merged = room.before(&[&banned, &kicked]);
        assert_eq!(room.at(&merged, "m.room.member", "@bob:b"), Some(&*banned), "version {version}");
        assert_eq!(room.at(&merged, "m.room.topic", ""), None);
        assert_ne!(room.at(&merged, "m.room.member", "@carol:c"), Some(&*kicked));
        assert!(room.send(&[&banned, &kicked], "@bob:b", message("and now?")).is_err());
    }
}

#[test]
fn the_greater_power_decides_between_unlike_levels() {
    for version in 3..=12 {
        let (mut room, start) = room(version);
        let change = |users: Value| {
            let mut levels = levels(version);
            for (user, level) in users.as_object().unwrap() {
                levels["users"][user] = level.clone();
            }
            state("m.room.power_levels", "", levels)
        };
        // Alice takes Bob's power away, while Bob gives some to Carol, who uses it.
        let demoted = room.send(&[&start], "@alice:a", change(json!({ "@bob:b": 0 }))).unwrap();
        let raised = room.send(&[&start], "@bob:b", change(json!({ "@carol:c": 50 }))).unwrap();
        let set = room.send(&[&raised], "@carol:c", topic("Carol's")).unwrap();
        let merged = room.before(&[&demoted, &set]);
        assert_eq!(room.at(&merged, "m.room.power_levels", ""), Some(&*demoted), "version {version}");
        assert_eq!(room.at(&merged, "m.room.topic", ""), None, "version {version}");
        assert_eq!(merged, room.before(&[&set, &demoted]), "the order of the states does not matter");
    }
}

#[test]
fn topics_set_at_once_are_settled_alike_from_every_side() {
    for version in 3..=12 {
        let (mut room, start) = room(version);
        let one = room.send(&[&start], "@alice:a", topic("one")).unwrap();
        let two = room.send(&[&start], "@bob:b", topic("two")).unwrap();
        let three = room.send(&[&start], "@bob:b", message("three")).unwrap();
        let merged = room.before(&[&one, &two, &three]);
        assert_eq!(room.at(&merged, "m.room.topic", ""), Some(&*two), "the later one");
        for order in [[&two, &three, &one], [&three, &one, &two], [&one, &three, &two]] {
            assert_eq!(room.before(&order), merged);
        }
    }
}

#[test]
fn what_all_agree_on_costs_nothing() {
    let (mut room, start) = room(12);
    let forks: Vec<_> = (0..3).map(|_| room.send(&[&start], "@bob:b", message("Hi")).unwrap()).collect();
    let states: Vec<_> = forks.iter().map(|id| &room.after[id]).collect();
    let fetched = Cell::new(0);
    let fetch = |_: &EventId| -> Option<Pdu> {
        fetched.set(fetched.get() + 1);
        None
    };
    assert_eq!(&resolve(room.rules, &states, fetch).unwrap(), &room.after[&start]);
    assert_eq!(resolve(room.rules, &[], fetch).unwrap(), StateMap::new());
    assert_eq!(fetched.get(), 0);
}

#[test]
fn a_conflict_in_a_large_room_looks_at_few_events() {
    for version in [10, 12] {
        let (mut room, mut last) = room(version);
        for n in 0..200 {
            let user = format!("@user{n}:b");
            last = room.member(&[&last], &user, &user, "join").unwrap();
        }
        let old = room.send(&[&last], "@alice:a", topic("old")).unwrap();
        let mut new = room.send(&[&last], "@alice:a", state("m.room.power_levels", "", levels(version))).unwrap();
        for who in ["@bob:b", "@alice:a"] {
            new = room
                .send(&[&new], who, state("m.room.member", who, json!({ "membership": "join", "displayname": "new" })))
                .unwrap();
        }
        let new = room.send(&[&new], "@bob:b", topic("new")).unwrap();
        let (old, new) = (&room.after[&old], &room.after[&new]);
        let fetched = Cell::new(0);
        let fetch = |id: &EventId| {
            fetched.set(fetched.get() + 1);
            room.events.get(id).cloned()
        };
        let merged = resolve(room.rules, &[old, new], fetch).unwrap();
        assert_eq!(merged, naive(&room, &[old, new]));
        assert!(fetched.get() < 20, "{} events", fetched.get());
    }
}

#[test]
fn what_is_missing_is_named() {
    let (mut room, start) = room(10);
    let one = room.send(&[&start], "@alice:a", topic("one")).unwrap();
    let two = room.send(&[&start], "@bob:b", topic("two")).unwrap();
    let states = [&room.after[&one], &room.after[&two]];
    for lost in room.events[&one].auth_events().iter().chain([&one]) {
        let fetch = |id: &EventId| room.events.get(id).filter(|event| event.id() != lost).cloned();
        assert_eq!(resolve(room.rules, &states, fetch), Err(ResolveError::Missing(lost.clone())));
    }
}

/// A room whose every event cites another one, without end.
struct Endless(&'static str);

impl Forked for Endless {
    fn event(&self, id: &EventId) -> Option<Pdu> {
        let n: u64 = id.as_str().trim_start_matches(['$', 'a', 'b']).parse().unwrap();
        let skeleton = json!({
            "auth_events": [format!("${}{}", self.0, n + 1)], "content": {}, "depth": 1, "origin_server_ts": 1, "prev_events": [],
            "room_id": "!r:a", "sender": "@alice:a", "state_key": "", "type": "m.room.topic",
        });
        Some(Pdu::new(id.to_owned(), Halves { skeleton: skeleton.to_string().as_bytes(), rest: None }).unwrap())
    }

    fn agreed(&self, _: &Place) -> Option<OwnedEventId> {
        None
    }

    fn all_agreed(&self) -> Box<dyn Iterator<Item = OwnedEventId> + '_> {
        Box::new(std::iter::empty())
    }
}

#[test]
fn work_is_bounded() {
    let id = |id: &str| Some(EventId::parse(id).unwrap());
    let place = ("m.room.topic".to_owned(), String::new());
    let conflicts = Conflicts::from([(place.clone(), vec![id("$a0"), id("$b0")])]);
    assert_eq!(settle(rules(12), &conflicts, &Endless("a")), Err(ResolveError::TooMuch));
    let conflicts = Conflicts::from([(place, (0..65).map(|n| id(&format!("$a{n}"))).collect())]);
    assert_eq!(settle(rules(12), &conflicts, &Endless("b")), Err(ResolveError::TooMuch));
}

#[test]
fn a_delta_turns_one_state_into_the_other() {
    let (mut room, start) = room(12);
    let one = room.send(&[&start], "@alice:a", topic("one")).unwrap();
    let two = room.member(&[&start], "@carol:c", "@carol:c", "leave").unwrap();
    for (from, to) in [(&one, &two), (&two, &one), (&one, &one)] {
        let (from, to) = (&room.after[from], &room.after[to]);
        let mut state = from.clone();
        let changes = delta(from, to);
        assert_eq!(changes.len(), if from == to { 0 } else { 2 });
        for change in changes {
            let place = (change.event_type, change.state_key);
            match change.event {
                Some(id) => state.insert(place, EventId::parse(id).unwrap()),
                None => state.remove(&place),
            };
        }
        assert_eq!(&state, to);
    }
}

/// The algorithm to the letter: whole states, whole auth chains.
fn naive(room: &Room, states: &[&StateMap]) -> StateMap {
    let chain = |ids: &mut dyn Iterator<Item = &OwnedEventId>| {
        let mut seen = HashSet::new();
        let mut todo: Vec<_> = ids.cloned().collect();
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                todo.extend_from_slice(room.events[&id].auth_events());
            }
        }
        seen
    };
    let maps: Vec<state_res::StateMap<OwnedEventId>> = states
        .iter()
        .map(|state| state.iter().map(|((kind, key), id)| ((kind.as_str().into(), key.clone()), id.clone())).collect())
        .collect();
    let chains = states.iter().map(|state| chain(&mut state.values()).into_iter().collect()).collect();
    let subgraph = |conflicted: &state_res::StateMap<Vec<OwnedEventId>>| {
        let ends: BTreeSet<_> = conflicted.values().flatten().cloned().collect();
        let reachable = chain(&mut ends.iter());
        let on_path = |id: &OwnedEventId| chain(&mut [id].into_iter()).iter().any(|id| ends.contains(id));
        Some(reachable.into_iter().filter(on_path).collect::<EventIdSet<_>>())
    };
    let fetch = |id: &EventId| room.events.get(id).cloned();
    let algorithm = room.rules.state_res.v2_rules().unwrap();
    let resolved = state_res::resolve(&room.rules.authorization, algorithm, &maps, chains, fetch, subgraph).unwrap();
    resolved.into_iter().map(|((kind, key), id)| ((kind.to_string(), key), id)).collect()
}

#[derive(Clone, Copy, Debug)]
struct Move {
    prev: [prop::sample::Index; 3],
    width: usize,
    sender: usize,
    target: usize,
    action: u8,
    time: u32,
}

fn any_move() -> impl Strategy<Value = Move> {
    (any::<[prop::sample::Index; 3]>(), 1..=3_usize, 0..4_usize, 0..4_usize, 0..10_u8, 0..20_u32)
        .prop_map(|(prev, width, sender, target, action, time)| Move { prev, width, sender, target, action, time })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn resolves_as_the_algorithm_to_the_letter(version in prop::sample::select(vec![6, 10, 11, 12]), moves in vec(any_move(), 1..40)) {
        const USERS: [&str; 4] = ["@alice:a", "@bob:b", "@carol:c", "@dave:b"];
        let (mut room, start) = room(version);
        let mut tips = vec![start];
        for step in moves {
            // Mostly on recent events, so that forks grow some depth.
            let recent = &tips[tips.len().saturating_sub(6)..];
            let prev: BTreeSet<_> = step.prev[..step.width].iter().map(|index| index.get(recent).clone()).collect();
            let prev: Vec<_> = prev.iter().collect();
            let states: Vec<_> = prev.iter().map(|&id| &room.after[id]).collect();
            let expected = naive(&room, &states);
            prop_assert_eq!(&room.before(&prev), &expected);

            let (sender, target) = (USERS[step.sender], USERS[step.target]);
            let what = match step.action {
                0 => state("m.room.member", sender, json!({ "membership": "join", "n": step.time })),
                1 => state("m.room.member", target, json!({ "membership": "leave" })),
                2 => state("m.room.member", target, json!({ "membership": "ban" })),
                3 => state("m.room.member", target, json!({ "membership": "invite" })),
                4 => state("m.room.join_rules", "", json!({ "join_rule": if step.time % 2 == 0 { "public" } else { "invite" } })),
                5 | 6 => {
                    let mut levels = levels(version);
                    levels["users"][target] = (i64::from(step.time) * 5).into();
                    state("m.room.power_levels", "", levels)
                }
                7 => topic(&step.time.to_string()),
                8 => state("org.example.note", sender, json!({ "n": step.time })),
                _ => message("x"),
            };
            room.time = step.time;
            if let Ok(id) = room.send(&prev, sender, what) {
                tips.push(id);
            }
        }
    }
}
