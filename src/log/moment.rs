//! Points in a log's history as people name them.

use std::str::FromStr;

use schemas::Lsn;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// As many milliseconds after 1970 as this were over in 1973: no time on any log is before, and hardly an Lsn beyond.
const EARLIEST_MS: u64 = 100_000_000_000;

/// An Lsn, or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An Lsn if the log goes so far, else milliseconds since the Unix epoch.
    Number(u64),
    /// Milliseconds since the Unix epoch.
    Time(u64),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        if let Some(ms) = text.strip_suffix("ms").and_then(|ms| ms.parse().ok()) {
            return Ok(Self::Time(ms));
        }
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            "name an Lsn (42), a time (2026-07-01T12:00:00Z) or milliseconds since 1970 (1782900000000ms)".to_owned()
        })?;
        let ms = time.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).map(Self::Time).map_err(|_| "that was before 1970".to_owned())
    }
}

impl Moment {
    /// The last record at or before it, on a log that goes so far; `at_time` finds that of a time.
    ///
    /// # Errors
    /// When a time can't be found.
    pub fn until<E>(self, tail: Lsn, at_time: impl FnOnce(u64) -> Result<Lsn, E>) -> Result<Lsn, E> {
        match self.or_lsn(tail) {
            Ok(lsn) => Ok(lsn),
            Err(ms) => at_time(ms),
        }
    }

    /// The first position at or after it, whether or not there is a record yet.
    ///
    /// # Errors
    /// When a time can't be found.
    pub fn from<E>(self, tail: Lsn, at_time: impl FnOnce(u64) -> Result<Lsn, E>) -> Result<Lsn, E> {
        match self.or_lsn(tail) {
            Ok(lsn) => Ok(lsn),
            Err(0) => Ok(Lsn::FIRST),
            Err(ms) => Ok(at_time(ms - 1)?.next()),
        }
    }

    const fn or_lsn(self, tail: Lsn) -> Result<Lsn, u64> {
        match self {
            Self::Number(number) if number <= tail.0 || number < EARLIEST_MS => Ok(Lsn(number)),
            Self::Number(ms) | Self::Time(ms) => Err(ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_lsns_or_times() {
        const BEGIN: u64 = 1_700_000_000_000;
        // A log of one record.
        let at_time = |ms: u64| Ok::<_, ()>(if ms < BEGIN { Lsn::ZERO } else { Lsn::FIRST });
        for (text, from, until) in [
            ("0", 0, 0),
            ("1", 1, 1),
            ("7", 7, 7),
            ("1700000000000", 1, 1),
            ("1699999999999", 1, 0),
            ("1700000000001", 2, 1),
            ("1700000000001ms", 2, 1),
            ("5ms", 1, 0),
            ("0ms", 1, 0),
            ("2023-11-14T22:13:20Z", 1, 1),
            ("2023-11-14T23:13:20.001+01:00", 2, 1),
            ("2023-11-14T22:13:19.999Z", 1, 0),
        ] {
            let moment: Moment = text.parse().unwrap();
            let found = (moment.from(Lsn::FIRST, at_time).unwrap(), moment.until(Lsn::FIRST, at_time).unwrap());
            assert_eq!(found, (Lsn(from), Lsn(until)), "{text}");
        }
        for text in ["", "-1", "yesterday", "2023-11-14", "1969-12-31T00:00:00Z", "ms"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
