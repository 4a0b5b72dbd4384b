//! Many people who want the same things at once, each by any node of one server: there is one winner of each, nothing
//! that was acknowledged is lost or doubled, and all nodes tell the same story.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use http::{Method, StatusCode};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{Client, Reply};

const PEOPLE: usize = 6;
/// The server may say that it is busy; whoever is told so comes back so often.
const PATIENCE: usize = 60;

/// What was acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// Every event of the room that says something, with what it says.
    events: BTreeMap<String, String>,
    /// The one-time keys that were given away.
    claimed: Vec<String>,
    uploaded: usize,
}

/// The crowd.
pub struct Contention {
    /// Nobody, on each node.
    nodes: Vec<Client>,
    random: StdRng,
    people: Vec<Client>,
    room: String,
    acknowledged: Acknowledged,
    next: usize,
}

impl Contention {
    /// People who register at random nodes, and come together in a room.
    pub async fn gather(nodes: Vec<Client>, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let acknowledged = Acknowledged::default();
        let mut crowd = Self { nodes, random, people: Vec::new(), room: String::new(), acknowledged, next: 0 };
        for n in 0..PEOPLE {
            let node = crowd.node();
            let person = node.post("/register", account(&format!("person{n}"))).await.ok();
            crowd.people.push(node.logged_in(&person));
        }
        let levels = json!({ "state_default": 0 });
        let body = json!({ "preset": "public_chat", "power_level_content_override": levels });
        let room = crowd.somewhere(0).post("/createRoom", body).await.ok();
        room["room_id"].as_str().unwrap().clone_into(&mut crowd.room);
        for n in 1..PEOPLE {
            let path = format!("/rooms/{}/join", crowd.room);
            crowd.somewhere(n).post(&path, json!({})).await.ok();
        }
        crowd
    }

    fn node(&mut self) -> Client {
        self.nodes[self.random.random_range(0..self.nodes.len())].clone()
    }

    /// A person, by some node or other.
    fn somewhere(&mut self, person: usize) -> Client {
        let node = self.node();
        self.on(person, &node)
    }

    fn on(&self, person: usize, node: &Client) -> Client {
        let person = &self.people[person];
        let mut on = node.with_token(person.token());
        (on.user, on.device) = (person.user.clone(), person.device.clone());
        on
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Everybody does one thing or another at once, so many times.
    pub async fn contend(&mut self, rounds: usize) {
        for _ in 0..rounds {
            match self.random.random_range(0..6) {
                0 => self.register_one_name().await,
                1 => self.want_one_alias().await,
                2 => self.set_one_topic().await,
                3 => self.claim_keys().await,
                4 => self.send_twice().await,
                _ => self.talk().await,
            }
        }
    }

    async fn register_one_name(&mut self) {
        let body = account(&format!("wanted{}", self.number()));
        let tries: Vec<_> = (0..3).map(|_| self.node()).collect();
        let replies = join_all(tries.iter().map(|node| patient(node, Method::POST, "/register", body.clone()))).await;
        one_winner(&replies, (400, "M_USER_IN_USE"));
    }

    async fn want_one_alias(&mut self) {
        let server = self.people[0].user.split_once(':').unwrap().1.to_owned();
        let path = format!("/directory/room/%23wanted{}:{server}", self.number());
        let body = json!({ "room_id": self.room });
        let people: Vec<_> = (0..PEOPLE).map(|n| self.somewhere(n)).collect();
        let replies = join_all(people.iter().map(|person| patient(person, Method::PUT, &path, body.clone()))).await;
        one_winner(&replies, (409, "M_UNKNOWN"));
    }

    async fn set_one_topic(&mut self) {
        let path = format!("/rooms/{}/state/m.room.topic/", self.room);
        let round = self.number();
        let people: Vec<_> = (0..PEOPLE).map(|n| (self.somewhere(n), format!("topic {round} of {n}"))).collect();
        let set = people.iter().map(|(person, topic)| patient(person, Method::PUT, &path, json!({ "topic": topic })));
        let replies = join_all(set).await;
        for ((_, topic), reply) in people.into_iter().zip(replies) {
            self.acknowledge(&reply.ok(), &topic);
        }
    }

    async fn claim_keys(&mut self) {
        let owner = self.somewhere(0);
        let (round, signatures) = (self.number(), json!({ owner.user.clone(): { "ed25519:KEY": "c2ln" } }));
        let key = |n: usize| {
            let name = format!("signed_curve25519:{round}x{n}");
            (name, json!({ "key": format!("{:0>43}", round * 100 + n), "signatures": signatures }))
        };
        let keys: serde_json::Map<_, _> = (0..PEOPLE).map(key).collect();
        owner.post("/keys/upload", json!({ "one_time_keys": keys })).await.ok();
        self.acknowledged.uploaded += PEOPLE;
        let wanted = json!({ "one_time_keys": { owner.user.clone(): { owner.device.clone(): "signed_curve25519" } } });
        let people: Vec<_> = (0..PEOPLE).map(|n| self.somewhere(n)).collect();
        // Not patiently: a claim that was not acknowledged may have taken a key.
        let replies = join_all(people.iter().map(|person| person.post("/keys/claim", wanted.clone()))).await;
        for reply in replies {
            let reply = reply.ok();
            let given = reply["one_time_keys"][&owner.user][&owner.device].as_object().cloned().unwrap_or_default();
            self.acknowledged.claimed.extend(given.into_iter().map(|(name, _)| name));
        }
    }

    /// The same request to two nodes, as by a client that lost its connection.
    async fn send_twice(&mut self) {
        let round = self.number();
        let path = format!("/rooms/{}/send/m.room.message/twice{round}", self.room);
        let mut tries = Vec::new();
        for n in 0..PEOPLE {
            for _ in 0..2 {
                tries.push((n, self.somewhere(n), format!("{n} says {round}, once")));
            }
        }
        let send = tries.iter().map(|(_, person, body)| patient(person, Method::PUT, &path, message(body)));
        let replies = join_all(send).await;
        let mut ids = BTreeMap::new();
        for ((n, _, body), reply) in tries.into_iter().zip(replies) {
            let id = reply.ok()["event_id"].as_str().unwrap().to_owned();
            let first = ids.entry(n).or_insert_with(|| id.clone());
            assert_eq!(*first, id, "one transaction id, two events");
            self.acknowledged.events.insert(id, body);
        }
    }

    async fn talk(&mut self) {
        let mut said = Vec::new();
        for n in 0..PEOPLE {
            for _ in 0..3 {
                let number = self.number();
                let path = format!("/rooms/{}/send/m.room.message/{number}", self.room);
                said.push((self.somewhere(n), path, format!("{n} says {number}")));
            }
        }
        let say = said.iter().map(|(person, path, body)| patient(person, Method::PUT, path, message(body)));
        let replies = join_all(say).await;
        for ((.., body), reply) in said.into_iter().zip(replies) {
            self.acknowledge(&reply.ok(), &body);
        }
    }

    fn acknowledge(&mut self, reply: &Value, text: &str) {
        let id = reply["event_id"].as_str().unwrap().to_owned();
        let before = self.acknowledged.events.insert(id, text.to_owned());
        assert_eq!(before, None, "{text} became an event that was there already");
    }

    /// Every node shows what was acknowledged, each once, and all show it in the same order.
    pub async fn check(&self) {
        let claimed: BTreeSet<_> = self.acknowledged.claimed.iter().collect();
        assert_eq!(claimed.len(), self.acknowledged.claimed.len(), "a one-time key was given away twice");
        assert_eq!(claimed.len(), self.acknowledged.uploaded, "each was claimed");
        // Each node answers for what it acknowledged itself, and for what those before it have.
        let mut since = String::new();
        for node in &self.nodes {
            let reply = self.on(0, node).get(&format!("/sync?{since}")).await.ok();
            since = format!("since={}", reply["next_batch"].as_str().unwrap());
        }
        let mut stories = Vec::new();
        for node in &self.nodes {
            self.on(0, node).get(&format!("/sync?{since}")).await.ok();
            stories.push(story(&self.on(0, node), &self.room).await);
        }
        assert!(stories.iter().all(|story| *story == stories[0]), "two nodes tell different stories");
        let told = stories.remove(0);
        let ids: BTreeSet<&String> = told.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), told.len(), "an event is there twice");
        let ours: BTreeMap<_, _> = told.iter().filter(|(_, text)| !text.is_empty()).cloned().collect();
        assert_eq!(ours, self.acknowledged.events, "what is there is what was acknowledged");
        let topic = told.iter().rev().find(|(_, text)| text.starts_with("topic")).map(|(_, topic)| topic.as_str());
        for node in &self.nodes {
            let path = format!("/rooms/{}/state/m.room.topic/", self.room);
            let now = self.on(1, node).get(&path).await;
            assert_eq!(now["topic"].as_str(), topic, "the last topic is the topic");
        }
    }
}

fn account(name: &str) -> Value {
    json!({ "username": name, "password": "a password", "auth": { "type": "m.login.dummy" } })
}

fn message(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// A room's events in order: ids, and bodies or topics.
async fn story(person: &Client, room: &str) -> Vec<(String, String)> {
    let (mut story, mut from) = (Vec::new(), String::new());
    loop {
        let page = person.get(&format!("/rooms/{room}/messages?dir=f&limit=500{from}")).await.ok();
        for event in page["chunk"].as_array().unwrap() {
            let content = &event["content"];
            let text = content["body"].as_str().or_else(|| content["topic"].as_str()).unwrap_or_default();
            story.push((event["event_id"].as_str().unwrap().to_owned(), text.to_owned()));
        }
        match page["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return story,
        }
    }
}

/// Makes a request again for as long as the server is busy.
async fn patient(person: &Client, method: Method, path: &str, body: Value) -> Reply {
    for _ in 1..PATIENCE {
        let reply = Reply::of(person.request(method.clone(), path).json(&body)).await;
        if reply.status != StatusCode::SERVICE_UNAVAILABLE {
            return reply;
        }
        // As it is told, if sooner.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    Reply::of(person.request(method, path).json(&body)).await
}

/// One request succeeded, and all others were told why not.
#[track_caller]
fn one_winner(replies: &[Reply], refusal: (u16, &str)) {
    let (won, lost): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status.is_success());
    assert_eq!(won.len(), 1, "{replies:?}");
    assert!(lost.iter().all(|reply| reply.error() == refusal), "{replies:?}");
}
