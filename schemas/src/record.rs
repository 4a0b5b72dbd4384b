use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{DecodeError, FORMAT, Fact, Key, Lsn, Read, codec};

/// No record is larger than this, encoded, on any backend. What is larger is staged.
pub const MAX_RECORD_BYTES: usize = 1 << 20;

/// Names a record for ever: random, or derived from the request where that has a transaction id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct RecordId(
    #[serde(with = "crate::json::hex_array")]
    #[schemars(with = "String")]
    pub [u8; 16],
);

impl RecordId {
    /// The id of a request with a transaction id: it is the same when the request is repeated.
    #[must_use]
    pub fn of_request(user: &str, device: &str, method: &str, path: &str, txn: &str) -> Self {
        let mut hash = Sha256::new();
        for part in [user, device, method, path, txn] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Tells one record from others with the same id, of which at most one is applied: random.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct CopyId(
    #[serde(with = "crate::json::hex_array")]
    #[schemars(with = "String")]
    pub [u8; 8],
);

impl fmt::Debug for CopyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The very record that another builds on while it is on its way. The id alone would not do: a request may come to two
/// nodes, and the record that is applied then need not be the one that was built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct After {
    /// Its id.
    pub id: RecordId,
    /// Which of that id.
    pub copy: CopyId,
}

/// Who caused a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A user of this server, through one of their devices if they are logged in.
    User {
        /// Full user id.
        user: String,
        /// Device id.
        device: Option<String>,
    },
    /// Another homeserver.
    Remote {
        /// Its server name.
        server: String,
    },
    /// An application service.
    AppService {
        /// The id in its registration.
        id: String,
    },
    /// An administrator, acting as such.
    Admin {
        /// Full user id, or the name of the tool.
        user: String,
    },
    /// The server itself.
    Server,
}

/// What a record rests on. It can be read without decoding the facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// The record format, 1.
    pub format: u8,
    /// Names the record.
    pub id: RecordId,
    /// How often the decision was made before this time.
    pub attempt: u16,
    /// Tells this record from others with its id.
    pub copy: CopyId,
    /// The node's clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Which node decided.
    pub node: u32,
    /// Who caused it.
    pub origin: Origin,
    /// The record that this one follows from, for what reactors append.
    pub cause: Option<Lsn>,
    /// Guards.
    pub reads: Vec<Read>,
    /// Keys that are at this record once it is applied.
    pub writes: Vec<Key>,
    /// The record that must have been applied before.
    pub after: Option<After>,
}

impl Header {
    /// Of a record that rests on nothing and writes no key, decided for the first time by node 0.
    #[must_use]
    pub const fn plain(After { id, copy }: After, at_ms: u64, origin: Origin) -> Self {
        Self {
            format: FORMAT,
            id,
            attempt: 0,
            copy,
            at_ms,
            node: 0,
            origin,
            cause: None,
            reads: Vec::new(),
            writes: Vec::new(),
            after: None,
        }
    }
}

/// A fact as it stands on the log: its number, its version, and bytes that stay opaque until somebody folds them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawFact {
    /// Fixed number of the kind.
    pub number: u16,
    /// Version of its shape.
    pub version: u8,
    /// bincode.
    pub body: crate::Blob,
}

impl RawFact {
    /// Decodes it, upcasting an older version.
    ///
    /// # Errors
    /// [`DecodeError`] for an unknown number or version and for malformed bytes.
    pub fn decode(&self) -> Result<Fact, DecodeError> {
        Fact::decode(self.number, self.version, &self.body.0)
    }

    /// Whether the next record may set log time freely (`Genesis`, `IdleGap`).
    #[must_use]
    pub const fn opens_log_time(&self) -> bool {
        self.number == 1 || self.number == 3
    }
}

impl From<&Fact> for RawFact {
    fn from(fact: &Fact) -> Self {
        fact.encode()
    }
}

impl fmt::Debug for RawFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decode() {
            Ok(fact) => fact.fmt(f),
            Err(_) => write!(f, "fact {} v{} ({} bytes)", self.number, self.version, self.body.0.len()),
        }
    }
}

/// One decision: header and facts. Encoded as `length of the header (u32, little endian) ‖ header ‖ facts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it rests on.
    pub header: Header,
    /// What was decided.
    pub facts: Vec<RawFact>,
}

impl Record {
    /// The bytes that go on the log.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] above [`MAX_RECORD_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let header = codec::encode(&self.header);
        let facts = codec::encode(&self.facts);
        let size = 4 + header.len() + facts.len();
        if size > MAX_RECORD_BYTES {
            return Err(DecodeError::TooLarge { size, cap: MAX_RECORD_BYTES });
        }
        let mut bytes = Vec::with_capacity(size);
        let length = u32::try_from(header.len()).map_err(|_| DecodeError::TooLarge { size, cap: MAX_RECORD_BYTES })?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&facts);
        Ok(bytes)
    }

    /// Reads the header alone, and returns where the facts begin.
    ///
    /// # Errors
    /// [`DecodeError`] for an unknown format and for malformed bytes.
    pub fn decode_header(bytes: &[u8]) -> Result<(Header, usize), DecodeError> {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        let header = rest.get(..length).ok_or(DecodeError::Truncated)?;
        match header.first() {
            Some(&FORMAT) => Ok((codec::decode(header)?, 4 + length)),
            Some(&format) => Err(DecodeError::UnknownFormat(format)),
            None => Err(DecodeError::Truncated),
        }
    }

    /// Reads a whole record; the facts' bodies stay encoded.
    ///
    /// # Errors
    /// [`DecodeError`] for an unknown format, a size over the cap, and malformed bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(DecodeError::TooLarge { size: bytes.len(), cap: MAX_RECORD_BYTES });
        }
        let (header, start) = Self::decode_header(bytes)?;
        let facts = codec::decode(&bytes[start..])?;
        Ok(Self { header, facts })
    }
}

/// A decision before it is stamped with time, node and attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// Guards.
    pub reads: Vec<Read>,
    /// Keys it writes.
    pub writes: Vec<Key>,
    /// Facts.
    pub facts: Vec<Fact>,
}
