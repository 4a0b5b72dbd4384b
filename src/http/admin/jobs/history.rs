//! Purging the history of rooms.
//!
//! `POST /_synapse/admin/v1/purge_history/{room_id}`, `POST /_synapse/admin/v1/purge_history/{room_id}/{event_id}`,
//! `GET /_synapse/admin/v1/purge_history_status/{purge_id}`

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use projections::{
    Position, View,
    models::{
        events,
        jobs::{self, Status},
        timeline,
    },
};
use ruma::api::error::ErrorKind;
use serde_json::{Value, json};

use super::deletion::room_id;
use crate::{
    commands::jobs::{NewJob, PURGE_HISTORY, PurgeHistory},
    http::{
        App,
        admin::{
            Admin,
            params::{Body, MaybeBody, refused, unknown},
        },
        extract::Path,
        reply::ApiError,
    },
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/purge_history/{room_id}", post(up_to_given))
        .route("/_synapse/admin/v1/purge_history/{room_id}/{event_id}", post(up_to_event))
        .route("/_synapse/admin/v1/purge_history_status/{purge_id}", get(status))
}

async fn up_to_given(
    State(app): State<App>,
    admin: Admin,
    Path(room): Path<String>,
    MaybeBody(body): MaybeBody,
) -> Result<Json<Value>, ApiError> {
    begin(app, admin, &room, None, &body).await
}

async fn up_to_event(
    State(app): State<App>,
    admin: Admin,
    Path((room, event)): Path<(String, String)>,
    MaybeBody(body): MaybeBody,
) -> Result<Json<Value>, ApiError> {
    begin(app, admin, &room, Some(event), &body).await
}

async fn begin(
    app: App,
    admin: Admin,
    room: &str,
    event: Option<String>,
    body: &Body,
) -> Result<Json<Value>, ApiError> {
    let room = room_id(room)?;
    let before = match event.or(body.text("purge_up_to_event_id")?) {
        Some(event) => of_room(&app.view()?, room.as_str(), event)?,
        None => at_time(&app, room.as_str(), body).await?,
    };
    let delete_local_events = body.boolean("delete_local_events")?.unwrap_or(false);
    let purge = PurgeHistory { before, delete_local_events };
    let parameters = schemas::Json::of(&purge).map_err(|error| ApiError::internal(&error))?;
    let job = NewJob { action: PURGE_HISTORY, resource: room.to_string(), parameters, alone: None };
    let id = app.commands.start_job(admin.origin(), job).await?;
    Ok(Json(json!({ "purge_id": id })))
}

/// An event that stands in the order of the room.
fn of_room(view: &View, room: &str, event: String) -> Result<String, ApiError> {
    let not_found = || ApiError::not_found(format!("Could not find event {event}"));
    let (_, head) = events::find(view, &event)?.ok_or_else(not_found)?;
    if Some(head.room) != events::room_nid(view, room)? {
        return Err(unknown("Event is for wrong room."));
    }
    head.shown_at().ok_or_else(not_found)?;
    Ok(event)
}

/// The last event of the room that was there at a time.
async fn at_time(app: &App, room: &str, body: &Body) -> Result<String, ApiError> {
    let wrong = "purge_up_to_ts must be an int";
    let ts = body.field::<i64>("purge_up_to_ts", ErrorKind::BadJson, wrong)?;
    let missing = || refused(ErrorKind::BadJson, "must specify purge_up_to_event_id or purge_up_to_ts");
    let ts = u64::try_from(ts.ok_or_else(missing)?).unwrap_or_default();
    let reader = std::sync::Arc::clone(&app.reader);
    let lsn = tokio::task::spawn_blocking(move || reader.at_time(ts)).await;
    let lsn = lsn.map_err(|error| ApiError::internal(&error))?.map_err(|error| ApiError::internal(&error))?;
    let view = app.view()?;
    let nothing = || ApiError::not_found("there is no event to be purged");
    let room = events::room_nid(&view, room)?.ok_or_else(nothing)?;
    let last = timeline::backward(&view, room, Position::after_record(lsn)).next().transpose()?;
    let head = last.map(|(_, item)| events::head(&view, item.event)).transpose()?.flatten();
    Ok(head.ok_or_else(nothing)?.id)
}

async fn status(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let job = jobs::get(&app.view()?, &id)?.filter(|job| job.action == PURGE_HISTORY);
    let job = job.ok_or_else(|| ApiError::not_found(format!("purge id '{id}' not found")))?;
    let status = if job.status.is_over() { job.status } else { Status::Active };
    let mut shown = json!({ "status": status.name() });
    if let Some(error) = job.error {
        shown["error"] = json!(error);
    }
    Ok(Json(shown))
}
