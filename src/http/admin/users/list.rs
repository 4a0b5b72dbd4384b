//! Which users there are.
//!
//! `GET /_synapse/admin/v2/users`, `GET /_synapse/admin/v3/users`, `GET /_synapse/admin/v1/search_users/{userId}`

use axum::{Router, extract::State, routing::get};
use projections::{
    View,
    models::users::{self, Filter, Order, User},
};
use ruma::{UserId, api::Direction};
use serde::Serialize;

use super::{Admin, local, params::Params};
use crate::http::{App, extract::Path, reply::ApiError};

/// So many users are on a page that doesn't say how many …
const PAGE: usize = 100;
/// … and on any page at most.
const MAX_PAGE: usize = 10_000;

const ORDERS: &[(&str, Order)] = &[
    ("name", Order::Name),
    ("displayname", Order::DisplayName),
    ("is_guest", Order::Guest),
    ("admin", Order::Admin),
    ("deactivated", Order::Deactivated),
    ("user_type", Order::UserType),
    ("avatar_url", Order::AvatarUrl),
    ("shadow_banned", Order::ShadowBanned),
    ("creation_ts", Order::Created),
    ("last_seen_ts", Order::LastSeen),
    ("locked", Order::Locked),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v2/users", get(list_v2))
        .route("/_synapse/admin/v3/users", get(list_v3))
        .route("/_synapse/admin/v1/search_users/{user_id}", get(search))
}

#[derive(Serialize)]
struct Shown {
    name: String,
    user_type: Option<String>,
    is_guest: bool,
    admin: bool,
    deactivated: bool,
    shadow_banned: bool,
    displayname: Option<String>,
    avatar_url: Option<String>,
    creation_ts: u64,
    erased: bool,
    last_seen_ts: Option<u64>,
    locked: bool,
    suspended: bool,
}

impl Shown {
    fn new(app: &App, view: &View, user: User) -> Result<Self, ApiError> {
        let id = UserId::parse(&user.id).map_err(|error| ApiError::internal(&error))?;
        Ok(Self {
            // What this node has seen may not be on the log yet.
            last_seen_ts: app.seen.of_user(view, &id)?,
            name: user.id,
            user_type: user.user_type,
            is_guest: user.guest,
            admin: user.admin,
            deactivated: user.deactivated,
            shadow_banned: user.shadow_banned,
            displayname: user.display_name,
            avatar_url: user.avatar_url,
            creation_ts: user.created_at_ms,
            erased: user.erased,
            locked: user.locked,
            suspended: user.suspended,
        })
    }
}

#[derive(Serialize)]
struct List {
    users: Vec<Shown>,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Those who are deactivated are left out unless they are asked for.
async fn list_v2(State(app): State<App>, _: Admin, query: Params) -> Result<axum::Json<List>, ApiError> {
    let with_deactivated = query.boolean("deactivated")?.unwrap_or(false);
    list(&app, &query, (!with_deactivated).then_some(false))
}

/// Those who are deactivated are in it unless it is asked for them alone, or for all others.
async fn list_v3(State(app): State<App>, _: Admin, query: Params) -> Result<axum::Json<List>, ApiError> {
    let deactivated = query.boolean("deactivated")?;
    list(&app, &query, deactivated)
}

fn list(app: &App, query: &Params, deactivated: Option<bool>) -> Result<axum::Json<List>, ApiError> {
    let from = query.integer("from")?.unwrap_or(0);
    let limit = query.count("limit")?.unwrap_or(PAGE).min(MAX_PAGE);
    let text = |name| query.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let but = |with: Option<bool>, usually: bool| (!with.unwrap_or(usually)).then_some(false);
    let filter = Filter {
        name: text("name"),
        user_id: text("user_id"),
        guests: but(query.boolean("guests")?, true),
        deactivated,
        admins: query.boolean("admins")?,
        locked: but(query.boolean("locked")?, false),
        not_types: query.texts("not_user_type").map(str::to_owned).collect(),
    };
    let order = query.one_of("order_by", ORDERS)?.unwrap_or(Order::Name);
    let falling = query.direction()? == Direction::Backward;
    let view = app.view()?;
    let page = users::page(&view, order, falling, &filter, from, limit)?;
    let rows = page.rows.iter().filter_map(|user| users::get(&view, *user).transpose());
    let users = rows.map(|user| Shown::new(app, &view, user?)).collect::<Result<Vec<_>, ApiError>>()?;
    let next = from.saturating_add(limit as u64);
    // A page without room for any leads nowhere: who follows it would never come to an end.
    let next_token = (limit > 0 && next < page.total).then(|| next.to_string());
    Ok(axum::Json(List { users, total: page.total, next_token }))
}

/// What Synapse's old search says of a user. No hash of a password ever leaves the server: it is null.
#[derive(Serialize)]
struct Found {
    name: String,
    password_hash: Option<String>,
    is_guest: bool,
    admin: bool,
    user_type: Option<String>,
}

async fn search(
    State(app): State<App>,
    _: Admin,
    Path(user): Path<String>,
    query: Params,
) -> Result<axum::Json<Vec<Found>>, ApiError> {
    local(&app, &user, "Can only users a local user")?;
    let term = query.required_text("term")?;
    let filter = Filter { user_id: Some(term.to_owned()), ..Filter::default() };
    let view = app.view()?;
    let page = users::page(&view, Order::Name, false, &filter, 0, MAX_PAGE)?;
    let mut found = Vec::new();
    for row in page.rows {
        let Some(User { id: name, guest: is_guest, admin, user_type, .. }) = users::get(&view, row)? else { continue };
        found.push(Found { name, password_hash: None, is_guest, admin, user_type });
    }
    Ok(axum::Json(found))
}
