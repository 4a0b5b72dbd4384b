//! Registration tokens.
//!
//! `GET /_synapse/admin/v1/registration_tokens`, `POST /_synapse/admin/v1/registration_tokens/new`,
//! `GET`, `PUT` and `DELETE /_synapse/admin/v1/registration_tokens/{token}`

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use projections::models::accounts;
use ruma::api::error::ErrorKind;
use schemas::facts::RegistrationTokenSet;
use serde::Serialize;

use super::{
    Admin,
    params::{Body, Params},
};
use crate::{
    commands::accounts::{self as commands, no_such_token, usable},
    http::{App, extract::Path, reply::ApiError},
};

/// The longest token.
const MAX_LENGTH: usize = 64;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/registration_tokens", get(list))
        .route("/_synapse/admin/v1/registration_tokens/new", post(create))
        .route("/_synapse/admin/v1/registration_tokens/{token}", get(show).put(change).delete(remove))
}

#[derive(Serialize)]
struct Shown {
    token: String,
    uses_allowed: Option<u64>,
    /// Registrations under way: a use counts once an account is there, so there are none.
    pending: u64,
    completed: u64,
    expiry_time: Option<u64>,
}

impl Shown {
    fn new(token: String, found: &accounts::RegistrationToken) -> Self {
        let accounts::RegistrationToken { uses_allowed, completed, expires_at_ms } = *found;
        Self { token, uses_allowed, pending: 0, completed, expiry_time: expires_at_ms }
    }

    fn find(app: &App, token: String) -> Result<axum::Json<Self>, ApiError> {
        let found = accounts::registration_token(&app.view()?, &token)?.ok_or_else(no_such_token)?;
        Ok(axum::Json(Self::new(token, &found)))
    }
}

#[derive(Serialize)]
struct List {
    registration_tokens: Vec<Shown>,
}

async fn list(State(app): State<App>, _: Admin, params: Params) -> Result<axum::Json<List>, ApiError> {
    let valid = params.boolean("valid")?;
    let (view, now_ms) = (app.view()?, app.clock.now_ms());
    let all = accounts::registration_tokens(&view, None);
    let wanted = all.filter(|row| match (row, valid) {
        (Ok((_, token)), Some(valid)) => usable(token, &view, now_ms) == valid,
        _ => true,
    });
    let shown = wanted.map(|row| row.map(|(token, found)| Shown::new(token, &found)));
    Ok(axum::Json(List { registration_tokens: shown.collect::<Result<_, _>>()? }))
}

async fn show(State(app): State<App>, _: Admin, Path(token): Path<String>) -> Result<axum::Json<Shown>, ApiError> {
    Shown::find(&app, token)
}

/// How often a token may be used and until when: null is without limit, none leaves it as it is.
struct Limits {
    uses_allowed: Option<Option<u64>>,
    expiry_time: Option<Option<u64>>,
}

impl Limits {
    fn read(app: &App, body: &Body) -> Result<Self, ApiError> {
        let number = |name, message| body.field::<Option<u64>>(name, ErrorKind::InvalidParam, message);
        let uses_allowed = number("uses_allowed", "uses_allowed must be a non-negative integer or null")?;
        let expiry_time = number("expiry_time", "expiry_time must be an integer or null")?;
        if expiry_time.flatten().is_some_and(|time| time < app.clock.now_ms()) {
            return Err(ApiError::invalid("expiry_time must not be in the past"));
        }
        Ok(Self { uses_allowed, expiry_time })
    }
}

async fn create(State(app): State<App>, admin: Admin, body: Body) -> Result<axum::Json<Shown>, ApiError> {
    let given = body.field::<String>("token", ErrorKind::InvalidParam, "token must be a string")?;
    let length = body.field("length", ErrorKind::InvalidParam, "length must be an integer")?;
    let length = length.unwrap_or(16);
    if !(1..=MAX_LENGTH).contains(&length) {
        return Err(ApiError::invalid(format!("length must be greater than zero and not greater than {MAX_LENGTH}")));
    }
    let token = given.unwrap_or_else(|| app.random.alphanumeric(length));
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    if !(1..=MAX_LENGTH).contains(&token.len()) || !token.bytes().all(is_legal) {
        return Err(ApiError::invalid(format!("a token has 1 to {MAX_LENGTH} of the letters A-Z a-z 0-9 . _ ~ -")));
    }
    let Limits { uses_allowed, expiry_time } = Limits::read(&app, &body)?;
    let (uses_allowed, expires_at_ms) = (uses_allowed.flatten(), expiry_time.flatten());
    let set = RegistrationTokenSet { token: token.clone(), uses_allowed, expires_at_ms };
    commands::add_registration_token(&app.commands, admin.origin(), set).await?;
    Shown::find(&app, token)
}

async fn change(
    State(app): State<App>,
    admin: Admin,
    Path(token): Path<String>,
    body: Body,
) -> Result<axum::Json<Shown>, ApiError> {
    let change = Limits::read(&app, &body)?;
    let edit = move |set: &mut RegistrationTokenSet| {
        set.uses_allowed = change.uses_allowed.unwrap_or(set.uses_allowed);
        set.expires_at_ms = change.expiry_time.unwrap_or(set.expires_at_ms);
    };
    commands::change_registration_token(&app.commands, admin.origin(), token.clone(), edit).await?;
    Shown::find(&app, token)
}

async fn remove(
    State(app): State<App>,
    admin: Admin,
    Path(token): Path<String>,
) -> Result<axum::Json<serde_json::Value>, ApiError> {
    commands::remove_registration_token(&app.commands, admin.origin(), token).await?;
    Ok(axum::Json(serde_json::json!({})))
}
