//! What nearly every decision of a user rests on: that their account and their device still stand.

use projections::{
    View,
    models::{
        accounts::{self, Account},
        devices,
    },
};
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::error::{ErrorKind, UnknownTokenErrorData},
};
use schemas::{Key, Origin, Read, Tag};

use super::{Error, Refusal, Request, unchanged};

/// A user of this server, on one of their devices; or an administrator of the server in their stead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sender {
    /// Who.
    pub user: OwnedUserId,
    /// On which device; an empty id where an administrator acts.
    pub device: OwnedDeviceId,
    /// Who acts in their stead, as [`Origin::Admin`] names them.
    administrator: Option<String>,
}

impl Sender {
    /// A user on a device.
    #[must_use]
    pub const fn new(user: OwnedUserId, device: OwnedDeviceId) -> Self {
        Self { user, device, administrator: None }
    }

    /// An administrator in a user's stead, who need not be logged in, and may be locked or suspended. Rooms have the same
    /// rules for them as for the user.
    #[must_use]
    pub fn in_stead_of(user: OwnedUserId, administrator: impl Into<String>) -> Self {
        Self { user, device: "".into(), administrator: Some(administrator.into()) }
    }

    /// Whether an administrator acts.
    #[must_use]
    pub const fn is_administrator(&self) -> bool {
        self.administrator.is_some()
    }

    /// The administrator who acts in the user's stead, if one does.
    #[must_use]
    pub fn administrator(&self) -> Option<&str> {
        self.administrator.as_deref()
    }

    /// Refuses what only somebody on a device can do.
    ///
    /// # Errors
    /// `M_UNKNOWN` where an administrator acts.
    pub fn on_device(&self) -> Result<(), Refusal> {
        match &self.administrator {
            None => Ok(()),
            Some(_) => Err(Refusal::new(ErrorKind::Unknown, "this access token is of no device, which this needs")),
        }
    }

    /// The origin of what they cause.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match &self.administrator {
            Some(user) => Origin::Admin { user: user.clone() },
            None => Origin::User { user: self.user.to_string(), device: Some(self.device.to_string()) },
        }
    }
}

impl From<&Sender> for Request {
    fn from(sender: &Sender) -> Self {
        sender.origin().into()
    }
}

/// The key that every change of an account's status and password writes.
#[must_use]
pub fn user_status(user: &str) -> Key {
    Key::new(Tag::UserStatus, user)
}

/// The key that every change of a device and its session writes.
#[must_use]
pub fn device(user: &str, device: &str) -> Key {
    Key::pair(Tag::Device, user, device)
}

/// The guards of whatever a user does: the account is usable, and the device is there.
///
/// # Errors
/// Those of [`present`], and `M_USER_LOCKED` where the account is locked.
pub fn standing(view: &View, sender: &Sender) -> Result<Vec<Read>, Error> {
    let (account, guards) = look_up(view, sender)?;
    not_locked(&account, sender)?;
    Ok(guards)
}

/// The guards of what locked users may do too: the account has not ended, and the device is there.
///
/// # Errors
/// `M_UNKNOWN_TOKEN` where the account or the device has ended.
pub fn present(view: &View, sender: &Sender) -> Result<Vec<Read>, Error> {
    Ok(look_up(view, sender)?.1)
}

/// The guards of what others see: besides [`standing`], the account is not suspended (client-server API, "Account
/// suspension").
///
/// # Errors
/// Those of [`standing`], and `M_USER_SUSPENDED`.
pub fn active(view: &View, sender: &Sender) -> Result<Vec<Read>, Error> {
    let (account, guards) = look_up(view, sender)?;
    not_locked(&account, sender)?;
    if account.suspended && !sender.is_administrator() {
        return Err(Refusal::new(ErrorKind::UserSuspended, "this account is suspended: it can read and leave").into());
    }
    Ok(guards)
}

fn look_up(view: &View, sender: &Sender) -> Result<(Account, Vec<Read>), Error> {
    let (user, on) = (sender.user.as_str(), sender.device.as_str());
    let account = accounts::get(view, user)?.filter(|account| !account.deactivated);
    if sender.is_administrator() {
        let account =
            account.ok_or_else(|| Refusal::not_found(format!("there is no account {user}, or it has ended")))?;
        return Ok((account, vec![unchanged(view, user_status(user))?]));
    }
    let account = account.ok_or_else(|| ended("this account has ended"))?;
    if devices::get(view, user, on)?.is_none() {
        return Err(ended("this device was logged out"));
    }
    Ok((account, vec![unchanged(view, user_status(user))?, unchanged(view, device(user, on))?]))
}

fn not_locked(account: &Account, sender: &Sender) -> Result<(), Error> {
    if account.locked && !sender.is_administrator() {
        return Err(Refusal::new(ErrorKind::UserLocked, "this account is locked").into());
    }
    Ok(())
}

fn ended(message: &str) -> Error {
    Refusal::new(ErrorKind::UnknownToken(UnknownTokenErrorData::new()), message).into()
}
