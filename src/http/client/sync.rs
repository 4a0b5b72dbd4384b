//! Client-server API, "Syncing".
//!
//! `GET /_matrix/client/v3/sync`, and its early form `GET /_matrix/client/v2_alpha/sync`

use axum::{Json, Router, extract::State, routing::get};
use projections::models::account_data;
use ruma::{
    UInt,
    api::{
        OutgoingResponseExt,
        client::{
            filter::FilterDefinition,
            sync::sync_events::v3::{self as sync, Filter},
        },
        error::ErrorKind,
    },
    presence::PresenceState,
};
use serde_json::{Map, Value};

use crate::{
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
    sync::{
        SyncError,
        v3::{Asker, DEFAULT_LIMIT, Related, Wanted},
    },
};

pub(super) fn routes() -> Router<App> {
    Router::new().matrix(sync).route("/_matrix/client/v2_alpha/sync", get(early_sync))
}

async fn sync(app: App, request: Matrix<sync::Request>) -> Result<sync::Response, ApiError> {
    let Matrix { body, who, received } = request;
    let since = body.since.as_deref().map(str::parse).transpose();
    let since = since.map_err(|error: crate::sync::BadToken| ApiError::invalid(error.to_string()))?;
    let (mut filter, related) = match body.filter {
        None => <(FilterDefinition, Related)>::default(),
        Some(Filter::FilterId(id)) => read_filter(&stored_filter(&app, who.user.as_str(), &id)?)?,
        Some(_) => read_filter(&received.parameter("filter").unwrap_or_default())?,
    };
    let events = filter.room.timeline.limit.unwrap_or(UInt::new_saturating(DEFAULT_LIMIT as u64));
    let most = UInt::new_saturating(app.config.limits.sync_timeline_events as u64);
    filter.room.timeline.limit = Some(events.min(most));
    let shows_up = body.set_presence != PresenceState::Offline && app.config.presence.enabled;
    let _present = shows_up.then(|| app.ephemeral.present(&who.user, body.set_presence));
    if let Some(since) = &since {
        app.acknowledged.note(&app.view()?, &who.sender, since)?;
    }
    let asker = Asker { user: who.user.clone(), device: who.device.clone(), now_ms: app.clock.now_ms() };
    let (full_state, use_state_after) = (body.full_state, body.use_state_after);
    let acknowledged = app.acknowledged.of(&who.sender);
    let wanted = Wanted { since, filter, related, full_state, use_state_after, lost: false, acknowledged };
    let timeout = body.timeout.unwrap_or_default().min(app.config.limits.sync_timeout);
    Ok(app.syncs.sync(&asker, wanted, timeout).await?)
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Store(error) => error.into(),
            SyncError::Ahead => Self::unavailable(error.to_string()),
        }
    }
}

fn stored_filter(app: &App, user: &str, id: &str) -> Result<String, ApiError> {
    let stored = account_data::filter(&app.view()?, user, id)?;
    let stored = stored.ok_or_else(|| ApiError::new(ErrorKind::InvalidParam, "there is no such filter"))?;
    Ok(stored.as_str().into_owned())
}

fn read_filter(text: &str) -> Result<(FilterDefinition, Related), ApiError> {
    let filter = serde_json::from_str(text).and_then(|filter| Ok((filter, serde_json::from_str(text)?)));
    filter.map_err(|error| ApiError::invalid(format!("the filter is not one: {error}")))
}

/// The early form: the same answer, with events in a map by their id and lists of ids in timeline and state.
async fn early_sync(State(app): State<App>, request: Matrix<sync::Request>) -> Result<Json<Value>, ApiError> {
    let response = sync(app, request).await?;
    let http = response.try_into_http_response::<Vec<u8>>().map_err(|error| ApiError::internal(&error))?;
    let body: Map<String, Value> = serde_json::from_slice(http.body()).map_err(|error| ApiError::internal(&error))?;
    Ok(Json(Value::Object(early(body))))
}

fn early(mut body: Map<String, Value>) -> Map<String, Value> {
    let mut sections = take_object(&mut body, "rooms");
    let mut rooms = Map::new();
    for (now, then) in [("join", "joined"), ("invite", "invited"), ("leave", "archived")] {
        let mut section = take_object(&mut sections, now);
        for (id, room) in &mut section {
            if let (Value::Object(room), true) = (room, now != "invite") {
                early_room(id, room);
            }
        }
        rooms.insert(then.to_owned(), Value::Object(section));
    }
    body.insert("rooms".to_owned(), Value::Object(rooms));
    body.entry("presence").or_insert_with(|| serde_json::json!({ "events": [] }));
    body
}

fn early_room(id: &str, room: &mut Map<String, Value>) {
    let mut map = Map::new();
    for name in ["state", "timeline"] {
        let mut batch = take_object(room, name);
        let events = match batch.remove("events") {
            Some(Value::Array(events)) => events,
            _ => Vec::new(),
        };
        let mut ids = Vec::with_capacity(events.len());
        for mut event in events {
            if let Some(Value::String(event_id)) = event.as_object_mut().and_then(|event| event.remove("event_id")) {
                rename_transaction(&mut event);
                map.insert(event_id.clone(), event);
                ids.push(Value::String(event_id));
            }
        }
        batch.insert("events".to_owned(), Value::Array(ids));
        room.insert(name.to_owned(), Value::Object(batch));
    }
    room.insert("event_map".to_owned(), Value::Object(map));
    if let Some(events) = room.get_mut("ephemeral").and_then(|ephemeral| ephemeral.get_mut("events")) {
        for event in events.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            event.insert("room_id".to_owned(), Value::String(id.to_owned()));
        }
    }
}

fn rename_transaction(event: &mut Value) {
    if let Some(unsigned) = event.get_mut("unsigned").and_then(Value::as_object_mut)
        && let Some(id) = unsigned.remove("transaction_id")
    {
        unsigned.insert("txn_id".to_owned(), id);
    }
}

fn take_object(from: &mut Map<String, Value>, key: &str) -> Map<String, Value> {
    match from.remove(key) {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    }
}
