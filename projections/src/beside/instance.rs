//! One secondary instance, and when it may be trusted.
//!
//! A secondary instance has what the manifest says is in tables, and on top of that in memory what it has read of the
//! write-ahead logs. Two things keep it whole. A write-ahead log goes, and a table too, only after the manifest says what
//! stands for it: while the manifest stays as it is, nothing vanished in the midst of reading. And the write-ahead logs
//! must be read without a gap, or something stays in memory of which a later deletion was missed. They are closed once
//! the next one is there, and go in their order: so it is enough that the last one that was read is still there.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use rocksdb::{ColumnFamilyDescriptor, InfoLogger, LogLevel, Options};
use self_cell::self_cell;

use crate::{
    Cursor, Frozen, Generations, StoreError, StoreOptions,
    read::{Range, Read, Rows, Table},
    store::{self, Db, Families, bounds, meta_keys, read_meta, strip},
};

/// How often it is tried again where the writer moved files in between.
const ATTEMPTS: usize = 50;

/// The files on which it depends what an instance sees.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    /// Name and length: every change of the tables makes it longer, or another.
    manifest: (String, u64),
    /// The write-ahead logs' numbers.
    logs: BTreeSet<u64>,
}

impl Files {
    /// Those of a folder; none if there is no database.
    fn of(folder: &Path) -> Result<Option<Self>, StoreError> {
        let found = || -> io::Result<Self> {
            let name = fs::read_to_string(folder.join("CURRENT"))?;
            let length = fs::metadata(folder.join(name.trim_end()))?.len();
            let mut logs = BTreeSet::new();
            for file in fs::read_dir(folder)? {
                let path = file?.path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    logs.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()));
                }
            }
            Ok(Self { manifest: (name, length), logs })
        };
        match found() {
            Ok(files) => Ok(Some(files)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(source) => Err(StoreError::Files { folder: folder.to_owned(), source }),
        }
    }

    fn newest_log(&self) -> u64 {
        self.logs.last().copied().unwrap_or_default()
    }
}

pub(super) fn options(memory: StoreOptions) -> Options {
    let mut options = store::options(memory);
    options.create_if_missing(false);
    // Files that the writer deletes are still read through their open handles.
    options.set_max_open_files(-1);
    options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
    // It never writes: what it holds in memory is what the writer has not put into tables yet, spread over all models.
    options.set_write_buffer_size(2 << 20);
    options.set_arena_block_size(64 << 10);
    // Else it starts that many threads for each model whenever it catches up, which takes far longer than the rest.
    options.set_max_file_opening_threads(1);
    options
}

struct Tables<'a> {
    families: Families<'a>,
    generations: Generations,
}

self_cell!(
    struct Opened {
        owner: Db,
        #[covariant]
        dependent: Tables,
    }
);

/// See the module.
pub(super) struct Instance {
    folder: PathBuf,
    opened: Opened,
    cursor: Cursor,
    /// The write-ahead log from which on it has yet to read.
    reads_from: u64,
}

impl Instance {
    /// Opens one; none if there is no database.
    pub fn open(folder: &Path, options: &Options) -> Result<Option<Self>, StoreError> {
        let mut failure = StoreError::Restless;
        for _ in 0..ATTEMPTS {
            let Some(before) = Files::of(folder)? else { return Ok(None) };
            match open(folder, options) {
                Ok((opened, cursor)) => {
                    let after = Files::of(folder)?;
                    let folder = folder.to_owned();
                    let mut instance = Self { folder, opened, cursor, reads_from: before.newest_log() };
                    if after.is_some_and(|after| after.manifest == before.manifest) || instance.catch_up()? {
                        return Ok(Some(instance));
                    }
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Moves on to what the writer has committed by now. Says whether that went well: else it must not be read any more,
    /// and another has to be opened. Nobody may be reading.
    pub fn catch_up(&mut self) -> Result<bool, StoreError> {
        for _ in 0..ATTEMPTS {
            let Some(before) = Files::of(&self.folder)? else { return Ok(false) };
            if self.opened.borrow_owner().try_catch_up_with_primary().is_err() {
                return Ok(false);
            }
            let Some(after) = Files::of(&self.folder)? else { return Ok(false) };
            if !after.logs.contains(&self.reads_from) {
                return Ok(false);
            }
            self.reads_from = before.newest_log();
            if after.manifest == before.manifest {
                let (cursor, generations) = meta(self.opened.borrow_owner())?;
                self.cursor = cursor;
                // Other column families: it doesn't see those.
                return Ok(generations == self.opened.borrow_dependent().generations);
            }
        }
        Ok(false)
    }

    /// A RocksDB property summed over the column families.
    pub fn property(&self, name: &str) -> u64 {
        let db = self.opened.borrow_owner();
        let families = self.opened.borrow_dependent().families.iter();
        families.filter_map(|family| db.property_int_value_cf(family, name).ok().flatten()).sum()
    }
}

fn open(folder: &Path, options: &Options) -> Result<(Opened, Cursor), StoreError> {
    let names = Db::list_cf(options, folder)?;
    let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
    let db = Db::open_cf_descriptors_as_secondary(options, folder, folder, families)?;
    let (cursor, generations) = meta(&db)?;
    let opened = Opened::try_new(db, |db| {
        let families = Families::find(db, &generations)?;
        Ok::<_, StoreError>(Tables { families, generations })
    })?;
    Ok((opened, cursor))
}

fn meta(db: &Db) -> Result<(Cursor, Generations), StoreError> {
    let (cursor, generations) = meta_keys();
    Ok((read_meta(db.get(cursor)?)?, read_meta(db.get(generations)?)?))
}

impl Frozen for Instance {
    fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    fn generations(&self) -> &Generations {
        &self.opened.borrow_dependent().generations
    }
}

impl Read for Instance {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let family = self.opened.borrow_dependent().families.of(table.model)?;
        Ok(self.opened.borrow_owner().get_cf(family, table.key(key))?)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        match self.opened.borrow_dependent().families.of(table.model) {
            Ok(family) => {
                let (options, start) = bounds(table, &range);
                Box::new(strip(self.opened.borrow_owner().iterator_cf_opt(family, options, start.as_mode())))
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}
