//! Client-server API, "Getting events for a room": its state and its members.
//!
//! `GET /_matrix/client/v3/rooms/{roomId}/state`, `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`,
//! `GET /_matrix/client/v3/rooms/{roomId}/members`, `GET /_matrix/client/v3/rooms/{roomId}/joined_members`

use std::collections::BTreeMap;

use axum::Router;
use projections::{
    Position, View,
    models::{
        events,
        membership::{self, Membership},
        state::{self, State},
        timeline,
    },
};
use ruma::{
    OwnedUserId,
    api::client::{
        membership::{
            get_member_events::v3 as get_members,
            joined_members::v3::{self as joined_members, RoomMember},
        },
        state::{
            get_state_event_for_key::v3::{self as get_state_event, StateEventFormat},
            get_state_events::v3 as get_state,
        },
    },
};
use schemas::Lsn;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::events_read::{point, reading, view_before};
use crate::{
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
    reading::Access,
};

pub fn routes() -> Router<App> {
    // An empty state key may be left out, with the slash before it or without.
    ["r0", "v3"]
        .iter()
        .flat_map(|version| {
            ["", "/"].map(|end| format!("/_matrix/client/{version}/rooms/{{room_id}}/state/{{event_type}}{end}"))
        })
        .fold(Router::new().matrix(all).matrix(one).matrix(members).matrix(joined), |router, path| {
            router.matrix_at(&path, one)
        })
}

async fn all(app: App, request: Matrix<get_state::Request>) -> Result<get_state::Response, ApiError> {
    let view = app.view()?;
    let reading = reading(&app, &view, &request.who, &request.body.room_id)?;
    let state = reading.access(&request.body.room_id)?.state(&view)?;
    let mut events = Vec::with_capacity(state.len() as usize);
    for entry in state::all(&view, &state) {
        events.extend(reading.state_event(entry?.event)?);
    }
    Ok(get_state::Response::new(events))
}

async fn one(app: App, request: Matrix<get_state_event::Request>) -> Result<get_state_event::Response, ApiError> {
    #[derive(Deserialize)]
    struct Event {
        content: Box<RawValue>,
    }
    let view = app.view()?;
    let reading = reading(&app, &view, &request.who, &request.body.room_id)?;
    let state = reading.access(&request.body.room_id)?.state(&view)?;
    let (kind, state_key) = (&request.received.args[1], &request.body.state_key);
    let event = state::get(&view, &state, kind, state_key)?;
    let event = event.map(|event| reading.state_event::<()>(event)).transpose()?.flatten();
    let event = event.ok_or_else(|| ApiError::not_found(format!("the room has no {kind} with this state key")))?;
    if request.body.format == StateEventFormat::Event {
        return Ok(get_state_event::Response::new(event.into_json()));
    }
    let event: Event = serde_json::from_str(event.json().get()).map_err(|error| ApiError::internal(&error))?;
    Ok(get_state_event::Response::new(event.content))
}

async fn members(app: App, request: Matrix<get_members::Request>) -> Result<get_members::Response, ApiError> {
    let get_members::Request { room_id, at, membership, not_membership, .. } = &request.body;
    let at = at.as_deref().map(point).transpose()?;
    let view = view_before(&app, [at, None]).await?;
    let reading = reading(&app, &view, &request.who, room_id)?;
    let access = reading.access(room_id)?;
    let state = match at {
        Some(at) => state_at(&view, &access, at)?,
        None => access.state(&view)?,
    };
    let mut chunk = Vec::new();
    for entry in state::of_type(&view, &state, "m.room.member") {
        let event = entry?.event;
        let Some(head) = events::head(&view, event)? else { continue };
        let name = head.membership.map_or("leave", Membership::name);
        let wanted = match (membership, not_membership) {
            (None, None) => true,
            (is, is_not) => {
                is.as_ref().is_some_and(|is| is.as_str() == name)
                    || is_not.as_ref().is_some_and(|is_not| is_not.as_str() != name)
            }
        };
        if let Some(text) = events::client(&view, event)?.filter(|_| wanted) {
            chunk.push(reading.finish_state(&head, text)?);
        }
    }
    Ok(get_members::Response::new(chunk))
}

/// The state at a point, or at the user's leaving if that was earlier.
fn state_at(view: &View, access: &Access, at: Position) -> Result<State, ApiError> {
    let item = timeline::item_at(view, access.room, at.min(access.end()))?;
    if let Some(state) = item.map(|item| state::before(view, item.event)).transpose()?.flatten() {
        return Ok(state);
    }
    Ok(access.state_as_of(view, Lsn(at.lsn().0.saturating_sub(1)))?)
}

async fn joined(app: App, request: Matrix<joined_members::Request>) -> Result<joined_members::Response, ApiError> {
    #[derive(Deserialize)]
    struct Event {
        content: Content,
    }
    #[derive(Default, Deserialize)]
    struct Content {
        displayname: Option<String>,
        avatar_url: Option<String>,
    }
    let view = app.view()?;
    let reading = reading(&app, &view, &request.who, &request.body.room_id)?;
    let room = reading.joined(&request.body.room_id)?.room;
    let mut members = BTreeMap::new();
    for user in membership::users_in(&view, room, Membership::Join) {
        let Ok(user) = OwnedUserId::try_from(user?) else { continue };
        let Some(member) = membership::member(&view, room, user.as_str())? else { continue };
        let text = events::client(&view, member.event)?.unwrap_or_default();
        // A profile that is malformed is none.
        let content = serde_json::from_str::<Event>(&text).map(|event| event.content).unwrap_or_default();
        let mut profile = RoomMember::new();
        profile.display_name = content.displayname;
        profile.avatar_url = content.avatar_url.map(Into::into);
        members.insert(user, profile);
    }
    Ok(joined_members::Response::new(members))
}
