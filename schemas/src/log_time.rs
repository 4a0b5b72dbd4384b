use serde::{Deserialize, Serialize};

use crate::{RawFact, Record};

/// How far one record may move log time forward, in milliseconds.
const STEP_MS: u64 = 10 * 60 * 1000;

/// The time that every expiry and every `?at=TIME` uses, so that clocks of several nodes can't reorder history.
///
/// It never goes back, and one record moves it by at most ten minutes. Only the first record of a log, and the record
/// after one with a `Genesis` or an `IdleGap`, move it as far as their own `at_ms`. Void records count like others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTime {
    /// Milliseconds since the Unix epoch.
    pub ms: u64,
    /// The next record may jump.
    open: bool,
}

impl Default for LogTime {
    /// Before the first record.
    fn default() -> Self {
        Self { ms: 0, open: true }
    }
}

impl LogTime {
    /// This time, or another if that is later.
    #[must_use]
    pub fn at_least(self, ms: u64) -> Self {
        Self { ms: self.ms.max(ms), ..self }
    }

    /// The time at `record`, given the time before it.
    #[must_use]
    pub fn advance(self, record: &Record) -> Self {
        self.advance_by(record.header.at_ms, Self::opened_by(record))
    }

    /// The time after a record of which only this is known: its stamp, and whether it sets the next record free.
    #[must_use]
    pub fn advance_by(self, at: u64, opens: bool) -> Self {
        let reached = if self.open { at } else { at.min(self.ms.saturating_add(STEP_MS)) };
        Self { ms: self.ms.max(reached), open: opens }
    }

    /// Whether the record after this one may set log time freely.
    #[must_use]
    pub fn opened_by(record: &Record) -> bool {
        record.facts.iter().any(RawFact::opens_log_time)
    }

    /// Whether a record stamped `now_ms` would be held back, so that an `IdleGap` should go before it.
    #[must_use]
    pub const fn needs_idle_gap(self, now_ms: u64) -> bool {
        !self.open && now_ms > self.ms.saturating_add(STEP_MS)
    }
}
