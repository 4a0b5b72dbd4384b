//! Rooms, as administrators see and change them: all of every room is shown to them.

mod actions;
mod details;
mod events;
mod extremities;
mod hierarchy;
mod list;

pub(super) use details::{Members, WholeState, shown};

use axum::{Router, http::StatusCode};
use projections::{
    View,
    models::{directory, events as model, rooms::Summary},
};
use ruma::{OwnedRoomId, RoomAliasId, RoomId, api::error::ErrorKind};
use schemas::Nid;
use serde::Serialize;

use crate::http::{App, reply::ApiError};

pub fn routes() -> Router<App> {
    Router::new()
        .merge(actions::routes())
        .merge(details::routes())
        .merge(events::routes())
        .merge(extremities::routes())
        .merge(hierarchy::routes())
        .merge(list::routes())
}

/// What lists and details say of a room. All keys are there; what is not known is null.
#[derive(Serialize)]
pub(super) struct Row {
    room_id: String,
    name: Option<String>,
    canonical_alias: Option<String>,
    joined_members: u64,
    joined_local_members: u64,
    version: Option<String>,
    creator: Option<String>,
    encryption: Option<String>,
    federatable: bool,
    public: bool,
    join_rules: Option<String>,
    guest_access: Option<String>,
    history_visibility: Option<String>,
    state_events: u64,
    room_type: Option<String>,
}

impl From<Summary> for Row {
    fn from(Summary { id, settings, figures }: Summary) -> Self {
        Self {
            room_id: id,
            name: settings.name,
            canonical_alias: settings.canonical_alias,
            joined_members: figures.joined,
            joined_local_members: figures.joined_local,
            version: settings.version,
            creator: settings.creator,
            encryption: settings.encryption,
            federatable: settings.federatable,
            public: figures.public,
            join_rules: settings.join_rule,
            guest_access: settings.guest_access,
            history_visibility: settings.history_visibility,
            state_events: figures.state_events,
            room_type: settings.room_type,
        }
    }
}

/// A room that this server has heard of.
///
/// # Errors
/// 404 `M_NOT_FOUND`.
pub(super) fn known(view: &View, room: &str) -> Result<Nid, ApiError> {
    model::room_nid(view, room)?.ok_or_else(|| ApiError::not_found("Room not found"))
}

/// The id of a room that need not be known.
///
/// # Errors
/// 400 `M_UNKNOWN` for what is none.
pub(super) fn room_id(text: &str) -> Result<OwnedRoomId, ApiError> {
    RoomId::parse(text).map_err(|_| super::params::unknown(format!("{text} is not a legal room ID")))
}

/// The id of a room that is named by it, or by an alias.
///
/// # Errors
/// 400 `M_UNKNOWN` for what is neither, 404 for an alias that leads nowhere, 502 for another server's.
pub(super) fn resolve(app: &App, text: &str) -> Result<OwnedRoomId, ApiError> {
    if let Ok(room) = RoomId::parse(text) {
        return Ok(room);
    }
    let Ok(alias) = <&RoomAliasId>::try_from(text) else {
        return Err(super::params::unknown(format!("{text} was not legal room ID or room alias")));
    };
    let target = directory::alias(&app.view()?, alias.as_str())?;
    if let Some(room) = target.and_then(|target| OwnedRoomId::try_from(target.room).ok()) {
        return Ok(room);
    }
    if alias.server_name() == app.config.server_name {
        return Err(ApiError::not_found(format!("Room alias {alias} not found")));
    }
    Err(ApiError::with_status(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, "Failed to fetch alias"))
}
