//! Servers that have seen the same events agree, in whatever order these came: random histories, each given by a seed.
//! `SIM_SEED=7 cargo test --test it convergence` repeats one.

use std::{collections::BTreeSet, time::Duration};

use everfold::{
    commands::{Error, inbound::Received},
    rooms::{Built, Prototype},
};
use projections::models::events;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::common::{
    Client, TestServer,
    remote::{Remote, Replica, ends, member, message, redaction, set, topic},
};

const LOCAL: [&str; 2] = ["@alice:test.example", "@bob:test.example"];
const OF_B: [&str; 2] = ["@bea:b.example", "@ben:b.example"];
const OF_C: [&str; 2] = ["@cat:c.example", "@cid:c.example"];
const STEPS: usize = 80;

/// A room of three servers: this one, and two that are simulated.
struct World {
    rng: StdRng,
    version: u8,
    server: TestServer,
    room: String,
    clients: [Client; 2],
    remotes: [Remote; 2],
    /// Sees every event when it is made.
    all: Replica,
    /// Who has not got which event of which remote server yet: 0 is this server, then the remote ones.
    under_way: Vec<(usize, usize, Built)>,
    /// What became of events of the remote servers.
    outcomes: BTreeSet<String>,
    start: u64,
}

impl World {
    async fn begin(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let version = *[10, 11, 12].choose(&mut rng).unwrap();
        let (server, clock) = TestServer::with_clock(&[]).await;
        clock.advance(Duration::from_secs(1));
        let clients = [server.user("alice").await, server.user("bob").await];
        let body = json!({
            "preset": "public_chat", "room_version": version.to_string(),
            "power_level_content_override": levels(version, OF_B[0], 50),
        });
        let room = clients[0].create(body).await;
        clients[1].join(&room).await;
        let b = Remote::joined(&server, &room, OF_B[0]).await;
        let mut c = Remote::joined(&server, &room, OF_C[0]).await;
        c.join(&server, OF_C[1]).await;
        let (all, start) = (Replica::of(&server, &room), server.app().clock.now_ms());
        Self {
            rng,
            version,
            server,
            room,
            clients,
            remotes: [b, c],
            all,
            under_way: Vec::new(),
            outcomes: BTreeSet::new(),
            start,
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0..=2 => self.act_here().await,
            3..=5 => self.act_elsewhere(),
            6 => {
                let server = self.rng.random_range(0..2);
                self.remotes[server].room.catch_up(&self.server);
            }
            _ => self.deliver_one().await,
        }
    }

    /// Somebody of this server does something; the rules may forbid it.
    async fn act_here(&mut self) {
        let by = self.rng.random_range(0..2);
        let what = self.anything(LOCAL[by]);
        let (client, room) = (&self.clients[by], &self.room);
        let content = serde_json::to_value(&what.content).unwrap();
        let reply = match (&what.state_key, &what.redacts) {
            (Some(key), _) => client.put(&format!("/rooms/{room}/state/{}/{key}", what.kind), content).await,
            (None, Some(target)) => {
                client.put(&format!("/rooms/{room}/redact/{target}/{}", self.rng.next_u64()), json!({})).await
            }
            (None, None) => client.try_send(room, &what.kind, content).await,
        };
        assert!(reply.status.as_u16() < 500, "{}", reply.text);
        self.all.catch_up(&self.server);
    }

    /// Somebody of another server does something, allowed or not.
    fn act_elsewhere(&mut self) {
        let of = self.rng.random_range(0..2);
        let sender = *[OF_B, OF_C][of].choose(&mut self.rng).unwrap();
        let what = self.anything(sender);
        // Clocks go astray.
        self.remotes[of].clock = self.start + self.rng.random_range(0..10_000);
        let event = self.remotes[of].send(sender, what);
        self.all.see(event.pdu.clone());
        for to in (0..3).filter(|to| *to != of + 1) {
            self.under_way.push((to, of, event.clone()));
        }
    }

    fn anything(&mut self, sender: &str) -> Prototype {
        let users = [LOCAL, OF_B, OF_C].concat();
        let target = *users.choose(&mut self.rng).unwrap();
        let n = self.rng.random_range(0..100);
        match self.rng.random_range(0..16) {
            0 => topic(&n.to_string()),
            1 => set("m.room.name", "", json!({ "name": n.to_string() })),
            2 => set("org.example.note", sender, json!({ "n": n })),
            3 | 4 => set("m.room.member", sender, json!({ "membership": "join", "displayname": n.to_string() })),
            5 => member(target, "leave"),
            6 => member(target, "ban"),
            7 => member(target, "invite"),
            8 => set("m.room.join_rules", "", json!({ "join_rule": if n < 70 { "public" } else { "invite" } })),
            9 | 10 => set("m.room.power_levels", "", levels(self.version, target, n)),
            11 => {
                let known: Vec<_> = self.all.ids().cloned().collect();
                redaction(known.choose(&mut self.rng).unwrap())
            }
            _ => message(&n.to_string()),
        }
    }

    async fn deliver_one(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.under_way.len());
        let (to, from, event) = self.under_way.swap_remove(at);
        if !self.deliver(to, from, &event).await {
            self.under_way.push((to, from, event));
        }
    }

    /// Whether it could be judged.
    async fn deliver(&mut self, to: usize, from: usize, event: &Built) -> bool {
        if let Some(remote) = to.checked_sub(1) {
            let replica = &mut self.remotes[remote].room;
            let judged = event.pdu.prev_events().iter().all(|id| replica.knows(id));
            if judged {
                replica.see(event.pdu.clone());
            }
            return judged;
        }
        match self.remotes[from].try_deliver(&self.server, event).await {
            Ok(Received::Placed(verdict)) => {
                self.outcomes.insert(format!("{verdict:?}"));
                self.all.catch_up(&self.server);
                self.all.check(&self.server);
                true
            }
            Ok(Received::Need(ids)) => {
                let view = self.server.app().view().unwrap();
                let known = |id: &&ruma::OwnedEventId| events::nid(&view, id.as_str()).unwrap().is_some();
                assert_eq!(ids.iter().find(known), None, "what is needed is not there");
                self.outcomes.insert("Need".to_owned());
                false
            }
            Err(Error::Unavailable(_)) => false,
            // All of this server have left, or were made to.
            Err(Error::Refused(_)) => true,
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything comes to everybody, and this server merges what is left apart.
    async fn settle(&mut self) {
        while !self.under_way.is_empty() && self.is_somebody_here() {
            self.deliver_one().await;
            if self.rng.random_range(0..20) == 0 {
                // The room may have too many forks.
                self.clients[0].try_send(&self.room, "m.room.message", json!({})).await;
            }
            for remote in &mut self.remotes {
                remote.room.catch_up(&self.server);
            }
        }
        // Each merges some, as long as the sender was not made to leave.
        while self.clients[0].try_send(&self.room, "m.room.message", json!({})).await.status.is_success() {
            if ends(&self.server, &self.room).len() == 1 {
                self.outcomes.insert("Merged".to_owned());
                break;
            }
        }
        for remote in &mut self.remotes {
            remote.room.catch_up(&self.server);
            remote.room.check(&self.server);
        }
    }

    fn is_somebody_here(&self) -> bool {
        let current = crate::common::remote::current(&self.server, &self.room);
        LOCAL.iter().any(|user| {
            let event = current.get(&("m.room.member".to_owned(), (*user).to_owned()));
            let view = self.server.app().view().unwrap();
            let head = event.map(|id| events::find(&view, id.as_str()).unwrap().unwrap().1);
            head.and_then(|head| head.membership) == Some(projections::models::membership::Membership::Join)
        })
    }
}

fn levels(version: u8, user: &str, level: u32) -> Value {
    let mut levels = json!({ "users": { OF_B[0]: 50 }, "events": { "m.room.tombstone": 150 } });
    if version < 12 {
        levels["users"][LOCAL[0]] = 100.into();
    }
    if user != LOCAL[0] {
        levels["users"][user] = level.into();
    }
    levels
}

/// A history, and what it had in it.
async fn run(seed: u64) -> BTreeSet<String> {
    eprintln!("SIM_SEED={seed}");
    let mut world = World::begin(seed).await;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.settle().await;
    world.server.finish().await;
    world.outcomes
}

#[tokio::test]
async fn servers_that_have_seen_the_same_events_agree() {
    if let Ok(seed) = std::env::var("SIM_SEED") {
        run(seed.parse().unwrap()).await;
        return;
    }
    let mut outcomes = BTreeSet::new();
    for seed in 1..=8 {
        outcomes.extend(run(seed).await);
    }
    let all = ["Accepted", "Merged", "Need", "Rejected", "SoftFailed"];
    assert!(outcomes.iter().eq(all), "the histories are too simple: {outcomes:?}");
}
