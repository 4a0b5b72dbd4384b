//! The log: the only source of truth. Append before effect, and nothing is acknowledged before it is durable.
//!
//! ```text
//!   Lsn   1        2        3        4        5        6
//!      Genesis   record   record   record   record   record
//!                                    │                 │
//!                        tail ───────┘                 └── written, not durable yet: nobody sees it
//! ```
//!
//! The contract, which `conformance` tests on every backend:
//! - **Order.** Appends made one after another through one handle stand in that order; the records of one call stand
//!   together, and if one of them is refused none is appended. On Kafka, those of another process may come in between,
//!   and one may be lost where the others are not: so all records of a call but the last have no effect of their own,
//!   and the last names what it rests on. Lsns rise; they may have gaps, so nobody assumes that `lsn.next()` is there.
//! - **Durability.** A [`Receipt`] resolves with an Lsn only once the record survives `kill -9` and power loss. One that
//!   resolves with an error means that nothing was appended, or, with [`AppendError::Unconfirmed`] (Kafka), that it is
//!   not known.
//! - **Visibility.** Readers see durable records only, all of them, in order, each once. [`LogReader::tail`] never goes
//!   back, and a record whose receipt has resolved is at or before it.
//! - **Size and shape.** A record of more than [`schemas::MAX_RECORD_BYTES`], or one that doesn't decode, is refused
//!   before anything is written.
//! - **Time.** [`LogReader::at_time`] goes by log time ([`schemas::LogTime`]), which every backend derives alike.

pub mod amendments;
pub mod copy;
pub mod embedded;
pub mod epoch;
pub(crate) mod follow;
mod frozen;
pub mod kafka;
pub mod memory;
mod moment;
pub mod verify;

#[cfg(test)]
pub(crate) mod conformance;

use std::{path::Path, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::Stream;
use projections::Entry;
use schemas::{Chain, DecodeError, Fact, LogTime, Lsn, MAX_RECORD_BYTES, Record, facts::Genesis};
use tokio::sync::{oneshot, watch};

use self::amendments::Amendments;
pub use embedded::{EmbeddedLog, EmbeddedOptions};
pub use frozen::FrozenLog;
pub use kafka::KafkaLog;
pub use memory::MemoryLog;
pub use moment::Moment;

/// Why a record was not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// It is larger than the cap: the caller must stage it or refuse the request.
    #[error("a record of {0} bytes is more than the log takes")]
    TooLarge(usize),
    /// It is no record: whoever encoded it is at fault.
    #[error("not a record: {0}")]
    Malformed(DecodeError),
    /// The log can't be written now; it may be later (full disk, lost broker).
    #[error("the log can't be written now: {0}")]
    Unavailable(String),
    /// The brokers did not say in time that they have it, but may have it all the same: then it takes effect, once.
    #[error("the log did not confirm this in time, and it may still take effect, once: {0}")]
    Unconfirmed(String),
    /// Nothing is ever appended here: this is what a log was at this position.
    #[error("this server shows what was at Lsn {0}, and can only be read")]
    ReadOnly(Lsn),
    /// The log is closed: the process stops.
    #[error("the log is closed")]
    Closed,
}

/// Why the log can't be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The backend failed.
    #[error("the log can't be read: {0}")]
    Backend(String),
    /// What is there is not what was appended.
    #[error("the log is damaged at Lsn {lsn}: {why}; restore the log's folder from a backup or another node")]
    Damaged {
        /// The first affected position.
        lsn: Lsn,
        /// What is wrong with it.
        why: String,
    },
    /// A record doesn't decode.
    #[error("record {lsn} can't be decoded: {source}")]
    Record {
        /// Which.
        lsn: Lsn,
        /// Why.
        source: DecodeError,
    },
}

/// Resolves when a record is durable.
pub type Receipt = oneshot::Receiver<Result<Lsn, AppendError>>;

/// Records in order; it goes on live and ends only with the log.
pub type EntryStream = Pin<Box<dyn Stream<Item = Result<Entry, ReadError>> + Send>>;

/// The reading half of a log. See the module for the contract.
pub trait LogReader: Send + Sync + 'static {
    /// Records from a position on (inclusive); goes on with what is appended later.
    fn follow(self: Arc<Self>, from: Lsn) -> EntryStream;

    /// At most `records` records, or about `bytes` bytes if that is less, from a position on (inclusive); at least one
    /// if there is one. Blocks on disk: not for async code.
    ///
    /// # Errors
    /// When the log is damaged there or can't be read.
    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError>;

    /// The last durable position; zero for an empty log.
    fn tail(&self) -> Lsn;

    /// Changes whenever the tail does from now on; its sender is gone once the log is closed.
    fn watch_tail(&self) -> watch::Receiver<Lsn>;

    /// The last record at or before this log time, in milliseconds since the Unix epoch; zero if all are later. Blocks
    /// on disk.
    ///
    /// # Errors
    /// When the log can't be read.
    fn at_time(&self, ms: u64) -> Result<Lsn, ReadError>;

    /// What was noted with the record at a position when it was appended; none if there is no record, or if the backend
    /// takes no notes. Blocks on disk.
    ///
    /// # Errors
    /// When the log can't be read.
    fn note(&self, lsn: Lsn) -> Result<Option<Note>, ReadError>;

    /// Records that were taken out of effect by hand: [`LogReader::read`] says it with each, and this why.
    fn amendments(&self) -> Amendments {
        Amendments::default()
    }

    /// Looks for what other processes have appended by now, where a backend doesn't hear of it by itself or only after a
    /// while; gives the tail. Blocks.
    ///
    /// # Errors
    /// When the log can't be read.
    fn refresh(&self) -> Result<Lsn, ReadError> {
        Ok(self.tail())
    }

    /// Why the log is neither appended to nor followed any more, until it is opened anew; none while it is well.
    fn failed(&self) -> Option<String> {
        None
    }

    /// Makes a copy of a log that lies on this machine, as it is now, in a folder that isn't there yet. Says up to where
    /// that is; none if the log lies elsewhere, and nothing was made. Blocks on disk.
    ///
    /// # Errors
    /// When the copy can't be made.
    fn checkpoint(&self, _into: &Path) -> Result<Option<Lsn>, ReadError> {
        Ok(None)
    }

    /// A figure of the database that the log is in, by RocksDB's name for it; none if it is in no such database.
    fn property(&self, _name: &str) -> Option<u64> {
        None
    }
}

/// The first fact of a log; none for an empty one, or one that doesn't begin as it must.
///
/// # Errors
/// When it can't be read.
pub fn genesis(log: &(impl LogReader + ?Sized)) -> Result<Option<Genesis>, ReadError> {
    let first = log.read(Lsn::FIRST, 1, 1)?;
    let found = |entry: &Entry| match Record::decode(&entry.bytes).ok()?.facts.first()?.decode().ok()? {
        Fact::Genesis(genesis) => Some(genesis),
        _ => None,
    };
    Ok(first.first().and_then(found))
}

/// What a backend may note with a record, so that neither needs a scan, and an altered record shows by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The hash chain's value after the record.
    pub chain: Chain,
    /// Log time at the record.
    pub time: LogTime,
}

impl Note {
    /// The note for a record, given that for the record before it.
    fn next(self, lsn: Lsn, bytes: &[u8], stamp: Stamp) -> Self {
        Self { chain: self.chain.extend(lsn, bytes), time: self.time.advance_by(stamp.at_ms, stamp.opens) }
    }
}

/// An append-only, totally ordered sequence of records. See the module for the contract.
pub trait Log: LogReader {
    /// Takes records for appending, in this order and one right after another. The order of calls is the order on the
    /// log; each receipt resolves when its record is durable, in order too. Never blocks: a full queue resolves the
    /// receipts with [`AppendError::Unavailable`].
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt>;

    /// Takes no more appends, and returns once what was taken is durable and acknowledged. Reading goes on.
    fn close(&self);
}

/// What log time needs to know of a record that is about to be appended.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    at_ms: u64,
    opens: bool,
}

impl Stamp {
    /// Reads the stamps of records that are to stand together, or says why they can't be appended.
    fn all(records: &[Bytes]) -> Result<Vec<Self>, AppendError> {
        if let Some(record) = records.iter().find(|record| record.len() > MAX_RECORD_BYTES) {
            return Err(AppendError::TooLarge(record.len()));
        }
        let stamp = |record: &Bytes| Record::decode(record).map(|record| Self::of(&record));
        records.iter().map(stamp).collect::<Result<_, _>>().map_err(AppendError::Malformed)
    }

    fn of(record: &Record) -> Self {
        Self { at_ms: record.header.at_ms, opens: LogTime::opened_by(record) }
    }
}

/// Says why records can't be appended, if they are not what a log takes.
pub(crate) fn check(records: &[Bytes]) -> Result<(), AppendError> {
    Stamp::all(records).map(|_| ())
}

/// Receipts that have resolved already, all with the same error.
pub(crate) fn refused(records: usize, error: &AppendError) -> Vec<Receipt> {
    let resolved = |_| {
        let (sender, receipt) = oneshot::channel();
        // The receiver is in scope, so that sending can't fail.
        let _ = sender.send(Err(error.clone()));
        receipt
    };
    (0..records).map(resolved).collect()
}
