use std::sync::Arc;

use schemas::Lsn;

use super::{EntryStream, LogReader, ReadError};

/// A follower that is far behind reads so much at once.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Follows a backend that has [`LogReader::read`] and [`LogReader::watch_tail`]: it sleeps until the tail moves, and
/// then reads up to it, so that no record is polled for, lost or given twice.
pub(super) fn follow(log: Arc<dyn LogReader>, from: Lsn) -> EntryStream {
    Box::pin(async_stream::try_stream! {
        let mut tail = log.watch_tail();
        let mut next = from.max(Lsn::FIRST);
        loop {
            while next <= *tail.borrow_and_update() {
                let reader = Arc::clone(&log);
                let read = tokio::task::spawn_blocking(move || reader.read(next, BATCH_RECORDS, BATCH_BYTES));
                let entries = read.await.map_err(|error| ReadError::Backend(error.to_string()))??;
                if entries.is_empty() {
                    Err(ReadError::Damaged { lsn: next, why: "it is missing although the log goes on after it".into() })?;
                }
                for entry in entries {
                    next = entry.lsn.next();
                    yield entry;
                }
            }
            if tail.changed().await.is_err() {
                break;
            }
        }
    })
}
