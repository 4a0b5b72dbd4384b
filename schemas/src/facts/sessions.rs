use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Blob;

/// A login: the device has these tokens, and no others, from here on. Tokens are never on the log, their SHA-256 is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionOpened {
    /// Full user id.
    pub user: String,
    /// Device id, added before or in the same record.
    pub device: String,
    /// SHA-256 of the access token.
    pub access: Blob,
    /// Log time at which the access token ends, milliseconds since the Unix epoch.
    pub access_expires_at_ms: Option<u64>,
    /// SHA-256 of the refresh token.
    pub refresh: Option<Blob>,
}

/// New tokens for a refresh token (client-server API, "Refreshing access tokens"). Using a token appends nothing, so the
/// old tokens go on until the new refresh token is used in its turn; where the old one is used again instead, the new
/// ones end at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRefreshed {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// SHA-256 of the refresh token that was used.
    pub used: Blob,
    /// SHA-256 of the new access token.
    pub access: Blob,
    /// Log time at which the new access token ends, milliseconds since the Unix epoch.
    pub access_expires_at_ms: Option<u64>,
    /// SHA-256 of the new refresh token.
    pub refresh: Blob,
}

/// A user lets somebody who is not logged in do so once, as them (client-server API, "Token-authenticated User login").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoginTokenIssued {
    /// SHA-256 of the token.
    pub token: Blob,
    /// Full user id.
    pub user: String,
    /// The device that asked for it, with which it ends.
    pub device: String,
    /// Log time at which it ends by itself, milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// A login token has let somebody in, in the same record, and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoginTokenUsed {
    /// SHA-256 of the token.
    pub token: Blob,
}

/// An administrator logs in as a user, without a device: what they do so is theirs in the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StandInOpened {
    /// Full id of the user in whose stead they act.
    pub user: String,
    /// Who, as the record's origin names them.
    pub administrator: String,
    /// SHA-256 of the access token.
    pub access: Blob,
    /// Log time at which it ends, milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

/// An administrator acts as somebody else no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StandInEnded {
    /// SHA-256 of the access token.
    pub access: Blob,
}
