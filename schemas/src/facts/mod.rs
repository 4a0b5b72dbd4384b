//! Every fact: its fixed number, its version, and which of the three kinds it is.
//!
//! *Verdict* facts are guarded by the reads of their record. *Merge* facts need no guard: the fold joins them by a rule
//! stated on the type. *Allotment* facts need none either: the fold picks, and the reply is read from the result.

mod account_data;
mod accounts;
mod devices;
mod directory;
mod events;
mod identities;
mod jobs;
mod keys;
mod profiles;
mod pushers;
mod receipts;
mod reports;
mod rooms;
mod server;
mod sessions;
mod to_device;

use schemars::{JsonSchema, Schema, schema_for};
use serde::{Deserialize, Serialize};

pub use account_data::{AccountDataSet, FilterStored, PushRuleChanged, PushRuleOp, TagSet};
pub use accounts::{
    AccountDeactivated, AccountReactivated, AccountStatusSet, AccountValiditySet, AdminSet, ExperimentalFeatureSet,
    KeyReplacementAllowed, PasswordSet, RateLimit, RateLimitSet, RegistrationTokenRemoved, RegistrationTokenSet,
    ShadowBanSet, UserKind, UserRegistered, UserTypeSet,
};
pub use devices::{DeviceAdded, DeviceRemoved, DeviceRenamed, DeviceSeen, DevicesSeen};
pub use directory::{AliasRemoved, AliasSet, RoomPublished};
pub use events::{
    EventBodies, EventLearned, EventPlaced, EventRestated, EventTransaction, ExtremitiesRemoved, Placement, Redaction,
    StagedEvents, StateBase, StateBefore, StateChange, StateSet, StateSetPart, Verdict, Visibility,
};
pub use identities::{ExternalIdAdded, ExternalIdRemoved, ThirdPartyIdAdded, ThirdPartyIdRemoved};
pub use jobs::{JobAdvanced, JobEnded, JobItem, JobStarted};
pub use keys::{
    Claim, CrossSigningKeysSet, DeviceKeysUploaded, FallbackKeysUploaded, NamedKey, OneTimeKeysClaimed,
    OneTimeKeysUploaded, SignaturesUploaded, SignedObject,
};
pub use profiles::ProfileFieldSet;
pub use pushers::{PusherRemoved, PusherSet};
pub use receipts::{ReceiptKind, ReceiptSet};
pub use reports::{EventReported, ReportKind, ReportRemoved, RoomReported, UserReported};
pub use rooms::{
    EventsForgotten, HistoryWithdrawn, RoomBlocked, RoomDetached, RoomForgotten, RoomPurged, RoomsFollowed,
};
pub use server::{Epoch, FormatBarrier, Genesis, IdleGap, ShardsTaken};
pub use sessions::{LoginTokenIssued, LoginTokenUsed, SessionOpened, SessionRefreshed, StandInEnded, StandInOpened};
pub use to_device::{Acknowledgement, ToDeviceAcknowledged, ToDeviceMessage, ToDeviceSent};

use crate::{Blob, DecodeError, RawFact, codec};

/// How a fact holds against what got on the log in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    /// Guarded by reads.
    Verdict,
    /// Joined by the fold, by a stated rule.
    Merge,
    /// Allotted by the fold, by a stated rule.
    Allotment,
}

/// A line is a fact: its number, the version that is written, its kind and its type. Older versions follow, each with the
/// type that it had, from which the fact is made: `7 v 3 Merge Thing from v 1 ThingV1 from v 2 ThingV2,`.
macro_rules! facts {
    ($($number:literal v $version:literal $kind:ident $name:ident $(from v $old:literal $former:ident)*,)*) => {
        /// The decoded view of a fact. Folds match it without a wildcard where they mean to see every fact.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "fact", rename_all = "snake_case")]
        pub enum Fact {
            $(#[doc = concat!("Number ", stringify!($number), ", version ", stringify!($version), ".")] $name($name),)*
        }

        impl Fact {
            /// Every number, with the version that this build writes, the kind and the name.
            pub const ALL: &'static [(u16, u8, FactKind, &'static str)] =
                &[$(($number, $version, FactKind::$kind, stringify!($name)),)*];

            /// The fixed number.
            #[must_use]
            pub const fn number(&self) -> u16 {
                match self { $(Self::$name(_) => $number,)* }
            }

            /// The fact's name, as in dumps and metrics.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            /// The fact as it goes on the log.
            #[must_use]
            pub fn encode(&self) -> RawFact {
                match self {
                    $(Self::$name(body) => RawFact { number: $number, version: $version, body: Blob(codec::encode(body)) },)*
                }
            }

            /// Reads a fact of any version that was ever written.
            ///
            /// # Errors
            /// [`DecodeError::UnknownFact`] and whatever malformed bytes give.
            pub fn decode(number: u16, version: u8, body: &[u8]) -> Result<Self, DecodeError> {
                match (number, version) {
                    $(
                        ($number, $version) => codec::decode(body).map(Self::$name),
                        $(($number, $old) => codec::decode::<$former>(body).map(|old| Self::$name(old.into())),)*
                    )*
                    _ => Err(DecodeError::UnknownFact { number, version }),
                }
            }

            /// The JSON Schema of each fact's body as dumps show it, by name.
            #[must_use]
            pub fn schemas() -> Vec<(&'static str, Schema)> {
                vec![$((stringify!($name), schema_for!($name)),)*]
            }
        }

        $(impl From<$name> for Fact {
            fn from(body: $name) -> Self {
                Self::$name(body)
            }
        })*
    };
}

// Numbers are never reused and never change their meaning. 5 is kept for signed checkpoints.
facts! {
    1 v 1 Verdict Genesis,
    2 v 1 Verdict Epoch,
    3 v 1 Merge IdleGap,
    4 v 1 Verdict FormatBarrier,
    6 v 1 Verdict ShardsTaken,

    10 v 1 Verdict EventLearned,
    11 v 1 Verdict EventPlaced,
    12 v 1 Verdict EventRestated,
    13 v 1 Merge EventBodies,
    14 v 1 Merge StateSetPart,
    15 v 1 Verdict StagedEvents,
    16 v 1 Verdict StateSet,
    17 v 1 Merge EventTransaction,
    18 v 1 Verdict ExtremitiesRemoved,

    20 v 1 Merge RoomForgotten,
    21 v 1 Verdict RoomBlocked,
    22 v 1 Merge RoomsFollowed,
    23 v 1 Verdict RoomDetached,
    24 v 1 Verdict RoomPurged,
    25 v 1 Verdict HistoryWithdrawn,
    26 v 1 Verdict EventsForgotten,

    30 v 1 Verdict UserRegistered,
    31 v 1 Verdict PasswordSet,
    32 v 1 Verdict AccountDeactivated,
    33 v 1 Verdict AdminSet,
    34 v 1 Verdict AccountStatusSet,
    35 v 1 Verdict RegistrationTokenSet,
    36 v 1 Verdict RegistrationTokenRemoved,
    37 v 1 Verdict AccountReactivated,
    38 v 1 Verdict UserTypeSet,
    39 v 1 Verdict ShadowBanSet,

    40 v 1 Verdict SessionOpened,
    41 v 1 Verdict SessionRefreshed,
    42 v 1 Verdict LoginTokenIssued,
    43 v 1 Verdict LoginTokenUsed,

    50 v 1 Verdict DeviceAdded,
    51 v 1 Merge DeviceRenamed,
    52 v 1 Verdict DeviceRemoved,

    60 v 1 Merge DeviceKeysUploaded,
    61 v 1 Merge OneTimeKeysUploaded,
    62 v 1 Merge FallbackKeysUploaded,
    63 v 1 Allotment OneTimeKeysClaimed,
    64 v 1 Verdict CrossSigningKeysSet,
    65 v 1 Merge SignaturesUploaded,

    70 v 1 Merge ProfileFieldSet,

    80 v 1 Merge AccountDataSet,
    81 v 1 Merge TagSet,
    82 v 1 Merge PushRuleChanged,
    83 v 1 Merge FilterStored,

    90 v 1 Merge ReceiptSet,

    100 v 1 Merge ToDeviceSent,
    101 v 1 Merge ToDeviceAcknowledged,

    110 v 1 Verdict AliasSet,
    111 v 1 Verdict AliasRemoved,
    112 v 1 Verdict RoomPublished,

    120 v 1 Verdict JobStarted,
    121 v 1 Verdict JobAdvanced,
    122 v 1 Verdict JobEnded,

    130 v 1 Allotment EventReported,
    131 v 1 Allotment RoomReported,
    132 v 1 Allotment UserReported,
    133 v 1 Merge ReportRemoved,

    140 v 1 Verdict RateLimitSet,
    141 v 1 Verdict ThirdPartyIdAdded,
    142 v 1 Verdict ThirdPartyIdRemoved,
    143 v 1 Verdict ExternalIdAdded,
    144 v 1 Verdict ExternalIdRemoved,
    145 v 1 Verdict AccountValiditySet,
    146 v 1 Verdict ExperimentalFeatureSet,
    147 v 1 Verdict KeyReplacementAllowed,
    148 v 1 Verdict StandInOpened,
    149 v 1 Verdict StandInEnded,
    150 v 1 Merge DevicesSeen,
    151 v 1 Merge PusherSet,
    152 v 1 Merge PusherRemoved,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
    pub struct Moved {
        to: String,
        metres: u64,
        why: Option<String>,
    }

    #[derive(Serialize, Deserialize)]
    struct MovedV1 {
        to: String,
    }

    #[derive(Serialize, Deserialize)]
    struct MovedV2 {
        to: String,
        kilometres: u32,
    }

    impl From<MovedV1> for Moved {
        fn from(old: MovedV1) -> Self {
            Self { to: old.to, metres: 0, why: None }
        }
    }

    impl From<MovedV2> for Moved {
        fn from(old: MovedV2) -> Self {
            Self { to: old.to, metres: u64::from(old.kilometres) * 1_000, why: None }
        }
    }

    facts! {
        1 v 3 Verdict Moved from v 1 MovedV1 from v 2 MovedV2,
        2 v 1 Merge IdleGap,
    }

    #[test]
    fn older_versions_are_upcast() {
        let moved = |metres, why: Option<&str>| Moved { to: "Bern".into(), metres, why: why.map(Into::into) };
        let golden: [(u8, &[u8], Moved); 3] = [
            (1, b"\x04Bern", moved(0, None)),
            (2, b"\x04Bern\x07", moved(7_000, None)),
            (3, b"\x04Bern\x07\x01\x02so", moved(7, Some("so"))),
        ];
        for (version, bytes, expected) in golden {
            assert_eq!(Fact::decode(1, version, bytes), Ok(expected.into()), "version {version}");
        }
        let now = Fact::from(moved(7, Some("so")));
        assert_eq!(now.encode(), RawFact { number: 1, version: 3, body: Blob(b"\x04Bern\x07\x01\x02so".to_vec()) });
        assert_eq!((now.number(), now.name()), (1, "Moved"));
        assert_eq!(Fact::ALL, [(1, 3, FactKind::Verdict, "Moved"), (2, 1, FactKind::Merge, "IdleGap")]);
        assert_eq!(Fact::schemas().len(), 2);
    }

    #[test]
    fn what_no_version_was_is_refused() {
        for (number, version) in [(1, 0), (1, 4), (2, 2), (3, 1)] {
            assert_eq!(Fact::decode(number, version, b""), Err(DecodeError::UnknownFact { number, version }));
        }
        assert_eq!(Fact::decode(1, 2, b"\x04Bern"), Err(DecodeError::Truncated));
        assert_eq!(Fact::decode(1, 1, b"\x04Bern\x07"), Err(DecodeError::Trailing(1)), "it is read as what it says");
    }
}
