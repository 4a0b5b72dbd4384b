//! Client-server API, "Presence".
//!
//! `GET` and `PUT /_matrix/client/v3/presence/{userId}/status`

use std::time::Duration;

use axum::Router;
use projections::models::{accounts, membership};
use ruma::{
    api::client::presence::{get_presence::v3 as get_presence, set_presence::v3 as set_presence},
    presence::PresenceState,
};

use crate::http::{
    App,
    extract::{Matrix, Routes},
    reply::ApiError,
};

/// A status message has at most so many bytes: it is kept in memory, and sent to everybody who shares a room.
const MAX_MESSAGE_BYTES: usize = 1000;

pub fn routes() -> Router<App> {
    Router::new().matrix(get).matrix(set)
}

async fn get(app: App, request: Matrix<get_presence::Request>) -> Result<get_presence::Response, ApiError> {
    check_enabled(&app)?;
    let (view, asker, user) = (app.view()?, &request.who.user, &request.body.user_id);
    if asker != user && !membership::share_room(&view, asker.as_str(), user.as_str())? {
        return Err(ApiError::forbidden(format!("you share no room with {user}")));
    }
    let Some(presence) = app.ephemeral.presence_of(user) else {
        accounts::get(&view, user.as_str())?.ok_or_else(|| ApiError::not_found(format!("{user} is not known here")))?;
        return Ok(get_presence::Response::new(PresenceState::Offline));
    };
    let mut reply = get_presence::Response::new(presence.state.clone());
    reply.currently_active = Some(presence.state == PresenceState::Online);
    reply.last_active_ago = Some(Duration::from_millis(presence.last_active_ago_ms));
    reply.status_msg = presence.message;
    Ok(reply)
}

async fn set(app: App, request: Matrix<set_presence::Request>) -> Result<set_presence::Response, ApiError> {
    check_enabled(&app)?;
    let set_presence::Request { user_id, presence, status_msg, .. } = request.body;
    request.who.must_be(&user_id)?;
    if !matches!(presence, PresenceState::Online | PresenceState::Unavailable | PresenceState::Offline) {
        return Err(ApiError::invalid(format!("{presence} is none of online, unavailable and offline")));
    }
    if status_msg.as_ref().is_some_and(|message| message.len() > MAX_MESSAGE_BYTES) {
        return Err(ApiError::invalid(format!("a status message has at most {MAX_MESSAGE_BYTES} bytes")));
    }
    app.ephemeral.set_presence(&user_id, presence, Some(status_msg));
    Ok(set_presence::Response::new())
}

fn check_enabled(app: &App) -> Result<(), ApiError> {
    if app.config.presence.enabled { Ok(()) } else { Err(ApiError::forbidden("this server does not share presence")) }
}
