//! Redactions: what one redacts, and whether its sender may.
//!
//! The rules let any redaction into a room; whether it takes effect is decided apart, when both events are there
//! ([`projections::pdu::redaction_applies`]).

use ruma::{UserId, room_version_rules::RoomVersionRules};
use schemas::facts::Redaction;

use super::{Forbidden, Pdu, Power, State};

/// The effect of a redaction, decided at its own state; none for other events and where no target is named.
///
/// # Errors
/// When the state has no valid create event.
pub fn effect(
    event: &Pdu,
    state: impl State,
    rules: &'static RoomVersionRules,
) -> Result<Option<Redaction>, Forbidden> {
    let Some(target) = event.redacts(&rules.redaction) else { return Ok(None) };
    let may_redact_any = Power::of(state, rules)?.may_redact_any(event.sender());
    Ok(Some(Redaction { target: target.into(), may_redact_any }))
}

/// Whether a user of this server may ask for a redaction (client-server API, "Redactions"): of their own events, and
/// with enough power of all.
///
/// # Errors
/// With the reason when not.
pub fn may_ask(
    user: &UserId,
    author: &UserId,
    state: impl State,
    rules: &'static RoomVersionRules,
) -> Result<(), Forbidden> {
    if user == author || Power::of(state, rules)?.may_redact_any(user) {
        return Ok(());
    }
    Err(Forbidden("you need more power in this room to redact what others sent".to_owned()))
}
