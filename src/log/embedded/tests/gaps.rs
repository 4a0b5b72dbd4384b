//! Lsns that are not dense, as copies of other logs and new epochs have them.

use proptest::prelude::*;
use rocksdb::DB;

use super::{super::mark, open, *};
use crate::log::{
    conformance::{Backend, all, append, check_model, conformance, number, record},
    verify::{Checks, verify},
};

/// A log that leaves out positions whenever it appends.
struct Sparse<const STRIDE: u64> {
    log: Arc<EmbeddedLog>,
    last: Mutex<Lsn>,
}

impl<const STRIDE: u64> LogReader for Sparse<STRIDE> {
    fn follow(self: Arc<Self>, from: Lsn) -> EntryStream {
        Arc::clone(&self.log).follow(from)
    }

    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        self.log.read(from, records, bytes)
    }

    fn tail(&self) -> Lsn {
        self.log.tail()
    }

    fn watch_tail(&self) -> watch::Receiver<Lsn> {
        self.log.watch_tail()
    }

    fn at_time(&self, ms: u64) -> Result<Lsn, ReadError> {
        self.log.at_time(ms)
    }

    fn note(&self, lsn: Lsn) -> Result<Option<Note>, ReadError> {
        self.log.note(lsn)
    }
}

impl<const STRIDE: u64> Log for Sparse<STRIDE> {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        let mut last = self.last.lock().unwrap();
        let first = if *last == Lsn::ZERO { 1 } else { last.0 + STRIDE };
        let placed: Vec<_> =
            (0..).zip(&records).map(|(n, bytes)| (Some(Lsn(first + n * STRIDE)), bytes.clone())).collect();
        if let (Some((Some(end), _)), Ok(_)) = (placed.last(), Stamp::all(&records)) {
            *last = *end;
        }
        self.log.push(placed)
    }

    fn close(&self) {
        self.log.close();
    }
}

struct SparsePlace(TempDir);

impl Backend for SparsePlace {
    const REOPENS: bool = true;
    const SEVERAL_HANDLES: bool = false;

    fn fresh() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn open(&self) -> Arc<dyn Log> {
        let log = Arc::new(open(self.0.path()));
        let last = Mutex::new(log.tail());
        Arc::new(Sparse::<7> { log, last })
    }
}

conformance!(conforms, super::SparsePlace);

/// How far a record is from the one before it.
fn stride() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(1), 3 => 2..50_u64, 1 => (1_u64 << 40)..(1 << 41)]
}

fn placed(strides: &[u64]) -> Vec<(Lsn, Bytes)> {
    let place = |last: &mut u64, (n, stride): (u64, &u64)| {
        *last += if n == 0 { 1 } else { *stride };
        Some((Lsn(*last), record(n, 1_000 * n, 200)))
    };
    (0..).zip(strides).scan(0, place).collect()
}

fn damage(error: &ReadError) -> Lsn {
    match error {
        ReadError::Damaged { lsn, .. } => *lsn,
        other => panic!("no damage: {other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_log_with_gaps_is_whole(
        strides in prop::collection::vec(stride(), 2..60),
        call in 1..20_usize,
        reopen in 0..60_usize,
        from in any::<prop::sample::Index>(),
    ) {
        let folder = TempDir::new().unwrap();
        let records = placed(&strides);
        let mut log = open(folder.path());
        for (n, call) in records.chunks(call).enumerate() {
            if n == reopen {
                drop(log);
                log = open(folder.path());
            }
            log.import(call.to_vec()).unwrap();
        }
        prop_assert_eq!(all(&log), records.clone());
        let beside = EmbeddedLog::open_read_only(folder.path()).unwrap();
        for ms in [0, 500, 1_000, 7_000, 7_500, u64::MAX] {
            check_model(&log, ms);
            check_model(&beside, ms);
        }
        let at = from.index(records.len());
        for lsn in [records[at].0, Lsn(records[at].0.0.saturating_sub(1)), records[at].0.next()] {
            let there: Vec<_> = records.iter().filter(|(there, _)| *there >= lsn).take(3).collect();
            let read = log.read(lsn, 3, usize::MAX).unwrap();
            prop_assert!(read.iter().map(|entry| (entry.lsn, &entry.bytes[..])).eq(there.iter().map(|(lsn, bytes)| (*lsn, &bytes[..]))));
            prop_assert_eq!(log.note(lsn).unwrap().is_some(), records.iter().any(|(there, _)| *there == lsn));
        }
        prop_assert_eq!(verify(&log, Checks::default()).unwrap().records, records.len() as u64);
        // It goes on where it ended.
        let tail = log.tail();
        prop_assert_eq!(append(&log, vec![record(99, 1, 10)]), [tail.next()]);
        drop(log);
        prop_assert_eq!(open(folder.path()).tail(), tail.next());
    }

    /// A record that was there and is gone is no gap.
    #[test]
    fn a_lost_record_among_gaps_is_found(
        strides in prop::collection::vec(stride(), 2..60),
        lost in any::<prop::sample::Index>(),
    ) {
        let folder = TempDir::new().unwrap();
        let records = placed(&strides);
        open(folder.path()).import(records.clone()).unwrap();
        let lost = lost.index(records.len());
        DB::open(&store::options(), folder.path()).unwrap().delete(records[lost].0.to_bytes()).unwrap();
        let first = if lost == 0 { Lsn::FIRST } else { records[lost - 1].0.next() };
        let opened = EmbeddedLog::create_or_open(folder.path(), EmbeddedOptions::default());
        // Of the last 1,024 records or positions at least.
        let unseen = |(lsn, _): &(Lsn, Bytes)| lsn.0 + 1_024 == records[records.len() - 1].0.0 && *lsn > first;
        match opened {
            Err(OpenError::Read(error)) => prop_assert_eq!(damage(&error), first),
            _ => prop_assert!(records.iter().any(unseen)),
        }
        // Without the check of the last records, too, as if it had happened long ago.
        let db = store::open_unchanged(folder.path()).unwrap();
        let (none, end) = (Amendments::default(), store::end(&db).unwrap());
        let before = store::scan((&db, &none), Lsn::ZERO, end, usize::MAX, usize::MAX).unwrap_or_default();
        prop_assert_eq!(before.len(), lost);
        let goes_on = if lost + 1 < records.len() { store::scan((&db, &none), first, end, 1, 1).unwrap_err() } else { return Ok(()) };
        prop_assert_eq!(damage(&goes_on), first);
        prop_assert_eq!(damage(&store::note(&db, end, records[lost].0).unwrap_err()), first);
    }
}

#[test]
fn records_are_taken_over_in_order_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    let log = open(folder.path());
    let at = |lsn| (Lsn(lsn), record(lsn, lsn, 10));
    log.import(vec![at(1), at(5), at(9)]).unwrap();
    for wrong in [vec![at(9)], vec![at(10), at(10)], vec![at(12), at(11)], vec![at(1 << 53)]] {
        assert!(matches!(log.import(wrong), Err(ImportError::Order { .. })));
    }
    log.import(vec![at(20)]).unwrap();
    assert_eq!(
        all(&log).iter().map(|(lsn, bytes)| (lsn.0, number(bytes))).collect::<Vec<_>>(),
        [(1, 1), (5, 5), (9, 9), (20, 20)]
    );
    let peek = mark::peek(folder.path()).unwrap();
    assert_eq!(peek.acknowledged.unwrap().lsn, Lsn(20));
}
