//! `everfold log copy`

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use schemas::{Chain, Lsn};
use serde::Serialize;

use crate::{
    cli::output::{Output, bar, report},
    clock::{SystemClock, SystemRandom},
    config::{Config, Topic},
    log::{
        EmbeddedLog, EmbeddedOptions, KafkaLog, LogReader,
        copy::{Importer, Step, copy},
        epoch::{self, Begun},
        kafka::KafkaImporter,
    },
};

/// A machine that reads is told so often how far it is.
const OFTEN: Duration = Duration::from_secs(1);

/// Where a log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the data folder.
    Embedded(PathBuf),
    /// On Kafka.
    Kafka(Topic),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("embedded:") {
            Some(folder) if !folder.is_empty() => Ok(Self::Embedded(folder.into())),
            None if text.starts_with("kafka:") => text.parse().map(Self::Kafka),
            _ => Err("write embedded:DIR, with the data folder, or kafka://HOST:PORT,HOST:PORT/TOPIC".to_owned()),
        }
    }
}

/// What to copy.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The log that there is: embedded:DIR, with the data folder, or kafka://HOST:PORT/TOPIC.
    #[arg(long, value_name = "LOG")]
    from: Place,
    /// Where to copy it: empty, or what an earlier run left.
    #[arg(long, value_name = "LOG")]
    to: Place,
    /// The copy is older than what clients have seen, and is to go on in its place: begin a new epoch in it.
    #[arg(long)]
    as_new_epoch: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Going {
    Copying { at: Lsn, of: Lsn },
    Verifying { at: Lsn, of: Lsn },
}

#[derive(Serialize)]
struct Done {
    /// What the target had before.
    before: Lsn,
    /// The last record of both, and how many were copied now.
    tail: Lsn,
    records: u64,
    /// The chain there, as the source has it, and as computed from the whole copy.
    source_chain: Chain,
    target_chain: Chain,
    /// Whether a server is running on the source, which may have gone on.
    in_use: bool,
    /// The first record of the new epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Lsn>,
}

pub(super) fn run(config: &Config, args: &Args, out: &mut Output) -> anyhow::Result<()> {
    anyhow::ensure!(args.from != args.to, "--from and --to are the same log");
    let (from, is_written) = source(config, &args.from)?;
    let to = target(config, &args.to)?;
    let (bar, told) = (bar("copying", from.tail().0), Cell::new(Instant::now()));
    let (output, show) = (RefCell::new(&mut *out), report(&bar));
    let report = |step, at: Lsn, of: Lsn| {
        bar.set_message(match step {
            Step::Copying => "copying",
            Step::Verifying => "verifying",
        });
        show(at, of);
        if told.get().elapsed() >= OFTEN && output.borrow().is_json() {
            told.set(Instant::now());
            let going = match step {
                Step::Copying => Going::Copying { at, of },
                Step::Verifying => Going::Verifying { at, of },
            };
            // Who does not read this may still read the end.
            let _ = output.borrow_mut().print(&going, |_| String::new());
            let _ = output.borrow_mut().flush();
        }
    };
    let copied = copy(&*from, &*to, &report);
    bar.finish_and_clear();
    let copied = copied?;
    let begin = || epoch::begin_after(&*to, copied.target, &SystemClock::default(), &SystemRandom);
    let begun = args.as_new_epoch.then(begin).transpose()?;
    let done = Done {
        before: copied.before,
        tail: copied.tail,
        records: copied.records,
        source_chain: copied.source,
        target_chain: copied.target,
        in_use: is_written(),
        epoch: begun.map(|begun| begun.lsn),
    };
    out.print(&done, |done| text(done, begun))?;
    Ok(())
}

fn text(done: &Done, begun: Option<Begun>) -> String {
    let Done { before, tail, records, source_chain, target_chain, .. } = done;
    let from = if *before == Lsn::ZERO { String::new() } else { format!(", after {before}, which was there") };
    let mut text = format!(
        "copied {records} records up to {tail}{from}\nchain of the source {source_chain}\nchain of the copy   {target_chain}"
    );
    if let Some(Begun { lsn, fork, .. }) = begun {
        text += &format!("\na new epoch goes on after {fork} at {lsn}");
    }
    if done.in_use {
        text += "\na server runs on the source: stop it and run this again, for what it has appended meanwhile";
    }
    text
}

type Source = (Arc<dyn LogReader>, Box<dyn Fn() -> bool>);

/// Opens a log for reading; with it, what says whether a server writes it.
fn source(config: &Config, place: &Place) -> anyhow::Result<Source> {
    match place {
        Place::Embedded(folder) => {
            let log = Arc::new(EmbeddedLog::open_read_only(&log_folder(config, folder))?);
            let written = Arc::clone(&log);
            Ok((log, Box::new(move || written.is_written())))
        }
        Place::Kafka(topic) => {
            let log = Arc::new(KafkaLog::open_read_only(&config.log.kafka, topic)?);
            let (tail, later) = (log.tail(), Arc::clone(&log));
            // Brokers don't say who writes; that it has grown shows it.
            Ok((log, Box::new(move || later.tail() > tail)))
        }
    }
}

/// Where the log is in a data folder.
fn log_folder(config: &Config, data: &Path) -> PathBuf {
    Config { data: data.to_owned(), ..config.clone() }.log_folder()
}

/// Opens a log that nobody else writes.
fn target(config: &Config, place: &Place) -> anyhow::Result<Box<dyn Importer>> {
    match place {
        Place::Embedded(folder) => {
            let folder = log_folder(config, folder);
            Ok(Box::new(EmbeddedLog::create_or_open(&folder, EmbeddedOptions::default())?))
        }
        Place::Kafka(topic) => Ok(Box::new(KafkaImporter::open(&config.log.kafka, topic)?)),
    }
}
