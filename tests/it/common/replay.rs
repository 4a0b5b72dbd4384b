//! Replay equals live: a log folded again gives the read models that a server kept.

use std::{path::Path, sync::Arc};

use everfold::log::{
    EmbeddedLog, LogReader,
    verify::{Checks, verify},
};
use projections::{
    Projector, Reader, Source, Store, StoreOptions, View,
    digest::{self, Digest},
};
use schemas::Lsn;
use tempfile::TempDir;

/// Checks a stopped server's log, folds it from zero, compares, and gives a view of the server's read models.
pub fn check(log: &Path, read_models: &Path) -> View {
    check_log(&EmbeddedLog::open_read_only(log).unwrap(), read_models)
}

/// The same for a log that is open.
pub fn check_log(log: &dyn LogReader, read_models: &Path) -> View {
    let live = Reader::new(open(read_models)).view().unwrap();
    assert_eq!(live.lsn(), log.tail(), "the server stopped without folding everything");
    verify(log, Checks { cursor: Some(live.cursor()), ..Checks::default() }).unwrap();
    // Another batch size than any that the server used.
    let replayed = fold_from_zero(log, &mut |_| 7);
    assert_eq!(digest::all(&live).unwrap(), replayed, "a replay of the log gives other read models");
    live
}

/// Folds a log into a folder of its own, in batches of the sizes that `records` gives for each position.
pub fn fold_from_zero(log: &dyn LogReader, records: &mut dyn FnMut(Lsn) -> usize) -> Vec<Digest> {
    let scratch = TempDir::new().unwrap();
    fold(scratch.path(), log, log.tail(), records);
    digest_of(scratch.path())
}

/// Folds a log into a folder on from where it is, up to a position.
pub fn fold(folder: &Path, log: &dyn LogReader, until: Lsn, records: &mut dyn FnMut(Lsn) -> usize) {
    let mut projector = Projector::open(open(folder)).unwrap();
    while projector.cursor().lsn < until {
        let from = projector.cursor().lsn.next();
        let mut entries = log.read(from, records(from), usize::MAX).unwrap();
        entries.retain(|entry| entry.lsn <= until);
        projector.apply(&entries, true).unwrap();
    }
}

/// The digest of the read models in a folder.
pub fn digest_of(folder: &Path) -> Vec<Digest> {
    digest::all(&Reader::new(open(folder)).view().unwrap()).unwrap()
}

fn open(folder: &Path) -> Arc<Store> {
    Arc::new(Store::open(folder, StoreOptions::default()).unwrap())
}
