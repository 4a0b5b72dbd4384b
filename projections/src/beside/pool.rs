use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rocksdb::Options;

use super::instance::{self, Instance};
use crate::{
    Cursor, Frozen, Generations, Projection, Source, StoreError, StoreOptions, View, models,
    read::{Range, Read, Rows, Table},
};

/// So many instances there are at most: those that views hold on to, and one that moves.
const INSTANCES: usize = 8;

/// Views of read models that another process folds into.
///
/// A view pins a secondary instance, which is not moved as long as anybody has the view. So there are several: one that
/// new views are of, and others that views still pin, or that are free to be moved next.
pub struct Beside {
    folder: PathBuf,
    options: Options,
    shown: Arc<Shown>,
    /// In the order in which they were shown, the last one last.
    instances: Vec<Held>,
    /// Rises when all instances are given up.
    era: u64,
}

struct Held {
    instance: Arc<Instance>,
    era: u64,
    /// Whether it was shown since it was last asked for idle ones.
    used: bool,
}

/// What new views are of.
struct Shown {
    current: RwLock<Arc<Pinned>>,
    freed: Arc<dyn Fn() + Send + Sync>,
}

/// A hold on an instance.
struct Pinned {
    instance: Arc<Instance>,
    // Dropped after it: the instance is free then.
    _freed: Freed,
}

struct Freed(Arc<dyn Fn() + Send + Sync>);

impl Drop for Freed {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Beside {
    /// Opens the read models in a folder; none if there are none. `freed` is called whenever an instance may have become
    /// free to move; it must be quick.
    ///
    /// # Errors
    /// When they can't be read, or another version of Everfold folds them.
    pub fn open(
        folder: &Path,
        memory: StoreOptions,
        freed: Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Option<Self>, StoreError> {
        let options = instance::options(memory);
        let Some(instance) = Instance::open(folder, &options)? else { return Ok(None) };
        check_version(&instance)?;
        let instance = Arc::new(instance);
        let current = RwLock::new(Arc::new(Pinned::new(&instance, &freed)));
        let shown = Arc::new(Shown { current, freed });
        let instances = vec![Held { instance, era: 0, used: true }];
        Ok(Some(Self { folder: folder.to_owned(), options, shown, instances, era: 0 }))
    }

    /// Where views come from: each is as new as the last call of [`Beside::advance`] made it.
    #[must_use]
    pub fn source(&self) -> Arc<dyn Source> {
        Arc::clone(&self.shown) as Arc<dyn Source>
    }

    /// Lets new views be of what is folded by now. False if views pin all instances there may be: then it is to be tried
    /// again once one is free.
    ///
    /// # Errors
    /// When the read models can't be read, or another version of Everfold folds them; views are as before then.
    pub fn advance(&mut self) -> Result<bool, StoreError> {
        // The one that was shown last has the least to catch up with.
        let free = self.instances.iter_mut().rposition(|held| Arc::get_mut(&mut held.instance).is_some());
        if let Some(at) = free {
            let mut held = self.instances.remove(at);
            let moved = match Arc::get_mut(&mut held.instance) {
                Some(instance) if held.era == self.era => instance.catch_up()?,
                _ => false,
            };
            if moved {
                self.show(held.instance);
                return Ok(true);
            }
        } else if self.instances.len() >= INSTANCES {
            return Ok(false);
        }
        let opened = Instance::open(&self.folder, &self.options)?.ok_or(StoreError::Restless)?;
        check_version(&opened)?;
        self.show(Arc::new(opened));
        Ok(true)
    }

    fn show(&mut self, instance: Arc<Instance>) {
        let pinned = Arc::new(Pinned::new(&instance, &self.shown.freed));
        self.instances.push(Held { instance, era: self.era, used: true });
        let mut current = self.shown.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *current, pinned);
        drop(current);
        drop(before);
    }

    /// Gives up all instances: none is moved any more, and the next advance opens a new one. For when another process has
    /// begun to write, or the folder may be another.
    pub const fn renew(&mut self) {
        self.era += 1;
    }

    /// Closes instances that nobody has needed since the last call, all but one. To be called now and then.
    pub fn close_idle(&mut self) {
        let mut spare = true;
        self.instances.retain_mut(|held| {
            let idle = !std::mem::take(&mut held.used) && Arc::get_mut(&mut held.instance).is_some();
            !idle || std::mem::take(&mut spare)
        });
    }

    /// How many instances are open.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.instances.len()
    }
}

/// Tables of another version would be misread.
fn check_version(instance: &Instance) -> Result<(), StoreError> {
    let generations = instance.generations();
    let fits = |p: &&&Projection| generations.of(p.model).is_some_and(|g| g.version == p.version);
    match models::ALL.iter().find(|p| !fits(p)) {
        Some(projection) => Err(StoreError::OtherVersion(projection.model.name())),
        None => Ok(()),
    }
}

impl Source for Shown {
    fn view(&self) -> Result<View, StoreError> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Ok(View::new(Arc::clone(&*current) as Arc<dyn Frozen>))
    }

    fn property(&self, name: &str) -> Option<u64> {
        let current = Arc::clone(&*self.current.read().unwrap_or_else(PoisonError::into_inner));
        Some(current.instance.property(name))
    }
}

impl Pinned {
    fn new(instance: &Arc<Instance>, freed: &Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { instance: Arc::clone(instance), _freed: Freed(Arc::clone(freed)) }
    }
}

impl Frozen for Pinned {
    fn cursor(&self) -> &Cursor {
        self.instance.cursor()
    }

    fn generations(&self) -> &Generations {
        self.instance.generations()
    }
}

impl Read for Pinned {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.instance.get(table, key)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        self.instance.scan(table, range)
    }
}
