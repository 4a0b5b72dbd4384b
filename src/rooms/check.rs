//! Events of other servers: format, size, signatures and hashes (server-server API, "Checks performed on receipt of a
//! PDU", 1 to 3). What the rules say comes after: [`super::auth`].

use std::{collections::BTreeSet, error::Error};

use ruma::{
    CanonicalJsonObject, EventId, OwnedServerName, RoomId,
    canonical_json::redact_in_place,
    room_version_rules::RoomVersionRules,
    signatures::{PublicKeyMap, Verified, reference_hash, required_server_signatures_to_verify_event, verify_event},
    state_res::check_pdu_format,
};
use serde_json::value::RawValue;

use super::{Halves, MAX_PDU_BYTES, Pdu, build::Built, learn};

/// It is not an event, or nobody answers for it: it is dropped as if it had never come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event is dropped: {0}")]
pub struct Dropped(String);

impl Dropped {
    fn because(reason: impl Into<Box<dyn Error>>) -> Self {
        Self(reason.into().to_string())
    }
}

/// An event that has the right format, of which nobody knows yet who made it.
#[derive(Clone, Debug)]
pub struct Unverified {
    event: CanonicalJsonObject,
    rules: &'static RoomVersionRules,
}

impl Unverified {
    /// Reads what another server sent, and checks its format and size. What nobody signs (`unsigned`) is left out.
    ///
    /// # Errors
    /// When it is not an event of this room version.
    pub fn read(json: &RawValue, rules: &'static RoomVersionRules) -> Result<Self, Dropped> {
        let mut event: CanonicalJsonObject = serde_json::from_str(json.get()).map_err(Dropped::because)?;
        event.remove("unsigned");
        let size = serde_json::to_string(&event).map_err(Dropped::because)?.len();
        if size > MAX_PDU_BYTES {
            return Err(Dropped(format!("it has {size} bytes, and events have at most {MAX_PDU_BYTES}")));
        }
        // ruma draws the line one byte too low. Without its signatures an event stays below that.
        let signatures = event.remove("signatures").ok_or_else(|| Dropped::because("it has no signatures"))?;
        check_pdu_format(&event, &rules.event_format).map_err(Dropped::because)?;
        event.insert("signatures".into(), signatures);
        Ok(Self { event, rules })
    }

    /// The servers whose keys [`Unverified::verify`] needs.
    ///
    /// # Errors
    /// When the event doesn't say who sent it.
    pub fn signers(&self) -> Result<BTreeSet<OwnedServerName>, Dropped> {
        required_server_signatures_to_verify_event(&self.event, &self.rules.signatures).map_err(Dropped::because)
    }

    /// Checks signatures and content hash. Where only the hash is wrong, the redacted form is kept, and the fact says
    /// so.
    ///
    /// `keys` are those that were valid when the event was sent.
    ///
    /// # Errors
    /// When a signature is missing or wrong, or when fields are malformed.
    pub fn verify(mut self, keys: &PublicKeyMap) -> Result<Built, Dropped> {
        let verified = verify_event(keys, &self.event, self.rules).map_err(Dropped::because)?;
        let redacted_copy = verified == Verified::Signatures;
        if redacted_copy {
            redact_in_place(&mut self.event, &self.rules.redaction, None).map_err(Dropped::because)?;
        }
        let hash = reference_hash(&self.event, self.rules).map_err(Dropped::because)?;
        let id = EventId::new_v2_or_v3(&hash).map_err(Dropped::because)?;
        let room = match self.event.get("room_id").and_then(|id| id.as_str()) {
            Some(id) => RoomId::parse(id),
            None => RoomId::new_v2(&hash),
        };
        let room = room.map_err(Dropped::because)?;
        let learned = learn(&id, &room, &self.event, &self.rules.redaction, redacted_copy).map_err(Dropped::because)?;
        let pdu = Pdu::new(id, Halves::of(&learned)).map_err(Dropped::because)?;
        Ok(Built { pdu, learned })
    }
}
