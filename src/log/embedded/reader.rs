//! Reading beside a running server, or without one: for the command line.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use projections::Entry;
use rocksdb::DB;
use schemas::Lsn;
use tokio::sync::watch;

use super::{
    mark::{self, Peek},
    recovery::{self, OpenError},
    store::{self, Last},
};
use crate::log::{EntryStream, LogReader, Note, ReadError, amendments::Amendments, follow};

/// Another process can't wake this one.
const POLL: Duration = Duration::from_millis(200);
/// How often it is tried again where the writer got in between.
const ATTEMPTS: usize = 10;

/// A log that is read, while another process may write it. It shows what is durable, as of the last
/// [`LogReader::refresh`]; following refreshes it by itself.
pub struct EmbeddedReader {
    folder: PathBuf,
    db: DB,
    amendments: Amendments,
    tail: watch::Sender<Lsn>,
}

impl EmbeddedReader {
    pub(super) fn open(folder: &Path) -> Result<Self, OpenError> {
        if !recovery::is_log(folder) {
            return Err(OpenError::Missing(folder.to_owned()));
        }
        let mut options = store::options();
        options.create_if_missing(false);
        // Files that the writer deletes are still read through their open handles.
        options.set_max_open_files(-1);
        let attempt = || {
            let peek = mark::peek(folder).map_err(OpenError::folder(folder))?;
            if !peek.writer {
                // A secondary instance passes over files that it can't open; this one says what is wrong.
                let db = store::open_unchanged(folder).map_err(|error| recovery::explain(folder, &error))?;
                durable_end(folder, &db, peek)?;
            }
            let opened = DB::open_as_secondary(&options, folder, folder);
            let db = opened.map_err(|error| recovery::explain(folder, &error))?;
            let end = durable_end(folder, &db, peek)?;
            Ok((db, end))
        };
        let (db, end) = again(folder, attempt)?;
        let amendments = Amendments::read(folder).map_err(OpenError::folder(folder))?;
        Ok(Self { folder: folder.to_owned(), db, amendments, tail: watch::channel(end.lsn).0 })
    }

    /// Whether another process has the log open for writing.
    #[must_use]
    pub fn is_written(&self) -> bool {
        mark::peek(&self.folder).is_ok_and(|peek| peek.writer)
    }

    fn catch_up(&self) -> Result<Lsn, ReadError> {
        let attempt = || {
            let peek = mark::peek(&self.folder).map_err(OpenError::folder(&self.folder))?;
            self.db.try_catch_up_with_primary().map_err(|error| recovery::explain(&self.folder, &error))?;
            durable_end(&self.folder, &self.db, peek)
        };
        let end = again(&self.folder, attempt).map_err(|error| match error {
            OpenError::Read(error) => error,
            other => ReadError::Backend(other.to_string()),
        })?;
        self.tail.send_if_modified(|tail| std::mem::replace(tail, end.lsn.max(*tail)) < end.lsn);
        Ok(self.tail())
    }
}

/// What a live writer has written but not acknowledged is not there yet. The file was looked at before the database, so
/// that it can't be ahead.
fn durable_end(folder: &Path, db: &DB, peek: Peek) -> Result<Last, OpenError> {
    let acknowledged = peek.acknowledged.unwrap_or_default();
    let exact = peek.acknowledged.is_some() && (peek.writer || acknowledged.cut);
    recovery::durable_end(folder, db, acknowledged, exact)
}

/// Tries again while a writer is alive, which may delete a file between two looks at the folder.
fn again<T>(folder: &Path, attempt: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let mut result = attempt();
    for _ in 0..ATTEMPTS {
        if result.is_ok() || !mark::peek(folder).is_ok_and(|peek| peek.writer) {
            break;
        }
        std::thread::sleep(POLL / 10);
        result = attempt();
    }
    result
}

impl LogReader for EmbeddedReader {
    fn follow(self: Arc<Self>, from: Lsn) -> EntryStream {
        Box::pin(async_stream::try_stream! {
            let mut next = from.max(Lsn::FIRST);
            loop {
                while next <= self.tail() {
                    for entry in follow::batch(Arc::<Self>::clone(&self), next).await? {
                        next = entry.lsn.next();
                        yield entry;
                    }
                }
                tokio::time::sleep(POLL).await;
                let reader = Arc::clone(&self);
                let refreshed = tokio::task::spawn_blocking(move || reader.catch_up()).await;
                refreshed.map_err(|error| ReadError::Backend(error.to_string()))??;
            }
        })
    }

    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        store::scan((&self.db, &self.amendments), from, self.tail(), records, bytes)
    }

    fn tail(&self) -> Lsn {
        *self.tail.borrow()
    }

    fn watch_tail(&self) -> watch::Receiver<Lsn> {
        self.tail.subscribe()
    }

    fn at_time(&self, ms: u64) -> Result<Lsn, ReadError> {
        store::at_time(&self.db, self.tail(), ms)
    }

    fn note(&self, lsn: Lsn) -> Result<Option<Note>, ReadError> {
        store::note(&self.db, self.tail(), lsn)
    }

    fn amendments(&self) -> Amendments {
        self.amendments.clone()
    }

    fn refresh(&self) -> Result<Lsn, ReadError> {
        self.catch_up()
    }
}
