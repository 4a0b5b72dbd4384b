//! Client-server API, "Account management" and "Current account information".
//!
//! `GET /_matrix/client/v3/account/whoami`, `POST /_matrix/client/v3/account/password`,
//! `POST /_matrix/client/v3/account/deactivate`, `GET /_matrix/client/v3/account/3pid`

use axum::Router;
use projections::{View, models::identities};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::client::{
        account::{
            ThirdPartyIdRemovalStatus, change_password::v3 as change_password, deactivate::v3 as deactivate,
            get_3pids::v3 as get_3pids, whoami::v3 as whoami,
        },
        uiaa::AuthType,
    },
    thirdparty::{Medium, ThirdPartyIdentifier, ThirdPartyIdentifierInit},
};

use super::{devices::opened, lenient::Lenient};
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
    Router::new().matrix(whoami).matrix(change_password).matrix(deactivate).matrix(third_party_ids)
}

async fn whoami(_: App, req: Matrix<whoami::Request>) -> Result<whoami::Response, ApiError> {
    let mut reply = whoami::Response::new(req.who.user.clone(), req.who.guest);
    reply.device_id = Some(req.who.device.clone()).filter(|device| !device.as_str().is_empty());
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

async fn third_party_ids(app: App, req: Matrix<get_3pids::Request>) -> Result<get_3pids::Response, ApiError> {
    Ok(get_3pids::Response::new(third_party(&app.view()?, &req.who.user)?))
}

/// A user's third-party ids, in the order of their texts.
///
/// # Errors
/// When the store fails.
pub fn third_party(view: &View, user: &UserId) -> Result<Vec<ThirdPartyIdentifier>, ApiError> {
    let at = |ms: u64| MilliSecondsSinceUnixEpoch(UInt::new_saturating(ms));
    let mut ids = Vec::new();
    for row in identities::third_party(view, user.as_str()) {
        let (_, id) = row?;
        // What was forgotten is not shown.
        let Some(address) = opened(Some(&id.address)) else { continue };
        let medium = Medium::from(id.medium);
        let (validated_at, added_at) = (at(id.validated_at_ms), at(id.added_at_ms));
        ids.push(ThirdPartyIdentifier::from(ThirdPartyIdentifierInit { address, medium, validated_at, added_at }));
    }
    ids.sort_by(|a, b| (a.medium.as_str(), &a.address).cmp(&(b.medium.as_str(), &b.address)));
    Ok(ids)
}
