use std::sync::{Arc, PoisonError, RwLock};

use rocksdb::SnapshotWithThreadMode;
use schemas::{LogTime, Lsn};
use self_cell::self_cell;

use crate::{
    Cursor, Generations, Store, StoreError,
    read::{Range, Read, Rows, Table},
    store::{Db, Families, bounds, meta_keys, read_meta, strip},
};

/// Where views come from. A trait, because a process beside the projector reads through a secondary instance, which
/// has no snapshots.
pub trait Source: Send + Sync {
    /// All tables as of one position.
    ///
    /// # Errors
    /// When the store fails.
    fn view(&self) -> Result<View, StoreError>;

    /// A figure of the database, by RocksDB's name for it, such as `rocksdb.estimate-live-data-size`, summed over the
    /// column families; none if views come from no database of their own.
    fn property(&self, _name: &str) -> Option<u64> {
        None
    }
}

/// One consistent state of all tables, and its position. Every decision and every response reads from one.
#[derive(Clone)]
pub struct View(Arc<dyn Frozen>);

/// Tables that don't change any more.
pub trait Frozen: Read + Send + Sync {
    /// The position.
    fn cursor(&self) -> &Cursor;

    /// Which column families are read.
    fn generations(&self) -> &Generations;
}

impl View {
    /// Wraps what another kind of store gives.
    #[must_use]
    pub fn new(frozen: Arc<dyn Frozen>) -> Self {
        Self(frozen)
    }

    /// The last record that is folded into this view.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.0.cursor().lsn
    }

    /// Log time at that record.
    #[must_use]
    pub fn log_time(&self) -> LogTime {
        self.0.cursor().log_time
    }

    /// The whole cursor.
    #[must_use]
    pub fn cursor(&self) -> &Cursor {
        self.0.cursor()
    }

    /// Which generation of each model it reads.
    #[must_use]
    pub fn generations(&self) -> &Generations {
        self.0.generations()
    }
}

impl Read for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        self.0.scan(table, range)
    }
}

struct Snapshot<'a> {
    rows: SnapshotWithThreadMode<'a, Db>,
    families: Families<'a>,
    cursor: Cursor,
    generations: Arc<Generations>,
}

self_cell!(
    struct SnapshotView {
        owner: Arc<Db>,
        #[covariant]
        dependent: Snapshot,
    }
);

impl Frozen for SnapshotView {
    fn cursor(&self) -> &Cursor {
        &self.borrow_dependent().cursor
    }

    fn generations(&self) -> &Generations {
        &self.borrow_dependent().generations
    }
}

impl Read for SnapshotView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Snapshot { rows, families, .. } = self.borrow_dependent();
        Ok(rows.get_cf(families.of(table.model)?, table.key(key))?)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        let Snapshot { rows, families, .. } = self.borrow_dependent();
        match families.of(table.model) {
            Ok(family) => {
                let (options, start) = bounds(table, &range);
                Box::new(strip(rows.iterator_cf_opt(family, options, start.as_mode())))
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

/// Views of the store that this process' projector writes.
pub struct Reader {
    store: Arc<Store>,
    /// The generations' bytes and their decoded form: they change only when a model is rebuilt.
    decoded: RwLock<(Vec<u8>, Arc<Generations>)>,
}

impl Reader {
    /// Reads from a store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, decoded: RwLock::new((Vec::new(), Arc::default())) }
    }

    fn generations(&self, bytes: Option<Vec<u8>>) -> Result<Arc<Generations>, StoreError> {
        let bytes = bytes.unwrap_or_default();
        {
            let decoded = self.decoded.read().unwrap_or_else(PoisonError::into_inner);
            if decoded.0 == bytes {
                return Ok(Arc::clone(&decoded.1));
            }
        }
        let generations: Arc<Generations> = Arc::new(read_meta(Some(bytes.clone()).filter(|b| !b.is_empty()))?);
        *self.decoded.write().unwrap_or_else(PoisonError::into_inner) = (bytes, Arc::clone(&generations));
        Ok(generations)
    }

    fn snapshot<'a>(&self, db: &'a Db) -> Result<Snapshot<'a>, StoreError> {
        let rows = db.snapshot();
        let (cursor, generations) = meta_keys();
        let cursor = read_meta(rows.get(cursor)?)?;
        let generations = self.generations(rows.get(generations)?)?;
        Ok(Snapshot { families: Families::find(db, &generations)?, rows, cursor, generations })
    }
}

impl Source for Reader {
    fn view(&self) -> Result<View, StoreError> {
        let view = || SnapshotView::try_new(Arc::clone(self.store.db()), |db| self.snapshot(db));
        // A rebuild may have replaced a column family and dropped the former one since the snapshot.
        let view = match view() {
            Err(StoreError::NoFamily(_)) => view()?,
            view => view?,
        };
        Ok(View(Arc::new(view)))
    }

    fn property(&self, name: &str) -> Option<u64> {
        Some(self.store.property(name))
    }
}
