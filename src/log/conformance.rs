//! What every backend must do. A backend names itself: it implements [`Backend`] for a place where a log can be, and
//! says `conformance!(ItsPlace)` in its tests.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use schemas::{
    CopyId, Fact, Header, Json, Lsn, MAX_RECORD_BYTES, Origin, Record, RecordId,
    facts::{IdleGap, ProfileFieldSet},
};

use super::{AppendError, Log, LogReader, Note};

/// A place for one log.
pub(crate) trait Backend: Sized + 'static {
    /// What was acknowledged is there when the place is opened again, after a drop without a close too.
    const REOPENS: bool;
    /// Several handles may be open at once and see each other's records.
    const SEVERAL_HANDLES: bool;
    /// So many random cases are tried.
    const CASES: u32 = 24;

    /// Whether there is such a place on this machine.
    fn is_there() -> bool {
        true
    }

    /// A place where no log is yet.
    fn fresh() -> Self;

    /// Opens the log there.
    fn open(&self) -> Arc<dyn Log>;
}

/// Runs the suite against a [`Backend`].
macro_rules! conformance {
    ($name:ident, $backend:ty: $($test:ident)*) => {
        mod $name {
            $(#[test]
            fn $test() {
                if <$backend as crate::log::conformance::Backend>::is_there() {
                    crate::log::conformance::$test::<$backend>();
                }
            })*
        }
    };
    ($name:ident, $backend:ty) => {
        crate::log::conformance::conformance! { $name, $backend:
            order_and_reading batches_stand_together concurrent_appenders tailing time cap shutdown reopening handles
            handles_read_each_other random_batches
        }
    };
}
pub(crate) use conformance;

/// A record that tells itself from others by `n`, with `size` letters of payload that don't compress well.
pub(crate) fn record(n: u64, at_ms: u64, size: usize) -> Bytes {
    let letter = |seed: &mut u64| {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(char::from(b'a' + (*seed >> 33) as u8 % 26))
    };
    let letters: String = std::iter::repeat_n((), size).scan(n, |seed, ()| letter(seed)).collect();
    let value = Some(Json::from(format!("{letters:?}")));
    let fact = ProfileFieldSet { user: format!("@user{n}:example.org"), field: "note".into(), value };
    encode(n, at_ms, &fact.into())
}

pub(crate) fn encode(n: u64, at_ms: u64, fact: &Fact) -> Bytes {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    let header = Header {
        format: schemas::FORMAT,
        id: RecordId(id),
        attempt: 0,
        copy: CopyId::default(),
        at_ms,
        node: 1,
        origin: Origin::Server,
        cause: None,
        reads: vec![],
        writes: vec![],
        after: None,
    };
    Record { header, facts: vec![fact.encode()] }.encode().unwrap().into()
}

/// The number that [`record`] was given.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let (header, _) = Record::decode_header(bytes).unwrap();
    u64::from_be_bytes(header.id.0[..8].try_into().unwrap())
}

/// Appends and waits.
pub(crate) fn append(log: &dyn Log, records: Vec<Bytes>) -> Vec<Lsn> {
    log.append(records).into_iter().map(|receipt| receipt.blocking_recv().unwrap().unwrap()).collect()
}

/// Everything that a log gives.
pub(crate) fn all(log: &dyn LogReader) -> Vec<(Lsn, Bytes)> {
    let (mut found, mut next) = (Vec::new(), Lsn::ZERO);
    while next <= log.tail() && log.tail() > Lsn::ZERO {
        let entries = log.read(next, 7, 1 << 16).unwrap();
        assert!(!entries.is_empty(), "nothing at {next}, tail {}", log.tail());
        next = entries.last().unwrap().lsn.next();
        found.extend(entries.into_iter().map(|entry| (entry.lsn, Bytes::copy_from_slice(&entry.bytes))));
    }
    found
}

fn numbers(log: &dyn LogReader) -> Vec<u64> {
    all(log).iter().map(|(_, bytes)| number(bytes)).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn order_and_reading<B: Backend>() {
    let place = B::fresh();
    let log = place.open();
    assert_eq!(log.tail(), Lsn::ZERO);
    assert!(log.read(Lsn::ZERO, 10, 10).unwrap().is_empty());
    assert!(log.append(vec![]).is_empty());
    let records: Vec<_> = (0..60).map(|n| record(n, 1_000 + n, 100)).collect();
    let mut lsns = Vec::new();
    for record in &records {
        lsns.extend(append(&*log, vec![record.clone()]));
        assert_eq!(Some(&log.tail()), lsns.last(), "a resolved receipt is at or before the tail");
    }
    assert_eq!(lsns[0], Lsn::FIRST);
    assert!(lsns.is_sorted_by(|a, b| a < b));
    let expected: Vec<_> = lsns.iter().copied().zip(records).collect();
    assert_eq!(all(&*log), expected);
    for from in (0..=log.tail().0 + 2).map(Lsn) {
        let there: Vec<_> = expected.iter().filter(|(lsn, _)| *lsn >= from).collect();
        for (count, bytes) in [(1, usize::MAX), (5, usize::MAX), (1_000, 1), (1_000, 500), (1_000, usize::MAX)] {
            let read = log.read(from, count, bytes).unwrap();
            assert!(read.len() <= count);
            assert_eq!(read.is_empty(), there.is_empty());
            assert!(
                read.iter().zip(&there).all(|(entry, (lsn, record))| entry.lsn == *lsn && *entry.bytes == **record)
            );
            let size: usize = read.iter().rev().skip(1).map(|entry| entry.bytes.len()).sum();
            assert!(size <= bytes, "only the last may pass the limit");
            if count > there.len() && bytes == usize::MAX {
                assert_eq!(read.len(), there.len());
            }
        }
    }
}

pub(crate) fn batches_stand_together<B: Backend>() {
    let place = B::fresh();
    let log = place.open();
    let calls = 24;
    let receipts: Vec<_> = std::thread::scope(|scope| {
        let append = |call: u64| {
            let log = &log;
            scope.spawn(move || log.append((0..5).map(|n| record(call * 10 + n, 1, 10)).collect()))
        };
        let calls: Vec<_> = (0..calls).map(append).collect();
        calls.into_iter().flat_map(|call| call.join().unwrap()).collect()
    });
    for receipt in receipts {
        receipt.blocking_recv().unwrap().unwrap();
    }
    let found = numbers(&*log);
    assert_eq!(found.len() as u64, calls * 5);
    for call in found.chunks(5) {
        assert!(call.iter().zip(call[0]..).all(|(found, expected)| *found == expected), "{found:?}");
    }
    // One that is refused takes the others of its call with it.
    let refused = log.append(vec![record(900, 1, 10), Bytes::from_static(b"no record"), record(901, 1, 10)]);
    assert_eq!(refused.len(), 3);
    for receipt in refused {
        assert!(matches!(receipt.blocking_recv().unwrap(), Err(AppendError::Malformed(_))));
    }
    assert_eq!(numbers(&*log), found);
}

pub(crate) fn concurrent_appenders<B: Backend>() {
    let place = B::fresh();
    let log = place.open();
    let (writers, each) = (8, 60);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let log = &log;
            scope.spawn(move || {
                // Pipelined: several are on their way at any time.
                let one = |n| log.append(vec![record(writer * 1_000 + n, 1, 50)]).remove(0);
                let receipts: Vec<_> = (0..each).map(one).collect();
                let lsns: Vec<_> = receipts.into_iter().map(|r| r.blocking_recv().unwrap().unwrap()).collect();
                assert!(lsns.is_sorted_by(|a, b| a < b));
                for (n, lsn) in (0..).zip(lsns) {
                    let there = log.read(lsn, 1, 1).unwrap();
                    assert_eq!((there[0].lsn, number(&there[0].bytes)), (lsn, writer * 1_000 + n));
                }
            });
        }
    });
    let found = numbers(&*log);
    assert_eq!(found.len() as u64, writers * each, "none is lost or doubled");
    for writer in 0..writers {
        let own: Vec<_> = found.iter().filter(|n| **n / 1_000 == writer).map(|n| n % 1_000).collect();
        assert_eq!(own, (0..each).collect::<Vec<_>>(), "each one's order is kept");
    }
}

pub(crate) fn tailing<B: Backend>() {
    let place = B::fresh();
    let log = place.open();
    let total = 300;
    runtime().block_on(async {
        let early = Arc::clone(&log).follow(Lsn::ZERO);
        let early = tokio::spawn(early.map(|entry| number(&entry.unwrap().bytes)).collect::<Vec<_>>());
        let mut joined = Vec::new();
        let mut watched = log.watch_tail();
        for n in 0..total {
            if n % 60 == 30 {
                let from = log.tail();
                let stream = Arc::clone(&log).follow(from.next());
                let numbers = tokio::spawn(stream.map(|entry| number(&entry.unwrap().bytes)).collect::<Vec<_>>());
                joined.push((n, numbers));
            }
            let receipt = log.append(vec![record(n, 1, 20)]).remove(0);
            let lsn = receipt.await.unwrap().unwrap();
            watched.wait_for(|tail| *tail >= lsn).await.unwrap();
        }
        log.close();
        assert_eq!(early.await.unwrap(), (0..total).collect::<Vec<_>>());
        for (from, numbers) in joined {
            assert_eq!(numbers.await.unwrap(), (from..total).collect::<Vec<_>>());
        }
    });
}

/// Log time and chain as they must be.
fn model(records: &[(Lsn, Bytes)]) -> Vec<(Lsn, Note)> {
    let step = |note: &mut Note, (lsn, bytes): &(Lsn, Bytes)| {
        note.time = note.time.advance(&Record::decode(bytes).unwrap());
        note.chain = note.chain.extend(*lsn, bytes);
        Some((*lsn, *note))
    };
    records.iter().scan(Note::default(), step).collect()
}

pub(crate) fn check_model(log: &dyn LogReader, ms: u64) {
    let model = model(&all(log));
    let expected = model.iter().rev().find(|(_, note)| note.time.ms <= ms).map_or(Lsn::ZERO, |(lsn, _)| *lsn);
    assert_eq!(log.at_time(ms).unwrap(), expected, "at {ms}");
    for (lsn, expected) in &model {
        if let Some(note) = log.note(*lsn).unwrap() {
            assert_eq!(note, *expected, "at {lsn}");
        }
    }
    assert_eq!(log.note(Lsn::ZERO).unwrap(), None);
    assert_eq!(log.note(log.tail().next()).unwrap(), None);
}

pub(crate) fn time<B: Backend>() {
    const MINUTE: u64 = 60_000;
    let place = B::fresh();
    let log = place.open();
    assert_eq!(log.at_time(u64::MAX).unwrap(), Lsn::ZERO);
    let gap = Fact::from(IdleGap {});
    let start = 1_000 * MINUTE;
    let records = vec![
        encode(0, start, &gap),
        record(1, start + 5, 10),
        // Clocks that differ, go back and jump.
        record(2, start + 3, 10),
        record(3, start + 5, 10),
        record(4, start + 60 * MINUTE, 10),
        record(5, start + 10 * MINUTE, 10),
        encode(6, start + 60 * MINUTE, &gap),
        record(7, start + 600 * MINUTE, 10),
        record(8, u64::MAX, 10),
    ];
    append(&*log, records);
    for ms in [0, start - 1, start, start + 4, start + 5, start + 10 * MINUTE, start + 61 * MINUTE, u64::MAX] {
        check_model(&*log, ms);
    }
    for (_, note) in model(&all(&*log)) {
        (note.time.ms - 1..=note.time.ms + 1).for_each(|ms| check_model(&*log, ms));
    }
}

pub(crate) fn cap<B: Backend>() {
    let place = B::fresh();
    let log = place.open();
    let spare = MAX_RECORD_BYTES - record(1, 1, MAX_RECORD_BYTES - 1_000).len();
    let largest = record(1, 1, MAX_RECORD_BYTES - 1_000 + spare);
    assert_eq!(largest.len(), MAX_RECORD_BYTES);
    let too_large = Bytes::from([&largest[..], b"x"].concat());
    let refused = log.append(vec![too_large]).remove(0).blocking_recv().unwrap();
    assert!(matches!(refused, Err(AppendError::TooLarge(size)) if size == MAX_RECORD_BYTES + 1), "{refused:?}");
    assert_eq!(log.tail(), Lsn::ZERO);
    append(&*log, vec![largest.clone()]);
    assert_eq!(all(&*log), [(Lsn::FIRST, largest)]);
}

pub(crate) fn shutdown<B: Backend>() {
    let place = B::fresh();
    let log = place.open();
    let receipts: Vec<_> = (0..500).flat_map(|n| log.append(vec![record(n, 1, 100)])).collect();
    log.close();
    for mut receipt in receipts {
        receipt.try_recv().expect("resolved when close returns").unwrap();
    }
    let late = log.append(vec![record(500, 1, 1)]).remove(0).blocking_recv().unwrap();
    assert!(matches!(late, Err(AppendError::Closed)));
    assert_eq!(numbers(&*log), (0..500).collect::<Vec<_>>(), "reading goes on");
    log.close();
    runtime().block_on(async {
        assert_eq!(Arc::clone(&log).follow(Lsn(1)).count().await, 500, "a follower ends with the log");
        assert!(log.watch_tail().changed().await.is_err());
    });
}

pub(crate) fn reopening<B: Backend>() {
    if !B::REOPENS {
        return;
    }
    let place = B::fresh();
    let mut expected = Vec::new();
    for round in 0..4 {
        let log = place.open();
        assert_eq!(all(&*log), expected);
        assert_eq!(log.tail(), expected.last().map_or(Lsn::ZERO, |(lsn, _): &(Lsn, Bytes)| *lsn));
        check_model(&*log, round * 50);
        for n in 0..20 {
            let records: Vec<_> = (0..=n % 3).map(|i| record(round * 100 + n * 3 + i, round * 100 + n, 300)).collect();
            expected.extend(append(&*log, records.clone()).into_iter().zip(records));
        }
        if round % 2 == 0 {
            log.close();
        }
    }
    assert_eq!(all(&*place.open()), expected);
}

pub(crate) fn handles<B: Backend>() {
    if !B::SEVERAL_HANDLES {
        return;
    }
    let place = B::fresh();
    let handles = [place.open(), place.open()];
    std::thread::scope(|scope| {
        for (handle, log) in (0..).zip(&handles) {
            scope.spawn(move || (0..50).for_each(|n| drop(append(&**log, vec![record(handle * 100 + n, 1, 10)]))));
        }
    });
    runtime().block_on(async {
        let mut orders = Vec::new();
        for log in handles {
            let stream = log.follow(Lsn::ZERO).take(100);
            orders.push(stream.map(|entry| number(&entry.unwrap().bytes)).collect::<Vec<_>>().await);
        }
        assert_eq!(orders[0], orders[1], "one order");
        for handle in 0..2 {
            let own = orders[0].iter().filter(|n| **n / 100 == handle).map(|n| n % 100);
            assert!(own.eq(0..50), "each handle's order is kept");
        }
    });
}

/// Handles that append by turns: each reads its own record at once, and the others' as soon as its tail is there, and all
/// that lies further back, in the one order.
pub(crate) fn handles_read_each_other<B: Backend>() {
    if !B::SEVERAL_HANDLES {
        return;
    }
    let place = B::fresh();
    let logs = [place.open(), place.open(), place.open()];
    let mut expected = Vec::new();
    runtime().block_on(async {
        for n in 0..60 {
            let writer = &logs[n as usize % 3];
            let records = (0..=n % 2).map(|part| record(n * 10 + part, 1_000 + n, 100)).collect::<Vec<_>>();
            let receipts = writer.append(records.clone());
            for (receipt, bytes) in receipts.into_iter().zip(records) {
                let lsn = receipt.await.unwrap().unwrap();
                assert!(writer.tail() >= lsn, "its own record is at or before the tail");
                let (log, own) = (Arc::clone(writer), bytes.clone());
                let read = tokio::task::spawn_blocking(move || log.read(lsn, 1, 1).unwrap());
                let read = read.await.unwrap();
                assert_eq!((read[0].lsn, &read[0].bytes[..]), (lsn, &own[..]), "a handle reads its own record");
                expected.push((lsn, bytes));
            }
            let (last, _) = expected[expected.len() - 1];
            for log in &logs {
                let mut tail = log.watch_tail();
                while log.tail() < last {
                    tail.changed().await.unwrap();
                }
            }
        }
    });
    assert!(expected.is_sorted_by(|a, b| a.0 < b.0));
    // One that comes later finds what lies behind it.
    for log in logs.iter().chain(&[place.open()]) {
        assert_eq!(all(&**log), expected);
        check_model(&**log, 1_030);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<(usize, u64)>),
    Read(u64, usize, usize),
    Time(u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let call = prop::collection::vec((0..3_000_usize, 0..5_000_000_u64), 1..20);
    prop_oneof![
        4 => call.prop_map(Step::Append),
        2 => (0..150_u64, 1..40_usize, 1..30_000_usize).prop_map(|(from, count, bytes)| Step::Read(from, count, bytes)),
        1 => (0..5_000_000_u64).prop_map(Step::Time),
        1 => Just(Step::Reopen),
    ]
}

pub(crate) fn random_batches<B: Backend>() {
    let config = ProptestConfig { cases: B::CASES, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..16))| {
        let place = B::fresh();
        let mut log = place.open();
        let mut expected: Vec<(Lsn, Bytes)> = Vec::new();
        for step in steps {
            match step {
                Step::Append(call) => {
                    let records = (expected.len() as u64..).zip(call).map(|(n, (size, at))| record(n, at, size));
                    let records: Vec<_> = records.collect();
                    expected.extend(append(&*log, records.clone()).into_iter().zip(records));
                }
                Step::Read(from, count, bytes) => {
                    let read = log.read(Lsn(from), count, bytes).unwrap();
                    let mut there = expected.iter().filter(|(lsn, _)| lsn.0 >= from);
                    prop_assert_eq!(read.is_empty(), there.clone().next().is_none());
                    for entry in read {
                        let (lsn, record) = there.next().unwrap();
                        prop_assert_eq!((entry.lsn, &entry.bytes[..]), (*lsn, &record[..]));
                    }
                }
                Step::Time(ms) => check_model(&*log, ms),
                Step::Reopen if B::REOPENS => {
                    drop(log);
                    log = place.open();
                }
                Step::Reopen => {}
            }
        }
        prop_assert_eq!(all(&*log), expected);
    });
}
