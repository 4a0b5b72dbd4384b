//! Who may do what: power levels as the rules read them.

use std::collections::HashSet;

use ruma::{
    Int, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::power_levels::UserPowerLevel},
    int,
    room_version_rules::RoomVersionRules,
    state_res::events::{RoomCreateEvent, RoomPowerLevelsEvent, RoomPowerLevelsIntField as Field},
};

use super::{Forbidden, Pdu, State};

/// Power in a room at one state. Where the state's power levels are malformed, nobody but the creators has any.
#[derive(Clone, Debug)]
pub struct Power {
    creators: HashSet<OwnedUserId>,
    levels: Option<RoomPowerLevelsEvent<Pdu>>,
    rules: &'static RoomVersionRules,
}

impl Power {
    /// Reads the create event and the power levels.
    ///
    /// # Errors
    /// When the state has no valid create event: nothing is allowed then.
    pub fn of(state: impl State, rules: &'static RoomVersionRules) -> Result<Self, Forbidden> {
        let create = state(&StateEventType::RoomCreate, "");
        let create = create.ok_or_else(|| Forbidden("the room has no create event".to_owned()))?;
        let creators = RoomCreateEvent::new(create).creators(&rules.authorization)?;
        let levels = state(&StateEventType::RoomPowerLevels, "").map(RoomPowerLevelsEvent::new);
        Ok(Self { creators, levels, rules })
    }

    /// The room's creators; from room version 12 on their power is infinite and can't be taken away.
    #[must_use]
    pub fn creators(&self) -> &HashSet<OwnedUserId> {
        &self.creators
    }

    /// A user's level.
    #[must_use]
    pub fn level(&self, user: &UserId) -> UserPowerLevel {
        let rules = &self.rules.authorization;
        let created = self.creators.contains(user);
        match &self.levels {
            _ if created && rules.explicitly_privilege_room_creators => UserPowerLevel::Infinite,
            Some(levels) => UserPowerLevel::Int(levels.user_power_level(user, rules).unwrap_or(int!(0))),
            None if created => UserPowerLevel::Int(int!(100)),
            None => UserPowerLevel::Int(int!(0)),
        }
    }

    /// The level that sending an event of this type needs.
    #[must_use]
    pub fn needed(&self, kind: &str, state: bool) -> Int {
        let Some(levels) = &self.levels else {
            return if state { Field::StateDefault } else { Field::EventsDefault }.default_value();
        };
        let kind = TimelineEventType::from(kind);
        levels.event_power_level(&kind, state.then_some(""), &self.rules.authorization).unwrap_or(Int::MAX)
    }

    fn field(&self, field: Field) -> Int {
        let Some(levels) = &self.levels else { return field.default_value() };
        levels.get_as_int_or_default(field, &self.rules.authorization).unwrap_or(Int::MAX)
    }

    /// May the user send messages of this type?
    #[must_use]
    pub fn may_send(&self, user: &UserId, kind: &str) -> bool {
        self.level(user) >= self.needed(kind, false)
    }

    /// May the user set state of this type?
    #[must_use]
    pub fn may_set(&self, user: &UserId, kind: &str) -> bool {
        self.level(user) >= self.needed(kind, true)
    }

    /// May the user redact what others sent?
    #[must_use]
    pub fn may_redact_any(&self, user: &UserId) -> bool {
        self.level(user) >= self.field(Field::Redact)
    }

    /// May the user invite?
    #[must_use]
    pub fn may_invite(&self, user: &UserId) -> bool {
        self.level(user) >= self.field(Field::Invite)
    }

    /// May the user kick that other one?
    #[must_use]
    pub fn may_kick(&self, user: &UserId, target: &UserId) -> bool {
        self.level(user) >= self.field(Field::Kick) && self.level(user) > self.level(target)
    }

    /// May the user ban that other one?
    #[must_use]
    pub fn may_ban(&self, user: &UserId, target: &UserId) -> bool {
        self.level(user) >= self.field(Field::Ban) && self.level(user) > self.level(target)
    }
}
