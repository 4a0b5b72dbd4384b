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

/// An account that had ended can be used again. What went with it doesn't come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountReactivated {
    /// Full user id.
    pub user: String,
}

/// What sort of user administrators take this one for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserTypeSet {
    /// Full user id.
    pub user: String,
    /// Such as `bot`; none for people.
    pub user_type: Option<String>,
}

/// Whether others are kept from what the user sends, without their being told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShadowBanSet {
    /// Full user id.
    pub user: String,
    /// From here on?
    pub banned: bool,
}

/// How often a user may send, in place of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RateLimitSet {
    /// Full user id.
    pub user: String,
    /// None for what the settings say.
    pub limit: Option<RateLimit>,
}

/// How often somebody may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RateLimit {
    /// In the long run; 0 is without any limit.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// Until when an account may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountValiditySet {
    /// Full user id.
    pub user: String,
    /// Log time at which it expires, milliseconds since the Unix epoch; none is never.
    pub expires_at_ms: Option<u64>,
}

/// Whether a user has a feature that not everybody has yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExperimentalFeatureSet {
    /// Full user id.
    pub user: String,
    /// Its name, such as `msc4222`.
    pub feature: String,
    /// From here on?
    pub enabled: bool,
}

/// A user may replace their cross-signing keys for some time without showing that it is they.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyReplacementAllowed {
    /// Full user id.
    pub user: String,
    /// Log time at which that ends, milliseconds since the Unix epoch.
    pub until_ms: u64,
}
