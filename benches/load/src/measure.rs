//! Closed loops of calls, and what they cost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::join_all;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::client::{CallError, CallResult};
use crate::cpu::{CpuSample, ServerProcesses};

/// How long the server must be (nearly) idle before a phase is opened or closed, and how long to wait for that at most.
const QUIET: Duration = Duration::from_millis(200);
const QUIET_CPU: Duration = Duration::from_millis(20);
const QUIET_AT_MOST: Duration = Duration::from_secs(5);

/// When a loop ends: after `calls`, or when `time` is over, but not before `at_least` calls.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Upper bound of calls.
    pub calls: usize,
    /// Lower bound of calls.
    pub at_least: usize,
    /// Time after which no new call begins.
    pub time: Duration,
}

impl Limits {
    /// Exactly this many calls, however long they take.
    pub fn exactly(calls: usize) -> Self {
        Self { calls, at_least: calls, time: Duration::ZERO }
    }
}

/// The calls of one measured phase.
#[derive(Debug)]
pub struct Tally {
    /// Microseconds of the successful calls.
    latency: Histogram<u64>,
    /// Failed calls, those refused by a rate limit included.
    errors: u64,
    limited: u64,
    first_error: Option<String>,
}

impl Tally {
    /// No calls yet.
    pub fn new() -> Result<Self> {
        // From a microsecond to ten minutes, to three digits.
        let latency = Histogram::new_with_bounds(1, 600_000_000, 3)?;
        Ok(Self { latency, errors: 0, limited: 0, first_error: None })
    }

    /// Counts one call.
    pub fn record(&mut self, took: Duration, result: CallResult<()>) {
        match result {
            Ok(()) => self.latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            Err(error) => self.record_error(&error),
        }
    }

    fn record_error(&mut self, error: &CallError) {
        self.errors += 1;
        self.limited += u64::from(error.is_limited());
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

/// Lets every worker call again and again, each waiting for its answer; `call` gets the worker and the number of the call.
pub async fn closed_loop<W>(
    workers: &[W],
    limits: Limits,
    call: impl AsyncFn(&W, usize) -> CallResult<()>,
) -> Result<Tally> {
    let tally = RefCell::new(Tally::new()?);
    let calls = Cell::new(0);
    let begun = Instant::now();
    join_all(workers.iter().map(async |worker| {
        while calls.get() < limits.calls && (calls.get() < limits.at_least || begun.elapsed() < limits.time) {
            let number = calls.replace(calls.get() + 1);
            let start = Instant::now();
            let result = call(worker, number).await;
            tally.borrow_mut().record(start.elapsed(), result);
        }
    }))
    .await;
    Ok(tally.into_inner())
}

/// The figures of one phase: a line of the JSON file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What was measured, with its size.
    pub scenario: String,
    /// Which server, as labelled on the command line.
    pub server: String,
    /// Calls answered with success.
    pub calls: u64,
    /// Calls that failed.
    pub errors: u64,
    /// Those of them that a rate limit refused.
    pub limited: u64,
    /// The first failure, in full.
    pub first_error: Option<String>,
    /// Duration of the phase.
    pub seconds: f64,
    /// Successful calls a second; absent where the driver sets the pace.
    pub per_second: Option<f64>,
    /// Latency of successful calls in milliseconds.
    pub p50_ms: f64,
    /// Likewise.
    pub p90_ms: f64,
    /// Likewise.
    pub p99_ms: f64,
    /// CPU milliseconds of the server and its helpers per successful call; absent without `--pid`.
    pub cpu_ms_per_call: Option<f64>,
    /// Cores busy, on average, with anything else than server and driver: a figure to be taken with care where this is much above 0.
    pub other_cores: Option<f64>,
    /// Cores busy with the driver: near 1 it is the driver that was measured.
    pub driver_cores: f64,
    /// Figures particular to the scenario.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, f64>,
}

impl Outcome {
    /// Adds a figure particular to the scenario, unless it came out of a division by nothing.
    pub fn with(mut self, name: &str, value: f64) -> Self {
        if value.is_finite() {
            self.extra.insert(name.to_owned(), value);
        }
        self
    }

    /// Drops the rate, which the driver set.
    pub fn paced(mut self) -> Self {
        self.per_second = None;
        self
    }

    /// CPU milliseconds of the whole phase.
    pub fn cpu_ms(&self) -> Option<f64> {
        Some(self.cpu_ms_per_call? * to_float(self.calls))
    }
}

/// Measures phases of one server.
#[derive(Debug)]
pub struct Meter {
    /// Label of the server.
    pub server: String,
    /// Its processes.
    pub processes: ServerProcesses,
}

impl Meter {
    /// Runs a phase. Waits for a quiet server before and after it, so that work the set-up left behind does not count
    /// and work put off past the answers does.
    pub async fn measure(&self, scenario: &str, phase: impl Future<Output = Result<Tally>>) -> Result<Outcome> {
        eprintln!("  measuring {scenario}");
        let before = self.quiet().await?;
        let start = Instant::now();
        let tally = phase.await?;
        let time = start.elapsed();
        let after = self.quiet().await?;
        Ok(self.outcome(scenario, &tally, time, &before, &after))
    }

    fn outcome(&self, scenario: &str, tally: &Tally, time: Duration, before: &Reading, after: &Reading) -> Outcome {
        let calls = tally.latency.len();
        let server = after.cpu.server.zip(before.cpu.server).map(|(after, before)| after.saturating_sub(before));
        let driver = after.cpu.driver.saturating_sub(before.cpu.driver);
        let machine = after.cpu.machine.saturating_sub(before.cpu.machine);
        let cores = |cpu: Duration| cpu.as_secs_f64() / (after.at - before.at).as_secs_f64();
        let quantile = |q| to_float(tally.latency.value_at_quantile(q)) / 1000.0;
        Outcome {
            scenario: scenario.to_owned(),
            server: self.server.clone(),
            calls,
            errors: tally.errors,
            limited: tally.limited,
            first_error: tally.first_error.clone(),
            seconds: time.as_secs_f64(),
            per_second: Some(to_float(calls) / time.as_secs_f64()),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            cpu_ms_per_call: server.map(|cpu| cpu.as_secs_f64() * 1000.0 / to_float(calls.max(1))),
            other_cores: server.map(|server| cores(machine.saturating_sub(server + driver))),
            driver_cores: cores(driver),
            extra: BTreeMap::new(),
        }
    }

    /// Waits until the server is quiet, though not for ever, and reads the clocks.
    async fn quiet(&self) -> Result<Reading> {
        let start = Instant::now();
        let mut last = self.processes.sample()?;
        loop {
            tokio::time::sleep(QUIET).await;
            let cpu = self.processes.sample()?;
            let busy = cpu.server.zip(last.server).is_some_and(|(now, last)| now.saturating_sub(last) > QUIET_CPU);
            if !busy || start.elapsed() > QUIET_AT_MOST {
                return Ok(Reading { at: Instant::now(), cpu });
            }
            last = cpu;
        }
    }
}

/// The CPU clocks at a moment.
struct Reading {
    at: Instant,
    cpu: CpuSample,
}

/// Counts as floating-point numbers: exact below 2^53, which no count here reaches.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
pub fn to_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn count(limits: Limits) -> u64 {
        let workers = [(), (), ()];
        let tally = closed_loop(&workers, limits, async |(), number| {
            tokio::task::yield_now().await;
            if number % 10 == 9 { Err(CallError::Transport("tenth".to_owned())) } else { Ok(()) }
        });
        let tally = tally.await.expect("a histogram");
        assert_eq!(tally.first_error.is_some(), tally.errors > 0);
        tally.latency.len() + tally.errors
    }

    #[tokio::test]
    async fn a_loop_makes_exactly_the_calls_asked_for() {
        assert_eq!(count(Limits::exactly(100)).await, 100);
        assert_eq!(count(Limits::exactly(1)).await, 1);
    }

    #[tokio::test]
    async fn a_loop_out_of_time_still_makes_the_least() {
        let limits = Limits { calls: 1000, at_least: 7, time: Duration::ZERO };
        assert_eq!(count(limits).await, 7);
    }
}
