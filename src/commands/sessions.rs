//! Sessions: a device gets its tokens, and new ones for old.

use projections::{
    View,
    models::{accounts, devices, sessions},
};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::error::{ErrorKind, UnknownTokenErrorData},
};
use schemas::{
    Blob, Draft, Origin,
    facts::{DeviceAdded, SessionOpened, SessionRefreshed},
};

use super::{
    Commands, Decision, Error, Refusal,
    guards::{device, user_status},
    unchanged,
};

/// The SHA-256 of new tokens.
#[derive(Clone, Copy, Debug)]
pub struct Pair<R> {
    /// The access token's.
    pub access: [u8; 32],
    /// When the access token ends, milliseconds since the Unix epoch.
    pub access_expires_at_ms: Option<u64>,
    /// The refresh token's.
    pub refresh: R,
}

/// The tokens of a login, which may be without a refresh token.
pub type FirstPair = Pair<Option<[u8; 32]>>;

/// The tokens that follow a refresh token.
pub type NextPair = Pair<[u8; 32]>;

/// A login.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// On this device, which is added if it isn't there.
    pub device: OwnedDeviceId,
    /// What a device that is added is called.
    pub display_name: Option<String>,
    /// Its tokens.
    pub tokens: FirstPair,
}

impl NewSession {
    /// Adds the login to a decision about its user.
    pub(super) fn add_to(&self, draft: &mut Draft, view: &View, user: &str) -> Result<(), Error> {
        let on = self.device.as_str();
        draft.reads.push(unchanged(view, device(user, on))?);
        draft.writes.push(device(user, on));
        if devices::get(view, user, on)?.is_none() {
            let display_name = self.display_name.clone();
            draft.facts.push(DeviceAdded { user: user.into(), device: on.into(), display_name }.into());
        }
        let opened = SessionOpened {
            user: user.into(),
            device: on.into(),
            access: Blob(self.tokens.access.to_vec()),
            access_expires_at_ms: self.tokens.access_expires_at_ms,
            refresh: self.tokens.refresh.map(|token| Blob(token.to_vec())),
        };
        draft.facts.push(opened.into());
        Ok(())
    }
}

/// Logs a user in. The device's tokens so far end.
///
/// # Errors
/// `M_USER_DEACTIVATED`, `M_USER_LOCKED`.
pub async fn log_in(commands: &Commands, user: OwnedUserId, session: NewSession) -> Result<(), Error> {
    let origin = Origin::User { user: user.to_string(), device: Some(session.device.to_string()) };
    let decide = move |view: &View| {
        check_usable(view, user.as_str())?;
        let reads = vec![unchanged(view, user_status(user.as_str()))?];
        let mut draft = Draft { reads, ..Draft::default() };
        session.add_to(&mut draft, view, user.as_str())?;
        Ok(Decision::append_then(draft, ()))
    };
    commands.execute(origin, decide).await
}

/// Gives new tokens for a refresh token, which is named by its SHA-256.
///
/// # Errors
/// `M_UNKNOWN_TOKEN` for one that is not known, or no longer good; `M_USER_LOCKED`.
pub async fn refresh(commands: &Commands, used: [u8; 32], tokens: NextPair) -> Result<(), Error> {
    let view = commands.parts().source.view()?;
    let found = sessions::refresh(&view, &used)?.ok_or_else(unknown_refresh_token)?;
    let origin = Origin::User { user: found.user.clone(), device: Some(found.device.clone()) };
    let decide = move |view: &View| {
        let (user, on) = (found.user.as_str(), found.device.as_str());
        let still = sessions::refresh(view, &used)?.filter(|now| now.user == user && now.device == on);
        still.ok_or_else(unknown_refresh_token)?;
        check_usable(view, user)?;
        let reads = vec![unchanged(view, user_status(user))?, unchanged(view, device(user, on))?];
        let fact = SessionRefreshed {
            user: user.into(),
            device: on.into(),
            used: Blob(used.to_vec()),
            access: Blob(tokens.access.to_vec()),
            access_expires_at_ms: tokens.access_expires_at_ms,
            refresh: Blob(tokens.refresh.to_vec()),
        };
        Ok(Decision::append_then(Draft { reads, writes: vec![device(user, on)], facts: vec![fact.into()] }, ()))
    };
    commands.execute(origin, decide).await
}

fn unknown_refresh_token() -> Refusal {
    Refusal::new(
        ErrorKind::UnknownToken(UnknownTokenErrorData::new()),
        "this refresh token is not known, or was followed by a newer one; log in again",
    )
}

fn check_usable(view: &View, user: &str) -> Result<(), Error> {
    match accounts::get(view, user)? {
        None => Err(Refusal::forbidden("there is no such account").into()),
        Some(account) if account.deactivated => {
            Err(Refusal::new(ErrorKind::UserDeactivated, "this account has ended").into())
        }
        Some(account) if account.locked => Err(Refusal::new(ErrorKind::UserLocked, "this account is locked").into()),
        Some(_) => Ok(()),
    }
}
