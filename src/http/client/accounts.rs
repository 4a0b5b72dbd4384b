//! Client-server API, "Account management" and "Current account information".
//!
//! `GET /_matrix/client/v3/account/whoami`, `POST /_matrix/client/v3/account/password`,
//! `POST /_matrix/client/v3/account/deactivate`

use axum::Router;
use ruma::api::client::{
    account::{
        ThirdPartyIdRemovalStatus, change_password::v3 as change_password, deactivate::v3 as deactivate,
        whoami::v3 as whoami,
    },
    uiaa::AuthType,
};

use super::lenient::Lenient;
use crate::{
    commands::accounts,
    http::{
        App,
        extract::{Matrix, Routes},
        passwords,
        reply::ApiError,
        uia,
    },
};

pub fn routes() -> Router<App> {
    Router::new().matrix(whoami).matrix(change_password).matrix(deactivate)
}

async fn whoami(_: App, req: Matrix<whoami::Request>) -> Result<whoami::Response, ApiError> {
    let mut reply = whoami::Response::new(req.who.user.clone(), req.who.guest);
    reply.device_id = Some(req.who.device.clone());
    Ok(reply)
}

async fn change_password(
    app: App,
    req: Matrix<Lenient<change_password::Request>>,
) -> Result<change_password::Response, ApiError> {
    let (session, Lenient(body)) = (req.who.required()?, req.body);
    passwords::check_strength(&app, &body.new_password)?;
    uia::interact(&app, &req.received, Some(&session.user), &[&[AuthType::Password]], body.auth.as_ref()).await?;
    let password = app.passwords.hash(body.new_password).await?;
    accounts::set_password(&app.commands, &session, password, body.logout_devices).await?;
    Ok(change_password::Response::new())
}

async fn deactivate(app: App, req: Matrix<Lenient<deactivate::Request>>) -> Result<deactivate::Response, ApiError> {
    let (session, Lenient(body)) = (req.who.required()?, req.body);
    uia::interact(&app, &req.received, Some(&session.user), &[&[AuthType::Password]], body.auth.as_ref()).await?;
    accounts::deactivate(&app.commands, &session, body.erase).await?;
    // There are no third-party ids here that an identity server could know.
    Ok(deactivate::Response::new(ThirdPartyIdRemovalStatus::Success))
}
