//! What became of a room, and what it was at any time.
//!
//! `GET /_everfold/admin/v1/rooms/{room_id}/history`, `GET /_everfold/admin/v1/rooms/{room_id}/state`,
//! `GET /_everfold/admin/v1/rooms/{room_id}/members`

use std::collections::BTreeSet;

use axum::{Json, Router, extract::State, routing::get};
use projections::{
    View,
    models::{
        audit::{self, Wanted},
        events,
        membership::Membership,
        state,
    },
};
use ruma::{RoomId, api::Direction, events::AnyStateEvent, serde::Raw};
use schemas::{Lsn, Nid};
use serde::Serialize;

use super::{Shown, limit, moment};
use crate::{
    http::{
        App,
        admin::{
            Admin,
            params::Params,
            rooms::{Members, WholeState, known, shown},
        },
        extract::Path,
        reply::ApiError,
    },
    reading::Reading,
};

/// Of what one record changed in a room's state, so much is shown.
const MAX_CHANGES: usize = 1_000;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_everfold/admin/v1/rooms/{room_id}/history", get(history))
        .route("/_everfold/admin/v1/rooms/{room_id}/state", get(state_at))
        .route("/_everfold/admin/v1/rooms/{room_id}/members", get(members_at))
}

/// A record by which a room's state changed, or by which an administrator did something to the room.
#[derive(Serialize)]
struct Step {
    #[serde(flatten)]
    shown: Shown,
    /// How the state changed.
    state: Vec<Change>,
    /// It changed more than is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    limited: bool,
}

/// A place in a room's state, and what became of it.
#[derive(Serialize)]
struct Change {
    #[serde(rename = "type")]
    kind: String,
    state_key: String,
    /// None where nothing is there any more.
    event: Option<Raw<AnyStateEvent>>,
    /// The id of the event that was there before.
    replaces: Option<String>,
}

#[derive(Serialize)]
struct History {
    history: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<Lsn>,
}

async fn history(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<History>, ApiError> {
    let (limit, falling) = (limit(&params)?, params.direction()? == Direction::Backward);
    let from = params.integer("from")?.map(Lsn);
    let view = app.view()?;
    let from = from.unwrap_or(if falling { view.lsn() } else { Lsn::ZERO }).min(view.lsn().next());
    let room = events::room_nid(&view, &id)?;
    let (lsns, next) = steps(&view, room, &id, (from, falling), limit)?;
    if room.is_none() && lsns.is_empty() {
        // What an administrator did to a room that is not known has its history, too.
        known(&view, &id)?;
    }
    let mut history = Vec::with_capacity(lsns.len());
    for lsn in lsns {
        history.extend(step(&app, &view, room, &id, lsn)?);
    }
    Ok(Json(History { history, next_token: next }))
}

/// The records of a page of a room's history, and where the next page begins.
fn steps(
    view: &View,
    room: Option<Nid>,
    id: &str,
    (from, falling): (Lsn, bool),
    limit: usize,
) -> Result<(Vec<Lsn>, Option<Lsn>), ApiError> {
    let mut found = BTreeSet::new();
    if let Some(room) = room {
        for lsn in state::changed_by(view, room, from, falling).take(limit + 1) {
            found.insert(lsn?);
        }
    }
    let wanted = Wanted { room: Some(id.to_owned()), by_administrators: true, falling, ..Wanted::default() };
    let wanted = if falling { Wanted { until: from, ..wanted } } else { Wanted { from, ..wanted } };
    let page = audit::page(view, &wanted, limit + 1)?;
    found.extend(page.entries.into_iter().map(|(lsn, _)| lsn));
    if let Some(next) = page.next {
        // Beyond that, what administrators did is not known yet.
        found.retain(|lsn| if falling { *lsn > next } else { *lsn < next });
    }
    let mut found: Vec<Lsn> = found.into_iter().collect();
    if falling {
        found.reverse();
    }
    let next = found.get(limit).copied().or(page.next);
    found.truncate(limit);
    Ok((found, next))
}

fn step(app: &App, view: &View, room: Option<Nid>, id: &str, lsn: Lsn) -> Result<Option<Step>, ApiError> {
    let Some(entry) = audit::entry(view, lsn)? else { return Ok(None) };
    let shown = Shown::new(view, lsn, entry)?;
    let (Some(nid), Ok(room)) = (room, <&RoomId>::try_from(id)) else {
        return Ok(Some(Step { shown, state: Vec::new(), limited: false }));
    };
    let reading = Reading::of_everything(view, app.clock.now_ms()).in_room(room);
    let before = state::as_of(view, nid, Lsn(lsn.0.saturating_sub(1)))?;
    let after = state::as_of(view, nid, lsn)?;
    let mut changes = Vec::new();
    for difference in state::diff(view, &before, &after).take(MAX_CHANGES + 1) {
        let difference = difference?;
        let replaced = difference.before.map(|event| events::head(view, event)).transpose()?.flatten();
        changes.push(Change {
            kind: difference.event_type,
            state_key: difference.state_key,
            event: difference.after.map(|event| reading.state_event(event)).transpose()?.flatten(),
            replaces: replaced.map(|head| head.id),
        });
    }
    let limited = changes.len() > MAX_CHANGES;
    changes.truncate(MAX_CHANGES);
    Ok(Some(Step { shown, state: changes, limited }))
}

/// The record as of which something is shown.
#[derive(Serialize)]
struct AsOf<T> {
    lsn: Lsn,
    #[serde(flatten)]
    then: T,
}

/// A view, a room, and the record that `at` names; the last one, if it doesn't.
fn as_of(app: &App, id: &str, params: &Params) -> Result<(View, Nid, Lsn), ApiError> {
    let at = moment(params, "at")?;
    let view = app.view()?;
    let room = known(&view, id)?;
    let tail = view.lsn();
    let lsn = at.map(|at| at.until(tail, |ms| audit::at_time(&view, tail, ms))).transpose()?.unwrap_or(tail);
    if lsn > tail {
        return Err(ApiError::invalid(format!("the server has not come to record {lsn}; its last is {tail}")));
    }
    Ok((view, room, lsn))
}

async fn state_at(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<AsOf<WholeState>>, ApiError> {
    let (view, room, lsn) = as_of(&app, &id, &params)?;
    let then = shown(&app, &view, &id, &state::as_of(&view, room, lsn)?, params.text("type"))?;
    Ok(Json(AsOf { lsn, then }))
}

async fn members_at(
    State(app): State<App>,
    _: Admin,
    Path(id): Path<String>,
    params: Params,
) -> Result<Json<AsOf<Members>>, ApiError> {
    let ways = [Membership::Join, Membership::Invite, Membership::Knock, Membership::Leave, Membership::Ban];
    let ways = ways.map(|way| (way.name(), way));
    let wanted = params.one_of("membership", &ways)?.unwrap_or(Membership::Join);
    let (view, room, lsn) = as_of(&app, &id, &params)?;
    let mut members = Vec::new();
    for entry in state::of_type(&view, &state::as_of(&view, room, lsn)?, "m.room.member") {
        let entry = entry?;
        if events::head(&view, entry.event)?.and_then(|head| head.membership) == Some(wanted) {
            members.push(entry.state_key);
        }
    }
    Ok(Json(AsOf { lsn, then: members.into() }))
}
