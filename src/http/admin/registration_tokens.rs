//! Registration tokens.
//!
//! `GET /_synapse/admin/v1/registration_tokens`, `POST /_synapse/admin/v1/registration_tokens/new`,
//! `GET`, `PUT` and `DELETE /_synapse/admin/v1/registration_tokens/{token}`; the token may be `new`, so
//! `GET`, `PUT` and `DELETE /_synapse/admin/v1/registration_tokens/new`

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
    params::{Body, Params, unknown},
};
use crate::{
    commands::accounts::{self as commands, no_such_token, usable},
    http::{App, extract::Path, reply::ApiError},
};

/// The longest token.
const MAX_LENGTH: usize = 64;
/// How long one is that the server makes up.
const LENGTH: i64 = 16;
/// What tokens are made of.
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~-";
/// Made-up tokens that are there already, before it is given up.
const ATTEMPTS: usize = 3;

pub fn routes() -> Router<App> {
    // A token may have this name, too.
    let named_new = || Path("new".to_owned());
    let new = post(create)
        .get(move |app, admin| show(app, admin, named_new()))
        .put(move |app, admin, body| change(app, admin, named_new(), body))
        .delete(move |app, admin| remove(app, admin, named_new()));
    Router::new()
        .route("/_synapse/admin/v1/registration_tokens", get(list))
        .route("/_synapse/admin/v1/registration_tokens/new", new)
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
        let found = accounts::registration_token(&app.view()?, &token)?.ok_or_else(|| no_such_token(&token))?;
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
        let uses = "uses_allowed must be a non-negative integer or null";
        let uses_allowed = body.field::<Option<u64>>("uses_allowed", ErrorKind::InvalidParam, uses)?;
        let integer = "expiry_time must be an integer or null";
        let expiry_time = body.field::<Option<i64>>("expiry_time", ErrorKind::InvalidParam, integer)?;
        let in_time = |time: i64| u64::try_from(time).ok().filter(|time| *time >= app.clock.now_ms());
        let past = || ApiError::invalid("expiry_time must not be in the past");
        let expiry_time = expiry_time.map(|time| time.map(|time| in_time(time).ok_or_else(past)).transpose());
        Ok(Self { uses_allowed, expiry_time: expiry_time.transpose()? })
    }
}

async fn create(State(app): State<App>, admin: Admin, body: Body) -> Result<axum::Json<Shown>, ApiError> {
    let token = match body.field::<String>("token", ErrorKind::InvalidParam, "token must be a string")? {
        Some(token) => check(token)?,
        None => made_up(&app, &body)?,
    };
    let Limits { uses_allowed, expiry_time } = Limits::read(&app, &body)?;
    let (uses_allowed, expires_at_ms) = (uses_allowed.flatten(), expiry_time.flatten());
    let set = RegistrationTokenSet { token: token.clone(), uses_allowed, expires_at_ms };
    commands::add_registration_token(&app.commands, admin.origin(), set).await?;
    Shown::find(&app, token)
}

fn check(token: String) -> Result<String, ApiError> {
    if !(1..=MAX_LENGTH).contains(&token.chars().count()) {
        let message = format!("token must not be empty and must not be longer than {MAX_LENGTH} characters");
        return Err(ApiError::invalid(message));
    }
    if !token.bytes().all(|byte| ALPHABET.contains(&byte)) {
        return Err(ApiError::invalid("token must consist only of characters matched by the regex [A-Za-z0-9._~-]"));
    }
    Ok(token)
}

/// A token of the length that is wanted, and that is not there yet.
fn made_up(app: &App, body: &Body) -> Result<String, ApiError> {
    let length = body.field("length", ErrorKind::InvalidParam, "length must be an integer")?.unwrap_or(LENGTH);
    let length = usize::try_from(length).ok().filter(|length| (1..=MAX_LENGTH).contains(length)).ok_or_else(|| {
        ApiError::invalid(format!("length must be greater than zero and not greater than {MAX_LENGTH}"))
    })?;
    let view = app.view()?;
    for _ in 0..ATTEMPTS {
        let token = app.random.text(ALPHABET, length);
        if accounts::registration_token(&view, &token)?.is_none() {
            return Ok(token);
        }
    }
    Err(unknown("Unable to generate a unique registration token. Try again with a greater length"))
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
