//! New epochs: a log that is restored from an older copy goes on where no record of the future that was lost can have
//! stood, and says so in its first new record.
//!
//! ```text
//!   1 … fork │ fork+1 … lost        2^40·(e+1) + n  Epoch { fork }    next …
//!  ──────────┴─── gone for good ───▶└──────────── goes on here ────────────▶
//! ```
//!
//! Clients may hold tokens of what was lost. They are below whatever comes now, so that they can't be taken for others.
//! Should one copy be restored twice, that still holds: within an epoch, positions begin at the seconds since 1970, 256 to
//! each.

use schemas::{Chain, Fact, Header, Lsn, Origin, RawFact, Record, facts::Epoch};

use super::copy::{CopyError, Importer, note_at};
use crate::clock::{Clock, Random};

const EPOCH: u64 = 1 << 40;
const PER_SECOND: u64 = 256;

/// A new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Its first record.
    pub lsn: Lsn,
    /// The last record before it, and the chain there.
    pub fork: Lsn,
    /// The chain at the fork.
    pub chain: Chain,
}

/// Appends the first record of a new epoch.
///
/// # Errors
/// When the log is empty, or can't be read or written.
pub fn begin(log: &dyn Importer, clock: &dyn Clock, random: &dyn Random) -> Result<Begun, CopyError> {
    let fork = log.tail();
    let note = note_at(log, fork)?.filter(|_| fork > Lsn::ZERO).ok_or(CopyError::Empty)?;
    begin_after(log, note.chain, clock, random)
}

/// The same where the chain at the log's end is known, so that the log need not be read.
///
/// # Errors
/// When the log can't be written.
pub fn begin_after(
    log: &dyn Importer,
    chain: Chain,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Begun, CopyError> {
    let (fork, at_ms) = (log.tail(), clock.now_ms());
    let (lsn, epoch) = (first(fork, at_ms), Epoch { fork, chain });
    let header = Header::plain(random.mark(), at_ms, Origin::Server);
    let record = Record { header, facts: vec![RawFact::from(&Fact::from(epoch))] };
    let bytes = record.encode().map_err(|source| CopyError::Record { lsn, source })?;
    log.import(vec![(lsn, bytes.into())]).map_err(CopyError::from)?;
    Ok(Begun { lsn, fork, chain })
}

/// Where the epoch after a record begins.
const fn first(fork: Lsn, at_ms: u64) -> Lsn {
    Lsn((fork.0 / EPOCH + 1) * EPOCH + at_ms / 1_000 * PER_SECOND % EPOCH)
}

#[cfg(test)]
mod tests {
    use schemas::LogTime;

    use super::*;
    use crate::{
        clock::{SimulatedClock, SimulatedRandom},
        log::{
            EmbeddedLog, EmbeddedOptions, LogReader,
            conformance::{append, record},
            verify::{Checks, verify},
        },
    };

    #[test]
    fn an_epoch_begins_beyond_all_that_was_lost() {
        const YEAR: u64 = 365 * 24 * 3_600_000;
        assert_eq!(first(Lsn(7), 0), Lsn(1 << 40));
        for (fork, at) in [(Lsn(7), 60 * YEAR), (Lsn((3 << 40) + 9), 120 * YEAR)] {
            let first = first(fork, at);
            assert_eq!(first.0 >> 40, (fork.0 >> 40) + 1);
            assert!(super::first(fork, at + 1_000).0 - first.0 >= PER_SECOND, "a second restore goes on beyond");
        }
    }

    #[test]
    fn it_is_a_record_like_others() {
        let folder = tempfile::TempDir::new().unwrap();
        let log = EmbeddedLog::create_or_open(folder.path(), EmbeddedOptions::default()).unwrap();
        let (clock, random) = (SimulatedClock::at(1_700_000_000_000), SimulatedRandom::seeded(1));
        assert!(matches!(begin(&log, &clock, &random), Err(CopyError::Empty)));
        append(&log, vec![record(0, 5, 10), record(1, 6, 10)]);
        let fork = log.note(Lsn(2)).unwrap().unwrap();
        for epoch in 1..4 {
            let before = log.tail();
            let begun = begin(&log, &clock, &random).unwrap();
            assert_eq!((begun.fork, begun.lsn, log.tail()), (before, log.tail(), begun.lsn));
            assert_eq!(begun.lsn.0 >> 40, epoch);
            append(&log, vec![record(epoch + 1, 7, 10)]);
        }
        let entry = log.read(Lsn(3), 1, 1).unwrap().remove(0);
        let record = Record::decode(&entry.bytes).unwrap();
        assert_eq!(record.facts[0].decode().unwrap(), Epoch { fork: Lsn(2), chain: fork.chain }.into());
        let time = LogTime::default().advance_by(5, false).advance_by(6, false).advance(&record);
        assert_eq!(log.note(entry.lsn).unwrap().unwrap().time, time, "log time goes on");
        assert_eq!(verify(&log, Checks::default()).unwrap().records, 8);
    }
}
