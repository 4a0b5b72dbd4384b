//! Sessions: a device gets its tokens, and new ones for old.

use projections::{
    View,
    models::{accounts, devices, login_tokens, sessions, stand_ins},
};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::error::{ErrorKind, UnknownTokenErrorData},
};
use schemas::{
    Blob, Draft, Key, Origin, Tag,
    facts::{
        DeviceAdded, LoginTokenIssued, LoginTokenUsed, SessionOpened, SessionRefreshed, StandInEnded, StandInOpened,
    },
};

use super::{
    Commands, Decision, Error, Refusal, Request, Sender,
    guards::{active, device, user_status},
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
    let decide = move |view: &View| Ok(Decision::append_then(login(view, user.as_str(), &session)?, ()));
    commands.execute(origin, decide).await
}

fn login(view: &View, user: &str, session: &NewSession) -> Result<Draft, Error> {
    check_usable(view, user)?;
    let mut draft = Draft { reads: vec![unchanged(view, user_status(user))?], ..Draft::default() };
    session.add_to(&mut draft, view, user)?;
    Ok(draft)
}

/// The key that a login token's issue and its use write.
fn login_token(sha256: &[u8; 32]) -> Key {
    Key::new(Tag::LoginToken, &hex::encode(sha256))
}

/// Issues a login token to its user, which is named by its SHA-256. A request that comes again issues none, which is
/// `false`.
///
/// # Errors
/// Those of [`active`].
pub async fn issue_login_token(
    commands: &Commands,
    request: Request,
    sender: &Sender,
    sha256: [u8; 32],
    expires_at_ms: u64,
) -> Result<bool, Error> {
    let by = sender.clone();
    let decide = move |view: &View| {
        by.on_device()?;
        let fact = LoginTokenIssued {
            token: Blob(sha256.to_vec()),
            user: by.user.to_string(),
            device: by.device.to_string(),
            expires_at_ms,
        };
        let (mut reads, key) = (active(view, &by)?, login_token(&sha256));
        reads.push(unchanged(view, key)?);
        Ok(Decision::append_then(Draft { reads, writes: vec![key], facts: vec![fact.into()] }, true))
    };
    commands.execute_once(request, decide, |_, _| Ok(false)).await
}

/// Logs in whom a login token lets in, which is named by its SHA-256 and ends with it. Of two who have it, one gets in.
///
/// # Errors
/// `M_FORBIDDEN` for a token that is not known, was used, is over, or whose device has logged out; those of [`log_in`].
pub async fn log_in_by_token(commands: &Commands, sha256: [u8; 32], session: NewSession) -> Result<OwnedUserId, Error> {
    let refused = || Refusal::forbidden("this login token is not known, was used, or is over");
    let parts = commands.parts();
    let found = login_tokens::get(&parts.source.view()?, &sha256)?.ok_or_else(refused)?;
    let origin = Origin::User { user: found.user, device: Some(session.device.to_string()) };
    let clock = std::sync::Arc::clone(&parts.clock);
    let decide = move |view: &View| {
        let token = login_tokens::get(view, &sha256)?.ok_or_else(refused)?;
        let (user, issuer) = (token.user.as_str(), token.device.as_str());
        let mut draft = login(view, user, &session)?;
        // Log time stands still while nothing is appended.
        let is_over = token.is_expired(view.log_time().at_least(clock.now_ms()));
        if is_over || devices::get(view, user, issuer)?.is_none() {
            return Err(refused().into());
        }
        let key = login_token(&sha256);
        draft.reads.extend([unchanged(view, key)?, unchanged(view, device(user, issuer))?]);
        draft.writes.push(key);
        draft.facts.push(LoginTokenUsed { token: Blob(sha256.to_vec()) }.into());
        let user = OwnedUserId::try_from(user).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Decision::append_then(draft, user))
    };
    commands.execute(origin, decide).await
}

/// Logs an administrator in as a user, without a device: what they do so is theirs in the audit trail. The token is named
/// by its SHA-256.
///
/// # Errors
/// `M_NOT_FOUND` where there is no such account, or it has ended.
pub async fn stand_in(
    commands: &Commands,
    administrator: String,
    user: OwnedUserId,
    sha256: [u8; 32],
    expires_at_ms: Option<u64>,
) -> Result<(), Error> {
    let origin = Origin::Admin { user: administrator.clone() };
    let decide = move |view: &View| {
        let account = accounts::get(view, user.as_str())?.filter(|account| !account.deactivated);
        account.ok_or_else(super::users::unknown)?;
        let access = Blob(sha256.to_vec());
        let (user, administrator) = (user.to_string(), administrator.clone());
        let reads = vec![unchanged(view, user_status(&user))?];
        let fact = StandInOpened { user, administrator, access, expires_at_ms };
        Ok(Decision::append_then(Draft { reads, writes: Vec::new(), facts: vec![fact.into()] }, ()))
    };
    commands.execute(origin, decide).await
}

/// Ends the session of an administrator who acts as somebody else, which is named by its token's SHA-256.
///
/// # Errors
/// When the store fails, or the log can't be written.
pub async fn end_stand_in(commands: &Commands, sender: &Sender, sha256: [u8; 32]) -> Result<(), Error> {
    let facts = vec![StandInEnded { access: Blob(sha256.to_vec()) }.into()];
    let draft = Draft { facts, ..Draft::default() };
    commands.execute(sender, move |_| Ok(Decision::append_then(draft.clone(), ()))).await
}

/// Ends all sessions in which an administrator acts as somebody else.
///
/// # Errors
/// When the store fails, or the log can't be written.
pub async fn end_stand_ins(commands: &Commands, administrator: &Sender) -> Result<(), Error> {
    let name = administrator.user.to_string();
    let decide = move |view: &View| {
        let there = stand_ins::of_administrator(view, &name)?;
        if there.is_empty() {
            return Ok(Decision::Reply(()));
        }
        let facts = there.into_iter().map(|token| StandInEnded { access: Blob(token) }.into()).collect();
        Ok(Decision::append_then(Draft { facts, ..Draft::default() }, ()))
    };
    commands.execute(administrator, decide).await
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
