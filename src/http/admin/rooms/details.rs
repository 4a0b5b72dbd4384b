//! One room: what it is, who is in it, its state.
//!
//! `GET /_synapse/admin/v1/rooms/{room_id}`, `GET /_synapse/admin/v1/rooms/{room_id}/members`,
//! `GET /_synapse/admin/v1/rooms/{room_id}/state`

use axum::{Router, extract::State, routing::get};
use projections::{
    View,
    models::{
        devices,
        membership::{self, Membership},
        rooms::{self, Figures, Summary},
        state,
    },
};
use ruma::{RoomId, events::AnyStateEvent, serde::Raw};
use serde::Serialize;

use super::{Row, known};
use crate::{
    http::{
        App,
        admin::{Admin, params::Params},
        extract::Path,
        reply::ApiError,
    },
    reading::Reading,
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/rooms/{room_id}", get(details))
        .route("/_synapse/admin/v1/rooms/{room_id}/members", get(members))
        .route("/_synapse/admin/v1/rooms/{room_id}/state", get(state_of))
}

#[derive(Serialize)]
struct Details {
    #[serde(flatten)]
    row: Row,
    avatar: Option<String>,
    topic: Option<String>,
    /// How many devices the members of this server have.
    joined_local_devices: usize,
    /// Nobody of this server has anything to do with it any more.
    forgotten: bool,
    tombstoned: bool,
    replacement_room: Option<String>,
}

async fn details(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Result<axum::Json<Details>, ApiError> {
    let view = app.view()?;
    let room = known(&view, &id)?;
    let counts = membership::counts(&view, room)?;
    let summary = match rooms::summary(&view, room)? {
        Some(summary) => summary,
        // Of a room that somebody was invited to from elsewhere, little is known.
        None => Summary {
            id,
            settings: rooms::settings(&view, room)?,
            figures: Figures {
                public: false,
                state_events: state::current(&view, room)?.len().into(),
                joined: counts.joined,
                joined_local: counts.joined_local,
            },
        },
    };
    let mut joined_local_devices = 0;
    for user in membership::local_users_in(&view, room) {
        joined_local_devices += devices::of_user(&view, &user?).count();
    }
    let settings = &summary.settings;
    Ok(axum::Json(Details {
        avatar: settings.avatar.clone(),
        topic: settings.topic.clone(),
        joined_local_devices,
        forgotten: counts.remembered == 0,
        tombstoned: settings.tombstoned,
        replacement_room: settings.replacement.clone(),
        row: summary.into(),
    }))
}

/// Full user ids.
#[derive(Serialize)]
pub(in crate::http::admin) struct Members {
    members: Vec<String>,
    total: usize,
}

impl From<Vec<String>> for Members {
    fn from(members: Vec<String>) -> Self {
        Self { total: members.len(), members }
    }
}

async fn members(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Result<axum::Json<Members>, ApiError> {
    let view = app.view()?;
    let members = membership::users_in(&view, known(&view, &id)?, Membership::Join);
    Ok(axum::Json(members.collect::<Result<Vec<_>, _>>()?.into()))
}

#[derive(Serialize)]
pub(in crate::http::admin) struct WholeState {
    state: Vec<Raw<AnyStateEvent>>,
}

async fn state_of(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<String>,
    params: Params,
) -> Result<axum::Json<WholeState>, ApiError> {
    let view = app.view()?;
    let current = state::current(&view, known(&view, &id)?)?;
    shown(&app, &view, &id, &current, params.text("type")).map(axum::Json)
}

/// The events of a state, all or those of one type.
pub(in crate::http::admin) fn shown(
    app: &App,
    view: &View,
    room: &str,
    state: &state::State,
    kind: Option<&str>,
) -> Result<WholeState, ApiError> {
    let room = <&RoomId>::try_from(room).map_err(|error| ApiError::internal(&error))?;
    let reading = Reading::of_everything(view, app.clock.now_ms()).in_room(room);
    let entries: Box<dyn Iterator<Item = _>> = match kind {
        Some(kind) => Box::new(state::of_type(view, state, kind)),
        None => Box::new(state::all(view, state)),
    };
    let mut events = Vec::new();
    for entry in entries {
        events.extend(reading.state_event(entry?.event)?);
    }
    Ok(WholeState { state: events })
}
