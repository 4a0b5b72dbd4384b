use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;

const KIB: usize = 1_024;
/// So much may be appended and not folded yet: seconds of work for the fold.
const LIMIT_KIB: usize = 128 * KIB;
/// What a record counts at least: so the limit is one of records, too.
const RECORD_KIB: usize = 4;

/// What is appended and not folded yet. It is bounded: where the fold can't keep up, writes are refused rather than
/// piled up.
pub struct Backlog(Arc<Semaphore>);

/// A place in it, to be dropped once the records are folded.
pub(crate) type Place = OwnedSemaphorePermit;

impl Default for Backlog {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LIMIT_KIB)))
    }
}

impl Backlog {
    /// A place for records.
    ///
    /// # Errors
    /// When the fold is too far behind.
    pub(crate) fn admit(&self, records: &[Bytes]) -> Result<Place, Error> {
        let size: usize = records.iter().map(|record| RECORD_KIB.max(record.len().div_ceil(KIB))).sum();
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let busy = |_| Error::Unavailable("the server is behind with what it was given; try again".into());
        Arc::clone(&self.0).try_acquire_many_owned(size).map_err(busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_by_records_and_by_bytes() {
        for (size, places) in [(1, LIMIT_KIB / RECORD_KIB), (1 << 20, LIMIT_KIB / KIB)] {
            let (backlog, record) = (Backlog::default(), [Bytes::from(vec![0; size])]);
            let mut taken: Vec<_> = (0..places).map(|_| backlog.admit(&record).unwrap()).collect();
            assert!(matches!(backlog.admit(&record), Err(Error::Unavailable(_))), "records of {size} bytes");
            taken.pop();
            assert!(backlog.admit(&record).is_ok(), "one was folded");
        }
    }
}
