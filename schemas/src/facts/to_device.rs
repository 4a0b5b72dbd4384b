use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Lsn, Part};

/// One message for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToDeviceMessage {
    /// Full user id.
    pub user: String,
    /// Device id; `*` was spelled out into the user's devices when it was decided.
    pub device: String,
    /// Content, JSON.
    pub content: Part,
}

/// Messages to devices (client-server API, "Send-to-Device messaging"). Merge: each is queued where its device is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToDeviceSent {
    /// Full user id of the sender.
    pub sender: String,
    /// Event type.
    pub event_type: String,
    /// The messages.
    pub messages: Vec<ToDeviceMessage>,
}

/// A device has got everything up to a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Acknowledgement {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// Messages up to here can be deleted.
    pub up_to: Lsn,
}

/// What devices have got, coalesced. Merge: the furthest wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToDeviceAcknowledged {
    /// By device.
    pub acks: Vec<Acknowledgement>,
}
