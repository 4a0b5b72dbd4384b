//! Snapshots.
//!
//! `GET` and `POST /_everfold/admin/v1/snapshot`

use std::path::PathBuf;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use ruma::api::error::ErrorKind;
use serde::Deserialize;

use super::Admin;
use crate::{
    http::{App, extract::Json, reply::ApiError},
    snapshot::{self, SnapshotError, Wanted},
};

pub fn routes() -> Router<App> {
    Router::new().route("/_everfold/admin/v1/snapshot", get(show).post(create))
}

async fn show(State(app): State<App>, _: Admin) -> Result<axum::Json<snapshot::State>, ApiError> {
    Ok(axum::Json(app.snapshots.state().await?))
}

#[derive(Deserialize)]
struct Body {
    /// A folder of the server's machine, by its absolute path.
    into: PathBuf,
    #[serde(default)]
    signing_key: bool,
}

/// Begins to make one; how it goes on, `GET` says.
async fn create(
    State(app): State<App>,
    _: Admin,
    Json(Body { into, signing_key }): Json<Body>,
) -> Result<(StatusCode, axum::Json<snapshot::State>), ApiError> {
    let begun = app.snapshots.begin(Wanted { into, with_signing_key: signing_key }).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(begun)))
}

impl From<SnapshotError> for ApiError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Busy => Self::with_status(StatusCode::CONFLICT, ErrorKind::Unknown, error.to_string()),
            SnapshotError::NotEmpty(_)
            | SnapshotError::NotAbsolute(_)
            | SnapshotError::Io { .. }
            | SnapshotError::Refused(_) => Self::invalid(error.to_string()),
            SnapshotError::Elsewhere(_) => Self::unavailable(error.to_string()),
            _ => Self::internal(&error),
        }
    }
}
