use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Blob, Json, Part};

/// The bytes of an event, once for each event id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventLearned {
    /// Event id.
    pub id: String,
    /// Room id.
    pub room: String,
    /// What redaction keeps, canonical JSON.
    pub skeleton: Json,
    /// What redaction removes, canonical JSON of the same nesting: joined with the skeleton it gives the exact signed
    /// bytes back. None where redaction removes nothing.
    pub rest: Option<Part>,
    /// The content hash did not match, so that only the redacted form was kept.
    pub redacted_copy: bool,
}

/// Where an event stands and what was decided about it. One for each event, unless [`EventRestated`] changes it; a
/// placement that is already there is a no-op.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventPlaced {
    /// Event id, learned before or in the same record.
    pub id: String,
    /// Live, history or outlier.
    pub class: Placement,
    /// Accepted, soft-failed or rejected.
    pub verdict: Verdict,
    /// The state before the event; none for outliers.
    pub state_before: Option<StateBefore>,
    /// How the room's resolved current state changes, against the version that the record's guard names. The two are
    /// independent: a state event on one side of a fork may lose the resolution.
    pub current: Vec<StateChange>,
    /// History visibility in the state before the event.
    pub visibility: Visibility,
    /// Other servers to which it is to be sent.
    pub servers: Vec<String>,
    /// What it redacts, if it is a redaction.
    pub redacts: Option<Redaction>,
}

/// A verdict that legitimately changes: an outlier gets its place, partial state completes, a soft-failed event enters
/// the state. Fields as in [`EventPlaced`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventRestated {
    /// Event id, placed before.
    pub id: String,
    /// The new class.
    pub class: Placement,
    /// The new verdict.
    pub verdict: Verdict,
    /// The new state before the event; none where that stays as it is.
    pub state_before: Option<StateBefore>,
    /// How the room's resolved current state changes.
    pub current: Vec<StateChange>,
    /// History visibility in the new state before the event.
    pub visibility: Visibility,
}

/// Where an event stands in its room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// It happened now: /sync shows it, and it becomes a forward extremity unless it is soft-failed or rejected.
    Live,
    /// Backfilled: it stands before an anchor, and never shows up in /sync.
    History {
        /// Event id of the live event before which it stands.
        anchor: String,
        /// How far before it, from 1.
        order: u32,
    },
    /// Known only because another event refers to it.
    Outlier,
}

/// What the checks on receipt said (server-server API, "Checks performed on receipt of a PDU").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Passed all checks.
    Accepted,
    /// Allowed by the state before it, not by the current state: kept, not shown, no extremity.
    SoftFailed,
    /// Not allowed by its auth events or by the state before it.
    Rejected,
}

/// An administrator takes forward extremities away from a room: what comes next is not built on them. Where the current
/// state changes by that, an [`EventRestated`] of the one that stays says how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExtremitiesRemoved {
    /// Room id.
    pub room: String,
    /// Ids of the events; those that are no extremities any more don't matter.
    pub events: Vec<String>,
}

/// A state event in a state: its place, and the event there; none removes the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateChange {
    /// Event type.
    pub event_type: String,
    /// State key.
    pub state_key: String,
    /// Event id.
    pub event: Option<String>,
}

/// The state before an event: a base and what differs from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateBefore {
    /// Where to begin.
    pub base: StateBase,
    /// What is different.
    pub delta: Vec<StateChange>,
}

/// A state by name, never by a physical number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateBase {
    /// No state at all: before the create event.
    Empty,
    /// The state after an event.
    After(String),
    /// A set that earlier records staged ([`StateSet`]).
    Set(Blob),
}

/// `m.room.history_visibility` (client-server API, "Room history visibility").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Everybody.
    WorldReadable,
    /// Members, all of it.
    Shared,
    /// Members, from their invitation on.
    Invited,
    /// Members, from their joining on.
    Joined,
}

/// The effect of a redaction. It takes effect whichever of the two events comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redaction {
    /// Event id of what is redacted.
    pub target: String,
    /// The sender may redact anybody's events; else only events of users of their own server. Decided at the redaction's
    /// own state.
    pub may_redact_any: bool,
}

/// Events too large to go into the record that decides about them. Without effect until [`StagedEvents`] names them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventBodies {
    /// Random name of the set, 16 bytes.
    pub set: Blob,
    /// Which part of the set this is, from 0.
    pub n: u32,
    /// The events.
    pub events: Vec<EventLearned>,
}

/// Learns all events of a staged set, as if each stood here as an [`EventLearned`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StagedEvents {
    /// The set.
    pub set: Blob,
    /// How many parts it has.
    pub count: u32,
    /// SHA-256 over the encoded parts, in order.
    pub sha256: Blob,
}

/// A part of a named state, for bases too large for one record. Without effect until [`StateSet`] seals it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateSetPart {
    /// Random name of the set, 16 bytes.
    pub set: Blob,
    /// Which part of the set this is, from 0.
    pub n: u32,
    /// Entries.
    pub entries: Vec<StateChange>,
}

/// Seals a staged state: from here on it can be a base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateSet {
    /// The set.
    pub set: Blob,
    /// How many parts it has.
    pub count: u32,
    /// SHA-256 over the encoded parts, in order.
    pub sha256: Blob,
}

/// By which request a local event was sent: its own device sees the transaction id again (`unsigned.transaction_id`).
/// Merge: the first for an event counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventTransaction {
    /// Event id.
    pub event: String,
    /// The sender's device id.
    pub device: String,
    /// The transaction id that the client chose.
    pub transaction: String,
}
