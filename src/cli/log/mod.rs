//! `everfold log stat`, `tail`, `dump`, `verify`: the log as it is, also beside a running server. And `amend`, which
//! takes a record out of effect.

mod amend;
mod copy;
mod trail;
mod verify;

use std::{collections::VecDeque, io::IsTerminal, sync::Arc};

use anyhow::Context;
use indicatif::ProgressBar;
use projections::{
    View,
    models::{admission, audit},
};
use schemas::{Chain, Lsn, Origin, Record};
use serde::Serialize;

use self::trail::{Shown, Trail};
use super::{
    Settings,
    output::{Format, Output, bar, report, time},
};
use crate::{
    config::{Backend, Config},
    fold::Replayed,
    log::{EmbeddedLog, KafkaLog, LogReader, Moment, Note, ReadError, amendments::Amendment, genesis},
};

/// What to do with the log.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold log stat
  everfold log tail --follow
  everfold log dump | jq 'select(.void) | .lsn'
  everfold log verify

All but `amend` and `copy` read beside a running server, and change nothing; `copy` writes to its target alone.")]
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
    /// Say whose log it is, where it ends, and how far the read models are.
    #[command(after_help = "Example:\n  everfold log stat | jq '.tail - .folded'")]
    Stat,
    /// Print the last records, or those from some moment on.
    #[command(after_help = "\
Examples:
  everfold log tail -n 20
  everfold log tail --follow --room '!room:example.org'
  everfold log tail --from 2026-07-01T12:00:00Z --user alice

A moment is an Lsn (42), a time (2026-07-01T12:00:00Z), or milliseconds since 1970 (1782900000000ms).")]
    Tail {
        /// Go on with what is appended.
        #[arg(long, short)]
        follow: bool,
        /// Begin here.
        #[arg(long, value_name = "LSN|TIME")]
        from: Option<Moment>,
        /// So many of the last records, unless it is said where to begin.
        #[arg(long, short = 'n', value_name = "RECORDS", default_value_t = 10)]
        lines: usize,
        #[command(flatten)]
        filter: Filter,
    },
    /// Print every record as JSON: its header, its facts with their names and fields, and why it is void, if it is.
    #[command(after_help = "\
Examples:
  everfold log dump > history.jsonl
  everfold log dump --from 2026-07-01T00:00:00Z --until 2026-07-02T00:00:00Z --room '!room:example.org'
  everfold log dump --user alice | jq -c '.facts[] | .fact'

The schemas of header and facts are in schemas/json. Passwords are there as Argon2id strings, tokens as SHA-256.")]
    Dump {
        /// Begin here.
        #[arg(long, value_name = "LSN|TIME")]
        from: Option<Moment>,
        /// End here, including this record.
        #[arg(long, value_name = "LSN|TIME")]
        until: Option<Moment>,
        #[command(flatten)]
        filter: Filter,
    },
    /// Check every record: hash chain, facts, hashes and signatures of events; exit with 3 at the first damage.
    #[command(after_help = "\
Examples:
  everfold log verify && cp -a data/log backup
  everfold log verify | jq .chain                       two nodes that agree on this agree on the whole history

It recomputes the hash chain and compares it with what is noted on the log and in the read models, decodes every fact,
and checks each event's id and content hash, and this server's signature if its signing key is in the data folder, by that key or by older ones that stand below it.")]
    Verify,
    /// Copy a log, from one backend to another or to another folder, as it is: read models fit the copy, too.
    #[command(after_help = "\
Examples:
  everfold log copy --from embedded:data --to kafka://localhost:9092/everfold
  everfold log copy --from kafka://localhost:9092/everfold --to embedded:data
  everfold log copy --from embedded:data --to embedded:/mnt/larger/data

To outgrow one machine: copy the log beside the running server, which takes long; stop the server; copy again, which takes
what was appended meanwhile; set log.backend to the new place, and start it. The read models in the data folder go on.

Positions stay as they are, and the hash chain proves that nothing else did: both are printed. A copy that was cut off goes
on where it ended; a target that holds anything else is refused. The server of the target must not be running.

If clients have seen more than the copy has, as with an old copy of a log that was lost, add --as-new-epoch.")]
    Copy(copy::Args),
    /// Take a record that can't be folded out of effect, for every fold from now on. The server must not be running.
    #[command(after_help = "\
Example:
  everfold log amend --void 4711 --reason 'made by a faulty build; see the incident of 1 July'

A server that meets a record which it can't fold stops writing, names it, and does not start again. Run a newer build if
there is one. If the record is at fault, this takes it out: it stays on the log and in the hash chain, and is void. What
was decided on the strength of it is void, too.")]
    Amend {
        /// The record.
        #[arg(long, value_name = "LSN", value_parser = |text: &str| text.parse().map(Lsn))]
        void: Lsn,
        /// Why, for those who read the log later.
        #[arg(long)]
        reason: String,
    },
}

/// Which records.
#[derive(Debug, clap::Args)]
struct Filter {
    /// Only those that say something about this room.
    #[arg(long, value_name = "ROOM_ID")]
    room: Option<String>,
    /// Only those that this user caused: a user id, or the localpart of one of this server.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

impl Filter {
    fn takes(&self, record: &Shown, server: &str) -> bool {
        let by = |wanted: &String| match audit::user(&record.header.origin) {
            Some(user) if wanted.starts_with('@') => user == wanted,
            Some(user) => user.strip_prefix('@').and_then(|user| user.split_once(':')) == Some((wanted, server)),
            None => false,
        };
        let about = |wanted: &String| audit::is_about(&record.header, &record.facts, wanted);
        self.user.as_ref().is_none_or(by) && self.room.as_ref().is_none_or(about)
    }

    const fn takes_all(&self) -> bool {
        self.room.is_none() && self.user.is_none()
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.settings.load(Vec::new())?;
    let mut out = match args.command {
        Command::Dump { .. } => Output::new(true),
        _ => args.format.output(),
    };
    match &args.command {
        Command::Stat => stat(&config, &mut out)?,
        Command::Tail { follow, from, lines, filter } => {
            let trail = trail(&config)?;
            let next = tail(&trail, *from, *lines, filter, &mut out)?;
            if *follow {
                follow_on(&trail, next, filter, &mut out)?;
            }
        }
        Command::Dump { from, until, filter } => dump(&trail(&config)?, *from, *until, filter, &mut out)?,
        Command::Amend { void, reason } => amend::run(&config, *void, reason, &mut out)?,
        Command::Copy(args) => copy::run(&config, args, &mut out)?,
        Command::Verify => verify::run(&config, &mut out)?,
    }
    Ok(out.flush()?)
}

/// The log that the settings name, for reading beside a server.
pub(super) fn open(config: &Config) -> anyhow::Result<Arc<dyn LogReader>> {
    if let Some(replayed) = Replayed::find(&config.data)? {
        let (folder, lsn) = (config.data.display(), replayed.lsn);
        anyhow::bail!("{folder} is a replay up to Lsn {lsn}: it has read models, but no log");
    }
    Ok(match &config.log.backend {
        Backend::Embedded => Arc::new(EmbeddedLog::open_read_only(&config.log_folder())?),
        Backend::Kafka(topic) => Arc::new(KafkaLog::open_read_only(&config.log.kafka, topic)?),
    })
}

fn trail(config: &Config) -> anyhow::Result<Trail> {
    Ok(Trail { log: open(config)?, read_models: config.read_models_folder() })
}

fn server(log: &dyn LogReader) -> Result<String, ReadError> {
    Ok(genesis(log)?.map(|genesis| genesis.server_name).unwrap_or_default())
}

#[derive(Serialize)]
struct Stat {
    server_name: String,
    log_id: String,
    format: u8,
    tail: Lsn,
    /// Log time of the first and the last record, milliseconds since the Unix epoch.
    begun: u64,
    /// None on Kafka where the read models are not at the end: then nobody has computed it.
    log_time: Option<u64>,
    chain: Option<Chain>,
    /// On the disk; none where the log is on others.
    bytes: Option<u64>,
    /// Records that were taken out of effect by hand.
    amended: Vec<Amendment>,
    /// Up to where the read models are folded, and how many records till then are void.
    folded: Option<Lsn>,
    void: Option<usize>,
}

fn stat(config: &Config, out: &mut Output) -> anyhow::Result<()> {
    // The read models come first, so that they can't be ahead.
    let view = View::beside(&config.read_models_folder())?;
    let log = open(config)?;
    let genesis = genesis(&*log)?.context("the log is empty")?;
    let begun = log.read(Lsn::FIRST, 1, 1)?.first().map(|first| Record::decode_header(&first.bytes).map(|(it, _)| it));
    let folded = || {
        let cursor = view.as_ref()?.cursor();
        (cursor.lsn == log.tail()).then_some(Note { chain: cursor.chain, time: cursor.log_time })
    };
    let last = log.note(log.tail())?.or_else(folded);
    let mut bytes = None;
    if config.log.backend == Backend::Embedded {
        let mut sum = 0;
        for file in std::fs::read_dir(config.log_folder())? {
            // The server may have removed it by now.
            sum += file?.metadata().map_or(0, |file| file.len());
        }
        bytes = Some(sum);
    }
    let voids = view.as_ref().map(|view| admission::voids(view, Lsn::FIRST).count());
    let stat = Stat {
        server_name: genesis.server_name,
        log_id: hex::encode(genesis.log_id.0),
        format: genesis.format,
        tail: log.tail(),
        begun: begun.context("the log is empty")??.at_ms,
        log_time: last.map(|note| note.time.ms),
        chain: last.map(|note| note.chain),
        bytes,
        amended: log.amendments().iter().cloned().collect(),
        folded: view.map(|view| view.lsn()),
        void: voids,
    };
    out.print(&stat, |stat| {
        let Stat { server_name, log_id, tail, .. } = stat;
        let begun = time(stat.begun);
        let size = stat.bytes.map(|bytes| format!(", {} MiB", bytes.div_ceil(1 << 20))).unwrap_or_default();
        let end = stat.log_time.map(|end| format!(" at {}", time(end))).unwrap_or_default();
        let chain = stat.chain.map_or_else(|| "see `everfold log verify`".to_owned(), |chain| chain.to_string());
        let folded = stat.folded.map_or_else(|| "not at all".to_owned(), |lsn| format!("up to {lsn}"));
        let void = stat.void.unwrap_or_default();
        format!(
            "log {log_id} of {server_name}{size}\nbegun  {begun}\ntail   {tail}{end}\nchain  {chain}\n\
             folded {folded}, {void} records void"
        )
    })?;
    Ok(())
}

/// Prints what is there, and says from where on to follow.
fn tail(trail: &Trail, from: Option<Moment>, lines: usize, filter: &Filter, out: &mut Output) -> anyhow::Result<Lsn> {
    let (end, server) = (trail.log.tail(), server(&*trail.log)?);
    let close = Lsn((end.0 + 1).saturating_sub(lines as u64)).max(Lsn::FIRST);
    let start = match from {
        Some(moment) => moment.from(trail.log.tail(), |ms| trail.log.at_time(ms))?,
        // Unless the log has gaps there.
        None if filter.takes_all() && trail.log.read(close, lines, usize::MAX)?.len() >= lines => close,
        None => Lsn::FIRST,
    };
    let mut last = VecDeque::new();
    trail.walk(start, Some(end), |record| {
        if !filter.takes(&record, &server) {
            return Ok(());
        }
        if from.is_some() {
            return Ok(out.print(&record, line)?);
        }
        last.push_back(record);
        if last.len() > lines {
            last.pop_front();
        }
        Ok(())
    })?;
    last.iter().try_for_each(|record| out.print(record, line))?;
    out.flush()?;
    Ok(start.max(end.next()))
}

fn follow_on(trail: &Trail, from: Lsn, filter: &Filter, out: &mut Output) -> anyhow::Result<()> {
    let server = server(&*trail.log)?;
    trail.walk(from, None, |record| {
        if filter.takes(&record, &server) {
            out.print(&record, line)?;
            out.flush()?;
        }
        Ok(())
    })
}

/// A record for people.
fn line(record: &Shown) -> String {
    let who = match &record.header.origin {
        Origin::User { user, device } => match device {
            Some(device) => format!("{user} {device}"),
            None => user.clone(),
        },
        Origin::Remote { server } => server.clone(),
        Origin::AppService { id } => format!("application service {id}"),
        Origin::Admin { user } => format!("{user} as administrator"),
        Origin::Server => "the server".to_owned(),
    };
    let mut facts: Vec<_> = record.facts.iter().map(schemas::Fact::name).collect();
    facts.dedup();
    let void = record.void.map(|void| format!("  void: {}", void.reason())).unwrap_or_default();
    let when = time(record.log_time.unwrap_or(record.header.at_ms));
    format!("{:>8}  {when}  {who}  {}{void}", record.lsn.0, facts.join(" "))
}

fn dump(
    trail: &Trail,
    from: Option<Moment>,
    until: Option<Moment>,
    filter: &Filter,
    out: &mut Output,
) -> anyhow::Result<()> {
    let at_time = |ms| trail.log.at_time(ms);
    let from = from.map_or(Ok(Lsn::FIRST), |moment| moment.from(trail.log.tail(), at_time))?;
    let until = until.map_or(Ok(trail.log.tail()), |moment| moment.until(trail.log.tail(), at_time))?;
    let server = server(&*trail.log)?;
    // Beside the records themselves it would only be in the way.
    let bar = if std::io::stdout().is_terminal() { ProgressBar::hidden() } else { bar("records", until.0) };
    let show = report(&bar);
    trail.walk(from, Some(until), |record| {
        show(record.lsn, until);
        if filter.takes(&record, &server) {
            out.print(&record, line)?;
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(())
}
