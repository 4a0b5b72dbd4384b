use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::FutureExt;
use projections::{Cursor, Source, StoreError, View};
use schemas::Lsn;
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::watch};

use super::*;
use crate::{
    clock::{SimulatedClock, SimulatedRandom},
    fold::{Progress, RebuildError, Rebuilds},
    log::{
        EmbeddedLog, EmbeddedOptions, Log,
        conformance::{Backend, conformance},
    },
    snapshot::Snapshots,
};

struct Nothing;

impl Source for Nothing {
    fn view(&self) -> Result<View, StoreError> {
        Ok(View::empty())
    }
}

/// A projector that folds nothing; each handle of its log is another process'.
struct Place {
    runtime: Runtime,
    data: TempDir,
    links: Mutex<Vec<Link>>,
    _hub: Hub,
    _rebuilding: watch::Sender<Option<Lsn>>,
}

impl Backend for Place {
    const REOPENS: bool = true;
    const SEVERAL_HANDLES: bool = true;
    const CASES: u32 = 8;

    fn fresh() -> Self {
        let (runtime, data) = (Runtime::new().unwrap(), TempDir::new().unwrap());
        let log = EmbeddedLog::create_or_open(&data.path().join("log"), EmbeddedOptions::default()).unwrap();
        let (rebuilding, at) = watch::channel(None);
        let hub = runtime.block_on(async {
            Hub::start(Projecting {
                folder: data.path().to_owned(),
                log: Arc::new(log),
                progress: Arc::new(Progress::new(Arc::new(Nothing), Cursor::default())),
                rebuilds: Rebuilds::new(at, |_| futures::future::ready(Err(RebuildError::Stopped)).boxed()),
                snapshots: Snapshots::none(),
                server_name: "a.example".into(),
                clock: Arc::new(SimulatedClock::at(1)),
                random: Arc::new(SimulatedRandom::seeded(1)),
            })
        });
        Self { runtime, data, links: Mutex::default(), _hub: hub.unwrap(), _rebuilding: rebuilding }
    }

    fn open(&self) -> Arc<dyn Log> {
        let link = self.runtime.block_on(Link::connect(self.data.path(), 0, Duration::from_secs(5))).unwrap();
        let log = link.log(self.data.path().join("log"));
        self.links.lock().unwrap().push(link);
        Arc::new(log)
    }
}

#[test]
fn projectors_on_many_machines_give_no_number_twice() {
    let numbers: BTreeSet<_> =
        (0..2_000).filter_map(|seed| hub::number(&SimulatedRandom::seeded(seed), |_| false)).collect();
    assert_eq!(numbers.len(), 2_000);
    let free = |number| hub::number(&SimulatedRandom::seeded(1), |taken| taken == number);
    assert_ne!(free(0), free(free(0).unwrap()), "on one machine it is made sure");
}

conformance!(conforms, super::Place);
