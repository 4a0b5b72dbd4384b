//! What must hold over all models together.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*};
use schemas::{
    Fact,
    facts::{EventRestated, Placement, RoomForgotten, Verdict, Visibility},
};
use serde_json::{Value, json};

use super::{
    events, membership,
    membership::{Counts, Membership, server_of},
    relations, rooms, state, timeline,
};
use crate::{
    Cost, Page, Position,
    testing::{
        ALICE, SERVER, World,
        rooms::{Event, Room},
    },
};

const ID: &str = "!r:example.org";
const USERS: [&str; 4] = [ALICE, "@bob:example.org", "@eve:elsewhere.org", "@mallory:elsewhere.org"];

/// What a message costs in a room with so many local members, after `members` of them joined.
fn cost_of_a_message(members: usize) -> Cost {
    let mut world = World::new();
    let mut room = Room::created(&mut world, ID, ALICE);
    let users: Vec<_> = (0..members).map(|n| format!("@user{n}:example.org")).collect();
    for users in users.chunks(1000) {
        let joins: Vec<_> = users.iter().flat_map(|user| room.member(&format!("${user}"), user, "join")).collect();
        world.fold(joins);
    }
    world.fold(room.message("$before", ALICE, "Hi"));
    let reply = json!({"rel_type": "m.thread", "event_id": "$before"});
    world.fold(room.relating("$m", ALICE, reply, json!({"body": "Ho", "msgtype": "m.text"}))).cost
}

#[test]
fn a_message_costs_the_same_in_a_room_of_any_size() {
    let small = cost_of_a_message(10);
    assert_eq!(cost_of_a_message(10_000), small);
    assert!(small.writes < 40, "{small:?}");
}

/// One step of a room's life: what happens, and three numbers to choose by.
type Step = (u8, usize, usize, usize);

/// Turns steps into facts, so that they fit together; every event has the id `$n`.
struct Story {
    room: Room,
    events: Vec<Event>,
}

impl Story {
    fn id(&self, choice: usize) -> String {
        // Now and then one that is still to come.
        format!("${}", choice % (self.events.len() + 3))
    }

    fn prev(&self, choice: usize) -> Vec<String> {
        (choice..choice + 1 + choice % 2).map(|choice| self.id(choice)).collect()
    }

    fn live_id(&self, world: &World, choice: usize) -> Option<String> {
        let live = |event: &&Event| {
            let placed = events::find(&world.view(), &event.placed.id).unwrap().and_then(|(_, head)| head.shown_at());
            placed.is_some_and(Position::is_live)
        };
        let ids: Vec<_> = self.events.iter().filter(live).map(|event| event.placed.id.clone()).collect();
        (!ids.is_empty()).then(|| ids[choice % ids.len()].clone())
    }

    fn restated(&self, choice: usize, class: Placement, verdict: Verdict) -> Option<Fact> {
        let event = self.events.get(choice % self.events.len().max(1))?;
        let restated = EventRestated {
            id: event.placed.id.clone(),
            class,
            verdict,
            state_before: None,
            current: event.placed.current.clone(),
            visibility: Visibility::Shared,
        };
        Some(restated.into())
    }

    fn step(&mut self, world: &World, (kind, a, b, c): Step) -> Vec<Fact> {
        let id = format!("${}", self.events.len());
        let user = USERS[a % USERS.len()];
        let verdict = [Verdict::Accepted, Verdict::Accepted, Verdict::SoftFailed, Verdict::Rejected][b % 4];
        let message = json!({"sender": user, "prev_events": self.prev(c), "content": {"body": id}});
        let mut event = match kind % 12 {
            0 => self.room.live(&id, &message).verdict(verdict),
            1 => self.room.live(&id, &message).class(Placement::Outlier),
            2 => match self.live_id(world, a) {
                Some(anchor) => self
                    .room
                    .live(&id, &message)
                    .class(Placement::History { anchor, order: u32::try_from(self.events.len() + 1).unwrap() }),
                None => return Vec::new(),
            },
            3 => self.room.state(&id, user, "m.room.topic", "", json!({"topic": id})).verdict(verdict),
            4..=6 => {
                let membership = ["join", "invite", "leave", "ban", "knock"][b % 5];
                let event = self.room.member(&id, user, membership);
                if c % 4 == 0 { event.keep_current() } else { event }
            }
            7 => self.room.redaction(&id, user, &self.id(b), c % 2 == 0),
            8 => {
                let rel_type = ["m.thread", "m.annotation", "m.replace", "m.reference"][b % 4];
                let relates = json!({"rel_type": rel_type, "event_id": self.id(c), "key": "+"});
                self.room.relating(&id, user, relates, json!({"body": id, "m.new_content": {}}))
            }
            9 => {
                let class = [Placement::Live, Placement::Outlier][b % 2].clone();
                return self.restated(c, class, verdict).into_iter().collect();
            }
            10 => return self.events.get(b).cloned().map(Event::without_state).into_iter().flatten().collect(),
            _ => return vec![RoomForgotten { user: user.into(), room: ID.into() }.into()],
        };
        if verdict == Verdict::Rejected || matches!(kind % 12, 1 | 2) {
            event.placed.current.clear();
        }
        let event = event.without_state();
        self.events.push(event.clone());
        event.into_iter().collect()
    }
}

/// The tables that repeat others in another order agree with them.
fn check_indexes(world: &World, story: &Story) {
    let (view, room) = (world.view(), world.room(ID));
    let order: Vec<_> = timeline::forward(&view, room, Position::START).map(Result::unwrap).collect();
    assert!(order.is_sorted_by(|a, b| a.0 < b.0));
    let shown: BTreeMap<_, _> = order.iter().map(|(position, item)| (item.event, *position)).collect();
    for event in &story.events {
        let Some((nid, head)) = events::find(&view, &event.placed.id).unwrap() else { continue };
        assert_eq!(head.shown_at(), shown.get(&nid).copied(), "{}", head.id);
        let bytes = events::bytes(&view, nid).unwrap().unwrap();
        assert!(head.redacted_by.is_none() || bytes.rest.is_none() && head.relation.is_none());
        let thread = relations::thread(&view, room, &head.id).unwrap().map_or(0, |thread| thread.count);
        let replies = relations::children(&view, room, &head.id, Some("m.thread"), Position::START).count();
        assert_eq!(thread, replies as u64);
    }
    for extremity in timeline::extremities(&view, room).unwrap() {
        assert!(shown[&extremity.event].is_live());
    }

    let mut counts = Counts::default();
    let mut servers: BTreeMap<String, u64> = BTreeMap::new();
    let mut in_state = BTreeSet::new();
    for entry in state::of_type(&view, &state::current(&view, room).unwrap(), "m.room.member").map(Result::unwrap) {
        in_state.insert((entry.state_key, entry.event));
    }
    let members: Vec<_> = membership::members_of(&view, room, "").map(Result::unwrap).collect();
    assert_eq!(members.iter().map(|(user, member)| (user.clone(), member.event)).collect::<BTreeSet<_>>(), in_state);
    for (user, member) in &members {
        let local = server_of(user) == SERVER;
        counts.remembered += u64::from(local && !member.forgotten);
        let joined = member.membership == Membership::Join;
        counts.joined_local += u64::from(local && joined);
        *servers.entry(server_of(user).to_owned()).or_default() += u64::from(joined);
        let rooms = membership::all_rooms_of(&view, user).map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(rooms, if member.forgotten { vec![] } else { vec![(room, *member)] });
    }
    let number = |membership| {
        let users: BTreeSet<_> = membership::users_in(&view, room, membership).map(Result::unwrap).collect();
        let expected = members.iter().filter(|(_, member)| member.membership == membership);
        assert_eq!(users, expected.map(|(user, _)| user.clone()).collect());
        users.len() as u64
    };
    counts.joined = number(Membership::Join);
    counts.invited = number(Membership::Invite);
    counts.knocked = number(Membership::Knock);
    counts.left = number(Membership::Leave);
    counts.banned = number(Membership::Ban);
    assert_eq!(membership::counts(&view, room).unwrap(), counts);
    servers.retain(|_, joined| *joined > 0);
    assert_eq!(membership::servers_in(&view, room).collect::<Result<BTreeMap<_, _>, _>>().unwrap(), servers);
    assert_eq!(membership::local_users_in(&view, room).count() as u64, counts.joined_local);
    check_summary(world, counts);
}

/// What administrators are shown of the room is what its state and its members say.
fn check_summary(world: &World, counts: Counts) {
    let (view, room) = (world.view(), world.room(ID));
    let current = state::current(&view, room).unwrap();
    let summary = rooms::summary(&view, room).unwrap().unwrap();
    let figures = rooms::Figures {
        public: false,
        state_events: current.len().into(),
        joined: counts.joined,
        joined_local: counts.joined_local,
    };
    assert_eq!(summary.figures, figures);
    let topic = state::get(&view, &current, "m.room.topic", "").unwrap().map(|event| events::client(&view, event));
    let topic: Option<Value> = topic.map(|text| serde_json::from_str(&text.unwrap().unwrap()).unwrap());
    assert_eq!(summary.settings.topic.as_deref(), topic.as_ref().and_then(|event| event["content"]["topic"].as_str()));
    for order in [rooms::Order::Name, rooms::Order::JoinedMembers, rooms::Order::StateEvents] {
        let page = rooms::page(&view, order, true, &rooms::Filter::default(), 0, 9).unwrap();
        assert_eq!(page, Page { rows: vec![room], total: 1 });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_room_of_any_history_is_consistent_and_the_same_in_batches_of_any_size(
        records in vec(vec((any::<u8>(), 0..64_usize, 0..64_usize, 0..64_usize), 1..4), 1..40),
    ) {
        let mut world = World::new();
        let mut story = Story { room: Room::created(&mut world, ID, ALICE), events: Vec::new() };
        for steps in records {
            let mut facts = Vec::new();
            for step in steps {
                facts.extend(story.step(&world, step));
            }
            world.fold(facts);
        }
        check_indexes(&world, &story);
        world.check_replay();
    }
}
