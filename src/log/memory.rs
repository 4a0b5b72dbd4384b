//! A log in memory, for tests: the whole contract, except that it is gone with the process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use projections::Entry;
use schemas::Lsn;
use tokio::sync::{oneshot, watch};

use super::{AppendError, EntryStream, Log, LogReader, Note, ReadError, Receipt, Stamp, follow::follow, refused};

/// See the module.
#[derive(Debug)]
pub struct MemoryLog {
    stride: u64,
    state: Mutex<State>,
    tail: watch::Receiver<Lsn>,
}

#[derive(Debug)]
struct State {
    rows: Vec<Row>,
    /// None once the log is closed.
    tail: Option<watch::Sender<Lsn>>,
}

#[derive(Debug)]
struct Row {
    entry: Entry,
    note: Note,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryLog {
    /// An empty log without gaps.
    #[must_use]
    pub fn new() -> Self {
        Self::with_stride(1)
    }

    /// An empty log whose Lsns are so far apart, as a backend with gaps may have them. The first is 1.
    #[must_use]
    pub fn with_stride(stride: u64) -> Self {
        let (sender, tail) = watch::channel(Lsn::ZERO);
        Self { stride, state: Mutex::new(State { rows: Vec::new(), tail: Some(sender) }), tail }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The place of the first row at or after a position.
    fn place(&self, lsn: Lsn) -> usize {
        self.rows.partition_point(|row| row.entry.lsn < lsn)
    }
}

impl LogReader for MemoryLog {
    fn follow(self: Arc<Self>, from: Lsn) -> EntryStream {
        follow(self, from)
    }

    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let state = self.state();
        let (mut entries, mut taken) = (Vec::new(), 0);
        for row in state.rows[state.place(from)..].iter().take(records.max(1)) {
            taken += row.entry.bytes.len();
            entries.push(row.entry.clone());
            if taken >= bytes {
                break;
            }
        }
        Ok(entries)
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
        let state = self.state();
        let later = state.rows.partition_point(|row| row.note.time.ms <= ms);
        Ok(later.checked_sub(1).map_or(Lsn::ZERO, |last| state.rows[last].entry.lsn))
    }

    fn note(&self, lsn: Lsn) -> Result<Option<Note>, ReadError> {
        let state = self.state();
        let row = state.rows.get(state.place(lsn)).filter(|row| row.entry.lsn == lsn);
        Ok(row.map(|row| row.note))
    }
}

impl Log for MemoryLog {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        let stamps = match Stamp::all(&records) {
            Ok(stamps) => stamps,
            Err(error) => return refused(records.len(), &error),
        };
        let mut state = self.state();
        let State { rows, tail: Some(tail) } = &mut *state else {
            return refused(records.len(), &AppendError::Closed);
        };
        let mut receipts = Vec::with_capacity(records.len());
        for (bytes, stamp) in records.into_iter().zip(stamps) {
            let (lsn, before) = match rows.last() {
                Some(row) => (Lsn(row.entry.lsn.0 + self.stride), row.note),
                None => (Lsn::FIRST, Note::default()),
            };
            let (sender, receipt) = oneshot::channel();
            // The receiver is in scope, so that sending can't fail.
            let _ = sender.send(Ok(lsn));
            receipts.push(receipt);
            let note = before.next(lsn, &bytes, stamp);
            rows.push(Row { entry: Entry { lsn, bytes: bytes.as_ref().into(), amended: false }, note });
        }
        if let Some(row) = rows.last() {
            tail.send_replace(row.entry.lsn);
        }
        receipts
    }

    fn close(&self) {
        self.state().tail = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::conformance::{Backend, conformance};

    struct Memory<const STRIDE: u64>(Arc<MemoryLog>);

    impl<const STRIDE: u64> Backend for Memory<STRIDE> {
        const REOPENS: bool = false;
        const SEVERAL_HANDLES: bool = true;

        fn fresh() -> Self {
            Self(Arc::new(MemoryLog::with_stride(STRIDE)))
        }

        fn open(&self) -> Arc<dyn Log> {
            Arc::clone(&self.0) as Arc<dyn Log>
        }
    }

    conformance!(dense, super::Memory<1>);
    conformance!(with_gaps, super::Memory<3>);
}
