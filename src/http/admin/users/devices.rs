//! Users' devices.
//!
//! `GET` and `POST /_synapse/admin/v2/users/{userId}/devices`,
//! `GET`, `PUT` and `DELETE /_synapse/admin/v2/users/{userId}/devices/{deviceId}`,
//! `POST /_synapse/admin/v2/users/{userId}/delete_devices`

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use projections::{
    View,
    models::{accounts, devices},
};
use ruma::{OwnedDeviceId, OwnedUserId, UserId, api::error::ErrorKind};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Admin, local,
    params::{Body, MaybeBody, unknown},
};
use crate::{
    commands::{Sender, devices as commands},
    http::{App, client::devices::opened, extract::Path, reply::ApiError},
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v2/users/{user_id}/devices", get(list).post(create))
        .route("/_synapse/admin/v2/users/{user_id}/devices/{device_id}", get(show).put(rename).delete(remove))
        .route("/_synapse/admin/v2/users/{user_id}/delete_devices", post(remove_some))
}

#[derive(Serialize)]
struct Shown {
    user_id: OwnedUserId,
    device_id: String,
    display_name: Option<String>,
    last_seen_ip: Option<String>,
    last_seen_ts: Option<u64>,
    last_seen_user_agent: Option<String>,
    /// A device that waits for keys while its user is away: there are none here.
    dehydrated: bool,
}

impl Shown {
    fn new(app: &App, view: &View, user: &UserId, id: String, found: devices::Device) -> Result<Self, ApiError> {
        let seen = app.seen.of_device(view, &Sender::new(user.to_owned(), id.as_str().into()))?.into_iter().next();
        Ok(Self {
            user_id: user.to_owned(),
            device_id: id,
            display_name: found.display_name,
            last_seen_ip: seen.as_ref().and_then(|seen| opened(seen.address.as_ref())),
            last_seen_ts: seen.as_ref().map(|seen| seen.at_ms),
            last_seen_user_agent: seen.and_then(|seen| opened(seen.user_agent.as_ref())),
            dehydrated: false,
        })
    }
}

/// A user of this server who is there.
fn known(app: &App, user: &str, elsewhere: &str) -> Result<OwnedUserId, ApiError> {
    let user = local(app, user, elsewhere)?;
    match accounts::get(&app.view()?, user.as_str())? {
        Some(_) => Ok(user),
        None => Err(ApiError::not_found("Unknown user")),
    }
}

const ELSEWHERE: &str = "Can only lookup local users";

async fn list(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Result<axum::Json<Value>, ApiError> {
    let (user, view) = (known(&app, &user, ELSEWHERE)?, app.view()?);
    let mut devices = Vec::new();
    for row in devices::of_user(&view, user.as_str()) {
        let (id, found) = row?;
        devices.push(Shown::new(&app, &view, &user, id, found)?);
    }
    Ok(axum::Json(json!({ "total": devices.len(), "devices": devices })))
}

async fn create(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    body: Body,
) -> Result<(StatusCode, axum::Json<Value>), ApiError> {
    let user = known(&app, &user, "Can only create devices for local users")?;
    let device = match body.get("device_id") {
        Some(Value::String(device)) if !device.is_empty() => OwnedDeviceId::from(device.as_str()),
        Some(Value::String(_) | Value::Null) | None => return Err(unknown("Missing device_id")),
        Some(_) => return Err(unknown("device_id must be a string")),
    };
    commands::add(&app.commands, &in_stead(&by, user), &device).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({}))))
}

fn in_stead(by: &Admin, user: OwnedUserId) -> Sender {
    Sender::in_stead_of(user, by.name())
}

async fn show(
    State(app): State<App>,
    _: Admin,
    Path((user, device)): Path<(String, String)>,
) -> Result<axum::Json<Shown>, ApiError> {
    let (user, view) = (known(&app, &user, ELSEWHERE)?, app.view()?);
    let found = devices::get(&view, user.as_str(), &device)?.ok_or_else(|| ApiError::not_found("No device found"))?;
    Ok(axum::Json(Shown::new(&app, &view, &user, device, found)?))
}

async fn rename(
    State(app): State<App>,
    by: Admin,
    Path((user, device)): Path<(String, String)>,
    MaybeBody(body): MaybeBody,
) -> Result<axum::Json<Value>, ApiError> {
    let user = known(&app, &user, ELSEWHERE)?;
    let name = body.text("display_name")?;
    let device = OwnedDeviceId::from(device);
    commands::rename(&app.commands, &in_stead(&by, user), &device, name).await?;
    Ok(axum::Json(json!({})))
}

async fn remove(
    State(app): State<App>,
    by: Admin,
    Path((user, device)): Path<(String, String)>,
) -> Result<axum::Json<Value>, ApiError> {
    let user = known(&app, &user, ELSEWHERE)?;
    commands::remove(&app.commands, &in_stead(&by, user), [device.into()]).await?;
    Ok(axum::Json(json!({})))
}

async fn remove_some(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    body: Body,
) -> Result<axum::Json<Value>, ApiError> {
    let user = known(&app, &user, ELSEWHERE)?;
    body.require(&["devices"])?;
    let wrong = "Param 'devices' must be a list of strings";
    let devices = body.field::<Vec<OwnedDeviceId>>("devices", ErrorKind::BadJson, wrong)?.unwrap_or_default();
    commands::remove(&app.commands, &in_stead(&by, user), devices).await?;
    Ok(axum::Json(json!({})))
}
