use std::sync::Arc;

use everfold::{
    clock::{Clock, Random, SystemClock, SystemRandom},
    config::{Config, Sources},
    http::App,
    log::LogReader,
    server::{Server, World},
};
use projections::{Projector, Reader, Source, Store, StoreOptions, View, digest};
use schemas::Lsn;
use tempfile::TempDir;

use super::Client;

/// A server on a folder of its own, which goes with it.
pub struct TestServer {
    server: Server,
    _folder: TempDir,
}

impl TestServer {
    /// Open for registration, without rate limits, on a free port.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With other settings than usual.
    pub async fn with(settings: &[(&'static str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let usual = [
            ("server_name", "test.example"),
            ("data", folder.path().to_str().unwrap()),
            ("http.listen", "127.0.0.1:0"),
            ("registration.mode", "open"),
            ("rate_limits.enabled", "off"),
            ("memory.block_cache_mib", "8"),
            ("memory.write_buffer_mib", "8"),
        ];
        let usual = usual.iter().filter(|(key, _)| settings.iter().all(|(other, _)| key != other));
        let flags: Vec<_> = usual.chain(settings).map(|&(key, value)| (key, value.to_owned())).collect();
        let config = Config::load(Sources { flags: &flags, ..Sources::default() }).unwrap();
        let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) =
            (Arc::new(SystemClock::default()), Arc::new(SystemRandom));
        let world = World { clock, random, log: None };
        let server = Server::start(config, world).await.unwrap();
        Self { server, _folder: folder }
    }

    /// Somebody who is not logged in.
    pub fn client(&self) -> Client {
        Client::new(format!("http://{}", self.server.addresses()[0]))
    }

    /// The server's parts.
    pub fn app(&self) -> &App {
        self.server.app()
    }

    /// Ends the test: whatever it did, folding its log again from the first record gives the same read models.
    pub async fn finish(self) {
        check_replay(&self.app().view().unwrap(), &*self.app().reader);
        self.server.stop().await;
    }
}

fn check_replay(live: &View, log: &dyn LogReader) {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(Store::open(folder.path(), StoreOptions::default()).unwrap());
    let mut projector = Projector::open(Arc::clone(&store)).unwrap();
    // Another batch size than any that the server used.
    while projector.cursor().lsn < live.lsn() {
        let mut entries = log.read(projector.cursor().lsn.next(), 7, usize::MAX).unwrap();
        entries.retain(|entry| entry.lsn <= live.lsn());
        projector.apply(&entries, true).unwrap();
    }
    assert!(projector.cursor().lsn > Lsn::ZERO);
    let replayed = digest::all(&Reader::new(store).view().unwrap()).unwrap();
    assert_eq!(digest::all(live).unwrap(), replayed, "a replay of the log gives other read models");
}
