//! Who sends a request: the access token's session, with what its account may do.

use std::{net::IpAddr, ops::Deref};

use axum::http::request;
use moka::sync::Cache;
use projections::models::{accounts, sessions};
use ruma::{
    OwnedUserId, UserId,
    api::{
        auth_scheme::{
            AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, NoAccessToken, NoAuthentication,
        },
        error::ErrorKind,
    },
};
use schemas::facts::UserKind;
use sha2::{Digest, Sha256};

use super::{App, handover::Handed, listen::Peer, reply::ApiError};
use crate::commands::Sender;

/// A user of this server, logged in on a device, and what their account is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who, on which device: what commands ask for.
    pub sender: Sender,
    /// Administers the server.
    pub admin: bool,
    /// Has no account of their own (client-server API, "Guest access").
    pub guest: bool,
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

    /// Finds the sender of a request that comes from an address to a route (the template of its path).
    ///
    /// # Errors
    /// When the token is not good for this, or the store fails.
    fn identify(app: &App, token: Self::Output, route: &str, from: IpAddr) -> Result<Self::Who, ApiError>;
}

impl Identify for AccessToken {
    type Who = Session;

    fn identify(app: &App, token: String, route: &str, from: IpAddr) -> Result<Session, ApiError> {
        session(app, &token, route, from)
    }
}

impl Identify for AccessTokenOptional {
    type Who = MaybeSession;

    fn identify(app: &App, token: Option<String>, route: &str, from: IpAddr) -> Result<MaybeSession, ApiError> {
        Ok(MaybeSession(token.map(|token| session(app, &token, route, from)).transpose()))
    }
}

impl Identify for AppserviceTokenOptional {
    type Who = ();

    fn identify(_: &App, _: Option<String>, _: &str, _: IpAddr) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Identify for NoAccessToken {
    type Who = ();

    fn identify(_: &App, (): (), _: &str, _: IpAddr) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Identify for NoAuthentication {
    type Who = ();

    fn identify(_: &App, (): (), _: &str, _: IpAddr) -> Result<(), ApiError> {
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

fn session(app: &App, token: &str, route: &str, address: IpAddr) -> Result<Session, ApiError> {
    let unknown = || ApiError::unknown_token(false, "this access token is not known; log in again");
    let view = app.view()?;
    let access = sessions::access(&view, &sha256(token))?.ok_or_else(unknown)?;
    // Log time stands still while nothing is appended.
    if access.is_expired(view.log_time().at_least(app.clock.now_ms())) {
        return Err(ApiError::unknown_token(true, "this access token has expired; refresh it or log in again"));
    }
    let account = accounts::get(&view, &access.user)?.filter(|account| !account.deactivated).ok_or_else(unknown)?;
    if account.locked && !route.contains("/logout") {
        return Err(ApiError::locked());
    }
    let guest = account.kind == UserKind::Guest;
    if guest && !guests_may_use(route) {
        return Err(ApiError::new(ErrorKind::GuestAccessForbidden, "guests can't do this; register an account"));
    }
    let user = OwnedUserId::try_from(access.user).map_err(|error| ApiError::internal(&error))?;
    let sender = Sender::new(user, access.device.into());
    app.seen.note(&sender, address, app.clock.now_ms());
    Ok(Session { sender, admin: account.admin, guest })
}

/// When devices were last seen, and from where: known to this node alone, and until it stops.
pub struct Seen(Cache<Sender, (u64, IpAddr)>);

impl Default for Seen {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(100_000).build())
    }
}

impl Seen {
    /// A device shows up. To the minute is good enough.
    fn note(&self, sender: &Sender, address: IpAddr, now_ms: u64) {
        if self.0.get(sender).is_none_or(|(ms, from)| from != address || ms + 60_000 <= now_ms) {
            self.0.insert(sender.clone(), (now_ms, address));
        }
    }

    /// When, in milliseconds since the Unix epoch, and from where a device was last seen.
    #[must_use]
    pub fn last(&self, sender: &Sender) -> Option<(u64, IpAddr)> {
        self.0.get(sender)
    }
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
