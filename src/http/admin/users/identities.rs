//! Whose a third-party id is, and who somebody is at an identity provider.
//!
//! `GET /_synapse/admin/v1/threepid/{medium}/users/{address}`,
//! `GET /_synapse/admin/v1/auth_providers/{provider}/users/{externalId}`

use axum::{Router, extract::State, routing::get};
use projections::models::identities;
use serde_json::{Value, json};

use super::Admin;
use crate::{
    commands::users::{canonical, external_hash, third_party_hash, unknown},
    http::{App, extract::Path, reply::ApiError},
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/threepid/{medium}/users/{address}", get(by_third_party_id))
        .route("/_synapse/admin/v1/auth_providers/{provider}/users/{external_id}", get(by_external_id))
}

async fn by_third_party_id(
    State(app): State<App>,
    _: Admin,
    Path((medium, address)): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    holder(&app, &third_party_hash(&medium, &canonical(&medium, &address)))
}

async fn by_external_id(
    State(app): State<App>,
    _: Admin,
    Path((provider, id)): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    holder(&app, &external_hash(&provider, &id))
}

fn holder(app: &App, hash: &[u8; 32]) -> Result<axum::Json<Value>, ApiError> {
    let user = identities::holder(&app.view()?, hash)?.ok_or_else(unknown)?;
    Ok(axum::Json(json!({ "user_id": user })))
}
