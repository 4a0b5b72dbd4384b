//! Altered bytes: each is found, and the first record that is affected is named.

use std::{ops::Range, path::PathBuf};

use bytes::Bytes;
use projections::Cursor;
use rocksdb::DB;
use schemas::{Chain, Fact};

use super::{super::frame::Frame, open, *};
use crate::log::{
    Note,
    conformance::{all, append, record},
    verify::{Checks, Verified, verify},
};

const RECORDS: u64 = 120;
/// So many of them stand in one file.
const PER_FILE: u64 = 30;

/// A log of which a part is in tables and the last part in RocksDB's write-ahead log, as after a crash.
fn log() -> (TempDir, Vec<(Lsn, Bytes)>, Cursor) {
    let (made, crashed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut log = open(made.path());
    for n in 0..RECORDS {
        if n % PER_FILE == 0 {
            drop(log);
            log = open(made.path());
        }
        append(&log, vec![record(n, n, 1_500)]);
    }
    copy(made.path(), crashed.path());
    let Verified { tail, note, records, .. } = verify(&log, Checks::default()).unwrap();
    let cursor = Cursor { lsn: tail, chain: note.chain, log_time: note.time, records, ..Cursor::default() };
    (crashed, all(&log), cursor)
}

fn verify_folder(folder: &Path, cursor: Option<&Cursor>) -> Result<Verified, ReadError> {
    let log = EmbeddedLog::open_read_only(folder).map_err(|error| match error {
        OpenError::Read(error) => error,
        other => ReadError::Backend(other.to_string()),
    })?;
    verify(&log, Checks { cursor, ..Checks::default() })
}

fn position(error: &ReadError) -> Lsn {
    match error {
        ReadError::Damaged { lsn, .. } | ReadError::Record { lsn, .. } => *lsn,
        ReadError::Backend(why) => panic!("no position: {why}"),
    }
}

/// The files that hold records, and which.
fn files(folder: &Path) -> impl Iterator<Item = (PathBuf, Range<u64>)> + use<> {
    let files = |extension| {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
        files.sort();
        files
    };
    let files = files("sst").into_iter().chain(files("log"));
    let files: Vec<_> = files.filter(|path| std::fs::metadata(path).unwrap().len() > 10_000).collect();
    assert_eq!(files.len() as u64, RECORDS / PER_FILE);
    let ranges = (1..).step_by(PER_FILE as usize).map(|first| first..first + PER_FILE);
    files.into_iter().zip(ranges)
}

#[test]
fn a_missing_file_is_found() {
    let (folder, _, cursor) = log();
    for (path, range) in files(folder.path()) {
        let lacking = TempDir::new().unwrap();
        copy(folder.path(), lacking.path());
        std::fs::remove_file(lacking.path().join(path.file_name().unwrap())).unwrap();
        let error = verify_folder(lacking.path(), Some(&cursor)).unwrap_err();
        assert_eq!(position(&error).0, range.start, "{error}");
        let opened = EmbeddedLog::create_or_open(lacking.path(), EmbeddedOptions::default());
        assert!(matches!(opened, Err(OpenError::Read(error)) if position(&error).0 == range.start));
    }
    // Tables and no word of what is in them: a new database would delete them.
    for name in ["CURRENT", "acknowledged"] {
        let before = files(folder.path()).collect::<Vec<_>>();
        std::fs::remove_file(folder.path().join(name)).unwrap();
        let opened = EmbeddedLog::create_or_open(folder.path(), EmbeddedOptions::default());
        assert!(matches!(opened, Err(OpenError::Read(error)) if position(&error) == Lsn::FIRST));
        assert_eq!(files(folder.path()).collect::<Vec<_>>(), before);
        assert!(!folder.path().join("CURRENT").exists(), "nothing is touched");
    }
}

/// Flips bytes all over the files that hold records.
#[test]
fn a_flipped_byte_is_found() {
    let (folder, records, cursor) = log();
    let whole = verify_folder(folder.path(), Some(&cursor)).unwrap();
    assert_eq!(whole.records, RECORDS);
    for (path, range) in files(folder.path()) {
        let bytes = std::fs::read(&path).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 25).chain((bytes.len() - 60..bytes.len()).step_by(3)) {
            let flipped = TempDir::new().unwrap();
            copy(folder.path(), flipped.path());
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            std::fs::write(flipped.path().join(path.file_name().unwrap()), bytes).unwrap();
            let context = format!("{} byte {at}", path.display());
            let error = verify_folder(flipped.path(), Some(&cursor)).expect_err(&context);
            let first = position(&error);
            assert!(range.contains(&first.0), "{context}: {error}");
            // A server on it refuses as well, or gives whatever stands before.
            if let Ok(log) = EmbeddedLog::create_or_open(flipped.path(), EmbeddedOptions::default()) {
                let mut before = Vec::new();
                while let Ok(entries) = log.read(Lsn(before.len() as u64 + 1), 7, 10_000) {
                    before.extend(entries);
                }
                assert_eq!(before.len() as u64, first.0 - 1, "{context}: {error}");
                assert!(before.iter().zip(&records).all(|(found, (_, bytes))| *found.bytes == **bytes));
            }
        }
    }
}

fn rewrite(folder: &Path, lsn: Lsn, change: impl FnOnce(&mut Note, &mut Vec<u8>)) {
    let db = DB::open(&store::options(), folder).unwrap();
    let value = db.get(lsn.to_bytes()).unwrap().unwrap();
    let frame = Frame::decode(lsn, &value).unwrap();
    let (mut note, mut record) = (frame.note, frame.record.to_vec());
    change(&mut note, &mut record);
    let mut value = Vec::new();
    Frame { note, record: &record }.encode(lsn, &mut value);
    db.put(lsn.to_bytes(), value).unwrap();
}

/// Alters the content, in place and decodable.
fn forge(record: &mut [u8]) {
    let letter = record.len() - 100;
    record[letter] = record[letter].to_ascii_uppercase();
}

#[test]
fn an_altered_byte_with_its_checksum_is_found() {
    let (folder, ..) = log();
    for lsn in [1, 7, RECORDS / 2, RECORDS].map(Lsn) {
        let forged = TempDir::new().unwrap();
        copy(folder.path(), forged.path());
        rewrite(forged.path(), lsn, |_, record| forge(record));
        let error = verify_folder(forged.path(), None).unwrap_err();
        assert_eq!(position(&error), lsn, "{error}");

        let forged = TempDir::new().unwrap();
        copy(folder.path(), forged.path());
        rewrite(forged.path(), lsn, |note, _| note.time.ms += 1);
        assert_eq!(position(&verify_folder(forged.path(), None).unwrap_err()), lsn);
    }
}

#[test]
fn a_rewritten_history_is_found() {
    let (folder, records, cursor) = log();
    let forged_at = Lsn(9);
    let mut chain = Chain::default();
    for (lsn, bytes) in records {
        let mut bytes = bytes.to_vec();
        if lsn == forged_at {
            forge(&mut bytes);
        }
        chain = chain.extend(lsn, &bytes);
        rewrite(folder.path(), lsn, |note, record| (note.chain, *record) = (chain, bytes));
    }
    verify_folder(folder.path(), None).expect("it is consistent in itself");
    let error = verify_folder(folder.path(), Some(&cursor)).unwrap_err();
    assert_eq!(position(&error), cursor.lsn);
    assert!(error.to_string().contains("one before was altered"), "{error}");
    // What stands for hashes and signatures names the record.
    let signed = |fact: &Fact| match fact {
        Fact::ProfileFieldSet(set) if set.value.as_ref().unwrap().as_str().chars().any(char::is_uppercase) => {
            Err("bad hash".to_owned())
        }
        _ => Ok(()),
    };
    let log = EmbeddedLog::open_read_only(folder.path()).unwrap();
    let error = verify(&log, Checks { fact: &signed, ..Checks::default() }).unwrap_err();
    assert_eq!(position(&error), forged_at);
    assert!(error.to_string().contains("ProfileFieldSet"), "{error}");
}

#[test]
fn a_missing_record_is_found() {
    let (folder, _, cursor) = log();
    for lsn in [1, 30, RECORDS - 1, RECORDS].map(Lsn) {
        let holed = TempDir::new().unwrap();
        copy(folder.path(), holed.path());
        DB::open(&store::options(), holed.path()).unwrap().delete(lsn.to_bytes()).unwrap();
        let error = verify_folder(holed.path(), Some(&cursor)).unwrap_err();
        assert_eq!(position(&error), lsn, "{error}");
        let opened = EmbeddedLog::create_or_open(holed.path(), EmbeddedOptions::default());
        assert!(matches!(opened, Err(OpenError::Read(error)) if position(&error) == lsn));
    }
}

#[test]
fn a_log_shorter_than_the_read_models_is_found() {
    let (folder, ..) = log();
    let cursor = Cursor { lsn: Lsn(RECORDS + 3), ..Cursor::default() };
    let error = verify_folder(folder.path(), Some(&cursor)).unwrap_err();
    assert_eq!(position(&error), Lsn(RECORDS + 1));
}

#[test]
fn a_lost_database_or_a_damaged_note_is_found() {
    let (folder, ..) = log();
    let note = folder.path().join("acknowledged");
    let mut bytes = std::fs::read(&note).unwrap();
    let lost = TempDir::new().unwrap();
    std::fs::write(lost.path().join("acknowledged"), &bytes).unwrap();
    let opened = EmbeddedLog::create_or_open(lost.path(), EmbeddedOptions::default());
    assert!(matches!(opened, Err(OpenError::Read(error)) if position(&error) == Lsn::FIRST));
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        std::fs::write(&note, &bytes).unwrap();
        let opened = EmbeddedLog::create_or_open(folder.path(), EmbeddedOptions::default());
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("acknowledged is damaged; delete it"), "{error}");
        bytes[at] ^= 1;
    }
    std::fs::remove_file(&note).unwrap();
    assert_eq!(open(folder.path()).tail(), Lsn(RECORDS));
}
