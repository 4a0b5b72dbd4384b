//! The events that a room's next one is built on.
//!
//! `GET` and `DELETE /_synapse/admin/v1/rooms/{room_id}/forward_extremities`, where the id may be an alias

use axum::{Router, extract::State, routing::get};
use projections::models::{audit, events, state, timeline};
use schemas::Lsn;
use serde::Serialize;

use super::resolve;
use crate::http::{App, admin::Admin, extract::Path, reply::ApiError};

pub fn routes() -> Router<App> {
    Router::new().route("/_synapse/admin/v1/rooms/{room_id}/forward_extremities", get(list).delete(remove))
}

#[derive(Serialize)]
struct Shown {
    event_id: String,
    /// The record that made the state after it.
    state_group: Lsn,
    depth: u64,
    /// Log time of the record that brought it, milliseconds since the Unix epoch.
    received_ts: Option<u64>,
}

#[derive(Serialize)]
struct List {
    count: usize,
    results: Vec<Shown>,
}

async fn list(State(app): State<App>, _: Admin, Path(room): Path<String>) -> Result<axum::Json<List>, ApiError> {
    let (room, view) = (resolve(&app, &room)?, app.view()?);
    let room = events::room_nid(&view, room.as_str())?;
    let extremities = room.map(|room| timeline::extremities(&view, room)).transpose()?.unwrap_or_default();
    let mut results = Vec::with_capacity(extremities.len());
    for timeline::Extremity { event, id, depth } in extremities {
        let state = state::after(&view, event)?;
        let received = audit::entry(&view, event.lsn)?;
        results.push(Shown {
            event_id: id,
            state_group: state.map(|state| state.made_by()).unwrap_or_default(),
            depth,
            received_ts: received.map(|entry| entry.log_time_ms),
        });
    }
    Ok(axum::Json(List { count: results.len(), results }))
}

#[derive(Serialize)]
struct Removed {
    deleted: usize,
}

async fn remove(State(app): State<App>, by: Admin, Path(room): Path<String>) -> Result<axum::Json<Removed>, ApiError> {
    let room = resolve(&app, &room)?;
    let deleted = app.commands.remove_extremities(by.origin(), &room).await?;
    Ok(axum::Json(Removed { deleted }))
}
