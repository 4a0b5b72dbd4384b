//! A log in memory and the tables folded from it, for the models' tests.

use std::sync::Arc;

use schemas::{Blob, FORMAT, Fact, Header, LogTime, Lsn, Origin, RecordId, facts::Genesis};
use tempfile::TempDir;

use crate::{Applied, Entry, Projector, Reader, Source, Store, StoreOptions, View, digest};

/// The server's name in tests.
pub(crate) const SERVER: &str = "example.org";

/// A server without the server: records go in, views come out.
pub(crate) struct World {
    projector: Projector,
    reader: Reader,
    entries: Vec<Entry>,
    now_ms: u64,
    // Removed after the store is closed.
    _folder: TempDir,
}

fn empty_store() -> (Arc<Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let memory = StoreOptions { block_cache_bytes: 1 << 20, write_buffer_bytes: 4 << 20 };
    (Arc::new(Store::open(folder.path(), memory).unwrap()), folder)
}

impl World {
    /// A log that begins.
    pub(crate) fn new() -> Self {
        let (store, folder) = empty_store();
        let projector = Projector::open(Arc::clone(&store)).unwrap();
        let mut world = Self {
            projector,
            reader: Reader::new(store),
            entries: Vec::new(),
            now_ms: 1_700_000_000_000,
            _folder: folder,
        };
        let genesis = Genesis { log_id: Blob(vec![7; 16]), server_name: SERVER.into(), format: FORMAT };
        world.apply([genesis.into()]);
        world
    }

    /// Folds one record of these facts, one second after the one before.
    pub(crate) fn apply(&mut self, facts: impl IntoIterator<Item = Fact>) -> Lsn {
        self.fold(facts);
        self.projector.cursor().lsn
    }

    /// Like [`World::apply`], and says what that touched and cost.
    pub(crate) fn fold(&mut self, facts: impl IntoIterator<Item = Fact>) -> Applied {
        self.now_ms += 1_000;
        let lsn = self.projector.cursor().lsn.next();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&lsn.to_bytes());
        let header = Header {
            format: FORMAT,
            id: RecordId(id),
            attempt: 0,
            at_ms: self.now_ms,
            node: 0,
            origin: Origin::Server,
            cause: None,
            reads: Vec::new(),
            writes: Vec::new(),
            after: None,
        };
        let facts = facts.into_iter().map(|fact| fact.encode()).collect();
        let bytes = schemas::Record { header, facts }.encode().unwrap();
        let entry = Entry { lsn, bytes: bytes.into() };
        self.entries.push(entry.clone());
        self.projector.apply(&[entry], true).unwrap()
    }

    /// Lets time pass; log time follows with the next record, by at most ten minutes.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Log time at the last record.
    pub(crate) fn log_time(&self) -> LogTime {
        self.projector.cursor().log_time
    }

    /// The tables as they are.
    pub(crate) fn view(&self) -> View {
        self.reader.view().unwrap()
    }

    /// Folds the whole log again, in one batch, and compares.
    pub(crate) fn check_replay(&self) {
        let (store, _folder) = empty_store();
        let mut again = Projector::open(Arc::clone(&store)).unwrap();
        again.apply(&self.entries, true).unwrap();
        assert_eq!(again.cursor(), self.projector.cursor());
        let again = digest::all(&Reader::new(store).view().unwrap()).unwrap();
        assert_eq!(again, digest::all(&self.view()).unwrap());
    }
}
