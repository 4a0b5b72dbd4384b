use std::collections::BTreeMap;

use projections::{
    Position, View,
    models::{events, state, timeline},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use schemas::Nid;
use serde_json::{Value, json};

use super::{ask, events as events_of};
use crate::common::{
    Client, TestServer,
    rooms::{ids, text},
};

/// What a client knows of a room from nothing but its syncs.
struct Follower {
    client: Client,
    parameters: Vec<(&'static str, String)>,
    since: Option<String>,
    events: Vec<String>,
    state: BTreeMap<(String, String), String>,
}

impl Follower {
    fn new(client: &Client, parameters: &[(&'static str, String)]) -> Self {
        let parameters = parameters.to_vec();
        Self { client: client.clone(), parameters, since: None, events: Vec::new(), state: BTreeMap::new() }
    }

    /// Syncs, fills the gap that the timeline says is there, and applies the rest as the specification tells clients to.
    async fn follow(&mut self, id: &str) {
        let mut parameters: Vec<_> = self.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        parameters.extend(self.since.as_deref().map(|since| ("since", since)));
        let sync = ask(&self.client, &parameters).await.ok();
        self.since = Some(text(&sync["next_batch"]));
        let room = &sync["rooms"]["join"][id];
        let timeline = &room["timeline"];
        if timeline["limited"] == true {
            self.events.extend(self.missed(id, &timeline["prev_batch"]).await);
        }
        for event in events_of(&room["state"]).chain(events_of(&room["state_after"])) {
            self.learn(event);
        }
        for event in events_of(timeline) {
            self.events.push(text(&event["event_id"]));
            if room["state_after"].is_null() && event["state_key"].is_string() {
                self.learn(event);
            }
        }
    }

    fn learn(&mut self, event: &Value) {
        self.state.insert((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"]));
    }

    /// The events between those that it has and a token, page by page.
    async fn missed(&self, room: &str, before: &Value) -> Vec<String> {
        let (mut missed, mut from) = (Vec::new(), text(before));
        loop {
            let page = self.client.page(room, &format!("dir=b&limit=7&from={from}")).await;
            for id in ids(&page["chunk"]) {
                if self.events.last().is_some_and(|last| last == id) {
                    return missed.into_iter().rev().collect();
                }
                missed.push(id.to_owned());
            }
            match page["end"].as_str() {
                Some(end) => from = end.to_owned(),
                None => return missed.into_iter().rev().collect(),
            }
        }
    }
}

fn room_of(view: &View) -> Nid {
    timeline::activity(view, schemas::Lsn::ZERO, view.lsn()).next().unwrap().unwrap().1
}

fn id(view: &View, event: Nid) -> String {
    events::head(view, event).unwrap().unwrap().id
}

/// A random thing that somebody does.
async fn act(random: &mut StdRng, users: &[&Client], room: &str, n: usize) {
    let user = users[random.next_u64() as usize % users.len()];
    let some = random.next_u64() % 3;
    match random.next_u64() % 8 {
        0 => drop(user.set(room, "m.room.name", "", json!({ "name": n })).await),
        1 => drop(user.set(room, "org.example.state", &some.to_string(), json!({ "n": n })).await),
        2 => drop(
            user.put(&format!("/profile/{}/displayname", user.user), json!({ "displayname": n.to_string() }))
                .await
                .ok(),
        ),
        _ => drop(user.say(room, &n.to_string()).await),
    }
}

#[tokio::test]
async fn whatever_the_limits_nothing_is_missed_and_nothing_comes_twice() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let server = TestServer::start().await;
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = alice.create(json!({ "preset": "public_chat", "power_level_content_override": { "state_default": 0, "events": {} } })).await;
        bob.join(&room).await;
        let limited = |limit: u64, types: Value| {
            let filter = json!({ "room": { "timeline": { "limit": limit, "types": types } } });
            ("filter", filter.to_string())
        };
        let mut followers: Vec<_> = (1..=5).map(|n| Follower::new(&alice, &[limited(n, Value::Null)])).collect();
        let after = ("use_state_after", "true".to_owned());
        followers.push(Follower::new(&alice, &[limited(2, Value::Null), after.clone()]));
        // What a filter keeps out of the timeline is in the state.
        let mut choosy = [
            Follower::new(&alice, &[limited(3, json!(["m.room.message"]))]),
            Follower::new(&alice, &[limited(3, json!(["m.room.message"])), after]),
        ];
        for n in 0..120 {
            act(&mut random, &[&alice, &bob], &room, n).await;
            for follower in followers.iter_mut().chain(&mut choosy) {
                if random.next_u64() % 7 == 0 {
                    follower.follow(&room).await;
                }
            }
        }
        let now = server.app().view().unwrap();
        let nid = room_of(&now);
        let all: Vec<_> =
            timeline::forward(&now, nid, Position::START).map(|item| id(&now, item.unwrap().1.event)).collect();
        let current = state::current(&now, nid).unwrap();
        let current: BTreeMap<_, _> = state::all(&now, &current)
            .map(|entry| entry.map(|entry| ((entry.event_type, entry.state_key), id(&now, entry.event))).unwrap())
            .collect();
        for follower in followers.iter_mut().chain(&mut choosy) {
            follower.follow(&room).await;
            assert_eq!(follower.state, current, "seed {seed}, {:?}", follower.parameters);
        }
        for follower in &followers {
            assert_eq!(follower.events, all, "seed {seed}, {:?}", follower.parameters);
        }
        drop(now);
        server.finish().await;
    }
}
