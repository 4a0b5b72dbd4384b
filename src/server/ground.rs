//! What a server stands on: its log, and the read models folded from it.

use std::{
    cell::Cell,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use projections::{Beside, Source, Store, StoreOptions};
use ruma::OwnedServerName;
use schemas::Lsn;

use super::{StartError, World, io};
use crate::{
    clock::{Clock, StoppedClock},
    commands::{self, FoundingError},
    config::{Backend, Config},
    fold::{self, Driver, Progress, Rebuilds, Replayed},
    log::{
        FrozenLog, KafkaLog, Log, LogReader,
        embedded::{EmbeddedLog, EmbeddedOptions, Observer},
    },
    metrics::Metrics,
    processes::Link,
    snapshot::{self, Snapshots},
};

/// A projector that is about to start is waited for so long.
const PROJECTOR_WITHIN: Duration = Duration::from_secs(5);

/// What a server stands on.
pub(super) struct Ground {
    pub log: Arc<dyn Log>,
    /// None where another process folds, or nobody.
    pub driver: Option<Driver>,
    pub source: Arc<dyn Source>,
    pub progress: Arc<Progress>,
    /// The way to fold models anew.
    pub rebuilds: Rebuilds,
    /// The way to make snapshots.
    pub snapshots: Snapshots,
    /// The projector, where this process doesn't fold.
    pub link: Option<Link>,
    /// What is shown is history up to here.
    pub read_only: Option<Lsn>,
}

/// Opens the log, writes its first record if it is empty, and folds it to its end.
pub(super) async fn open(config: &Config, world: &World, metrics: &Arc<Metrics>) -> Result<Ground, StartError> {
    let (log, driver, source) = open_and_fold(config, world, metrics).await?;
    let (progress, rebuilds) = (driver.progress(), driver.rebuilds());
    let snapshots = snapshots(config, world, &log, &driver);
    Ok(Ground { log, driver: Some(driver), source, progress, rebuilds, snapshots, link: None, read_only: None })
}

/// The way to make snapshots of what is folded here.
pub(super) fn snapshots(config: &Config, world: &World, log: &Arc<dyn Log>, driver: &Driver) -> Snapshots {
    Snapshots::of(snapshot::Parts {
        store: driver.store(),
        log: Arc::clone(log) as Arc<dyn LogReader>,
        clock: Arc::clone(&world.clock),
        signing_key: config.signing_key_file(),
    })
}

/// The same where nobody is served from it, with the read models.
pub(super) async fn open_and_fold(
    config: &Config,
    world: &World,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<dyn Log>, Driver, Arc<dyn Source>), StartError> {
    // What is in it concerns nobody else on the machine.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data);
    made.map_err(io(config.data.display().to_string()))?;
    let log = match &world.log {
        Some(log) => Arc::clone(log),
        None => open_log(config, metrics).await?,
    };
    let store = open_models(config, Arc::clone(&log), &*world.clock).await?;
    commands::found(&*log, &config.server_name, &*world.clock, &*world.random).await?;
    let (driver, source) = fold(Arc::clone(&log), store, Arc::clone(metrics)).await?;
    Ok((log, driver, source))
}

/// Stands beside a projector, which has the read models open, and the log if that is embedded.
pub(super) async fn open_beside(config: &Config, world: &World, metrics: &Arc<Metrics>) -> Result<Ground, StartError> {
    let mut link = Link::connect(&config.data, config.node.number, PROJECTOR_WITHIN).await?;
    if link.server_name() != config.server_name {
        let other =
            OwnedServerName::try_from(link.server_name()).map_err(|error| StartError::Internal(error.to_string()))?;
        return Err(FoundingError::OtherServer(other).into());
    }
    let log: Arc<dyn Log> = match (&world.log, &config.log.backend) {
        (Some(log), _) => Arc::clone(log),
        (None, Backend::Embedded) => Arc::new(link.log(config.log_folder())),
        (None, Backend::Kafka(_)) => open_log(config, metrics).await?,
    };
    let (folder, memory, freed) = (config.read_models_folder(), memory(config), link.freed());
    let opened = tokio::task::spawn_blocking(move || Beside::open(&folder, memory, freed));
    let opened = opened.await.map_err(|error| StartError::Internal(error.to_string()))??;
    let beside = opened.ok_or_else(|| StartError::Internal("the projector has no read models".into()))?;
    let source = beside.source();
    let progress = Arc::new(Progress::new(Arc::clone(&source), source.view()?.cursor().clone()));
    link.follow(beside, Arc::clone(&progress), Arc::clone(metrics)).map_err(io("a thread for views"))?;
    let (rebuilds, snapshots) = (link.rebuilds(), link.snapshots());
    Ok(Ground { log, driver: None, source, progress, rebuilds, snapshots, link: Some(link), read_only: None })
}

/// Opens what a replay left: nothing is appended or folded any more, and the clock shows the moment of its last record.
pub(super) async fn open_replay(
    config: &mut Config,
    world: &mut World,
    replayed: Replayed,
) -> Result<Ground, StartError> {
    config.server_name.clone_from(&replayed.server_name);
    let (folder, memory) = (config.data.clone(), memory(config));
    let opened = tokio::task::spawn_blocking(move || fold::open_replay(&folder, &replayed, memory));
    let (progress, source) = opened.await.map_err(|error| StartError::Internal(error.to_string()))??;
    let cursor = progress.cursor();
    world.clock = Arc::new(StoppedClock::at(cursor.log_time.ms));
    let (log, rebuilds, snapshots) = (Arc::new(FrozenLog::at(&cursor)), Rebuilds::none(), Snapshots::none());
    Ok(Ground { log, driver: None, source, progress, rebuilds, snapshots, link: None, read_only: Some(cursor.lsn) })
}

fn memory(config: &Config) -> StoreOptions {
    let mib = 1 << 20;
    StoreOptions {
        block_cache_bytes: config.memory.block_cache_mib * mib,
        write_buffer_bytes: config.memory.write_buffer_mib * mib,
    }
}

async fn open_log(config: &Config, metrics: &Arc<Metrics>) -> Result<Arc<dyn Log>, StartError> {
    let observer: Arc<dyn Observer> = Arc::clone(metrics) as Arc<dyn Observer>;
    let (log, folder) = (config.log.clone(), config.log_folder());
    let open = move || -> Result<Arc<dyn Log>, StartError> {
        Ok(match &log.backend {
            Backend::Embedded => {
                let options = EmbeddedOptions { sync_delay: log.sync_delay, observer, ..EmbeddedOptions::default() };
                Arc::new(EmbeddedLog::create_or_open(&folder, options)?)
            }
            Backend::Kafka(topic) => Arc::new(KafkaLog::open(&log.kafka, topic, observer)?),
        })
    };
    tokio::task::spawn_blocking(open).await.map_err(|error| StartError::Internal(error.to_string()))?
}

/// Opens the read models. Damaged ones are set aside: they can be folded again. Those that are no fold of this log are
/// refused before anything is written to it.
async fn open_models(config: &Config, log: Arc<dyn Log>, clock: &dyn Clock) -> Result<Arc<Store>, StartError> {
    let (folder, memory) = (config.read_models_folder(), memory(config));
    let aside = folder.with_extension(format!("damaged-{}", clock.now_ms()));
    let opened = tokio::task::spawn_blocking(move || {
        let store = open_store(&folder, &aside, memory)?;
        fold::check_fit(&*log, &store.cursor()?)?;
        Ok(store)
    });
    opened.await.map_err(|error| StartError::Internal(error.to_string()))?
}

/// Folds what the read models lack.
async fn fold(
    log: Arc<dyn Log>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
) -> Result<(Driver, Arc<dyn Source>), StartError> {
    let runtime = tokio::runtime::Handle::current();
    let started = tokio::task::spawn_blocking(move || {
        let (driver, reader) = Driver::start(fold::Start { log, store, metrics, report: &report() }, runtime)?;
        Ok((driver, reader as Arc<dyn Source>))
    });
    started.await.map_err(|error| StartError::Internal(error.to_string()))?
}

fn open_store(folder: &Path, aside: &Path, memory: StoreOptions) -> Result<Arc<Store>, StartError> {
    match Store::open(folder, memory) {
        Err(error) if Store::is_damaged(&error) => {
            tracing::error!(%error, aside = %aside.display(), "the read models are damaged: set aside, and folded again from the log");
            std::fs::rename(folder, aside).map_err(io(folder.display().to_string()))?;
            Ok(Arc::new(Store::open(folder, memory)?))
        }
        opened => Ok(Arc::new(opened?)),
    }
}

/// Tells how far a long start has come, every few seconds.
fn report() -> impl Fn(Lsn, Lsn) {
    let told = Cell::new(Instant::now());
    move |at, tail| {
        if told.get().elapsed() >= Duration::from_secs(3) {
            told.set(Instant::now());
            tracing::info!(%at, %tail, "folding the log");
        }
    }
}
