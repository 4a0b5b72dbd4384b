//! The read models as a process sees them that does not fold them: through RocksDB secondary instances, which have no
//! snapshots, but stand still until they are moved.

mod instance;
mod pool;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use instance::Instance;
pub use pool::Beside;

use crate::{
    Cursor, Frozen, Generations, StoreError, StoreOptions, View,
    read::{Range, Read, Rows, Table},
};

const MEMORY: StoreOptions = StoreOptions { block_cache_bytes: 32 << 20, write_buffer_bytes: 16 << 20 };

impl View {
    /// The read models in a folder as they are now, also while another process folds into them, which is not disturbed;
    /// none if there are none.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn beside(folder: &Path) -> Result<Option<Self>, StoreError> {
        let opened = Instance::open(folder, &instance::options(MEMORY))?;
        Ok(opened.map(|instance| Self::new(Arc::new(instance))))
    }

    /// Before the first record: tables without rows.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Arc::new(Nothing { cursor: Cursor::default(), generations: Generations::default() }))
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
