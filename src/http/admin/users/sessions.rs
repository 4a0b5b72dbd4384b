//! Logging in as a user, and from where a user came.
//!
//! `POST /_synapse/admin/v1/users/{userId}/login`, `GET /_synapse/admin/v1/whois/{userId}`,
//! `GET /_matrix/client/v3/admin/whois/{userId}`

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use projections::models::devices;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt, UserId,
    api::{
        client::admin::get_user_info::v3::{self as get_user_info, ConnectionInfo, DeviceInfo, SessionInfo},
        error::ErrorKind,
    },
};
use serde_json::{Value, json};

use super::{
    Admin, existing, local,
    params::{MaybeBody, unknown},
};
use crate::{
    commands::{Sender, sessions},
    http::{
        App,
        auth::sha256,
        client::devices::opened,
        extract::{Matrix, Path, Routes},
        reply::ApiError,
        tokens::Tokens,
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/users/{user_id}/login", post(log_in))
        .route("/_synapse/admin/v1/whois/{user_id}", get(whois))
        .matrix(whois_by_client)
}

/// A token with which the administrator acts as the user, without a device of theirs.
async fn log_in(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    MaybeBody(body): MaybeBody,
) -> Result<axum::Json<Value>, ApiError> {
    let user = local(&app, &user, "Only local users can be logged in as")?;
    existing(&app.view()?, &user)?;
    let wrong = "'valid_until_ms' parameter must be an int";
    let until = body.field::<Option<i64>>("valid_until_ms", ErrorKind::Unknown, wrong)?.flatten();
    if by.name() == user {
        return Err(unknown("Cannot use admin API to login as self"));
    }
    let token = Tokens::first(&app, false).access;
    // What lies before the epoch is over, too.
    let until = until.map(|ms| u64::try_from(ms).unwrap_or(0));
    sessions::stand_in(&app.commands, by.name().to_owned(), user, sha256(&token), until).await?;
    Ok(axum::Json(json!({ "access_token": token })))
}

const ELSEWHERE: &str = "Can only whois a local user";

/// From where a user's devices came, the latest first.
fn connections(app: &App, user: &UserId) -> Result<BTreeMap<String, Vec<ConnectionInfo>>, ApiError> {
    let view = app.view()?;
    let mut found = BTreeMap::new();
    for row in devices::of_user(&view, user.as_str()) {
        let (device, _) = row?;
        let seen = app.seen.of_device(&view, &Sender::new(user.to_owned(), device.as_str().into()))?;
        let connections = seen.into_iter().filter(|seen| seen.address.is_some() || seen.user_agent.is_some());
        let shown = connections.map(|seen| {
            let mut shown = ConnectionInfo::new();
            shown.ip = opened(seen.address.as_ref());
            shown.last_seen = UInt::try_from(seen.at_ms).ok().map(MilliSecondsSinceUnixEpoch);
            shown.user_agent = opened(seen.user_agent.as_ref());
            shown
        });
        found.insert(device, shown.collect());
    }
    Ok(found)
}

fn info(connections: Vec<ConnectionInfo>) -> DeviceInfo {
    let mut session = SessionInfo::new();
    session.connections = connections;
    let mut device = DeviceInfo::new();
    device.sessions = vec![session];
    device
}

/// As Synapse has it, which doesn't tell devices apart: the tools look nowhere else.
async fn whois(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Result<axum::Json<Value>, ApiError> {
    let user = local(&app, &user, ELSEWHERE)?;
    let all: Vec<_> = connections(&app, &user)?.into_values().flatten().collect();
    let sessions = json!([{ "connections": all }]);
    Ok(axum::Json(json!({ "user_id": user, "devices": { "": { "sessions": sessions } } })))
}

/// As the specification has it; whoever it is about may ask, too.
async fn whois_by_client(app: App, req: Matrix<get_user_info::Request>) -> Result<get_user_info::Response, ApiError> {
    let user = &req.body.user_id;
    if req.who.user != *user && !req.who.admin {
        return Err(ApiError::forbidden("You are not a server admin"));
    }
    local(&app, user.as_str(), ELSEWHERE)?;
    let mut reply = get_user_info::Response::new();
    reply.user_id = Some(user.clone());
    reply.devices = connections(&app, user)?.into_iter().map(|(device, all)| (device, info(all))).collect();
    Ok(reply)
}
