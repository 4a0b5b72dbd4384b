use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Blob;

/// What may one day have to be forgotten: the rest of an event, a password hash, a body sent to a device.
///
/// It stands apart from what is kept from the first record on, so that erasure can forget the key of a sealed part
/// while the hash chain still verifies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The bytes themselves.
    Clear(Blob),
    /// Encrypted under a key that a vault keeps, and can forget.
    Sealed {
        /// Which key of the vault.
        key_id: Blob,
        /// Number of the cipher; 1 is XChaCha20-Poly1305.
        algorithm: u8,
        /// The cipher's nonce.
        nonce: Blob,
        /// The encrypted bytes with their tag.
        ciphertext: Blob,
    },
}

impl Part {
    /// A part in the clear.
    #[must_use]
    pub fn clear(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Clear(Blob(bytes.into()))
    }

    /// The bytes, unless they are sealed.
    #[must_use]
    pub fn open(&self) -> Option<&[u8]> {
        match self {
            Self::Clear(bytes) => Some(&bytes.0),
            Self::Sealed { .. } => None,
        }
    }
}
