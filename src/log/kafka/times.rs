//! Log time, found out when somebody asks: Kafka's own timestamps are not it.

use projections::Entry;
use schemas::{LogTime, Lsn, Record};

use crate::log::{ReadError, Stamp};

/// After so many records, log time is remembered.
const STRIDE: usize = 1_024;
const BYTES: usize = 4 << 20;

/// Log time at every so many records, as far as anybody asked.
#[derive(Default)]
pub(super) struct Times {
    /// The last record of each stretch.
    marks: Vec<(Lsn, LogTime)>,
}

impl Times {
    /// The last record at or before a time; zero if all are later. `read` gives records from a position on.
    pub fn find(
        &mut self,
        ms: u64,
        tail: Lsn,
        mut read: impl FnMut(Lsn, usize, usize) -> Result<Vec<Entry>, ReadError>,
    ) -> Result<Lsn, ReadError> {
        let known = self.marks.partition_point(|(_, time)| time.ms <= ms);
        let (mut found, mut time) = known.checked_sub(1).map_or_else(Default::default, |last| self.marks[last]);
        let (mut at, mut records) = (found, 0);
        while at < tail {
            let entries = read(at.next(), STRIDE, BYTES)?;
            if entries.is_empty() {
                return Err(ReadError::Backend(format!("record {} is not to be had now", at.next())));
            }
            for Entry { lsn, bytes, .. } in entries {
                let record = Record::decode(&bytes).map_err(|source| ReadError::Record { lsn, source })?;
                let Stamp { at_ms, opens } = Stamp::of(&record);
                time = time.advance_by(at_ms, opens);
                if time.ms > ms {
                    return Ok(found);
                }
                (found, at) = (lsn, lsn);
                records += 1;
                if records % STRIDE == 0 && self.marks.last().is_none_or(|(last, _)| *last < lsn) {
                    self.marks.push((lsn, time));
                }
            }
        }
        Ok(found)
    }
}
