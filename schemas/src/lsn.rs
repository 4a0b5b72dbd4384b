use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point in the whole history of a server: `epoch · 2^40 + n`, below 2^53, so that it is a legal JSON integer.
///
/// Lsns rise along the log; gaps are legal, so nothing may assume `next()` to exist. Zero is before everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// The first record of a log, its `Genesis`.
    pub const FIRST: Self = Self(1);
    /// The highest legal position.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// The position after this one; whether a record stands there is for the log to say.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Big-endian bytes, so that byte order is log order.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`Lsn::to_bytes`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A short id that the fold derives from the record that introduced a thing, and the thing's place in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Nid {
    /// The record.
    pub lsn: Lsn,
    /// The fact in the record that introduced the thing.
    pub index: u16,
}

impl Nid {
    /// The length of [`Nid::to_bytes`].
    pub const LEN: usize = 10;

    /// Ten bytes whose order is the order of introduction.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.lsn.to_bytes());
        bytes[8..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    /// The inverse of [`Nid::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j] = bytes;
        Self { lsn: Lsn::from_bytes([a, b, c, d, e, f, g, h]), index: u16::from_be_bytes([i, j]) }
    }

    /// Reads a nid from the front of `bytes`, if there are enough.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.get(..Self::LEN)?.try_into().ok().map(Self::from_bytes)
    }
}

impl fmt::Display for Nid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.lsn, self.index)
    }
}
