use std::path::PathBuf;

use schemas::{DecodeError, Lsn};

/// The read models can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// RocksDB says no.
    #[error("the read models' store failed: {0}")]
    Rocks(#[from] rocksdb::Error),
    /// A row is not what its model writes: the store is damaged or another build wrote it.
    #[error("a row of {table} is malformed: {source}")]
    Row {
        /// Model and table.
        table: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A model has no column family: the store was not opened by this build.
    #[error("the read models have no column family {0}")]
    NoFamily(String),
    /// A process that only reads them never found them at rest.
    #[error("the read models are being written too quickly to be read beside their server; try again")]
    Restless,
    /// Where they are can't be looked at.
    #[error("the read models in {folder} can't be read: {source}")]
    Files {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The process that folds is another build, whose tables this one would misread.
    #[error(
        "the read model {0} is of another version of Everfold: run the same version in the process that folds and in those that serve"
    )]
    OtherVersion(&'static str),
    /// The read models belong to another log.
    #[error(
        "the read models were folded from log {found}, but this is log {expected}; restore the right log, or move the read models' folder away to fold them again"
    )]
    OtherLog {
        /// Id in the cursor.
        found: String,
        /// Id of the log.
        expected: String,
    },
    /// The read models are ahead of their log, so that the log lost records.
    #[error(
        "the read models are at Lsn {cursor}, but the log ends at Lsn {tail}: the log was lost, swapped or cut; restore it, or move the read models' folder away to fold them again from what the log still has"
    )]
    AheadOfLog {
        /// The cursor.
        cursor: Lsn,
        /// The log's last Lsn.
        tail: Lsn,
    },
    /// The log was restored from an older copy, and the read models have folded what was lost.
    #[error(
        "the read models are at Lsn {cursor}, but this log was restored up to Lsn {fork} and goes on at {epoch}: they show what was lost; move the read models' folder away to fold them again from the log"
    )]
    LostFuture {
        /// The cursor.
        cursor: Lsn,
        /// The last record that was kept.
        fork: Lsn,
        /// The first record of the new epoch.
        epoch: Lsn,
    },
    /// The log's history is not the one that was folded.
    #[error(
        "the chain value at Lsn {lsn} is {found} in the read models, but {expected} in the log: one of them was altered"
    )]
    OtherHistory {
        /// The cursor.
        lsn: Lsn,
        /// Chain value in the cursor.
        found: String,
        /// Chain value of the log.
        expected: String,
    },
}

/// The fold can't go on: the log or this build is at fault, so the projector stops.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record or fact doesn't decode.
    #[error("record {lsn} can't be folded: {source}; see `everfold log amend --help`")]
    Record {
        /// Which record.
        lsn: Lsn,
        /// Why.
        source: DecodeError,
    },
    /// A fact refers to what is not there, although its record was admitted.
    #[error("record {lsn} can't be folded: {why}; see `everfold log amend --help`")]
    Fact {
        /// Which record.
        lsn: Lsn,
        /// Why.
        why: String,
    },
    /// A record of a format that this build doesn't know begins here.
    #[error("record {lsn} raises the log's format to {format}, which this build doesn't know; run a newer Everfold")]
    Barrier {
        /// Which record.
        lsn: Lsn,
        /// The new format.
        format: u8,
    },
}
