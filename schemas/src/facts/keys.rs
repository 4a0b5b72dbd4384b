use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Json;

/// A device's identity keys. Merge: the last wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceKeysUploaded {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// `DeviceKeys` as uploaded.
    pub keys: Json,
}

/// A key with its id, `algorithm:id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NamedKey {
    /// `algorithm:id`.
    pub id: String,
    /// The key: a string or a signed object.
    pub key: Json,
}

/// More one-time keys. Merge: an id that is there keeps its first key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OneTimeKeysUploaded {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// The keys.
    pub keys: Vec<NamedKey>,
}

/// Fallback keys, one for each algorithm. Merge: the last wins, and counts as unused again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FallbackKeysUploaded {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// The keys.
    pub keys: Vec<NamedKey>,
}

/// One key of a device is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// For example `signed_curve25519`.
    pub algorithm: String,
}

/// One-time keys are claimed. Allotment: each claim gets the key of the lowest upload (Lsn, then key id) that nobody
/// got before, else the fallback key, which then counts as used. The result is read at the claim's Lsn and place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OneTimeKeysClaimed {
    /// The claims.
    pub claims: Vec<Claim>,
}

/// A user's cross-signing keys; what is none stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CrossSigningKeysSet {
    /// Full user id.
    pub user: String,
    /// Master key.
    pub master: Option<Json>,
    /// Self-signing key.
    pub self_signing: Option<Json>,
    /// User-signing key.
    pub user_signing: Option<Json>,
}

/// Signatures over one key of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignedObject {
    /// Whose key was signed.
    pub user: String,
    /// A device id, or the public part of a cross-signing key.
    pub key: String,
    /// The `signatures` of the signed object, checked.
    pub signatures: Json,
}

/// Signatures by one user. Merge: added to those that are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignaturesUploaded {
    /// Who signed.
    pub signer: String,
    /// What.
    pub objects: Vec<SignedObject>,
}
