//! What holds for all records and facts, and for all bytes.

use proptest::prelude::*;
use schemas::{Blob, DecodeError, Fact, Header, MAX_RECORD_BYTES, Part, RawFact, Record, RecordId, codec, facts::*};
use serde::de::DeserializeOwned;

use crate::{made_up::made_up, samples};

macro_rules! every_fact {
    ($($name:ident)*) => {
        /// A made-up fact of each number.
        fn one_of_each(seed: u64) -> Vec<Fact> {
            vec![$(Fact::from(made_up::<$name>(seed)),)*]
        }
    };
}

every_fact! {
    Genesis Epoch IdleGap FormatBarrier ShardsTaken EventLearned EventPlaced EventRestated EventBodies StateSetPart StagedEvents
    StateSet EventTransaction ExtremitiesRemoved RoomForgotten RoomBlocked RoomsFollowed RoomDetached RoomPurged
    HistoryWithdrawn EventsForgotten UserRegistered PasswordSet AccountDeactivated AdminSet
    AccountStatusSet RegistrationTokenSet RegistrationTokenRemoved AccountReactivated
    UserTypeSet ShadowBanSet SessionOpened SessionRefreshed LoginTokenIssued LoginTokenUsed DeviceAdded
    DeviceRenamed DeviceRemoved DeviceKeysUploaded OneTimeKeysUploaded FallbackKeysUploaded OneTimeKeysClaimed
    CrossSigningKeysSet SignaturesUploaded ProfileFieldSet AccountDataSet TagSet PushRuleChanged FilterStored ReceiptSet
    ToDeviceSent ToDeviceAcknowledged AliasSet AliasRemoved RoomPublished JobStarted JobAdvanced JobEnded EventReported RoomReported UserReported
    ReportRemoved
    RateLimitSet ThirdPartyIdAdded ThirdPartyIdRemoved ExternalIdAdded
    ExternalIdRemoved AccountValiditySet ExperimentalFeatureSet KeyReplacementAllowed StandInOpened StandInEnded
    DevicesSeen PusherSet PusherRemoved
}

#[test]
fn every_fact_is_made_up() {
    let made: Vec<u16> = one_of_each(1).iter().map(Fact::number).collect();
    let all: Vec<u16> = Fact::ALL.iter().map(|(number, ..)| *number).collect();
    assert_eq!(made, all);
}

fn header(seed: u64) -> Header {
    Header { format: schemas::FORMAT, ..made_up(seed) }
}

/// Decodes as whatever the format has.
fn decode_all(bytes: &[u8]) {
    for &(number, version, ..) in Fact::ALL {
        let _ = Fact::decode(number, version, bytes);
    }
    let _ = Record::decode(bytes);
    let _ = Record::decode_header(bytes);
}

proptest! {
    #[test]
    fn facts_come_back_as_they_went(seed: u64) {
        for fact in one_of_each(seed) {
            let raw = fact.encode();
            prop_assert_eq!(raw.decode().unwrap(), fact);
            let version = raw.version + 1;
            let error = DecodeError::UnknownFact { number: raw.number, version };
            prop_assert_eq!(Fact::decode(raw.number, version, &raw.body.0), Err(error));
            let mut longer = raw.body.0.clone();
            longer.push(0);
            prop_assert_eq!(Fact::decode(raw.number, raw.version, &longer), Err(DecodeError::Trailing(1)));
        }
    }

    #[test]
    fn dumps_show_every_fact_and_every_header(seed: u64) {
        for fact in one_of_each(seed) {
            let view = serde_json::to_value(&fact).unwrap();
            prop_assert_eq!(view["fact"].as_str().unwrap(), crate::snake_case(fact.name()));
            prop_assert_eq!(serde_json::to_value(serde_json::from_value::<Fact>(view.clone()).unwrap()).unwrap(), view);
        }
        let header = header(seed);
        let view = serde_json::to_value(&header).unwrap();
        prop_assert_eq!(serde_json::from_value::<Header>(view).unwrap(), header);
    }

    #[test]
    fn records_come_back_as_they_went(seed: u64) {
        let facts: Vec<RawFact> = one_of_each(seed).iter().map(RawFact::from).collect();
        let record = Record { header: header(seed), facts };
        let bytes = record.encode().unwrap();
        prop_assert_eq!(&Record::decode(&bytes).unwrap(), &record);
        prop_assert_eq!(Record::decode_header(&bytes).unwrap().0, record.header);
    }

    #[test]
    fn a_record_cut_short_is_truncated(seed: u64, cut: prop::sample::Index) {
        let facts: Vec<RawFact> = one_of_each(seed).iter().map(RawFact::from).collect();
        let bytes = Record { header: header(seed), facts }.encode().unwrap();
        prop_assert_eq!(Record::decode(&bytes[..cut.index(bytes.len())]), Err(DecodeError::Truncated));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        decode_all(&bytes);
    }

    #[test]
    fn altered_bytes_never_panic(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let samples = samples::samples();
        let mut fact = samples[which.index(samples.len())].1.encode();
        for (at, byte) in &changes {
            let place = at.index(fact.body.0.len().max(1));
            if let Some(there) = fact.body.0.get_mut(place) {
                *there = *byte;
            }
        }
        let _ = fact.decode();
        let records = samples::records();
        let mut bytes = records[which.index(records.len())].1.encode().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Record::decode(&bytes);
    }

    #[test]
    fn blobs_and_parts_come_back_from_dumps(bytes: Vec<u8>, text in "(hex:)?.{0,8}") {
        for blob in [Blob(bytes.clone()), Blob(text.into_bytes())] {
            for part in [
                Part::Clear(blob.clone()),
                Part::Sealed { key_id: blob.clone(), algorithm: 1, nonce: blob.clone(), ciphertext: blob.clone() },
            ] {
                let dumped: Part = serde_json::from_str(&serde_json::to_string(&part).unwrap()).unwrap();
                prop_assert_eq!(&dumped, &part);
                prop_assert_eq!(&codec::decode::<Part>(&codec::encode(&part)).unwrap(), &part);
                prop_assert_eq!(part.open().is_some(), matches!(part, Part::Clear(_)));
            }
        }
    }
}

#[test]
fn lengths_that_lie_are_refused_without_allocating_them() {
    /// Most memory that this process ever held, in bytes.
    fn peak() -> Option<u64> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    fn lies<T: DeserializeOwned>() {
        // bincode's marks for lengths of 2, 4 and 8 bytes, with lengths up to the largest there is.
        for bytes in
            [&[0xfb, 0xff, 0xff][..], &[0xfc, 0xff, 0xff, 0xff, 0xff], &[0xfd, 255, 255, 255, 255, 255, 255, 255, 255]]
        {
            assert!(codec::decode::<T>(bytes).is_err());
            assert!(codec::decode::<T>(&[bytes, &[0; 64]].concat()).is_err());
        }
    }

    let before = peak();
    for _ in 0..100 {
        lies::<String>();
        lies::<Blob>();
        lies::<Vec<u64>>();
        lies::<Vec<RawFact>>();
        lies::<Vec<EventLearned>>();
        lies::<std::collections::BTreeMap<String, String>>();
    }
    if let (Some(before), Some(after)) = (before, peak()) {
        assert!(after - before < 64 << 20, "decoding a few bytes took {} bytes", after - before);
    }
}

#[test]
fn what_is_larger_than_the_cap_is_refused() {
    let fact = RawFact { number: 1, version: 1, body: Blob(vec![0; MAX_RECORD_BYTES]) };
    let record = Record { header: header(1), facts: vec![fact] };
    assert!(matches!(record.encode(), Err(DecodeError::TooLarge { cap: MAX_RECORD_BYTES, .. })));
    assert!(matches!(Record::decode(&vec![0; MAX_RECORD_BYTES + 1]), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn another_format_is_named() {
    let bytes = Record { header: Header { format: 9, ..header(1) }, facts: vec![] }.encode().unwrap();
    assert_eq!(Record::decode(&bytes), Err(DecodeError::UnknownFormat(9)));
}

#[test]
fn ids_of_requests_differ_where_any_part_differs() {
    let id = |parts: [&str; 5]| RecordId::of_request(parts[0], parts[1], parts[2], parts[3], parts[4]);
    let parts = ["a", "b", "c", "d", "e"];
    assert_eq!(id(parts), id(parts));
    for at in 0..5 {
        let mut other = parts;
        other[at] = "x";
        assert_ne!(id(parts), id(other));
    }
    assert_ne!(id(["ab", "", "c", "d", "e"]), id(["a", "b", "c", "d", "e"]));
}
