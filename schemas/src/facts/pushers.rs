use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Blob, Part};

/// A user wants to be notified through a push gateway (client-server API, "Push Notifications"). Merge: the last wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PusherSet {
    /// Full user id.
    pub user: String,
    /// The device that asked for it, with which it ends; empty where there was none.
    pub device: String,
    /// SHA-256 of the app's id, NUL and the pushkey.
    pub id: Blob,
    /// The pusher, JSON.
    pub pusher: Part,
    /// Other users who have one with this id keep it.
    pub append: bool,
}

/// A user wants no more to be notified so. Merge: the last wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PusherRemoved {
    /// Full user id.
    pub user: String,
    /// As when it was set.
    pub id: Blob,
}
