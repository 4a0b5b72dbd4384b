//! Random events for property tests, with a liking for what redaction treats specially.

use proptest::{collection, option, prelude::*, sample::select};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, room_version_rules::RoomVersionRules};

/// The rules of every room version that ruma knows.
pub(crate) const ALL_RULES: &[RoomVersionRules] = &[
    RoomVersionRules::V1,
    RoomVersionRules::V2,
    RoomVersionRules::V3,
    RoomVersionRules::V4,
    RoomVersionRules::V5,
    RoomVersionRules::V6,
    RoomVersionRules::V7,
    RoomVersionRules::V8,
    RoomVersionRules::V9,
    RoomVersionRules::V10,
    RoomVersionRules::V11,
    RoomVersionRules::V12,
];

const TYPES: &[&str] = &[
    "m.room.member",
    "m.room.create",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.aliases",
    "m.room.message",
    "x",
];

const TOP: &[&str] = &[
    "event_id",
    "room_id",
    "sender",
    "state_key",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
    "origin",
    "membership",
    "prev_state",
    "unsigned",
    "redacts",
    "age",
];

const CONTENT: &[&str] = &[
    "membership",
    "join_authorised_via_users_server",
    "third_party_invite",
    "creator",
    "room_version",
    "join_rule",
    "allow",
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
    "invite",
    "history_visibility",
    "redacts",
    "aliases",
    "signed",
    "display_name",
    "body",
];

/// Text with what escapes and what sorts unlike its escape.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_.]{0,8}", any::<String>(), "[\"\\\\/\u{0}-\u{1f}\u{7f}é\u{ffff}𝔸]{0,6}"]
}

fn any_value() -> impl Strategy<Value = CanonicalJsonValue> {
    let leaf = prop_oneof![
        Just(CanonicalJsonValue::Null),
        any::<bool>().prop_map(CanonicalJsonValue::Bool),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991)
            .prop_map(|n| CanonicalJsonValue::Integer(n.try_into().unwrap())),
        any_text().prop_map(CanonicalJsonValue::String),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..4).prop_map(CanonicalJsonValue::Array),
            object(CONTENT, inner).prop_map(CanonicalJsonValue::Object),
        ]
    })
}

fn object(
    known: &'static [&'static str],
    value: impl Strategy<Value = CanonicalJsonValue>,
) -> impl Strategy<Value = CanonicalJsonObject> {
    let key = prop_oneof![3 => select(known).prop_map(str::to_owned), 1 => any_text()];
    collection::btree_map(key, value, 0..8)
}

/// An event type and content.
pub(crate) fn any_content() -> impl Strategy<Value = (String, CanonicalJsonObject)> {
    let event_type = prop_oneof![4 => select(TYPES).prop_map(str::to_owned), 1 => any_text()];
    (event_type, object(CONTENT, any_value()))
}

/// An object with a type and, most often, content: all that dividing it takes for granted.
pub(crate) fn any_event() -> impl Strategy<Value = CanonicalJsonObject> {
    (any_content(), object(TOP, any_value()), option::weighted(0.1, any_value())).prop_map(
        |((event_type, content), mut event, odd)| {
            event.insert("type".into(), event_type.into());
            event.insert("content".into(), odd.unwrap_or(CanonicalJsonValue::Object(content)));
            event
        },
    )
}
