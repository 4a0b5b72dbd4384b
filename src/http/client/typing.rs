//! Client-server API, "Typing Notifications".
//!
//! `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`

use axum::Router;
use ruma::api::client::typing::create_typing_event::v3::{self as create_typing_event, Typing};

use super::lenient::Lenient;
use crate::{
    commands::receipts::joined,
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
};

pub fn routes() -> Router<App> {
    Router::new().matrix(set)
}

async fn set(
    app: App,
    request: Matrix<Lenient<create_typing_event::Request>>,
) -> Result<create_typing_event::Response, ApiError> {
    let Lenient(create_typing_event::Request { room_id, user_id, state, .. }) = request.body;
    request.who.must_be(&user_id)?;
    joined(&app.view()?, &request.who, &room_id)?;
    let for_ms = match state {
        Typing::No => 0,
        Typing::Yes(info) => u64::try_from(info.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    if !request.who.shadow_banned {
        app.ephemeral.set_typing(&room_id, &user_id, for_ms);
    }
    Ok(create_typing_event::Response::new())
}
