//! The server killed with -9 at random moments under load: every acknowledged write is there after the restart, nothing
//! is there twice, and the read models are the fold of the log.
//!
//! `EVERFOLD_TEST_KILLS=50` is the long form; `EVERFOLD_TEST_SEED` repeats what the clients do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says so by panicking")]

#[expect(dead_code, clippy::expect_used, reason = "the tests in process use the rest of it")]
#[path = "it/common/client.rs"]
mod client;
#[path = "it/common/replay.rs"]
mod replay;
#[path = "kafka/said.rs"]
mod said;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use futures::future::{Either, join_all, select};
use http::{Method, StatusCode};
use projections::{
    View,
    models::{keys, to_device},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::RequestBuilder;
use schemas::Lsn;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use client::Client;
use said::check_said;

const WORKERS: usize = 6;
/// One-time keys that the clients take from one device.
const KEYS: usize = 2_000;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

#[tokio::test]
async fn what_was_acknowledged_survives_every_kill_and_nothing_is_doubled() {
    let (kills, seed) = (setting("EVERFOLD_TEST_KILLS", 5), setting("EVERFOLD_TEST_SEED", 1));
    println!("EVERFOLD_TEST_SEED={seed} EVERFOLD_TEST_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let data = TempDir::new().unwrap();
    let read_models = data.path().join("read-models");
    let mut served = Served::start(data.path());
    let mut crowd = Crowd::gather(&served, &mut random).await;
    for _ in 0..kills {
        if random.random_ratio(1, 4) {
            // Also while it starts.
            served.kill();
            let starting = Served::spawn(data.path());
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
            kill(starting);
            served = Served::start(data.path());
        }
        crowd.work_until_killed(served, &mut random).await;
        if random.random_ratio(1, 4) {
            std::fs::remove_dir_all(&read_models).unwrap();
        }
        served = Served::start(data.path());
    }
    crowd.settle(&served.url).await;
    served.stop();
    let view = replay::check(&data.path().join("log"), &read_models);
    crowd.check(&view);
    let told = std::fs::read_to_string(data.path().join("told")).unwrap();
    assert!(!told.contains("panicked"), "{told}");
}

/// The program, as a process.
struct Served {
    child: Child,
    url: String,
    /// Kept, since it goes on writing.
    _output: BufReader<ChildStdout>,
}

impl Served {
    fn spawn(data: &Path) -> Child {
        let told = File::options().create(true).append(true).open(data.join("told")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_everfold"));
        command.args(["serve", "--server-name", "test.example", "--registration", "open", "--listen", "127.0.0.1:0"]);
        command.arg("--data").arg(data).env_remove("EVERFOLD_CONFIG").env("EVERFOLD_RATE_LIMITS", "off");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(told).spawn().unwrap()
    }

    fn start(data: &Path) -> Self {
        let mut child = Self::spawn(data);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let told = || std::fs::read_to_string(data.join("told")).unwrap();
        let url = line.trim().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("it doesn't start: {}", told())).to_owned();
        Self { child, url, _output: output }
    }

    /// Dropping it is the way to kill it.
    fn kill(self) {
        drop(self);
    }

    fn stop(mut self) {
        assert!(Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

/// So that a test that fails leaves no process behind.
impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended already can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Those who talk to it.
struct Crowd {
    workers: Vec<Worker>,
    keeper: Value,
    room: String,
}

impl Crowd {
    async fn gather(served: &Served, random: &mut StdRng) -> Self {
        let nobody = Client::new(served.url.clone());
        let register = async |name: String| {
            let auth = json!({ "type": "m.login.dummy" });
            nobody.post("/register", json!({ "username": name, "password": "a password", "auth": auth })).await.ok()
        };
        let keeper = register("keeper".into()).await;
        let keeping = nobody.logged_in(&keeper);
        let levels = json!({ "state_default": 0 });
        let body = json!({ "preset": "public_chat", "power_level_content_override": levels });
        let made = [keeping.post("/createRoom", body.clone()).await.ok(), keeping.post("/createRoom", body).await.ok()];
        let [room, door] = made.map(|made| made["room_id"].as_str().unwrap().to_owned());
        for first in (0..KEYS).step_by(500) {
            let signatures = json!({ keeping.user.clone(): { "ed25519:KEY": "c2ln" } });
            let key = |n: usize| {
                let key = json!({ "key": format!("{n:0>43}"), "signatures": signatures });
                (format!("signed_curve25519:{n}"), key)
            };
            let batch: serde_json::Map<_, _> = (first..first + 500).map(key).collect();
            keeping.post("/keys/upload", json!({ "one_time_keys": batch })).await.ok();
        }
        let mut workers = Vec::new();
        for n in 0..WORKERS {
            let login = register(format!("worker{n}")).await;
            nobody.logged_in(&login).post(&format!("/join/{room}"), json!({})).await.ok();
            workers.push(Worker {
                name: format!("worker{n}"),
                random: StdRng::seed_from_u64(random.random()),
                login,
                peer: Value::Null,
                keeper: keeper.clone(),
                room: room.clone(),
                door: door.clone(),
                messages: BTreeMap::new(),
                to_device: BTreeMap::new(),
                state: Register::default(),
                data: Register::default(),
                joined: Register::default(),
                claimed: Vec::new(),
                claims_lost: 0,
            });
        }
        for n in 0..WORKERS {
            workers[n].peer = workers[(n + 1) % WORKERS].login.clone();
        }
        Self { workers, keeper, room }
    }

    /// Lets all work at once, and kills the server after some random number of acknowledgements.
    async fn work_until_killed(&mut self, served: Served, random: &mut StdRng) {
        let (acknowledged, url) = (Semaphore::new(0), served.url.clone());
        let work = join_all(self.workers.iter_mut().map(|worker| worker.work(&url, &acknowledged)));
        let moment = async {
            let _ = acknowledged.acquire_many(random.random_range(1..400)).await.unwrap();
            tokio::time::sleep(Duration::from_micros(random.random_range(0..5_000))).await;
        };
        let work = match select(Box::pin(work), Box::pin(moment)).await {
            Either::Left(_) => panic!("nobody could work any more"),
            Either::Right(((), work)) => work,
        };
        served.kill();
        work.await;
    }

    /// Sends again whatever was not acknowledged, to a server that stays.
    async fn settle(&mut self, url: &str) {
        for worker in &mut self.workers {
            worker.settle(&Client::new(url.to_owned()).logged_in(&worker.login), &Semaphore::new(0)).await.unwrap();
        }
    }

    /// Everything is in the read models, once.
    fn check(&self, view: &View) {
        let acknowledged = self
            .workers
            .iter()
            .flat_map(|worker| worker.messages.iter().map(|(n, id)| (worker.body(*n), id.clone().unwrap())));
        check_said(view, &self.room, acknowledged);
        for worker in &self.workers {
            let (user, device) = (worker.peer["user_id"].as_str().unwrap(), worker.peer["device_id"].as_str().unwrap());
            let waiting = to_device::after(view, user, device, Lsn::ZERO, usize::MAX).unwrap().messages;
            let got: Vec<u64> =
                waiting.iter().map(|m| number(&serde_json::from_slice(m.content.open().unwrap()).unwrap())).collect();
            assert_eq!(got.len(), worker.to_device.len(), "a message to {user} was lost or doubled");
            assert_eq!(got.into_iter().collect::<BTreeSet<_>>(), worker.to_device.keys().copied().collect());
        }
        let claimed: Vec<&String> = self.workers.iter().flat_map(|worker| &worker.claimed).collect();
        assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), claimed.len(), "a one-time key was given away twice");
        let lost: usize = self.workers.iter().map(|worker| worker.claims_lost).sum();
        let (user, device) = (self.keeper["user_id"].as_str().unwrap(), self.keeper["device_id"].as_str().unwrap());
        let left = keys::counts(view, user, device).unwrap().get("signed_curve25519").copied().unwrap_or_default();
        let given = KEYS - usize::try_from(left).unwrap();
        let possible = claimed.len()..=claimed.len() + lost;
        assert!(possible.contains(&given), "{given} keys are gone, of which {possible:?} were asked for");
    }
}

fn number(content: &Value) -> u64 {
    content["n"].as_u64().unwrap_or_default()
}

/// A value that one client alone writes: what was acknowledged last, and what was tried last.
#[derive(Default)]
struct Register {
    acknowledged: u64,
    tried: u64,
}

impl Register {
    fn next(&mut self) -> u64 {
        self.tried += 1;
        self.tried
    }

    /// After a restart it is one of the two.
    fn found(&mut self, value: u64, what: &str) {
        assert!(
            value == self.acknowledged || value == self.tried,
            "{what}: {value} is there, not {}",
            self.acknowledged
        );
        self.acknowledged = value;
    }
}

struct Worker {
    name: String,
    random: StdRng,
    /// What its registration answered, and its neighbour's, and that of the device whose keys are claimed.
    login: Value,
    peer: Value,
    keeper: Value,
    /// Everybody is in the room, and goes in and out of the door.
    room: String,
    door: String,
    /// By number; those that were acknowledged with their event's id.
    messages: BTreeMap<u64, Option<String>>,
    /// By number; whether they were acknowledged.
    to_device: BTreeMap<u64, bool>,
    state: Register,
    data: Register,
    /// In at odd numbers, out at even ones.
    joined: Register,
    claimed: Vec<String>,
    claims_lost: usize,
}

/// What a server answered, if it did.
async fn attempt(request: RequestBuilder) -> Option<Value> {
    let response = request.send().await.ok()?;
    let status = response.status();
    let text = response.text().await.ok()?;
    assert!(status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE, "{status} {text}");
    status.is_success().then(|| serde_json::from_str(&text).unwrap())
}

impl Worker {
    fn body(&self, n: u64) -> String {
        format!("{} says {n}", self.name)
    }

    /// Writes until the server doesn't answer.
    async fn work(&mut self, url: &str, acknowledged: &Semaphore) {
        let client = Client::new(url.to_owned()).logged_in(&self.login);
        if self.settle(&client, acknowledged).await.is_none() {
            return;
        }
        while self.write(&client, acknowledged).await.is_some() {
            acknowledged.add_permits(1);
        }
    }

    /// Checks that what was acknowledged is there, and sends again what was not.
    async fn settle(&mut self, client: &Client, acknowledged: &Semaphore) -> Option<()> {
        let seen = attempt(client.request(Method::GET, "/sync")).await?;
        let rooms = &seen["rooms"]["join"];
        let events = |of: &Value| of["events"].as_array().cloned().unwrap_or_default();
        let room = &rooms[&self.room];
        let said = events(&room["state"]).into_iter().chain(events(&room["timeline"]));
        let mut mine =
            said.filter(|event| event["type"] == "org.example.state" && event["state_key"] == self.name.as_str());
        self.state.found(mine.next_back().map_or(0, |event| number(&event["content"])), "state");
        let data = events(&seen["account_data"]).into_iter().find(|event| event["type"] == "org.example.data");
        self.data.found(data.map_or(0, |event| number(&event["content"])), "account data");
        let is_in = u64::from(!rooms[&self.door].is_null());
        let Register { acknowledged: last, tried } = self.joined;
        self.joined.found(if last % 2 == is_in { last } else { tried }, "membership");
        assert_eq!(self.joined.acknowledged % 2, is_in, "membership");

        let unsettled: Vec<u64> = self.messages.iter().filter(|(_, id)| id.is_none()).map(|(n, _)| *n).collect();
        let some = self.messages.keys().rev().nth(self.random.random_range(0..50)).copied();
        for n in unsettled.into_iter().chain(some) {
            self.send(client, n).await?;
            acknowledged.add_permits(1);
        }
        let unsettled: Vec<u64> = self.to_device.iter().filter(|(_, done)| !**done).map(|(n, _)| *n).collect();
        for n in unsettled {
            self.send_to_device(client, n).await?;
        }
        Some(())
    }

    async fn write(&mut self, client: &Client, acknowledged: &Semaphore) -> Option<()> {
        match self.random.random_range(0..10) {
            0 => {
                let n = self.state.next();
                let path = format!("/rooms/{}/state/org.example.state/{}", self.room, self.name);
                attempt(client.request(Method::PUT, &path).json(&json!({ "n": n }))).await?;
                self.state.acknowledged = n;
            }
            1 => {
                let n = self.data.next();
                let path = format!("/user/{}/account_data/org.example.data", client.user);
                attempt(client.request(Method::PUT, &path).json(&json!({ "n": n }))).await?;
                self.data.acknowledged = n;
            }
            2 => {
                // The number that was lost may have the same meaning as the next.
                let n =
                    self.joined.tried.max(self.joined.acknowledged) / 2 * 2 + 2 + (self.joined.acknowledged + 1) % 2;
                self.joined.tried = n;
                let path = format!("/rooms/{}/{}", self.door, if n % 2 == 1 { "join" } else { "leave" });
                attempt(client.request(Method::POST, &path).json(&json!({}))).await?;
                self.joined.acknowledged = n;
            }
            3 => {
                let n = self.to_device.len() as u64;
                self.to_device.insert(n, false);
                self.send_to_device(client, n).await?;
            }
            4 => {
                let text = |key: &str| self.keeper[key].as_str().unwrap().to_owned();
                let wanted = json!({ text("user_id"): { text("device_id"): "signed_curve25519" } });
                let request = client.request(Method::POST, "/keys/claim").json(&json!({ "one_time_keys": wanted }));
                self.claims_lost += 1;
                let got = attempt(request).await?;
                self.claims_lost -= 1;
                let key = got["one_time_keys"][text("user_id")][text("device_id")].as_object();
                self.claimed.extend(key.into_iter().flatten().map(|(id, _)| id.clone()));
            }
            _ => {
                // Several at once, as an impatient client does.
                let first = self.messages.len() as u64;
                let burst = first..first + self.random.random_range(1..6);
                self.messages.extend(burst.clone().map(|n| (n, None)));
                let sent = join_all(burst.clone().map(|n| attempt(self.message(client, n)))).await;
                for (n, reply) in burst.zip(&sent) {
                    if let Some(reply) = reply {
                        self.messages.insert(n, reply["event_id"].as_str().map(ToOwned::to_owned));
                        acknowledged.add_permits(1);
                    }
                }
                sent.iter().all(Option::is_some).then_some(())?;
            }
        }
        Some(())
    }

    fn message(&self, client: &Client, n: u64) -> RequestBuilder {
        let path = format!("/rooms/{}/send/m.room.message/{n}", self.room);
        client.request(Method::PUT, &path).json(&json!({ "msgtype": "m.text", "body": self.body(n) }))
    }

    /// Sends a message, perhaps again; one that was acknowledged keeps its event.
    async fn send(&mut self, client: &Client, n: u64) -> Option<()> {
        let reply = attempt(self.message(client, n)).await?;
        let id = reply["event_id"].as_str().map(ToOwned::to_owned);
        let before = self.messages.insert(n, id.clone()).flatten();
        assert!(before.is_none() || before == id, "{} became another event", self.body(n));
        Some(())
    }

    async fn send_to_device(&mut self, client: &Client, n: u64) -> Option<()> {
        let text = |key: &str| self.peer[key].as_str().unwrap().to_owned();
        let messages = json!({ text("user_id"): { text("device_id"): { "n": n } } });
        let path = format!("/sendToDevice/org.example.note/{n}");
        attempt(client.request(Method::PUT, &path).json(&json!({ "messages": messages }))).await?;
        self.to_device.insert(n, true);
        Some(())
    }
}
