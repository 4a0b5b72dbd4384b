//! Authorisation rules, by ruma's state resolution crate: which state allows an event, and whether it does.

use ruma::{
    EventId, OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::{AuthorizationRules, RoomVersionRules},
    state_res::{auth_types_for_event, check_state_dependent_auth_rules, check_state_independent_auth_rules},
};
use serde_json::value::RawValue;

use super::{Pdu, State, versions};

/// The rules don't allow it; the words are fit for `M_FORBIDDEN`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(pub String);

impl From<String> for Forbidden {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// A place in a room's state.
pub type StateKey = (StateEventType, String);

/// The state events that an event refers to as its auth events (server-server API, "Auth events selection").
///
/// # Errors
/// When the content is not what the type wants.
pub fn selection(
    event_type: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &AuthorizationRules,
) -> Result<Vec<StateKey>, Forbidden> {
    Ok(auth_types_for_event(event_type, sender, state_key, content, rules)?)
}

/// All state that the rules look at for an event: its auth events, and the create event in any case. Who reads these
/// from a store beforehand has every key that [`authorise`] asks for.
///
/// # Errors
/// When the content is not what the type wants.
pub fn needs(
    event_type: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &AuthorizationRules,
) -> Result<Vec<StateKey>, Forbidden> {
    let mut keys = selection(event_type, sender, state_key, content, rules)?;
    if rules.room_create_event_id_as_room_id && *event_type != TimelineEventType::RoomCreate {
        keys.push((StateEventType::RoomCreate, String::new()));
    }
    Ok(keys)
}

/// Whether an event of this server may be sent on a state: the rules that look at its auth events, and those that look
/// at the state.
///
/// # Errors
/// With the reason when it may not.
pub fn authorise(pdu: &Pdu, rules: &RoomVersionRules, state: impl State) -> Result<(), Forbidden> {
    let keys = needs(pdu.event_type(), pdu.sender(), pdu.state_key(), pdu.content(), &rules.authorization)?;
    let events: Vec<Pdu> = keys.iter().filter_map(|(event_type, key)| state(event_type, key)).collect();
    refers_well(pdu, rules, |id| events.iter().find(|event| event.id() == id).cloned())?;
    allowed_by_state(pdu, rules, |event_type: &StateEventType, key: &str| find(&events, event_type, key))
}

/// Whether the auth events that a remote event names are fit to be, and allow it. An error means that it is rejected.
///
/// # Errors
/// With the reason when they don't.
pub fn allowed_by_auth_events(
    pdu: &Pdu,
    rules: &RoomVersionRules,
    fetch: impl Fn(&EventId) -> Option<Pdu>,
) -> Result<(), Forbidden> {
    refers_well(pdu, rules, &fetch)?;
    let create = versions::create_event_id(pdu.room_id(), rules);
    let named = pdu.auth_events().iter().map(OwnedEventId::as_ref).chain(create.as_deref());
    let events: Vec<Pdu> = named.filter_map(|id: &EventId| fetch(id)).collect();
    allowed_by_state(pdu, rules, |event_type: &StateEventType, key: &str| find(&events, event_type, key))
}

/// Whether a state allows an event: the state before it (else it is rejected), the current state (else it is
/// soft-failed).
///
/// # Errors
/// With the reason when it doesn't.
pub fn allowed_by_state(pdu: &Pdu, rules: &RoomVersionRules, state: impl State) -> Result<(), Forbidden> {
    Ok(check_state_dependent_auth_rules(&rules.authorization, pdu, state)?)
}

/// The rules about the references themselves.
fn refers_well(pdu: &Pdu, rules: &RoomVersionRules, fetch: impl Fn(&EventId) -> Option<Pdu>) -> Result<(), Forbidden> {
    check_state_independent_auth_rules(&rules.authorization, pdu, &fetch)?;
    // ruma looks whether the event that makes the room's id was accepted, not whether it is a create event.
    if *pdu.event_type() != TimelineEventType::RoomCreate
        && let Some(id) = versions::create_event_id(pdu.room_id(), rules)
        && fetch(&id).is_none_or(|event| *event.event_type() != TimelineEventType::RoomCreate)
    {
        return Err(Forbidden(format!("room id {} is not that of a create event", pdu.room_id())));
    }
    Ok(())
}

fn find(events: &[Pdu], event_type: &StateEventType, state_key: &str) -> Option<Pdu> {
    let wanted =
        |event: &&Pdu| event.state_key() == Some(state_key) && StateEventType::from(event.kind()) == *event_type;
    events.iter().find(wanted).cloned()
}
