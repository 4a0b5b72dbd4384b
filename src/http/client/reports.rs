//! Client-server API, "Reporting content".
//!
//! `POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}`, `POST /_matrix/client/v3/rooms/{roomId}/report`,
//! `POST /_matrix/client/v3/users/{userId}/report`

use axum::Router;
use ruma::api::{
    client::{
        reporting::report_user::v3 as report_user,
        room::{report_content::v3 as report_event, report_room::v3 as report_room},
    },
    error::ErrorKind,
};
use serde::Deserialize;

use super::events_read::{reading, visible};
use crate::{
    commands::reports,
    http::{
        App,
        extract::{Matrix, Routes},
        limit::Limit,
        reply::ApiError,
    },
};

pub fn routes() -> Router<App> {
    Router::new().matrix(event).matrix(room).matrix(user)
}

async fn event(app: App, request: Matrix<report_event::Request>) -> Result<report_event::Response, ApiError> {
    app.throttle(Limit::Report, &request.who)?;
    let score = score(&request.received.raw)?;
    let report_event::Request { room_id, event_id, reason, .. } = request.body;
    let none = || ApiError::not_found("there is no such event in this room, or you are not in it");
    let view = app.view()?;
    let reading = reading(&app, &view, &request.who, &room_id)?;
    // Who is not in the room need not know whether it exists.
    reading.joined(&room_id).map_err(|_| none())?;
    let (_, head) = visible(&view, &reading, &room_id, &event_id)?;
    // There is nothing left of it to look at.
    if head.redacted_by.is_some() {
        return Err(none());
    }
    reports::event(&app.commands, &request.who, (room_id.clone(), event_id), reason, score).await?;
    Ok(report_event::Response::new())
}

/// What ruma's type leaves out, as the specification has since its version 1.18.
fn score(body: &[u8]) -> Result<Option<i64>, ApiError> {
    #[derive(Deserialize)]
    struct Body {
        score: Option<i64>,
    }
    if body.is_empty() {
        return Ok(None);
    }
    let body: Result<Body, _> = serde_json::from_slice(body);
    body.map(|body| body.score).map_err(|_| ApiError::new(ErrorKind::BadJson, "Param 'score' must be an integer"))
}

async fn room(app: App, request: Matrix<report_room::Request>) -> Result<report_room::Response, ApiError> {
    app.throttle(Limit::Report, &request.who)?;
    reports::room(&app.commands, &request.who, request.body.room_id, request.body.reason).await?;
    Ok(report_room::Response::new())
}

async fn user(app: App, request: Matrix<report_user::Request>) -> Result<report_user::Response, ApiError> {
    app.throttle(Limit::Report, &request.who)?;
    reports::user(&app.commands, &request.who, request.body.user_id, request.body.reason).await?;
    Ok(report_user::Response::new())
}
