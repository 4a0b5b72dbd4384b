//! What clients feel, over HTTP against a server of this process on the embedded log: sending, /sync, joins, and the
//! state of a large room. Client and server share the machine's cores. `benches/load` measures servers from outside.
#![expect(clippy::expect_used, reason = "a bench that can't go on says so by panicking")]

mod common;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use everfold::{
    commands::{Commands, Sender, membership::Move},
    server::Server,
};
use futures::{StreamExt, future::join_all, stream};
use ruma::{OwnedRoomId, RoomId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Senders at once.
const SENDERS: usize = 32;
/// Rooms of the users who sync.
const ROOMS: [usize; 2] = [200, 5_000];
/// Members of the large room.
const MEMBERS: usize = 10_000;
/// Joins to one new room, and how many of them at once.
const JOINS: usize = 300;
const JOINS_AT_ONCE: usize = 8;

/// A server that ends with its runtime, and its folder after it.
struct Bench {
    runtime: Runtime,
    server: Server,
    http: reqwest::Client,
    _folder: TempDir,
}

impl Bench {
    fn new(sync_delay_ms: u64) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let folder = TempDir::new().expect("a folder");
        let server = runtime.block_on(common::start(folder.path(), sync_delay_ms));
        Self { runtime, server, http: reqwest::Client::new(), _folder: folder }
    }

    async fn call(
        &self,
        by: &Sender,
        request: impl FnOnce(&reqwest::Client, String) -> reqwest::RequestBuilder,
    ) -> Value {
        let base = format!("http://{}/_matrix/client/v3", self.server.addresses()[0]);
        let reply =
            request(&self.http, base).bearer_auth(by.user.localpart()).send().await.expect("the server answers");
        let status = reply.status();
        let body = reply.bytes().await.expect("the answer is whole");
        assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("the answer is JSON")
    }

    async fn get(&self, by: &Sender, path: &str) -> Value {
        self.call(by, |http, base| http.get(base + path)).await
    }

    /// Sends `total` messages by so many senders, each with the next as soon as it has the answer.
    async fn send(&self, by: &[(Sender, OwnedRoomId)], total: u64) -> Duration {
        static TRANSACTION: AtomicU64 = AtomicU64::new(0);
        let content = json!({ "msgtype": "m.text", "body": "A message of the usual length, as people write them." });
        let (left, content) = (&AtomicU64::new(total), &content);
        let start = Instant::now();
        join_all(by.iter().map(|(sender, room)| async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let transaction = TRANSACTION.fetch_add(1, Ordering::Relaxed);
                let path = format!("/rooms/{room}/send/m.room.message/{transaction}");
                self.call(sender, |http, base| http.put(base + &path).json(content)).await;
            }
        }))
        .await;
        start.elapsed()
    }
}

/// Registers so many users.
async fn users(commands: &Commands, prefix: &str, count: usize) -> Vec<Sender> {
    let each = (0..count).map(|n| async move { common::user(commands, &format!("{prefix}{n}")).await });
    stream::iter(each).buffer_unordered(common::AT_ONCE).collect().await
}

/// Lets users join a room, so many at once.
async fn join(commands: &Commands, room: &RoomId, users: &[Sender], at_once: usize) {
    let each =
        users.iter().map(|user| commands.change_membership(user.clone(), room, user.user.clone(), Move::Join, None));
    common::all(stream::iter(each).buffer_unordered(at_once)).await;
}

fn sending(criterion: &mut Criterion) {
    for (name, delay) in [("send", 0), ("send with 5 ms added to every sync", 5)] {
        let bench = Bench::new(delay);
        let commands = &bench.server.app().commands;
        let (hot, many) = bench.runtime.block_on(async {
            let users = users(commands, "sender", SENDERS).await;
            let one = common::room(commands, &users[0]).await;
            join(commands, &one, &users[1..], SENDERS).await;
            let rooms = common::rooms(commands, &users[0], SENDERS).await;
            for room in &rooms {
                join(commands, room, &users[1..], SENDERS).await;
            }
            let hot: Vec<_> = users.iter().map(|user| (user.clone(), one.clone())).collect();
            (hot, users.into_iter().zip(rooms).collect::<Vec<_>>())
        });
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(5));
        for (name, by) in [
            ("1 sender, one room", &hot[..1]),
            ("32 senders, one room", &hot[..]),
            ("32 senders, a room each", &many[..]),
        ] {
            group.bench_function(name, |bencher| {
                bencher.to_async(&bench.runtime).iter_custom(|total| bench.send(by, total));
            });
        }
        group.finish();
        bench.runtime.block_on(bench.server.stop());
    }
}

fn next_batch(reply: &Value) -> String {
    reply["next_batch"].as_str().expect("a token").to_owned()
}

fn syncing(criterion: &mut Criterion) {
    let bench = Bench::new(0);
    let commands = &bench.server.app().commands;
    let mut group = criterion.benchmark_group("sync");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    for count in ROOMS {
        let (user, friend, rooms, since) = bench.runtime.block_on(async {
            let user = common::user(commands, &format!("in{count}")).await;
            let friend = common::user(commands, &format!("friend{count}")).await;
            let rooms = common::rooms(commands, &user, count).await;
            for room in &rooms {
                join(commands, room, std::slice::from_ref(&friend), 1).await;
            }
            common::send(commands, &friend, &rooms, count * 5).await;
            let since = next_batch(&bench.get(&user, "/sync?timeout=0").await);
            (user, friend, rooms, since)
        });
        let sync = async |since: &str| bench.get(&user, &format!("/sync?timeout=0&since={since}")).await;
        group.bench_function(format!("idle, in {count} rooms"), |bencher| {
            bencher.to_async(&bench.runtime).iter(|| sync(&since));
        });
        group.bench_function(format!("one message, in {count} rooms"), |bencher| {
            bencher.to_async(&bench.runtime).iter_custom(async |total| {
                let (mut since, mut taken) = (since.clone(), Duration::ZERO);
                since = next_batch(&sync(&since).await);
                for n in 0..total {
                    let at = usize::try_from(n).expect("not so many") % rooms.len();
                    common::send(commands, &friend, &rooms[at..=at], 1).await;
                    let start = Instant::now();
                    let reply = sync(&since).await;
                    taken += start.elapsed();
                    assert!(reply["rooms"]["join"].get(rooms[at].as_str()).is_some(), "the message is there");
                    since = next_batch(&reply);
                }
                taken
            });
        });
        group.bench_function(format!("initial, {count} rooms"), |bencher| {
            bencher.to_async(&bench.runtime).iter(|| bench.get(&user, "/sync?timeout=0"));
        });
    }
    group.finish();
    bench.runtime.block_on(bench.server.stop());
}

fn large_rooms(criterion: &mut Criterion) {
    let bench = Bench::new(0);
    let commands = &bench.server.app().commands;
    let (creator, users, room) = bench.runtime.block_on(async {
        let users = users(commands, "member", MEMBERS - 1).await;
        let creator = common::user(commands, "creator").await;
        let room = common::room(commands, &creator).await;
        join(commands, &room, &users, JOINS_AT_ONCE).await;
        (creator, users, room)
    });
    let mut group = criterion.benchmark_group("rooms");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function(format!("{JOINS} joins to one room, {JOINS_AT_ONCE} at once"), |bencher| {
        bencher.to_async(&bench.runtime).iter_custom(async |times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                let room = common::room(commands, &creator).await;
                let start = Instant::now();
                join_over_http(&bench, &users[..JOINS], &room).await;
                taken += start.elapsed();
            }
            taken
        });
    });
    for what in ["state", "members", "joined_members"] {
        let path = format!("/rooms/{room}/{what}");
        group.bench_function(format!("{what} of a room with {MEMBERS} members"), |bencher| {
            bencher.to_async(&bench.runtime).iter(|| bench.get(&creator, &path));
        });
    }
    group.finish();
    bench.runtime.block_on(bench.server.stop());
}

async fn join_over_http(bench: &Bench, users: &[Sender], room: &RoomId) {
    let each_of = |n: usize| {
        let own: Vec<&Sender> = users.iter().skip(n).step_by(JOINS_AT_ONCE).collect();
        async move {
            for user in own {
                bench.call(user, |http, base| http.post(format!("{base}/rooms/{room}/join")).json(&json!({}))).await;
            }
        }
    };
    join_all((0..JOINS_AT_ONCE).map(each_of)).await;
}

criterion_group!(benches, sending, syncing, large_rooms);
criterion_main!(benches);
