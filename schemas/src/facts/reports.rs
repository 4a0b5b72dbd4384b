use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A user reports an event to the server's administrators. Allotment: the report gets the number after the last that a
/// report of an event got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventReported {
    /// Full id of the user who reports it.
    pub user: String,
    /// The room's id.
    pub room: String,
    /// The event's id.
    pub event: String,
    /// Full id of the event's sender: the event may go, and the report stays.
    pub sender: String,
    /// The reporter's words.
    pub reason: Option<String>,
    /// How bad it is, from -100 (most offensive) to 0, by the reporter's word.
    pub score: Option<i64>,
}

/// A user reports a room to the server's administrators. Allotment: the report gets the number after the last that a
/// report of a room got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoomReported {
    /// Full id of the user who reports it.
    pub user: String,
    /// The room's id.
    pub room: String,
    /// The reporter's words.
    pub reason: String,
}

/// A user reports another to the server's administrators. Allotment: the report gets the number after the last that a
/// report of a user got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserReported {
    /// Full id of the user who reports.
    pub user: String,
    /// Full id of the user who is reported.
    pub target: String,
    /// The reporter's words.
    pub reason: String,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportKind {
    /// An event.
    Event,
    /// A room.
    Room,
    /// A user.
    User,
}

/// An administrator removes a report. Merge: one that is not there changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportRemoved {
    /// What it is about.
    pub kind: ReportKind,
    /// Its number among those.
    pub number: u64,
}
