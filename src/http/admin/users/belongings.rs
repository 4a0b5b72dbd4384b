//! What is a user's: rooms, pushers and account data; and how much they have done.
//!
//! `GET /_synapse/admin/v1/users/{userId}/joined_rooms`, `GET /_synapse/admin/v1/users/{userId}/memberships`,
//! `GET /_synapse/admin/v1/users/{userId}/pushers`, `GET /_synapse/admin/v1/users/{userId}/accountdata`,
//! `GET /_synapse/admin/v1/users/{userId}/sent_invite_count`,
//! `GET /_synapse/admin/v1/users/{userId}/cumulative_joined_room_count`

use std::collections::BTreeMap;

use axum::{Router, extract::State, routing::get};
use projections::models::{
    account_data, activity, events,
    membership::{self, Membership},
};
use serde_json::{Map, Value, json};

use super::{Admin, existing, local, params::Params, parse};
use crate::http::{App, client::pushers, extract::Path, reply::ApiError};

pub(super) fn routes() -> Router<App> {
    let at = |what: &str| format!("/_synapse/admin/v1/users/{{user_id}}/{what}");
    Router::new()
        .route(&at("joined_rooms"), get(joined_rooms))
        .route(&at("memberships"), get(memberships))
        .route(&at("pushers"), get(pushers))
        .route(&at("accountdata"), get(account_data))
        .route(&at("sent_invite_count"), get(invitations))
        .route(&at("cumulative_joined_room_count"), get(joins))
}

type Reply = Result<axum::Json<Value>, ApiError>;

/// Of other servers' users, those rooms are in it in which somebody of this server is.
async fn joined_rooms(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Reply {
    let (user, view) = (parse(&user)?, app.view()?);
    let mut rooms = Vec::new();
    for row in membership::rooms_of(&view, user.as_str(), Membership::Join) {
        rooms.extend(events::room(&view, row?.0)?.map(|room| room.id));
    }
    Ok(axum::Json(json!({ "total": rooms.len(), "joined_rooms": rooms })))
}

async fn memberships(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Reply {
    let (user, view) = (parse(&user)?, app.view()?);
    let mut memberships = BTreeMap::new();
    for row in membership::all_rooms_of(&view, user.as_str()) {
        let (room, member) = row?;
        memberships.extend(events::room(&view, room)?.map(|room| (room.id, member.membership.name())));
    }
    Ok(axum::Json(json!({ "memberships": memberships })))
}

const ELSEWHERE: &str = "Can only look up local users";

async fn pushers(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Reply {
    let (user, view) = (local(&app, &user, ELSEWHERE)?, app.view()?);
    existing(&view, &user)?;
    let pushers = pushers::of_user(&view, &user)?;
    Ok(axum::Json(json!({ "total": pushers.len(), "pushers": pushers })))
}

async fn account_data(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Reply {
    let (user, view) = (local(&app, &user, ELSEWHERE)?, app.view()?);
    existing(&view, &user)?;
    let (mut global, mut rooms) = (Map::new(), BTreeMap::<String, Map<String, Value>>::new());
    for row in account_data::everything(&view, user.as_str()) {
        let found = row?;
        let content = found.content.read().map_err(|error| ApiError::internal(&error))?;
        let place = match found.room {
            Some(room) => rooms.entry(room).or_default(),
            None => &mut global,
        };
        place.insert(found.event_type, content);
    }
    Ok(axum::Json(json!({ "account_data": { "global": global, "rooms": rooms } })))
}

async fn invitations(State(app): State<App>, _: Admin, Path(user): Path<String>, query: Params) -> Reply {
    let (user, since) = (parse(&user)?, query.required_integer("from_ts")?);
    Ok(axum::Json(json!({ "invite_count": activity::invitations(&app.view()?, user.as_str(), since)? })))
}

async fn joins(State(app): State<App>, _: Admin, Path(user): Path<String>, query: Params) -> Reply {
    let (user, since) = (parse(&user)?, query.required_integer("from_ts")?);
    let count = activity::joined_rooms(&app.view()?, user.as_str(), since)?;
    Ok(axum::Json(json!({ "cumulative_joined_room_count": count })))
}
