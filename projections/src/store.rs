use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBWithThreadMode, IteratorMode, MultiThreaded,
    Options, ReadOptions, WriteBatch, WriteOptions, checkpoint::Checkpoint,
};
use schemas::{Blob, Chain, LogTime, Lsn, codec};
use serde::{Deserialize, Serialize};

use crate::{
    Model, StoreError, models,
    read::{Range, Read, Rows, Table},
};

/// RocksDB with column families that come and go while it is open.
pub(crate) type Db = DBWithThreadMode<MultiThreaded>;

const CURSOR: &[u8] = b"cursor";
const GENERATIONS: &[u8] = b"generations";
const MAX_WAL_BYTES: u64 = 256 << 20;

/// How far the read models have folded, and of which log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The log's id; empty before `Genesis`.
    pub log_id: Blob,
    /// The last folded record.
    pub lsn: Lsn,
    /// The chain's value there.
    pub chain: Chain,
    /// The chain's value one record before: with it, the record at the cursor can be checked without the rest.
    pub chain_before: Chain,
    /// Log time there.
    pub log_time: LogTime,
    /// How many records were folded.
    pub records: u64,
}

/// Which version of each model stands in which column family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generations(Vec<Generation>);

/// One model's tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The model's name.
    pub model: String,
    /// The version of its fold.
    pub version: u16,
    /// Rises with every rebuild.
    pub generation: u32,
}

impl Generation {
    /// The column family's name.
    #[must_use]
    pub fn family(&self) -> String {
        format!("{}@{}.{}", self.model, self.version, self.generation)
    }
}

impl Generations {
    /// The generation of a model.
    #[must_use]
    pub fn of(&self, model: Model) -> Option<&Generation> {
        // The list is in the models' order, but an older store may lack some of them.
        let name = model.name();
        self.0.get(model as usize).filter(|g| g.model == name).or_else(|| self.0.iter().find(|g| g.model == name))
    }

    /// Puts a generation in its model's place.
    pub fn set(&mut self, model: Model, generation: Generation) {
        self.0.retain(|g| g.model != model.name());
        let at = self.0.iter().position(|g| Model::named(&g.model).is_none_or(|m| m > model)).unwrap_or(self.0.len());
        self.0.insert(at, generation);
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Generation> {
        self.0.iter()
    }
}

/// How much memory RocksDB may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// For blocks of table files, bytes.
    pub block_cache_bytes: usize,
    /// For all write buffers together, bytes.
    pub write_buffer_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { block_cache_bytes: 256 << 20, write_buffer_bytes: 128 << 20 }
    }
}

/// The read models' RocksDB.
pub struct Store {
    db: Arc<Db>,
    options: Options,
    /// RocksDB doesn't tell which column families are open.
    families: Mutex<BTreeSet<String>>,
}

impl Store {
    /// Opens the read models in a folder, which is made if it isn't there.
    ///
    /// # Errors
    /// When RocksDB can't open it; [`Store::is_damaged`] tells whether setting it aside would help.
    pub fn open(path: &Path, memory: StoreOptions) -> Result<Self, StoreError> {
        let options = options(memory);
        let names = match Db::list_cf(&options, path) {
            Ok(names) => names,
            Err(_) if !path.join("CURRENT").exists() => vec![rocksdb::DEFAULT_COLUMN_FAMILY_NAME.to_owned()],
            Err(error) => return Err(error.into()),
        };
        let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = Db::open_cf_descriptors(&options, path, families)?;
        let families = names.into_iter().filter(|name| name != rocksdb::DEFAULT_COLUMN_FAMILY_NAME).collect();
        Ok(Self { db: Arc::new(db), options, families: Mutex::new(families) })
    }

    /// Whether an error of [`Store::open`] means damage rather than, say, a lock or a lack of rights.
    #[must_use]
    pub fn is_damaged(error: &StoreError) -> bool {
        matches!(error, StoreError::Rocks(error) if error.kind() == rocksdb::ErrorKind::Corruption)
    }

    /// Whether an error of [`Store::open`] means that another process has it open.
    #[must_use]
    pub fn is_locked(error: &StoreError) -> bool {
        matches!(error, StoreError::Rocks(error) if error.kind() == rocksdb::ErrorKind::IOError && error.as_ref().contains("LOCK"))
    }

    pub(crate) fn db(&self) -> &Arc<Db> {
        &self.db
    }

    /// How far the fold has come.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cursor(&self) -> Result<Cursor, StoreError> {
        read_meta(self.db.get(CURSOR)?)
    }

    /// Which column family holds which model.
    ///
    /// # Errors
    /// When the store fails.
    pub fn generations(&self) -> Result<Generations, StoreError> {
        read_meta(self.db.get(GENERATIONS)?)
    }

    fn families(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an empty column family; one of that name is what a rebuild left that did not finish.
    ///
    /// # Errors
    /// When RocksDB can't.
    pub fn create_family(&self, name: &str) -> Result<(), StoreError> {
        let mut families = self.families();
        if families.remove(name) {
            self.db.drop_cf(name)?;
        }
        self.db.create_cf(name, &self.options)?;
        families.insert(name.to_owned());
        Ok(())
    }

    /// Drops every column family that no generation names; views that still read one keep it.
    ///
    /// # Errors
    /// When RocksDB can't.
    pub fn drop_unnamed_families(&self, generations: &Generations) -> Result<(), StoreError> {
        let named: BTreeSet<String> = generations.iter().map(Generation::family).collect();
        let mut families = self.families();
        let unnamed: Vec<String> = families.difference(&named).cloned().collect();
        for name in unnamed {
            self.db.drop_cf(&name)?;
            families.remove(&name);
        }
        Ok(())
    }

    /// Commits changes together with the cursor and the generations. The write-ahead log is not synced: the log is
    /// what is durable.
    ///
    /// # Errors
    /// When RocksDB can't.
    pub fn commit(
        &self,
        mut batch: WriteBatch,
        cursor: Option<&Cursor>,
        generations: Option<&Generations>,
    ) -> Result<(), StoreError> {
        if let Some(cursor) = cursor {
            batch.put(CURSOR, codec::encode(cursor));
        }
        if let Some(generations) = generations {
            batch.put(GENERATIONS, codec::encode(generations));
        }
        let mut options = WriteOptions::default();
        options.set_sync(false);
        Ok(self.db.write_opt(batch, &options)?)
    }

    /// Makes a copy, as of one record, in a folder that isn't there yet: tables are linked where that is possible.
    ///
    /// # Errors
    /// When RocksDB can't.
    pub fn checkpoint(&self, into: &Path) -> Result<(), StoreError> {
        Ok(Checkpoint::new(&self.db)?.create_checkpoint(into)?)
    }

    /// Writes out what is in memory, so that the next start has little to recover.
    ///
    /// # Errors
    /// When RocksDB can't.
    pub fn flush(&self) -> Result<(), StoreError> {
        Ok(self.db.flush_wal(true)?)
    }

    /// A RocksDB property summed over the column families, such as `rocksdb.estimate-live-data-size`.
    #[must_use]
    pub fn property(&self, name: &str) -> u64 {
        let families = self.families();
        let handles = families.iter().filter_map(|family| self.db.cf_handle(family));
        let figures = handles.filter_map(|family| self.db.property_int_value_cf(&family, name).ok().flatten());
        // One block cache serves all.
        if name.starts_with("rocksdb.block-cache") { figures.max().unwrap_or_default() } else { figures.sum() }
    }

    /// The tables as they are now.
    ///
    /// # Errors
    /// When a column family is not there.
    pub(crate) fn live(&self, generations: &Generations) -> Result<Live<'_>, StoreError> {
        Ok(Live { db: &self.db, families: Families::find(&self.db, generations)? })
    }
}

/// The models' column families, found once: RocksDB finds them by name, which is dear at every read. Whoever holds one
/// can read it after it was dropped.
pub(crate) struct Families<'a>(Vec<Option<Arc<BoundColumnFamily<'a>>>>);

impl<'a> Families<'a> {
    /// Finds them.
    ///
    /// # Errors
    /// When one that is named is not there (any more).
    pub(crate) fn find(db: &'a Db, generations: &Generations) -> Result<Self, StoreError> {
        let find = |generation: &Generation| {
            let name = generation.family();
            db.cf_handle(&name).ok_or(StoreError::NoFamily(name))
        };
        models::ALL.iter().map(|p| generations.of(p.model).map(find).transpose()).collect::<Result<_, _>>().map(Self)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<BoundColumnFamily<'a>>> {
        self.0.iter().flatten()
    }

    /// A model's.
    ///
    /// # Errors
    /// When the model has none: its version is newer than the store.
    pub(crate) fn of(&self, model: Model) -> Result<&Arc<BoundColumnFamily<'a>>, StoreError> {
        let family = self.0.get(model as usize).and_then(Option::as_ref);
        family.ok_or_else(|| StoreError::NoFamily(model.name().into()))
    }
}

/// The tables as they are now. Only the projector, their one writer, may rely on what it sees here.
pub(crate) struct Live<'a> {
    db: &'a Db,
    /// Where to read, and to write.
    pub(crate) families: Families<'a>,
}

impl Read for Live<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(self.families.of(table.model)?, table.key(key))?)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        match self.families.of(table.model) {
            Ok(family) => {
                let (options, start) = bounds(table, &range);
                Box::new(strip(self.db.iterator_cf_opt(family, options, start.as_mode())))
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

pub(crate) fn options(memory: StoreOptions) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_max_total_wal_size(MAX_WAL_BYTES);
    options.set_db_write_buffer_size(memory.write_buffer_bytes);
    options.set_keep_log_file_num(4);
    options.set_max_open_files(512);
    options.increase_parallelism(2);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(memory.block_cache_bytes));
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_block_size(16 << 10);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_write_buffer_size(16 << 20);
    // Most look-ups are for what is not there, or not there yet: a filter over what is in memory answers those.
    options.set_memtable_prefix_bloom_ratio(0.1);
    options.set_memtable_whole_key_filtering(true);
    options
}

pub(crate) fn read_meta<T: Default + serde::de::DeserializeOwned>(bytes: Option<Vec<u8>>) -> Result<T, StoreError> {
    let table = || "cursor and generations".to_owned();
    match bytes {
        Some(bytes) => codec::decode(&bytes).map_err(|source| StoreError::Row { table: table(), source }),
        None => Ok(T::default()),
    }
}

pub(crate) const fn meta_keys() -> (&'static [u8], &'static [u8]) {
    (CURSOR, GENERATIONS)
}

/// Where an iterator starts; it owns the key.
pub(crate) enum Start {
    Lowest,
    Highest,
}

impl Start {
    pub(crate) const fn as_mode(&self) -> IteratorMode<'static> {
        match self {
            Self::Lowest => IteratorMode::Start,
            Self::Highest => IteratorMode::End,
        }
    }
}

/// The iterator's bounds, so that RocksDB itself never looks beyond the range.
pub(crate) fn bounds(table: Table, range: &Range) -> (ReadOptions, Start) {
    let mut options = ReadOptions::default();
    let (from, to) = table.bounds(range);
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    (options, if range.reverse { Start::Highest } else { Start::Lowest })
}

pub(crate) fn strip<'a>(
    rows: impl Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>> + 'a,
) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), StoreError>> + 'a {
    rows.map(|row| {
        let (key, value) = row?;
        Ok((key[1..].to_vec(), value.into_vec()))
    })
}
