use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An alias points to a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AliasSet {
    /// The alias.
    pub alias: String,
    /// Room id.
    pub room: String,
    /// Who made it.
    pub creator: String,
    /// Servers through which the room can be joined.
    pub servers: Vec<String>,
}

/// An alias points nowhere any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AliasRemoved {
    /// The alias.
    pub alias: String,
}

/// Whether a room stands in this server's public list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomPublished {
    /// Room id.
    pub room: String,
    /// From here on?
    pub published: bool,
}
