//! Client-server API, "Room aliases" and "Published room directory".
//!
//! `PUT|GET|DELETE /_matrix/client/v3/directory/room/{roomAlias}`, `GET /_matrix/client/v3/rooms/{roomId}/aliases`,
//! `GET|PUT /_matrix/client/v3/directory/list/room/{roomId}`, `GET|POST /_matrix/client/v3/publicRooms`

use axum::Router;
use projections::{
    View,
    models::{
        directory::{self, Place},
        events, rooms,
    },
};
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedServerName, ServerName, UInt,
    api::client::{
        alias::{create_alias::v3 as create_alias, delete_alias::v3 as delete_alias, get_alias::v3 as get_alias},
        directory::{
            get_public_rooms::v3 as public_rooms, get_public_rooms_filtered::v3 as filtered_rooms,
            get_room_visibility::v3 as get_visibility, set_room_visibility::v3 as set_visibility,
        },
        room::{Visibility, aliases::v3 as aliases},
    },
    directory::{Filter, PublicRoomsChunk, PublicRoomsChunkInit},
    room::JoinRuleKind,
};

use crate::{
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
    reading::Reading,
};

/// Rooms on one page, at most and if the client doesn't say.
const PAGE: usize = 100;
/// Rooms that are looked at for one page of a search; the next page goes on from there.
const SEARCH: usize = 5_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .matrix(put_alias)
        .matrix(alias)
        .matrix(remove_alias)
        .matrix(room_aliases)
        .matrix(visibility)
        .matrix(put_visibility)
        .matrix(list)
        .matrix(search)
}

async fn put_alias(app: App, req: Matrix<create_alias::Request>) -> Result<create_alias::Response, ApiError> {
    app.commands.set_alias(req.who.sender, req.body.room_alias, req.body.room_id).await?;
    Ok(create_alias::Response::new())
}

async fn alias(app: App, req: Matrix<get_alias::Request>) -> Result<get_alias::Response, ApiError> {
    let found = directory::alias(&app.view()?, req.body.room_alias.as_str())?;
    let found = found.ok_or_else(|| ApiError::not_found(format!("there is no alias {}", req.body.room_alias)))?;
    let room = OwnedRoomId::try_from(found.room).map_err(|error| ApiError::internal(&error))?;
    let servers = found.servers.into_iter().filter_map(|server| OwnedServerName::try_from(server).ok());
    Ok(get_alias::Response::new(room, servers.collect()))
}

async fn remove_alias(app: App, req: Matrix<delete_alias::Request>) -> Result<delete_alias::Response, ApiError> {
    app.commands.remove_alias(req.who.sender, req.body.room_alias).await?;
    Ok(delete_alias::Response::new())
}

/// Members see a room's aliases, and everybody those of a room that all may read.
async fn room_aliases(app: App, req: Matrix<aliases::Request>) -> Result<aliases::Response, ApiError> {
    let view = app.view()?;
    let reading = Reading::new(&view, &req.who.user, Some(&req.who.device), app.clock.now_ms())?;
    reading.access(&req.body.room_id)?;
    let mut aliases = Vec::new();
    for alias in directory::aliases_of(&view, req.body.room_id.as_str()) {
        aliases.extend(OwnedRoomAliasId::try_from(alias?));
    }
    Ok(aliases::Response::new(aliases))
}

async fn visibility(app: App, req: Matrix<get_visibility::Request>) -> Result<get_visibility::Response, ApiError> {
    let view = app.view()?;
    let room = events::room_nid(&view, req.body.room_id.as_str())?;
    let room = room.ok_or_else(|| ApiError::not_found("this server doesn't know the room"))?;
    let published = directory::is_published(&view, room)?;
    Ok(get_visibility::Response::new(if published { Visibility::Public } else { Visibility::Private }))
}

async fn put_visibility(app: App, req: Matrix<set_visibility::Request>) -> Result<set_visibility::Response, ApiError> {
    let published = req.body.visibility == Visibility::Public;
    app.commands.publish(req.who.sender, req.body.room_id, published).await?;
    Ok(set_visibility::Response::new())
}

async fn list(app: App, req: Matrix<public_rooms::Request>) -> Result<public_rooms::Response, ApiError> {
    let page = Page::of(&app, req.body.server.as_deref(), req.body.limit, req.body.since.as_deref())?;
    let found = page.read(&app.view()?, &Filter::new())?;
    let mut response = public_rooms::Response::new(found.chunk);
    response.next_batch = found.next;
    response.prev_batch = found.prev;
    response.total_room_count_estimate = Some(UInt::new_saturating(found.total));
    Ok(response)
}

async fn search(app: App, req: Matrix<filtered_rooms::Request>) -> Result<filtered_rooms::Response, ApiError> {
    let page = Page::of(&app, req.body.server.as_deref(), req.body.limit, req.body.since.as_deref())?;
    let found = page.read(&app.view()?, &req.body.filter)?;
    let mut response = filtered_rooms::Response::new();
    response.chunk = found.chunk;
    response.next_batch = found.next;
    response.prev_batch = found.prev;
    response.total_room_count_estimate = Some(UInt::new_saturating(found.total));
    Ok(response)
}

/// A page of the public list: so many rooms after a place, or before one.
struct Page {
    limit: usize,
    from: From,
}

enum From {
    Start,
    After(Place),
    Before(Place),
}

struct Found {
    chunk: Vec<PublicRoomsChunk>,
    next: Option<String>,
    prev: Option<String>,
    total: u64,
}

impl Page {
    fn of(app: &App, server: Option<&ServerName>, limit: Option<UInt>, since: Option<&str>) -> Result<Self, ApiError> {
        if let Some(server) = server
            && server != app.config.server_name
        {
            return Err(ApiError::not_found("this server does not federate, so it can't ask others for their rooms"));
        }
        let limit = limit.map_or(PAGE, |limit| usize::try_from(u64::from(limit)).unwrap_or(PAGE));
        let from = since.map_or(Some(From::Start), token_of);
        let from = from.ok_or_else(|| ApiError::invalid("`since` is not a token of this list"))?;
        Ok(Self { limit: limit.min(PAGE), from })
    }

    fn read(&self, view: &View, filter: &Filter) -> Result<Found, ApiError> {
        let rows: Box<dyn Iterator<Item = _>> = match &self.from {
            From::Start => Box::new(directory::published(view, None)),
            From::After(place) => Box::new(directory::published(view, Some(place))),
            From::Before(place) => Box::new(directory::published_before(view, place)),
        };
        let backward = matches!(self.from, From::Before(_));
        let (mut chunk, mut first, mut last, mut more) = (Vec::new(), None, None, false);
        for (looked_at, row) in rows.enumerate() {
            let (place, room) = row?;
            if chunk.len() >= self.limit || looked_at >= SEARCH {
                more = true;
                break;
            }
            let summary = rooms::summary(view, room)?;
            chunk.extend(summary.filter(|summary| matches(summary, filter)).and_then(entry));
            first.get_or_insert_with(|| place.clone());
            last = Some(place);
        }
        if backward {
            chunk.reverse();
            std::mem::swap(&mut first, &mut last);
        }
        let (before, after) = if backward { (more, true) } else { (!matches!(self.from, From::Start), more) };
        let token = |letter: char, place: &Place| format!("{letter}{}_{}", place.joined, place.room);
        Ok(Found {
            chunk,
            next: last.filter(|_| after).map(|place| token('a', &place)),
            prev: first.filter(|_| before).map(|place| token('b', &place)),
            total: directory::total(view)?,
        })
    }
}

/// `a` is after and `b` before a place: `<joined members>_<room id>`.
fn token_of(token: &str) -> Option<From> {
    let place = |rest: &str| {
        let (joined, room) = rest.split_once('_')?;
        Some(Place { joined: joined.parse().ok()?, room: room.to_owned() })
    };
    match token.split_at_checked(1)? {
        ("a", rest) => place(rest).map(From::After),
        ("b", rest) => place(rest).map(From::Before),
        _ => None,
    }
}

fn matches(summary: &rooms::Summary, filter: &Filter) -> bool {
    let settings = &summary.settings;
    let has_type = |wanted: &Option<String>| *wanted == settings.room_type;
    let types: Vec<Option<String>> = filter.room_types.iter().map(|kind| kind.as_str().map(str::to_owned)).collect();
    if !types.is_empty() && !types.iter().any(has_type) {
        return false;
    }
    let Some(term) = &filter.generic_search_term else { return true };
    let term = term.to_lowercase();
    let texts = [&settings.name, &settings.topic, &settings.canonical_alias];
    texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&term))
}

fn entry(summary: rooms::Summary) -> Option<PublicRoomsChunk> {
    let settings = summary.settings;
    let mut chunk: PublicRoomsChunk = PublicRoomsChunkInit {
        num_joined_members: UInt::new_saturating(summary.figures.joined),
        room_id: OwnedRoomId::try_from(summary.id).ok()?,
        world_readable: settings.history_visibility.as_deref() == Some("world_readable"),
        guest_can_join: settings.guest_access.as_deref() == Some("can_join"),
    }
    .into();
    chunk.canonical_alias = settings.canonical_alias.and_then(|alias| alias.try_into().ok());
    chunk.name = settings.name;
    chunk.topic = settings.topic;
    chunk.avatar_url = settings.avatar.map(Into::into);
    chunk.join_rule = settings.join_rule.map_or(JoinRuleKind::Invite, Into::into);
    chunk.room_type = settings.room_type.map(Into::into);
    Some(chunk)
}
