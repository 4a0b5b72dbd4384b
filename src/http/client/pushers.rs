//! Client-server API, "Push Notifications": who wants to be notified through which gateway.
//!
//! `GET /_matrix/client/v3/pushers`, `POST /_matrix/client/v3/pushers/set`

use axum::Router;
use projections::{View, models::pushers};
use ruma::{
    UserId,
    api::client::push::{
        Pusher,
        get_pushers::v3 as get_pushers,
        set_pusher::v3::{self as set_pusher, PusherAction},
    },
};

use crate::{
    commands::pushers as commands,
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(list).matrix(set)
}

/// A user's pushers, as their clients said.
///
/// # Errors
/// When the store fails.
pub fn of_user(view: &View, user: &UserId) -> Result<Vec<Pusher>, ApiError> {
    let mut found = Vec::new();
    for row in pushers::of_user(view, user.as_str()) {
        let (_, pusher) = row?;
        let json = pusher.pusher.open().map(serde_json::from_slice).transpose();
        found.extend(json.map_err(|error| ApiError::internal(&error))?);
    }
    Ok(found)
}

async fn list(app: App, req: Matrix<get_pushers::Request>) -> Result<get_pushers::Response, ApiError> {
    Ok(get_pushers::Response::new(of_user(&app.view()?, &req.who.user)?))
}

async fn set(app: App, req: Matrix<set_pusher::Request>) -> Result<set_pusher::Response, ApiError> {
    match req.body.action {
        PusherAction::Post(post) => {
            let json = serde_json::to_vec(&post.pusher).map_err(|error| ApiError::internal(&error))?;
            commands::set(&app.commands, &req.who, &post.pusher.ids, json, post.append).await?;
        }
        PusherAction::Delete(ids) => commands::remove(&app.commands, &req.who, &ids).await?,
        _ => return Err(ApiError::invalid("kind is null, \"http\" or another sort of pusher")),
    }
    Ok(set_pusher::Response::new())
}
