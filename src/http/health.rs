//! For those who run the server: is it alive, is it ready, what are its figures.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use projections::{Source, models};
use serde::Serialize;

use super::{App, reply::ApiError};
use crate::{
    fold::Progress,
    log::LogReader,
    metrics::{Metrics, signed},
};

/// RocksDB's properties that are worth a look.
const PROPERTIES: &[&str] = &[
    "rocksdb.block-cache-usage",
    "rocksdb.cur-size-all-mem-tables",
    "rocksdb.estimate-live-data-size",
    "rocksdb.estimate-num-keys",
    "rocksdb.estimate-pending-compaction-bytes",
    "rocksdb.num-running-compactions",
    "rocksdb.total-sst-files-size",
];

/// What a process that has the log and the read models says of itself.
#[derive(Clone)]
pub struct Vitals {
    /// How far the log is.
    pub reader: Arc<dyn LogReader>,
    /// How far the fold has come.
    pub progress: Arc<Progress>,
    /// The read models.
    pub source: Arc<dyn Source>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Whether the figures are for whoever asks (`telemetry.metrics`).
    pub has_metrics: bool,
}

/// `GET /health/live`, `GET /health/ready`, `GET /metrics`
pub fn routes() -> Router<App> {
    Router::new().route("/health/live", get(live)).route("/health/ready", get(ready)).route("/metrics", get(metrics))
}

/// The same of a projector, which serves nothing else.
pub fn of_projector(vitals: Vitals) -> Router {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/ready", get(async |State(vitals): State<Vitals>| vitals.ready(None).await))
        .route("/metrics", get(async |State(vitals): State<Vitals>| vitals.figures()))
        .with_state(vitals)
}

async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({}))
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    tail: u64,
    folded: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<String>,
}

/// A fold that needs longer than this for what is on the log now has not caught up.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(1);

async fn ready(State(app): State<App>) -> Response {
    let conflict = app.members.conflict().map(|conflict| conflict.to_string());
    app.vitals().ready(conflict).await
}

async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    app.metrics.sync_waiters.set(signed(app.syncs.notifier.waiters() as u64));
    app.vitals().figures()
}

impl App {
    fn vitals(&self) -> Vitals {
        Vitals {
            reader: Arc::clone(&self.reader),
            progress: Arc::clone(&self.progress),
            source: Arc::clone(&self.source),
            metrics: Arc::clone(&self.metrics),
            has_metrics: self.config.telemetry.metrics,
        }
    }
}

impl Vitals {
    /// 200 if what is on the log is folded and no other node is in this one's way, else 503.
    async fn ready(&self, conflict: Option<String>) -> Response {
        let tail = self.reader.tail();
        let stopped = self.progress.stopped().map(|stopped| stopped.to_string()).or_else(|| self.reader.failed());
        let ready = stopped.is_none() && conflict.is_none() && self.progress.reached(tail, CAUGHT_UP_WITHIN).await;
        let folded = self.progress.cursor().lsn;
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(Readiness { ready, tail: tail.0, folded: folded.0, stopped, conflict })).into_response()
    }

    /// What Prometheus reads.
    fn figures(&self) -> Result<Response, ApiError> {
        if !self.has_metrics {
            return Err(ApiError::not_found("telemetry.metrics is off"));
        }
        let (metrics, tail, folded) = (&self.metrics, self.reader.tail(), self.progress.cursor().lsn);
        metrics.log_tail_lsn.set(signed(tail.0));
        metrics.fold_lsn.set(signed(folded.0));
        for projection in models::ALL {
            let lag = signed(tail.0.saturating_sub(folded.0));
            metrics.fold_lag.with_label_values(&[projection.model.name()]).set(lag);
        }
        for property in PROPERTIES {
            let name = property.trim_start_matches("rocksdb.");
            let figure = |store, figure| metrics.rocksdb.with_label_values(&[store, name]).set(signed(figure));
            if let Some(of_models) = self.source.property(property) {
                figure("read-models", of_models);
            }
            if let Some(of_log) = self.reader.property(property) {
                figure("log", of_log);
            }
        }
        let text = metrics.render().map_err(|error| ApiError::internal(&error))?;
        Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
    }
}
