use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Blob, Chain, Lsn};

/// Record 1 of every log. A second one in a race is void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Genesis {
    /// Random, 16 bytes: tells one log from another.
    pub log_id: Blob,
    /// The server's name, for ever.
    pub server_name: String,
    /// The record format at the start.
    pub format: u8,
}

/// A restore from an older log: one-time keys that were not claimed are dropped, fallback keys count as used, and a
/// token beyond the fork point is answered from the fork point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Epoch {
    /// The last position that is kept.
    pub fork: Lsn,
    /// The chain's value there.
    pub chain: Chain,
}

/// Nothing was appended for long: the next record sets log time freely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdleGap {}

/// Builds that don't know this format go on reading but are not ready, and append nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FormatBarrier {
    /// The record format from here on.
    pub format: u8,
}

/// A node takes shards of the work that is done once: from here on it alone does what belongs to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShardsTaken {
    /// Which.
    pub shards: Vec<u8>,
    /// The node's number.
    pub node: u32,
}
