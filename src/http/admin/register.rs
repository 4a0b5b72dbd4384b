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
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::{params::unknown, users::USER_TYPES};
use crate::{
    clock::Random,
    commands::accounts::{self as commands, NewAccount, check_free, new_user_id},
    http::{App, auth::sha256, extract::Json, passwords, reply::ApiError, tokens::Tokens},
};

/// How long a nonce is good.
const NONCE: Duration = Duration::from_secs(60);
/// So many used ones are remembered at most.
const USED: u64 = 10_000;

/// The shared secret, and the nonces that were used.
pub struct SharedSecret {
    secret: String,
    used: Cache<String, ()>,
}

impl SharedSecret {
    /// With a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self { secret, used: Cache::builder().max_capacity(USED).time_to_live(2 * NONCE).build() }
    }

    /// A new nonce. Whoever has the secret can tell when it was made, and that it was: so it is good at every node.
    fn nonce(&self, now_ms: u64, random: &dyn Random) -> Option<String> {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..8].copy_from_slice(&now_ms.to_be_bytes());
        nonce[8..24].copy_from_slice(&random.bytes::<16>());
        let seal = self.seal(&nonce[..24])?.finalize().into_bytes();
        nonce[24..].copy_from_slice(&seal);
        Some(hex::encode(nonce))
    }

    /// Uses a nonce up, at this node; at another it is good for the same registration once more, which the name then
    /// forbids. Says whether it was good.
    fn take(&self, nonce: &str, now_ms: u64) -> bool {
        let mut bytes = [0; NONCE_BYTES];
        if hex::decode_to_slice(nonce, &mut bytes).is_err() {
            return false;
        }
        let (stamped, seal) = bytes.split_at(24);
        let made = stamped.first_chunk().map_or(0, |ms| u64::from_be_bytes(*ms));
        let authentic = self.seal(stamped).is_some_and(|mac| mac.verify_slice(seal).is_ok());
        // The clocks of two nodes differ.
        let fresh = u128::from(made.abs_diff(now_ms)) <= NONCE.as_millis();
        authentic && fresh && self.used.entry(nonce.to_owned()).or_insert(()).is_fresh()
    }

    fn seal(&self, stamped: &[u8]) -> Option<Hmac<Sha256>> {
        let mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).ok()?;
        Some(mac.chain_update("nonce").chain_update(stamped))
    }

    /// Whether this is the secret; it takes as long whatever is given.
    #[must_use]
    pub fn is(&self, given: &str) -> bool {
        sha256(given).ct_eq(&sha256(&self.secret)).into()
    }
}

/// When it was made, what makes it different, and the seal.
const NONCE_BYTES: usize = 8 + 16 + 32;

pub fn routes() -> Router<App> {
    Router::new().route("/_synapse/admin/v1/register", get(get_nonce).post(register))
}

#[derive(Serialize)]
struct Nonce {
    nonce: String,
}

async fn get_nonce(State(app): State<App>) -> Result<axum::Json<Nonce>, ApiError> {
    let nonce = app
        .shared_secret
        .nonce(app.clock.now_ms(), &*app.random)
        .ok_or_else(|| ApiError::forbidden("there is no shared secret"))?;
    Ok(axum::Json(Nonce { nonce }))
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
    if !app.shared_secret.take(&req.nonce, app.clock.now_ms()) {
        let message = "the nonce is not one of this server's, was used or is older than a minute";
        return Err(ApiError::with_status(StatusCode::BAD_REQUEST, ErrorKind::Unknown, message));
    }
    if !is_authentic(&app.shared_secret.secret, &req) {
        return Err(ApiError::forbidden("the HMAC is wrong"));
    }
    if req.user_type.as_ref().is_some_and(|given| !USER_TYPES.contains(&given.as_str())) {
        return Err(unknown("Invalid user type"));
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
        user_type: req.user_type,
        expires_at_ms: app.config.account_validity.end_of_new(app.clock.now_ms()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedRandom;

    #[test]
    fn a_nonce_is_good_once_for_a_minute_at_every_node_with_the_secret() {
        let random = SimulatedRandom::seeded(1);
        let [here, there, elsewhere] = ["secret", "secret", "another"].map(|secret| SharedSecret::new(secret.into()));
        let nonce = || here.nonce(1_000_000, &random).unwrap();
        let used = nonce();
        assert!(here.take(&used, 1_000_000) && !here.take(&used, 1_000_000));
        let (first, second) = (nonce(), nonce());
        assert_ne!(first, second);
        assert!(!elsewhere.take(&first, 1_000_000));
        assert!(there.take(&first, 1_060_000) && there.take(&second, 990_000));
        assert!(!there.take(&nonce(), 1_060_001));
        let altered = nonce().replace(['0', '1'], "2");
        assert!(!here.take(&altered, 1_000_000) && !here.take("", 1_000_000) && !here.take("made-up", 1_000_000));
    }
}
