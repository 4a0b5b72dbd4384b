//! Replay equals live: whatever people do, folding the log again gives the same read models, in batches of any size,
//! with restarts in its midst, and beside a server that goes on.
//!
//! `EVERFOLD_TEST_SEED` repeats a run, `EVERFOLD_TEST_STEPS` makes it longer.

mod accounts;
mod jobs;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use everfold::{
    fold::RebuildError,
    log::{EmbeddedLog, LogReader},
};
use futures::future::join;
use http::Method;
use projections::{View, digest, models};
use schemas::{Fact, Lsn, Record};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{
    Chance, Client, Reply, SigningKey, TestServer,
    remote::{Remote, message, set, topic},
    replay,
};

/// What a workload can't cause: the log begins and waits by itself, nodes settle who does what, and what else is here
/// nobody can ask for yet.
const ELSEWHERE: &[&str] = &["Epoch", "IdleGap", "FormatBarrier", "ShardsTaken", "StateSetPart", "StateSet"];

#[tokio::test]
async fn replay_equals_live_after_a_random_workload() {
    let mut caused = BTreeSet::new();
    for seed in Chance::seeds(2) {
        println!("EVERFOLD_TEST_SEED={seed}");
        let steps = std::env::var("EVERFOLD_TEST_STEPS").map_or(400, |text| text.parse().unwrap());
        let server =
            TestServer::with(&[("http.body_bytes", "4194304"), ("sessions.last_seen_on_log", "everything")]).await;
        let town = Town::found(&server, seed).await;
        let beside = async || {
            futures::join!(
                town.abroad(&server),
                town.trust(),
                town.build(),
                town.look_after(&server),
                town.clear(&server)
            )
        };
        join(town.live(&server, steps), beside()).await;

        // All models are folded anew while people go on.
        let anew = async {
            let all = || models::ALL.iter().map(|projection| projection.model).collect::<Vec<_>>();
            // Two at a time would fold into the same tables.
            let (one, other) = join(server.rebuild(all()), server.rebuild(all())).await;
            one.unwrap();
            assert!(matches!(other, Err(RebuildError::Busy)), "{other:?}");
        };
        join(anew, town.live(&server, steps / 2)).await;
        rebuild_each(&server).await;

        let stopped = server.restart_after(|config| {
            caused.extend(check_folds(&config.log_folder(), &config.read_models_folder(), &mut Chance::seeded(seed)));
        });
        stopped.await.unwrap().finish().await;
    }
    let all = Fact::ALL.iter().map(|(.., name)| name).filter(|name| !ELSEWHERE.contains(*name));
    let missing: Vec<_> = all.filter(|name| !caused.contains(**name)).collect();
    assert!(missing.is_empty(), "the workload doesn't cause {missing:?}");
}

/// Folds each model anew with nothing but what it reads: it comes out as it was.
async fn rebuild_each(server: &TestServer) {
    for projection in models::ALL {
        loop {
            let before = server.app().view().unwrap();
            server.rebuild(vec![projection.model]).await.unwrap();
            let after = server.app().view().unwrap();
            let generation = |view: &View| view.generations().of(projection.model).unwrap().generation;
            assert_eq!(generation(&after), generation(&before) + 1, "{:?}", projection.model);
            // The server itself may have noted something in between.
            if before.lsn() == after.lsn() {
                assert_eq!(digest::all(&after).unwrap(), digest::all(&before).unwrap(), "{:?}", projection.model);
                break;
            }
        }
    }
}

/// Folds a log in many ways; says which facts are on it.
fn check_folds(log: &std::path::Path, read_models: &std::path::Path, chance: &mut Chance) -> BTreeSet<&'static str> {
    let log = EmbeddedLog::open_read_only(log).unwrap();
    let live = replay::digest_of(read_models);
    for most in [1, 64, 100_000] {
        let folded = replay::fold_from_zero(&log, &mut |_| 1 + chance.below(most));
        assert_eq!(folded, live, "in batches of up to {most}");
    }
    let folder = TempDir::new().unwrap();
    let mut stops: Vec<u64> = (0..5).map(|_| chance.below(usize::try_from(log.tail().0).unwrap()) as u64).collect();
    stops.sort_unstable();
    for stop in stops.into_iter().map(Lsn).chain([log.tail()]) {
        replay::fold(folder.path(), &log, stop, &mut |_| 1 + chance.below(50));
    }
    assert_eq!(replay::digest_of(folder.path()), live, "with restarts in its midst");
    let entries = log.read(Lsn::FIRST, usize::MAX, usize::MAX).unwrap();
    let records = entries.iter().map(|entry| Record::decode(&entry.bytes).unwrap());
    records.flat_map(|record| record.facts).map(|fact| fact.decode().unwrap().name()).collect()
}

/// Who and what is there.
struct Town {
    chance: RefCell<Chance>,
    people: RefCell<Vec<Client>>,
    rooms: RefCell<Vec<String>>,
    events: RefCell<Vec<(String, String)>>,
    next: Cell<usize>,
}

type Asked = (Method, String, Value);

impl Town {
    async fn found(server: &TestServer, seed: u64) -> Self {
        let town = Self {
            chance: RefCell::new(Chance::seeded(seed)),
            people: RefCell::default(),
            rooms: RefCell::default(),
            events: RefCell::default(),
            next: Cell::new(0),
        };
        let founders = [server.admin("root").await, server.user("ann").await, server.user("ben").await];
        let room = founders[1].create(json!({ "preset": "public_chat" })).await;
        for founder in &founders {
            founder.join(&room).await;
        }
        let hello = founders[1].say(&room, "hello").await;
        town.events.borrow_mut().push((room.clone(), hello));
        town.rooms.borrow_mut().push(room);
        town.people.borrow_mut().extend(founders);
        town
    }

    /// Three at a time do something.
    async fn live(&self, server: &TestServer, steps: usize) {
        let walk = async || {
            for _ in 0..steps / 3 {
                self.step(server).await;
            }
        };
        futures::join!(walk(), walk(), walk());
    }

    fn below(&self, end: usize) -> usize {
        self.chance.borrow_mut().below(end)
    }

    fn pick<T: Clone>(&self, from: &[T]) -> T {
        self.chance.borrow_mut().pick(from)
    }

    fn number(&self) -> usize {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    async fn step(&self, server: &TestServer) {
        let people = self.people.borrow().clone();
        // The founders, who may do most, are the busiest.
        let me = if self.below(3) == 0 { self.pick(&people[..3]) } else { self.pick(&people) };
        let other = self.pick(&people);
        let room = self.pick(&self.rooms.borrow());
        let (mut me, kind) = (me, self.below(12));
        let (method, path, body) = match kind {
            0 => return self.come_or_go(server, &me).await,
            1 => self.room_made_or_named(&room),
            2 | 3 => self.membership(&other, &room),
            4 | 5 => self.said(&other),
            6 => self.state(&me, &room),
            7 => self.read(&me),
            8 => self.kept(&me, &other, &room),
            9 => self.keys(&me, &other),
            10 => {
                me = people[0].clone();
                self.administered(&other)
            }
            _ => return self.synced(&me).await,
        };
        let reply = Reply::of(me.request(method.clone(), &path).json(&body)).await;
        assert!(!reply.status.is_server_error(), "{method} {path} {body}: {} {}", reply.status, reply.text);
        if let Some(room) = reply["room_id"].as_str().filter(|_| path == "/createRoom") {
            self.rooms.borrow_mut().push(room.to_owned());
        }
        if let (Some(event), Some(room)) = (reply["event_id"].as_str(), path.split('/').nth(2)) {
            self.events.borrow_mut().push((room.to_owned(), event.to_owned()));
        }
    }

    /// Accounts, sessions and devices.
    async fn come_or_go(&self, server: &TestServer, me: &Client) {
        let n = self.number();
        let name = me.user.trim_start_matches('@').split(':').next().unwrap().to_owned();
        let password = json!({ "auth": me.password_auth(&format!("password of {name}")) });
        match self.below(9) {
            7 => {
                let token = me.post("/_matrix/client/v1/login/get_token", password).await;
                let login = json!({ "type": "m.login.token", "token": token["login_token"] });
                let login = me.post("/login", login).await;
                assert!(!login.status.is_server_error(), "{}", login.text);
            }
            0 | 1 => {
                let user = server.user(&format!("user{n}")).await;
                let alone = user.create(json!({})).await;
                user.leave(&alone).await;
                user.post(&format!("/rooms/{alone}/forget"), json!({})).await.ok();
                self.people.borrow_mut().push(user);
            }
            2 => {
                let other = me.on_device(&format!("DEVICE{}", n % 3)).await;
                self.people.borrow_mut().push(other);
            }
            3 => {
                let extra = json!({ "refresh_token": true });
                let login = me.log_in(&me.user, &format!("password of {name}"), extra).await.ok();
                let refresh = json!({ "refresh_token": login["refresh_token"] });
                let refreshed = server.client().post("/refresh", refresh).await.ok();
                let again = me.logged_in(&login).with_token(refreshed["access_token"].as_str().unwrap());
                self.people.borrow_mut().push(again);
            }
            4 => drop(me.on_device(&format!("LEAVING{n}")).await.post("/logout", json!({})).await.ok()),
            5 => {
                let ending = server.user(&format!("ending{n}")).await;
                let room = self.pick(&self.rooms.borrow());
                ending.post(&format!("/join/{room}"), json!({})).await;
                let auth = json!({ "auth": ending.password_auth(&format!("password of ending{n}")) });
                ending.post("/account/deactivate", auth).await.ok();
            }
            6 => {
                let removed = me.on_device(&format!("REMOVED{n}")).await;
                let delete = removed.request(Method::DELETE, &format!("/devices/{}", removed.device)).json(&password);
                Reply::of(delete).await.ok();
            }
            _ => {
                let mut same = password;
                same["new_password"] = json!(format!("password of {name}"));
                same["logout_devices"] = json!(false);
                let reply = me.post("/account/password", same).await;
                assert!(!reply.status.is_server_error(), "{}", reply.text);
            }
        }
    }

    fn room_made_or_named(&self, room: &str) -> Asked {
        let n = self.number();
        let alias = format!("/directory/room/%23alias{}:test.example", n % 5);
        match self.below(6) {
            0 => {
                let version = (1 + self.below(12)).to_string();
                let body = json!({ "preset": "public_chat", "room_version": version, "name": format!("room {n}") });
                (Method::POST, "/createRoom".into(), body)
            }
            1 => {
                let body =
                    json!({ "invite": [self.pick(&self.people.borrow()).user], "topic": "private", "is_direct": true });
                (Method::POST, "/createRoom".into(), body)
            }
            2 | 3 => (Method::PUT, alias, json!({ "room_id": room })),
            4 => (Method::DELETE, alias, json!({})),
            _ => {
                let visibility = self.pick(&["public", "private"]);
                let path = format!("/directory/list/room/{room}");
                (Method::PUT, path, json!({ "visibility": visibility }))
            }
        }
    }

    fn membership(&self, other: &Client, room: &str) -> Asked {
        let verb = self.pick(&["join", "join", "leave", "forget", "invite", "kick", "ban", "unban", "knock"]);
        let path = if verb == "knock" { format!("/knock/{room}") } else { format!("/rooms/{room}/{verb}") };
        let target = if ["invite", "kick", "ban", "unban"].contains(&verb) { Some(&other.user) } else { None };
        let body = target.map_or_else(|| json!({ "reason": "why not" }), |user| json!({ "user_id": user }));
        (Method::POST, path, body)
    }

    fn said(&self, other: &Client) -> Asked {
        let n = self.number();
        let (room, event) = self.pick(&self.events.borrow());
        let relation = match self.below(7) {
            0 => {
                let path = format!("/rooms/{room}/redact/{event}/{n}");
                return (Method::PUT, path, json!({ "reason": "a slip" }));
            }
            1 => {
                let content = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": "+1" } });
                return (Method::PUT, format!("/rooms/{room}/send/m.reaction/{n}"), content);
            }
            2 => json!({ "rel_type": "m.thread", "event_id": event }),
            3 => json!({ "rel_type": "m.replace", "event_id": event }),
            _ => Value::Null,
        };
        let mut content = json!({ "msgtype": "m.text", "body": format!("{n} for {}", other.user) });
        content["m.mentions"] = json!({ "user_ids": [other.user] });
        if relation["rel_type"] == "m.replace" {
            content["m.new_content"] = json!({ "msgtype": "m.text", "body": "better" });
        }
        if !relation.is_null() {
            content["m.relates_to"] = relation;
        }
        // Now and then a client sends again what it has sent.
        (
            Method::PUT,
            format!("/rooms/{room}/send/m.room.message/{}", if n.is_multiple_of(9) { n - 1 } else { n }),
            content,
        )
    }

    fn state(&self, me: &Client, room: &str) -> Asked {
        let n = self.number();
        let (kind, key, content) = match self.below(6) {
            0 => ("m.room.name", String::new(), json!({ "name": format!("name {n}") })),
            1 => ("m.room.topic", String::new(), json!({ "topic": format!("topic {n}") })),
            2 => {
                let rule = self.pick(&["public", "public", "knock", "invite"]);
                ("m.room.join_rules", String::new(), json!({ "join_rule": rule }))
            }
            3 => {
                let visibility = self.pick(&["shared", "joined", "invited", "world_readable"]);
                ("m.room.history_visibility", String::new(), json!({ "history_visibility": visibility }))
            }
            4 => {
                let content = json!({ "membership": "join", "displayname": format!("here {n}") });
                ("m.room.member", me.user.clone(), content)
            }
            _ => ("org.example.thing", format!("key{}", n % 4), json!({ "n": n })),
        };
        (Method::PUT, format!("/rooms/{room}/state/{kind}/{key}"), content)
    }

    fn read(&self, me: &Client) -> Asked {
        let (room, event) = self.pick(&self.events.borrow());
        match self.below(7) {
            4 => (Method::POST, format!("/rooms/{room}/report/{event}"), json!({ "reason": "spam", "score": -50 })),
            5 => (Method::POST, format!("/rooms/{room}/report"), json!({ "reason": "spam" })),
            6 => (Method::POST, format!("/users/{}/report", me.user), json!({ "reason": "me" })),
            0 => {
                let body = json!({ "m.fully_read": event, "m.read.private": event });
                (Method::POST, format!("/rooms/{room}/read_markers"), body)
            }
            1 => {
                let body = json!({ "typing": true, "timeout": 1_000 });
                (Method::PUT, format!("/rooms/{room}/typing/{}", me.user), body)
            }
            2 => (Method::POST, format!("/rooms/{room}/receipt/m.read/{event}"), json!({ "thread_id": "main" })),
            _ => (Method::POST, format!("/rooms/{room}/receipt/m.read/{event}"), json!({})),
        }
    }

    /// Profile, account data, tags, rules, filters.
    fn kept(&self, me: &Client, other: &Client, room: &str) -> Asked {
        let (n, user) = (self.number(), &me.user);
        let rule = format!("/pushrules/global/content/rule{}", n % 3);
        match self.below(12) {
            0 => (Method::PUT, format!("/profile/{user}/displayname"), json!({ "displayname": format!("name {n}") })),
            1 => (Method::PUT, format!("/profile/{user}/org.example.mood"), json!({ "org.example.mood": n })),
            2 => (Method::DELETE, format!("/profile/{user}/displayname"), json!({})),
            3 => (Method::PUT, format!("/user/{user}/account_data/org.example.{}", n % 3), json!({ "n": n })),
            4 => {
                let path = format!("/user/{user}/rooms/{room}/account_data/org.example.{}", n % 3);
                (Method::PUT, path, json!({ "n": n }))
            }
            5 => (Method::PUT, format!("/user/{user}/rooms/{room}/tags/u.{}", n % 3), json!({ "order": 0.5 })),
            6 => (Method::DELETE, format!("/user/{user}/rooms/{room}/tags/u.{}", n % 3), json!({})),
            7 => (Method::PUT, rule, json!({ "pattern": "for", "actions": ["notify", { "set_tweak": "highlight" }] })),
            8 => (Method::DELETE, rule, json!({})),
            9 => {
                let path = "/pushrules/global/underride/.m.rule.message/enabled".into();
                (Method::PUT, path, json!({ "enabled": n.is_multiple_of(2) }))
            }
            10 => {
                let limit = json!({ "room": { "timeline": { "limit": n % 7 } } });
                (Method::POST, format!("/user/{user}/filter"), limit)
            }
            _ => {
                let messages = json!({ other.user.clone(): { "*": { "n": n } } });
                (Method::PUT, format!("/sendToDevice/org.example.note/{n}"), json!({ "messages": messages }))
            }
        }
    }

    fn keys(&self, me: &Client, other: &Client) -> Asked {
        let n = self.number();
        let key = json!({ "key": format!("{n:0>43}"), "signatures": { me.user.clone(): { "ed25519:D": "c2ln" } } });
        let upload = |body: Value| (Method::POST, "/keys/upload".to_owned(), body);
        match self.below(7) {
            0 => upload(json!({ "device_keys": SigningKey::of_device(&me.device).device_keys(me) })),
            1 | 2 => upload(json!({ "one_time_keys": { format!("signed_curve25519:K{n}"): key } })),
            3 => upload(json!({ "fallback_keys": { format!("signed_curve25519:F{n}"): key } })),
            4 => {
                let wanted = json!({ other.user.clone(): { other.device.clone(): "signed_curve25519" } });
                (Method::POST, "/keys/claim".into(), json!({ "one_time_keys": wanted }))
            }
            5 => {
                let master = SigningKey::of_user().cross_signing_key(&me.user, "master");
                (Method::POST, "/keys/device_signing/upload".into(), json!({ "master_key": master }))
            }
            _ => {
                let name = json!({ "display_name": format!("device {n}") });
                (Method::PUT, format!("/devices/{}", me.device), name)
            }
        }
    }

    /// The founders verify themselves and each other.
    async fn trust(&self) {
        let founders = self.people.borrow()[..3].to_vec();
        let mut masters: Vec<(String, SigningKey)> = Vec::new();
        for (me, name) in founders.iter().zip(["root", "ann", "ben"]) {
            let device = SigningKey::of_device(&me.device).device_keys(me);
            me.post("/keys/upload", json!({ "device_keys": device })).await.ok();
            let [master, own, others] = [(); 3].map(|()| SigningKey::of_user());
            let keys = json!({
                "auth": me.password_auth(&format!("password of {name}")),
                "master_key": master.cross_signing_key(&me.user, "master"),
                "self_signing_key": master.sign(&me.user, own.cross_signing_key(&me.user, "self_signing")),
                "user_signing_key": master.sign(&me.user, others.cross_signing_key(&me.user, "user_signing")),
            });
            me.post("/keys/device_signing/upload", keys).await.ok();
            let mut signed = json!({ me.user.clone(): { me.device.clone(): own.sign(&me.user, device) } });
            for (user, key) in &masters {
                let object = others.sign(&me.user, key.cross_signing_key(user, "master"));
                signed[user] = json!({ key.public.clone(): object });
            }
            me.post("/keys/signatures/upload", signed).await.ok();
            masters.push((me.user.clone(), master));
        }
    }

    /// A room that is too large for one record.
    async fn build(&self) {
        let event = |n: usize| json!({ "type": "org.example.large", "state_key": n.to_string(), "content": { "text": "x".repeat(60_000) } });
        let state: Vec<Value> = (0..20).map(event).collect();
        let ann = self.people.borrow()[1].clone();
        let room = ann.create(json!({ "preset": "public_chat", "initial_state": state })).await;
        self.rooms.borrow_mut().push(room);
    }

    /// In a room of Ann's, somebody of another server talks too, who has not seen all, and of whom not all was seen.
    async fn abroad(&self, server: &TestServer) {
        const EVE: &str = "@eve:e.example";
        let ann = self.people.borrow()[1].clone();
        let levels = json!({ "events_default": 0, "state_default": 0 });
        let body = json!({ "preset": "public_chat", "power_level_content_override": levels });
        let room = ann.create(body).await;
        let mut eve = Remote::joined(server, &room, EVE).await;
        for n in 0..20 {
            ann.say(&room, &format!("{n} here")).await;
            let what = match self.below(3) {
                0 => message(&format!("{n} there")),
                1 => topic(&format!("{n} there")),
                _ => set("m.room.name", "", json!({ "name": format!("{n} there") })),
            };
            let said = eve.send(EVE, what);
            if self.below(2) == 0 {
                eve.deliver_outliers(server, &[&said]).await;
            }
            eve.deliver(server, &said).await;
            match self.below(3) {
                0 => eve.room.catch_up(server),
                1 => drop(ann.set(&room, "m.room.topic", "", json!({ "topic": format!("{n} here") })).await),
                _ => {}
            }
        }
        eve.room.catch_up(server);
        eve.room.check(server);
        // An administrator gives up what she says now, and the room.
        for what in [message("aside"), topic("aside")] {
            let aside = eve.send_aside(EVE, what);
            eve.deliver(server, &aside).await;
        }
        let root = self.people.borrow()[0].clone();
        let of_room = |what: &str| format!("/_synapse/admin/v1/rooms/{room}/{what}");
        root.delete(&of_room("forward_extremities")).await.ok();
        root.put(&of_room("block"), json!({ "block": true })).await.ok();
    }

    fn administered(&self, other: &Client) -> Asked {
        let n = self.number() % 3;
        let tokens = "/_synapse/admin/v1/registration_tokens";
        let name = other.user.trim_start_matches('@').split(':').next().unwrap();
        match self.below(6) {
            5 => {
                let kind = self.pick(&["_synapse/admin/v1/user", "_synapse/admin/v1/event", "_everfold/admin/v1/room"]);
                (Method::DELETE, format!("/{kind}_reports/{}", 1 + self.below(5)), json!({}))
            }
            0 => (Method::POST, format!("{tokens}/new"), json!({ "token": format!("token{n}") })),
            1 => (Method::DELETE, format!("{tokens}/token{n}"), json!({})),
            2 => (Method::PUT, format!("/_synapse/admin/v1/users/{}/admin", other.user), json!({ "admin": true })),
            3 => {
                let same = json!({ "new_password": format!("password of {name}"), "logout_devices": false });
                (Method::POST, format!("/_synapse/admin/v1/reset_password/{}", other.user), same)
            }
            _ => (Method::PUT, format!("{tokens}/token{n}"), json!({ "uses_allowed": 5 })),
        }
    }

    /// Gets what waits for the device; the second time says that it was got.
    async fn synced(&self, me: &Client) {
        let first = me.get("/sync").await;
        if first.status == 200 {
            // In between, somebody may have logged the device out.
            let next = me.get(&format!("/sync?timeout=0&since={}", first["next_batch"].as_str().unwrap())).await;
            assert!([200, 401].contains(&next.status.as_u16()), "{}", next.text);
        }
    }
}
