use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Blob, Part};

/// An account has a third-party id (client-server API, "Adding Account Administrative Contact Information"). Whoever had it
/// before has it no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThirdPartyIdAdded {
    /// Full user id.
    pub user: String,
    /// SHA-256 of `3pid`, NUL, the medium, NUL and the address.
    pub hash: Blob,
    /// `email` or `msisdn`.
    pub medium: String,
    /// The mail address in lower case, or the digits of the number.
    pub address: Part,
    /// When it was shown to be the user's, milliseconds since the Unix epoch.
    pub validated_at_ms: u64,
}

/// An account has a third-party id no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ThirdPartyIdRemoved {
    /// Full user id.
    pub user: String,
    /// As when it was added.
    pub hash: Blob,
}

/// An account is somebody's whom an identity provider knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExternalIdAdded {
    /// Full user id.
    pub user: String,
    /// SHA-256 of `external`, NUL, the provider, NUL and the id.
    pub hash: Blob,
    /// Which provider.
    pub provider: String,
    /// Who they are there.
    pub id: Part,
}

/// An account is no more of somebody whom an identity provider knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExternalIdRemoved {
    /// Full user id.
    pub user: String,
    /// As when it was added.
    pub hash: Blob,
}
