//! Who did what to whom, when and why.
//!
//! `GET /_everfold/admin/v1/audit`

mod rooms;

use std::sync::LazyLock;

use axum::{Json, Router, extract::State, routing::get};
use projections::{
    View,
    models::{
        audit::{self, Entry, Wanted},
        events,
    },
};
use ruma::api::Direction;
use schemas::{Fact, Lsn, Origin, admission::Void};
use serde::{Deserialize, Serialize};

use super::{Admin, params::Params};
use crate::{
    http::{App, reply::ApiError},
    log::Moment,
};

/// So many records are on a page that doesn't say how many …
const PAGE: usize = 100;
/// … and on any page at most.
const MAX_PAGE: usize = 1_000;
/// Of the events that a record brought, so many are shown.
const MAX_EVENTS: usize = 20;

pub fn routes() -> Router<App> {
    Router::new().route("/_everfold/admin/v1/audit", get(list)).merge(rooms::routes())
}

/// The facts by their names in dumps of the log, which are those of actions here, with their numbers.
static ACTIONS: LazyLock<Vec<(String, u16)>> =
    LazyLock::new(|| Fact::ALL.iter().map(|(number, .., name)| (action(name), *number)).collect());

/// `RoomBlocked` as `room_blocked`.
fn action(name: &str) -> String {
    let mut action = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !action.is_empty() {
            action.push('_');
        }
        action.push(letter.to_ascii_lowercase());
    }
    action
}

/// A record as the trail shows it.
#[derive(Serialize)]
struct Shown {
    lsn: Lsn,
    /// Milliseconds since the Unix epoch.
    log_time: u64,
    /// The record's id.
    record: String,
    #[serde(flatten)]
    by: By,
    actions: Vec<&'static str>,
    /// Users, rooms, aliases, registration tokens and events, besides the actor.
    targets: Vec<String>,
    reason: Option<String>,
    /// Why it had no effect; null if it had.
    void: Option<&'static str>,
    /// The first of the events that it brought.
    events: Vec<Brought>,
}

/// Who caused a record.
#[derive(Serialize)]
struct By {
    /// A user, a server, an application service, or nobody but this server itself.
    actor: Option<String>,
    actor_type: &'static str,
    /// The user's device, if they acted by one.
    device: Option<String>,
}

#[derive(Serialize)]
struct Brought {
    event_id: String,
    room_id: Option<String>,
    sender: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<String>,
}

impl From<Origin> for By {
    fn from(origin: Origin) -> Self {
        let by = |actor, actor_type| Self { actor, actor_type, device: None };
        match origin {
            Origin::User { user, device } => Self { device, ..by(Some(user), "user") },
            Origin::Admin { user } => by(Some(user), "admin"),
            Origin::Remote { server } => by(Some(server), "server"),
            Origin::AppService { id } => by(Some(id), "application_service"),
            Origin::Server => by(None, "this_server"),
        }
    }
}

impl Shown {
    fn new(view: &View, lsn: Lsn, entry: Entry) -> Result<Self, ApiError> {
        let mut brought = Vec::new();
        let mut reason = entry.reason;
        for head in events::learned_by(view, lsn).take(MAX_EVENTS) {
            let head = head?;
            if reason.is_none() && (head.membership.is_some() || head.redaction.is_some()) {
                reason = reason_in(view, &head.id)?;
            }
            let room = events::room(view, head.room)?;
            brought.push(Brought {
                event_id: head.id,
                room_id: room.map(|room| room.id),
                sender: head.sender,
                kind: head.event_type,
                state_key: head.state_key,
            });
        }
        let names = |number: &u16| ACTIONS.iter().find(|(_, known)| known == number).map(|(name, _)| &**name);
        Ok(Self {
            lsn,
            log_time: entry.log_time_ms,
            record: entry.id.to_string(),
            by: entry.origin.into(),
            actions: entry.facts.iter().filter_map(names).collect(),
            targets: entry.targets,
            reason,
            void: entry.void.map(Void::reason),
            events: brought,
        })
    }
}

/// The words of whoever sent an event.
fn reason_in(view: &View, event: &str) -> Result<Option<String>, ApiError> {
    #[derive(Deserialize)]
    struct Event {
        content: Content,
    }
    #[derive(Deserialize)]
    struct Content {
        reason: Option<String>,
    }
    let text = events::nid(view, event)?.map(|event| events::client(view, event)).transpose()?.flatten();
    // What is no text is no reason.
    Ok(text.and_then(|text| serde_json::from_str::<Event>(&text).ok()).and_then(|event| event.content.reason))
}

#[derive(Serialize)]
struct List {
    records: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<Lsn>,
}

async fn list(State(app): State<App>, _: Admin, params: Params) -> Result<Json<List>, ApiError> {
    let limit = limit(&params)?;
    let view = app.view()?;
    let wanted = wanted(&params, &view)?;
    let page = audit::page(&view, &wanted, limit)?;
    let records = page.entries.into_iter().map(|(lsn, entry)| Shown::new(&view, lsn, entry));
    Ok(Json(List { records: records.collect::<Result<_, _>>()?, next_token: page.next }))
}

fn limit(params: &Params) -> Result<usize, ApiError> {
    Ok(params.count("limit")?.unwrap_or(PAGE).clamp(1, MAX_PAGE))
}

fn wanted(params: &Params, view: &View) -> Result<Wanted, ApiError> {
    let text = |name| params.text(name).filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let tail = view.lsn();
    let at_time = |ms| audit::at_time(view, tail, ms);
    // The latest are what somebody looks for first.
    let falling = params.text("dir").is_none() || params.direction()? == Direction::Backward;
    let actions: Vec<_> = ACTIONS.iter().map(|(name, number)| (&**name, *number)).collect();
    let mut wanted = Wanted {
        actor: text("actor"),
        target: text("target"),
        room: text("room"),
        fact: params.one_of("action", &actions)?,
        by_administrators: params.boolean("by_administrators")?.unwrap_or(false),
        void: params.boolean("void")?.unwrap_or(false),
        from: moment(params, "since")?.map(|since| since.from(tail, at_time)).transpose()?.unwrap_or(Lsn::ZERO),
        until: moment(params, "until")?.map(|until| until.until(tail, at_time)).transpose()?.unwrap_or(tail).min(tail),
        falling,
    };
    if let Some(token) = params.integer("from")?.map(Lsn) {
        if falling {
            wanted.until = wanted.until.min(token);
        } else {
            wanted.from = wanted.from.max(token);
        }
    }
    Ok(wanted)
}

/// An Lsn, or a time.
fn moment(params: &Params, name: &str) -> Result<Option<Moment>, ApiError> {
    let moment = params.text(name).map(str::parse::<Moment>).transpose();
    moment.map_err(|error| ApiError::invalid(format!("Query parameter {name} is no moment: {error}")))
}
