//! `everfold projections list`, `rebuild`, and `everfold digest`: the read models, also beside a running server.

use std::{convert::Infallible, time::Duration};

use anyhow::Context;
use indicatif::ProgressBar;
use projections::{Model, View, digest};
use reqwest::Method;
use schemas::{Chain, Lsn};
use serde::Serialize;

use super::{
    Settings,
    output::{Format, Output, bar, report, time},
    server::Server,
};
use crate::config::Config;

/// What the server has about read models.
const PROJECTIONS: &str = "/_everfold/admin/v1/projections";

/// What to do with the read models.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold projections list
  everfold projections rebuild push

A rebuild asks the running server, which goes on meanwhile; where none runs, it is done in place.")]
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
    /// Print each read model: version, generation, rows, and how far it is folded.
    #[command(after_help = "Example:\n  everfold projections list | jq -r 'select(.rows > 1000) | .name'")]
    List,
    /// Fold a read model, and those that it reads, from the first record on, and put the new tables in place.
    #[command(after_help = "Example:\n  everfold projections rebuild push")]
    Rebuild {
        /// Which, as in the list.
        name: String,
    },
}

/// How to print digests.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  everfold digest --data data
  everfold replay --data data --into /tmp/again && everfold digest --data /tmp/again

Two folds of one log up to one record have the same digests, whatever the machine. It reads beside a running server.")]
pub(super) struct DigestArgs {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    format: Format,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut out = args.format.output();
    match &args.command {
        Command::List => list(&args.settings.load(Vec::new())?, &mut out)?,
        Command::Rebuild { name } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(rebuild(&args.settings, name, &mut out))?;
        }
    }
    Ok(out.flush()?)
}

/// The read models as they are now.
fn view(config: &Config) -> anyhow::Result<View> {
    let folder = config.read_models_folder();
    View::beside(&folder)?.with_context(|| format!("there are no read models in {}", folder.display()))
}

#[derive(Serialize)]
struct Listed {
    name: String,
    version: u16,
    generation: u32,
    /// None for a model that this build doesn't know.
    rows: Option<u64>,
    /// The last record that is folded into it.
    lsn: Lsn,
}

fn list(config: &Config, out: &mut Output) -> anyhow::Result<()> {
    let view = view(config)?;
    let generations = view.generations();
    let bar = bar("read models", generations.iter().count() as u64);
    let mut listed = Vec::new();
    for found in generations.iter() {
        let rows = Model::named(&found.model).map(|model| digest::rows(&view, model)).transpose()?;
        let (version, generation, lsn) = (found.version, found.generation, view.lsn());
        listed.push(Listed { name: found.model.clone(), version, generation, rows, lsn });
        bar.inc(1);
    }
    bar.finish_and_clear();
    for model in &listed {
        out.print(model, |Listed { name, version, generation, rows, lsn }| {
            let rows = rows.map_or_else(|| "unknown".to_owned(), |rows| rows.to_string());
            format!("{name:<14} version {version:<3} generation {generation:<4} {rows:>10} rows  up to {lsn}")
        })?;
    }
    Ok(())
}

/// Shows how far the rebuild has come that is under way.
async fn show_progress(server: &Server, bar: &ProgressBar) -> Infallible {
    let report = report(bar);
    let mut often = tokio::time::interval(Duration::from_millis(200));
    loop {
        often.tick().await;
        // A look that fails is not what was asked for.
        let list = server.ask(server.request(Method::GET, PROJECTIONS)).await.unwrap_or_default();
        if let (Some(at), Some(end)) = (list["rebuilding"].as_u64(), list["lsn"].as_u64()) {
            report(Lsn(at), Lsn(end));
        }
    }
}

async fn rebuild(settings: &Settings, name: &str, out: &mut Output) -> anyhow::Result<()> {
    let server = Server::find(settings, None).await?;
    let rebuild = server.ask(server.request(Method::POST, &format!("{PROJECTIONS}/{name}/rebuild")));
    let bar = bar("folding records", 0);
    let rebuilt = tokio::select! {
        rebuilt = rebuild => rebuilt,
        never = show_progress(&server, &bar) => match never {},
    };
    bar.finish_and_clear();
    server.stop().await;
    let rebuilt = rebuilt?;
    let mine = rebuilt["projections"].as_array().into_iter().flatten().find(|model| model["name"] == name);
    let mut shown = mine.cloned().unwrap_or_default();
    shown["lsn"] = rebuilt["lsn"].clone();
    out.print(&shown, |model| {
        format!("{name} is folded anew, up to {}: generation {}", model["lsn"], model["generation"])
    })?;
    Ok(())
}

#[derive(Serialize)]
struct Digests {
    lsn: Lsn,
    log_time: u64,
    chain: Chain,
    projections: Vec<Digest>,
}

#[derive(Serialize)]
struct Digest {
    name: String,
    version: u16,
    rows: u64,
    sum: String,
}

pub(super) fn digest(args: &DigestArgs) -> anyhow::Result<()> {
    let mut out = args.format.output();
    let view = view(&args.settings.load(Vec::new())?)?;
    let generations = view.generations();
    let bar = bar("read models", generations.iter().count() as u64);
    let mut projections = Vec::new();
    for found in generations.iter() {
        let model = Model::named(&found.model);
        let model = model.with_context(|| format!("this build knows no read model {}", found.model))?;
        let digest::Digest { rows, sum, .. } = digest::of(&view, model.projection())?;
        projections.push(Digest { name: found.model.clone(), version: found.version, rows, sum: sum.to_string() });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let cursor = view.cursor();
    let digests = Digests { lsn: cursor.lsn, log_time: cursor.log_time.ms, chain: cursor.chain, projections };
    out.print(&digests, |Digests { lsn, log_time, chain, projections }| {
        let lines = projections.iter().map(|Digest { name, version, rows, sum }| {
            format!("{name:<14} version {version:<3} {rows:>10} rows  {sum}\n")
        });
        format!("{}up to {lsn} at {}, chain {chain}", lines.collect::<String>(), time(*log_time))
    })?;
    Ok(out.flush()?)
}
