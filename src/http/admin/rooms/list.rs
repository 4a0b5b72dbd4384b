//! The list of rooms.
//!
//! `GET /_synapse/admin/v1/rooms`

use axum::{Json, Router, extract::State, routing::get};
use projections::{
    StoreError,
    models::rooms::{self, Filter, Order, Summary},
};
use ruma::api::Direction;
use serde::Serialize;

use super::Row;
use crate::http::{
    App,
    admin::{Admin, params::Params},
    reply::ApiError,
};

/// So many rooms are on a page that doesn't say how many …
const PAGE: usize = 100;
/// … and on any page at most.
const MAX_PAGE: usize = 10_000;

const ORDERS: [(&str, Order); 15] = [
    // The former names of two others.
    ("alphabetical", Order::Name),
    ("size", Order::JoinedMembers),
    ("name", Order::Name),
    ("canonical_alias", Order::CanonicalAlias),
    ("joined_members", Order::JoinedMembers),
    ("joined_local_members", Order::JoinedLocalMembers),
    ("version", Order::Version),
    ("creator", Order::Creator),
    ("encryption", Order::Encryption),
    ("federatable", Order::Federatable),
    ("public", Order::Public),
    ("join_rules", Order::JoinRules),
    ("guest_access", Order::GuestAccess),
    ("history_visibility", Order::HistoryVisibility),
    ("state_events", Order::StateEvents),
];

pub fn routes() -> Router<App> {
    Router::new().route("/_synapse/admin/v1/rooms", get(list))
}

#[derive(Serialize)]
struct Rooms {
    rooms: Vec<Row>,
    offset: u64,
    total_rooms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<u64>,
}

async fn list(State(app): State<App>, _: Admin, params: Params) -> Result<Json<Rooms>, ApiError> {
    let offset = params.integer("from")?.unwrap_or(0);
    let limit = params.count("limit")?.unwrap_or(PAGE).min(MAX_PAGE);
    let order = params.one_of("order_by", &ORDERS)?.unwrap_or(Order::Name);
    let term = params.text("search_term").map(ToOwned::to_owned);
    if term.as_deref() == Some("") {
        return Err(ApiError::invalid("search_term cannot be an empty string"));
    }
    let filter = Filter { term, public: params.boolean("public_rooms")?, empty: params.boolean("empty_rooms")? };
    let falling = order.falls() != (params.direction()? == Direction::Backward);
    let view = app.view()?;
    let page = rooms::page(&view, order, falling, &filter, offset, limit)?;
    let rows = page.rows.iter().filter_map(|room| rooms::summary(&view, *room).transpose());
    let rooms: Result<Vec<Summary>, StoreError> = rows.collect();
    let size = limit as u64;
    // A page without room for any leads nowhere: who follows it would never come to an end.
    let next = Some(offset.saturating_add(size)).filter(|next| size > 0 && *next < page.total);
    let reply = Rooms {
        rooms: rooms?.into_iter().map(Row::from).collect(),
        offset,
        total_rooms: page.total,
        next_batch: next,
        prev_batch: (offset > 0).then(|| offset.saturating_sub(size)),
    };
    Ok(Json(reply))
}
