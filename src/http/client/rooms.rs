//! Client-server API, "Room Creation".
//!
//! `POST /_matrix/client/v3/createRoom`

use axum::Router;
use ruma::api::client::room::create_room::v3 as create_room;

use crate::http::{
    App,
    extract::{Matrix, Routes},
    limit::Limit,
    reply::ApiError,
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(create)
}

async fn create(app: App, req: Matrix<create_room::Request>) -> Result<create_room::Response, ApiError> {
    app.throttle(Limit::Join, &req.who)?;
    let version = app.config.rooms.default_version.clone();
    let room = app.commands.create_room(req.who.sender, req.body, version).await?;
    Ok(create_room::Response::new(room))
}
