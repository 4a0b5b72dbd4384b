//! `everfold project`

use std::io::Write;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use super::{Settings, output::Format, server::is_served};
use crate::{
    config::Config,
    processes,
    server::{Projector, StartError, World},
    telemetry,
};

/// How to project.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold project --server-name example.org --data /var/lib/everfold --listen 127.0.0.1:8010
  everfold serve --no-projector --data /var/lib/everfold --listen 127.0.0.1:8008
  everfold serve --no-projector --data /var/lib/everfold --listen 127.0.0.1:8009
  everfold project --check --data /var/lib/everfold || echo 'not ready'

It folds the log into the read models, and has the log open if that is embedded; it answers no requests itself but, with
--listen, those for /metrics, /health/live and /health/ready. Servers beside it, with the same settings, find it by a socket in the data folder. They may come and go, and so may it: while
it is gone, they answer what only reads, and 503 to what writes.

SIGTERM and SIGINT stop it: what was taken is appended and folded, and it exits with 0. With --check it starts nothing:
it exits with 0 if the projector on the data folder has folded what is on its log, else with 1.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    format: Format,
    /// The name in user ids; it is for ever.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Where the log is: embedded, or kafka://BROKERS/TOPIC.
    #[arg(long, value_name = "BACKEND")]
    log: Option<String>,
    /// Where it shows its metrics and health. May be given several times.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Make a new signing key where the server's is lost for ever.
    #[arg(long)]
    new_signing_key: bool,
    /// Say whether the projector that runs is ready.
    #[arg(long)]
    check: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let one = |key, value: &Option<String>| value.clone().map(|value| (key, value));
    let flags = [one("server_name", &args.server_name), one("log.backend", &args.log)];
    let listen = args.listen.iter().map(|address| ("projector.listen", address.clone()));
    let config = args.settings.load(flags.into_iter().flatten().chain(listen).collect())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if args.check {
        return runtime.block_on(check(&config, &args.format));
    }
    telemetry::init(&config.telemetry)?;
    let serve = args.settings.command("serve --no-projector", &config);
    let world = World { new_signing_key: args.new_signing_key, ..World::default() };
    runtime.block_on(project(&config, world, &serve))
}

/// Says how the projector stands.
async fn check(config: &Config, format: &Format) -> anyhow::Result<()> {
    let standing = processes::look(&config.data).await?;
    let mut out = format.output();
    out.print(&standing, |standing| {
        format!("{}: folded up to {} of {}", standing.server_name, standing.folded, standing.tail)
    })?;
    out.flush()?;
    match standing.stopped {
        _ if standing.ready => Ok(()),
        Some(why) => bail!("the projector is not ready: {why}"),
        None => bail!("the projector is not ready: it has yet to fold what is on the log"),
    }
}

/// Projects until it is told to stop. `serve` is the command that serves beside it.
async fn project(config: &Config, world: World, serve: &str) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let projector = tokio::select! {
        started = Projector::start(config, world) => started.map_err(explain)?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Err(error) = greet(&projector, serve) {
        tracing::info!(%error, "nobody reads where the projector is");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    projector.stop().await;
    Ok(())
}

fn explain(error: StartError) -> anyhow::Error {
    let why = if is_served(&error) {
        "the projector can't start, since a server or another projector has the data folder open"
    } else {
        "the projector can't start"
    };
    anyhow::Error::from(error).context(why)
}

fn greet(projector: &Projector, serve: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on {}", projector.path().display())?;
    for address in projector.addresses() {
        writeln!(out, "  metrics and health are at http://{address}")?;
    }
    writeln!(out, "  the log is folded up to {}", projector.cursor().lsn)?;
    writeln!(out, "  serve beside it with: {serve}")?;
    out.flush()
}
