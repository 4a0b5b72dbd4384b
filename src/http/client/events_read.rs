//! Client-server API, "Getting events for a room": events, pages of history, what stands around an event, jumping to a
//! date.
//!
//! `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`, `GET /_matrix/client/v3/rooms/{roomId}/messages`,
//! `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`,
//! `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`

use std::collections::BTreeSet;

use axum::Router;
use projections::{
    Position, View,
    models::{
        events::{self, Head},
        state::{self, State},
        timeline,
    },
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt,
    api::{
        Direction,
        client::{
            context::get_context::v3 as get_context,
            filter::{LazyLoadOptions, RoomEventFilter},
            message::get_message_events::v3 as get_messages,
            room::{get_event_by_timestamp::v1 as get_by_time, get_room_event::v3 as get_event},
        },
    },
    events::AnyStateEvent,
    serde::Raw,
};
use schemas::{Lsn, Nid};

use crate::{
    http::{
        App,
        auth::Session,
        extract::{Matrix, Received, Routes},
        reply::ApiError,
    },
    reading::{Access, Found, Matcher, Page, Reading, RelatedBy, Span},
    sync::{AHEAD, SyncError, SyncToken},
};

/// Events in a page if the client doesn't say.
const PAGE: usize = 10;

pub fn routes() -> Router<App> {
    Router::new().matrix(event).matrix(messages).matrix(context).matrix(at_time)
}

/// A view as whoever asks reads it, with events of one room.
pub(super) fn reading<'a>(
    app: &App,
    view: &'a View,
    who: &'a Session,
    room: &'a RoomId,
) -> Result<Reading<'a>, ApiError> {
    Ok(Reading::new(view, &who.user, Some(&who.device), app.clock.now_ms())?.in_room(room))
}

/// The point that a pagination token names: one of these endpoints', or one of /sync.
pub(in crate::http) fn point(token: &str) -> Result<Position, ApiError> {
    let sync = || token.parse::<SyncToken>().map(|token| Position::after_record(token.lsn));
    token.parse().or_else(|_| sync()).map_err(|_| ApiError::invalid("this is not a pagination token of this server"))
}

/// A view with all that comes before some points: another node, which was further than this one is, may have named them.
///
/// # Errors
/// 400 for a point beyond the log, 503 when this node doesn't fold so far in a few seconds.
pub(super) async fn view_before(app: &App, points: [Option<Position>; 2]) -> Result<View, ApiError> {
    let last = points.into_iter().flatten().map(|point| Lsn(point.lsn().0.saturating_sub(1))).max().unwrap_or_default();
    if last > app.reader.tail() {
        return Err(ApiError::invalid("this token names a point that the server has not come to"));
    }
    if !app.progress.reached(last, AHEAD).await {
        return Err(SyncError::Ahead.into());
    }
    Ok(app.view()?)
}

/// How many events are given of how many wanted.
pub(super) fn limit(app: &App, wanted: Option<UInt>) -> usize {
    let most = app.config.limits.events_per_page;
    wanted.map_or(PAGE, |wanted| usize::try_from(u64::from(wanted)).unwrap_or(most)).clamp(1, most)
}

/// An event of a room that the user may see.
pub(super) fn visible(
    view: &View,
    reading: &Reading<'_>,
    room: &RoomId,
    event: &EventId,
) -> Result<(Nid, Head), ApiError> {
    let none = || ApiError::not_found("there is no such event in this room, or you may not see it");
    let nid = events::room_nid(view, room.as_str())?.ok_or_else(none)?;
    match events::find(view, event.as_str())? {
        Some((event, head)) if head.room == nid && reading.sees(event, &head)? => Ok((event, head)),
        _ => Err(none()),
    }
}

async fn event(app: App, request: Matrix<get_event::Request>) -> Result<get_event::Response, ApiError> {
    let get_event::Request { room_id, event_id, .. } = &request.body;
    let view = app.view()?;
    let reading = reading(&app, &view, &request.who, room_id)?;
    let (event, _) = visible(&view, &reading, room_id, event_id)?;
    let event = reading.event(event)?.ok_or_else(|| ApiError::not_found("there is no such event"))?;
    Ok(get_event::Response::new(event))
}

async fn messages(app: App, request: Matrix<get_messages::Request>) -> Result<get_messages::Response, ApiError> {
    let view = view_of_messages(&app, &request.body).await?;
    let reading = reading(&app, &view, &request.who, &request.body.room_id)?;
    Ok(history(&app, &reading, &request.body, &related(&request.received)?)?.0)
}

/// A view that has what the request's tokens name.
pub(in crate::http) async fn view_of_messages(app: &App, request: &get_messages::Request) -> Result<View, ApiError> {
    let points = [&request.from, &request.to].map(|token| token.as_deref().map(point).transpose());
    let [from, to] = points;
    view_before(app, [from?, to?]).await
}

/// A page of a room's history, and the point behind its last event.
pub(in crate::http) fn history(
    app: &App,
    reading: &Reading<'_>,
    request: &get_messages::Request,
    related: &RelatedBy,
) -> Result<(get_messages::Response, Option<Position>), ApiError> {
    let get_messages::Request { room_id, from: token, to, dir, filter, .. } = request;
    let from = token.as_deref().map(point).transpose()?;
    let to = to.as_deref().map(point).transpose()?;
    let access = reading.access(room_id)?;
    let (start, from, to) = match dir {
        Direction::Forward => {
            let from = from.unwrap_or(Position::START);
            (from, from, Some(to.map_or(access.end(), |to| to.min(access.end()))))
        }
        Direction::Backward => {
            let start = from.unwrap_or(access.end());
            (start, start.min(access.end()), to)
        }
    };
    let limit = limit(app, Some(request.limit));
    let span = Span { room: access.room, from, to, direction: *dir, limit };
    let page = page(reading, room_id, span, &Matcher::from(filter).related_by(related))?;
    let last = page.events.last().map(|last| match dir {
        Direction::Forward => last.position.next(),
        Direction::Backward => last.position,
    });
    let mut reply = get_messages::Response::new();
    reply.start = token.clone().unwrap_or_else(|| start.to_string());
    reply.end = page.next.map(|next| next.to_string());
    if lazily(filter) {
        reply.state = members(reading, &page.events)?;
    }
    reply.chunk = finish(reading, page.events)?;
    Ok((reply, last))
}

fn page(reading: &Reading<'_>, room: &RoomId, span: Span, matcher: &Matcher<'_>) -> Result<Page, ApiError> {
    Ok(if matcher.room(room.as_str()) { reading.page(span, matcher)? } else { Page::default() })
}

/// What of the filter in a query ruma's lacks.
fn related(received: &Received) -> Result<RelatedBy, ApiError> {
    let Some(filter) = received.parameter("filter") else { return Ok(RelatedBy::default()) };
    serde_json::from_str(&filter).map_err(|error| ApiError::invalid(format!("the filter is not one: {error}")))
}

pub(super) fn finish<T>(reading: &Reading<'_>, events: Vec<Found>) -> Result<Vec<Raw<T>>, ApiError> {
    events.into_iter().map(|found| Ok(reading.finish(found.event, &found.head, found.text)?)).collect()
}

const fn lazily(filter: &RoomEventFilter) -> bool {
    matches!(filter.lazy_load_options, LazyLoadOptions::Enabled { .. })
}

/// The memberships of those who sent a page's events, as of its newest.
fn members(reading: &Reading<'_>, events: &[Found]) -> Result<Vec<Raw<AnyStateEvent>>, ApiError> {
    let (view, newest) = (reading.view(), events.iter().max_by_key(|found| found.position));
    let Some(state) = newest.map(|found| state::after(view, found.event)).transpose()?.flatten() else {
        return Ok(Vec::new());
    };
    let senders: BTreeSet<&str> = events.iter().map(|found| found.head.sender.as_str()).collect();
    let mut members = Vec::with_capacity(senders.len());
    for sender in senders {
        if let Some(event) = state::get(view, &state, "m.room.member", sender)? {
            members.extend(reading.state_event(event)?);
        }
    }
    Ok(members)
}

async fn context(app: App, request: Matrix<get_context::Request>) -> Result<get_context::Response, ApiError> {
    let view = app.view()?;
    let reading = reading(&app, &view, &request.who, &request.body.room_id)?;
    around(&app, &reading, &request.body, &related(&request.received)?)
}

/// An event that the reader may see, and what stands around it.
pub(in crate::http) fn around(
    app: &App,
    reading: &Reading<'_>,
    request: &get_context::Request,
    related: &RelatedBy,
) -> Result<get_context::Response, ApiError> {
    let get_context::Request { room_id, event_id, filter, .. } = request;
    let (view, access) = (reading.view(), reading.access(room_id)?);
    let (event, head) = visible(view, reading, room_id, event_id)?;
    let at = head.shown_at().ok_or_else(|| ApiError::not_found("there is no such event in this room"))?;
    let matcher = Matcher::from(filter).related_by(related);
    // None around it may be wanted, unlike in a page.
    let around = if request.limit == UInt::MIN { 0 } else { limit(app, Some(request.limit)) };
    let side = |direction, from, limit| {
        let to = (direction == Direction::Forward).then_some(access.end());
        let span = Span { room: access.room, from, to, direction, limit };
        if limit == 0 { Ok(Page::default()) } else { page(reading, room_id, span, &matcher) }
    };
    let before = side(Direction::Backward, at, around / 2)?;
    let after = side(Direction::Forward, at.next(), around - around / 2)?;
    let start = before.events.last().map_or(at, |first| first.position);
    let end = after.events.last().map_or(at, |last| last.position).next();
    let newest = after.events.last().map_or(event, |last| last.event);
    let shown = before.events.iter().chain(&after.events);
    let senders = shown.map(|found| found.head.sender.clone()).chain([head.sender]).collect();
    let mut reply = get_context::Response::new();
    (reply.start, reply.end) = (Some(start.to_string()), Some(end.to_string()));
    if let Some(state) = state::after(view, newest)? {
        reply.state = state_around(reading, &state, &matcher, lazily(filter), &senders)?;
    }
    reply.event = reading.event(event)?;
    reply.events_before = finish(reading, before.events)?;
    reply.events_after = finish(reading, after.events)?;
    Ok(reply)
}

/// A state as a filter wants it; lazily without the members who sent nothing of what is shown.
fn state_around(
    reading: &Reading<'_>,
    state: &State,
    matcher: &Matcher<'_>,
    lazy: bool,
    senders: &BTreeSet<String>,
) -> Result<Vec<Raw<AnyStateEvent>>, ApiError> {
    let (view, mut chosen) = (reading.view(), Vec::new());
    if lazy {
        for entry in state::except_type(view, state, "m.room.member") {
            chosen.push(entry?.event);
        }
        for sender in senders {
            chosen.extend(state::get(view, state, "m.room.member", sender)?);
        }
    } else {
        for entry in state::all(view, state) {
            chosen.push(entry?.event);
        }
    }
    let mut shown = Vec::with_capacity(chosen.len());
    for event in chosen {
        if let Some((head, text)) = reading.fitting_state(event, matcher)? {
            shown.push(reading.finish_state(&head, text)?);
        }
    }
    Ok(shown)
}

async fn at_time(app: App, request: Matrix<get_by_time::Request>) -> Result<get_by_time::Response, ApiError> {
    let get_by_time::Request { room_id, ts, dir, .. } = &request.body;
    let view = app.view()?;
    let reading = reading(&app, &view, &request.who, room_id)?;
    let found = nearest(&reading, &reading.access(room_id)?, ts.get().into(), *dir)?;
    let found = found.ok_or_else(|| ApiError::not_found("there is no event on that side of that time"))?;
    let event_id = OwnedEventId::try_from(found.head.id).map_err(|error| ApiError::internal(&error))?;
    let at = MilliSecondsSinceUnixEpoch(UInt::new_saturating(found.head.origin_server_ts));
    Ok(get_by_time::Response::new(event_id, at))
}

/// The first event that was sent at a time or beyond it, as one goes.
pub(in crate::http) fn nearest(
    reading: &Reading<'_>,
    access: &Access,
    ts: u64,
    direction: Direction,
) -> Result<Option<Found>, ApiError> {
    let from = when(reading.view(), access, ts, direction)?;
    let to = (direction == Direction::Forward).then_some(access.end());
    let span = Span { room: access.room, from, to, direction, limit: 1 };
    Ok(reading.page(span, &Matcher::default())?.events.into_iter().next())
}

/// The point in a room's order with what was sent before a time on one side, and what was sent after it on the other.
/// What was sent at that very time is on the side where one goes. It is found by halving, which takes the clocks of
/// senders for right.
fn when(view: &View, access: &Access, ts: u64, direction: Direction) -> Result<Position, ApiError> {
    let (mut low, mut high) = (Lsn::ZERO, access.until);
    while low < high {
        let middle = Lsn(low.0 + (high.0 - low.0) / 2);
        let next = timeline::forward(view, access.room, Position::after_record(middle)).next().transpose()?;
        let sent = match next {
            Some((_, item)) => events::head(view, item.event)?.map(|head| head.origin_server_ts),
            None => None,
        };
        let before = sent.is_some_and(|sent| match direction {
            Direction::Forward => sent < ts,
            Direction::Backward => sent <= ts,
        });
        if before { low = middle.next() } else { high = middle }
    }
    Ok(Position::after_record(low))
}
