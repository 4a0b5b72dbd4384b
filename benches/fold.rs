//! How fast the log is folded: messages in 20 rooms, all models, one core; and the replay of a whole log into fresh read
//! models. `EVERFOLD_BENCH_EVENTS` says how many events the log has (20,000 unless told).
#![expect(clippy::expect_used, reason = "a bench that can't go on says so by panicking")]

use std::{path::Path, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use everfold::{
    commands::{Sender, events::By},
    config::{Config, Sources},
    log::{EmbeddedLog, LogReader},
    server::{Server, World},
};
use futures::{StreamExt, TryStreamExt, stream};
use projections::{Entry, Projector, Store, StoreOptions};
use ruma::{CanonicalJsonObject, OwnedRoomId, RoomVersionId};
use schemas::Lsn;

const ROOMS: usize = 20;

fn events() -> usize {
    std::env::var("EVERFOLD_BENCH_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000)
}

/// Fills a log through the same commands that requests use.
async fn fill(folder: &Path, events: usize) {
    let data = folder.to_str().expect("a path of text").to_owned();
    let flags = [
        ("server_name", "bench.example".to_owned()),
        ("data", data),
        ("http.listen", "127.0.0.1:0".to_owned()),
        ("registration.mode", "open".to_owned()),
        ("rate_limits.enabled", "off".to_owned()),
    ];
    let config = Config::load(Sources { flags: &flags, ..Sources::default() }).expect("the settings are right");
    let server = Server::start(config, World::default()).await.expect("the server starts");
    let url = format!("http://{}/_matrix/client/v3/register", server.addresses()[0]);
    let body = serde_json::json!({
        "username": "alice", "password": "wonderland", "device_id": "D", "auth": { "type": "m.login.dummy" },
    });
    let reply = reqwest::Client::new().post(url).json(&body).send().await.expect("the server answers");
    assert!(reply.status().is_success(), "{}", reply.status());
    let user = "@alice:bench.example".try_into().expect("a user id");
    let sender = Sender { user, device: "D".into() };
    let commands = server.app().commands.clone();
    let mut rooms: Vec<OwnedRoomId> = Vec::new();
    for _ in 0..ROOMS {
        let request = ruma::api::client::room::create_room::v3::Request::new();
        let room = commands.create_room(sender.clone(), request, RoomVersionId::V11).await;
        rooms.push(room.expect("the room is made"));
    }
    let send = |n: usize| {
        let (commands, room, by) = (commands.clone(), rooms[n % ROOMS].clone(), By::from(&sender));
        let body = format!("message {n}, of about the length that people write in a chat room");
        let content = [("msgtype".to_owned(), "m.text".into()), ("body".to_owned(), body.into())];
        let content: CanonicalJsonObject = content.into_iter().collect();
        async move { commands.send_message(by, &room, "m.room.message", content).await }
    };
    let sent = stream::iter(0..events).map(send).buffer_unordered(256).try_for_each(|_| async { Ok(()) });
    sent.await.expect("all are sent");
    server.stop().await;
}

fn read(folder: &Path) -> Vec<Entry> {
    let log = EmbeddedLog::open_read_only(&folder.join("log")).expect("the log opens");
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let next = entries.last().map_or(Lsn::FIRST, |last| last.lsn.next());
        let more = log.read(next, 10_000, usize::MAX).expect("the log is whole");
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}

fn fold(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(fill(folder.path(), events()));
    let entries = read(folder.path());
    let mut group = criterion.benchmark_group("fold");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(20))
        .throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("replay", |bencher| {
        let fresh = || {
            let scratch = tempfile::tempdir().expect("a folder");
            let store = Store::open(scratch.path(), StoreOptions::default()).expect("the store opens");
            (Projector::open(Arc::new(store)).expect("the store is empty"), scratch)
        };
        bencher.iter_batched(
            fresh,
            |(mut projector, scratch)| {
                for batch in entries.chunks(1_000) {
                    projector.apply(batch, true).expect("the log folds");
                }
                (projector, scratch)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, fold);
criterion_main!(benches);
