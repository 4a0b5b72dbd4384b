//! The only caller of bincode: everything binary in Everfold, on the log and in the read models, goes through here.
//!
//! Encoding: bincode 2, little endian, variable-length integers. Decoding never allocates beyond the input's cap.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Serialize, de::DeserializeOwned};

use crate::DecodeError;

/// No encoded value is larger than this, in bytes: room for a record and its surroundings.
const LIMIT: usize = 4 << 20;

const fn config() -> Configuration<LittleEndian, Varint, Limit<LIMIT>> {
    bincode::config::standard().with_limit::<LIMIT>()
}

/// Encodes a value.
///
/// # Panics
/// Never for the types of this workspace: they are plain data that bincode can always encode, and are checked
/// against their cap where they are built.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "plain data always encodes: only a Serialize impl that fails by itself could break this"
)]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).expect("plain data encodes")
}

/// Decodes a value that takes up all of `bytes`.
///
/// # Errors
/// [`DecodeError`] when the bytes end early, are left over, or are malformed.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used) = decode_prefix(bytes)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(DecodeError::Trailing(left)),
    }
}

/// Decodes a value from the front of `bytes` and says how many bytes it took.
///
/// # Errors
/// [`DecodeError`] when the bytes end early or are malformed.
pub fn decode_prefix<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), DecodeError> {
    use bincode::error::DecodeError as E;
    bincode::serde::decode_from_slice(bytes, config()).map_err(|error| match error {
        E::UnexpectedEnd { .. } => DecodeError::Truncated,
        E::LimitExceeded => DecodeError::TooLarge { size: bytes.len(), cap: LIMIT },
        other => DecodeError::Malformed(other.to_string()),
    })
}
