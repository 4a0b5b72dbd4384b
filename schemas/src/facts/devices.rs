use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Part;

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

/// When, from where and by which program devices were last seen, as one node has gathered it. Merge: of each device the
/// latest ones stay, one for each address and program; without effect on a device that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DevicesSeen {
    /// Each device, address and program at most once.
    pub seen: Vec<DeviceSeen>,
}

/// A device was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceSeen {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The address that it came from, unless addresses are kept off the log.
    pub address: Option<Part>,
    /// What its program says that it is, unless that is kept off the log.
    pub user_agent: Option<Part>,
}
