//! All jobs there are: `GET /_synapse/admin/v1/scheduled_tasks`

use axum::{Json, Router, extract::State, routing::get};
use projections::{
    StoreError, View,
    models::jobs::{self, Job, Status},
};
use ruma::api::error::ErrorKind;
use serde_json::{Value, json};

use super::redaction;
use crate::{
    commands::jobs::{DELETE_ROOM, Deleted, PURGE_HISTORY, PurgeHistory, REDACT_USER},
    http::{
        App,
        admin::{
            Admin,
            params::{Params, list, refused},
        },
        reply::ApiError,
    },
};

/// Of more jobs, the oldest are shown.
const MOST: usize = 10_000;

pub fn routes() -> Router<App> {
    Router::new().route("/_synapse/admin/v1/scheduled_tasks", get(shown))
}

async fn shown(State(app): State<App>, _: Admin, params: Params) -> Result<Json<Value>, ApiError> {
    let status = params.text("status").or_else(|| params.text("job_status")).filter(|status| !status.is_empty());
    let status = status.map(status_named).transpose()?;
    let until = params.integer("max_timestamp")?;
    let filled = |name| params.text(name).filter(|text: &&str| !text.is_empty());
    let (action, resource) = (filled("action_name"), filled("resource_id"));
    let view = app.view()?;
    let all: Box<dyn Iterator<Item = Result<(String, Job), StoreError>>> = match (resource, status) {
        (Some(resource), _) => Box::new(jobs::on(&view, resource)),
        (None, Some(status)) => Box::new(jobs::with_status(&view, status)),
        (None, None) => Box::new(jobs::all(&view)),
    };
    let mut tasks = Vec::new();
    for found in all.take(MOST) {
        let (id, job) = found?;
        let is_wanted = action.is_none_or(|action| job.action == action)
            && status.is_none_or(|status| job.status == status)
            && until.is_none_or(|until| job.changed_ms <= until);
        if is_wanted {
            tasks.push(task(&view, &id, &job)?);
        }
    }
    Ok(Json(json!({ "scheduled_tasks": tasks })))
}

fn status_named(name: &str) -> Result<Status, ApiError> {
    let found = Status::ALL.into_iter().find(|status| status.name() == name);
    let names = list(Status::ALL.into_iter().map(Status::name));
    found.ok_or_else(|| refused(ErrorKind::InvalidParam, format!("Query parameter 'status' must be one of {names}")))
}

fn task(view: &View, id: &str, job: &Job) -> Result<Value, ApiError> {
    Ok(json!({
        "id": id,
        "action": job.action,
        "status": job.status.name(),
        "timestamp_ms": job.changed_ms,
        "resource_id": job.resource,
        "result": result(view, id, job)?,
        "error": job.error,
    }))
}

/// What a job has come to so far.
fn result(view: &View, id: &str, job: &Job) -> Result<Value, ApiError> {
    if job.progress.is_none() {
        return Ok(Value::Null);
    }
    Ok(match job.action.as_str() {
        DELETE_ROOM => json!(Deleted::of(view, id, job)?),
        PURGE_HISTORY => {
            let (keys, bytes) = PurgeHistory::removed(job)?;
            json!({ "purged": { "keys": keys, "bytes": bytes } })
        }
        REDACT_USER => json!({ "failed_redactions": redaction::failed(view, id)? }),
        _ => Value::Null,
    })
}
