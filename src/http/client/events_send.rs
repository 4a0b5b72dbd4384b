//! Client-server API, "Sending events to a room" and "Redactions".
//!
//! `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`,
//! `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}` and without a state key,
//! `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`

use axum::Router;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ruma::{
    CanonicalJsonValue, OwnedEventId, TransactionId,
    api::{
        IncomingRequest,
        client::{
            message::send_message_event::v3 as send_message, redact::redact_event::v3 as redact_event,
            state::send_state_event::v3 as send_state,
        },
    },
};
use sha2::{Digest, Sha256};

use crate::{
    commands::{content, events::By},
    http::{
        App,
        auth::{Identify, Session},
        extract::{Matrix, Routes},
        limit::Limit,
        reply::ApiError,
    },
};

pub(super) fn routes() -> Router<App> {
    let mut routes = Router::new().matrix(send).matrix(set_state).matrix(redact);
    // Without a state key, and with an empty one.
    for path in ["/rooms/{room_id}/state/{event_type}", "/rooms/{room_id}/state/{event_type}/"] {
        for version in ["r0", "v3"] {
            routes = routes.matrix_at(&format!("/_matrix/client/{version}{path}"), set_state);
        }
    }
    routes
}

async fn send(app: App, req: Matrix<send_message::Request>) -> Result<send_message::Response, ApiError> {
    app.throttle(Limit::Message, &req.who)?;
    let by = by(&req, &req.body.txn_id);
    let content = content::canonical(req.body.body.json().get())?;
    if req.who.shadow_banned {
        return Ok(send_message::Response::new(never_sent(&app, &by)?));
    }
    let id = app.commands.send_message(by, &req.body.room_id, &req.received.args[1], content).await?;
    Ok(send_message::Response::new(id))
}

async fn set_state(app: App, req: Matrix<send_state::Request>) -> Result<send_state::Response, ApiError> {
    let content = content::canonical(req.body.body.json().get())?;
    let (by, event_type) = (By::from(&req.who.sender), &req.received.args[1]);
    let membership = content.get("membership").and_then(CanonicalJsonValue::as_str);
    let comes_in = event_type == "m.room.member" && matches!(membership, Some("join" | "knock"));
    app.throttle(if comes_in { Limit::Join } else { Limit::Message }, &req.who)?;
    // Their own comings and goings are theirs.
    if req.who.shadow_banned && (event_type != "m.room.member" || membership == Some("invite")) {
        return Ok(send_state::Response::new(never_sent(&app, &by)?));
    }
    let id = app.commands.send_state(by, &req.body.room_id, event_type, &req.body.state_key, content).await?;
    Ok(send_state::Response::new(id))
}

async fn redact(app: App, req: Matrix<redact_event::Request>) -> Result<redact_event::Response, ApiError> {
    app.throttle(Limit::Message, &req.who)?;
    let by = by(&req, &req.body.txn_id);
    if req.who.shadow_banned {
        return Ok(redact_event::Response::new(never_sent(&app, &by)?));
    }
    let id = app.commands.redact(by, &req.body.room_id, req.body.event_id, req.body.reason).await?;
    Ok(redact_event::Response::new(id))
}

/// Who sends, by a request that has an effect once.
fn by<R>(req: &Matrix<R>, txn: &TransactionId) -> By
where
    R: IncomingRequest,
    R::Authentication: Identify<Who = Session>,
{
    By { sender: req.who.sender.clone(), request: req.once(txn), transaction: Some(txn.to_string()) }
}

/// What looks like the id of an event, for whoever is not to know that others don't get it; a repeated request gets the same.
fn never_sent(app: &App, by: &By) -> Result<OwnedEventId, ApiError> {
    let seed = by.request.id.map_or_else(|| app.random.bytes(), |id| id.0);
    let id = format!("${}", BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(seed)));
    OwnedEventId::try_from(id).map_err(|error| ApiError::internal(&error))
}
