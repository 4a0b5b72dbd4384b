//! The one thread that writes: it takes whatever waits, writes and syncs it as one batch, and acknowledges in order.
//!
//! ```text
//!  append ─▶ queue ─▶ take ─▶ write and sync ─▶ note in `acknowledged` ─▶ tail ─▶ receipts ─▶ take …
//!                               │ error
//!                               └─▶ note "cut" durably ─▶ fail all that waits ─▶ at the next call: reopen, cut, go on
//! ```

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rocksdb::{DB, WriteBatch};
use schemas::Lsn;
use tokio::sync::watch;

use super::{
    Committed, Observer, Shared,
    frame::Frame,
    mark::{Acknowledged, Mark},
    queue::{Group, Limit, Pending},
    recovery,
    store::{self, Last},
};
use crate::log::{AppendError, ReadError};

/// Room that RocksDB needs to open, beyond what its write-ahead log holds.
const ROOM: u64 = 8 << 20;

/// What writing needs of the disk.
pub(super) trait Disk: Send + Sync + 'static {
    /// Writes and syncs. After an error nobody knows what is there.
    fn write(&self, db: &DB, batch: WriteBatch) -> Result<(), String>;

    /// Whether so many bytes can be written into the folder.
    fn has_room(&self, folder: &Path, bytes: u64) -> io::Result<()>;
}

/// The disk, with a delay added to every sync.
pub(super) struct RealDisk(pub Duration);

impl Disk for RealDisk {
    fn write(&self, db: &DB, batch: WriteBatch) -> Result<(), String> {
        store::write(db, batch).map_err(|error| error.to_string())?;
        if !self.0.is_zero() {
            std::thread::sleep(self.0);
        }
        Ok(())
    }

    fn has_room(&self, folder: &Path, bytes: u64) -> io::Result<()> {
        let path = folder.join("room");
        let mut file = std::fs::File::create(&path)?;
        // Without a name it is gone with its handle, whatever happens.
        std::fs::remove_file(&path)?;
        let chunk = vec![0; 1 << 20];
        for _ in 0..bytes.div_ceil(1 << 20) {
            io::Write::write_all(&mut file, &chunk)?;
        }
        file.sync_all()
    }
}

pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub folder: PathBuf,
    pub disk: Box<dyn Disk>,
    pub mark: Mark,
    pub last: Last,
    pub tail: watch::Sender<Lsn>,
    pub limit: Limit,
    pub retry_after: Duration,
    pub observer: Arc<dyn Observer>,
    /// Why the last write failed, and when writing was last tried.
    pub broken: Option<(String, Instant)>,
}

/// A thread that dies must not leave anybody waiting.
impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.close();
        for group in self.shared.queue.drain() {
            group.fail(&AppendError::Closed);
        }
    }
}

impl Writer {
    /// Runs until the queue is closed and everything in it is written.
    pub fn run(mut self) {
        while let Some(groups) = self.shared.queue.take(self.limit) {
            match self.repair().and_then(|()| self.commit(&groups)) {
                Ok(end) => self.acknowledge(groups, end),
                Err(why) => self.fail(groups, why),
            }
        }
        if self.broken.is_none() {
            // What is in tables is checked block by block, and the next start has nothing to recover.
            let flushed =
                self.shared.store.with(|db| db.flush().map_err(|error| ReadError::Backend(error.to_string())));
            if let Err(error) = flushed {
                tracing::warn!(%error, "the log's last records stay in its write-ahead log");
            }
        }
    }

    /// Writes all of it durably, or nothing; gives the new end of the log.
    fn commit(&self, groups: &[Group]) -> Result<Last, String> {
        let mut batch = WriteBatch::default();
        let mut last = self.last;
        let mut buffer = Vec::new();
        for pending in groups.iter().flat_map(|group| &group.records) {
            let (lsn, Pending { bytes, stamp, .. }) = (pending.lsn(last.lsn), pending);
            last = Last { lsn, note: last.note.next(lsn, bytes, *stamp) };
            Frame { note: last.note, record: bytes }.encode(lsn, &mut buffer);
            batch.put(lsn.to_bytes(), &buffer);
        }
        let write = |db: &DB| self.disk.write(db, batch).map_err(ReadError::Backend);
        match self.shared.store.with(write) {
            Ok(()) => Ok(last),
            Err(ReadError::Backend(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    }

    fn acknowledge(&mut self, groups: Vec<Group>, end: Last) {
        let mut lsn = self.last.lsn;
        self.last = end;
        // Only the check of the next start is weaker for it.
        if let Err(error) = self.mark.write(Acknowledged { lsn: end.lsn, cut: false }) {
            tracing::warn!(%error, "no note could be taken of what the log has acknowledged");
        }
        self.tail.send_replace(end.lsn);
        self.observer.committed(&Committed {
            records: groups.iter().map(|group| group.records.len()).sum(),
            bytes: groups.iter().map(|group| group.bytes).sum(),
            waits: groups.iter().map(|group| group.since.elapsed()).collect(),
        });
        for pending in groups.into_iter().flat_map(|group| group.records) {
            lsn = pending.lsn(lsn);
            // Whoever asked may be gone.
            let _ = pending.receipt.send(Ok(lsn));
        }
    }

    /// Nothing of this has happened: that is noted durably before anybody is told.
    fn fail(&mut self, mut groups: Vec<Group>, why: String) {
        groups.extend(self.shared.queue.drain());
        if self.broken.is_none() {
            tracing::error!(%why, after = %self.last.lsn, "the log can't be written");
            let cut = Acknowledged { lsn: self.last.lsn, cut: true };
            if let Err(error) = self.mark.write_durably(cut) {
                tracing::error!(%error, "no note could be taken that what failed to be written must not come back");
            }
            self.broken = Some((why.clone(), Instant::now()));
        }
        let error = AppendError::Unavailable(why);
        self.observer.failed(groups.iter().map(|group| group.records.len()).sum());
        groups.into_iter().for_each(|group| group.fail(&error));
    }

    /// After a failed write: opens the database anew, without what was not acknowledged, as soon as that is possible.
    fn repair(&mut self) -> Result<(), String> {
        let Some((why, tried)) = &mut self.broken else { return Ok(()) };
        if tried.elapsed() < self.retry_after {
            return Err(why.clone());
        }
        *tried = Instant::now();
        let needed = wal_bytes(&self.folder).map_err(|error| error.to_string())? + ROOM;
        // Until there is room the old handle goes on reading.
        self.disk.has_room(&self.folder, needed).map_err(|error| format!("{why}; there is no room yet: {error}"))?;
        let (folder, mark) = (&self.folder, &self.mark);
        let reopened = self.shared.store.replace(|| match recovery::open(folder, mark) {
            Ok((db, end)) => (Some(db), Ok(end)),
            Err(error) => (store::open_unchanged(folder).ok(), Err(error.to_string())),
        })?;
        tracing::info!(tail = %reopened.lsn, "the log can be written again");
        self.last = reopened;
        self.broken = None;
        Ok(())
    }
}

/// How much RocksDB has to recover.
fn wal_bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if file.path().extension().is_some_and(|extension| extension == "log") {
            bytes += file.metadata()?.len();
        }
    }
    Ok(bytes)
}
