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
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Admin,
    params::{Body, Params},
};
use crate::{
    commands::accounts as commands,
    http::{App, extract::Path, passwords, reply::ApiError},
};

/// The most accounts in one page.
const MAX_PAGE: usize = 1_000;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v2/users", get(list))
        .route("/_synapse/admin/v1/users/{user_id}/admin", get(is_admin).put(set_admin))
        .route("/_synapse/admin/v1/reset_password/{user_id}", post(reset_password))
}

/// What is listed.
struct Wanted<'a> {
    guests: bool,
    deactivated: bool,
    /// Part of the user id.
    name: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn read(params: &'a Params) -> Result<Self, ApiError> {
        Ok(Self {
            guests: params.boolean("guests")?.unwrap_or(true),
            deactivated: params.boolean("deactivated")?.unwrap_or(false),
            name: params.text("user_id").or_else(|| params.text("name")),
        })
    }

    fn fits(&self, name: &str, account: &accounts::Account) -> bool {
        (self.deactivated || !account.deactivated)
            && (self.guests || account.kind != UserKind::Guest)
            && self.name.is_none_or(|part| name.contains(part))
    }
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

async fn list(State(app): State<App>, _: Admin, params: Params) -> Result<axum::Json<List>, ApiError> {
    let limit = params.count("limit")?.unwrap_or(100).clamp(1, MAX_PAGE);
    let wanted = Wanted::read(&params)?;
    let view = app.view()?;
    let mut users: Vec<Shown> = Vec::new();
    // `from` is the last user of the page before.
    for row in accounts::list(&view, params.text("from")) {
        let (name, account) = row?;
        if !wanted.fits(&name, &account) {
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

async fn set_admin(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    body: Body,
) -> Result<axum::Json<Value>, ApiError> {
    let admin = body.required_boolean("admin")?;
    commands::set_admin(&app.commands, by.origin(), local(&app, &user)?, admin).await?;
    Ok(axum::Json(json!({})))
}

async fn reset_password(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    body: Body,
) -> Result<axum::Json<Value>, ApiError> {
    let new = body.required_text("new_password")?;
    let log_out = body.boolean("logout_devices")?.unwrap_or(true);
    let user = local(&app, &user)?;
    passwords::check_strength(&app, &new)?;
    let password = app.passwords.hash(new).await?;
    commands::reset_password(&app.commands, by.origin(), user, password, log_out).await?;
    Ok(axum::Json(json!({})))
}
