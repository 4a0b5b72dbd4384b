//! A log in memory and the tables folded from it, for the models' tests.

pub(crate) mod rooms;

use std::{path::Path, sync::Arc};

use ruma::{CanonicalJsonObject, EventId, RoomId, room_version_rules::RedactionRules};
use schemas::{
    Blob, CopyId, FORMAT, Fact, Header, LogTime, Lsn, Origin, RecordId,
    facts::{EventPlaced, Genesis, Placement, StateChange, Verdict, Visibility},
};
use tempfile::TempDir;

use crate::{
    Applied, Entry, FoldError, Generation, Model, Projector, Reader, Source, Store, StoreError, StoreOptions, View,
    digest, pdu,
    read::{Range, Read, Rows, Table},
};

/// The server's name in tests.
pub(crate) const SERVER: &str = "example.org";

/// Tables with nothing in them.
pub(crate) struct Nothing;

impl Read for Nothing {
    fn get(&self, _: Table, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn scan(&self, _: Table, _: Range) -> Rows<'_> {
        Box::new(std::iter::empty())
    }
}

/// A server without the server: records go in, views come out.
pub(crate) struct World {
    projector: Projector,
    reader: Reader,
    entries: Vec<Entry>,
    now_ms: u64,
    // Removed after the store is closed.
    folder: TempDir,
}

pub(crate) fn empty_store() -> (Arc<Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let memory = StoreOptions { block_cache_bytes: 1 << 20, write_buffer_bytes: 4 << 20 };
    (Arc::new(Store::open(folder.path(), memory).unwrap()), folder)
}

impl World {
    /// A log that begins.
    pub(crate) fn new() -> Self {
        let (store, folder) = empty_store();
        let projector = Projector::open(Arc::clone(&store)).unwrap();
        let mut world =
            Self { projector, reader: Reader::new(store), entries: Vec::new(), now_ms: 1_700_000_000_000, folder };
        let genesis = Genesis { log_id: Blob(vec![7; 16]), server_name: SERVER.into(), format: FORMAT };
        world.apply([genesis.into()]);
        world
    }

    /// Folds one record of these facts, one second after the one before.
    pub(crate) fn apply(&mut self, facts: impl IntoIterator<Item = Fact>) -> Lsn {
        self.fold(facts);
        self.projector.cursor().lsn
    }

    /// Like [`World::apply`], with a header that is not the usual.
    pub(crate) fn apply_as(&mut self, change: impl FnOnce(&mut Header), facts: impl IntoIterator<Item = Fact>) -> Lsn {
        self.try_fold_as(change, facts).unwrap().cursor.lsn
    }

    /// Like [`World::apply`], and says what that touched and cost.
    pub(crate) fn fold(&mut self, facts: impl IntoIterator<Item = Fact>) -> Applied {
        self.try_fold(facts).unwrap()
    }

    /// Like [`World::fold`]; a record that can't be folded leaves no trace.
    pub(crate) fn try_fold(&mut self, facts: impl IntoIterator<Item = Fact>) -> Result<Applied, FoldError> {
        self.try_fold_as(|_| {}, facts)
    }

    fn try_fold_as(
        &mut self,
        change: impl FnOnce(&mut Header),
        facts: impl IntoIterator<Item = Fact>,
    ) -> Result<Applied, FoldError> {
        self.now_ms += 1_000;
        let lsn = self.projector.cursor().lsn.next();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&lsn.to_bytes());
        let mut header = Header {
            format: FORMAT,
            id: RecordId(id),
            attempt: 0,
            copy: CopyId::default(),
            at_ms: self.now_ms,
            node: 0,
            origin: Origin::Server,
            cause: None,
            reads: Vec::new(),
            writes: Vec::new(),
            after: None,
        };
        change(&mut header);
        let facts = facts.into_iter().map(|fact| fact.encode()).collect();
        let bytes = schemas::Record { header, facts }.encode().unwrap();
        let entry = Entry { lsn, bytes: bytes.into(), amended: false };
        let applied = self.projector.apply(std::slice::from_ref(&entry), true)?;
        self.entries.push(entry);
        Ok(applied)
    }

    /// Folds models anew, and puts the new tables in place.
    pub(crate) fn rebuild(&mut self, models: &[Model]) {
        self.projector.drop_old_families().unwrap();
        let mut scratch = self.projector.rebuild(models).unwrap();
        for entries in self.entries.chunks(100) {
            scratch.apply(entries, false).unwrap();
        }
        self.projector.adopt(&scratch).unwrap();
    }

    /// Puts everything into tables, and those into the lowest level.
    pub(crate) fn compact(&self) {
        let generations = self.projector.store().generations().unwrap();
        let live = self.projector.store().live(&generations).unwrap();
        for family in live.families.iter() {
            self.projector.store().db().flush_cf(family).unwrap();
            self.projector.store().db().compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
        }
    }

    /// Says that another version folded a model.
    pub(crate) fn pretend_version(&mut self, model: Model, version: u16) {
        let store = self.projector.store();
        let mut generations = store.generations().unwrap();
        let older = Generation { version, ..generations.of(model).unwrap().clone() };
        store.create_family(&older.family()).unwrap();
        generations.set(model, older);
        store.commit(rocksdb::WriteBatch::default(), None, Some(&generations)).unwrap();
    }

    /// The log so far.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Lets time pass; log time follows with the next record, by at most ten minutes.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    /// Log time at the last record.
    pub(crate) fn log_time(&self) -> LogTime {
        self.projector.cursor().log_time
    }

    /// Where the tables are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Closes the store, and gives its folder.
    pub(crate) fn close(self) -> TempDir {
        self.folder
    }

    /// The tables as they are.
    pub(crate) fn view(&self) -> View {
        self.reader.view().unwrap()
    }

    /// Folds the whole log again, in batches of other sizes, and compares.
    pub(crate) fn check_replay(&self) {
        let expected = digest::all(&self.view()).unwrap();
        for size in [3, self.entries.len()] {
            let (store, _folder) = empty_store();
            let mut again = Projector::open(Arc::clone(&store)).unwrap();
            for entries in self.entries.chunks(size) {
                again.apply(entries, true).unwrap();
            }
            assert_eq!(again.cursor(), self.projector.cursor());
            let found = digest::all(&Reader::new(store).view().unwrap()).unwrap();
            assert_eq!(found, expected, "in batches of {size}");
        }
    }
}

/// People and a room for tests.
pub(crate) const ALICE: &str = "@alice:example.org";
pub(crate) const BOB: &str = "@bob:example.org";
pub(crate) const ROOM: &str = "!room:example.org";

/// A live event: a message by Alice, except for these fields. A state event also becomes current state.
pub(crate) fn live(id: &str, fields: &serde_json::Value) -> [Fact; 2] {
    let mut event = serde_json::json!({
        "auth_events": [], "content": {"body": "Hi", "msgtype": "m.text"}, "depth": 1, "hashes": {},
        "origin_server_ts": 1, "prev_events": [], "room_id": ROOM, "sender": ALICE, "signatures": {},
        "type": "m.room.message",
    });
    for (key, value) in fields.as_object().unwrap() {
        event[key] = value.clone();
    }
    let state_key = event["state_key"].as_str().map(ToOwned::to_owned);
    let change = |state_key| StateChange {
        event_type: event["type"].as_str().unwrap().to_owned(),
        state_key,
        event: Some(id.to_owned()),
    };
    let placed = EventPlaced {
        id: id.to_owned(),
        class: Placement::Live,
        verdict: Verdict::Accepted,
        state_before: None,
        current: state_key.map(change).into_iter().collect(),
        visibility: Visibility::Shared,
        servers: vec![],
        redacts: None,
    };
    let room = RoomId::parse(event["room_id"].as_str().unwrap()).unwrap();
    let event: CanonicalJsonObject = serde_json::from_value(event).unwrap();
    let id = EventId::parse(id).unwrap();
    let learned = pdu::learn(&id, &room, &event, &RedactionRules::V11, false).unwrap();
    [learned.into(), placed.into()]
}
