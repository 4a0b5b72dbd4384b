//! Who sends a request: the access token's session, with what its account may do.

use std::{net::IpAddr, ops::Deref};

use axum::http::{HeaderMap, StatusCode, header, request};
use projections::{
    View,
    models::{accounts, sessions, stand_ins},
};
use ruma::{
    OwnedUserId, UserId,
    api::{
        auth_scheme::{
            AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, NoAccessToken, NoAuthentication,
        },
        error::ErrorKind,
    },
};
use schemas::{
    LogTime,
    facts::{RateLimit, UserKind},
};
use sha2::{Digest, Sha256};

use super::{App, handover::Handed, listen::Peer, reply::ApiError};
use crate::commands::{Refusal, Sender};

/// A user of this server, logged in on a device, and what their account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who, on which device: what commands ask for.
    pub sender: Sender,
    /// Administers the server.
    pub admin: bool,
    /// Has no account of their own (client-server API, "Guest access").
    pub guest: bool,
    /// What they send is to get to nobody else, without their being told.
    pub shadow_banned: bool,
    /// How often they may send, in place of the settings.
    pub rate_limit: Option<RateLimit>,
    /// The SHA-256 of the access token.
    pub token: [u8; 32],
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// The client's address.
    pub address: IpAddr,
    /// What its program says that it is.
    pub agent: Option<&'a str>,
}

impl<'a> Caller<'a> {
    /// Of a request from an address with these headers.
    #[must_use]
    pub fn new(address: IpAddr, headers: &'a HeaderMap) -> Self {
        Self { address, agent: headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()) }
    }
}

impl Session {
    /// Refuses what somebody asks in the name of another.
    ///
    /// # Errors
    /// 403 `M_FORBIDDEN`.
    pub fn must_be(&self, user: &UserId) -> Result<(), ApiError> {
        if self.user == user { Ok(()) } else { Err(ApiError::forbidden(format!("only {user} can do this"))) }
    }
}

impl Deref for Session {
    type Target = Sender;

    fn deref(&self) -> &Sender {
        &self.sender
    }
}

/// The session that a request has if its sender wants: a wrong token matters only to who asks.
pub struct MaybeSession(Result<Option<Session>, ApiError>);

impl MaybeSession {
    /// The session, which this request needs after all.
    ///
    /// # Errors
    /// 401 without a valid access token.
    pub fn required(self) -> Result<Session, ApiError> {
        self.0?.ok_or_else(|| missing_token("this needs an access token"))
    }

    /// The session of a valid access token, if there is one.
    #[must_use]
    pub fn if_valid(self) -> Option<Session> {
        self.0.ok().flatten()
    }
}

/// A way to authenticate requests, and what it says about the sender.
pub trait Identify: AuthScheme {
    /// What handlers get.
    type Who: Send;

    /// Finds the sender of a request to a route (the template of its path).
    ///
    /// # Errors
    /// When the token is not good for this, or the store fails.
    fn identify(app: &App, token: Self::Output, route: &str, from: Caller<'_>) -> Result<Self::Who, ApiError>;
}

impl Identify for AccessToken {
    type Who = Session;

    fn identify(app: &App, token: String, route: &str, from: Caller<'_>) -> Result<Session, ApiError> {
        session(app, &token, route, from)
    }
}

impl Identify for AccessTokenOptional {
    type Who = MaybeSession;

    fn identify(app: &App, token: Option<String>, route: &str, from: Caller<'_>) -> Result<MaybeSession, ApiError> {
        Ok(MaybeSession(token.map(|token| session(app, &token, route, from)).transpose()))
    }
}

impl Identify for AppserviceTokenOptional {
    type Who = ();

    fn identify(_: &App, _: Option<String>, _: &str, _: Caller<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Identify for NoAccessToken {
    type Who = ();

    fn identify(_: &App, (): (), _: &str, _: Caller<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Identify for NoAuthentication {
    type Who = ();

    fn identify(_: &App, (): (), _: &str, _: Caller<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// 401 `M_MISSING_TOKEN`.
#[must_use]
pub fn missing_token(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorKind::MissingToken, message)
}

/// What stands for a token on the log.
#[must_use]
pub fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn unknown_token() -> ApiError {
    ApiError::unknown_token(false, "this access token is not known; log in again")
}

fn session(app: &App, token: &str, route: &str, caller: Caller<'_>) -> Result<Session, ApiError> {
    let (view, token) = (app.view()?, sha256(token));
    // Log time stands still while nothing is appended.
    let now = view.log_time().at_least(app.clock.now_ms());
    let sender = match sessions::access(&view, &token)? {
        Some(access) if access.is_expired(now) => {
            return Err(ApiError::unknown_token(true, "this access token has expired; refresh it or log in again"));
        }
        Some(access) => Sender::new(user_id(access.user)?, access.device.into()),
        None => stand_in(&view, &token, now)?.ok_or_else(unknown_token)?,
    };
    let account = accounts::get(&view, sender.user.as_str())?.filter(|account| !account.deactivated);
    let account = account.ok_or_else(unknown_token)?;
    if !route.contains("/logout") && sender.administrator().is_none() {
        may_be_used(app, &account, now)?;
    }
    let guest = account.kind == UserKind::Guest;
    if guest && !guests_may_use(route) {
        return Err(ApiError::new(ErrorKind::GuestAccessForbidden, "guests can't do this; register an account"));
    }
    if sender.administrator().is_none() {
        app.seen.note(&sender, caller, app.clock.now_ms());
    }
    let accounts::Account { admin, shadow_banned, rate_limit, .. } = account;
    Ok(Session { sender, admin, guest, shadow_banned, rate_limit, token })
}

fn user_id(user: String) -> Result<OwnedUserId, ApiError> {
    OwnedUserId::try_from(user).map_err(|error| ApiError::internal(&error))
}

/// An administrator who is logged in as somebody else, for as long as they are one.
fn stand_in(view: &View, token: &[u8; 32], now: LogTime) -> Result<Option<Sender>, ApiError> {
    let Some(found) = stand_ins::get(view, token)?.filter(|found| !found.is_expired(now)) else { return Ok(None) };
    // Who has the shared secret has no account.
    let theirs = accounts::get(view, &found.administrator)?;
    if theirs.is_some_and(|account| !account.admin || account.locked || account.deactivated) {
        return Ok(None);
    }
    Ok(Some(Sender::in_stead_of(user_id(found.user)?, found.administrator)))
}

/// Refuses who is locked, and whose account has expired.
fn may_be_used(app: &App, account: &accounts::Account, now: LogTime) -> Result<(), ApiError> {
    if account.locked {
        return Err(ApiError::locked());
    }
    if app.config.account_validity.enabled && account.is_expired(now) {
        let Refusal { kind, message } = Refusal::coded("ORG_MATRIX_EXPIRED_ACCOUNT", "User account has expired");
        return Err(ApiError::with_status(StatusCode::FORBIDDEN, kind, message));
    }
    Ok(())
}

/// What guests may use, after the path's version (client-server API, "Guest access").
const FOR_GUESTS: &[&str] = &[
    "/account/whoami",
    "/capabilities",
    "/devices",
    "/devices/{device_id}",
    "/events",
    "/join/{room_id_or_alias}",
    "/joined_rooms",
    "/keys/changes",
    "/keys/claim",
    "/keys/query",
    "/keys/upload",
    "/logout",
    "/logout/all",
    "/profile/{user_id}/{field}",
    "/pushrules",
    "/pushrules/",
    "/rooms/{room_id}/context/{event_id}",
    "/rooms/{room_id}/event/{event_id}",
    "/rooms/{room_id}/initialSync",
    "/rooms/{room_id}/join",
    "/rooms/{room_id}/joined_members",
    "/rooms/{room_id}/leave",
    "/rooms/{room_id}/members",
    "/rooms/{room_id}/messages",
    "/rooms/{room_id}/read_markers",
    "/rooms/{room_id}/receipt/{receipt_type}/{event_id}",
    "/rooms/{room_id}/send/{event_type}/{txn_id}",
    "/rooms/{room_id}/state",
    "/rooms/{room_id}/state/{event_type}",
    "/rooms/{room_id}/state/{event_type}/",
    "/rooms/{room_id}/state/{event_type}/{state_key}",
    "/rooms/{room_id}/typing/{user_id}",
    "/sendToDevice/{event_type}/{txn_id}",
    "/sync",
    "/user/{user_id}/account_data/{event_type}",
    "/user/{user_id}/filter",
    "/user/{user_id}/filter/{filter_id}",
    "/voip/turnServer",
];

fn guests_may_use(route: &str) -> bool {
    let rest = route.strip_prefix("/_matrix/client/").and_then(|rest| rest.find('/').map(|slash| &rest[slash..]));
    rest.is_some_and(|rest| FOR_GUESTS.contains(&rest))
}

/// The client's address: the connection's, or what a trusted proxy, or another node of this server, says that it was.
#[must_use]
pub fn address(app: &App, parts: &request::Parts) -> IpAddr {
    if let Some(Handed(address)) = parts.extensions.get() {
        return *address;
    }
    let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip().to_canonical());
    let trusted = |address: &IpAddr| app.config.http.trusted_proxies.contains(address);
    if !trusted(&peer) {
        return peer;
    }
    let forwarded = parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let addresses: Vec<IpAddr> =
        forwarded.flat_map(|value| value.split(',')).filter_map(|text| text.trim().parse().ok()).collect();
    // Each proxy adds at the end: what stands left of the last untrusted one is anybody's claim.
    addresses.iter().rev().find(|address| !trusted(address)).copied().unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_may_read_and_write_but_not_administer() {
        assert!(guests_may_use("/_matrix/client/v3/sync"));
        assert!(guests_may_use("/_matrix/client/r0/rooms/{room_id}/send/{event_type}/{txn_id}"));
        assert!(!guests_may_use("/_matrix/client/v3/createRoom"));
        assert!(!guests_may_use("/_matrix/client/v3/account/password"));
        assert!(!guests_may_use("/_synapse/admin/v1/sync"));
    }
}
