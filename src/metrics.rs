//! Every Prometheus metric of the process, in one list.

use std::{sync::Arc, time::Duration};

use projections::Applied;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

/// From a tenth of a millisecond to ten seconds.
const SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const RECORDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

macro_rules! metrics {
    ($($field:ident: $type:ty = $make:expr, $help:literal;)*) => {
        /// The metrics. Their names in Prometheus are the fields', after `everfold_`.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl Metrics {
            /// All of them, at zero.
            ///
            /// # Errors
            /// When two have the same name, which tests find.
            pub fn new() -> prometheus::Result<Arc<Self>> {
                let registry = Registry::new();
                let metrics = Self {
                    $($field: register(&registry, $make(concat!("everfold_", stringify!($field)), $help)?)?,)*
                    registry,
                };
                metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
                Ok(Arc::new(metrics))
            }
        }
    };
}

metrics! {
    build_info: IntGaugeVec = gauges(&["version"]), "The version that runs.";

    log_append_seconds: Histogram = histogram(SECONDS), "From taking a record for appending until it is durable.";
    log_batch_records: Histogram = histogram(RECORDS), "Records that shared one sync of the log.";
    log_records_total: IntCounter = IntCounter::new, "Records appended.";
    log_bytes_total: IntCounter = IntCounter::new, "Bytes of the records appended.";
    log_failed_records_total: IntCounter = IntCounter::new, "Records refused because the log could not be written.";
    log_tail_lsn: IntGauge = IntGauge::new, "The log's last durable position.";

    fold_lsn: IntGauge = IntGauge::new, "The position that the read models are at.";
    fold_lag: IntGaugeVec = gauges(&["projection"]), "Positions between the log's tail and what a projection has folded: so many records, and more where gaps are, far more until a new epoch's first record is folded.";
    fold_seconds: Histogram = histogram(SECONDS), "One commit of the fold, from reading its records on.";
    fold_batch_records: Histogram = histogram(RECORDS), "Records folded in one commit.";
    fold_records_total: IntCounter = IntCounter::new, "Records folded.";
    fold_keys_read_total: IntCounter = IntCounter::new, "Keys that the fold read.";
    fold_keys_written_total: IntCounter = IntCounter::new, "Keys that the fold wrote.";
    views_seconds: Histogram = histogram(SECONDS), "Beside a projector: moving views on to what it has folded.";
    views_instances: IntGauge = IntGauge::new, "Beside a projector: instances of the read models that views are of.";
    void_records_total: IntCounterVec = counters(&["reason"]), "Records without effect.";
    decisions_again_total: IntCounter = IntCounter::new, "Decisions of this node that were made again, because their record was void.";

    handovers_total: IntCounterVec = counters(&["outcome"]), "Requests that went to the node that is their room's home.";
    handover_seconds: Histogram = histogram(SECONDS), "From handing a request to its room's home until the answer is folded here.";
    handed_requests_total: IntCounter = IntCounter::new, "Requests that other nodes sent here, as their room's home.";
    refusals_again_total: IntCounter = IntCounter::new, "Requests carried out again, because they were refused before this node had caught up.";

    http_requests_total: IntCounterVec = counters(&["method", "route", "status"]), "Requests answered.";
    http_request_seconds: HistogramVec = histograms(SECONDS, &["route"]), "From a request's head until its answer's.";
    http_connections: IntGauge = IntGauge::new, "Open connections.";
    rate_limited_total: IntCounterVec = counters(&["limit"]), "Requests refused by a rate limit.";
    sync_waiters: IntGauge = IntGauge::new, "Requests that wait for something new.";

    rocksdb: IntGaugeVec = gauges(&["store", "property"]), "RocksDB's own figures, by store.";
}

impl Metrics {
    /// Counts a commit of the fold.
    pub fn applied(&self, applied: &Applied, took: Duration) {
        self.fold_seconds.observe(took.as_secs_f64());
        self.fold_lsn.set(signed(applied.cursor.lsn.0));
        self.fold_batch_records.observe(count(applied.records));
        self.fold_records_total.inc_by(applied.records as u64);
        self.fold_keys_read_total.inc_by(applied.cost.reads);
        self.fold_keys_written_total.inc_by(applied.cost.writes);
        for (_, void) in &applied.voids {
            self.void_records_total.with_label_values(&[void.reason()]).inc();
        }
    }

    /// What Prometheus reads.
    ///
    /// # Errors
    /// When a metric can't be written as text.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// A number for a gauge; no position or size is beyond it.
#[must_use]
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number for a histogram.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a count of records is nowhere near 2^52")]
pub const fn count(number: usize) -> f64 {
    number as f64
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(labels: &'static [&'static str]) -> impl Fn(&str, &str) -> prometheus::Result<IntGaugeVec> {
    move |name, help| IntGaugeVec::new(Opts::new(name, help), labels)
}

fn counters(labels: &'static [&'static str]) -> impl Fn(&str, &str) -> prometheus::Result<IntCounterVec> {
    move |name, help| IntCounterVec::new(Opts::new(name, help), labels)
}

fn histogram(buckets: &'static [f64]) -> impl Fn(&str, &str) -> prometheus::Result<Histogram> {
    move |name, help| Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
}

fn histograms(
    buckets: &'static [f64],
    labels: &'static [&'static str],
) -> impl Fn(&str, &str) -> prometheus::Result<HistogramVec> {
    move |name, help| HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_and_explained() {
        let metrics = Metrics::new().unwrap();
        metrics.applied(&Applied { records: 3, ..Applied::default() }, Duration::from_millis(1));
        metrics.void_records_total.with_label_values(&["stale_read"]).inc();
        let text = metrics.render().unwrap();
        for expected in [
            "everfold_build_info{version=",
            "everfold_fold_records_total 3",
            "everfold_void_records_total{reason=\"stale_read\"} 1",
            "# HELP everfold_log_tail_lsn The log's last durable position.",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
    }
}
