//! Users' push rules: operations over the server's defaults.
//!
//! What are this user's rules, and when did they change last?
//!
//! Tables: 1 `user -> Rules`, for users who changed any; all others have the defaults.
//!
//! The defaults are ruma's. Since they take part in the fold, a change of theirs is a new version of this model and of
//! `push`: a test holds them against what they were.

use ruma::{
    RoomId, UserId,
    push::{
        Action, NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule, PushCondition, RuleKind,
        Ruleset,
    },
};
use schemas::{
    Fact, Json, Lsn,
    facts::{PushRuleChanged, PushRuleOp},
};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Read, Table, row},
};

const RULES: Table = Table { model: Model::PushRules, prefix: 1 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::PushRules, version: 1, reads: &[], fold };

#[derive(Serialize, Deserialize)]
struct Rules {
    changed: Lsn,
    ruleset: Json,
}

/// Why an operation does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such rule.
    #[error("there is no such push rule")]
    NotFound,
    /// It can't be done to a rule of the server's, or the rule is malformed.
    #[error("{0}")]
    Invalid(String),
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::PushRuleChanged(f) => {
            let mut ruleset = of_user(batch, &f.user)?;
            // What came before it may have taken away what it refers to: then it has no effect.
            if apply(&mut ruleset, f).is_ok()
                && let Ok(ruleset) = Json::of(&ruleset)
            {
                batch.put(RULES, KeyBuf::new().str(&f.user), &Rules { changed: at.lsn, ruleset });
                batch.touch_user(&f.user);
            }
        }
        Fact::AccountDeactivated(f) => batch.delete(RULES, KeyBuf::new().str(&f.user)),
        _ => {}
    }
    Ok(())
}

/// The part of a rule that a client sends.
#[derive(Deserialize)]
struct Body {
    actions: Vec<Action>,
    #[serde(default)]
    conditions: Vec<PushCondition>,
    #[serde(default)]
    pattern: String,
}

/// Applies an operation to a ruleset, as the fold does.
///
/// # Errors
/// [`Refused`], with the ruleset as it was.
pub fn apply(ruleset: &mut Ruleset, change: &PushRuleChanged) -> Result<(), Refused> {
    let kind = RuleKind::from(change.kind.as_str());
    let rule = change.rule.as_str();
    match &change.op {
        PushRuleOp::Put { rule: body, before, after } => {
            let new = new_rule(&kind, rule, body)?;
            ruleset.insert(new, after.as_deref(), before.as_deref()).map_err(invalid)
        }
        PushRuleOp::Removed if ruleset.get(kind.clone(), rule).is_none() => Err(Refused::NotFound),
        PushRuleOp::Removed => ruleset.remove(kind, rule).map_err(invalid),
        PushRuleOp::Enabled(enabled) => ruleset.set_enabled(kind, rule, *enabled).map_err(|_| Refused::NotFound),
        PushRuleOp::Actions(actions) => {
            let actions = actions.read().map_err(invalid)?;
            ruleset.set_actions(kind, rule, actions).map_err(|_| Refused::NotFound)
        }
    }
}

fn new_rule(kind: &RuleKind, rule: &str, body: &Json) -> Result<NewPushRule, Refused> {
    let Body { actions, conditions, pattern } = body.read().map_err(invalid)?;
    Ok(match kind {
        RuleKind::Override => NewPushRule::Override(NewConditionalPushRule::new(rule.into(), conditions, actions)),
        RuleKind::Underride => NewPushRule::Underride(NewConditionalPushRule::new(rule.into(), conditions, actions)),
        RuleKind::Content => NewPushRule::Content(NewPatternedPushRule::new(rule.into(), pattern, actions)),
        RuleKind::Room => NewPushRule::Room(NewSimplePushRule::new(RoomId::parse(rule).map_err(invalid)?, actions)),
        RuleKind::Sender => NewPushRule::Sender(NewSimplePushRule::new(UserId::parse(rule).map_err(invalid)?, actions)),
        other => return Err(Refused::Invalid(format!("{other} is no kind of push rule"))),
    })
}

fn invalid(error: impl std::fmt::Display) -> Refused {
    Refused::Invalid(error.to_string())
}

/// A user's rules.
///
/// # Errors
/// When the store fails.
pub fn of_user(read: &dyn Read, user: &str) -> Result<Ruleset, StoreError> {
    Ok(changed(read, user)?.map_or_else(|| defaults(user), |(_, ruleset)| ruleset))
}

/// The rules of a user who changed any, and when they did so last.
///
/// # Errors
/// When the store fails.
pub fn changed(read: &dyn Read, user: &str) -> Result<Option<(Lsn, Ruleset)>, StoreError> {
    let Some(rules) = row::<Rules>(read, RULES, KeyBuf::new().str(user))? else { return Ok(None) };
    let ruleset = rules.ruleset.read().map_err(|error| StoreError::Row {
        table: RULES.to_string(),
        source: schemas::DecodeError::Malformed(error.to_string()),
    })?;
    Ok(Some((rules.changed, ruleset)))
}

/// The rules of a user who changed none.
#[must_use]
pub fn defaults(user: &str) -> Ruleset {
    // Every account's id is a user id; what is none gets no rules.
    <&UserId>::try_from(user).map(Ruleset::server_default).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::World;

    const ALICE: &str = "@alice:example.org";
    /// What the fold of this version began from.
    const PINNED: &str = include_str!("push_rules.json");

    fn op(kind: &str, rule: &str, op: PushRuleOp) -> Fact {
        PushRuleChanged { user: ALICE.into(), kind: kind.into(), rule: rule.into(), op }.into()
    }

    fn put(rule: &Value, before: Option<&str>, after: Option<&str>) -> PushRuleOp {
        PushRuleOp::Put { rule: rule.to_string().into(), before: before.map(Into::into), after: after.map(Into::into) }
    }

    fn content_rules(world: &World) -> Vec<String> {
        let rules = of_user(&world.view(), ALICE).unwrap();
        rules.content.into_iter().map(|rule| format!("{} {} {}", rule.rule_id, rule.pattern, rule.enabled)).collect()
    }

    #[test]
    fn the_defaults_are_those_of_this_version() {
        let now = serde_json::to_value(Ruleset::server_default(<&UserId>::try_from(ALICE).unwrap())).unwrap();
        let then: Value = serde_json::from_str(PINNED).unwrap();
        assert_eq!(
            now, then,
            "ruma's default push rules have changed: raise the versions of push_rules and push, and put these into push_rules.json: {now:#}"
        );
    }

    #[test]
    fn operations_apply_in_order() {
        let mut world = World::new();
        let rule = |pattern: &str| json!({ "pattern": pattern, "actions": ["notify"] });
        let one = world.apply([op("content", "a", put(&rule("x"), None, None))]);
        assert_eq!(changed(&world.view(), ALICE).unwrap().unwrap().0, one);
        world.apply([op("content", "b", put(&rule("y"), None, Some("a")))]);
        world.apply([op("content", "c", put(&rule("z"), Some("b"), None))]);
        assert_eq!(content_rules(&world), ["a x true", "c z true", "b y true"]);
        world.apply([op("content", "c", put(&rule("zz"), None, None)), op("content", "b", PushRuleOp::Enabled(false))]);
        assert_eq!(content_rules(&world), ["a x true", "c zz true", "b y false"]);
        world.apply([op("content", "a", PushRuleOp::Removed)]);
        assert_eq!(content_rules(&world), ["c zz true", "b y false"]);
        world.check_replay();
    }

    #[test]
    fn what_does_not_apply_has_no_effect() {
        let mut world = World::new();
        world.apply([
            op("content", "a", PushRuleOp::Enabled(true)),
            op("content", "a", PushRuleOp::Removed),
            op("override", ".m.rule.master", PushRuleOp::Removed),
            op("content", "a", put(&json!({ "pattern": "x", "actions": [] }), Some("nowhere"), None)),
            op("content", ".a", put(&json!({ "pattern": "x", "actions": [] }), None, None)),
            op("room", "no room", put(&json!({ "actions": [] }), None, None)),
            op("nonsense", "a", put(&json!({ "actions": [] }), None, None)),
            op("content", "a", put(&json!("no object"), None, None)),
        ]);
        assert!(changed(&world.view(), ALICE).unwrap().is_none());
    }

    #[test]
    fn the_servers_rules_can_be_switched_and_changed() {
        let mut world = World::new();
        world.apply([
            op("override", ".m.rule.master", PushRuleOp::Enabled(true)),
            op("underride", ".m.rule.message", PushRuleOp::Actions(json!([]).to_string().into())),
        ]);
        let rules = of_user(&world.view(), ALICE).unwrap();
        assert!(rules.override_.get(".m.rule.master").unwrap().enabled);
        assert!(rules.underride.get(".m.rule.message").unwrap().actions.is_empty());
        assert_eq!(rules.override_.first().unwrap().rule_id, ".m.rule.master");
    }
}
