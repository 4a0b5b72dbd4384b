//! Client-server API, "Relationships API" and "Threading".
//!
//! `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}`,
//! `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}`,
//! `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`,
//! `GET /_matrix/client/v1/rooms/{roomId}/threads`

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use projections::{
    Position, View,
    models::{
        events::{self, Head},
        relations::{self, Child},
    },
};
use ruma::{
    UInt,
    api::{
        Direction,
        client::{
            relations::{
                get_relating_events::v1 as get_relating, get_relating_events_with_rel_type::v1 as get_relating_by_type,
                get_relating_events_with_rel_type_and_event_type::v1 as get_relating_by_types,
            },
            threads::get_threads::v1::{self as get_threads, IncludeThreads},
        },
    },
    events::AnyMessageLikeEvent,
    serde::Raw,
};
use schemas::Nid;

use super::events_read::{limit, point, reading, view_before, visible};
use crate::{
    http::{
        App,
        extract::{Matrix, Received, Routes},
        reply::ApiError,
    },
    reading::Reading,
};

/// So many steps indirect relations are followed.
const DEPTH: u32 = 3;
/// Indirect relations are followed through at most so many events.
const MAX_INDIRECT: usize = 2_000;
/// So many events are looked through for a page, where the user may see few or a filter lets few through.
const MAX_LOOKED_AT: usize = 5_000;

pub fn routes() -> Router<App> {
    Router::new().matrix(all).matrix(of_relation).matrix(of_types).matrix(threads)
}

/// What is asked of an event's relations, in each of three forms.
struct Wanted<'a> {
    rel_type: Option<&'a str>,
    event_type: Option<&'a str>,
    from: Option<Position>,
    to: Option<Position>,
    direction: Direction,
    limit: usize,
    recurse: bool,
}

/// What they are answered with.
struct Answer {
    chunk: Vec<Raw<AnyMessageLikeEvent>>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    recursion_depth: Option<UInt>,
}

macro_rules! form {
    ($name:ident, $module:ident) => {
        async fn $name(app: App, request: Matrix<$module::Request>) -> Result<$module::Response, ApiError> {
            let $module::Request { room_id, event_id, from, to, dir, limit: most, recurse, .. } = &request.body;
            let (rel_type, event_type) = types(&request.received);
            let wanted = Wanted {
                rel_type,
                event_type,
                from: from.as_deref().map(point).transpose()?,
                to: to.as_deref().map(point).transpose()?,
                direction: *dir,
                limit: limit(&app, *most),
                recurse: *recurse,
            };
            let view = view_before(&app, [wanted.from, wanted.to]).await?;
            let reading = reading(&app, &view, &request.who, room_id)?;
            let (_, parent) = visible(&view, &reading, room_id, event_id)?;
            let answer = relating(&view, &reading, &parent, &wanted)?;
            let mut reply = $module::Response::new(answer.chunk);
            reply.next_batch = answer.next_batch;
            reply.prev_batch = answer.prev_batch;
            reply.recursion_depth = answer.recursion_depth;
            Ok(reply)
        }
    };
}

form!(all, get_relating);
form!(of_relation, get_relating_by_type);
form!(of_types, get_relating_by_types);

/// The types in the path, to the letter.
fn types(received: &Received) -> (Option<&str>, Option<&str>) {
    (received.args.get(2).map(String::as_str), received.args.get(3).map(String::as_str))
}

fn relating(view: &View, reading: &Reading<'_>, parent: &Head, wanted: &Wanted<'_>) -> Result<Answer, ApiError> {
    let from = wanted.from.unwrap_or(match wanted.direction {
        Direction::Forward => Position::START,
        Direction::Backward => Position::after_record(view.lsn()),
    });
    let children: Box<dyn Iterator<Item = _>> = match (wanted.recurse, wanted.direction) {
        (true, direction) => Box::new(indirect(view, parent, wanted.rel_type, from, direction)?.into_iter().map(Ok)),
        (false, Direction::Forward) => {
            Box::new(relations::children(view, parent.room, &parent.id, wanted.rel_type, from))
        }
        (false, Direction::Backward) => {
            Box::new(relations::children_before(view, parent.room, &parent.id, wanted.rel_type, Some(from)))
        }
    };
    let mut chunk = Vec::new();
    let (mut on, mut next) = (from, None);
    for (looked_at, child) in children.enumerate() {
        let (position, child) = child?;
        let past_end = wanted.to.is_some_and(|to| match wanted.direction {
            Direction::Forward => position >= to,
            Direction::Backward => position < to,
        });
        if past_end {
            break;
        }
        if looked_at == MAX_LOOKED_AT {
            next = Some(on);
            break;
        }
        if wanted.event_type.is_none_or(|wanted| wanted == child.event_type)
            && let Some(head) = events::head(view, child.event)?
            && reading.shows(child.event, &head)?
        {
            if chunk.len() == wanted.limit {
                next = Some(on);
                break;
            }
            chunk.extend(reading.event(child.event)?);
        }
        on = if wanted.direction == Direction::Forward { position.next() } else { position };
    }
    Ok(Answer {
        chunk,
        next_batch: next.map(|next| next.to_string()),
        prev_batch: wanted.from.map(|from| from.to_string()),
        recursion_depth: wanted.recurse.then_some(DEPTH.into()),
    })
}

/// What relates to an event directly or indirectly, from a point on.
fn indirect(
    view: &View,
    parent: &Head,
    rel_type: Option<&str>,
    from: Position,
    direction: Direction,
) -> Result<Vec<(Position, Child)>, ApiError> {
    let mut found: BTreeMap<Position, Child> = BTreeMap::new();
    let mut seen: BTreeSet<Nid> = BTreeSet::new();
    let mut parents = vec![parent.id.clone()];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for parent_id in &parents {
            for child in relations::children(view, parent.room, parent_id, None, Position::START) {
                let (position, child) = child?;
                if seen.len() >= MAX_INDIRECT {
                    break;
                }
                if seen.insert(child.event) {
                    next.extend(events::head(view, child.event)?.map(|head| head.id));
                    found.insert(position, child);
                }
            }
        }
        parents = next;
    }
    found.retain(|position, child| {
        let ahead = if direction == Direction::Forward { *position >= from } else { *position < from };
        ahead && rel_type.is_none_or(|wanted| wanted == child.rel_type)
    });
    let mut found: Vec<_> = found.into_iter().collect();
    if direction == Direction::Backward {
        found.reverse();
    }
    Ok(found)
}

async fn threads(app: App, request: Matrix<get_threads::Request>) -> Result<get_threads::Response, ApiError> {
    let get_threads::Request { room_id, from, include, limit: most, .. } = &request.body;
    let from = from.as_deref().map(point).transpose()?;
    let most = limit(&app, *most);
    let view = view_before(&app, [from, None]).await?;
    let reading = reading(&app, &view, &request.who, room_id)?;
    let access = reading.access(room_id)?;
    let before = from.map_or(access.end(), |from| from.min(access.end()));
    let mut reply = get_threads::Response::new(Vec::new());
    let mut on = before;
    for (looked_at, thread) in relations::threads(&view, access.room, Some(before)).enumerate() {
        let (position, root) = thread?;
        let event = thread_root(&view, &reading, access.room, &root, request.who.user.as_str(), include)?;
        if looked_at == MAX_LOOKED_AT || (event.is_some() && reply.chunk.len() == most) {
            reply.next_batch = Some(on.to_string());
            break;
        }
        if let Some(event) = event {
            reply.chunk.extend(reading.event(event)?);
        }
        on = position;
    }
    Ok(reply)
}

/// The event that a thread begins with, if the user is shown it and wants it.
fn thread_root(
    view: &View,
    reading: &Reading<'_>,
    room: Nid,
    root: &str,
    user: &str,
    include: &IncludeThreads,
) -> Result<Option<Nid>, ApiError> {
    let Some((event, head)) = events::find(view, root)? else { return Ok(None) };
    let everybodys = *include != IncludeThreads::Participated || head.sender == user;
    let wanted = everybodys || relations::sent_in_thread(view, room, root, user)? > 0;
    Ok(if wanted && head.room == room && reading.shows(event, &head)? { Some(event) } else { None })
}
