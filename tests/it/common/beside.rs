use std::path::{Path, PathBuf};

use everfold::server::{Projector, StartError, World};
use projections::digest;
use tempfile::TempDir;

use super::{PATIENCE, TestServer, replay};

/// A projector in this process, on a folder of its own, for servers beside it.
pub struct Beside {
    _folder: TempDir,
    data: PathBuf,
    projector: Option<Projector>,
}

impl Beside {
    pub async fn start() -> Self {
        Self::start_in("data").await
    }

    /// On a data folder of this name.
    pub async fn start_in(name: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let mut beside = Self { data: folder.path().join(name), _folder: folder, projector: None };
        beside.project().await;
        beside
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The projector, which runs.
    pub fn projector(&self) -> &Projector {
        self.projector.as_ref().unwrap()
    }

    pub async fn project(&mut self) {
        self.projector = Some(Self::try_project(&self.data).await.unwrap());
    }

    pub async fn try_project(data: &Path) -> Result<Projector, StartError> {
        let config = TestServer::config(data, &[("projector.listen", "127.0.0.1:0")]);
        Projector::start(&config, World::default()).await
    }

    pub async fn stop_projecting(&mut self) {
        self.projector.take().unwrap().stop().await;
    }

    pub async fn serve(&self) -> TestServer {
        self.try_serve(&[]).await.unwrap()
    }

    pub async fn try_serve(&self, settings: &[(&'static str, &str)]) -> Result<TestServer, StartError> {
        TestServer::beside(&self.data, settings).await
    }

    /// Waits until a server shows all that was acknowledged by any.
    pub async fn shown_by(&self, server: &TestServer) {
        let end = self.projector().cursor().lsn;
        assert!(server.app().progress.reached(end, PATIENCE).await);
    }

    /// Ends the test: whatever was done, all processes see the same, and a replay gives it again.
    pub async fn finish<const N: usize>(mut self, servers: [TestServer; N]) {
        let mut digests = Vec::new();
        for server in &servers {
            self.shown_by(server).await;
            let view = server.app().view().unwrap();
            digests.push((view.cursor().clone(), digest::all(&view).unwrap()));
        }
        assert!(digests.windows(2).all(|both| both[0] == both[1]), "all processes see the same");
        for server in servers {
            server.stop().await;
        }
        self.stop_projecting().await;
        let (log, read_models) = (self.data.join("log"), self.data.join("read-models"));
        tokio::task::spawn_blocking(move || replay::check(&log, &read_models)).await.unwrap();
    }
}
