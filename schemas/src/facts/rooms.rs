use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Lsn;

/// A user who left a room forgets it. Merge: has effect only while the user is not in the room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomForgotten {
    /// Who.
    pub user: String,
    /// Room id.
    pub room: String,
}

/// All rooms of a user have followed a change of their profile, or the end of their account. Merge: the furthest wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomsFollowed {
    /// Full user id.
    pub user: String,
    /// The change: what came after it is still to be followed.
    pub up_to: Lsn,
}

/// An administrator blocks a room, or lets it be again: local users can't join or send while it is blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomBlocked {
    /// Room id.
    pub room: String,
    /// Blocked from here on?
    pub blocked: bool,
    /// The administrator's words.
    pub reason: Option<String>,
}
