use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Part;

/// An account of this server begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserRegistered {
    /// Full user id.
    pub user: String,
    /// Argon2id string in PHC format; none where the account has no password.
    pub password: Option<Part>,
    /// Administrator of the server.
    pub admin: bool,
    /// What sort of account.
    pub kind: UserKind,
    /// The registration token that it used up one use of.
    pub registration_token: Option<String>,
}

/// What sort of account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// A person or bot.
    Regular,
    /// A guest (client-server API, "Guest access").
    Guest,
    /// A user of an application service.
    AppService,
}

/// A new password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordSet {
    /// Full user id.
    pub user: String,
    /// Argon2id string in PHC format; none takes the password away.
    pub password: Option<Part>,
}

/// The account ends, with its devices, keys, waiting messages, account data and push rules: no login ever again, the
/// name stays taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountDeactivated {
    /// Full user id.
    pub user: String,
    /// The user asks to be forgotten.
    pub erase: bool,
}

/// Whether the account administers the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdminSet {
    /// Full user id.
    pub user: String,
    /// From here on?
    pub admin: bool,
}

/// Lock and suspension (client-server API, "Account locking", "Account suspension").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountStatusSet {
    /// Full user id.
    pub user: String,
    /// Can't use their tokens.
    pub locked: bool,
    /// Can read and leave, but not send or join.
    pub suspended: bool,
}

/// A registration token begins or changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistrationTokenSet {
    /// The token.
    pub token: String,
    /// How many accounts it may make; none is without limit.
    pub uses_allowed: Option<u64>,
    /// Log time at which it ends, milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

/// A registration token ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegistrationTokenRemoved {
    /// The token.
    pub token: String,
}
