//! Deleting rooms.
//!
//! `DELETE /_synapse/admin/v1/rooms/{room_id}`, which waits for the end, `DELETE /_synapse/admin/v2/rooms/{room_id}`,
//! `GET /_synapse/admin/v2/rooms/{room_id}/delete_status`, `GET /_synapse/admin/v2/rooms/delete_status/{delete_id}`

use axum::{
    Json, Router,
    extract::State,
    routing::{delete, get},
};
use projections::{
    View,
    models::jobs::{self, Job, Status},
};
use ruma::{OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::{
    commands::jobs::{DELETE_ROOM, Deleted, Deletion, NewJob},
    http::{
        App,
        admin::{
            Admin,
            params::{Body, unknown},
        },
        extract::Path,
        reply::ApiError,
    },
};

const NAME: &str = "Content Violation Notification";
const MESSAGE: &str = "Sharing illegal content on this server is not permitted and rooms in violation will be blocked.";

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/rooms/{room_id}", delete(delete_now))
        .route("/_synapse/admin/v2/rooms/{room_id}", delete(begin))
        .route("/_synapse/admin/v2/rooms/{room_id}/delete_status", get(by_room))
        .route("/_synapse/admin/v2/rooms/delete_status/{delete_id}", get(by_id))
}

async fn delete_now(
    State(app): State<App>,
    admin: Admin,
    Path(room): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let job = new_job(&app, &room, &body, None)?;
    let id = app.commands.start_job(admin.origin(), job).await?;
    let over = app.stop.run_until_cancelled(app.commands.job_over(&id)).await;
    let job =
        over.ok_or_else(|| ApiError::unavailable("the server stops; the room is deleted once it runs again"))??;
    match &job.error {
        Some(error) => Err(unknown(error)),
        None => Ok(Json(json!(Deleted::of(&app.view()?, &id, &job)?.unwrap_or_default()))),
    }
}

async fn begin(
    State(app): State<App>,
    admin: Admin,
    Path(room): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let job = new_job(&app, &room, &body, Some(format!("Purge already in progress for {room}")))?;
    let id = app.commands.start_job(admin.origin(), job).await?;
    Ok(Json(json!({ "delete_id": id })))
}

fn new_job(app: &App, room: &str, body: &Body, alone: Option<String>) -> Result<NewJob, ApiError> {
    let given = |name, default| Ok::<_, ApiError>(body.boolean(name)?.unwrap_or(default));
    // What is no text counts as none, as does an empty one.
    let text = |name, default: &str| {
        let text = body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.unwrap_or(default).to_owned()
    };
    let (block, purge, force_purge) = (given("block", false)?, given("purge", true)?, given("force_purge", false)?);
    let room = room_id(room)?;
    let new_room_user_id = match body.get("new_room_user_id") {
        None | Some(Value::Null) => None,
        Some(given) => Some(own_user(app, given)?),
    };
    let deletion = Deletion {
        block,
        purge,
        force_purge,
        new_room_user_id,
        room_name: text("room_name", NAME),
        message: text("message", MESSAGE),
        room_version: app.config.rooms.default_version.clone(),
    };
    let parameters = schemas::Json::of(&deletion).map_err(|error| ApiError::internal(&error))?;
    Ok(NewJob { action: DELETE_ROOM, resource: room.to_string(), parameters, alone })
}

fn own_user(app: &App, given: &Value) -> Result<OwnedUserId, ApiError> {
    let text = given.as_str().map_or_else(|| given.to_string(), ToOwned::to_owned);
    let user = OwnedUserId::try_from(text.as_str()).ok();
    let own = user.filter(|user| user.server_name() == app.config.server_name);
    own.ok_or_else(|| unknown(format!("User must be our own: {text}")))
}

pub(super) fn room_id(room: &str) -> Result<OwnedRoomId, ApiError> {
    OwnedRoomId::try_from(room).map_err(|_| unknown(format!("{room} is not a legal room ID")))
}

async fn by_room(State(app): State<App>, _: Admin, Path(room): Path<String>) -> Result<Json<Value>, ApiError> {
    let (room, view) = (room_id(&room)?, app.view()?);
    let mut found = jobs::on(&view, room.as_str()).collect::<Result<Vec<_>, _>>()?;
    found.retain(|(_, job)| job.action == DELETE_ROOM && job.status != Status::Scheduled);
    if found.is_empty() {
        return Err(ApiError::not_found(format!("No delete task for room_id '{room}' found")));
    }
    found.sort_by_key(|(_, job)| job.changed_ms);
    let results = found.iter().map(|(id, job)| shown(&view, id, job)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({ "results": results })))
}

async fn by_id(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let view = app.view()?;
    let job = jobs::get(&view, &id)?.filter(|job| job.action == DELETE_ROOM);
    let job = job.ok_or_else(|| ApiError::not_found(format!("delete id '{id}' not found")))?;
    Ok(Json(shown(&view, &id, &job)?))
}

fn shown(view: &View, id: &str, job: &Job) -> Result<Value, ApiError> {
    let deleted = Deleted::of(view, id, job)?;
    let mut shown = json!({
        "delete_id": id,
        "room_id": job.resource,
        "status": job.status.name(),
        "shutdown_room": deleted,
    });
    if let Some(deleted) = deleted {
        shown["purged"] = deleted.purged;
    }
    if let Some(error) = &job.error {
        shown["error"] = json!(error);
    }
    Ok(shown)
}
