//! Room versions: which are supported, and their rules.

use ruma::{EventId, OwnedEventId, RoomId, RoomVersionId, room_version_rules::RoomVersionRules};

/// What a new room gets if nobody says otherwise, as the specification recommends.
pub const DEFAULT: RoomVersionId = RoomVersionId::V12;

/// What may be created and is advertised, oldest first. All are stable.
pub const ADVERTISED: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// A room version that there are no rules for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("room version {version} is not supported: {why}")]
pub struct Unsupported {
    /// Which.
    pub version: RoomVersionId,
    why: &'static str,
}

/// The rules of a room version.
///
/// Versions 3 to 5 have rules, though they are not advertised: events in them may hold numbers that canonical JSON does
/// not know, and such events are dropped.
///
/// # Errors
/// For versions 1 and 2, whose events refer to others by pairs of id and hash (and version 1 has a state resolution of its
/// own), and for unknown ones.
pub fn rules(version: &RoomVersionId) -> Result<&'static RoomVersionRules, Unsupported> {
    use RoomVersionId as V;
    static V3: RoomVersionRules = RoomVersionRules::V3;
    static V4: RoomVersionRules = RoomVersionRules::V4;
    static V5: RoomVersionRules = RoomVersionRules::V5;
    static V6: RoomVersionRules = RoomVersionRules::V6;
    static V7: RoomVersionRules = RoomVersionRules::V7;
    static V8: RoomVersionRules = RoomVersionRules::V8;
    static V9: RoomVersionRules = RoomVersionRules::V9;
    static V10: RoomVersionRules = RoomVersionRules::V10;
    static V11: RoomVersionRules = RoomVersionRules::V11;
    static V12: RoomVersionRules = RoomVersionRules::V12;
    match version {
        V::V3 => Ok(&V3),
        V::V4 => Ok(&V4),
        V::V5 => Ok(&V5),
        V::V6 => Ok(&V6),
        V::V7 => Ok(&V7),
        V::V8 => Ok(&V8),
        V::V9 => Ok(&V9),
        V::V10 => Ok(&V10),
        V::V11 => Ok(&V11),
        V::V12 => Ok(&V12),
        V::V1 | V::V2 => {
            Err(Unsupported { version: version.clone(), why: "its event format has been superseded since 2018" })
        }
        _ => Err(Unsupported { version: version.clone(), why: "this server does not know it" }),
    }
}

/// The id of a room's create event, where the room's id is made of it (room version 12 and later).
#[must_use]
pub fn create_event_id(room: &RoomId, rules: &RoomVersionRules) -> Option<OwnedEventId> {
    if !rules.authorization.room_create_event_id_as_room_id {
        return None;
    }
    EventId::parse(format!("${}", room.strip_sigil())).ok()
}

#[cfg(test)]
mod tests {
    use ruma::room_id;

    use super::*;

    #[test]
    fn every_advertised_version_has_rules() {
        for version in &ADVERTISED {
            assert!(rules(version).is_ok(), "{version}");
        }
        assert!(ADVERTISED.contains(&DEFAULT));
    }

    #[test]
    fn old_and_unknown_versions_are_refused_with_a_reason() {
        for version in ["1", "2", "13", "org.example.odd"] {
            let refused = rules(&RoomVersionId::try_from(version).unwrap()).unwrap_err();
            assert!(refused.to_string().starts_with(&format!("room version {version} is not supported: ")));
        }
    }

    #[test]
    fn the_rules_are_those_of_the_version() {
        for version in 3..=12 {
            let version = RoomVersionId::try_from(version.to_string()).unwrap();
            let (found, expected) = (rules(&version).unwrap(), version.rules().unwrap());
            assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        }
    }

    #[test]
    fn a_room_id_names_the_create_event_from_version_12_on() {
        let room = room_id!("!Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg");
        let id = create_event_id(room, rules(&RoomVersionId::V12).unwrap()).unwrap();
        assert_eq!(id, "$Rqnc-F-dvnEYJTyHq_iKxU2bZ1CI92-kuZq3a5lr5Zg");
        assert_eq!(create_event_id(room, rules(&RoomVersionId::V11).unwrap()), None);
    }
}
