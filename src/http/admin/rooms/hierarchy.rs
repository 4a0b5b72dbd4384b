//! The rooms of a space, and of the spaces in it.
//!
//! `GET /_synapse/admin/v1/rooms/{room_id}/hierarchy`

use std::collections::HashSet;

use axum::{Router, extract::State, routing::get};
use hmac::{Hmac, KeyInit, Mac};
use projections::{
    StoreError, View,
    models::{events, rooms, state},
};
use ruma::{OwnedRoomId, RoomId};
use schemas::Nid;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use sha2::Sha256;

use crate::http::{
    App,
    admin::{Admin, params::Params},
    client::rooms::summarise,
    extract::Path,
    reply::ApiError,
};

/// The most rooms in one page.
const MAX_PAGE: usize = 50;
/// A page begins where the one before ended by going through the space once more: further than so many rooms nobody gets.
const MAX_WALKED: usize = 20_000;
/// How long a token is good, milliseconds.
const VALIDITY_MS: u64 = 5 * 60 * 1_000;

pub fn routes() -> Router<App> {
    Router::new().route("/_synapse/admin/v1/rooms/{room_id}/hierarchy", get(hierarchy))
}

#[derive(Serialize)]
struct Page {
    rooms: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
}

async fn hierarchy(
    State(app): State<App>,
    by: Admin,
    Path(room): Path<String>,
    params: Params,
) -> Result<axum::Json<Page>, ApiError> {
    let max_depth = params.integer("max_depth")?;
    let limit = params.count("limit")?.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    let ticket = Ticket { app: &app, caller: by.name(), room: &room, max_depth };
    let from = params.text("from").map(|token| ticket.read(token)).transpose()?.unwrap_or_default();
    let view = app.view()?;
    let mut walk = Walk { view: &view, max_depth, todo: Vec::new(), seen: HashSet::new() };
    walk.todo.extend(RoomId::parse(&*room).ok().map(|room| Step { room, depth: 0 }));
    let mut found = Vec::with_capacity(limit);
    let mut walked = 0;
    while walked < from + limit {
        let Some(entry) = walk.next()? else { break };
        if walked >= from {
            found.push(entry.shown()?);
        }
        walked += 1;
    }
    let more = !walk.todo.is_empty() && walked < MAX_WALKED;
    Ok(axum::Json(Page { rooms: found, next_batch: more.then(|| ticket.issue(walked)).transpose()? }))
}

/// A room that is to be looked at.
struct Step {
    room: OwnedRoomId,
    depth: u64,
}

/// A way through a space, depth first, each room once.
struct Walk<'a> {
    view: &'a View,
    max_depth: Option<u64>,
    /// The next one is the last.
    todo: Vec<Step>,
    seen: HashSet<OwnedRoomId>,
}

/// A room of which this server has members.
struct Entry {
    id: OwnedRoomId,
    summary: rooms::Summary,
    /// Of a space.
    children: Vec<Child>,
}

/// An `m.space.child` of a space.
struct Child {
    room: OwnedRoomId,
    head: events::Head,
    content: Box<RawValue>,
}

impl Walk<'_> {
    fn next(&mut self) -> Result<Option<Entry>, StoreError> {
        while let Some(Step { room, depth }) = self.todo.pop() {
            if !self.seen.insert(room.clone()) {
                continue;
            }
            // Of a room without members of this server, what is known may be long past: it is a hole.
            let Some(nid) = events::room_nid(self.view, room.as_str())? else { continue };
            let Some(summary) = rooms::summary(self.view, nid)?.filter(|room| room.figures.joined_local > 0) else {
                continue;
            };
            let is_space = summary.settings.room_type.as_deref() == Some("m.space");
            let children = if is_space { children(self.view, nid)? } else { Vec::new() };
            if self.max_depth.is_none_or(|max| depth < max) {
                let steps = children.iter().rev().map(|child| Step { room: child.room.clone(), depth: depth + 1 });
                self.todo.extend(steps);
            }
            return Ok(Some(Entry { id: room, summary, children }));
        }
        Ok(None)
    }
}

/// The children of a space in its order (client-server API, "Ordering of children within a space").
fn children(view: &View, space: Nid) -> Result<Vec<Child>, StoreError> {
    #[derive(Deserialize)]
    struct Event {
        content: Box<RawValue>,
    }
    #[derive(Deserialize)]
    struct Content {
        via: Vec<String>,
        order: Option<Value>,
    }
    let mut children = Vec::new();
    for entry in state::of_type(view, &state::current(view, space)?, "m.space.child") {
        let entry = entry?;
        let Ok(room) = OwnedRoomId::try_from(entry.state_key) else { continue };
        let (Some(head), Some(text)) = (events::head(view, entry.event)?, events::client(view, entry.event)?) else {
            continue;
        };
        let Ok(Event { content }) = serde_json::from_str(&text) else { continue };
        // A child without a way to it was taken out of the space.
        let Some(Content { order, .. }) =
            serde_json::from_str::<Content>(content.get()).ok().filter(|content| !content.via.is_empty())
        else {
            continue;
        };
        let valid = |order: &&str| order.len() <= 50 && order.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        let order = order.as_ref().and_then(Value::as_str).filter(valid).map(str::to_owned);
        let key = (order.is_none(), order, head.origin_server_ts, room.clone());
        children.push((key, Child { room, head, content }));
    }
    children.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(children.into_iter().map(|(_, child)| child).collect())
}

impl Entry {
    fn shown(self) -> Result<Map<String, Value>, ApiError> {
        let join_rule = self.summary.settings.join_rule.clone().unwrap_or_else(|| "invite".to_owned());
        let room = summarise(self.id, self.summary, Vec::new());
        let json = serde_json::to_value(&room).map_err(|error| ApiError::internal(&error))?;
        let Value::Object(mut json) = json else { return Ok(Map::new()) };
        json.insert("join_rule".to_owned(), join_rule.into());
        json.remove("allowed_room_ids");
        let children: Vec<_> = self.children.into_iter().map(Child::stripped).collect();
        json.insert("children_state".to_owned(), children.into());
        Ok(json)
    }
}

impl Child {
    fn stripped(self) -> Value {
        serde_json::json!({
            "type": "m.space.child",
            "state_key": self.room,
            "content": self.content,
            "sender": self.head.sender,
            "origin_server_ts": self.head.origin_server_ts,
        })
    }
}

/// What a token is for: one caller, room and depth. It says how many rooms come before it and when it was given, and is
/// sealed, so that it is good at every node.
struct Ticket<'a> {
    app: &'a App,
    caller: &'a str,
    room: &'a str,
    max_depth: Option<u64>,
}

impl Ticket<'_> {
    fn issue(&self, walked: usize) -> Result<String, ApiError> {
        let claim = format!("{walked}.{}", self.app.clock.now_ms());
        let seal = hex::encode(self.seal(&claim)?.finalize().into_bytes());
        Ok(format!("{claim}.{seal}"))
    }

    /// How many rooms come before it.
    fn read(&self, token: &str) -> Result<usize, ApiError> {
        let unknown = || ApiError::invalid("Unknown pagination token");
        let (claim, seal) = token.rsplit_once('.').ok_or_else(unknown)?;
        let seal = hex::decode(seal).map_err(|_| unknown())?;
        self.seal(claim)?.verify_slice(&seal).map_err(|_| unknown())?;
        let (walked, at_ms) = claim.split_once('.').ok_or_else(unknown)?;
        let at_ms: u64 = at_ms.parse().map_err(|_| unknown())?;
        if at_ms.saturating_add(VALIDITY_MS) <= self.app.clock.now_ms() {
            return Err(unknown());
        }
        walked.parse().map_err(|_| unknown())
    }

    fn seal(&self, claim: &str) -> Result<Hmac<Sha256>, ApiError> {
        let secret = self.app.commands.parts().key.secret("pages of a space");
        let seal = Hmac::<Sha256>::new_from_slice(&secret).map_err(|error| ApiError::internal(&error))?;
        let depth = self.max_depth.map(|depth| depth.to_string()).unwrap_or_default();
        Ok([self.caller, self.room, &depth, claim]
            .iter()
            .fold(seal, |seal, part| seal.chain_update(part).chain_update([0])))
    }
}
