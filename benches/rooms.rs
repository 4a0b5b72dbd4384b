//! What the rules of a room cost: building and authorising a message (signing is most of it), checking one of another
//! server, showing one to a client, and settling a conflict in a room with many members.

#![expect(clippy::expect_used, reason = "a measurement that can't go on says so by panicking")]

use std::{collections::HashMap, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use everfold::{
    keys::OwnKey,
    rooms::{
        Builder, Built, Halves, Pdu, Position, Prototype, StateMap,
        auth::authorise,
        check::Unverified,
        client,
        create::{Begun, begin, member},
        resolve::resolve,
        versions,
    },
};
use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, UInt, UserId, events::StateEventType,
    server_name, user_id,
};
use serde_json::{Value, json, value::RawValue};

const NOW: MilliSecondsSinceUnixEpoch = MilliSecondsSinceUnixEpoch(UInt::MAX);

fn object(value: Value) -> CanonicalJsonObject {
    serde_json::from_value(value).expect("it is an object of integers and text")
}

fn message() -> Prototype {
    let body = "A message of the usual length, as people write them all day long.";
    Prototype::message("m.room.message", object(json!({ "body": body, "msgtype": "m.text" })))
}

/// A public room of the newest version.
struct Room {
    key: OwnKey,
    creator: &'static UserId,
    begun: Begun,
}

impl Room {
    fn new() -> Self {
        let key = OwnKey::from_seed(&[7; 32], "a_test", server_name!("example.org")).expect("the version is fine");
        let creator = user_id!("@alice:example.org");
        let events = vec![
            Prototype::state("m.room.create", "", object(json!({ "room_version": versions::DEFAULT }))),
            Prototype::state(
                "m.room.member",
                creator.as_str(),
                member("join", &everfold::rooms::create::Profile::default()),
            ),
            Prototype::state("m.room.power_levels", "", object(json!({ "users": { "@bob:example.org": 50 } }))),
            Prototype::state("m.room.join_rules", "", object(json!({ "join_rule": "public" }))),
        ];
        let begun = begin(builder(&key), events, creator, None, NOW).expect("the rules allow it");
        Self { key, creator, begun }
    }

    fn look(&self, event_type: &StateEventType, state_key: &str) -> Option<Pdu> {
        self.begun.state.get(&(event_type.to_string(), state_key.to_owned())).cloned()
    }

    fn build(&self, what: Prototype, sender: &UserId) -> Built {
        let last = &self.begun.events[self.begun.events.len() - 1].pdu;
        let prev_events = [last.id().to_owned()];
        let position = Position { room_id: Some(last.room_id()), prev_events: &prev_events, depth: last.depth() + 1 };
        let state = |event_type: &StateEventType, key: &str| self.look(event_type, key);
        builder(&self.key).build(what, sender, NOW, position, state).expect("it is small")
    }
}

fn builder(key: &OwnKey) -> Builder<'_> {
    Builder { rules: versions::rules(&versions::DEFAULT).expect("the default has rules"), key }
}

fn events(c: &mut Criterion) {
    let room = Room::new();
    let rules = builder(&room.key).rules;
    let built = room.build(message(), room.creator);
    let whole = RawValue::from_string(Halves::of(&built.learned).join().expect("they belong together"));
    let whole = whole.expect("it is JSON");
    let keys = room.key.public_map();

    c.bench_function("sign", |b| {
        let mut event = object(json!({ "body": "x" }));
        b.iter(|| room.key.sign_json(&mut event));
    });
    c.bench_function("build a message", |b| b.iter(|| room.build(message(), room.creator)));
    c.bench_function("authorise a message", |b| {
        let state = |event_type: &StateEventType, key: &str| room.look(event_type, key);
        b.iter(|| authorise(&built.pdu, rules, state));
    });
    c.bench_function("check a message of another server", |b| {
        b.iter(|| Unverified::read(&whole, rules).and_then(|event| event.verify(&keys)));
    });
    c.bench_function("read a message", |b| b.iter(|| Pdu::learned(&built.learned)));
    c.bench_function("show a message to a client", |b| {
        b.iter(|| client::event(&built.learned.id, Halves::of(&built.learned), None));
    });
}

/// Two topics at once in a room of a thousand members.
fn fork(c: &mut Criterion) {
    let room = Room::new();
    let mut events: HashMap<OwnedEventId, Pdu> = HashMap::new();
    let mut state = StateMap::new();
    let mut keep = |pdu: &Pdu, state: &mut StateMap| {
        events.insert(pdu.id().to_owned(), pdu.clone());
        let place = (pdu.kind().to_owned(), pdu.state_key().unwrap_or_default().to_owned());
        state.insert(place, pdu.id().to_owned());
    };
    for built in &room.begun.events {
        keep(&built.pdu, &mut state);
    }
    for n in 0..1_000 {
        let user = UserId::parse(format!("@user{n}:example.org")).expect("it is a user id");
        let join = Prototype::state("m.room.member", user.as_str(), object(json!({ "membership": "join" })));
        keep(&room.build(join, &user).pdu, &mut state);
    }
    let mut states = [state.clone(), state];
    for (topic, state) in ["one", "two"].iter().zip(&mut states) {
        let topic = Prototype::state("m.room.topic", "", object(json!({ "topic": topic })));
        keep(&room.build(topic, room.creator).pdu, state);
    }
    let states = states.each_ref();
    let rules = builder(&room.key).rules;
    c.bench_function("settle a conflict among 1,000 members", |b| {
        b.iter(|| resolve(rules, black_box(&states), |id: &EventId| events.get(id).cloned()));
    });
}

criterion_group!(benches, events, fork);
criterion_main!(benches);
