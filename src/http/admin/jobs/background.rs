//! Rebuilds of the read models, as the background updates that they are to tools.
//!
//! `GET /_synapse/admin/v1/background_updates/status`, `GET` and `POST /_synapse/admin/v1/background_updates/enabled`,
//! `POST /_synapse/admin/v1/background_updates/start_job`
//!
//! A job names a read model; the names that Synapse's tools know stand for those with the same purpose. While updates are
//! disabled, which lasts until they are enabled or the process starts again, none is begun; one under way goes on.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::State,
    routing::{get, post},
};
use projections::Model;
use ruma::api::error::ErrorKind;
use serde_json::{Value, json};

use crate::http::{
    App,
    admin::{
        Admin,
        params::{Body, unknown},
    },
    reply::ApiError,
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/background_updates/status", get(status))
        .route("/_synapse/admin/v1/background_updates/enabled", get(is_enabled).post(enable))
        .route("/_synapse/admin/v1/background_updates/start_job", post(start_job))
        .layer(Extension(Arc::new(Updates::default())))
}

/// What this process knows of its updates.
#[derive(Default)]
struct Updates(Mutex<Known>);

#[derive(Default)]
struct Known {
    disabled: bool,
    /// The job under way, and when it began, by the clock's elapsed time.
    current: Option<(String, Duration)>,
}

impl Updates {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn is_enabled(_: Admin, Extension(updates): Extension<Arc<Updates>>) -> Json<Value> {
    Json(json!({ "enabled": !updates.known().disabled }))
}

async fn enable(_: Admin, Extension(updates): Extension<Arc<Updates>>, body: Body) -> Result<Json<Value>, ApiError> {
    let wrong = "'enabled' parameter must be a boolean";
    let enabled = body.field("enabled", ErrorKind::Unknown, wrong)?.unwrap_or(true);
    updates.known().disabled = !enabled;
    Ok(Json(json!({ "enabled": enabled })))
}

async fn status(State(app): State<App>, _: Admin, Extension(updates): Extension<Arc<Updates>>) -> Json<Value> {
    let known = updates.known();
    let mut shown = json!({ "enabled": !known.disabled, "current_updates": {} });
    if let Some(at) = app.rebuilds.at() {
        // One that was asked for in another way has no name here.
        let (name, since) = known.current.clone().unwrap_or(("rebuild".to_owned(), app.clock.elapsed()));
        let ms = u64::try_from(app.clock.elapsed().saturating_sub(since).as_millis()).unwrap_or(u64::MAX);
        shown["current_updates"]["master"] = json!({
            "name": name,
            "total_item_count": at,
            "total_duration_ms": ms,
            "average_items_per_ms": at.0.checked_div(ms),
        });
    }
    Json(shown)
}

async fn start_job(
    State(app): State<App>,
    _: Admin,
    Extension(updates): Extension<Arc<Updates>>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    body.require(&["job_name"])?;
    let name = body.get("job_name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let model = model(&name).ok_or_else(|| unknown("Invalid job_name"))?;
    {
        let mut known = updates.known();
        if known.disabled {
            return Err(unknown("Background updates are disabled; enable them first"));
        }
        if known.current.is_some() || app.rebuilds.at().is_some() {
            return Err(unknown(format!("Job {name} is already in queue of background updates.")));
        }
        known.current = Some((name.clone(), app.clock.elapsed()));
    }
    tokio::spawn(async move {
        match app.rebuilds.run(vec![model]).await {
            Ok(cursor) => tracing::info!(job = name, at = %cursor.lsn, "the read model is folded anew"),
            Err(error) => tracing::warn!(job = name, %error, "the read model is not folded anew"),
        }
        updates.known().current = None;
    });
    Ok(Json(json!({})))
}

/// The read model that a job folds anew.
fn model(job: &str) -> Option<Model> {
    match job {
        "populate_stats_process_rooms" => Some(Model::Rooms),
        "regenerate_directory" => Some(Model::Profiles),
        name => Model::named(name),
    }
}
