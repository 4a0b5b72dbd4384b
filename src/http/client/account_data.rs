//! Client-server API, "Client Config", "Room Tagging" and "Filtering".
//!
//! `GET` and `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`,
//! `GET` and `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`,
//! `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`,
//! `PUT` and `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`,
//! `POST /_matrix/client/v3/user/{userId}/filter`, `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`

use axum::{Router, http::StatusCode};
use projections::models::{account_data, push_rules};
use ruma::{
    api::{
        client::{
            config::{
                get_global_account_data::v3 as get_global, get_room_account_data::v3 as get_room,
                set_global_account_data::v3 as set_global, set_room_account_data::v3 as set_room,
            },
            filter::{create_filter::v3 as create_filter, get_filter::v3 as get_filter},
            tag::{create_tag::v3 as create_tag, delete_tag::v3 as delete_tag, get_tags::v3 as get_tags},
        },
        error::ErrorKind,
    },
    events::tag::{TagInfo, Tags},
};
use schemas::Json;
use serde_json::{Map, Value, json};

use crate::{
    commands::{account_data as commands, content, receipts::FULLY_READ},
    http::{
        App,
        extract::{Matrix, Routes},
        reply::{ApiError, raw},
    },
};

/// Push rules look like account data, but have endpoints of their own.
const PUSH_RULES: &str = "m.push_rules";

pub fn routes() -> Router<App> {
    Router::new()
        .matrix(global)
        .matrix(set_global_data)
        .matrix(of_room)
        .matrix(set_room_data)
        .matrix(tags)
        .matrix(tag)
        .matrix(untag)
        .matrix(store_filter)
        .matrix(filter)
}

async fn global(app: App, request: Matrix<get_global::Request>) -> Result<get_global::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    let (view, user, event_type) = (app.view()?, request.who.user.as_str(), request.body.event_type.to_string());
    let content = if event_type == PUSH_RULES {
        Some(content::written(&json!({ "global": push_rules::of_user(&view, user)? }))?)
    } else {
        account_data::get(&view, user, None, &event_type)?
    };
    Ok(get_global::Response::new(raw(content.ok_or_else(|| none_of(&event_type))?)?))
}

async fn set_global_data(app: App, request: Matrix<set_global::Request>) -> Result<set_global::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    let event_type = request.body.event_type.to_string();
    check_is_clients(&event_type)?;
    let content = content::object(request.body.data.json().get())?;
    commands::set(&app.commands, &request.who, None, &event_type, content).await?;
    Ok(set_global::Response::new())
}

async fn of_room(app: App, request: Matrix<get_room::Request>) -> Result<get_room::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    let (user, room, event_type) =
        (request.who.user.as_str(), request.body.room_id.as_str(), request.body.event_type.to_string());
    let content = account_data::get(&app.view()?, user, Some(room), &event_type)?;
    Ok(get_room::Response::new(raw(content.ok_or_else(|| none_of(&event_type))?)?))
}

async fn set_room_data(app: App, request: Matrix<set_room::Request>) -> Result<set_room::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    let event_type = request.body.event_type.to_string();
    check_is_clients(&event_type)?;
    let content = content::object(request.body.data.json().get())?;
    commands::set(&app.commands, &request.who, Some(&request.body.room_id), &event_type, content).await?;
    Ok(set_room::Response::new())
}

async fn tags(app: App, request: Matrix<get_tags::Request>) -> Result<get_tags::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    let (user, room) = (request.who.user.as_str(), request.body.room_id.as_str());
    let content = account_data::get(&app.view()?, user, Some(room), account_data::TAGS)?;
    Ok(get_tags::Response::new(content.map_or_else(Tags::new, |content| readable_tags(&content))))
}

/// Clients can set the content of `m.tag` themselves, and so to anything.
fn readable_tags(content: &Json) -> Tags {
    let mut content: Map<String, Value> = content.read().unwrap_or_default();
    let tags: Map<String, Value> =
        content.remove("tags").and_then(|tags| serde_json::from_value(tags).ok()).unwrap_or_default();
    let info = |info: Value| serde_json::from_value(info).unwrap_or_else(|_| TagInfo::new());
    tags.into_iter().map(|(name, tag)| (name.into(), info(tag))).collect()
}

async fn tag(app: App, request: Matrix<create_tag::Request>) -> Result<create_tag::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    // As it came: tags may say more than ruma knows of.
    let content = content::object(&String::from_utf8_lossy(&request.received.raw))?;
    commands::tag(&app.commands, &request.who, &request.body.room_id, &request.body.tag, Some(content)).await?;
    Ok(create_tag::Response::new())
}

async fn untag(app: App, request: Matrix<delete_tag::Request>) -> Result<delete_tag::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    commands::tag(&app.commands, &request.who, &request.body.room_id, &request.body.tag, None).await?;
    Ok(delete_tag::Response::new())
}

async fn store_filter(app: App, request: Matrix<create_filter::Request>) -> Result<create_filter::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    // As it came: ruma's filters lack some fields.
    let filter = content::object(&String::from_utf8_lossy(&request.received.raw))?;
    Ok(create_filter::Response::new(commands::store_filter(&app.commands, &request.who, filter).await?))
}

async fn filter(app: App, request: Matrix<get_filter::Request>) -> Result<get_filter::Response, ApiError> {
    request.who.must_be(&request.body.user_id)?;
    let filter = account_data::filter(&app.view()?, request.who.user.as_str(), &request.body.filter_id)?;
    let filter = filter.ok_or_else(|| ApiError::not_found("there is no filter with this id"))?;
    Ok(get_filter::Response::new(filter.read().map_err(|error| ApiError::internal(&error))?))
}

fn none_of(event_type: &str) -> ApiError {
    ApiError::not_found(format!("there is no account data of the type {event_type}"))
}

fn check_is_clients(event_type: &str) -> Result<(), ApiError> {
    if matches!(event_type, PUSH_RULES | FULLY_READ) {
        let message = format!("{event_type} has endpoints of its own and can't be set here");
        return Err(ApiError::with_status(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::BadJson, message));
    }
    Ok(())
}
