//! Taking over the records of another log as they are, at the positions that they have there: so that a log moves from
//! one backend to another, and read models that were folded from the one go on with the other.

use bytes::Bytes;
use schemas::{Chain, DecodeError, Lsn, Record};

use super::{
    AppendError, LogReader, Note, ReadError, Stamp,
    amendments::Amendment,
    genesis,
    verify::{Checks, Verified},
};

/// Records are copied in batches of this size.
const BATCH_RECORDS: usize = 4_096;
const BATCH_BYTES: usize = 4 << 20;

/// A log that takes over records with their positions. Nobody else appends to it meanwhile.
pub trait Importer: LogReader {
    /// Appends records at their positions, which rise and lie beyond the tail; they are durable once it returns. After
    /// an error, the tail says what was taken over, without a gap. Blocks.
    ///
    /// # Errors
    /// When a position is not beyond the one before it, or the log can't be written.
    fn import(&self, records: Vec<(Lsn, Bytes)>) -> Result<(), ImportError>;

    /// Takes over that a record is out of effect, durably; does nothing if that is known. Blocks.
    ///
    /// # Errors
    /// When it can't be written.
    fn amend(&self, amendment: &Amendment) -> Result<(), ImportError>;
}

/// Why records are not taken over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImportError {
    /// A position is not beyond the one before it.
    #[error("record {lsn} can't be taken over after {last}")]
    Order {
        /// Where the record is to stand.
        lsn: Lsn,
        /// The last one before.
        last: Lsn,
    },
    /// The log refuses it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The amendment can't be written.
    #[error("the amendment of record {lsn} can't be noted: {why}")]
    Amend {
        /// Which record.
        lsn: Lsn,
        /// What the system says.
        why: String,
    },
}

impl ImportError {
    /// Whether records can stand after the last one of a log.
    ///
    /// # Errors
    /// The first that can't.
    pub(super) fn check_order(records: &[(Lsn, Bytes)], last: Lsn) -> Result<(), Self> {
        let mut last = last;
        for &(lsn, _) in records {
            if lsn <= last || lsn > Lsn::MAX {
                return Err(Self::Order { lsn, last });
            }
            last = lsn;
        }
        Ok(())
    }
}

/// Why a log is not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of them can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record can't be read.
    #[error("record {lsn} can't be decoded: {source}")]
    Record {
        /// Which.
        lsn: Lsn,
        /// Why.
        source: DecodeError,
    },
    /// The target can't be written.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// There is nothing to copy.
    #[error("the log that is to be copied is empty")]
    Empty,
    /// What is in the target doesn't go on as the source does.
    #[error("the target holds something else than the source: {0}; name one that is empty")]
    NotAPrefix(String),
    /// Something went wrong on the way.
    #[error(
        "the hash chain at {lsn} is {source_chain} in the source, but {target_chain} in the copy: don't use the copy"
    )]
    Differs {
        /// The last record.
        lsn: Lsn,
        /// Its chain value there.
        source_chain: Chain,
        /// And in the copy.
        target_chain: Chain,
    },
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// So far the target had come by itself.
    pub before: Lsn,
    /// The last record of both.
    pub tail: Lsn,
    /// Records that were copied now.
    pub records: u64,
    /// The chain after the last record, as the source has it.
    pub source: Chain,
    /// The same, computed anew from all that the target gives.
    pub target: Chain,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Records go over.
    Copying,
    /// What the target has is read: first what it had before, later what was copied.
    Verifying,
}

/// Copies what the source has now and the target lacks, and reads the whole copy, once.
///
/// # Errors
/// When what the target has is not what the source begins with, one of them fails, or the copy is not what was copied.
pub fn copy(from: &dyn LogReader, to: &dyn Importer, report: &dyn Fn(Step, Lsn, Lsn)) -> Result<Copied, CopyError> {
    let (before, until) = (to.tail(), from.tail());
    let amendments = from.amendments();
    let checks = Checks {
        amended: &|lsn| amendments.has(lsn),
        progress: &|at, end| report(Step::Verifying, at, end),
        ..Checks::default()
    };
    let mut copied = fitting(from, to, checks)?;
    let mut note = copied.note;
    let (mut at, mut records) = (before, 0);
    while at < until {
        let entries = from.read(at.next(), BATCH_RECORDS, BATCH_BYTES)?;
        let entries: Vec<_> = entries.into_iter().take_while(|entry| entry.lsn <= until).collect();
        let Some(last) = entries.last() else {
            return Err(
                ReadError::Damaged { lsn: at.next(), why: "it is missing, although the log goes on".into() }.into()
            );
        };
        at = last.lsn;
        records += entries.len() as u64;
        let mut batch = Vec::with_capacity(entries.len());
        for entry in entries {
            note = advance(note, entry.lsn, &entry.bytes)?;
            batch.push((entry.lsn, Bytes::copy_from_slice(&entry.bytes)));
        }
        to.import(batch)?;
        report(Step::Copying, at, until);
    }
    for amendment in amendments.iter().filter(|amendment| amendment.void <= until) {
        to.amend(amendment)?;
    }
    let noted = from.note(until)?.unwrap_or(note);
    copied.go_on(to, checks)?;
    if [noted.chain, copied.note.chain] != [note.chain; 2] || copied.tail != until {
        let (source_chain, target_chain) = (noted.chain, copied.note.chain);
        return Err(CopyError::Differs { lsn: until, source_chain, target_chain });
    }
    Ok(Copied { before, tail: until, records, source: noted.chain, target: copied.note.chain })
}

/// What the target has, if the source has the same history up to there.
fn fitting(from: &dyn LogReader, to: &dyn Importer, checks: Checks<'_>) -> Result<Verified, CopyError> {
    let (at, mut theirs) = (to.tail(), Verified::default());
    let Some(source) = genesis(from)? else { return Err(CopyError::Empty) };
    if at == Lsn::ZERO {
        return Ok(theirs);
    }
    let id = |id: &[u8]| hex::encode(id);
    match genesis(to)? {
        Some(target) if target.log_id == source.log_id => {}
        Some(target) => {
            let (there, here) = (id(&target.log_id.0), id(&source.log_id.0));
            return Err(CopyError::NotAPrefix(format!("it is the log {there}, and the source is {here}")));
        }
        None => return Err(CopyError::NotAPrefix("it begins with another record".into())),
    }
    let Some(note) = (if at <= from.tail() { note_at(from, at)? } else { None }) else {
        let tail = from.tail();
        let why = format!("it ends at Lsn {at}, where the source, which ends at {tail}, has nothing");
        return Err(CopyError::NotAPrefix(why));
    };
    theirs.go_on(to, checks)?;
    let (there, here) = (theirs.note.chain, note.chain);
    match there == here {
        true => Ok(theirs),
        false => Err(CopyError::NotAPrefix(format!("at Lsn {at} its chain is {there}, and the source's is {here}"))),
    }
}

/// The note at a record, computed from all before it if the log takes none; none if there is no such record.
pub(super) fn note_at(log: &dyn LogReader, lsn: Lsn) -> Result<Option<Note>, CopyError> {
    if let Some(note) = log.note(lsn)? {
        return Ok(Some(note));
    }
    let (mut note, mut at) = (Note::default(), Lsn::ZERO);
    while at < lsn {
        let entries = log.read(at.next(), BATCH_RECORDS, BATCH_BYTES)?;
        let Some(last) = entries.last() else { return Ok(None) };
        let reached = last.lsn;
        for entry in entries.iter().take_while(|entry| entry.lsn <= lsn) {
            note = advance(note, entry.lsn, &entry.bytes)?;
            at = entry.lsn;
        }
        if reached > at {
            break;
        }
    }
    Ok((at == lsn).then_some(note))
}

fn advance(note: Note, lsn: Lsn, bytes: &[u8]) -> Result<Note, CopyError> {
    let record = Record::decode(bytes).map_err(|source| CopyError::Record { lsn, source })?;
    Ok(note.next(lsn, bytes, Stamp::of(&record)))
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
    };

    use projections::Entry;
    use schemas::{Blob, FORMAT, facts::Genesis};
    use tempfile::TempDir;

    use super::*;
    use crate::log::{
        EmbeddedLog, EmbeddedOptions, Log, MemoryLog,
        conformance::{all, append, encode, record},
    };

    /// A log of so many records, which belongs to somebody.
    fn log(id: u8, stride: u64, records: u64) -> MemoryLog {
        let log = MemoryLog::with_stride(stride);
        let genesis = Genesis { log_id: Blob(vec![id; 16]), server_name: "a".into(), format: FORMAT };
        append(&log, vec![encode(0, 5, &genesis.into())]);
        append(&log, (1..records).map(|n| record(n, n, 3_000)).collect());
        log
    }

    fn open(folder: &Path) -> EmbeddedLog {
        EmbeddedLog::create_or_open(folder, EmbeddedOptions::default()).unwrap()
    }

    fn quietly(from: &dyn LogReader, to: &dyn Importer) -> Result<Copied, CopyError> {
        copy(from, to, &|_, _, _| {})
    }

    #[test]
    fn a_copy_is_the_log_and_goes_on_where_it_was_left() {
        for stride in [1, 3] {
            let (from, folder) = (log(1, stride, 5_000), TempDir::new().unwrap());
            let to = open(folder.path());
            // As if the copying had been killed.
            let half = from.read(Lsn::FIRST, 2_000, usize::MAX).unwrap();
            to.import(half.iter().map(|entry| (entry.lsn, Bytes::copy_from_slice(&entry.bytes))).collect()).unwrap();
            drop(to);
            let to = open(folder.path());
            let copied = quietly(&from, &to).unwrap();
            assert_eq!((copied.before, copied.tail, copied.records), (half[1_999].lsn, from.tail(), 3_000));
            assert_eq!(copied.source, copied.target);
            assert_eq!(all(&to), all(&from));
            let again = quietly(&from, &to).unwrap();
            assert_eq!((again.records, again.target), (0, copied.target));
            // What came meanwhile.
            append(&from, vec![record(9_000, 1, 10)]);
            assert_eq!(quietly(&from, &to).unwrap().records, 1);
            // And on: from an embedded log into another.
            let (second, beside) = (TempDir::new().unwrap(), EmbeddedLog::open_read_only(folder.path()).unwrap());
            assert_eq!(quietly(&beside, &open(second.path())).unwrap().records, 5_001);
            assert_eq!(all(&open(second.path())), all(&from));
        }
    }

    /// A log like one on Kafka: it takes no notes. It counts what is read of it.
    struct Noteless(EmbeddedLog, AtomicU64);

    impl LogReader for Noteless {
        fn follow(self: Arc<Self>, _: Lsn) -> crate::log::EntryStream {
            Box::pin(futures::stream::empty())
        }

        fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
            let read = self.0.read(from, records, bytes)?;
            self.1.fetch_add(read.len() as u64, Ordering::SeqCst);
            Ok(read)
        }

        fn tail(&self) -> Lsn {
            self.0.tail()
        }

        fn watch_tail(&self) -> tokio::sync::watch::Receiver<Lsn> {
            self.0.watch_tail()
        }

        fn at_time(&self, ms: u64) -> Result<Lsn, ReadError> {
            self.0.at_time(ms)
        }

        fn note(&self, _: Lsn) -> Result<Option<Note>, ReadError> {
            Ok(None)
        }
    }

    impl Importer for Noteless {
        fn import(&self, records: Vec<(Lsn, Bytes)>) -> Result<(), ImportError> {
            self.0.import(records)
        }

        fn amend(&self, amendment: &Amendment) -> Result<(), ImportError> {
            self.0.amend(amendment)
        }
    }

    #[test]
    fn a_target_without_notes_is_read_once() {
        let (from, folder) = (log(1, 1, 5_000), TempDir::new().unwrap());
        let to = Noteless(open(folder.path()), AtomicU64::new(0));
        assert_eq!(quietly(&from, &to).unwrap().records, 5_000);
        append(&from, vec![record(9_000, 1, 10)]);
        to.1.store(0, Ordering::SeqCst);
        let copied = quietly(&from, &to).unwrap();
        assert_eq!((copied.records, copied.source), (1, copied.target));
        // Its first record says whose it is.
        assert_eq!(to.1.load(Ordering::SeqCst), 1 + 5_001);
    }

    #[test]
    fn steps_are_told() {
        let (from, folder) = (log(1, 1, 10), TempDir::new().unwrap());
        let told = std::cell::RefCell::new(Vec::new());
        copy(&from, &open(folder.path()), &|step, at, end| told.borrow_mut().push((step, at, end))).unwrap();
        assert_eq!(told.take(), [(Step::Copying, Lsn(10), Lsn(10)), (Step::Verifying, Lsn(10), Lsn(10))]);
    }

    #[test]
    fn what_does_not_fit_is_refused_before_anything_is_written() {
        let (from, empty) = (log(1, 1, 10), MemoryLog::new());
        for (other, expected) in [
            (log(2, 1, 5), "it is the log 0202"),
            (log(1, 1, 20), "it ends at Lsn 20, where the source, which ends at 10, has nothing"),
            (log(1, 2, 5), "at Lsn 9 its chain is"),
        ] {
            let folder = TempDir::new().unwrap();
            let to = open(folder.path());
            to.import(all(&other)).unwrap();
            let error = quietly(&from, &to).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert_eq!(all(&to), all(&other));
        }
        let folder = TempDir::new().unwrap();
        assert!(matches!(quietly(&empty, &open(folder.path())), Err(CopyError::Empty)));
    }

    #[test]
    fn amendments_go_along() {
        let (from, first, second) = (log(1, 1, 10), TempDir::new().unwrap(), TempDir::new().unwrap());
        quietly(&from, &open(first.path())).unwrap();
        let amendment = Amendment { void: Lsn(4), reason: "bad".into(), at_ms: 7 };
        EmbeddedLog::amend(first.path(), &amendment).unwrap();
        let from: Arc<dyn LogReader> = Arc::new(EmbeddedLog::open_read_only(first.path()).unwrap());
        for _ in 0..2 {
            quietly(&*from, &open(second.path())).unwrap();
        }
        let copied = open(second.path());
        assert_eq!(copied.amendments().iter().collect::<Vec<_>>(), [&amendment]);
        assert!(copied.read(Lsn(4), 1, 1).unwrap()[0].amended);
        copied.close();
    }
}
