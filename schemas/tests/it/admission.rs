//! The rule of admission against its vectors, by this crate and by thirty lines of Python.

use std::{collections::BTreeMap, convert::Infallible, process::Command};

use schemas::{
    CopyId, Header, Key, Lsn, RecordId,
    admission::{Known, judge},
};
use serde::Deserialize;

use crate::{file, text};

#[derive(Deserialize)]
struct Vectors {
    keys: Vec<NamedKey>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct NamedKey {
    tag: u8,
    name: String,
    key: Key,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    records: Vec<Judged>,
}

#[derive(Deserialize)]
struct Judged {
    lsn: Lsn,
    header: Header,
    void: Option<String>,
}

#[derive(Default)]
struct Log {
    applied: BTreeMap<RecordId, (Lsn, CopyId)>,
    written: BTreeMap<Key, (Lsn, RecordId)>,
}

impl Known for Log {
    type Error = Infallible;

    fn applied(&self, id: &RecordId) -> Result<Option<(Lsn, CopyId)>, Infallible> {
        Ok(self.applied.get(id).copied())
    }

    fn written(&self, key: &Key) -> Result<Option<(Lsn, RecordId)>, Infallible> {
        Ok(self.written.get(key).copied())
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(&text("fixtures/admission.json")).unwrap()
}

#[test]
fn records_are_judged_as_the_vectors_say() {
    for case in vectors().cases {
        let mut log = Log::default();
        for Judged { lsn, header, void } in case.records {
            let found = judge(&header, &log).unwrap();
            assert_eq!(found.map(|void| void.reason().to_owned()), void, "{}, record {lsn}", case.name);
            if found.is_none() {
                log.applied.insert(header.id, (lsn, header.copy));
                log.written.extend(header.writes.iter().map(|key| (*key, (lsn, header.id))));
            }
        }
    }
}

#[test]
fn keys_are_a_tag_and_half_a_hash() {
    use schemas::Tag;
    // Tags are never reused.
    const TAGS: &[Tag] = &[
        Tag::RoomState,
        Tag::RoomAdmin,
        Tag::UserStatus,
        Tag::Device,
        Tag::UserName,
        Tag::Alias,
        Tag::RegistrationToken,
        Tag::ThirdPartyId,
        Tag::Job,
        Tag::BackupVersion,
        Tag::CrossSigning,
        Tag::Membership,
        Tag::InviteRules,
        Tag::Genesis,
        Tag::Published,
    ];
    let keys = vectors().keys;
    for (number, tag) in (1..).zip(TAGS) {
        assert_eq!(*tag as u8, number);
        let named =
            keys.iter().find(|named| named.tag == number).unwrap_or_else(|| panic!("no vector of tag {number}"));
        assert_eq!(Key::new(*tag, &named.name), named.key);
    }
    assert_eq!(Key::pair(Tag::Device, "a", "b"), Key::new(Tag::Device, "a\0b"));
}

#[test]
fn thirty_lines_in_another_language_judge_alike() {
    let reader = file("tests/admission.py");
    let lines = std::fs::read_to_string(&reader).unwrap().lines().count();
    assert!(lines <= 30, "{lines} lines");
    let output = Command::new("python3").arg(reader).arg(file("fixtures/admission.json")).output();
    let output = output.unwrap_or_else(|error| panic!("python3 is needed: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let records: usize = vectors().cases.iter().map(|case| case.records.len()).sum();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{records} records judged as expected"));
}
