//! Time and chance: the only doors to both. They enter by constructor, so that a test or a replay can bring its own.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use schemas::{After, CopyId, RecordId};

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. It may jump: only for what is shown or stamped.
    fn now_ms(&self) -> u64;

    /// Time since some fixed moment. It never goes back: for measuring and limits.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the Clock that all others take the time from")]
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that shows one moment for ever, while limits and waits go on as ever.
pub struct StoppedClock {
    ms: u64,
    since: Instant,
}

impl StoppedClock {
    /// Shows this many milliseconds since the Unix epoch.
    #[must_use]
    pub fn at(ms: u64) -> Self {
        Self { ms, since: Instant::now() }
    }
}

impl Clock for StoppedClock {
    fn now_ms(&self) -> u64 {
        self.ms
    }

    fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

/// A clock that stands still until it is told to go on.
pub struct SimulatedClock {
    start_ms: u64,
    now_ms: AtomicU64,
}

impl SimulatedClock {
    /// Stands at this many milliseconds since the Unix epoch.
    #[must_use]
    pub const fn at(ms: u64) -> Self {
        Self { start_ms: ms, now_ms: AtomicU64::new(ms) }
    }

    /// Goes on.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.now_ms() - self.start_ms)
    }
}

/// Bytes that nobody can guess.
pub trait Random: Send + Sync + 'static {
    /// Overwrites `bytes` with random ones, fit for secrets.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Random {
    /// So many random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// Text of `length` symbols out of `alphabet`, which has between 1 and 256 of them; each is equally likely.
    #[must_use]
    pub fn text(&self, alphabet: &[u8], length: usize) -> String {
        let fair = 256 - 256 % alphabet.len();
        let mut text = String::with_capacity(length);
        while text.len() < length {
            let bytes: [u8; 32] = self.bytes();
            let fair = bytes.iter().map(|&byte| usize::from(byte)).filter(|&byte| byte < fair);
            text.extend(fair.take(length - text.len()).map(|byte| char::from(alphabet[byte % alphabet.len()])));
        }
        text
    }

    /// Text of letters and digits: 43 of them hold 256 bits.
    #[must_use]
    pub fn alphanumeric(&self, length: usize) -> String {
        self.text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", length)
    }

    /// What names a record of its own.
    #[must_use]
    pub fn mark(&self) -> After {
        After { id: self.record_id(), copy: self.copy_id() }
    }

    /// What tells a record from others with its id.
    #[must_use]
    pub fn copy_id(&self) -> CopyId {
        CopyId(self.bytes())
    }

    /// A new id for a record.
    #[must_use]
    pub fn record_id(&self) -> RecordId {
        RecordId(self.bytes())
    }
}

/// The operating system's randomness, through a generator that is seeded from it again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }
}

/// The same bytes for the same seed.
pub struct SimulatedRandom(Mutex<StdRng>);

impl SimulatedRandom {
    /// Begins with a seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

impl Random for SimulatedRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_its_length_and_alphabet() {
        let random: &dyn Random = &SimulatedRandom::seeded(7);
        let text = random.text(b"abc", 1_000);
        assert_eq!(text.len(), 1_000);
        assert!(text.bytes().all(|byte| b"abc".contains(&byte)));
        for letter in ['a', 'b', 'c'] {
            assert!(text.matches(letter).count() > 250, "{letter} is rare");
        }
        assert_ne!(random.alphanumeric(43), random.alphanumeric(43));
    }

    #[test]
    fn simulated_time_moves_when_told() {
        let clock = SimulatedClock::at(1_000);
        clock.advance(Duration::from_secs(2));
        assert_eq!((clock.now_ms(), clock.elapsed()), (3_000, Duration::from_secs(2)));
    }
}
