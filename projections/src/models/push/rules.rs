//! Events against push rules, by ruma: for a user to whom they mean nothing special, and for users with rules of their
//! own.

use std::{
    cell::OnceCell,
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use ruma::{
    OwnedRoomId, OwnedUserId, RoomVersionId, UInt,
    events::room::{
        create::RoomCreateEventContent,
        power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource},
    },
    owned_room_id, owned_user_id,
    push::{
        Action, AnyPushRuleRef, EventMatchConditionData, FlattenedJson, FlattenedJsonValue, PushCondition,
        PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset, ScalarJsonValue,
    },
    room_version_rules::AuthorizationRules,
    serde::Raw,
};
use schemas::Nid;
use serde_json::{Value, json, value::RawValue};

use super::{Class, Event};
use crate::{
    StoreError,
    models::{events, membership, push_rules, state},
    read::Read,
};

/// Nobody: no event of a room is theirs or mentions them.
static NOBODY: LazyLock<OwnedUserId> = LazyLock::new(|| owned_user_id!("@nobody:everfold.invalid"));
/// Who sends the examples of classes.
static SOMEBODY: LazyLock<OwnedUserId> = LazyLock::new(|| owned_user_id!("@somebody:everfold.invalid"));
static NOWHERE: LazyLock<OwnedRoomId> = LazyLock::new(|| owned_room_id!("!room:everfold.invalid"));

static DEFAULTS: LazyLock<Ruleset> = LazyLock::new(|| push_rules::defaults(NOBODY.as_str()));

/// What the defaults say about each class, and about an event that mentions the user.
static DEFAULT_VERDICTS: LazyLock<([Verdict; Class::ALL.len()], Verdict)> = LazyLock::new(|| {
    let judge = Judge::new(Some(&DEFAULTS), NOWHERE.clone(), NOBODY.clone());
    (Class::ALL.map(|class| judge.class(class)), judge.mention())
});

/// Rules that match and take away notifications from everything that mentions somebody, too.
const BEFORE_MENTIONS: [&str; 2] = [".m.rule.suppress_notices", ".m.rule.member_event"];

/// An event as the rules look at it; none if it is no JSON that they can look at.
pub(super) fn flatten(text: &str) -> Option<FlattenedJson> {
    // Flattening panics on JSON that is nested deeper than the parser goes.
    let opened = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if opened > 100 && serde_json::from_str::<Value>(text).is_err() {
        return None;
    }
    let raw: Raw<Value> = Raw::from_json(RawValue::from_string(text.to_owned()).ok()?);
    Some(FlattenedJson::from_raw(&raw))
}

/// The users whom an event says that it mentions.
pub(super) fn mentioned_users(event: &FlattenedJson) -> impl Iterator<Item = &str> {
    let users = match event.get(r"content.m\.mentions.user_ids") {
        Some(FlattenedJsonValue::Array(users)) => users.as_slice(),
        _ => &[],
    };
    users.iter().filter_map(ScalarJsonValue::as_str)
}

/// What an event is to a user to whom it means nothing special.
pub(super) struct Sorted {
    /// Its class, if it has any.
    pub class: Option<Class>,
    /// Whether it means something to those whom it mentions.
    pub mentions: bool,
}

/// Sorts an event into its class.
pub(super) fn sort(read: &dyn Read, room: Nid, head: &Event, event: &FlattenedJson) -> Result<Sorted, StoreError> {
    let joined = membership::counts(read, room)?.joined;
    let mut context = context(NOWHERE.clone(), joined, NOBODY.clone());
    let to_all = event.get(r"content.m\.mentions.room");
    if matches!(to_all, Some(FlattenedJsonValue::Bool(true))) {
        context.power_levels = power_levels(read, room)?;
    }
    let rule = first_match(&DEFAULTS, event, &context).map(AnyPushRuleRef::rule_id);
    let mentions = rule.is_none_or(|rule| !BEFORE_MENTIONS.contains(&rule));
    Ok(Sorted { class: rule.and_then(|rule| class(rule, &head.event_type)), mentions })
}

fn class(rule: &str, event_type: &str) -> Option<Class> {
    let is_message = event_type == "m.room.message";
    Some(match rule {
        ".m.rule.message" => Class::Message,
        ".m.rule.room_one_to_one" => Class::MessageOneToOne,
        ".m.rule.encrypted" => Class::Encrypted,
        ".m.rule.encrypted_room_one_to_one" => Class::EncryptedOneToOne,
        ".m.rule.call" => Class::Call,
        ".m.rule.is_room_mention" => Class::RoomMention,
        ".m.rule.tombstone" => Class::Tombstone,
        ".m.rule.suppress_notices" if is_message => Class::Notice,
        ".m.rule.suppress_edits" if is_message => Class::Edit,
        _ => return None,
    })
}

fn context(room: OwnedRoomId, joined: u64, user: OwnedUserId) -> PushConditionRoomCtx {
    PushConditionRoomCtx::new(room, UInt::new_saturating(joined), user, String::new())
}

/// Who may notify a whole room, by its current state.
fn power_levels(read: &dyn Read, room: Nid) -> Result<Option<PushConditionPowerLevelsCtx>, StoreError> {
    let version = events::room(read, room)?.and_then(|room| room.version);
    let Some(rules) = version.and_then(|version| RoomVersionId::try_from(version).ok()?.rules()) else {
        return Ok(None);
    };
    let current = state::current(read, room)?;
    let event = |event_type| -> Result<_, StoreError> {
        let Some(event) = state::get(read, &current, event_type, "")? else { return Ok(None) };
        events::pdu(read, event)
    };
    let Some(create) = event("m.room.create")? else { return Ok(None) };
    let more = create.content_as::<RoomCreateEventContent>().map(|content| content.additional_creators);
    let creators = std::iter::once(create.sender().to_owned()).chain(more.unwrap_or_default());
    let creators: Vec<OwnedUserId> = creators.collect();
    let levels = event("m.room.power_levels")?.and_then(|pdu| pdu.content_as::<RoomPowerLevelsEventContent>());
    let source = levels.map_or(RoomPowerLevelsSource::None, RoomPowerLevelsSource::Original);
    Ok(Some(RoomPowerLevels::new(source, &rules.authorization, creators).into()))
}

/// What push rules say about an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub notify: bool,
    pub highlight: bool,
}

impl Verdict {
    fn of(actions: &[Action]) -> Self {
        let notify = actions.iter().any(Action::should_notify);
        Self { notify, highlight: notify && actions.iter().any(Action::is_highlight) }
    }
}

/// The first rule that matches.
fn first_match<'a>(
    rules: &'a Ruleset,
    event: &FlattenedJson,
    context: &PushConditionRoomCtx,
) -> Option<AnyPushRuleRef<'a>> {
    rules.iter().find(|rule| {
        // It never waits: nothing in the context can.
        let applies = pin!(rule.applies(event, context)).poll(&mut Context::from_waker(Waker::noop()));
        applies == Poll::Ready(true)
    })
}

/// A user's rules in one room.
pub(super) struct Judge<'a> {
    /// None: the defaults.
    rules: Option<&'a Ruleset>,
    context: PushConditionRoomCtx,
    /// What the rules were found to say about each class.
    classes: [OnceCell<Verdict>; Class::ALL.len()],
}

impl<'a> Judge<'a> {
    pub(super) fn new(rules: Option<&'a Ruleset>, room: OwnedRoomId, user: OwnedUserId) -> Self {
        Self { rules, context: context(room, 0, user), classes: Default::default() }
    }

    /// What the rules say about events of a class, where they mean nothing special to the user.
    pub(super) fn class(&self, class: Class) -> Verdict {
        match self.rules {
            Some(rules) => *self.classes[class as usize].get_or_init(|| self.example(rules, &example(class), class)),
            None => DEFAULT_VERDICTS.0[class as usize],
        }
    }

    /// What the rules say about an event that mentions the user.
    pub(super) fn mention(&self) -> Verdict {
        let Some(rules) = self.rules else { return DEFAULT_VERDICTS.1 };
        let mut event = example(Class::Message);
        event["content"]["m.mentions"] = json!({ "user_ids": [self.context.user_id] });
        self.example(rules, &event, Class::Message)
    }

    fn example(&self, rules: &Ruleset, event: &Value, class: Class) -> Verdict {
        let mut context = self.context.clone();
        let two = matches!(class, Class::MessageOneToOne | Class::EncryptedOneToOne);
        context.member_count = if two { UInt::from(2_u8) } else { UInt::from(3_u8) };
        context.power_levels = Some(powers_of_somebody());
        flatten(&event.to_string()).map(|event| judge(rules, &event, &context)).unwrap_or_default()
    }

    /// Whether events of one class may differ for the user: they have rules for words, senders and the like.
    pub(super) fn is_particular(&self) -> bool {
        let Some(rules) = self.rules else { return false };
        let conditional = rules.override_.iter().chain(&rules.underride);
        let conditional = conditional.filter(|rule| rule.enabled && !rule.default);
        rules.content.iter().any(|rule| rule.enabled && !rule.default)
            || rules.sender.iter().any(|rule| rule.enabled)
            || conditional.map(|rule| &rule.conditions).any(|conditions| self.depends_on_event(conditions))
    }

    /// Whether a rule with these conditions can match one event of this room, and not another of its class.
    fn depends_on_event(&self, conditions: &[PushCondition]) -> bool {
        let mut depends = false;
        for condition in conditions {
            match condition {
                PushCondition::EventMatch(EventMatchConditionData { key, pattern, .. })
                    if key == "room_id" && !pattern.contains(['*', '?']) =>
                {
                    if *pattern != self.context.room_id {
                        return false;
                    }
                }
                _ => depends = true,
            }
        }
        depends
    }

    /// Looks up what rules may ask about the room, to judge single events.
    pub(super) fn prepare(&mut self, read: &dyn Read, room: Nid) -> Result<(), StoreError> {
        self.context.member_count = UInt::new_saturating(membership::counts(read, room)?.joined);
        self.context.power_levels = power_levels(read, room)?;
        Ok(())
    }

    /// What the rules say about one event.
    pub(super) fn event(&self, event: &FlattenedJson) -> Verdict {
        self.rules.map(|rules| judge(rules, event, &self.context)).unwrap_or_default()
    }
}

fn judge(rules: &Ruleset, event: &FlattenedJson, context: &PushConditionRoomCtx) -> Verdict {
    first_match(rules, event, context).map(|rule| Verdict::of(rule.actions())).unwrap_or_default()
}

/// The sender of the examples may notify the whole room.
fn powers_of_somebody() -> PushConditionPowerLevelsCtx {
    RoomPowerLevels::new(RoomPowerLevelsSource::None, &AuthorizationRules::V11, [SOMEBODY.clone()]).into()
}

/// An event of a class that means nothing special to anybody.
fn example(class: Class) -> Value {
    let message = |content: Value| json!({ "type": "m.room.message", "content": content });
    let mut event = match class {
        Class::Message | Class::MessageOneToOne => message(json!({ "msgtype": "m.text", "body": "" })),
        Class::Encrypted | Class::EncryptedOneToOne => json!({ "type": "m.room.encrypted", "content": {} }),
        Class::Call => json!({ "type": "m.call.invite", "content": {} }),
        Class::RoomMention => message(json!({ "msgtype": "m.text", "body": "", "m.mentions": { "room": true } })),
        Class::Tombstone => json!({ "type": "m.room.tombstone", "state_key": "", "content": {} }),
        Class::Notice => message(json!({ "msgtype": "m.notice", "body": "" })),
        Class::Edit => message(json!({ "msgtype": "m.text", "body": "", "m.relates_to": { "rel_type": "m.replace" } })),
    };
    event["sender"] = SOMEBODY.as_str().into();
    event
}
