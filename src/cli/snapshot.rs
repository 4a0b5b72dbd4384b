//! `everfold snapshot create` and `restore`.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use schemas::Lsn;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Settings,
    output::{Format, Output, time},
    server::Server,
};
use crate::{
    clock::{SystemClock, SystemRandom},
    config::{Backend, Config},
    snapshot::{Manifest, Place, Restored, restore},
};

/// What the server has about snapshots.
const SNAPSHOT: &str = "/_everfold/admin/v1/snapshot";
/// How often it is asked how far it is.
const OFTEN: Duration = Duration::from_millis(200);

/// What to do with snapshots.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold snapshot create --into /backup/2026-07-01
  everfold snapshot restore --from /backup/2026-07-01 --data /var/lib/everfold

A snapshot holds the read models as of one record, and with the embedded log the log up to there or a little further. With
it a server begins again after a loss, and a node on a shared log begins without folding all of it.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a snapshot in a new folder, while the server goes on.
    #[command(after_help = "\
Examples:
  everfold snapshot create --into /backup/2026-07-01
  everfold snapshot create --into /backup/2026-07-01 --with-signing-key

On the data folder's own file system it takes hardly any room: tables are linked, not copied. Put a copy elsewhere. A running
server is asked to make it, and the folder is then one of its machine; where none runs, it is made in place.

The signing key is not in it unless --with-signing-key is given: whoever has it can speak for your server. Keep a copy of
signing.key apart from the snapshots, once. Neither are settings, the registration secret and media in it.")]
    Create {
        /// The folder to make; it may be there if it is empty.
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
        /// Put the server's signing key into it, too.
        #[arg(long)]
        with_signing_key: bool,
    },
    /// Put a snapshot into a data folder, once all its files are what they were.
    #[command(after_help = "\
Examples:
  everfold snapshot restore --from /backup/2026-07-01 --data /var/lib/everfold
  everfold snapshot restore --from /backup/2026-07-01 --data /var/lib/everfold --nothing-written-since

The data folder must have neither log nor read models. What else a server needs is its settings and its signing.key, which
may be there already.

Clients have seen what was written after the snapshot, and it is lost. So the restored log begins a new epoch: positions go
on beyond all that may have been, one-time keys that were perhaps given away are not given away again, and clients learn what
is. If the server was stopped before the snapshot was made and has not run since, say --nothing-written-since instead.

On a node of a shared log, the snapshot is one of another node: then there is no log in it, and no epoch begins.")]
    Restore {
        /// The snapshot.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Nothing was appended to the log after the snapshot: go on as if there had been none.
        #[arg(long)]
        nothing_written_since: bool,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut out = args.format.output();
    match &args.command {
        Command::Create { into, with_signing_key } => {
            let into = std::path::absolute(into)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(create(&args.settings, into, *with_signing_key, &mut out))?;
        }
        Command::Restore { from, nothing_written_since } => {
            put_back(&args.settings.load(Vec::new())?, from, *nothing_written_since, &mut out)?;
        }
    }
    Ok(out.flush()?)
}

/// A bar of bytes.
fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {eta}");
    let bar = ProgressBar::new(0).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn create(settings: &Settings, into: PathBuf, with_signing_key: bool, out: &mut Output) -> anyhow::Result<()> {
    let server = Server::find(settings, None).await?;
    let made = wait(&server, json!({ "into": into, "signing_key": with_signing_key })).await;
    server.stop().await;
    out.print(&made?, |made| {
        let (lsn, mib) = (&made["read_models"]["lsn"], made["bytes"].as_u64().unwrap_or_default().div_ceil(1 << 20));
        let log = match made["log"]["lsn"].as_u64() {
            Some(log) => format!(", with the log up to {log}"),
            None => ", without the log, which lies elsewhere".to_owned(),
        };
        let at = time(made["read_models"]["log_time"].as_u64().unwrap_or_default());
        format!("made a snapshot of {mib} MiB in {}: read models up to {lsn}, {at}{log}", into.display())
    })?;
    Ok(())
}

/// Asks the server for a snapshot, and shows how far it is until it is there.
async fn wait(server: &Server, wanted: Value) -> anyhow::Result<Value> {
    server.ask(server.request(Method::POST, SNAPSHOT).json(&wanted)).await?;
    let bar = bar("reading what was taken");
    let made = loop {
        let state = server.ask(server.request(Method::GET, SNAPSHOT)).await?;
        match state["state"].as_str() {
            Some("running") => {
                bar.set_length(state["of"].as_u64().unwrap_or_default());
                bar.set_position(state["done"].as_u64().unwrap_or_default());
                tokio::time::sleep(OFTEN).await;
            }
            Some("done") => break state,
            _ => bail!("no snapshot was made: {}", state["why"].as_str().unwrap_or("the server was restarted")),
        }
    };
    bar.finish_and_clear();
    Ok(made)
}

#[derive(Serialize)]
struct Done {
    data: PathBuf,
    server_name: String,
    /// How far the read models are, and the log, if there is one.
    read_models: Lsn,
    log: Option<Lsn>,
    /// The first record of the new epoch.
    epoch: Option<Lsn>,
    bytes: u64,
    has_signing_key: bool,
}

fn put_back(config: &Config, from: &std::path::Path, same_epoch: bool, out: &mut Output) -> anyhow::Result<()> {
    let place = Place {
        data: config.data.clone(),
        log: config.log_folder(),
        read_models: config.read_models_folder(),
        signing_key: config.signing_key_file(),
    };
    let has_log = Manifest::read(from)?.log.is_some();
    if let (true, Backend::Kafka(topic)) = (has_log, &config.log.backend) {
        let name = &topic.name;
        bail!(
            "the snapshot has a log of its own, and log.backend names the topic {name}: restore it with log.backend = \
             \"embedded\", and copy its log to the topic with `everfold log copy`"
        );
    }
    let bar = bar("copying");
    let report = |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    };
    let restored = restore(from, &place, same_epoch, (&SystemClock::default(), &SystemRandom), &report);
    bar.finish_and_clear();
    let Restored { manifest, epoch, has_signing_key } =
        restored.with_context(|| format!("nothing was restored from {}", from.display()))?;
    let done = Done {
        data: config.data.clone(),
        server_name: manifest.server_name.to_string(),
        read_models: manifest.read_models.lsn,
        log: manifest.log.map(|log| log.lsn),
        epoch: epoch.map(|epoch| epoch.lsn),
        bytes: manifest.bytes(),
        has_signing_key,
    };
    out.print(&done, |done| text(done, &place))?;
    Ok(())
}

fn text(done: &Done, place: &Place) -> String {
    let Done { data, server_name, read_models, .. } = done;
    let mut text = format!("restored the read models of {server_name} up to {read_models} into {}", data.display());
    match (done.log, done.epoch) {
        (Some(log), Some(epoch)) => text += &format!("\nand the log up to {log}; a new epoch goes on at {epoch}"),
        (Some(log), None) => text += &format!("\nand the log up to {log}, which goes on there"),
        (None, _) => text += "\nthe log lies elsewhere: set log.backend to it, and the server folds what is new there",
    }
    if !done.has_signing_key {
        text += &format!(
            "\nbefore the first start, put the server's signing.key at {}: without it the server does not start",
            place.signing_key.display()
        );
    }
    text + &format!("\nthen start it with the server's settings: everfold serve --server-name {server_name}")
}
