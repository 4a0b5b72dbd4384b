//! Operations on users' push rules.

use projections::{
    View,
    models::push_rules::{self, Refused},
};
use ruma::push::{RuleKind, Ruleset};
use schemas::{
    Draft, Json,
    facts::{PushRuleChanged, PushRuleOp},
};

use super::{Commands, Decision, Error, Refusal, Sender, content::check_name, guards};

/// All rules of a user have at most so many bytes as JSON: each message in their rooms is held against them.
const MAX_RULES_BYTES: usize = 256 * 1024;

/// Changes one push rule of the sender's.
///
/// # Errors
/// `M_NOT_FOUND` for a rule that is not there, `M_INVALID_PARAM` for what can't be done, and those of
/// [`guards::standing`].
pub async fn change(
    commands: &Commands,
    sender: &Sender,
    kind: &RuleKind,
    rule: &str,
    op: PushRuleOp,
) -> Result<(), Error> {
    check_name("rule id", rule)?;
    let change = PushRuleChanged { user: sender.user.to_string(), kind: kind.to_string(), rule: rule.to_owned(), op };
    let by = sender.clone();
    commands.execute(sender, move |view| decide(view, &by, &change)).await
}

fn decide(view: &View, by: &Sender, change: &PushRuleChanged) -> Result<Decision<()>, Error> {
    let reads = guards::standing(view, by)?;
    let mut ruleset = push_rules::of_user(view, &change.user)?;
    let text = |ruleset: &Ruleset| Json::of(ruleset).map_err(|error| Refusal::invalid(error.to_string()));
    let before = text(&ruleset)?;
    push_rules::apply(&mut ruleset, change).map_err(|refused| match refused {
        Refused::NotFound => Refusal::not_found("there is no such push rule"),
        Refused::Invalid(why) => Refusal::invalid(why),
    })?;
    let after = text(&ruleset)?;
    // What is kept must be readable again, whatever clients made of it.
    after.read::<Ruleset>().map_err(|error| Refusal::invalid(format!("this is no push rule: {error}")))?;
    if after == before {
        return Ok(Decision::Reply(()));
    }
    if after.0.len() > MAX_RULES_BYTES && after.0.len() > before.0.len() {
        return Err(Refusal::too_large("these are too many push rules: remove some").into());
    }
    let draft = Draft { reads, writes: Vec::new(), facts: vec![change.clone().into()] };
    Ok(Decision::append_then(draft, ()))
}
