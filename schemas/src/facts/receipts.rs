use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who sees a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptKind {
    /// `m.read`.
    Public,
    /// `m.read.private`.
    Private,
}

/// A receipt (client-server API, "Receipts"). Merge: the furthest in the room's order wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiptSet {
    /// Full user id.
    pub user: String,
    /// Room id.
    pub room: String,
    /// Public or private.
    pub kind: ReceiptKind,
    /// None is unthreaded; `main` or the event id of a thread's root.
    pub thread: Option<String>,
    /// Event id of what was read.
    pub event: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}
