//! Client-server API, "Room membership".
//!
//! `POST /_matrix/client/v3/join/{roomIdOrAlias}`, `POST /_matrix/client/v3/knock/{roomIdOrAlias}`,
//! `POST /_matrix/client/v3/rooms/{roomId}/join`, `POST /_matrix/client/v3/rooms/{roomId}/invite`,
//! `POST /_matrix/client/v3/rooms/{roomId}/leave`, `POST /_matrix/client/v3/rooms/{roomId}/forget`,
//! `POST /_matrix/client/v3/rooms/{roomId}/kick`, `POST /_matrix/client/v3/rooms/{roomId}/ban`,
//! `POST /_matrix/client/v3/rooms/{roomId}/unban`, `GET /_matrix/client/v3/joined_rooms`

use axum::Router;
use projections::models::{
    directory, events,
    membership::{self, Membership},
};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomOrAliasId,
    api::{
        client::{
            knock::knock_room::v3 as knock_room,
            membership::{
                ban_user::v3 as ban_user,
                forget_room::v3 as forget_room,
                invite_user::v3::{self as invite_user, InvitationRecipient},
                join_room_by_id::v3 as join_room_by_id,
                join_room_by_id_or_alias::v3 as join_room,
                joined_rooms::v3 as joined_rooms,
                kick_user::v3 as kick_user,
                leave_room::v3 as leave_room,
                unban_user::v3 as unban_user,
            },
        },
        error::ErrorKind,
    },
};

use crate::{
    commands::{Sender, membership::Move},
    http::{
        App,
        auth::Session,
        extract::{Matrix, Routes},
        limit::Limit,
        reply::ApiError,
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .matrix(join_by_id)
        .matrix(join)
        .matrix(knock)
        .matrix(invite)
        .matrix(leave)
        .matrix(kick)
        .matrix(ban)
        .matrix(unban)
        .matrix(forget)
        .matrix(joined)
}

async fn join_by_id(app: App, req: Matrix<join_room_by_id::Request>) -> Result<join_room_by_id::Response, ApiError> {
    enter(&app, &req.who, &req.body.room_id, Move::Join, req.body.reason).await?;
    Ok(join_room_by_id::Response::new(req.body.room_id))
}

async fn join(app: App, req: Matrix<join_room::Request>) -> Result<join_room::Response, ApiError> {
    let room = resolve(&app, &req.body.room_id_or_alias)?;
    enter(&app, &req.who, &room, Move::Join, req.body.reason).await?;
    Ok(join_room::Response::new(room))
}

async fn knock(app: App, req: Matrix<knock_room::Request>) -> Result<knock_room::Response, ApiError> {
    let room = resolve(&app, &req.body.room_id_or_alias)?;
    enter(&app, &req.who, &room, Move::Knock, req.body.reason).await?;
    Ok(knock_room::Response::new(room))
}

async fn enter(app: &App, who: &Session, room: &RoomId, change: Move, reason: Option<String>) -> Result<(), ApiError> {
    app.throttle(Limit::Join, who)?;
    change_of(app, &who.sender, room, who.user.clone(), change, reason).await
}

async fn invite(app: App, req: Matrix<invite_user::Request>) -> Result<invite_user::Response, ApiError> {
    let InvitationRecipient::UserId(invited) = req.body.recipient else {
        let message = "this server does not use identity servers, so it can't invite by third-party id";
        return Err(ApiError::new(ErrorKind::ThreepidDenied, message));
    };
    app.throttle(Limit::Message, &req.who)?;
    if req.who.shadow_banned {
        return Ok(invite_user::Response::new());
    }
    let (user, reason) = (invited.user_id, invited.reason);
    change_of(&app, &req.who, &req.body.room_id, user, Move::Invite, reason).await?;
    Ok(invite_user::Response::new())
}

async fn leave(app: App, req: Matrix<leave_room::Request>) -> Result<leave_room::Response, ApiError> {
    let user = req.who.user.clone();
    change_of(&app, &req.who, &req.body.room_id, user, Move::Leave, req.body.reason).await?;
    Ok(leave_room::Response::new())
}

async fn kick(app: App, req: Matrix<kick_user::Request>) -> Result<kick_user::Response, ApiError> {
    change_of(&app, &req.who, &req.body.room_id, req.body.user_id, Move::Kick, req.body.reason).await?;
    Ok(kick_user::Response::new())
}

async fn ban(app: App, req: Matrix<ban_user::Request>) -> Result<ban_user::Response, ApiError> {
    change_of(&app, &req.who, &req.body.room_id, req.body.user_id, Move::Ban, req.body.reason).await?;
    Ok(ban_user::Response::new())
}

async fn unban(app: App, req: Matrix<unban_user::Request>) -> Result<unban_user::Response, ApiError> {
    change_of(&app, &req.who, &req.body.room_id, req.body.user_id, Move::Unban, req.body.reason).await?;
    Ok(unban_user::Response::new())
}

async fn change_of(
    app: &App,
    sender: &Sender,
    room: &RoomId,
    target: OwnedUserId,
    change: Move,
    reason: Option<String>,
) -> Result<(), ApiError> {
    Ok(app.commands.change_membership(sender.clone(), room, target, change, reason).await?)
}

async fn forget(app: App, req: Matrix<forget_room::Request>) -> Result<forget_room::Response, ApiError> {
    app.commands.forget(req.who.sender, req.body.room_id).await?;
    Ok(forget_room::Response::new())
}

async fn joined(app: App, req: Matrix<joined_rooms::Request>) -> Result<joined_rooms::Response, ApiError> {
    let view = app.view()?;
    let mut rooms = Vec::new();
    for room in membership::rooms_of(&view, req.who.user.as_str(), Membership::Join) {
        let room = events::room(&view, room?.0)?;
        rooms.extend(room.and_then(|room| OwnedRoomId::try_from(room.id).ok()));
    }
    Ok(joined_rooms::Response::new(rooms))
}

/// The room of an id or an alias.
pub(super) fn resolve(app: &App, room: &RoomOrAliasId) -> Result<OwnedRoomId, ApiError> {
    if let Ok(room) = <&RoomId>::try_from(room) {
        return Ok(room.to_owned());
    }
    let target = directory::alias(&app.view()?, room.as_str())?;
    let target = target.and_then(|alias| OwnedRoomId::try_from(alias.room).ok());
    target.ok_or_else(|| ApiError::not_found(format!("there is no alias {room}")))
}
