use std::{path::PathBuf, sync::Arc};

use projections::Cursor;

use super::{StartError, World, ground, io, shared_secret, signing_key};
use crate::{
    config::Config,
    fold::Driver,
    log::Log,
    metrics::Metrics,
    processes::{Hub, Projecting},
    snapshot::Snapshots,
};

/// A projector alone: it owns the read models, and the log if that is embedded. Others serve beside it.
pub struct Projector {
    hub: Hub,
    log: Arc<dyn Log>,
    driver: Driver,
    snapshots: Snapshots,
}

impl Projector {
    /// Starts one, and returns once others can serve beside it: its log is open, founded if it was empty, and folded to
    /// its end.
    ///
    /// # Errors
    /// When something that it needs is missing, damaged, in use or another server's.
    pub async fn start(config: &Config, world: World) -> Result<Self, StartError> {
        let metrics = Metrics::new().map_err(|error| StartError::Internal(error.to_string()))?;
        let (log, driver) = ground::open_to_fold(config, &world, &metrics).await?;
        // Made once, before several processes look for them.
        signing_key(config, &world, &*log, false)?;
        shared_secret(config, &*world.random)?;
        let snapshots = ground::snapshots(config, &world, &log, &driver);
        let hub = Hub::start(Projecting {
            folder: config.data.clone(),
            log: Arc::clone(&log),
            progress: driver.progress(),
            rebuilds: driver.rebuilds(),
            snapshots: snapshots.clone(),
            server_name: config.server_name.to_string(),
            clock: world.clock,
            random: world.random,
        });
        let hub = hub.map_err(io(format!("a socket in {}", config.data.display())))?;
        Ok(Self { hub, log, driver, snapshots })
    }

    /// Where others find it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.hub.path()
    }

    /// How far it has folded.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.driver.progress().cursor()
    }

    /// Takes no more records, says what became of those that it took, folds them, and closes the log.
    pub async fn stop(self) {
        let Self { hub, log, driver, snapshots } = self;
        snapshots.stop();
        hub.stop().await;
        let closed = tokio::task::spawn_blocking(move || {
            log.close();
            driver.stop();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the log was not closed well; what was acknowledged is on it");
        }
    }
}
