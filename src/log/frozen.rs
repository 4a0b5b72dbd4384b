//! The log of a replay: it ended at some record, of which only the position and the note are known, and takes no more.

use std::sync::Arc;

use bytes::Bytes;
use projections::{Cursor, Entry};
use schemas::Lsn;
use tokio::sync::watch;

use super::{AppendError, EntryStream, Log, LogReader, Note, ReadError, Receipt, refused};

/// See the module.
#[derive(Debug)]
pub struct FrozenLog {
    tail: watch::Sender<Lsn>,
    note: Note,
}

impl FrozenLog {
    /// Ends where a fold ended.
    #[must_use]
    pub fn at(cursor: &Cursor) -> Self {
        let note = Note { chain: cursor.chain, time: cursor.log_time };
        Self { tail: watch::channel(cursor.lsn).0, note }
    }
}

impl LogReader for FrozenLog {
    fn follow(self: Arc<Self>, _: Lsn) -> EntryStream {
        Box::pin(futures::stream::empty())
    }

    fn read(&self, _: Lsn, _: usize, _: usize) -> Result<Vec<Entry>, ReadError> {
        Ok(Vec::new())
    }

    fn tail(&self) -> Lsn {
        *self.tail.borrow()
    }

    fn watch_tail(&self) -> watch::Receiver<Lsn> {
        self.tail.subscribe()
    }

    fn at_time(&self, ms: u64) -> Result<Lsn, ReadError> {
        Ok(if self.note.time.ms <= ms { self.tail() } else { Lsn::ZERO })
    }

    fn note(&self, lsn: Lsn) -> Result<Option<Note>, ReadError> {
        Ok((lsn == self.tail()).then_some(self.note))
    }
}

impl Log for FrozenLog {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        refused(records.len(), &AppendError::ReadOnly(self.tail()))
    }

    fn close(&self) {}
}
