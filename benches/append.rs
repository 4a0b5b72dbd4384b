//! Appends a second, durable ones, with 1, 32 and 256 writers that each wait for their receipt before the next; on the
//! disk as it is, and with 5 ms added to every sync, so that the ratios don't measure the disk. With
//! `EVERFOLD_BENCH_KAFKA=HOST:PORT` also on a broker, in a topic that is made for it.
#![expect(clippy::expect_used, reason = "a bench that can't go on says so by panicking")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use everfold::{
    config::{Config, Sources, Topic},
    log::{EmbeddedLog, EmbeddedOptions, KafkaLog, Log},
};
use schemas::{CopyId, FORMAT, Header, Json, Origin, Record, RecordId, facts::ProfileFieldSet};
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
        copy: CopyId::default(),
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

fn open_kafka(brokers: &str) -> Arc<dyn Log> {
    let settings = Config::load(Sources::default()).expect("the defaults are legal").log.kafka;
    let topic = Topic { brokers: brokers.to_owned(), name: format!("bench-{}", std::process::id()) };
    Arc::new(KafkaLog::open(&settings, &topic, Arc::new(())).expect("a broker that serves"))
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
    let folders: Vec<TempDir> = (0..2).map(|_| TempDir::new().expect("a folder")).collect();
    let mut logs = vec![
        ("append", open(folders[0].path(), Duration::ZERO)),
        ("append with 5 ms added", open(folders[1].path(), Duration::from_millis(5))),
    ];
    if let Ok(brokers) = std::env::var("EVERFOLD_BENCH_KAFKA") {
        logs.push(("append on Kafka", open_kafka(&brokers)));
    }
    for (name, log) in logs {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(4));
        for writers in [1, 32, 256] {
            group.bench_function(format!("{writers} writers"), |bencher| {
                bencher.to_async(&runtime).iter_custom(|total| append(Arc::clone(&log), writers, total));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
