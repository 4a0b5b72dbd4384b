//! The read models as a process sees them that does not fold them: through a RocksDB secondary instance, which has no
//! snapshots, but stands still where it was opened.

use std::{fs, path::Path, sync::Arc};

use rocksdb::{ColumnFamilyDescriptor, InfoLogger, LogLevel};
use self_cell::self_cell;

use crate::{
    Cursor, Frozen, Generations, StoreError, StoreOptions, View,
    read::{Range, Read, Rows, Table},
    store::{Db, Families, bounds, meta_keys, options, read_meta, strip},
};

/// How often it is tried again where the writer moved files in between.
const ATTEMPTS: usize = 50;
const MEMORY: StoreOptions = StoreOptions { block_cache_bytes: 32 << 20, write_buffer_bytes: 16 << 20 };

impl View {
    /// The read models in a folder as they are now, also while another process folds into them, which is not disturbed;
    /// none if there are none.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn beside(folder: &Path) -> Result<Option<Self>, StoreError> {
        let mut failure = StoreError::Restless;
        for _ in 0..ATTEMPTS {
            let Some(before) = manifest(folder) else { return Ok(None) };
            match Secondary::open(folder) {
                // A write-ahead log goes only after the manifest says that its rows are in tables. While the manifest
                // stays as it is, all that was read belongs together.
                Ok(secondary) if manifest(folder).as_ref() == Some(&before) => {
                    return Ok(Some(Self::new(Arc::new(secondary))));
                }
                Ok(_) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Before the first record: tables without rows.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Arc::new(Nothing { cursor: Cursor::default(), generations: Generations::default() }))
    }
}

/// The manifest's name and length: every change of the files that count makes it longer, or another.
fn manifest(folder: &Path) -> Option<(String, u64)> {
    let name = fs::read_to_string(folder.join("CURRENT")).ok()?;
    let length = fs::metadata(folder.join(name.trim_end())).ok()?.len();
    Some((name, length))
}

struct Tables<'a> {
    families: Families<'a>,
    cursor: Cursor,
    generations: Generations,
}

self_cell!(
    struct Secondary {
        owner: Db,
        #[covariant]
        dependent: Tables,
    }
);

impl Secondary {
    fn open(folder: &Path) -> Result<Self, StoreError> {
        let mut options = options(MEMORY);
        options.create_if_missing(false);
        // Files that the writer deletes are still read through their open handles.
        options.set_max_open_files(-1);
        options.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Fatal, |_, _| {}));
        let names = Db::list_cf(&options, folder)?;
        let families = names.iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = Db::open_cf_descriptors_as_secondary(&options, folder, folder, families)?;
        Self::try_new(db, |db| {
            let (cursor, generations) = meta_keys();
            let (cursor, generations) = (read_meta(db.get(cursor)?)?, read_meta(db.get(generations)?)?);
            Ok(Tables { families: Families::find(db, &generations)?, cursor, generations })
        })
    }
}

impl Frozen for Secondary {
    fn cursor(&self) -> &Cursor {
        &self.borrow_dependent().cursor
    }

    fn generations(&self) -> &Generations {
        &self.borrow_dependent().generations
    }
}

impl Read for Secondary {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.borrow_owner().get_cf(self.borrow_dependent().families.of(table.model)?, table.key(key))?)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        match self.borrow_dependent().families.of(table.model) {
            Ok(family) => {
                let (options, start) = bounds(table, &range);
                Box::new(strip(self.borrow_owner().iterator_cf_opt(family, options, start.as_mode())))
            }
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

struct Nothing {
    cursor: Cursor,
    generations: Generations,
}

impl Frozen for Nothing {
    fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    fn generations(&self) -> &Generations {
        &self.generations
    }
}

impl Read for Nothing {
    fn get(&self, _: Table, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn scan(&self, _: Table, _: Range) -> Rows<'_> {
        Box::new(std::iter::empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use schemas::{Json, Lsn, facts::ProfileFieldSet};
    use tempfile::TempDir;

    use super::*;
    use crate::{digest, models::profiles, testing::World};

    fn name(n: u64) -> ProfileFieldSet {
        let value = Some(Json::from(format!("\"{n} {}\"", "x".repeat(30_000))));
        ProfileFieldSet { user: "@alice:example.org".into(), field: "displayname".into(), value }
    }

    #[test]
    fn there_may_be_nothing() {
        let folder = TempDir::new().unwrap();
        assert!(View::beside(folder.path()).unwrap().is_none());
        assert!(View::beside(&folder.path().join("none")).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "looking leaves nothing behind");
        let empty = View::empty();
        assert_eq!(
            (empty.lsn(), profiles::field(&empty, "@alice:example.org", "displayname").unwrap()),
            (Lsn::ZERO, None)
        );
    }

    #[test]
    fn a_view_beside_is_the_writers_and_stands_still() {
        let mut world = World::new();
        world.apply([name(0).into()]);
        let beside = View::beside(world.folder()).unwrap().unwrap();
        let expected = digest::all(&world.view()).unwrap();
        assert_eq!((beside.cursor(), digest::all(&beside).unwrap()), (world.view().cursor(), expected.clone()));
        world.apply([name(1).into()]);
        assert_eq!(digest::all(&beside).unwrap(), expected);
        let later = View::beside(world.folder()).unwrap().unwrap();
        assert_eq!(
            (later.lsn(), digest::all(&later).unwrap()),
            (world.view().lsn(), digest::all(&world.view()).unwrap())
        );
    }

    #[test]
    fn looking_leaves_nothing_behind() {
        let mut world = World::new();
        world.apply([name(0).into()]);
        // No writer any more that would make and delete files itself.
        let folder = world.close();
        let files =
            || fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect::<BTreeSet<_>>();
        let before = files();
        drop(View::beside(folder.path()).unwrap().unwrap());
        assert_eq!(files(), before);
    }

    /// The rows are large, so that the writer makes tables and deletes files meanwhile.
    #[test]
    fn a_view_beside_a_busy_writer_is_whole() {
        let mut world = World::new();
        let folder = world.folder().to_owned();
        let last = Lsn(1_500);
        std::thread::scope(|scope| {
            scope.spawn(|| (2..=last.0).for_each(|n| drop(world.fold([name(n).into()]))));
            loop {
                let view = match View::beside(&folder) {
                    Ok(view) => view.unwrap(),
                    // The writer was quicker every time.
                    Err(StoreError::Restless) => continue,
                    Err(error) => panic!("{error}"),
                };
                let field = profiles::field(&view, "@alice:example.org", "displayname").unwrap();
                match field {
                    Some(field) => assert!(field.as_str().starts_with(&format!("\"{} ", view.lsn())), "{}", view.lsn()),
                    None => assert!(view.lsn() <= Lsn::FIRST),
                }
                if view.lsn() == last {
                    break;
                }
            }
        });
    }
}
