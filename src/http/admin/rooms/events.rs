//! What was said and done in a room, and single events of any.
//!
//! `GET /_synapse/admin/v1/rooms/{room_id}/messages`, `GET /_synapse/admin/v1/rooms/{room_id}/context/{event_id}`,
//! `GET /_synapse/admin/v1/rooms/{room_id}/timestamp_to_event`, `GET /_synapse/admin/v1/fetch_event/{event_id}`

use axum::{Router, extract::State, response::Response, routing::get};
use projections::models::events;
use ruma::{
    EventId, RoomId, UInt,
    api::{
        Direction,
        client::{
            context::get_context::v3 as get_context, filter::RoomEventFilter,
            message::get_message_events::v3 as get_messages,
        },
    },
    events::{AnyStateEvent, AnyTimelineEvent},
    serde::Raw,
};
use serde::{Deserialize, Serialize};

use crate::{
    http::{
        App,
        admin::{
            Admin,
            params::{Params, unknown},
        },
        client::events_read::{around, history, nearest, point, view_of_messages},
        extract::Path,
        reply::{ApiError, respond},
    },
    reading::{Reading, RelatedBy},
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/rooms/{room_id}/messages", get(messages))
        .route("/_synapse/admin/v1/rooms/{room_id}/context/{event_id}", get(context))
        .route("/_synapse/admin/v1/rooms/{room_id}/timestamp_to_event", get(at_time))
        .route("/_synapse/admin/v1/fetch_event/{event_id}", get(fetch))
}

/// `filter` of the query.
struct Filter {
    events: RoomEventFilter,
    related: RelatedBy,
    /// Events are wanted as servers send them to each other.
    federated: bool,
}

impl Filter {
    fn read(params: &Params) -> Result<Self, ApiError> {
        #[derive(Default, Deserialize)]
        struct Format {
            #[serde(default)]
            event_format: String,
        }
        let format: Format = params.json("filter")?.unwrap_or_default();
        Ok(Self {
            events: params.json("filter")?.unwrap_or_default(),
            related: params.json("filter")?.unwrap_or_default(),
            federated: format.event_format == "federation" || params.text("raw").is_some(),
        })
    }
}

fn limit(params: &Params) -> Result<UInt, ApiError> {
    Ok(UInt::new_saturating(params.integer("limit")?.unwrap_or(10)))
}

/// A pagination token.
fn token(params: &Params, name: &str) -> Result<Option<String>, ApiError> {
    let Some(token) = params.text(name).filter(|token| *token != "END") else { return Ok(None) };
    point(token).map_err(|_| unknown(format!("'{name}' parameter is invalid")))?;
    Ok(Some(token.to_owned()))
}

async fn messages(
    State(app): State<App>,
    _: Admin,
    Path(room): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let filter = Filter::read(&params)?;
    let direction = params.direction()?;
    let room = super::room_id(&room)?;
    let mut request = get_messages::Request::new(room.clone(), direction);
    request.limit = limit(&params)?;
    (request.from, request.to) = (token(&params, "from")?, token(&params, "to")?);
    request.filter = filter.events;
    let view = view_of_messages(&app, &request).await?;
    if events::room_nid(&view, room.as_str())?.is_none() {
        let mut none = get_messages::Response::new();
        none.start = request.from.unwrap_or_default();
        return Ok(respond(none));
    }
    let reading = Reading::of_everything(&view, app.clock.now_ms()).federated(filter.federated);
    // What servers send each other names its room itself.
    let reading = if filter.federated { reading } else { reading.in_room(&room) };
    let (mut reply, last) = history(&app, &reading, &request, &filter.related)?;
    // Who watches a room goes on from its end.
    reply.end = reply.end.or_else(|| last.map(|last| last.to_string()));
    Ok(respond(reply))
}

/// All keys are there, unlike in what clients get.
#[derive(Serialize)]
struct Context {
    events_before: Vec<Raw<AnyTimelineEvent>>,
    event: Option<Raw<AnyTimelineEvent>>,
    events_after: Vec<Raw<AnyTimelineEvent>>,
    state: Vec<Raw<AnyStateEvent>>,
    start: Option<String>,
    end: Option<String>,
}

async fn context(
    State(app): State<App>,
    _: Admin,
    Path((room, event)): Path<(String, String)>,
    params: Params,
) -> Result<axum::Json<Context>, ApiError> {
    let filter = Filter::read(&params)?;
    let limit = limit(&params)?;
    let none = || ApiError::not_found("Event not found.");
    let view = app.view()?;
    let found = events::find(&view, &event)?.filter(|(_, head)| head.shown_at().is_some()).ok_or_else(none)?;
    let event = EventId::parse(event).map_err(|_| none())?;
    let room = RoomId::parse(room).map_err(|_| none())?;
    if events::room_nid(&view, room.as_str())? != Some(found.1.room) {
        return Err(none());
    }
    let mut request = get_context::Request::new(room.clone(), event);
    (request.limit, request.filter) = (limit, filter.events);
    let reading = Reading::of_everything(&view, app.clock.now_ms()).in_room(&room);
    let found = around(&app, &reading, &request, &filter.related)?;
    let get_context::Response { events_before, event, events_after, state, start, end, .. } = found;
    Ok(axum::Json(Context { events_before, event, events_after, state, start, end }))
}

#[derive(Serialize)]
struct AtTime {
    event_id: String,
    origin_server_ts: u64,
}

async fn at_time(
    State(app): State<App>,
    _: Admin,
    Path(room): Path<String>,
    params: Params,
) -> Result<axum::Json<AtTime>, ApiError> {
    let (ts, direction) = (params.required_integer("ts")?, params.direction()?);
    let none = || {
        let way = if direction == Direction::Forward { "FORWARDS" } else { "BACKWARDS" };
        ApiError::not_found(format!("Unable to find event from {ts} in direction Direction.{way}"))
    };
    let view = app.view()?;
    let room = RoomId::parse(room).map_err(|_| none())?;
    if events::room_nid(&view, room.as_str())?.is_none() {
        return Err(none());
    }
    let reading = Reading::of_everything(&view, app.clock.now_ms());
    let found = nearest(&reading, &reading.access(&room)?, ts, direction)?.ok_or_else(none)?;
    Ok(axum::Json(AtTime { event_id: found.head.id, origin_server_ts: found.head.origin_server_ts }))
}

#[derive(Serialize)]
struct Fetched {
    event: Raw<AnyTimelineEvent>,
}

/// Any event that is known, whether or not clients see it.
async fn fetch(State(app): State<App>, _: Admin, Path(id): Path<String>) -> Result<axum::Json<Fetched>, ApiError> {
    let view = app.view()?;
    let event = events::nid(&view, &id)?;
    let reading = Reading::of_everything(&view, app.clock.now_ms()).federated(true);
    let event = event.map(|event| reading.event(event)).transpose()?.flatten();
    let event = event.ok_or_else(|| ApiError::not_found("Event not found"))?;
    Ok(axum::Json(Fetched { event }))
}
