//! `everfold serve`

use std::{io::Write, net::SocketAddr};

use anyhow::Context;
use schemas::Lsn;
use tokio::signal::unix::{SignalKind, signal};

use super::{Settings, output::time};
use crate::{
    config::{Config, RegistrationMode},
    server::{Server, World},
    telemetry,
};

/// How to serve.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold serve --registration open                anybody who can connect may register
  everfold serve --listen 127.0.0.1:0               a free port, which is printed
  everfold serve --config everfold.toml
  everfold serve --no-projector                     beside `everfold project`, on the same data folder

SIGTERM and SIGINT stop it: requests under way are answered, the log is closed, and it exits with 0.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// The name in user ids; it is for ever.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Where clients connect. May be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Where the log is: embedded, or kafka://BROKERS/TOPIC.
    #[arg(long, value_name = "BACKEND")]
    log: Option<String>,
    /// Serve beside `everfold project`, which folds on the same data folder.
    #[arg(long)]
    no_projector: bool,
    /// Make a new signing key where the server's is lost for ever.
    #[arg(long)]
    new_signing_key: bool,
    /// Who may register: open, token or closed.
    #[arg(long, value_name = "MODE")]
    registration: Option<String>,
}

impl Args {
    fn flags(&self) -> Vec<(&'static str, String)> {
        let one = |key, value: &Option<String>| value.clone().map(|value| (key, value));
        let flags = [
            one("server_name", &self.server_name),
            one("log.backend", &self.log),
            one("registration.mode", &self.registration),
            self.no_projector.then(|| ("node.projector", "off".to_owned())),
        ];
        let listen = self.listen.iter().map(|address| ("http.listen", address.clone()));
        flags.into_iter().flatten().chain(listen).collect()
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.settings.load(args.flags())?;
    telemetry::init(&config.telemetry)?;
    let world = World { new_signing_key: args.new_signing_key, ..World::default() };
    let create = args.settings.command("user create NAME --admin", &config);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config, world, &create))
}

/// Serves until it is told to stop. `create` is the command that makes an administrator.
async fn serve(config: Config, world: World, create: &str) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let start = Server::start(config, world);
    let server = tokio::select! {
        started = start => started.context("the server can't start")?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let greeted = match server.app().read_only {
        Some(lsn) => greet_replay(&server, lsn),
        None => greet(&server.app().config, server.addresses(), create),
    };
    if let Err(error) = greeted {
        tracing::info!(%error, "nobody reads where the server is");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(())
}

/// Says where the server is, and what it shows.
fn greet_replay(server: &Server, lsn: Lsn) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for address in server.addresses() {
        writeln!(out, "listening on http://{address}")?;
    }
    writeln!(out, "  it shows what was at Lsn {lsn}, {}", time(server.app().clock.now_ms()))?;
    writeln!(out, "  nothing can be changed here; access tokens of then are good")?;
    out.flush()
}

/// Says where the server is; for people, what to do next.
fn greet(config: &Config, addresses: &[SocketAddr], create: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for address in addresses {
        writeln!(out, "listening on http://{address}")?;
    }
    let url = match (&config.http.public_url, addresses.first()) {
        (Some(url), _) => url.as_str().to_owned(),
        (None, Some(address)) => format!("http://{address}"),
        (None, None) => String::new(),
    };
    writeln!(out, "  point a Matrix client at {url}")?;
    writeln!(out, "  make the first administrator with: {create}")?;
    match config.registration.mode {
        RegistrationMode::Open => writeln!(out, "  anybody may register")?,
        RegistrationMode::Token => writeln!(out, "  registering needs a registration token")?,
        RegistrationMode::Closed => {}
    }
    out.flush()
}
