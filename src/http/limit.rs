//! How often something may be done: a leaky bucket for each limit and subject, which holds one number.
//!
//! The number is the time at which the bucket will have run empty (GCRA). Buckets that nobody touches are forgotten;
//! under a flood of subjects, so are the least used ones.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use moka::sync::Cache;
use schemas::facts::RateLimit;

use crate::{
    clock::Clock,
    commands::handover,
    config::{Rate, RateLimits},
    metrics::Metrics,
};

/// So many buckets are kept: some 30 MB.
const BUCKETS: u64 = 200_000;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Logging in; by address.
    Login,
    /// Getting a token that lets somebody log in; by user.
    LoginToken,
    /// Failing to log in or to confirm a password; by account.
    FailedLogin,
    /// Registering; by address.
    Registration,
    /// Sending events; by user.
    Message,
    /// Joining, knocking on and creating rooms; by user.
    Join,
    /// Reporting events, rooms and users; by user.
    Report,
}

impl Limit {
    const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::LoginToken => "login_token",
            Self::FailedLogin => "failed_login",
            Self::Registration => "registration",
            Self::Message => "message",
            Self::Join => "join",
            Self::Report => "report",
        }
    }

    const fn rate(self, rates: &RateLimits) -> Rate {
        match self {
            Self::Login => rates.login,
            Self::LoginToken => rates.login_token,
            Self::FailedLogin => rates.failed_login,
            Self::Registration => rates.registration,
            Self::Message => rates.message,
            Self::Join => rates.join,
            Self::Report => rates.report,
        }
    }
}

/// Too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests (rate_limits.{limit}); try again in {} ms", .wait.as_millis())]
pub struct Limited {
    /// The limit, as the settings name it.
    pub limit: &'static str,
    /// When it may be tried again.
    pub wait: Duration,
}

/// All buckets.
pub struct Limits {
    rates: RateLimits,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    buckets: Cache<(Limit, String), Arc<AtomicU64>>,
}

impl Limits {
    /// Empty buckets.
    #[must_use]
    pub fn new(rates: RateLimits, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let buckets = Cache::builder().max_capacity(BUCKETS).time_to_idle(Duration::from_secs(3600)).build();
        Self { rates, clock, metrics, buckets }
    }

    /// Takes one from a subject's share.
    ///
    /// # Errors
    /// When there is nothing left.
    pub fn take(&self, limit: Limit, subject: impl Display) -> Result<(), Limited> {
        self.test(limit, limit.rate(&self.rates), &subject, 1)
    }

    /// Takes one from the share of a subject that has a rate of its own.
    ///
    /// # Errors
    /// When there is nothing left.
    pub fn take_at(&self, limit: Limit, own: RateLimit, subject: impl Display) -> Result<(), Limited> {
        let rate = Rate { per_second: own.per_second.into(), burst: own.burst.max(1) };
        self.test(limit, rate, &subject, 1)
    }

    /// Whether something is left of a subject's share; takes nothing.
    ///
    /// # Errors
    /// When there is nothing left.
    pub fn check(&self, limit: Limit, subject: impl Display) -> Result<(), Limited> {
        self.test(limit, limit.rate(&self.rates), &subject, 0)
    }

    fn test(&self, limit: Limit, rate: Rate, subject: &dyn Display, taken: u64) -> Result<(), Limited> {
        if !self.rates.enabled || handover::is_counted() {
            return Ok(());
        }
        let interval = micros(Duration::try_from_secs_f64(1.0 / rate.per_second).unwrap_or(Duration::MAX));
        let room = interval.saturating_mul(rate.burst.into());
        let now = micros(self.clock.elapsed());
        let bucket = self.buckets.get_with((limit, subject.to_string()), Arc::default);
        let fill = |empty_at: u64| {
            let full_at = empty_at.max(now).saturating_add(interval);
            (full_at - now <= room).then(|| empty_at.max(now).saturating_add(interval.saturating_mul(taken)))
        };
        match bucket.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fill) {
            Ok(_) => Ok(()),
            Err(empty_at) => {
                self.metrics.rate_limited_total.with_label_values(&[limit.name()]).inc();
                let wait = empty_at.saturating_add(interval).saturating_sub(now.saturating_add(room));
                Err(Limited { limit: limit.name(), wait: Duration::from_micros(wait) })
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::SimulatedClock,
        config::{Config, Sources},
    };

    fn limits(rates: &[(&'static str, &str)]) -> (Limits, Arc<SimulatedClock>) {
        let flags: Vec<_> = rates.iter().map(|&(key, text)| (key, text.to_owned())).collect();
        let rates = Config::load(Sources { flags: &flags, ..Sources::default() }).unwrap().rate_limits;
        let clock = Arc::new(SimulatedClock::at(0));
        (Limits::new(rates, Arc::clone(&clock) as Arc<dyn Clock>, Metrics::new().unwrap()), clock)
    }

    #[test]
    fn a_burst_and_then_a_rate() {
        let (limits, clock) = limits(&[("rate_limits.join.burst", "3"), ("rate_limits.join.per_second", "2")]);
        for _ in 0..3 {
            limits.check(Limit::Join, "@a:x").unwrap();
            limits.take(Limit::Join, "@a:x").unwrap();
        }
        let limited = Limited { limit: "join", wait: Duration::from_millis(500) };
        assert_eq!(limits.take(Limit::Join, "@a:x"), Err(limited));
        assert_eq!(limits.check(Limit::Join, "@a:x"), Err(limited));
        limits.take(Limit::Join, "@b:x").unwrap();
        limits.take(Limit::Message, "@a:x").unwrap();
        clock.advance(limited.wait);
        limits.take(Limit::Join, "@a:x").unwrap();
        assert!(limits.take(Limit::Join, "@a:x").is_err());
        clock.advance(Duration::from_secs(3600));
        assert_eq!((0..5).filter(|_| limits.take(Limit::Join, "@a:x").is_ok()).count(), 3);
    }

    #[test]
    fn limits_can_be_off() {
        let (limits, _) = limits(&[("rate_limits.enabled", "off"), ("rate_limits.join.burst", "1")]);
        assert!((0..100).all(|_| limits.take(Limit::Join, "@a:x").is_ok()));
    }
}
