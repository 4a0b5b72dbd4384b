//! The log in a RocksDB of its own: the default, which needs no other process.
//!
//! One thread writes ([`writer`]): many callers share one sync. Keys are big-endian Lsns, dense but for what was copied
//! from logs with gaps; a value is a [`frame`]. A start checks before it touches anything ([`recovery`]) that the database still has what was
//! acknowledged ([`mark`]). After a failed write, such as on a full disk, nothing has changed; reading goes on, and
//! writing does as soon as it can.

mod frame;
mod mark;
mod queue;
mod reader;
mod recovery;
mod store;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use projections::Entry;
use schemas::Lsn;
use tokio::sync::watch;

use self::{
    mark::{Acknowledged, Mark},
    queue::{Limit, Queue},
    store::Slot,
    writer::{Disk, RealDisk, Writer},
};
pub use self::{reader::EmbeddedReader, recovery::OpenError};
use super::{
    AppendError, EntryStream, Log, LogReader, Note, ReadError, Receipt, Stamp,
    amendments::{Amendment, Amendments},
    copy::{ImportError, Importer},
    follow::follow,
    refused,
};
use crate::metrics::{Metrics, count};

/// How an embedded log works. The defaults suit a server.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Added to every sync, to stand for a slower disk.
    pub sync_delay: Duration,
    /// So many records may wait to be written; beyond that, appends are refused.
    pub queue_records: usize,
    /// So many bytes of records may wait.
    pub queue_bytes: usize,
    /// One sync takes no more records than this (but at least one call's).
    pub batch_records: usize,
    /// One sync takes no more bytes than this (but at least one call's).
    pub batch_bytes: usize,
    /// After a failed write, appends are refused at once for so long before the disk is tried again.
    pub retry_after: Duration,
    /// Is told what happens.
    pub observer: Arc<dyn Observer>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            sync_delay: Duration::ZERO,
            queue_records: 16_384,
            queue_bytes: 64 << 20,
            batch_records: 4_096,
            batch_bytes: 8 << 20,
            retry_after: Duration::from_secs(1),
            observer: Arc::new(()),
        }
    }
}

/// What one sync made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Records.
    pub records: usize,
    /// Their bytes.
    pub bytes: usize,
    /// How long each call took from its append until it was durable.
    pub waits: Vec<Duration>,
}

/// Is told what a log does, for metrics. Called in the writing thread: it must be quick.
pub trait Observer: Send + Sync + 'static {
    /// Records are durable, and are acknowledged next.
    fn committed(&self, committed: &Committed);

    /// So many records are refused because the log could not be written.
    fn failed(&self, records: usize);
}

/// Not interested.
impl Observer for () {
    fn committed(&self, _: &Committed) {}

    fn failed(&self, _: usize) {}
}

impl Observer for Metrics {
    fn committed(&self, committed: &Committed) {
        self.log_batch_records.observe(count(committed.records));
        self.log_records_total.inc_by(committed.records as u64);
        self.log_bytes_total.inc_by(committed.bytes as u64);
        committed.waits.iter().for_each(|wait| self.log_append_seconds.observe(wait.as_secs_f64()));
    }

    fn failed(&self, records: usize) {
        self.log_failed_records_total.inc_by(records as u64);
    }
}

/// See the module. Dropping it closes it.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    tail: watch::Receiver<Lsn>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the log and its writer share.
struct Shared {
    folder: PathBuf,
    queue: Queue,
    store: Slot,
    amendments: Amendments,
}

impl EmbeddedLog {
    /// Opens the log in a folder, which is made if it is missing; an empty log waits for its `Genesis`. Blocks on disk.
    ///
    /// # Errors
    /// When another process has it open, when it has lost or damaged records (nothing is changed then), or when the
    /// folder can't be used.
    pub fn create_or_open(folder: &Path, options: EmbeddedOptions) -> Result<Self, OpenError> {
        let disk = RealDisk(options.sync_delay);
        Self::open_on(folder, options, Box::new(disk))
    }

    /// Opens the reading half, also while another process writes. Blocks on disk.
    ///
    /// # Errors
    /// When there is no log, or it can't be read.
    pub fn open_read_only(folder: &Path) -> Result<EmbeddedReader, OpenError> {
        EmbeddedReader::open(folder)
    }

    /// Takes a record of the log in a folder out of effect: see [`Amendments`]. Blocks on disk.
    ///
    /// # Errors
    /// When a process has the log open for writing, or there is no such record.
    pub fn amend(folder: &Path, amendment: &Amendment) -> Result<(), OpenError> {
        let log = Self::open_read_only(folder)?;
        if log.note(amendment.void)?.is_none() {
            return Err(OpenError::NoRecord { lsn: amendment.void, tail: log.tail() });
        }
        let locked = Mark::lock(folder).map_err(OpenError::folder(folder))?;
        let _writer = locked.ok_or_else(|| OpenError::Locked(folder.to_owned()))?;
        Amendments::add(folder, amendment).map_err(OpenError::folder(folder))
    }

    /// Takes records for appending, each where it says, or right after the one before it.
    fn push(&self, records: Vec<(Option<Lsn>, Bytes)>) -> Vec<Receipt> {
        let bytes: Vec<Bytes> = records.iter().map(|(_, bytes)| bytes.clone()).collect();
        match Stamp::all(&bytes) {
            Ok(stamps) => self.shared.queue.push(records, stamps),
            Err(error) => refused(records.len(), &error),
        }
    }

    fn open_on(folder: &Path, options: EmbeddedOptions, disk: Box<dyn Disk>) -> Result<Self, OpenError> {
        std::fs::create_dir_all(folder).map_err(OpenError::folder(folder))?;
        let locked = Mark::lock(folder).map_err(OpenError::folder(folder))?;
        let mark = locked.ok_or_else(|| OpenError::Locked(folder.to_owned()))?;
        let (db, last) = recovery::open(folder, &mark)?;
        let amendments = Amendments::read(folder).map_err(OpenError::folder(folder))?;
        let limit = Limit { records: options.queue_records, bytes: options.queue_bytes };
        let (queue, store) = (Queue::new(limit), Slot::new(db));
        let shared = Arc::new(Shared { folder: folder.to_owned(), queue, store, amendments });
        let (sender, tail) = watch::channel(last.lsn);
        let writer = Writer {
            shared: Arc::clone(&shared),
            folder: folder.to_owned(),
            disk,
            mark,
            last,
            tail: sender,
            limit: Limit { records: options.batch_records, bytes: options.batch_bytes },
            retry_after: options.retry_after,
            observer: options.observer,
            broken: None,
        };
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || writer.run());
        let thread = thread.map_err(OpenError::folder(folder))?;
        Ok(Self { shared, tail, writer: Mutex::new(Some(thread)) })
    }
}

impl LogReader for EmbeddedLog {
    fn follow(self: Arc<Self>, from: Lsn) -> EntryStream {
        follow(self, from)
    }

    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let tail = self.tail();
        self.shared.store.with(|db| store::scan((db, &self.shared.amendments), from, tail, records, bytes))
    }

    fn tail(&self) -> Lsn {
        *self.tail.borrow()
    }

    fn watch_tail(&self) -> watch::Receiver<Lsn> {
        let mut tail = self.tail.clone();
        tail.mark_unchanged();
        tail
    }

    fn at_time(&self, ms: u64) -> Result<Lsn, ReadError> {
        let tail = self.tail();
        self.shared.store.with(|db| store::at_time(db, tail, ms))
    }

    fn note(&self, lsn: Lsn) -> Result<Option<Note>, ReadError> {
        let tail = self.tail();
        self.shared.store.with(|db| store::note(db, tail, lsn))
    }

    fn amendments(&self) -> Amendments {
        self.shared.amendments.clone()
    }

    fn checkpoint(&self, into: &Path) -> Result<Option<Lsn>, ReadError> {
        // What lies beyond is not acknowledged yet, and may never be: whoever opens the copy cuts it off.
        let end = Acknowledged { lsn: self.tail(), cut: true };
        self.shared.store.with(|db| store::checkpoint(db, into))?;
        let (amendments, folder) = (&self.shared.amendments, &self.shared.folder);
        let noted = mark::leave(into, end).and_then(|()| amendments.copy(folder, into));
        noted.map(|()| Some(end.lsn)).map_err(|error| ReadError::Backend(error.to_string()))
    }

    fn property(&self, name: &str) -> Option<u64> {
        self.shared.store.with(|db| store::property(db, name)).ok().flatten()
    }
}

impl Log for EmbeddedLog {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        self.push(records.into_iter().map(|bytes| (None, bytes)).collect())
    }

    fn close(&self) {
        self.shared.queue.close();
        let thread = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the log's thread panicked");
        }
    }
}

impl Importer for EmbeddedLog {
    fn import(&self, records: Vec<(Lsn, Bytes)>) -> Result<(), ImportError> {
        ImportError::check_order(&records, self.tail())?;
        let records = records.into_iter().map(|(lsn, bytes)| (Some(lsn), bytes)).collect();
        for receipt in self.push(records) {
            receipt.blocking_recv().map_err(|_| AppendError::Closed)??;
        }
        Ok(())
    }

    fn amend(&self, amendment: &Amendment) -> Result<(), ImportError> {
        let folder = &self.shared.folder;
        let add = |known: Amendments| match known.has(amendment.void) {
            true => Ok(()),
            false => Amendments::add(folder, amendment),
        };
        let noted = Amendments::read(folder).and_then(add);
        noted.map_err(|error| ImportError::Amend { lsn: amendment.void, why: error.to_string() })
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}
