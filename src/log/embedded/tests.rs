//! What is particular to this backend: recovery, damage, failing disks, other processes.

mod crash;
mod damage;
mod disk;
mod gaps;
mod readers;

use tempfile::TempDir;

use super::*;
use crate::log::conformance::{Backend, conformance};

struct Place(TempDir);

impl Backend for Place {
    const REOPENS: bool = true;
    const SEVERAL_HANDLES: bool = false;

    fn fresh() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn open(&self) -> Arc<dyn Log> {
        Arc::new(open(self.0.path()))
    }
}

conformance!(conforms, super::Place);

fn open(folder: &Path) -> EmbeddedLog {
    EmbeddedLog::create_or_open(folder, EmbeddedOptions::default()).unwrap()
}

/// The files of a log as they are at this moment.
fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
