//! Notices: what the server tells its users.
//!
//! `POST /_synapse/admin/v1/send_server_notice`, `PUT /_synapse/admin/v1/send_server_notice/{txn_id}`

use axum::{
    Router,
    extract::State,
    routing::{post, put},
};
use ruma::{UserId, api::error::ErrorKind};
use schemas::RecordId;
use serde_json::{Value, json};

use super::{Admin, params::Body};
use crate::{
    commands::{
        content,
        notices::{Notice, Notices},
    },
    http::{App, extract::Path, reply::ApiError},
};

const PATH: &str = "/_synapse/admin/v1/send_server_notice";

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/send_server_notice", post(send))
        .route("/_synapse/admin/v1/send_server_notice/{txn_id}", put(send_once))
}

async fn send(State(app): State<App>, by: Admin, body: Body) -> Result<axum::Json<Value>, ApiError> {
    tell(&app, &by, &body, None).await
}

async fn send_once(
    State(app): State<App>,
    by: Admin,
    Path(txn): Path<String>,
    body: Body,
) -> Result<axum::Json<Value>, ApiError> {
    let id = RecordId::of_request(by.name(), "", "PUT", PATH, &txn);
    tell(&app, &by, &body, Some(id)).await
}

async fn tell(app: &App, by: &Admin, body: &Body, id: Option<RecordId>) -> Result<axum::Json<Value>, ApiError> {
    body.require(&["user_id", "content"])?;
    let user = body.required_text("user_id")?;
    let to = UserId::parse(&user).map_err(|error| ApiError::invalid(format!("{user:?} is not a user id: {error}")))?;
    let content = match body.get("content") {
        Some(Value::Object(content)) => content::canonical(&json!(content).to_string())?,
        _ => return Err(ApiError::new(ErrorKind::BadJson, "Param 'content' must be an object")),
    };
    let event_type = body.text("type")?.unwrap_or_else(|| "m.room.message".to_owned());
    let notice = Notice { to, event_type, state_key: body.text("state_key")?, content };
    let notices = Notices {
        commands: &app.commands,
        settings: &app.config.server_notices,
        version: &app.config.rooms.default_version,
        administrator: by.name(),
    };
    let event = notices.send(notice, id).await?;
    Ok(axum::Json(json!({ "event_id": event })))
}
