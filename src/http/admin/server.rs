//! The server: its version, names that are free, and figures.
//!
//! `GET /_synapse/admin/v1/server_version`, `GET /_synapse/admin/v1/username_available`,
//! `GET /_synapse/admin/v1/statistics/users/media`, `GET /_synapse/admin/v1/statistics/database/rooms`

use axum::{Router, extract::State, routing::get};
use projections::{StoreError, models::sizes};
use ruma::api::error::ErrorKind;
use serde_json::{Value, json};

use super::{Admin, params::Params};
use crate::{
    commands::accounts::{check_free, new_user_id},
    http::{App, reply::ApiError},
};

/// So many of the largest rooms are told.
const LARGEST: usize = 10;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/server_version", get(version))
        .route("/_synapse/admin/v1/username_available", get(is_available))
        .route("/_synapse/admin/v1/statistics/users/media", get(media))
        .route("/_synapse/admin/v1/statistics/database/rooms", get(largest_rooms))
}

/// For everybody.
async fn version() -> axum::Json<Value> {
    axum::Json(json!({ "server_version": concat!("Everfold ", env!("CARGO_PKG_VERSION")) }))
}

/// Whether a user can be registered by this name, whoever may register.
async fn is_available(State(app): State<App>, _: Admin, params: Params) -> Result<axum::Json<Value>, ApiError> {
    let name = params.required_text("username")?;
    let is_legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"=_-./+".contains(&byte);
    if !name.bytes().all(is_legal) {
        let message = "User ID can only contain characters a-z, 0-9, or '=_-./+'";
        return Err(ApiError::new(ErrorKind::InvalidUsername, message));
    }
    check_free(&app.view()?, &new_user_id(&app.config.server_name, name)?)?;
    Ok(axum::Json(json!({ "available": true })))
}

/// Who has uploaded media, and how much: nobody, as there is no media on this server yet.
async fn media(_: Admin, params: Params) -> Result<axum::Json<Value>, ApiError> {
    let orders = ["media_length", "media_count", "user_id", "displayname"];
    params.one_of("order_by", &orders.map(|order| (order, ())))?;
    params.integer("from")?;
    params.integer("limit")?;
    let (from, until) = (params.integer("from_ts")?.unwrap_or(0), params.integer("until_ts")?);
    if until.is_some_and(|until| until <= from) {
        return Err(ApiError::invalid("Query parameter until_ts must be greater than from_ts."));
    }
    if params.text("search_term") == Some("") {
        return Err(ApiError::invalid("Query parameter search_term cannot be an empty string."));
    }
    params.direction()?;
    Ok(axum::Json(json!({ "users": [], "total": 0 })))
}

/// The rooms whose events take the most bytes in the read models.
async fn largest_rooms(State(app): State<App>, _: Admin) -> Result<axum::Json<Value>, ApiError> {
    let view = app.view()?;
    let shown = |row: Result<(String, u64), StoreError>| {
        row.map(|(room, bytes)| json!({ "room_id": room, "estimated_size": bytes }))
    };
    let rooms = sizes::largest(&view).take(LARGEST).map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(axum::Json(json!({ "rooms": rooms })))
}
