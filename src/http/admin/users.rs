//! Accounts.
//!
//! `GET /_synapse/admin/v2/users`, `GET` and `PUT /_synapse/admin/v1/users/{userId}/admin`,
//! `POST /_synapse/admin/v1/reset_password/{userId}`

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use projections::models::{accounts, profiles};
use ruma::{OwnedUserId, UserId};
use schemas::facts::UserKind;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Admin;
use crate::{
    commands::accounts as commands,
    http::{
        App,
        extract::{Json, Path, Query},
        passwords,
        reply::ApiError,
    },
};

/// The most accounts in one page.
const MAX_PAGE: usize = 1_000;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v2/users", get(list))
        .route("/_synapse/admin/v1/users/{user_id}/admin", get(is_admin).put(set_admin))
        .route("/_synapse/admin/v1/reset_password/{user_id}", post(reset_password))
}

#[derive(Deserialize)]
struct Page {
    /// The last user of the page before.
    from: Option<String>,
    limit: Option<usize>,
    #[serde(default = "yes")]
    guests: bool,
    #[serde(default)]
    deactivated: bool,
    /// Part of the user id.
    #[serde(alias = "user_id")]
    name: Option<String>,
}

const fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct Shown {
    name: String,
    displayname: Option<Value>,
    avatar_url: Option<Value>,
    is_guest: bool,
    admin: bool,
    deactivated: bool,
    erased: bool,
    locked: bool,
    suspended: bool,
    creation_ts: u64,
}

#[derive(Serialize)]
struct List {
    users: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

async fn list(State(app): State<App>, _: Admin, Query(page): Query<Page>) -> Result<axum::Json<List>, ApiError> {
    let limit = page.limit.unwrap_or(100).clamp(1, MAX_PAGE);
    let view = app.view()?;
    let wanted = |name: &str, account: &accounts::Account| {
        (page.deactivated || !account.deactivated)
            && (page.guests || account.kind != UserKind::Guest)
            && page.name.as_ref().is_none_or(|part| name.contains(part.as_str()))
    };
    let mut users: Vec<Shown> = Vec::new();
    for row in accounts::list(&view, page.from.as_deref()) {
        let (name, account) = row?;
        if !wanted(&name, &account) {
            continue;
        }
        if users.len() == limit {
            let next_token = users.last().map(|user| user.name.clone());
            return Ok(axum::Json(List { users, next_token }));
        }
        let field = |field| -> Result<Option<Value>, ApiError> {
            Ok(profiles::field(&view, &name, field)?.and_then(|value| value.read().ok()))
        };
        users.push(Shown {
            displayname: field("displayname")?,
            avatar_url: field("avatar_url")?,
            is_guest: account.kind == UserKind::Guest,
            admin: account.admin,
            deactivated: account.deactivated,
            erased: account.erased,
            locked: account.locked,
            suspended: account.suspended,
            creation_ts: account.created_at_ms,
            name,
        });
    }
    Ok(axum::Json(List { users, next_token: None }))
}

/// A user of this server.
fn local(app: &App, user: &str) -> Result<OwnedUserId, ApiError> {
    let user = UserId::parse(user).map_err(|error| ApiError::invalid(format!("this is not a user id: {error}")))?;
    if user.server_name() == app.config.server_name {
        Ok(user)
    } else {
        Err(ApiError::invalid("this is another server's user"))
    }
}

async fn is_admin(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Result<axum::Json<Value>, ApiError> {
    let account = accounts::get(&app.view()?, local(&app, &user)?.as_str())?;
    let account = account.ok_or_else(|| ApiError::not_found("there is no such account"))?;
    Ok(axum::Json(json!({ "admin": account.admin })))
}

#[derive(Deserialize)]
struct SetAdmin {
    admin: bool,
}

async fn set_admin(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    Json(req): Json<SetAdmin>,
) -> Result<axum::Json<Value>, ApiError> {
    commands::set_admin(&app.commands, by.origin(), local(&app, &user)?, req.admin).await?;
    Ok(axum::Json(json!({})))
}

#[derive(Deserialize)]
struct ResetPassword {
    new_password: String,
    #[serde(default = "yes")]
    logout_devices: bool,
}

async fn reset_password(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    Json(req): Json<ResetPassword>,
) -> Result<axum::Json<Value>, ApiError> {
    let user = local(&app, &user)?;
    passwords::check_strength(&app, &req.new_password)?;
    let password = app.passwords.hash(req.new_password).await?;
    commands::reset_password(&app.commands, by.origin(), user, password, req.logout_devices).await?;
    Ok(axum::Json(json!({})))
}
