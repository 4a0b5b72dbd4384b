//! Users, as Synapse's admin API shows and changes them.
//!
//! | File | What |
//! |---|---|
//! | `list` | which there are |
//! | `account` | one of them: shown, made, changed, ended |
//! | `flags` | what they may do, and what they are to be told apart by |
//! | `devices` | their devices |
//! | `sessions` | logging in as them, and from where they came |
//! | `belongings` | their rooms, pushers, account data, and how much they do |
//! | `identities` | who they are elsewhere |

mod account;
mod belongings;
mod devices;
mod flags;
mod identities;
mod list;
mod sessions;

use axum::Router;
use projections::{
    View,
    models::{
        accounts::{self, Account},
        profiles,
    },
};
use ruma::{OwnedUserId, UserId};

use super::{Admin, params};
use crate::{
    commands::users::unknown,
    http::{App, reply::ApiError},
};

/// What a user may be taken for, besides a person.
pub(super) const USER_TYPES: &[&str] = &["support", "bot"];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .merge(list::routes())
        .merge(account::routes())
        .merge(flags::routes())
        .merge(devices::routes())
        .merge(sessions::routes())
        .merge(belongings::routes())
        .merge(identities::routes())
}

/// A user id.
///
/// # Errors
/// 400 `M_INVALID_PARAM`.
fn parse(user: &str) -> Result<OwnedUserId, ApiError> {
    UserId::parse(user).map_err(|_| {
        ApiError::invalid(match user.strip_prefix('@') {
            None => "Expected UserID string to start with '@'",
            Some(_) => "Expected UserID of the form '@localname:domain'",
        })
    })
}

/// The id of a user of this server.
///
/// # Errors
/// 400 with this message for another server's.
fn local(app: &App, user: &str, elsewhere: &str) -> Result<OwnedUserId, ApiError> {
    let user = parse(user)?;
    if user.server_name() == app.config.server_name { Ok(user) } else { Err(params::unknown(elsewhere)) }
}

/// An account that is there, ended or not.
///
/// # Errors
/// 404.
fn existing(view: &View, user: &UserId) -> Result<Account, ApiError> {
    Ok(accounts::get(view, user.as_str())?.ok_or_else(unknown)?)
}

/// A text of a profile.
fn field(view: &View, user: &str, name: &str) -> Result<Option<String>, ApiError> {
    Ok(profiles::field(view, user, name)?.and_then(|value| value.read().ok()))
}
