//! How fast a log of messages in 20 rooms is folded into fresh read models, all of them, on one core; and how long
//! `everfold replay` of the whole log takes. `EVERFOLD_BENCH_EVENTS` says how many events it has (200,000 unless told).
#![expect(clippy::expect_used, reason = "a bench that can't go on says so by panicking")]

mod common;

use std::{path::Path, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use everfold::{
    fold::replay,
    log::{EmbeddedLog, LogReader},
};
use projections::{Projector, Store, StoreOptions};
use schemas::Lsn;
use tempfile::TempDir;

const ROOMS: usize = 20;
/// So many records are folded from memory.
const FOLDED: usize = 20_000;

fn events() -> usize {
    std::env::var("EVERFOLD_BENCH_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(200_000)
}

/// Fills a log.
async fn fill(folder: &Path, events: usize) {
    let server = common::start(folder, 0).await;
    let commands = &server.app().commands;
    let alice = common::user(commands, "alice").await;
    let rooms = common::rooms(commands, &alice, ROOMS).await;
    common::send(commands, &alice, &rooms, events).await;
    server.stop().await;
}

fn fold(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(fill(folder.path(), events()));
    let log = EmbeddedLog::open_read_only(&folder.path().join("log")).expect("the log opens");
    let entries = log.read(Lsn::FIRST, FOLDED, usize::MAX).expect("the log is whole");
    let mut group = criterion.benchmark_group("fold");
    group.sample_size(10).measurement_time(Duration::from_secs(10));
    group.throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("records from memory", |bencher| {
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
    let tail = log.tail();
    group.throughput(Throughput::Elements(tail.0));
    group.bench_function(format!("replay of {} events", events()), |bencher| {
        let fresh = || tempfile::tempdir().expect("a folder");
        let replay = |into: TempDir| {
            replay(&log, tail, into.path(), &|_, _| {}).expect("the log folds");
            into
        };
        bencher.iter_batched(fresh, replay, BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, fold);
criterion_main!(benches);
