//! Whether an event on the log is still what was signed. Nobody can give an event another content under its old id and
//! signatures, not even who rewrites the whole log.

use ruma::{
    CanonicalJsonObject, EventId, RoomVersionId, UserId,
    canonical_json::CanonicalJsonValue,
    room_version_rules::RoomVersionRules,
    serde::Base64,
    signatures::{
        VerificationError, content_hash, reference_hash, required_server_signatures_to_verify_event, verify_json,
    },
};
use schemas::{Fact, Part, facts::EventLearned};

use super::{Halves, Pdu, versions};
use crate::keys::OwnKey;

/// Checks the events that a fact states: id, room, content hash, and this server's signatures where its key is given.
/// The keys of other servers are not known for ever.
///
/// # Errors
/// Says what is wrong.
pub fn check(fact: &Fact, own: Option<&OwnKey>) -> Result<(), String> {
    match fact {
        Fact::EventLearned(event) => check_event(event, own),
        Fact::EventBodies(bodies) => bodies.events.iter().try_for_each(|event| check_event(event, own)),
        _ => Ok(()),
    }
}

fn check_event(event: &EventLearned, own: Option<&OwnKey>) -> Result<(), String> {
    let about = |why: String| format!("event {}: {why}", event.id);
    let skeleton: CanonicalJsonObject =
        event.skeleton.read().map_err(|error| about(format!("it is malformed: {error}")))?;
    let rules = rules(event, &skeleton).ok_or_else(|| about("its content doesn't give its id".into()))?;
    check_room(event).map_err(about)?;
    check_content(event).map_err(about)?;
    match own {
        Some(own) => check_signature(event, &skeleton, rules, own).map_err(about),
        None => Ok(()),
    }
}

/// The rules under which the event's id is the hash of what redaction keeps. Its room's version would name them, but
/// no two contents give one id, whatever the rules.
fn rules(event: &EventLearned, skeleton: &CanonicalJsonObject) -> Option<&'static RoomVersionRules> {
    let versions = (3..=12).rev().filter_map(|number: u8| RoomVersionId::try_from(number.to_string()).ok());
    let mut rules = versions.filter_map(|version| versions::rules(&version).ok());
    rules.find(|rules| {
        let hash = reference_hash(skeleton, rules);
        hash.is_ok_and(|hash| event.id.strip_prefix('$') == Some(hash.as_str()))
    })
}

fn check_room(event: &EventLearned) -> Result<(), String> {
    let id = EventId::parse(&event.id).map_err(|error| error.to_string())?;
    let pdu = Pdu::new(id, Halves::of(event)).map_err(|error| error.to_string())?;
    if pdu.room_id() == event.room.as_str() {
        Ok(())
    } else {
        Err(format!("it is of the room {}, not of {}", pdu.room_id(), event.room))
    }
}

/// The content hash covers what redaction removes. Where that was sealed, or never kept, there is nothing to check.
fn check_content(event: &EventLearned) -> Result<(), String> {
    if event.redacted_copy || matches!(event.rest, Some(Part::Sealed { .. })) {
        return Ok(());
    }
    let text = Halves::of(event).join().map_err(|error| error.to_string())?;
    let whole: CanonicalJsonObject = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if serde_json::to_string(&whole).ok().as_deref() != Some(text.as_str()) {
        return Err("it is not canonical JSON".into());
    }
    let stated = match whole.get("hashes") {
        Some(CanonicalJsonValue::Object(hashes)) => hashes.get("sha256").and_then(CanonicalJsonValue::as_str),
        _ => None,
    };
    let stated: Option<Base64> = stated.and_then(|hash| Base64::parse(hash).ok());
    let found = content_hash(&whole).map_err(|error| error.to_string())?;
    if stated.is_some_and(|stated| stated.as_bytes() == found.as_bytes()) {
        Ok(())
    } else {
        Err("its content doesn't match its content hash".into())
    }
}

fn check_signature(
    event: &EventLearned,
    skeleton: &CanonicalJsonObject,
    rules: &RoomVersionRules,
    own: &OwnKey,
) -> Result<(), String> {
    let server = own.server();
    let sender = skeleton.get("sender").and_then(CanonicalJsonValue::as_str);
    let is_ours = sender.and_then(|sender| <&UserId>::try_from(sender).ok()).is_some_and(|u| u.server_name() == server);
    if is_ours && event.redacted_copy {
        return Err("it is this server's own, but its content was left out as another server's false one".into());
    }
    let mut signed = skeleton.clone();
    let signature = match signed.get_mut("signatures") {
        Some(CanonicalJsonValue::Object(signatures)) => {
            signatures.retain(|signer, _| signer == server.as_str());
            !signatures.is_empty()
        }
        _ => false,
    };
    let required = required_server_signatures_to_verify_event(skeleton, &rules.signatures);
    match (signature, required.map_err(|error| error.to_string())?.contains(server)) {
        (true, _) => verify_json(&own.public_map(), &signed).map_err(|error| match error {
            VerificationError::NoSupportedSignatureForEntity(_) => {
                "its signature is by another key than those in signing.key: add the older one there".to_owned()
            }
            error => format!("this server's signature: {error}"),
        }),
        (false, true) => Err("this server's signature is missing".into()),
        (false, false) => Ok(()),
    }
}
