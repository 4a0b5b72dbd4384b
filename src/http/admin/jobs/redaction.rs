//! Redacting what a user wrote.
//!
//! `POST /_synapse/admin/v1/user/{user_id}/redact`, `GET /_synapse/admin/v1/user/redact_status/{redact_id}`

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use projections::{
    View,
    models::{
        events,
        jobs::{self, Status},
        membership::{self, Membership},
    },
};
use ruma::{OwnedRoomId, OwnedUserId, UserId, api::error::ErrorKind};
use schemas::Origin;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    commands::jobs::{NewJob, REDACT_USER, RedactUser},
    http::{
        App,
        admin::{
            Admin,
            params::{Body, refused, unknown},
        },
        extract::Path,
        reply::ApiError,
    },
};

/// So many events in each room, if nothing is said.
const LIMIT: u64 = 1_000;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/user/{user_id}/redact", post(begin))
        .route("/_synapse/admin/v1/user/redact_status/{redact_id}", get(status))
}

async fn begin(
    State(app): State<App>,
    admin: Admin,
    Path(user): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let user = OwnedUserId::try_from(user.as_str())
        .map_err(|_| refused(ErrorKind::InvalidParam, format!("Expected UserID string to start with '@': {user}")))?;
    body.require(&["rooms"])?;
    let mut rooms: Vec<OwnedRoomId> = given(&body, "rooms", "a list of room ids")?.unwrap_or_default();
    let limit = given::<i64>(&body, "limit", "an integer")?;
    if limit.is_some_and(|limit| limit < 0) {
        return Err(unknown("If limit is provided it must be a non-negative integer greater than 0."));
    }
    let limit = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0).unwrap_or(LIMIT);
    let reason = given(&body, "reason", "a string")?;
    let use_admin = given(&body, "use_admin", "a boolean")?.unwrap_or(false);
    let ts =
        |name| Ok::<_, ApiError>(given::<i64>(&body, name, "an integer")?.map(|ts| u64::try_from(ts).unwrap_or(0)));
    let (before_ts, after_ts) = (ts("before_ts")?, ts("after_ts")?);
    if rooms.is_empty() {
        rooms = rooms_of(&app.view()?, &user)?;
    }
    let origin = admin.origin();
    let is_local = user.server_name() == app.config.server_name;
    let by = if use_admin || !is_local { administrator(&origin)? } else { user.clone() };
    let redact = RedactUser { rooms, reason, limit, by, before_ts, after_ts };
    let parameters = schemas::Json::of(&redact).map_err(|error| ApiError::internal(&error))?;
    let alone = Some(format!("Redact already in progress for user {user}"));
    let job = NewJob { action: REDACT_USER, resource: user.to_string(), parameters, alone };
    let id = app.commands.start_job(origin, job).await?;
    Ok(Json(json!({ "redact_id": id })))
}

/// A field of a type; null stands for none.
fn given<T: DeserializeOwned>(body: &Body, name: &str, what: &str) -> Result<Option<T>, ApiError> {
    let wrong = format!("Param '{name}' must be {what}, if given");
    Ok(body.field::<Option<T>>(name, ErrorKind::BadJson, &wrong)?.flatten())
}

/// The rooms that a user is in, or banned from.
fn rooms_of(view: &View, user: &UserId) -> Result<Vec<OwnedRoomId>, ApiError> {
    let mut rooms = Vec::new();
    for membership in [Membership::Join, Membership::Ban] {
        for room in membership::rooms_of(view, user.as_str(), membership) {
            let room = events::room(view, room?.0)?;
            rooms.extend(room.and_then(|room| OwnedRoomId::try_from(room.id).ok()));
        }
    }
    Ok(rooms)
}

fn administrator(origin: &Origin) -> Result<OwnedUserId, ApiError> {
    let user = match origin {
        Origin::Admin { user } => OwnedUserId::try_from(user.as_str()).ok(),
        _ => None,
    };
    user.ok_or_else(|| unknown("use_admin needs the access token of a user, who is in the rooms"))
}

async fn status(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let view = app.view()?;
    let job = jobs::get(&view, &id)?.filter(|job| job.action == REDACT_USER);
    let job = job.ok_or_else(|| ApiError::not_found(format!("redact id '{id}' not found")))?;
    let mut shown = json!({ "status": job.status.name() });
    match job.status {
        Status::Complete => shown["failed_redactions"] = failed(&view, &id)?.into(),
        Status::Failed => shown["error"] = json!(job.error),
        Status::Scheduled | Status::Active => {}
    }
    Ok(Json(shown))
}

/// What could not be redacted, and why not.
pub(super) fn failed(view: &View, id: &str) -> Result<Map<String, Value>, ApiError> {
    RedactUser::failed(view, id)
        .map(|failed| failed.map(|(event, why)| (event, json!(why))))
        .map(|found| Ok(found?))
        .collect()
}
