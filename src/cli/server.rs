//! The server that writing commands ask: the one that runs on the data folder, or, where none does, or only a projector,
//! one that runs for as long as the command. So there is one way to do each thing, and one process that writes.

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use reqwest::{Method, RequestBuilder};
use ruma::{OwnedServerName, ServerName};
use serde_json::Value;

use super::{Settings, log};
use crate::{
    commands::server_of,
    config::Config,
    fold::{self, ReplayError, Replayed},
    log::{embedded::OpenError, kafka},
    processes,
    server::{self, StartError, World},
};

/// How requests reach it, with the shared secret as the access token: whoever can read the data folder may do anything.
pub(super) struct Server {
    http: reqwest::Client,
    url: String,
    name: OwnedServerName,
    /// The shared secret.
    pub secret: String,
    /// Runs for this command alone.
    own: Option<server::Server>,
}

impl Server {
    /// Finds it, or starts one. With a URL, that one is asked, wherever it is.
    pub async fn find(settings: &Settings, url: Option<&str>) -> anyhow::Result<Self> {
        let mut config = settings.load(Vec::new())?;
        let (own, url) = match url {
            Some(url) => {
                config.server_name = name(&config).unwrap_or(config.server_name);
                (None, url.to_owned())
            }
            None => {
                config.server_name = name(&config)?;
                config.http.listen = vec![([127, 0, 0, 1], 0).into()];
                config.node.projector = processes::look(&config.data).await.is_err();
                if !config.node.projector {
                    // One that no process has.
                    config.node.number = 0;
                }
                let world = World { announced: false, ..World::default() };
                let waiting = ProgressBar::new_spinner().with_message("looking at the log");
                let started = server::Server::start(config.clone(), world).await;
                waiting.finish_and_clear();
                match started {
                    Ok(server) => {
                        let address = server.addresses().first().context("the server listens nowhere")?;
                        let url = format!("http://{address}");
                        (Some(server), url)
                    }
                    Err(error) if is_served(&error) => {
                        let file = config.address_file();
                        let url = std::fs::read_to_string(&file);
                        (None, url.with_context(|| format!("where the server is, in {}", file.display()))?)
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let secret = match &config.registration.shared_secret {
            Some(secret) => secret.clone(),
            None => {
                let file = config.shared_secret_file();
                std::fs::read_to_string(&file).with_context(|| format!("the shared secret in {}", file.display()))?
            }
        };
        let (url, secret) = (url.trim().trim_end_matches('/').to_owned(), secret.trim().to_owned());
        Ok(Self { http: reqwest::Client::new(), url, name: config.server_name, secret, own })
    }

    /// The server's name.
    pub fn name(&self) -> &ServerName {
        &self.name
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.secret)
    }

    pub async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let reply = request.send().await.with_context(|| format!("no server answers at {}", self.url))?;
        let (status, json) = (reply.status(), reply.json::<Value>().await.unwrap_or_default());
        if !status.is_success() {
            let why = json["error"].as_str().unwrap_or("it did not say why");
            bail!("the server refused ({status}): {why}");
        }
        Ok(json)
    }

    /// Stops it, if it ran for this command alone.
    pub async fn stop(self) {
        if let Some(server) = self.own {
            server.stop().await;
        }
    }
}

/// The name that the data folder's log was founded with: it counts, whatever the settings say.
fn name(config: &Config) -> anyhow::Result<OwnedServerName> {
    if let Some(replayed) = Replayed::find(&config.data)? {
        return Ok(replayed.server_name);
    }
    let log = match log::open(config) {
        Err(error)
            if matches!(error.downcast_ref(), Some(OpenError::Missing(_)))
                || matches!(error.downcast_ref(), Some(kafka::OpenError::Missing { .. })) =>
        {
            let data = config.data.display();
            bail!("no server has run in {data} yet: start it with `everfold serve`, or name its --url");
        }
        opened => opened?,
    };
    server_of(&*log)?.context("the log is empty")
}

/// Whether a server could not start because another one runs on the same folder.
pub(super) fn is_served(error: &StartError) -> bool {
    match error {
        StartError::Log(OpenError::Locked(_)) => true,
        StartError::Store(error) | StartError::Replay(ReplayError::Fold(fold::StartError::Store(error))) => {
            projections::Store::is_locked(error)
        }
        _ => false,
    }
}
