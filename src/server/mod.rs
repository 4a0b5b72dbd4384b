//! The composition root: the one place that knows every part. Opens the log, folds it, and serves; stops in reverse.

mod ground;
mod neighbours;
mod project;
mod tasks;

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    sync::Arc,
};

use ground::Ground;
use neighbours::Neighbours;
use projections::{Source, StoreError};
use schemas::Lsn;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, Random, SystemClock, SystemRandom},
    commands::{self, Backlog, Commands, FoundingError},
    config::Config,
    ephemeral::Ephemeral,
    fold::{self, Driver, Progress, ReplayError, Replayed},
    http::{self, App, Between, SharedSecret, limit::Limits, passwords::Passwords, seen::Seen, uia::Interactions},
    keys::{KeyError, OwnKey},
    log::{Log, LogReader, embedded::OpenError, kafka},
    metrics::Metrics,
    nodes::{Join, Node},
    processes::{Link, LinkError},
    sync::{Acknowledged, Notifier, Syncs},
};

pub use project::Projector;

/// What stands between the read models and whoever looks at them.
pub type Lens = Arc<dyn Fn(Arc<dyn Source>) -> Arc<dyn Source> + Send + Sync>;

/// What the world brings to a server, which tests replace.
#[derive(Clone)]
pub struct World {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// A log that is open already; none opens the one that the settings name.
    pub log: Option<Arc<dyn Log>>,
    /// None shows the read models as they are.
    pub lens: Option<Lens>,
    /// How to join other nodes; none is what the settings say.
    pub channel: Option<Join>,
    /// Whether the data folder notes where the server is, for the commands that ask it.
    pub announced: bool,
    /// Whether a signing key may be made for a log on which another one has signed.
    pub new_signing_key: bool,
}

impl Default for World {
    fn default() -> Self {
        let (clock, random) = (Arc::new(SystemClock::default()), Arc::new(SystemRandom));
        Self { clock, random, log: None, lens: None, channel: None, announced: true, new_signing_key: false }
    }
}

/// Why a server can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log can't be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The log on Kafka can't be opened.
    #[error(transparent)]
    Kafka(#[from] kafka::OpenError),
    /// The log is not this server's, or can't be used.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// The read models don't fit the log, or can't be used.
    #[error(transparent)]
    Fold(#[from] fold::StartError),
    /// The read models can't be opened.
    #[error("the read models can't be opened: {0}")]
    Store(#[from] StoreError),
    /// There is no projector to serve beside.
    #[error(transparent)]
    Projector(#[from] LinkError),
    /// The folder is a replay that can't be served.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The signing key can't be read or made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A folder or address can't be used.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A fault of the program's own.
    #[error("{0}")]
    Internal(String),
}

/// A server that serves.
pub struct Server {
    addresses: Vec<SocketAddr>,
    app: App,
    log: Arc<dyn Log>,
    /// None where another process folds, or nobody.
    driver: Option<Driver>,
    link: Option<Link>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts one, and returns once it answers: its log is open, founded if it was empty, and folded to its end. On a
    /// folder with a replay it only shows what was then.
    ///
    /// # Errors
    /// When something that it needs is missing, damaged, in use or another server's.
    pub async fn start(mut config: Config, mut world: World) -> Result<Self, StartError> {
        let metrics = Metrics::new().map_err(|error| StartError::Internal(error.to_string()))?;
        let mut ground = match Replayed::find(&config.data)? {
            Some(replayed) => ground::open_replay(&mut config, &mut world, replayed).await?,
            None if config.node.projector => ground::open(&config, &world, &metrics).await?,
            None => ground::open_beside(&config, &world, &metrics).await?,
        };
        let (log, driver, link, read_only) =
            (Arc::clone(&ground.log), ground.driver.take(), ground.link.take(), ground.read_only);
        let key = signing_key(&config, &world, &*log, read_only.is_some())?;
        let number = link.as_ref().map_or(config.node.number, Link::number);
        let node = Node { number, boot: world.random.alphanumeric(8) };
        // Nothing is told by who only shows what was.
        let others = match read_only {
            None => neighbours::join(&config, world.channel.take(), link.as_ref(), &node, &ground.progress).await?,
            Some(_) => None,
        };
        let neighbours = Neighbours::meet(&node, &key, Arc::clone(&world.clock), others);
        let (listeners, addresses) = bind(&config.http.listen, "http.listen").await?;
        if world.announced {
            note_address(&config, &addresses)?;
        }
        let (app, notifier) = assemble(config, world, metrics, ground, key, &neighbours)?;
        let stop = app.stop.clone();
        let mut tasks = vec![
            tokio::spawn(http::listen::serve(
                listeners,
                http::router(app.clone()),
                app.config.http.clone(),
                Arc::clone(&app.metrics),
                stop.clone(),
            )),
            tokio::spawn(tasks::expire(Arc::clone(&app.ephemeral), notifier, stop.clone())),
        ];
        tasks.extend(neighbours.greet(&app.config, &addresses, stop.clone()));
        if read_only.is_none() {
            tasks.extend(tasks::appending(&app, &stop));
        }
        Ok(Self { addresses, app, log, driver, link, stop, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its parts, as handlers see them.
    #[must_use]
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// Takes no more requests, answers those under way (waiting ones at once), and closes the log.
    pub async fn stop(self) {
        let Self { app, log, driver, link, stop, tasks, .. } = self;
        stop.cancel();
        app.snapshots.stop();
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task failed");
            }
        }
        app.commands.close().await;
        let closed = tokio::task::spawn_blocking(move || {
            log.close();
            if let Some(driver) = driver {
                driver.stop();
            }
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "the log was not closed well; what was acknowledged is on it");
        }
        if let Some(link) = link {
            link.stop().await;
        }
    }
}

/// Puts together what handlers are made of, and who wakes those who wait.
fn assemble(
    config: Config,
    world: World,
    metrics: Arc<Metrics>,
    ground: Ground,
    key: OwnKey,
    neighbours: &Neighbours,
) -> Result<(App, Arc<Notifier>), StartError> {
    let Ground { log, source, progress, rebuilds, snapshots, read_only, .. } = ground;
    let World { clock, random, lens, .. } = world;
    let source = lens.map_or_else(|| Arc::clone(&source), |lens| lens(Arc::clone(&source)));
    let (members, channel) = (Arc::clone(&neighbours.members), Arc::clone(&neighbours.channel));
    let interactions = Interactions::hearing(&config.sessions, &*channel);
    let ephemeral = Ephemeral::new(Arc::clone(&clock), Arc::clone(&channel), Arc::clone(&members));
    let notifier = notifier(Arc::clone(&source), &progress, &ephemeral);
    let commands = Commands::new(commands::Parts {
        log: Arc::clone(&log),
        source: Arc::clone(&source),
        progress: Arc::clone(&progress),
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        key: Arc::new(key),
        server_name: config.server_name.clone(),
        node: members.own().number,
        members: Arc::clone(&members),
        backlog: Backlog::default(),
        metrics: Arc::clone(&metrics),
    });
    let stop = CancellationToken::new();
    let syncs = Syncs {
        source: Arc::clone(&source),
        progress: Arc::clone(&progress),
        ephemeral: Arc::clone(&ephemeral),
        notifier: Arc::clone(&notifier),
        with_presence: config.presence.enabled,
        stop: stop.clone(),
    };
    let app = App::new(http::Parts {
        seen: Seen::new(config.sessions.last_seen_on_log),
        limits: Limits::new(config.rate_limits, Arc::clone(&clock), Arc::clone(&metrics)),
        interactions,
        passwords: Passwords::new(Arc::clone(&random)),
        shared_secret: SharedSecret::new(shared_secret(&config, &*random)?),
        between: Between::new(&commands.parts().key).map_err(|error| StartError::Internal(error.to_string()))?,
        reader: log as Arc<dyn LogReader>,
        read_only,
        rebuilds,
        snapshots,
        stop,
        config,
        clock,
        random,
        metrics,
        source,
        progress,
        commands,
        members,
        channel,
        ephemeral,
        syncs,
        acknowledged: Arc::new(Acknowledged::default()),
    });
    Ok((app, notifier))
}

/// Wakes those who wait whenever something was folded, or somebody types or comes.
fn notifier(source: Arc<dyn Source>, progress: &Progress, ephemeral: &Ephemeral) -> Arc<Notifier> {
    let notifier = Arc::new(Notifier::new(source));
    let waker = Arc::clone(&notifier);
    progress.listen(move |applied| waker.applied(applied));
    let waker = Arc::clone(&notifier);
    ephemeral.listen(move |change, position| waker.changed(change, position));
    notifier
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}

/// The signing key. One is made where none can have signed anything yet, where none is needed any more, or by request.
fn signing_key(config: &Config, world: &World, log: &dyn LogReader, read_only: bool) -> Result<OwnKey, KeyError> {
    let (file, server) = (config.signing_key_file(), &config.server_name);
    let key = if log.tail() <= Lsn::FIRST || read_only || world.new_signing_key {
        OwnKey::open_or_make(&file, server, &*world.random)?
    } else {
        OwnKey::open(&file, server)?
    };
    // Whoever loses the key finds its public half here, by which its signatures can be verified.
    tracing::info!(id = %key.id(), public = %key.public(), "signs by this key");
    Ok(key)
}

/// The shared secret: from the settings, or one that was made at the first start.
fn shared_secret(config: &Config, random: &dyn Random) -> Result<String, StartError> {
    if let Some(secret) = &config.registration.shared_secret {
        return Ok(secret.clone());
    }
    let file = config.shared_secret_file();
    match std::fs::read_to_string(&file) {
        Ok(secret) => Ok(secret.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = random.alphanumeric(43);
            let mut options = std::fs::OpenOptions::new();
            let mut made =
                options.write(true).create_new(true).mode(0o600).open(&file).map_err(io(file.display().to_string()))?;
            made.write_all(secret.as_bytes()).and_then(|()| made.sync_all()).map_err(io(file.display().to_string()))?;
            Ok(secret)
        }
        Err(error) => Err(io(file.display().to_string())(error)),
    }
}

/// Listens where a setting says.
async fn bind(to: &[SocketAddr], setting: &str) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let mut listeners = Vec::new();
    for address in to {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(io(format!("{address} can't be listened on ({setting})")))?);
    }
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>();
    Ok((listeners, addresses.map_err(io("the address that is listened on"))?))
}

/// Notes where the server is, for the commands that ask it.
fn note_address(config: &Config, addresses: &[SocketAddr]) -> Result<(), StartError> {
    let Some(address) = addresses.first() else { return Ok(()) };
    let host = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
    let file = config.address_file();
    let url = format!("http://{}", SocketAddr::new(host, address.port()));
    std::fs::write(&file, url).map_err(io(file.display().to_string()))
}
