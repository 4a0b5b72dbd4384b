//! Registration by the shared secret, which works whatever `registration.mode` is: how the first administrator begins.
//!
//! `GET /_synapse/admin/v1/register`, `POST /_synapse/admin/v1/register`

use std::time::Duration;

use axum::{Router, extract::State, http::StatusCode, routing::get};
use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, api::error::ErrorKind};
use schemas::{Origin, facts::UserKind};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use subtle::ConstantTimeEq;

use crate::{
    commands::accounts::{self as commands, NewAccount, check_free, new_user_id},
    http::{App, auth::sha256, extract::Json, passwords, reply::ApiError, tokens::Tokens},
};

/// How long a nonce is good, and how many there may be.
const NONCE: (Duration, u64) = (Duration::from_secs(60), 10_000);

/// The shared secret, and the nonces given out.
pub struct SharedSecret {
    secret: String,
    nonces: Cache<String, ()>,
}

impl SharedSecret {
    /// With a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self { secret, nonces: Cache::builder().max_capacity(NONCE.1).time_to_live(NONCE.0).build() }
    }

    /// Whether this is the secret; it takes as long whatever is given.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        sha256(given).ct_eq(&sha256(&self.secret)).into()
    }
}

pub fn routes() -> Router<App> {
    Router::new().route("/_synapse/admin/v1/register", get(get_nonce).post(register))
}

#[derive(Serialize)]
struct Nonce {
    nonce: String,
}

async fn get_nonce(State(app): State<App>) -> axum::Json<Nonce> {
    let nonce = app.random.alphanumeric(64);
    app.shared_secret.nonces.insert(nonce.clone(), ());
    axum::Json(Nonce { nonce })
}

#[derive(Deserialize)]
struct Request {
    nonce: String,
    username: String,
    password: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    displayname: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    mac: String,
}

#[derive(Serialize)]
struct Response {
    user_id: OwnedUserId,
    home_server: OwnedServerName,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<OwnedDeviceId>,
}

async fn register(State(app): State<App>, Json(req): Json<Request>) -> Result<axum::Json<Response>, ApiError> {
    if app.shared_secret.nonces.remove(&req.nonce).is_none() {
        let message = "the nonce is not known, was used or is older than a minute";
        return Err(ApiError::with_status(StatusCode::BAD_REQUEST, ErrorKind::Unknown, message));
    }
    if !is_authentic(&app.shared_secret.secret, &req) {
        return Err(ApiError::forbidden("the HMAC is wrong"));
    }
    let user_id = new_user_id(&app.config.server_name, &req.username)?;
    check_free(&app.view()?, &user_id)?;
    passwords::check_strength(&app, &req.password)?;
    let account = NewAccount {
        user: user_id.clone(),
        password: Some(app.passwords.hash(req.password).await?),
        admin: req.admin,
        kind: UserKind::Regular,
        registration_token: None,
        display_name: req.displayname,
    };
    let home_server = app.config.server_name.clone();
    let origin = origin();
    if req.inhibit_login {
        commands::register(&app.commands, origin, account, None).await?;
        return Ok(axum::Json(Response { user_id, home_server, access_token: None, device_id: None }));
    }
    let tokens = Tokens::first(&app, false);
    let session = tokens.session(&app, None, None);
    let device_id = Some(session.device.clone());
    commands::register(&app.commands, origin, account, Some(session)).await?;
    Ok(axum::Json(Response { user_id, home_server, access_token: Some(tokens.access), device_id }))
}

/// The origin of what holders of the shared secret do.
pub(super) fn origin() -> Origin {
    Origin::Admin { user: "holder of the shared secret".into() }
}

/// Whether the request was made by somebody who has the secret.
fn is_authentic(secret: &str, req: &Request) -> bool {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else { return false };
    let admin = if req.admin { "admin" } else { "notadmin" };
    let parts = [req.nonce.as_str(), &req.username, &req.password, admin];
    let parts = parts.into_iter().chain(req.user_type.as_deref());
    mac.update(parts.collect::<Vec<_>>().join("\0").as_bytes());
    hex::decode(&req.mac).is_ok_and(|given| mac.verify_slice(&given).is_ok())
}
