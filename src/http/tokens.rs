//! New access, refresh and login tokens. The client gets the tokens, the log their SHA-256.

use std::time::Duration;

use ruma::OwnedDeviceId;

use super::{App, auth::sha256};
use crate::commands::sessions::{NewSession, NextPair, Pair};

/// 43 letters and digits hold 256 bits.
const LENGTH: usize = 43;

/// Tokens that nobody has yet.
pub struct Tokens<R> {
    /// The access token.
    pub access: String,
    /// How long it lasts; none is for ever.
    pub expires_in: Option<Duration>,
    /// The refresh token.
    pub refresh: R,
}

impl<R> Tokens<R> {
    fn of(app: &App, expires_in: Option<Duration>, refresh: R) -> Self {
        Self { access: app.random.alphanumeric(LENGTH), expires_in, refresh }
    }

    fn hashed<H>(&self, app: &App, refresh: H) -> Pair<H> {
        let access_expires_at_ms = self.expires_in.map(|lasts| end(app, lasts));
        Pair { access: sha256(&self.access), access_expires_at_ms, refresh }
    }
}

/// When what lasts so long from now on ends, milliseconds since the Unix epoch.
fn end(app: &App, lasts: Duration) -> u64 {
    // Not the clock alone: where that is behind log time, a token might have ended before it began.
    let now = app.progress.cursor().log_time.at_least(app.clock.now_ms());
    now.ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX))
}

/// A login token that nobody has yet.
pub struct LoginToken {
    /// The token.
    pub text: String,
    /// How long it lasts.
    pub lasts: Duration,
    /// Log time at which it ends, milliseconds since the Unix epoch.
    pub ends_at_ms: u64,
}

impl LoginToken {
    /// A new one.
    #[must_use]
    pub fn new(app: &App) -> Self {
        let lasts = app.config.sessions.login_token;
        Self { text: app.random.alphanumeric(LENGTH), lasts, ends_at_ms: end(app, lasts) }
    }
}

impl Tokens<Option<String>> {
    /// For a login, of a client that can refresh its tokens or of one that can't.
    #[must_use]
    pub fn first(app: &App, refreshable: bool) -> Self {
        let sessions = &app.config.sessions;
        let expires_in = if refreshable { sessions.refreshable_access_token } else { sessions.access_token };
        Self::of(app, expires_in, refreshable.then(|| app.random.alphanumeric(LENGTH)))
    }

    /// The login, on a device that is named, or new.
    #[must_use]
    pub fn session(&self, app: &App, device: Option<OwnedDeviceId>, display_name: Option<String>) -> NewSession {
        let device = device.unwrap_or_else(|| app.random.text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 10).into());
        NewSession { device, display_name, tokens: self.hashed(app, self.refresh.as_deref().map(sha256)) }
    }
}

impl Tokens<String> {
    /// To follow a refresh token.
    #[must_use]
    pub fn next(app: &App) -> Self {
        Self::of(app, app.config.sessions.refreshable_access_token, app.random.alphanumeric(LENGTH))
    }

    /// What the log gets.
    #[must_use]
    pub fn pair(&self, app: &App) -> NextPair {
        self.hashed(app, sha256(&self.refresh))
    }
}
