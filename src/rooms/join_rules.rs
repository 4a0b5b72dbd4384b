//! Ways into a room: public, by invitation, or through another room (restricted).

use std::collections::BTreeSet;

use ruma::{
    OwnedRoomId, OwnedUserId, UserId,
    events::{StateEventType, room::member::MembershipState},
    room::JoinRuleKind,
    room_version_rules::RoomVersionRules,
    state_res::events::RoomJoinRulesEvent,
};
use serde::Deserialize;

use super::{Forbidden, Power, State, membership};

/// How a user may join a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WayIn {
    /// At once: the room is public, or the user is invited or in it.
    Open,
    /// As a member of one of these rooms; the join event must name a user who could invite
    /// ([`authoriser`]).
    Through(BTreeSet<OwnedRoomId>),
    /// Not without an invitation. Knocking may be allowed.
    Closed {
        /// May the user knock?
        knock: bool,
    },
    /// Not at all: the user is banned.
    Banned,
}

/// A room's join rule; without one it is `invite`.
#[must_use]
pub fn rule(state: impl State) -> JoinRuleKind {
    let event = state(&StateEventType::RoomJoinRules, "").map(RoomJoinRulesEvent::new);
    event.and_then(|event| event.join_rule().ok()).unwrap_or(JoinRuleKind::Invite)
}

/// The rooms whose members a restricted room lets in.
#[must_use]
pub fn allowing_rooms(state: impl State) -> BTreeSet<OwnedRoomId> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        allow: Vec<serde_json::Value>,
    }
    #[derive(Deserialize)]
    struct Allow {
        #[serde(rename = "type")]
        kind: String,
        room_id: OwnedRoomId,
    }
    let content = state(&StateEventType::RoomJoinRules, "").and_then(|event| event.content_as::<Content>());
    let allow = content.map(|content| content.allow).unwrap_or_default();
    let allow = allow.into_iter().filter_map(|entry| serde_json::from_value::<Allow>(entry).ok());
    allow.filter(|entry| entry.kind == "m.room_membership").map(|entry| entry.room_id).collect()
}

/// How a user may join.
#[must_use]
pub fn way_in(user: &UserId, state: impl State, rules: &RoomVersionRules) -> WayIn {
    let rules = &rules.authorization;
    match membership(user, &state) {
        MembershipState::Join | MembershipState::Invite => return WayIn::Open,
        MembershipState::Ban => return WayIn::Banned,
        _ => {}
    }
    match rule(&state) {
        JoinRuleKind::Public => WayIn::Open,
        JoinRuleKind::Restricted if rules.restricted_join_rule => WayIn::Through(allowing_rooms(state)),
        JoinRuleKind::KnockRestricted if rules.knock_restricted_join_rule => WayIn::Through(allowing_rooms(state)),
        JoinRuleKind::Knock => WayIn::Closed { knock: rules.knocking },
        _ => WayIn::Closed { knock: false },
    }
}

/// The first of these users who is in the room and may invite: `join_authorised_via_users_server` of a restricted join.
///
/// # Errors
/// When the state has no valid create event.
pub fn authoriser<'a>(
    users: impl IntoIterator<Item = &'a UserId>,
    state: impl State,
    rules: &'static RoomVersionRules,
) -> Result<Option<OwnedUserId>, Forbidden> {
    let power = Power::of(&state, rules)?;
    let fit = |user: &&UserId| power.may_invite(user) && membership(user, &state) == MembershipState::Join;
    Ok(users.into_iter().find(fit).map(ToOwned::to_owned))
}
