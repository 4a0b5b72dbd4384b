//! Stripped state: what somebody who is not in a room learns about it with an invite or a knock.

use ruma::{UserId, events::StateEventType};
use serde_json::value::RawValue;

use super::{Pdu, State};

/// The state that tells what a room is (client-server API, "Stripped state").
pub const TYPES: [StateEventType; 7] = [
    StateEventType::RoomCreate,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
    StateEventType::RoomJoinRules,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomEncryption,
];

/// The events to show: those of [`TYPES`] that are set, and who invites.
#[must_use]
pub fn events(inviter: Option<&UserId>, state: impl State) -> Vec<Pdu> {
    let shown = TYPES.iter().filter_map(|event_type| state(event_type, ""));
    let inviter = inviter.and_then(|user| state(&StateEventType::RoomMember, user.as_str()));
    shown.chain(inviter).collect()
}

/// A state event in stripped form: content, sender, state key, type.
///
/// # Errors
/// Never for an event that was read: its content is JSON.
pub fn strip(event: &Pdu) -> serde_json::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(&serde_json::json!({
        "content": event.content(),
        "sender": event.sender(),
        "state_key": event.state_key().unwrap_or_default(),
        "type": event.kind(),
    }))
}
