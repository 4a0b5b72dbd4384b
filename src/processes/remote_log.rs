//! The embedded log as a process sees it that doesn't write it: appends go to the projector, reads to the files.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use projections::Entry;
use schemas::Lsn;
use tokio::sync::watch;

use super::link::Shared;
use crate::log::{
    EmbeddedLog, EntryStream, Log, LogReader, Note, ReadError, Receipt, embedded::EmbeddedReader, follow,
};

/// At a stop, the projector has so long to say what became of records.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// See the module.
pub struct RemoteLog {
    shared: Arc<Shared>,
    folder: PathBuf,
    /// Opened when somebody reads, and again when another projector writes.
    reader: Mutex<Option<(u64, Arc<EmbeddedReader>)>>,
}

impl RemoteLog {
    pub(super) fn new(shared: Arc<Shared>, folder: PathBuf) -> Self {
        Self { shared, folder, reader: Mutex::default() }
    }

    /// A reader that has come at least to the tail, as of this call.
    fn reader(&self) -> Result<Arc<EmbeddedReader>, ReadError> {
        let (tail, era) = (self.tail(), self.shared.era());
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match reader.take() {
            Some((opened_in, open)) if opened_in == era => open,
            _ => Arc::new(EmbeddedLog::open_read_only(&self.folder).map_err(|e| ReadError::Backend(e.to_string()))?),
        };
        if open.tail() < tail {
            open.refresh()?;
        }
        *reader = Some((era, Arc::clone(&open)));
        Ok(open)
    }
}

impl LogReader for RemoteLog {
    fn follow(self: Arc<Self>, from: Lsn) -> EntryStream {
        follow::follow(self, from)
    }

    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let tail = self.tail();
        let mut entries = self.reader()?.read(from, records, bytes)?;
        entries.retain(|entry| entry.lsn <= tail);
        Ok(entries)
    }

    fn tail(&self) -> Lsn {
        *self.shared.tail_seen.borrow()
    }

    fn watch_tail(&self) -> watch::Receiver<Lsn> {
        let mut tail = self.shared.tail_seen.clone();
        tail.mark_unchanged();
        tail
    }

    fn at_time(&self, ms: u64) -> Result<Lsn, ReadError> {
        Ok(self.reader()?.at_time(ms)?.min(self.tail()))
    }

    fn note(&self, lsn: Lsn) -> Result<Option<Note>, ReadError> {
        self.reader()?.note(lsn)
    }

    fn refresh(&self) -> Result<Lsn, ReadError> {
        Ok(self.reader()?.refresh()?.max(self.tail()))
    }
}

impl Log for RemoteLog {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        self.shared.append(&records)
    }

    fn close(&self) {
        self.shared.close(CLOSE_WITHIN);
    }
}
