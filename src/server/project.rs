use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use projections::Cursor;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{StartError, World, bind, ground, io, shared_secret, signing_key};
use crate::{
    config::Config,
    fold::Driver,
    http::{health, listen},
    log::{Log, LogReader},
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
    addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    /// Shows health and figures.
    showing: JoinHandle<()>,
}

impl Projector {
    /// Starts one, and returns once others can serve beside it: its log is open, founded if it was empty, and folded to
    /// its end.
    ///
    /// # Errors
    /// When something that it needs is missing, damaged, in use or another server's.
    pub async fn start(config: &Config, world: World) -> Result<Self, StartError> {
        let metrics = Metrics::new().map_err(|error| StartError::Internal(error.to_string()))?;
        let (log, driver, source) = ground::open_and_fold(config, &world, &metrics).await?;
        // Made once, before several processes look for them.
        signing_key(config, &world, &*log, false)?;
        shared_secret(config, &*world.random)?;
        let snapshots = ground::snapshots(config, &world, &log, &driver);
        let (listeners, addresses) = bind(&config.projector.listen, "projector.listen").await?;
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
        let vitals = health::Vitals {
            reader: Arc::clone(&log) as Arc<dyn LogReader>,
            progress: driver.progress(),
            source,
            metrics: Arc::clone(&metrics),
            has_metrics: config.telemetry.metrics,
        };
        let (router, stop) = (health::of_projector(vitals), CancellationToken::new());
        let showing = tokio::spawn(listen::serve(listeners, router, config.http.clone(), metrics, stop.clone()));
        Ok(Self { hub, log, driver, snapshots, addresses, stop, showing })
    }

    /// Where it shows health and figures, if anywhere.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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
        let Self { hub, log, driver, snapshots, stop, showing, .. } = self;
        snapshots.stop();
        hub.stop().await;
        stop.cancel();
        if let Err(error) = showing.await {
            tracing::error!(%error, "a task failed");
        }
        let closed = tokio::task::spawn_blocking(move || {
            log.close();
            driver.stop();
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the log was not closed well; what was acknowledged is on it");
        }
    }
}
