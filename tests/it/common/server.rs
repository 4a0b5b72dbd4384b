use std::{path::Path, sync::Arc};

use everfold::{
    clock::{Clock, Random, SimulatedClock, SimulatedRandom, SystemClock, SystemRandom},
    commands::Decision,
    config::{Backend, Config, Sources},
    fold::RebuildError,
    http::App,
    log::{EmbeddedLog, EmbeddedOptions, KafkaLog, Log},
    server::{Server, StartError, World},
    snapshot,
};
use projections::{Cursor, Model, View};
use schemas::{Draft, Fact, Key, Origin};
use serde_json::json;
use tempfile::TempDir;

use super::{Client, Hub, Shifting, replay};

/// A server on a folder of its own, which goes with it.
pub struct TestServer {
    server: Server,
    folder: TempDir,
    config: Config,
    world: World,
    /// What it and the other nodes on its log hear.
    hub: Option<Arc<Hub>>,
}

impl TestServer {
    /// Open for registration, without rate limits, on a free port.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With other settings than usual.
    pub async fn with(settings: &[(&'static str, &str)]) -> Self {
        let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) =
            (Arc::new(SystemClock::default()), Arc::new(SystemRandom));
        Self::in_world(World { clock, random, ..World::default() }, settings).await
    }

    /// With a log that goes through the test's hands, and other nodes may be on, too.
    pub async fn with_log<L: Log>(wrap: impl FnOnce(EmbeddedLog) -> Arc<L>) -> (Self, Arc<L>) {
        Self::with_log_of(EmbeddedOptions::default(), &[], wrap).await
    }

    /// The same with a log and settings that are not the usual.
    pub async fn with_log_of<L: Log>(
        options: EmbeddedOptions,
        settings: &[(&'static str, &str)],
        wrap: impl FnOnce(EmbeddedLog) -> Arc<L>,
    ) -> (Self, Arc<L>) {
        let folder = TempDir::new().unwrap();
        let log = wrap(EmbeddedLog::create_or_open(&folder.path().join("log"), options).unwrap());
        let world = World { log: Some(Arc::clone(&log) as Arc<dyn Log>), ..World::default() };
        (Self::in_hub(Hub::new("hub"), folder, world, settings).await, log)
    }

    /// With views that the test may choose, and a clock that stands still.
    pub async fn with_views() -> (Self, Arc<Shifting>) {
        let views = Arc::new(Shifting::default());
        let over = Arc::clone(&views);
        let world = World {
            clock: Arc::new(SimulatedClock::at(1_700_000_000_000)),
            lens: Some(Arc::new(move |source| Arc::clone(&over).over(source))),
            ..World::default()
        };
        (Self::in_world(world, &[("presence.enabled", "off")]).await, views)
    }

    /// Another node of this server, on the same log, with read models of its own. It is stopped before this one.
    pub async fn node(&self, log: Arc<dyn Log>) -> Self {
        self.node_with(log, &[]).await
    }

    /// The same, with other settings than usual.
    pub async fn node_with(&self, log: Arc<dyn Log>, settings: &[(&'static str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::copy(self.config.data.join("signing.key"), folder.path().join("signing.key")).unwrap();
        let hub = self.hub.as_ref().expect("a server that was started with a log of the test's");
        let world = World { log: Some(log), ..World::default() };
        Self::in_hub(Arc::clone(hub), folder, world, settings).await
    }

    /// The same, beginning from a snapshot.
    pub async fn node_from(&self, log: Arc<dyn Log>, taken: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::copy(self.config.data.join("signing.key"), at("signing.key")).unwrap();
        let place = snapshot::Place {
            data: folder.path().to_owned(),
            log: at("log"),
            read_models: at("read-models"),
            signing_key: at("signing.key"),
        };
        let (clock, random) = (SystemClock::default(), SystemRandom);
        snapshot::restore(taken, &place, false, (&clock, &random), &|_, _| {}).unwrap();
        let hub = self.hub.as_ref().expect("a server that was started with a log of the test's");
        Self::in_hub(Arc::clone(hub), folder, World { log: Some(log), ..World::default() }, &[]).await
    }

    /// Another node of this server, on the log that the settings name.
    pub async fn other(&self, settings: &[(&'static str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::copy(self.config.data.join("signing.key"), folder.path().join("signing.key")).unwrap();
        Self::in_folder(folder, World::default(), settings).await
    }

    /// What the nodes on its log tell each other.
    pub fn hub(&self) -> &Arc<Hub> {
        self.hub.as_ref().expect("a server that was started with a log of the test's")
    }

    async fn in_hub(hub: Arc<Hub>, folder: TempDir, world: World, settings: &[(&'static str, &str)]) -> Self {
        let (world, number) = (World { channel: Some(hub.join()), ..world }, hub.number().to_string());
        let number =
            [("node.number", number.as_str())].into_iter().filter(|(key, _)| settings.iter().all(|s| s.0 != *key));
        let settings: Vec<_> = settings.iter().copied().chain(number).collect();
        Self { hub: Some(hub), ..Self::in_folder(folder, world, &settings).await }
    }

    /// Stops it.
    pub async fn stop(self) {
        self.server.stop().await;
    }

    /// With a clock that stands still until the test moves it.
    pub async fn with_clock(settings: &[(&'static str, &str)]) -> (Self, Arc<SimulatedClock>) {
        let clock = Arc::new(SimulatedClock::at(1_700_000_000_000));
        let random = Arc::new(SimulatedRandom::seeded(1));
        let world = World { clock: Arc::clone(&clock) as Arc<dyn Clock>, random, ..World::default() };
        (Self::in_world(world, settings).await, clock)
    }

    async fn in_world(world: World, settings: &[(&'static str, &str)]) -> Self {
        Self::in_folder(TempDir::new().unwrap(), world, settings).await
    }

    /// One that serves beside a projector on a folder, in which it stays.
    pub async fn beside(data: &Path, settings: &[(&'static str, &str)]) -> Result<Self, StartError> {
        let beside = [("data", data.to_str().unwrap()), ("node.projector", "off")];
        let (folder, world) = (TempDir::new().unwrap(), World::default());
        let config = Self::config(data, &beside.into_iter().chain(settings.iter().copied()).collect::<Vec<_>>());
        let server = Server::start(config.clone(), world.clone()).await?;
        Ok(Self { server, folder, config, world, hub: None })
    }

    /// Settings as tests have them, for a folder.
    pub fn config(folder: &Path, settings: &[(&'static str, &str)]) -> Config {
        let usual = [
            ("server_name", "test.example"),
            ("data", folder.to_str().unwrap()),
            ("http.listen", "127.0.0.1:0"),
            ("registration.mode", "open"),
            ("registration.shared_secret", "shared"),
            ("rate_limits.enabled", "off"),
            // Else each test's log would end with it.
            ("sessions.last_seen_on_log", "nothing"),
            ("memory.block_cache_mib", "8"),
            ("memory.write_buffer_mib", "8"),
        ];
        let usual = usual.iter().filter(|(key, _)| settings.iter().all(|(other, _)| key != other));
        let flags: Vec<_> = usual.chain(settings).map(|&(key, value)| (key, value.to_owned())).collect();
        Config::load(Sources { flags: &flags, ..Sources::default() }).unwrap()
    }

    async fn in_folder(folder: TempDir, world: World, settings: &[(&'static str, &str)]) -> Self {
        let config = Self::config(folder.path(), settings);
        let server = Server::start(config.clone(), world.clone()).await.unwrap();
        Self { server, folder, config, world, hub: None }
    }

    /// Stops it and starts it again, on another port: clients made before don't reach it any more.
    pub async fn restart(self) -> Self {
        self.server.stop().await;
        let server = Server::start(self.config.clone(), self.world.clone()).await.unwrap();
        Self { server, ..self }
    }

    /// Stops it and starts it again with other settings.
    pub async fn restart_with(mut self, settings: &[(&'static str, &str)]) -> Self {
        self.server.stop().await;
        self.config = Self::config(self.folder.path(), settings);
        let server = Server::start(self.config.clone(), self.world.clone()).await.unwrap();
        Self { server, ..self }
    }

    /// Stops it and starts it again with a clock that shows another time.
    pub async fn restart_at(self, ms: u64) -> (Self, Arc<SimulatedClock>) {
        let clock = Arc::new(SimulatedClock::at(ms));
        let world = World { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..self.world.clone() };
        (Self { world, ..self }.restart().await, clock)
    }

    /// The server's parts.
    pub fn app(&self) -> &App {
        self.server.app()
    }

    /// Folds models anew while it goes on.
    pub async fn rebuild(&self, models: Vec<Model>) -> Result<Cursor, RebuildError> {
        self.app().rebuilds.run(models).await
    }

    /// Stops it, lets `change` have its folder, and tries to start it again.
    pub async fn restart_after(self, change: impl FnOnce(&Config)) -> Result<Self, StartError> {
        self.server.stop().await;
        change(&self.config);
        let server = Server::start(self.config.clone(), self.world.clone()).await?;
        Ok(Self { server, ..self })
    }

    /// Somebody who is not logged in.
    pub fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.addresses()[0])
    }

    /// A new user, logged in, whose password is `password of NAME`.
    pub async fn user(&self, name: &str) -> Client {
        let body = json!({
            "username": name, "password": format!("password of {name}"), "auth": { "type": "m.login.dummy" },
        });
        self.client().logged_in(&self.client().post("/register", body).await.ok())
    }

    /// A new user who administers the server.
    pub async fn admin(&self, name: &str) -> Client {
        let reply = self.client().register_by_secret(name, "shared", true).await.ok();
        self.client().logged_in(&reply)
    }

    /// Records facts as the server itself, without asking whether they are allowed.
    pub async fn record(&self, facts: impl IntoIterator<Item = Fact>) {
        self.record_writing(&[], facts).await;
    }

    /// Records facts as the server itself, in a record that writes some keys.
    pub async fn record_writing(&self, keys: &[Key], facts: impl IntoIterator<Item = Fact>) {
        let draft = Draft { writes: keys.to_vec(), facts: facts.into_iter().collect(), ..Draft::default() };
        let decide = move |_: &View| Ok(Decision::append_then(draft.clone(), ()));
        self.app().commands.execute(Origin::Server, decide).await.unwrap();
    }

    /// Ends the test: whatever it did, folding its log again from the first record gives the same read models.
    pub async fn finish(self) {
        self.server.stop().await;
        let (folder, read_models) = (self.config.log_folder(), self.config.read_models_folder());
        let on = self.config.log.clone();
        let check = move || match &on.backend {
            Backend::Embedded => replay::check(&folder, &read_models),
            Backend::Kafka(topic) => {
                replay::check_log(&KafkaLog::open_read_only(&on.kafka, topic).unwrap(), &read_models)
            }
        };
        tokio::task::spawn_blocking(check).await.unwrap();
        drop(self.folder);
    }
}
