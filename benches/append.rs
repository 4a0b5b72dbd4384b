//! Appends a second, durable ones, with 1, 32 and 256 writers that each wait for their receipt before the next; on the
//! disk as it is, and with 5 ms added to every sync, so that the ratios don't measure the disk.
#![expect(clippy::expect_used, reason = "a bench that can't go on says so by panicking")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use everfold::log::{EmbeddedLog, EmbeddedOptions, Log};
use schemas::{FORMAT, Header, Json, Origin, Record, RecordId, facts::ProfileFieldSet};
use tempfile::TempDir;

/// About what a message takes.
const PAYLOAD: usize = 1_000;

fn record() -> Bytes {
    let fact = ProfileFieldSet {
        user: "@writer:example.org".into(),
        field: "note".into(),
        value: Some(Json::from(format!("{:?}", "x".repeat(PAYLOAD)))),
    };
    let header = Header {
        format: FORMAT,
        id: RecordId([7; 16]),
        attempt: 0,
        at_ms: 1,
        node: 1,
        origin: Origin::Server,
        cause: None,
        reads: vec![],
        writes: vec![],
        after: None,
    };
    let record = Record { header, facts: vec![schemas::Fact::from(fact).encode()] };
    record.encode().expect("it is small").into()
}

fn open(folder: &Path, sync_delay: Duration) -> Arc<dyn Log> {
    let options = EmbeddedOptions { sync_delay, ..EmbeddedOptions::default() };
    Arc::new(EmbeddedLog::create_or_open(folder, options).expect("the folder is new"))
}

/// How long `total` appends by so many writers take.
async fn append(log: Arc<dyn Log>, writers: u64, total: u64) -> Duration {
    let record = record();
    let start = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let (log, record) = (Arc::clone(&log), record.clone());
        let own = total / writers + u64::from(writer < total % writers);
        tokio::spawn(async move {
            for _ in 0..own {
                for receipt in log.append(vec![record.clone()]) {
                    receipt.await.expect("the log is open").expect("the disk has room");
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no writer panics");
    }
    start.elapsed()
}

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for (name, delay) in [("append", Duration::ZERO), ("append with 5 ms added", Duration::from_millis(5))] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(4));
        for writers in [1, 32, 256] {
            let folder = TempDir::new().expect("a folder");
            let log = open(folder.path(), delay);
            group.bench_function(format!("{writers} writers"), |bencher| {
                bencher.to_async(&runtime).iter_custom(|total| append(Arc::clone(&log), writers, total));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
