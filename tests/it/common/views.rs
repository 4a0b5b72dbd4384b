use std::sync::{Arc, Mutex};

use projections::{Source, StoreError, View};

/// Shows the read models as they are, until the test chooses what is seen: they then change in the midst of a response,
/// whenever it wants.
#[derive(Default)]
pub struct Shifting(Mutex<Option<Chosen>>);

struct Chosen {
    before: View,
    after: View,
    /// So many looks show what was before.
    looks: usize,
    /// So many there were.
    taken: usize,
}

impl Shifting {
    /// Stands before a server's read models.
    pub fn over(self: Arc<Self>, source: Arc<dyn Source>) -> Arc<dyn Source> {
        Arc::new(Over { source, shifting: self })
    }

    /// The next looks show one view, and all that follow another.
    pub fn choose(&self, before: &View, looks: usize, after: &View) {
        let chosen = Chosen { before: before.clone(), after: after.clone(), looks, taken: 0 };
        *self.0.lock().unwrap() = Some(chosen);
    }

    /// Shows the read models as they are again, and says how many looks there were since it was chosen.
    pub fn end(&self) -> usize {
        self.0.lock().unwrap().take().map_or(0, |chosen| chosen.taken)
    }
}

struct Over {
    source: Arc<dyn Source>,
    shifting: Arc<Shifting>,
}

impl Source for Over {
    fn view(&self) -> Result<View, StoreError> {
        if let Some(chosen) = &mut *self.shifting.0.lock().unwrap() {
            chosen.taken += 1;
            let is_before = chosen.taken <= chosen.looks;
            return Ok(if is_before { chosen.before.clone() } else { chosen.after.clone() });
        }
        self.source.view()
    }
}
