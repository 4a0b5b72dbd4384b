//! Opening: what is on the disk must be what was acknowledged, or nothing is touched and the error says from where on
//! it isn't.

use std::path::{Path, PathBuf};

use rocksdb::{DB, DBRecoveryMode, ErrorKind};
use schemas::Lsn;

use super::{
    mark::{Acknowledged, Mark},
    store::{self, Last, damaged},
};
use crate::log::{ReadError, amendments::Amendments};

/// So many of the last records are checked at every start; `verify` checks all.
const CHECKED_AT_START: u64 = 1024;

/// Why a log can't be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// One process writes a log at a time.
    #[error("another process has the log in {0} open; stop it first, or use the commands that only read")]
    Locked(PathBuf),
    /// Nothing to read.
    #[error("there is no log in {0}")]
    Missing(PathBuf),
    /// What is there can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No such position.
    #[error("there is no record {lsn} on this log: it ends at {tail}")]
    NoRecord {
        /// What was asked for.
        lsn: Lsn,
        /// The log's last position.
        tail: Lsn,
    },
    /// The folder can't be used.
    #[error("the log in {folder} can't be opened: {why}")]
    Folder {
        /// Where it is.
        folder: PathBuf,
        /// What the system says.
        why: String,
    },
}

impl OpenError {
    pub(super) fn folder(folder: &Path) -> impl Fn(std::io::Error) -> Self {
        move |error| Self::Folder { folder: folder.to_owned(), why: error.to_string() }
    }
}

/// Opens as the one writer. All checks come before the first change.
pub(super) fn open(folder: &Path, mark: &Mark) -> Result<(DB, Last), OpenError> {
    let acknowledged = mark.read().map_err(OpenError::folder(folder))?.unwrap_or_default();
    let end = if is_log(folder) {
        let db = store::open_unchanged(folder).map_err(|error| explain(folder, &error))?;
        durable_end(folder, &db, acknowledged, acknowledged.cut)?
    } else if acknowledged.lsn > Lsn::ZERO {
        return Err(lost(Lsn::ZERO, acknowledged.lsn).into());
    } else if has_tables(folder).map_err(OpenError::folder(folder))? {
        // A new database here would delete them.
        return Err(damaged(Lsn::FIRST, "the database's file CURRENT is missing").into());
    } else {
        Last::default()
    };
    let db = DB::open(&store::options(), folder).map_err(|error| explain(folder, &error))?;
    store::cut(&db, end.lsn).map_err(|error| explain(folder, &error))?;
    mark.write_durably(Acknowledged { lsn: end.lsn, cut: false }).map_err(OpenError::folder(folder))?;
    Ok((db, end))
}

/// Whether there is a database at all.
pub(super) fn is_log(folder: &Path) -> bool {
    folder.join("CURRENT").exists()
}

fn has_tables(folder: &Path) -> std::io::Result<bool> {
    for file in std::fs::read_dir(folder)? {
        if file?.path().extension().is_some_and(|extension| extension == "sst" || extension == "log") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the durable records of a database end: at what was acknowledged if `exact`, and not before that in any case.
/// Checks the last of them.
pub(super) fn durable_end(folder: &Path, db: &DB, acknowledged: Acknowledged, exact: bool) -> Result<Last, OpenError> {
    let end = store::end(db).map_err(|error| explain(folder, &error))?;
    if end < acknowledged.lsn {
        return Err(lost(end, acknowledged.lsn).into());
    }
    let end = if exact { acknowledged.lsn } else { end };
    Ok(store::check_end(db, end, CHECKED_AT_START)?)
}

fn lost(end: Lsn, acknowledged: Lsn) -> ReadError {
    let why = format!("records up to {acknowledged} were acknowledged, but what is left ends at {end}");
    damaged(end.next(), why)
}

/// Says what an error of RocksDB means for the log.
pub(super) fn explain(folder: &Path, error: &rocksdb::Error) -> OpenError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::IOError if text.contains("LOCK") => OpenError::Locked(folder.to_owned()),
        ErrorKind::Corruption => damaged(first_unreadable(folder), text).into(),
        _ => OpenError::Folder { folder: folder.to_owned(), why: text },
    }
}

/// The first record that a damaged database doesn't give any more: reads all before it, and changes nothing.
fn first_unreadable(folder: &Path) -> Lsn {
    tracing::error!(folder = %folder.display(), "the log is damaged; looking for the first record that is affected");
    let mut options = store::options();
    options.set_paranoid_checks(false);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    let Ok(db) = DB::open_for_read_only(&options, folder, false) else { return Lsn::FIRST };
    let mut next = Lsn::FIRST;
    loop {
        match store::scan((&db, &Amendments::default()), next, Lsn::MAX, 1024, 1 << 20) {
            Ok(entries) => next = entries.last().map_or(next, |entry| entry.lsn.next()),
            Err(error) => return next.max(store::first_of_named_file(&db, &error.to_string())),
        }
    }
}
