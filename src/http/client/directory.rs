//! Client-server API, "Room aliases" and "Published room directory".
//!
//! `PUT`, `GET` and `DELETE /_matrix/client/v3/directory/room/{roomAlias}`, `GET /_matrix/client/v3/rooms/{roomId}/aliases`,
//! `GET` and `PUT /_matrix/client/v3/directory/list/room/{roomId}`, `GET` and `POST /_matrix/client/v3/publicRooms`

use std::fmt;

use axum::{Router, http::StatusCode};
use projections::models::{
    directory::{self, Place},
    events,
    rooms::{self, Settings},
};
use ruma::{
    OwnedRoomId, ServerName, UInt,
    api::{
        client::{
            alias::{create_alias::v3 as create_alias, delete_alias::v3 as delete_alias, get_alias::v3 as get_alias},
            directory::{
                get_public_rooms::v3 as get_public_rooms, get_public_rooms_filtered::v3 as search_public_rooms,
                get_room_visibility::v3 as get_visibility, set_room_visibility::v3 as set_visibility,
            },
            room::{Visibility, aliases::v3 as room_aliases},
        },
        error::ErrorKind,
    },
    directory::{Filter, PublicRoomsChunk, RoomNetwork},
};

use super::rooms::summarise;
use crate::{
    commands::Error,
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
    reading::Reading,
};

/// Rooms in a page of the list if the client doesn't say, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 500;
/// So many rooms are looked through for a page, where a filter lets few through.
const MAX_LOOKED_AT: usize = 5_000;

pub fn routes() -> Router<App> {
    Router::new()
        .matrix(alias)
        .matrix(set_alias)
        .matrix(remove_alias)
        .matrix(aliases)
        .matrix(visibility)
        .matrix(set_room_visibility)
        .matrix(public_rooms)
        .matrix(search)
}

async fn alias(app: App, request: Matrix<get_alias::Request>) -> Result<get_alias::Response, ApiError> {
    let found = directory::alias(&app.view()?, request.body.room_alias.as_str())?;
    let none = || ApiError::not_found(format!("there is no room with the alias {}", request.body.room_alias));
    let found = found.ok_or_else(none)?;
    let servers = found.servers.into_iter().filter_map(|server| server.try_into().ok()).collect();
    Ok(get_alias::Response::new(OwnedRoomId::try_from(found.room).map_err(|_| none())?, servers))
}

async fn set_alias(app: App, request: Matrix<create_alias::Request>) -> Result<create_alias::Response, ApiError> {
    let create_alias::Request { room_alias, room_id, .. } = request.body;
    match app.commands.set_alias(request.who.sender, room_alias, room_id).await {
        Ok(()) => Ok(create_alias::Response::new()),
        // The specification has another error here than for a new room with a taken alias.
        Err(Error::Refused(taken)) if taken.kind == ErrorKind::RoomInUse => {
            Err(ApiError::with_status(StatusCode::CONFLICT, ErrorKind::Unknown, taken.message))
        }
        Err(error) => Err(error.into()),
    }
}

async fn remove_alias(app: App, request: Matrix<delete_alias::Request>) -> Result<delete_alias::Response, ApiError> {
    app.commands.remove_alias(request.who.sender, request.body.room_alias).await?;
    Ok(delete_alias::Response::new())
}

async fn aliases(app: App, request: Matrix<room_aliases::Request>) -> Result<room_aliases::Response, ApiError> {
    let (view, room) = (app.view()?, request.body.room_id);
    // Administrators' tools ask here, too.
    if !request.who.admin {
        Reading::new(&view, &request.who.user, None, 0)?.access(&room)?;
    }
    let aliases = directory::aliases_of(&view, room.as_str()).collect::<Result<Vec<_>, _>>()?;
    Ok(room_aliases::Response::new(aliases.into_iter().filter_map(|alias| alias.try_into().ok()).collect()))
}

async fn visibility(app: App, request: Matrix<get_visibility::Request>) -> Result<get_visibility::Response, ApiError> {
    let view = app.view()?;
    let room = events::room_nid(&view, request.body.room_id.as_str())?;
    let room = room.ok_or_else(|| ApiError::not_found("this server doesn't know the room"))?;
    let published = directory::is_published(&view, room)?;
    Ok(get_visibility::Response::new(if published { Visibility::Public } else { Visibility::Private }))
}

async fn set_room_visibility(
    app: App,
    request: Matrix<set_visibility::Request>,
) -> Result<set_visibility::Response, ApiError> {
    let set_visibility::Request { room_id, visibility, .. } = request.body;
    app.commands.publish(request.who.sender, room_id, visibility == Visibility::Public).await?;
    Ok(set_visibility::Response::new())
}

async fn public_rooms(
    app: App,
    request: Matrix<get_public_rooms::Request>,
) -> Result<get_public_rooms::Response, ApiError> {
    let get_public_rooms::Request { limit, since, server, .. } = request.body;
    let page = page(&app, server.as_deref(), since.as_deref(), limit, &Filter::new())?;
    let mut reply = get_public_rooms::Response::new(page.chunk);
    (reply.next_batch, reply.prev_batch) = (page.next, page.previous);
    reply.total_room_count_estimate = Some(page.total);
    Ok(reply)
}

async fn search(
    app: App,
    request: Matrix<search_public_rooms::Request>,
) -> Result<search_public_rooms::Response, ApiError> {
    let search_public_rooms::Request { server, limit, since, filter, room_network, .. } = request.body;
    let mut reply = search_public_rooms::Response::new();
    if !matches!(room_network, RoomNetwork::ThirdParty(_)) {
        let page = page(&app, server.as_deref(), since.as_deref(), limit, &filter)?;
        (reply.chunk, reply.next_batch, reply.prev_batch) = (page.chunk, page.next, page.previous);
        reply.total_room_count_estimate = Some(page.total);
    }
    Ok(reply)
}

struct Page {
    chunk: Vec<PublicRoomsChunk>,
    next: Option<String>,
    previous: Option<String>,
    total: UInt,
}

fn page(
    app: &App,
    server: Option<&ServerName>,
    since: Option<&str>,
    limit: Option<UInt>,
    filter: &Filter,
) -> Result<Page, ApiError> {
    if server.is_some_and(|server| server != app.config.server_name) {
        return Err(ApiError::invalid("this server does not federate: it has no list but its own"));
    }
    let view = app.view()?;
    let limit = limit.map_or(PAGE, |limit| usize::try_from(u64::from(limit)).unwrap_or(MAX_PAGE)).clamp(1, MAX_PAGE);
    let since = since.map(Batch::read).transpose()?;
    let mut rows: Box<dyn Iterator<Item = _>> = match &since {
        None => Box::new(directory::published(&view, None)),
        Some(Batch::After(place)) => Box::new(directory::published(&view, Some(place))),
        Some(Batch::Before(place)) => Box::new(directory::published_before(&view, place)),
    };
    let term = filter.generic_search_term.as_deref().map(str::to_lowercase).filter(|term| !term.is_empty());
    let mut found: Vec<(Place, PublicRoomsChunk)> = Vec::new();
    // Where the page ends, if something may lie beyond.
    let mut end = None;
    let mut last = None;
    for looked_at in 0.. {
        let Some(row) = rows.next() else { break };
        if found.len() == limit || looked_at == MAX_LOOKED_AT {
            end = last;
            break;
        }
        let (place, room) = row?;
        last = Some(place.clone());
        let Some(room) = rooms::summary(&view, room)?.filter(|room| room.figures.joined > 0) else { continue };
        let Ok(id) = OwnedRoomId::try_from(room.id.as_str()) else { continue };
        if fits(&room.settings, term.as_deref(), filter) {
            found.push((place, summarise(id, room, Vec::new()).into()));
        }
    }
    if matches!(since, Some(Batch::Before(_))) {
        found.reverse();
    }
    let (first, final_) = (found.first().map(|(place, _)| place.clone()), found.last().map(|(place, _)| place.clone()));
    let (next, previous) = match since {
        Some(Batch::Before(_)) => (final_.map(Batch::After), end.map(Batch::Before)),
        Some(Batch::After(_)) => (end.map(Batch::After), first.map(Batch::Before)),
        None => (end.map(Batch::After), None),
    };
    let total = UInt::new_saturating(directory::total(&view)?);
    let text = |batch: Option<Batch>| batch.map(|batch| batch.to_string());
    Ok(Page {
        chunk: found.into_iter().map(|(_, room)| room).collect(),
        next: text(next),
        previous: text(previous),
        total,
    })
}

fn fits(room: &Settings, term: Option<&str>, filter: &Filter) -> bool {
    let of_type = filter.room_types.is_empty()
        || filter.room_types.iter().any(|wanted| wanted.as_str() == room.room_type.as_deref());
    let texts = [&room.name, &room.topic, &room.canonical_alias];
    let has = |term: &str| texts.into_iter().flatten().any(|text| text.to_lowercase().contains(term));
    of_type && term.is_none_or(has)
}

/// A token for a page of the list: what comes after a place in it, or before.
enum Batch {
    After(Place),
    Before(Place),
}

impl Batch {
    fn read(text: &str) -> Result<Self, ApiError> {
        let place = |rest: &str| {
            let (joined, room) = rest.split_once('_')?;
            Some(Place { joined: joined.parse().ok()?, room: room.to_owned() })
        };
        let batch = match text.split_at_checked(1) {
            Some(("n", rest)) => place(rest).map(Self::After),
            Some(("p", rest)) => place(rest).map(Self::Before),
            _ => None,
        };
        batch.ok_or_else(|| ApiError::invalid("`since` is not a token of this list"))
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(Place { joined, room }) => write!(f, "n{joined}_{room}"),
            Self::Before(Place { joined, room }) => write!(f, "p{joined}_{room}"),
        }
    }
}
