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

/// A room is taken away: from here on nobody finds it, and its rows are removed step by step ([`RoomPurged`]). An event of a
/// room with this id that is learned later begins a new room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomDetached {
    /// Room id.
    pub room: String,
}

/// One read model forgets some of what it has of a room that was detached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomPurged {
    /// Room id.
    pub room: String,
    /// The read model's name.
    pub model: String,
    /// At most so many keys.
    pub keys: u32,
    /// However many there are: these are all that is left.
    pub last: bool,
}

/// Events of a room's past are no longer in its order: nobody finds them there, or by what relates to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryWithdrawn {
    /// Room id.
    pub room: String,
    /// Ids of the events.
    pub events: Vec<String>,
}

/// Follows [`HistoryWithdrawn`] in the same record: what becomes of the events themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsForgotten {
    /// Room id.
    pub room: String,
    /// Ids of the events that are not known any more.
    pub forgotten: Vec<String>,
    /// Ids of those that stay known as outliers: the room's state rests on them, or they are nowhere else.
    pub kept: Vec<String>,
}
