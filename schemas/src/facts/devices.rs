use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A device begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceAdded {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// What the user sees it called.
    pub display_name: Option<String>,
}

/// A device has another name. Merge: the last wins; without effect on a device that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceRenamed {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// What the user sees it called.
    pub display_name: Option<String>,
}

/// A device ends, with its tokens, keys and waiting messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceRemoved {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
}
