//! `everfold replay`

use std::path::PathBuf;

use schemas::{Chain, Lsn};
use serde::Serialize;

use super::{
    Settings, log,
    output::{Format, bar, report, time},
};
use crate::{fold, log::Moment};

/// Up to where, and into which folder.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold replay --until 2026-07-01T12:00:00Z --into /tmp/then
  everfold replay --until 4711 --into /tmp/then
  everfold serve --data /tmp/then --listen 127.0.0.1:8009

The folder then holds the read models as they were, and no log. A server on it shows that moment: access tokens of then
are good, the clock stands still, and whatever would change something is refused. The log is read beside its server.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    format: Format,
    /// The last record, or a time; without it, all there is.
    #[arg(long, value_name = "LSN|TIME")]
    until: Option<Moment>,
    /// The folder to make; it may be there if it is empty.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
}

#[derive(Serialize)]
struct Done {
    into: PathBuf,
    lsn: Lsn,
    log_time: u64,
    chain: Chain,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.settings.load(Vec::new())?;
    let mut out = args.format.output();
    let log = log::open(&config)?;
    let until = args.until.map_or(Ok(log.tail()), |moment| moment.until(log.tail(), |ms| log.at_time(ms)))?;
    let bar = bar("folding records", until.0);
    let folded = fold::replay(&*log, until, &args.into, &report(&bar));
    bar.finish_and_clear();
    let cursor = folded?;
    let done = Done { into: args.into.clone(), lsn: cursor.lsn, log_time: cursor.log_time.ms, chain: cursor.chain };
    out.print(&done, |done| {
        let (lsn, time, into) = (done.lsn, time(done.log_time), done.into.display());
        format!("folded up to {lsn}, {time}\nto look at it: everfold serve --data {into}")
    })?;
    Ok(out.flush()?)
}
