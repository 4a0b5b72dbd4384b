//! People who send messages, each again under its transaction id until it is acknowledged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use http::{Method, StatusCode};
use projections::View;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinHandle};

use crate::{client::Client, said::check_said, served::Served};

const WORKERS: usize = 6;
/// No answer takes longer: as long as a request is patient, and what a busy machine needs.
const BOUND: Duration = Duration::from_secs(10 + 10);
/// What is refused takes no longer, whatever the brokers do: one question to them that is under way, one more, and the same.
const REFUSED: Duration = Duration::from_secs(2 + 5);
/// Every so many messages, a worker does something else.
const ELSE: u64 = 4;

pub struct Crowd {
    workers: Vec<Worker>,
    room: String,
}

#[derive(Clone)]
struct Worker {
    client: Client,
    name: String,
    room: String,
    /// By number; those that were acknowledged with their event's id.
    messages: BTreeMap<u64, Option<String>>,
}

/// What became of requests so far.
#[derive(Default)]
struct Counts {
    refused: AtomicU64,
    stop: AtomicBool,
}

/// A crowd at work.
pub struct Working {
    room: String,
    tasks: Vec<JoinHandle<Worker>>,
    acknowledged: watch::Receiver<u64>,
    counts: Arc<Counts>,
    /// The same as somebody who only reads.
    reader: Client,
}

impl Crowd {
    pub async fn gather(served: &Served) -> Self {
        let keeper = served.register("keeper").await;
        let powers = json!({ "state_default": 0 });
        let new = json!({ "preset": "public_chat", "power_level_content_override": powers });
        let room = keeper.post("/createRoom", new).await.ok();
        let room = room["room_id"].as_str().unwrap().to_owned();
        let mut workers = Vec::new();
        for n in 0..WORKERS {
            let name = format!("worker{n}");
            let client = served.register(&name).await;
            client.post(&format!("/join/{room}"), json!({})).await.ok();
            workers.push(Worker { client, name, room: room.clone(), messages: BTreeMap::new() });
        }
        Self { workers, room }
    }

    /// Lets all work at once.
    pub fn work(self, url: &str) -> Working {
        let (sender, acknowledged) = watch::channel(0);
        let (sender, counts) = (Arc::new(sender), Arc::new(Counts::default()));
        let reader = Client::new(url.to_owned()).with_token(self.workers[0].client.token());
        let start = |worker: Worker| {
            let (sender, counts, url) = (Arc::clone(&sender), Arc::clone(&counts), url.to_owned());
            tokio::spawn(worker.work(url, sender, counts))
        };
        let tasks = self.workers.into_iter().map(start).collect();
        Working { room: self.room, tasks, acknowledged, counts, reader }
    }

    /// Sends again whatever was not acknowledged.
    pub async fn settle(&mut self, url: &str) {
        for worker in &mut self.workers {
            let client = Client::new(url.to_owned()).with_token(worker.client.token());
            let all: Vec<u64> = worker.messages.keys().copied().collect();
            for n in all.into_iter().rev().take(20) {
                assert!(worker.send(&client, n).await.unwrap(), "a server that is well takes a message");
            }
        }
    }

    /// Everything that was acknowledged is there, as the event that was told, and all is there once.
    pub fn check(&self, view: &View) {
        let acknowledged = self
            .workers
            .iter()
            .flat_map(|worker| worker.messages.iter().map(|(n, id)| (worker.body(*n), id.clone().unwrap())));
        check_said(view, &self.room, acknowledged);
    }
}

impl Working {
    /// Waits until so many more messages were acknowledged.
    pub async fn until(&self, more: u64) {
        let mut acknowledged = self.acknowledged.clone();
        let wanted = *acknowledged.borrow_and_update() + more;
        let there =
            tokio::time::timeout(Duration::from_secs(180), acknowledged.wait_for(|count| *count >= wanted)).await;
        assert!(there.is_ok(), "{} of {wanted} messages were acknowledged", *self.acknowledged.borrow());
    }

    /// Waits until somebody is told to come back.
    pub async fn until_refused(&self) {
        let before = self.counts.refused.load(Ordering::SeqCst);
        let began = Instant::now();
        while self.counts.refused.load(Ordering::SeqCst) == before {
            assert!(began.elapsed() < BOUND, "nobody is told to come back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks for what is not there, and with a token that nobody has: many at once, and each is told soon that it isn't, or
    /// that it can't be known.
    pub async fn be_refused(&self) {
        let path = format!("/rooms/{}/state/org.example.none", self.room);
        let nobody = self.reader.clone().with_token("of nobody");
        let ask = async |client: &Client, path: &str, expected: StatusCode| {
            let began = Instant::now();
            let response = client.request(Method::GET, path).send().await.unwrap();
            assert!(began.elapsed() < REFUSED, "a refusal took {:?}", began.elapsed());
            assert!([expected, StatusCode::SERVICE_UNAVAILABLE].contains(&response.status()), "{response:?}");
            assert_eq!(response.headers().contains_key("retry-after"), response.status() != expected);
        };
        let pairs = (0..100).map(async |_| {
            ask(&self.reader, &path, StatusCode::NOT_FOUND).await;
            ask(&nobody, "/account/whoami", StatusCode::UNAUTHORIZED).await;
        });
        join_all(pairs).await;
    }

    /// Reads what is there, which doesn't take long, whatever the brokers do.
    pub async fn read(&self) {
        let began = Instant::now();
        let seen = self.reader.get("/sync").await.ok();
        assert!(!seen["rooms"]["join"][&self.room]["timeline"]["events"].as_array().unwrap().is_empty(), "{seen}");
        // Goes on from there, and waits for what may come.
        let since = format!("/sync?timeout=200&since={}", seen["next_batch"].as_str().unwrap());
        self.reader.get(&since).await.ok();
        assert!(began.elapsed() < Duration::from_secs(7), "two /sync took {:?}", began.elapsed());
    }

    /// Lets all come to an end.
    pub async fn stop(self) -> Crowd {
        self.counts.stop.store(true, Ordering::SeqCst);
        let mut workers = Vec::new();
        for task in self.tasks {
            workers.push(task.await.unwrap());
        }
        Crowd { workers, room: self.room }
    }
}

impl Worker {
    fn body(&self, n: u64) -> String {
        format!("{} says {n}", self.name)
    }

    /// Sends until it is told to stop, or nobody answers.
    async fn work(mut self, url: String, acknowledged: Arc<watch::Sender<u64>>, counts: Arc<Counts>) -> Self {
        let client = Client::new(url).with_token(self.client.token());
        while !counts.stop.load(Ordering::SeqCst) {
            let last = self.messages.last_key_value().filter(|(_, id)| id.is_none());
            let n = last.map_or(self.messages.len() as u64, |(n, _)| *n);
            self.messages.entry(n).or_insert(None);
            match self.send(&client, n).await {
                Some(true) => {
                    acknowledged.send_modify(|count| *count += 1);
                    if n.is_multiple_of(ELSE) {
                        self.do_else(&client, n / ELSE).await;
                    }
                }
                Some(false) => {
                    counts.refused.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                None => break,
            }
        }
        self
    }

    /// Does one of the other things that people do, which may be refused for now, in time.
    async fn do_else(&self, client: &Client, n: u64) {
        let (room, user) = (&self.room, &self.client.user);
        let (method, path, body) = match n % 5 {
            0 => (Method::PUT, format!("/rooms/{room}/state/org.example/{}", self.name), json!({ "n": n })),
            1 => (Method::POST, format!("/join/{room}"), json!({})),
            2 => (Method::POST, "/createRoom".to_owned(), json!({ "name": self.name })),
            3 => {
                let (name, auth) = (format!("{}-{n}", self.name), json!({ "type": "m.login.dummy" }));
                let account = json!({ "username": name, "password": "a password", "auth": auth });
                (Method::POST, "/register".to_owned(), account)
            }
            _ => {
                let keys = json!({ "one_time_keys": { user: { "D": "signed_curve25519" } } });
                (Method::POST, "/keys/claim".to_owned(), keys)
            }
        };
        let began = Instant::now();
        let Ok(response) = client.request(method, &path).json(&body).send().await else { return };
        let (status, is_advised) = (response.status(), response.headers().contains_key("retry-after"));
        let text = response.text().await.unwrap_or_default();
        assert!(began.elapsed() < BOUND, "{path} took {:?}: {status} {text}", began.elapsed());
        assert!(status == StatusCode::OK || status == StatusCode::SERVICE_UNAVAILABLE && is_advised, "{status} {text}");
    }

    /// Sends a message, perhaps again, and says whether it was acknowledged; none if nobody answered.
    async fn send(&mut self, client: &Client, n: u64) -> Option<bool> {
        let path = format!("/rooms/{}/send/m.room.message/{n}", self.room);
        let body = json!({ "msgtype": "m.text", "body": self.body(n) });
        let began = Instant::now();
        let response = client.request(Method::PUT, &path).json(&body).send().await.ok()?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.ok()?;
        assert!(began.elapsed() < BOUND, "an answer took {:?}: {status} {text}", began.elapsed());
        if status == StatusCode::SERVICE_UNAVAILABLE {
            assert!(headers.contains_key("retry-after"), "{text}");
            return Some(false);
        }
        assert_eq!(status, StatusCode::OK, "{text}");
        let reply: Value = serde_json::from_str(&text).unwrap();
        let id = reply["event_id"].as_str().map(ToOwned::to_owned);
        let before = self.messages.insert(n, id.clone()).flatten();
        assert!(before.is_none() || before == id, "{} became another event", self.body(n));
        Some(true)
    }
}
