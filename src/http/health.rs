//! For those who run the server: is it alive, is it ready, what are its figures.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use projections::models;
use serde::Serialize;

use super::{App, reply::ApiError};
use crate::metrics::signed;

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

/// `GET /health/live`, `GET /health/ready`, `GET /metrics`
pub fn routes() -> Router<App> {
    Router::new()
        .route("/health/live", get(async || Json(serde_json::json!({}))))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
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

/// 200 if what is on the log is folded and no other node is in this one's way, else 503.
async fn ready(State(app): State<App>) -> Response {
    let tail = app.reader.tail();
    let stopped = app.progress.stopped().map(|stopped| stopped.to_string());
    let conflict = app.members.conflict().map(|conflict| conflict.to_string());
    let ready = stopped.is_none() && conflict.is_none() && app.progress.reached(tail, CAUGHT_UP_WITHIN).await;
    let folded = app.progress.cursor().lsn;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, tail: tail.0, folded: folded.0, stopped, conflict })).into_response()
}

async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    if !app.config.telemetry.metrics {
        return Err(ApiError::not_found("telemetry.metrics is off"));
    }
    let metrics = &app.metrics;
    let (tail, folded) = (app.reader.tail(), app.progress.cursor().lsn);
    metrics.log_tail_lsn.set(signed(tail.0));
    metrics.fold_lsn.set(signed(folded.0));
    for projection in models::ALL {
        let lag = signed(tail.0.saturating_sub(folded.0));
        metrics.fold_lag.with_label_values(&[projection.model.name()]).set(lag);
    }
    metrics.sync_waiters.set(signed(app.syncs.notifier.waiters() as u64));
    for property in PROPERTIES {
        let name = property.trim_start_matches("rocksdb.");
        let figure = |store, figure| metrics.rocksdb.with_label_values(&[store, name]).set(signed(figure));
        if let Some(of_models) = app.source.property(property) {
            figure("read-models", of_models);
        }
        if let Some(of_log) = app.reader.property(property) {
            figure("log", of_log);
        }
    }
    let text = metrics.render().map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
