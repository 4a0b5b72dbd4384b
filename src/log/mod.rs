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
//! - **Order.** Appends made one after another through one handle stand in that order; a batch stands together. Lsns
//!   rise; they may have gaps, so nobody assumes that `lsn.next()` is there.
//! - **Durability.** A [`Receipt`] resolves with an Lsn only once the record survives `kill -9` and power loss. One that
//!   resolves with an error means that nothing was appended (embedded), or that it is not known (Kafka).
//! - **Visibility.** Readers see durable records only, all of them, in order, each once. [`Log::tail`] never goes back.
//! - **Size.** A record of more than [`schemas::MAX_RECORD_BYTES`] is refused before anything is written.
//! - **Time.** [`Log::at_time`] goes by log time ([`schemas::LogTime`]), which every backend derives alike.

use std::{pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::Stream;
use projections::Entry;
use schemas::{DecodeError, Lsn};
use tokio::sync::{oneshot, watch};

/// Why a record was not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// It is larger than the cap: the caller must stage it or refuse the request.
    #[error("a record of {0} bytes is more than the log takes")]
    TooLarge(usize),
    /// The log can't be written now; it may be later (full disk, lost broker).
    #[error("the log can't be written now: {0}")]
    Unavailable(String),
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

/// An append-only, totally ordered sequence of records. See the module for the contract.
pub trait Log: Send + Sync + 'static {
    /// Takes records for appending, in this order and one right after another. The order of calls is the order on the
    /// log; each receipt resolves when its record is durable, in order too. Never blocks: a full queue resolves the
    /// receipt with [`AppendError::Unavailable`].
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt>;

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

    /// Changes whenever the tail does.
    fn watch_tail(&self) -> watch::Receiver<Lsn>;

    /// The last record at or before this log time, in milliseconds since the Unix epoch; zero if all are later.
    ///
    /// # Errors
    /// When the log can't be read.
    fn at_time(&self, ms: u64) -> Result<Lsn, ReadError>;

    /// Takes no more appends, and returns once what was taken is durable and acknowledged.
    fn close(&self);
}
