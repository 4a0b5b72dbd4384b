//! Client-server API, "Device Management".
//!
//! `GET /_matrix/client/v3/devices`, `GET`, `PUT` and `DELETE /_matrix/client/v3/devices/{deviceId}`,
//! `POST /_matrix/client/v3/delete_devices`

use axum::Router;
use projections::{View, models::devices};
use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, UInt,
    api::client::{
        device::{
            Device, delete_device::v3 as delete_device, delete_devices::v3 as delete_devices,
            get_device::v3 as get_device, get_devices::v3 as get_devices, update_device::v3 as update_device,
        },
        uiaa::AuthType,
    },
};
use schemas::Part;

use super::lenient::Lenient;
use crate::{
    commands::{Sender, devices as commands},
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
        uia,
    },
};

pub fn routes() -> Router<App> {
    Router::new()
        .matrix(get_devices)
        .matrix(get_device)
        .matrix(update_device)
        .matrix(delete_device)
        .matrix(delete_devices)
}

/// Refuses a device that can't be one.
///
/// # Errors
/// 400 `M_INVALID_PARAM`
pub fn check_device(id: Option<&DeviceId>, name: Option<&str>) -> Result<(), ApiError> {
    id.map_or(Ok(()), commands::check_id)?;
    name.map_or(Ok(()), commands::check_name)?;
    Ok(())
}

fn shown(app: &App, view: &View, sender: &Sender, id: &str, found: devices::Device) -> Result<Device, ApiError> {
    let mut device = Device::new(id.into());
    device.display_name = found.display_name;
    let of = Sender::new(sender.user.clone(), id.into());
    if let Some(seen) = app.seen.of_device(view, &of)?.first() {
        device.last_seen_ip = opened(seen.address.as_ref());
        device.last_seen_ts = UInt::try_from(seen.at_ms).ok().map(MilliSecondsSinceUnixEpoch);
    }
    Ok(device)
}

/// The text of what may have been forgotten.
pub fn opened(part: Option<&Part>) -> Option<String> {
    part.and_then(Part::open).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

async fn get_devices(app: App, req: Matrix<get_devices::Request>) -> Result<get_devices::Response, ApiError> {
    let view = app.view()?;
    let found = devices::of_user(&view, req.who.user.as_str());
    let shown =
        found.map(|row| row.map_err(ApiError::from).and_then(|(id, found)| shown(&app, &view, &req.who, &id, found)));
    Ok(get_devices::Response::new(shown.collect::<Result<_, _>>()?))
}

async fn get_device(app: App, req: Matrix<get_device::Request>) -> Result<get_device::Response, ApiError> {
    let id = req.body.device_id.as_str();
    let view = app.view()?;
    let found = devices::get(&view, req.who.user.as_str(), id)?;
    let found = found.ok_or_else(|| ApiError::not_found("there is no such device"))?;
    Ok(get_device::Response::new(shown(&app, &view, &req.who, id, found)?))
}

async fn update_device(app: App, req: Matrix<update_device::Request>) -> Result<update_device::Response, ApiError> {
    commands::rename(&app.commands, &req.who, &req.body.device_id, req.body.display_name).await?;
    Ok(update_device::Response::new())
}

async fn delete_device(
    app: App,
    req: Matrix<Lenient<delete_device::Request>>,
) -> Result<delete_device::Response, ApiError> {
    let Lenient(body) = req.body;
    uia::interact(&app, &req.received, Some(&req.who.user), &[&[AuthType::Password]], body.auth.as_ref()).await?;
    commands::remove(&app.commands, &req.who, [body.device_id]).await?;
    Ok(delete_device::Response::new())
}

async fn delete_devices(
    app: App,
    req: Matrix<Lenient<delete_devices::Request>>,
) -> Result<delete_devices::Response, ApiError> {
    let Lenient(body) = req.body;
    uia::interact(&app, &req.received, Some(&req.who.user), &[&[AuthType::Password]], body.auth.as_ref()).await?;
    commands::remove(&app.commands, &req.who, body.devices).await?;
    Ok(delete_devices::Response::new())
}
