//! Client-server API, "Creation" of rooms and "Room summaries".
//!
//! `POST /_matrix/client/v3/createRoom`, `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`

use axum::Router;
use projections::{
    View,
    models::{
        events,
        membership::{self, Membership},
        rooms::{self, Summary},
        state,
    },
};
use ruma::{
    OwnedMxcUri, OwnedRoomId, UInt, UserId,
    api::client::room::{create_room::v3 as create_room, get_summary::v1 as get_summary},
    room::{JoinRuleSummary, RestrictedSummary, RoomSummary},
};
use schemas::Nid;

use super::membership::resolve;
use crate::{
    http::{
        App,
        extract::{Matrix, Routes},
        limit::Limit,
        reply::ApiError,
    },
    rooms::join_rules,
};

pub fn routes() -> Router<App> {
    Router::new().matrix(create).matrix(summary)
}

async fn create(app: App, mut request: Matrix<create_room::Request>) -> Result<create_room::Response, ApiError> {
    app.throttle(Limit::Join, &request.who)?;
    let version = app.config.rooms.default_version.clone();
    if request.who.shadow_banned {
        request.body.invite.clear();
    }
    let room = app.commands.create_room(request.who.sender, request.body, version).await?;
    Ok(create_room::Response::new(room))
}

async fn summary(app: App, request: Matrix<get_summary::Request>) -> Result<get_summary::Response, ApiError> {
    let (view, who) = (app.view()?, request.who.if_valid());
    let none = || ApiError::not_found("there is no such room, or you may not see it");
    let id = resolve(&app, &request.body.room_id_or_alias)?;
    let nid = events::room_nid(&view, id.as_str())?.ok_or_else(none)?;
    let found = rooms::summary(&view, nid)?.ok_or_else(none)?;
    let user = who.as_ref().map(|who| &*who.user);
    let member = user.map(|user| membership::member(&view, nid, user.as_str())).transpose()?.flatten();
    let membership = member.map(|member| member.membership);
    let allowing = allowing_rooms(&view, nid)?;
    let concerned = matches!(membership, Some(Membership::Join | Membership::Invite | Membership::Knock));
    if !concerned && !is_open(&found) && !is_in_one_of(&view, user, &allowing)? {
        return Err(none());
    }
    let mut reply = get_summary::Response::new(summarise(id, found, allowing));
    reply.membership = membership.map(|membership| membership.name().into());
    Ok(reply)
}

/// Anybody may know of the room: they can read it, join it or ask to be let in.
fn is_open(room: &Summary) -> bool {
    let rule = room.settings.join_rule.as_deref();
    let readable = room.settings.history_visibility.as_deref() == Some("world_readable");
    readable || matches!(rule, Some("public" | "knock" | "knock_restricted"))
}

fn allowing_rooms(view: &View, room: Nid) -> Result<Vec<OwnedRoomId>, ApiError> {
    let current = state::current(view, room)?;
    let Some(event) = state::get(view, &current, "m.room.join_rules", "")? else { return Ok(Vec::new()) };
    let rules = events::pdu(view, event)?;
    Ok(join_rules::allowing_rooms(|_: &_, _: &str| rules.clone()).into_iter().collect())
}

fn is_in_one_of(view: &View, user: Option<&UserId>, rooms: &[OwnedRoomId]) -> Result<bool, ApiError> {
    let Some(user) = user else { return Ok(false) };
    for room in rooms {
        let Some(room) = events::room_nid(view, room.as_str())? else { continue };
        let member = membership::member(view, room, user.as_str())?;
        if member.is_some_and(|member| member.membership == Membership::Join) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the specification's `RoomSummary` says of a room.
pub(in crate::http) fn summarise(id: OwnedRoomId, room: Summary, allowing: Vec<OwnedRoomId>) -> RoomSummary {
    let settings = room.settings;
    let join_rule = match settings.join_rule.as_deref() {
        Some("public") => JoinRuleSummary::Public,
        Some("knock") => JoinRuleSummary::Knock,
        Some("private") => JoinRuleSummary::Private,
        Some("restricted") => JoinRuleSummary::Restricted(RestrictedSummary::new(allowing)),
        Some("knock_restricted") => JoinRuleSummary::KnockRestricted(RestrictedSummary::new(allowing)),
        _ => JoinRuleSummary::Invite,
    };
    let guests = settings.guest_access.as_deref() == Some("can_join");
    let readable = settings.history_visibility.as_deref() == Some("world_readable");
    let joined = UInt::new_saturating(room.figures.joined);
    let mut summary = RoomSummary::new(id, join_rule, guests, joined, readable);
    summary.canonical_alias = settings.canonical_alias.and_then(|alias| alias.try_into().ok());
    summary.name = settings.name;
    summary.topic = settings.topic;
    summary.avatar_url = settings.avatar.map(OwnedMxcUri::from);
    summary.room_type = settings.room_type.map(Into::into);
    summary.encryption = settings.encryption.map(Into::into);
    summary.room_version = settings.version.and_then(|version| version.try_into().ok());
    summary
}
