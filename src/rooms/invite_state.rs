//! Stripped state: what somebody who is not in a room learns about it with an invite or a knock.

use ruma::events::StateEventType;

/// The state that tells what a room is (client-server API, "Stripped state"), all with an empty state key. To it comes the
/// membership event of whoever invites; [`super::client::stripped`] shows each.
pub const TYPES: [StateEventType; 7] = [
    StateEventType::RoomCreate,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
    StateEventType::RoomJoinRules,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomEncryption,
];
