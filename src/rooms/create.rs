//! The events that a room begins with (client-server API, `createRoom`), in the order that the specification gives.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedMxcUri, OwnedUserId, RoomAliasId, RoomId,
    RoomVersionId, UserId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, RoomPreset},
    },
    events::StateEventType,
    room_version_rules::RoomVersionRules,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    BuildError, Builder, Built, Pdu, Position, Prototype,
    auth::authorise,
    build::{ContentError, content},
};

/// Why a room can't begin like that.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The request is malformed (`M_BAD_JSON`).
    #[error("{0}")]
    Malformed(String),
    /// The rules don't allow one of the events that the request implies (`M_INVALID_ROOM_STATE`).
    #[error("{0}")]
    InvalidState(String),
    /// An event would be too large (`M_TOO_LARGE`).
    #[error("{0}")]
    TooLarge(String),
    /// The request invites by third-party id (`M_THREEPID_DENIED`).
    #[error("this server does not use identity servers, so it can't invite by e-mail address or telephone number")]
    ThirdPartyInvite,
}

impl From<ContentError> for CreateError {
    fn from(error: ContentError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What a membership event says about a user.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Display name.
    pub display_name: Option<String>,
    /// Avatar.
    pub avatar: Option<OwnedMxcUri>,
}

/// Who makes a room, and what kind.
#[derive(Clone, Copy)]
pub struct Founding<'a> {
    /// The creator.
    pub creator: &'a UserId,
    /// The room's version.
    pub version: &'a RoomVersionId,
    /// Its rules.
    pub rules: &'static RoomVersionRules,
    /// The whole alias, if the request names one.
    pub alias: Option<&'a RoomAliasId>,
}

/// The content of a membership event.
#[must_use]
pub fn member(membership: &str, profile: &Profile) -> CanonicalJsonObject {
    let mut content = CanonicalJsonObject::from([("membership".to_owned(), membership.into())]);
    if let Some(name) = &profile.display_name {
        content.insert("displayname".into(), name.as_str().into());
    }
    if let Some(avatar) = &profile.avatar {
        content.insert("avatar_url".into(), avatar.as_str().into());
    }
    content
}

/// The events that a request implies, all sent by the creator. `profile` knows local users.
///
/// # Errors
/// When the request is malformed, or invites by third-party id.
pub fn prototypes(
    request: &Request,
    founding: Founding<'_>,
    profile: impl Fn(&UserId) -> Profile,
) -> Result<Vec<Prototype>, CreateError> {
    if !request.invite_3pid.is_empty() {
        return Err(CreateError::ThirdPartyInvite);
    }
    let preset = preset(request);
    let invited: BTreeSet<&OwnedUserId> = request.invite.iter().collect();
    let creator = founding.creator.as_str();

    let mut events = vec![
        state("m.room.create", "", create_content(request, founding, &preset, &invited)?),
        state("m.room.member", creator, member("join", &profile(founding.creator))),
        state("m.room.power_levels", "", power_levels(request, founding, &preset, &invited)?),
    ];
    if let Some(alias) = founding.alias {
        events.push(state("m.room.canonical_alias", "", object(json!({ "alias": alias }))?));
    }
    let initial = initial_state(request)?;
    for (kind, content) in preset_state(&preset) {
        let overridden = initial.iter().any(|event| event.kind == kind && event.state_key.as_deref() == Some(""));
        if !overridden {
            events.push(state(kind, "", object(content)?));
        }
    }
    events.extend(initial);
    if let Some(name) = &request.name {
        events.push(state("m.room.name", "", object(json!({ "name": name }))?));
    }
    if let Some(topic) = &request.topic {
        let content = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } });
        events.push(state("m.room.topic", "", object(content)?));
    }
    for user in invited {
        let mut content = member("invite", &profile(user));
        if request.is_direct {
            content.insert("is_direct".into(), true.into());
        }
        events.push(state("m.room.member", user.as_str(), content));
    }
    Ok(events)
}

fn state(kind: &str, state_key: &str, content: CanonicalJsonObject) -> Prototype {
    Prototype::state(kind, state_key, content)
}

fn object(value: Value) -> Result<CanonicalJsonObject, CreateError> {
    serde_json::from_value(value).map_err(|error| CreateError::Malformed(error.to_string()))
}

fn preset(request: &Request) -> RoomPreset {
    request.preset.clone().unwrap_or(match request.visibility {
        Visibility::Public => RoomPreset::PublicChat,
        _ => RoomPreset::PrivateChat,
    })
}

fn preset_state(preset: &RoomPreset) -> [(&'static str, Value); 3] {
    let public = *preset == RoomPreset::PublicChat;
    let (join_rule, guests) = if public { ("public", "forbidden") } else { ("invite", "can_join") };
    [
        ("m.room.join_rules", json!({ "join_rule": join_rule })),
        ("m.room.history_visibility", json!({ "history_visibility": "shared" })),
        ("m.room.guest_access", json!({ "guest_access": guests })),
    ]
}

fn create_content(
    request: &Request,
    founding: Founding<'_>,
    preset: &RoomPreset,
    invited: &BTreeSet<&OwnedUserId>,
) -> Result<CanonicalJsonObject, CreateError> {
    let Founding { creator, version, rules, .. } = founding;
    let mut created = CanonicalJsonObject::new();
    let mut creators = Vec::new();
    if let Some(raw) = &request.creation_content {
        let typed = raw.deserialize().map_err(|error| CreateError::Malformed(format!("creation_content: {error}")))?;
        creators = typed.additional_creators;
        created = content(raw.json()).map_err(|error| CreateError::Malformed(format!("creation_content: {error}")))?;
    }
    if rules.authorization.use_room_create_sender {
        created.remove("creator");
    } else {
        created.insert("creator".into(), creator.as_str().into());
    }
    created.insert("room_version".into(), version.as_str().into());
    if rules.authorization.additional_room_creators {
        if *preset == RoomPreset::TrustedPrivateChat {
            creators.extend(invited.iter().copied().cloned());
        }
        let mut seen = BTreeSet::from([creator.to_owned()]);
        creators.retain(|user| seen.insert(user.clone()));
        if creators.is_empty() {
            created.remove("additional_creators");
        } else {
            let creators = creators.iter().map(|user| user.as_str().into()).collect();
            created.insert("additional_creators".into(), CanonicalJsonValue::Array(creators));
        }
    }
    Ok(created)
}

fn power_levels(
    request: &Request,
    founding: Founding<'_>,
    preset: &RoomPreset,
    invited: &BTreeSet<&OwnedUserId>,
) -> Result<CanonicalJsonObject, CreateError> {
    let privileged = founding.rules.authorization.explicitly_privilege_room_creators;
    let mut users = BTreeMap::new();
    if !privileged {
        users.insert(founding.creator, 100);
        if *preset == RoomPreset::TrustedPrivateChat {
            users.extend(invited.iter().map(|user| (user.as_ref() as &UserId, 100)));
        }
    }
    let tombstone = if privileged { 150 } else { 100 };
    let mut levels = object(json!({
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "invite": if *preset == RoomPreset::PublicChat { 50 } else { 0 },
        "kick": 50,
        "redact": 50,
        "state_default": 50,
        "users": users,
        "users_default": 0,
    }))?;
    if let Some(raw) = &request.power_level_content_override {
        let wrong = |error| CreateError::Malformed(format!("power_level_content_override: {error}"));
        levels.extend(content(raw.json()).map_err(wrong)?);
        // Whoever replaces all of `events` must not thereby let everybody replace the room.
        if privileged && let Some(CanonicalJsonValue::Object(events)) = levels.get_mut("events") {
            events.entry("m.room.tombstone".into()).or_insert(CanonicalJsonValue::Integer(tombstone.into()));
        }
    }
    Ok(levels)
}

/// `initial_state` without what `name` and `topic` replace.
fn initial_state(request: &Request) -> Result<Vec<Prototype>, CreateError> {
    #[derive(Deserialize)]
    struct Initial {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        state_key: String,
        content: Box<RawValue>,
    }
    let mut events = Vec::with_capacity(request.initial_state.len());
    for (n, raw) in request.initial_state.iter().enumerate() {
        let wrong = |error: &dyn std::fmt::Display| CreateError::Malformed(format!("initial_state[{n}]: {error}"));
        let event: Initial = serde_json::from_str(raw.json().get()).map_err(|error| wrong(&error))?;
        if event.kind == "m.room.member" {
            let why = format!("initial_state[{n}]: m.room.member: who is in the room is for `invite` to say");
            return Err(CreateError::InvalidState(why));
        }
        let replaced = match (event.kind.as_str(), event.state_key.as_str()) {
            ("m.room.name", "") => request.name.is_some(),
            ("m.room.topic", "") => request.topic.is_some(),
            _ => false,
        };
        if !replaced {
            let content = content(&event.content).map_err(|error| wrong(&error))?;
            events.push(state(&event.kind, &event.state_key, content));
        }
    }
    Ok(events)
}

/// A room's first events, signed and allowed, and the state after them.
pub struct Begun {
    /// The events, each after the one before.
    pub events: Vec<Built>,
    /// The state after the last, by type and state key.
    pub state: BTreeMap<(String, String), Pdu>,
}

/// Builds a room's first events, one after another, each under the rules on the state that those before it made.
///
/// `room_id` is none where the create event makes it (room version 12 and later).
///
/// # Errors
/// When the rules don't allow one of them, or one is too large.
pub fn begin(
    builder: Builder<'_>,
    prototypes: Vec<Prototype>,
    creator: &UserId,
    room_id: Option<&RoomId>,
    at: MilliSecondsSinceUnixEpoch,
) -> Result<Begun, CreateError> {
    let mut begun = Begun { events: Vec::with_capacity(prototypes.len()), state: BTreeMap::new() };
    for what in prototypes {
        let kind = what.kind.clone();
        let refused = |error: &dyn std::fmt::Display| CreateError::InvalidState(format!("{kind}: {error}"));
        let last = begun.events.last().map(|built: &Built| &built.pdu);
        let prev_events: Vec<_> = last.map(|pdu| pdu.id().to_owned()).into_iter().collect();
        let position = Position {
            room_id: last.map(Pdu::room_id).or(room_id),
            prev_events: &prev_events,
            depth: begun.events.len() as u64 + 1,
        };
        let state = |event_type: &StateEventType, state_key: &str| {
            begun.state.get(&(event_type.to_string(), state_key.to_owned())).cloned()
        };
        let built = builder.build(what, creator, at, position, state).map_err(|error| match error {
            BuildError::TooLarge(_) => CreateError::TooLarge(format!("{kind}: {error}")),
            error => refused(&error),
        })?;
        authorise(&built.pdu, builder.rules, state).map_err(|error| refused(&error))?;
        if let Some(state_key) = built.pdu.state_key() {
            begun.state.insert((kind, state_key.to_owned()), built.pdu.clone());
        }
        begun.events.push(built);
    }
    Ok(begun)
}
