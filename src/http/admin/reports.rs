//! What users have reported: events, users and rooms.
//!
//! `GET /_synapse/admin/v1/event_reports`, `GET` and `DELETE /_synapse/admin/v1/event_reports/{report_id}`,
//! `GET /_synapse/admin/v1/user_reports`, `GET` and `DELETE /_synapse/admin/v1/user_reports/{report_id}`,
//! `GET /_everfold/admin/v1/room_reports`, `GET` and `DELETE /_everfold/admin/v1/room_reports/{report_id}`

use axum::{Router, extract::State, routing::get};
use projections::{
    View,
    models::{
        events,
        reports::{self, About, Filter, Match, Report},
        rooms,
    },
};
use ruma::{RoomId, UserId, api::Direction};
use schemas::facts::ReportKind;
use serde_json::{Value, json};

use super::{Admin, params::Params};
use crate::{
    commands::reports as commands,
    http::{App, extract::Path, reply::ApiError},
};

/// Reports in a page if nobody says how many.
const PAGE: usize = 100;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/event_reports", get(list_events))
        .route("/_synapse/admin/v1/event_reports/{report_id}", get(show_event).delete(remove_event))
        .route("/_synapse/admin/v1/user_reports", get(list_users))
        .route("/_synapse/admin/v1/user_reports/{report_id}", get(show_user).delete(remove_user))
        .route("/_everfold/admin/v1/room_reports", get(list_rooms))
        .route("/_everfold/admin/v1/room_reports/{report_id}", get(show_room).delete(remove_room))
}

type Answer = Result<axum::Json<Value>, ApiError>;

async fn list_events(State(app): State<App>, _: Admin, params: Params) -> Answer {
    let user = params.text("event_sender_user_id").filter(|user| !user.is_empty());
    let user = user.map(|user| Match::Is(user.to_owned()));
    let filter = Filter { by: user_like(&params, "user_id"), room: room_like(&params), user };
    list(&app, &params, ReportKind::Event, &filter, "event_reports")
}

async fn list_users(State(app): State<App>, _: Admin, params: Params) -> Answer {
    let (by, user) = (user_like(&params, "user_id"), user_like(&params, "target_user_id"));
    list(&app, &params, ReportKind::User, &Filter { by, room: None, user }, "user_reports")
}

async fn list_rooms(State(app): State<App>, _: Admin, params: Params) -> Answer {
    let filter = Filter { by: user_like(&params, "user_id"), room: room_like(&params), user: None };
    list(&app, &params, ReportKind::Room, &filter, "room_reports")
}

/// A whole id is looked up; of anything else it is asked which ids have it in them.
fn user_like(params: &Params, name: &str) -> Option<Match> {
    let text = params.text(name).filter(|text| !text.is_empty())?.to_owned();
    Some(if UserId::parse(&text).is_ok() { Match::Is(text) } else { Match::Has(text) })
}

fn room_like(params: &Params) -> Option<Match> {
    let text = params.text("room_id").filter(|text| !text.is_empty())?.to_owned();
    Some(if RoomId::parse(&text).is_ok() { Match::Is(text) } else { Match::Has(text) })
}

fn list(app: &App, params: &Params, kind: ReportKind, filter: &Filter, name: &str) -> Answer {
    let (from, limit) = (params.count("from")?.unwrap_or(0), params.count("limit")?.unwrap_or(PAGE));
    let directions = [("f", Direction::Forward), ("b", Direction::Backward)];
    let newest_first = params.one_of("dir", &directions)? != Some(Direction::Forward);
    let view = app.view()?;
    let page = reports::page(&view, kind, filter, newest_first, (from, limit))?;
    let next = from.saturating_add(page.reports.len());
    let shown = page.reports.iter().map(|(number, report)| shown(&view, *number, report));
    let mut list = json!({ name: shown.collect::<Result<Vec<_>, _>>()?, "total": page.total });
    if from.saturating_add(limit) < usize::try_from(page.total).unwrap_or(usize::MAX) {
        list["next_token"] = next.into();
    }
    Ok(axum::Json(list))
}

fn shown(view: &View, number: u64, report: &Report) -> Result<Value, ApiError> {
    let mut shown = json!({
        "id": number, "received_ts": report.at_ms, "user_id": report.by, "reason": report.reason,
    });
    match &report.about {
        About::Event { event, sender, score, .. } => {
            (shown["event_id"], shown["sender"]) = (event.as_str().into(), sender.as_str().into());
            shown["score"] = (*score).into();
        }
        About::User { user } => shown["target_user_id"] = user.as_str().into(),
        About::Room { .. } => {}
    }
    // As it is called now, if it is there still.
    if let Some(room) = report.room() {
        let nid = events::room_nid(view, room)?;
        let settings = nid.map(|nid| rooms::settings(view, nid)).transpose()?.unwrap_or_default();
        (shown["room_id"], shown["name"]) = (room.into(), settings.name.into());
        shown["canonical_alias"] = settings.canonical_alias.into();
    }
    Ok(shown)
}

async fn show_event(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Answer {
    show(&app, ReportKind::Event, &id)
}

async fn show_user(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Answer {
    show(&app, ReportKind::User, &id)
}

async fn show_room(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Answer {
    show(&app, ReportKind::Room, &id)
}

fn show(app: &App, kind: ReportKind, id: &str) -> Answer {
    let (view, number) = (app.view()?, number(id)?);
    let report = reports::get(&view, kind, number)?.ok_or_else(|| none(kind))?;
    let mut shown = shown(&view, number, &report)?;
    if let About::Event { event, .. } = &report.about {
        shown["event_json"] = event_json(&view, event)?;
    }
    Ok(axum::Json(shown))
}

/// The event as servers send it to each other, without what a redaction took from it; null where it is not there any more.
fn event_json(view: &View, event: &str) -> Result<Value, ApiError> {
    let bytes = events::nid(view, event)?.map(|event| events::bytes(view, event)).transpose()?.flatten();
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    let text = bytes.halves().join().map_err(|error| ApiError::internal(&error))?;
    serde_json::from_str(&text).map_err(|error| ApiError::internal(&error))
}

async fn remove_event(State(app): State<App>, by: Admin, Path(id): Path<String>) -> Answer {
    remove(&app, by, ReportKind::Event, &id).await
}

async fn remove_user(State(app): State<App>, by: Admin, Path(id): Path<String>) -> Answer {
    remove(&app, by, ReportKind::User, &id).await
}

async fn remove_room(State(app): State<App>, by: Admin, Path(id): Path<String>) -> Answer {
    remove(&app, by, ReportKind::Room, &id).await
}

async fn remove(app: &App, by: Admin, kind: ReportKind, id: &str) -> Answer {
    if commands::remove(&app.commands, by.origin(), kind, number(id)?).await? {
        Ok(axum::Json(json!({})))
    } else {
        Err(none(kind))
    }
}

fn number(id: &str) -> Result<u64, ApiError> {
    let wrong = || ApiError::invalid("The report_id parameter must be a string representing a positive integer.");
    let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    // No report has a number that is too large to be read.
    if is_number { Ok(id.parse().unwrap_or(u64::MAX)) } else { Err(wrong()) }
}

fn none(kind: ReportKind) -> ApiError {
    let what = match kind {
        ReportKind::Event => "Event",
        ReportKind::Room => "Room",
        ReportKind::User => "User",
    };
    ApiError::not_found(format!("{what} report not found"))
}
