use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Lsn;

/// The hash chain over a log: `chain(n) = SHA-256(chain before ‖ Lsn, big endian ‖ record bytes)`, from zeros.
///
/// Two nodes that agree on one value agree on the whole history before it, void records included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chain(
    #[serde(with = "crate::json::hex_array")]
    #[schemars(with = "String")]
    pub [u8; 32],
);

impl Chain {
    /// The value after one more record.
    #[must_use]
    pub fn extend(&self, lsn: Lsn, record: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(lsn.to_bytes());
        hash.update(record);
        Self(hash.finalize().into())
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
