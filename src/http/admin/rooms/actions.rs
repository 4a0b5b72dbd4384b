//! What administrators do to rooms.
//!
//! `GET` and `PUT /_synapse/admin/v1/rooms/{room_id}/block`,
//! `POST /_synapse/admin/v1/rooms/{room_id}/make_room_admin`, `POST /_synapse/admin/v1/join/{room_id_or_alias}`

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use projections::models::{
    accounts, events,
    membership::{self, Membership},
    rooms,
};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use serde::Serialize;
use serde_json::{Value, json};

use super::{resolve, room_id};
use crate::{
    commands::{Sender, membership::Move},
    http::{
        App,
        admin::{
            Admin,
            params::{Body, MaybeBody, unknown},
        },
        extract::Path,
        reply::ApiError,
    },
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/rooms/{room_id}/block", get(blocked).put(block))
        .route("/_synapse/admin/v1/rooms/{room_id}/make_room_admin", post(make_room_admin))
        .route("/_synapse/admin/v1/join/{room_id_or_alias}", post(join))
}

#[derive(Serialize)]
struct Blocked {
    block: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

async fn blocked(State(app): State<App>, _: Admin, Path(room): Path<String>) -> Result<axum::Json<Blocked>, ApiError> {
    let block = rooms::block(&app.view()?, room_id(&room)?.as_str())?;
    Ok(axum::Json(Blocked { block: block.is_some(), user_id: block.map(|block| block.by) }))
}

async fn block(
    State(app): State<App>,
    by: Admin,
    Path(room): Path<String>,
    body: Body,
) -> Result<axum::Json<Blocked>, ApiError> {
    let room = room_id(&room)?;
    let block = body.required_boolean("block")?;
    app.commands.block_room(by.origin(), room, block, body.text("reason")?).await?;
    Ok(axum::Json(Blocked { block, user_id: None }))
}

/// The full id of some user.
fn user_id(text: &str) -> Result<OwnedUserId, ApiError> {
    UserId::parse(text).map_err(|error| ApiError::invalid(format!("{text} is not a user ID: {error}")))
}

/// Gives a user, else the caller, as much power as the most powerful local member has, and lets them in.
async fn make_room_admin(
    State(app): State<App>,
    by: Admin,
    Path(room): Path<String>,
    MaybeBody(body): MaybeBody,
) -> Result<axum::Json<Value>, ApiError> {
    let room = resolve(&app, &room)?;
    let user = match body.text("user_id")? {
        Some(user) => user_id(&user)?,
        None => by.user().ok_or_else(|| unknown("whoever holds the shared secret has to name a user_id"))?,
    };
    app.commands.make_room_admin(by.name(), &room, user).await?;
    Ok(axum::Json(json!({})))
}

#[derive(Serialize)]
struct Joined {
    room_id: OwnedRoomId,
}

/// Lets a local user join; where the room is not public, the caller, who has to be in it, invites them first.
async fn join(
    State(app): State<App>,
    by: Admin,
    Path(room): Path<String>,
    body: Body,
) -> Result<axum::Json<Joined>, ApiError> {
    let user = user_id(&body.required_text("user_id")?)?;
    if user.server_name() != app.config.server_name {
        return Err(unknown("This endpoint can only be used with local users"));
    }
    if accounts::get(&app.view()?, user.as_str())?.is_none() {
        return Err(ApiError::not_found("User not found"));
    }
    let room = resolve(&app, &room)?;
    if !may_enter(&app, &room, &user)? {
        let inviter = by.user().ok_or_else(|| ApiError::forbidden("whoever holds the shared secret can't invite"))?;
        let inviter = Sender::in_stead_of(inviter, by.name());
        app.commands.change_membership(inviter, &room, user.clone(), Move::Invite, None).await?;
    }
    let joins = Sender::in_stead_of(user.clone(), by.name());
    app.commands.change_membership(joins, &room, user, Move::Join, None).await?;
    Ok(axum::Json(Joined { room_id: room }))
}

/// Whether a user needs no invitation any more. A room that is not known says so itself when it is to be joined.
fn may_enter(app: &App, room: &RoomId, user: &UserId) -> Result<bool, ApiError> {
    let view = app.view()?;
    let Some(nid) = events::room_nid(&view, room.as_str())? else { return Ok(true) };
    let member = membership::member(&view, nid, user.as_str())?.map(|member| member.membership);
    let let_in = matches!(member, Some(Membership::Join | Membership::Invite));
    Ok(let_in || rooms::settings(&view, nid)?.join_rule.as_deref() == Some("public"))
}
