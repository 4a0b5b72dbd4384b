//! Which users there are.
//!
//! `GET /_synapse/admin/v2/users`, `GET /_synapse/admin/v3/users`, `GET /_synapse/admin/v1/search_users/{userId}`

use std::cmp::Ordering;

use axum::{Router, extract::State, routing::get};
use projections::{
    View,
    models::{accounts, accounts::Account, seen},
};
use ruma::api::Direction;
use schemas::facts::UserKind;
use serde::Serialize;

use super::{Admin, field, local, params::Params};
use crate::http::{App, extract::Path, reply::ApiError};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v2/users", get(list_v2))
        .route("/_synapse/admin/v3/users", get(list_v3))
        .route("/_synapse/admin/v1/search_users/{user_id}", get(search))
}

/// What the list can be ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Name,
    DisplayName,
    Guest,
    Admin,
    Deactivated,
    UserType,
    Avatar,
    ShadowBanned,
    Created,
    LastSeen,
    Locked,
}

const ORDERS: &[(&str, Order)] = &[
    ("name", Order::Name),
    ("displayname", Order::DisplayName),
    ("is_guest", Order::Guest),
    ("admin", Order::Admin),
    ("deactivated", Order::Deactivated),
    ("user_type", Order::UserType),
    ("avatar_url", Order::Avatar),
    ("shadow_banned", Order::ShadowBanned),
    ("creation_ts", Order::Created),
    ("last_seen_ts", Order::LastSeen),
    ("locked", Order::Locked),
];

/// Which users are wanted.
struct Wanted {
    /// Part of the localpart or of the display name, in lower case.
    name: Option<String>,
    /// Part of the user id, in lower case; counts where there is no name.
    user_id: Option<String>,
    guests: bool,
    deactivated: Option<bool>,
    locked: bool,
    admins: Option<bool>,
    /// An empty one stands for those without a type.
    not_types: Vec<String>,
}

impl Wanted {
    fn read(query: &Params, deactivated: Option<bool>) -> Result<Self, ApiError> {
        let text = |name| query.text(name).filter(|text| !text.is_empty()).map(str::to_lowercase);
        Ok(Self {
            name: text("name"),
            user_id: text("user_id"),
            guests: query.boolean("guests")?.unwrap_or(true),
            deactivated,
            locked: query.boolean("locked")?.unwrap_or(false),
            admins: query.boolean("admins")?,
            not_types: query.texts("not_user_type").map(str::to_owned).collect(),
        })
    }

    fn takes(&self, user: &Shown) -> bool {
        let named = match (&self.name, &self.user_id) {
            (Some(part), _) => {
                let localpart = user.name.trim_start_matches('@').split(':').next().unwrap_or_default();
                let shown = user.displayname.as_ref().map(|name| name.to_lowercase());
                localpart.to_lowercase().contains(part) || shown.is_some_and(|name| name.contains(part))
            }
            (None, Some(part)) => user.name.to_lowercase().contains(part),
            (None, None) => true,
        };
        let user_type = user.user_type.as_deref().unwrap_or_default();
        named
            && (self.guests || !user.is_guest)
            && (self.locked || !user.locked)
            && self.deactivated.is_none_or(|wanted| user.deactivated == wanted)
            && self.admins.is_none_or(|wanted| user.admin == wanted)
            && !self.not_types.iter().any(|not| not == user_type)
    }
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
    fn new(view: &View, name: String, account: Account) -> Result<Self, ApiError> {
        Ok(Self {
            displayname: field(view, &name, "displayname")?,
            avatar_url: field(view, &name, "avatar_url")?,
            last_seen_ts: seen::last(view, &name)?,
            user_type: account.user_type,
            is_guest: account.kind == UserKind::Guest,
            admin: account.admin,
            deactivated: account.deactivated,
            shadow_banned: account.shadow_banned,
            creation_ts: account.created_at_ms,
            erased: account.erased,
            locked: account.locked,
            suspended: account.suspended,
            name,
        })
    }

    /// By what they are ordered by. Who has none of it comes last.
    fn cmp_by(&self, order: Order, other: &Self) -> Ordering {
        fn none_last<T: Ord>(one: Option<&T>, other: Option<&T>) -> Ordering {
            (one.is_none(), one).cmp(&(other.is_none(), other))
        }
        match order {
            Order::Name => self.name.cmp(&other.name),
            Order::DisplayName => none_last(self.displayname.as_ref(), other.displayname.as_ref()),
            Order::Guest => self.is_guest.cmp(&other.is_guest),
            Order::Admin => self.admin.cmp(&other.admin),
            Order::Deactivated => self.deactivated.cmp(&other.deactivated),
            Order::UserType => none_last(self.user_type.as_ref(), other.user_type.as_ref()),
            Order::Avatar => none_last(self.avatar_url.as_ref(), other.avatar_url.as_ref()),
            Order::ShadowBanned => self.shadow_banned.cmp(&other.shadow_banned),
            Order::Created => self.creation_ts.cmp(&other.creation_ts),
            Order::LastSeen => none_last(self.last_seen_ts.as_ref(), other.last_seen_ts.as_ref()),
            Order::Locked => self.locked.cmp(&other.locked),
        }
    }
}

#[derive(Serialize)]
struct List {
    users: Vec<Shown>,
    total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Those who are deactivated are left out unless they are asked for.
async fn list_v2(State(app): State<App>, _: Admin, query: Params) -> Result<axum::Json<List>, ApiError> {
    let deactivated = query.boolean("deactivated")?;
    list(&app, &query, if deactivated == Some(true) { None } else { Some(false) })
}

/// Those who are deactivated are in it unless it is asked for them alone, or for all others.
async fn list_v3(State(app): State<App>, _: Admin, query: Params) -> Result<axum::Json<List>, ApiError> {
    let deactivated = query.boolean("deactivated")?;
    list(&app, &query, deactivated)
}

fn list(app: &App, query: &Params, deactivated: Option<bool>) -> Result<axum::Json<List>, ApiError> {
    let from = query.count("from")?.unwrap_or(0);
    let limit = query.count("limit")?.unwrap_or(100);
    let wanted = Wanted::read(query, deactivated)?;
    let order = query.one_of("order_by", ORDERS)?.unwrap_or(Order::Name);
    let direction = query.direction()?;
    let view = app.view()?;
    let mut users = Vec::new();
    for row in accounts::list(&view, None) {
        let (name, account) = row?;
        let user = Shown::new(&view, name, account)?;
        if wanted.takes(&user) {
            users.push(user);
        }
    }
    // Of equals, the order of their names stays as it is.
    users.sort_by(|one, other| match direction {
        Direction::Forward => one.cmp_by(order, other),
        Direction::Backward => other.cmp_by(order, one),
    });
    let total = users.len();
    let users: Vec<_> = users.into_iter().skip(from).take(limit).collect();
    let next_token = (from.saturating_add(limit) < total).then(|| (from + users.len()).to_string());
    Ok(axum::Json(List { users, total, next_token }))
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
    let view = app.view()?;
    let mut found = Vec::new();
    for row in accounts::list(&view, None) {
        let (name, Account { kind, admin, user_type, .. }) = row?;
        if name.contains(term) {
            found.push(Found { name, password_hash: None, is_guest: kind == UserKind::Guest, admin, user_type });
        }
    }
    Ok(axum::Json(found))
}
