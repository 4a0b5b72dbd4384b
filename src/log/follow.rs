use std::sync::Arc;

use projections::Entry;
use schemas::Lsn;

use super::{EntryStream, LogReader, ReadError};

/// A follower that is far behind reads so much at once.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Follows a backend that has [`LogReader::read`] and [`LogReader::watch_tail`]: it sleeps until the tail moves, and
/// then reads up to it, so that no record is polled for, lost or given twice.
pub(crate) fn follow(log: Arc<dyn LogReader>, from: Lsn) -> EntryStream {
    Box::pin(async_stream::try_stream! {
        let mut tail = log.watch_tail();
        let mut next = from.max(Lsn::FIRST);
        loop {
            while next <= *tail.borrow_and_update() {
                for entry in batch(Arc::clone(&log), next).await? {
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

/// Reads from a position that is not beyond the tail, so that there is something.
pub(super) async fn batch(log: Arc<dyn LogReader>, from: Lsn) -> Result<Vec<Entry>, ReadError> {
    let read = tokio::task::spawn_blocking(move || log.read(from, BATCH_RECORDS, BATCH_BYTES));
    let entries = read.await.map_err(|error| ReadError::Backend(error.to_string()))??;
    if entries.is_empty() {
        return Err(ReadError::Damaged { lsn: from, why: "it is missing, although the log goes on".into() });
    }
    Ok(entries)
}
