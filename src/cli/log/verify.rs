use std::cell::Cell;

use projections::{Cursor, View};
use schemas::{Chain, Fact, Lsn};
use serde::Serialize;

use crate::{
    cli::{
        damage,
        output::{Output, bar, report, time},
    },
    config::Config,
    keys::{KeyError, OwnKey},
    log::{
        LogReader, ReadError, genesis,
        verify::{Checks, Verified, verify},
    },
    rooms::intact,
};

#[derive(Serialize)]
struct Sound {
    ok: bool,
    tail: Lsn,
    log_time: u64,
    chain: Chain,
    records: u64,
    facts: u64,
    /// Events among them.
    events: u64,
    bytes: u64,
    /// Whether this server's signing key was there to check its signatures with.
    signatures: bool,
    /// Up to where the read models agree; none if there are none.
    read_models: Option<Lsn>,
}

#[derive(Serialize)]
struct Damaged<'a> {
    ok: bool,
    lsn: Lsn,
    why: &'a str,
}

/// Checks a log, and says what was checked, or what the first damage is.
pub(super) fn run(config: &Config, out: &mut Output) -> anyhow::Result<()> {
    let checked = check(config);
    match &checked {
        Ok(sound) => out.print(sound, text)?,
        Err(error) if out.is_json() => {
            if let Some((lsn, why)) = damage(error).and_then(place) {
                out.print(&Damaged { ok: false, lsn, why: &why }, |_| String::new())?;
                out.flush()?;
            }
        }
        Err(_) => {}
    }
    checked.map(|_| ())
}

fn place(error: &ReadError) -> Option<(Lsn, String)> {
    match error {
        ReadError::Damaged { lsn, why } => Some((*lsn, why.clone())),
        ReadError::Record { lsn, source } => Some((*lsn, source.to_string())),
        ReadError::Backend(_) => None,
    }
}

fn check(config: &Config) -> anyhow::Result<Sound> {
    // The read models come first: while a server runs, the log is always ahead of them.
    let view = View::beside(&config.read_models_folder())?;
    let cursor: Option<&Cursor> = view.as_ref().map(View::cursor).filter(|cursor| cursor.lsn > Lsn::ZERO);
    let log = super::open(config)?;
    let key = signing_key(config, &*log)?;
    let events = Cell::new(0_u64);
    let fact = |fact: &Fact| {
        match fact {
            Fact::EventLearned(_) => events.set(events.get() + 1),
            Fact::EventBodies(bodies) => events.set(events.get() + bodies.events.len() as u64),
            _ => {}
        }
        intact::check(fact, key.as_ref())
    };
    let bar = bar("records", log.tail().0);
    let verified = verify(&*log, Checks { cursor, fact: &fact, progress: &report(&bar), ..Checks::default() });
    bar.finish_and_clear();
    let Verified { tail, note, records, facts, bytes } = verified?;
    let signatures = key.is_some();
    let (log_time, chain, read_models) = (note.time.ms, note.chain, cursor.map(|cursor| cursor.lsn));
    Ok(Sound { ok: true, tail, log_time, chain, records, facts, events: events.get(), bytes, signatures, read_models })
}

/// The keys in the data folder; none if it isn't there, as beside a copy of the log.
fn signing_key(config: &Config, log: &dyn LogReader) -> anyhow::Result<Option<OwnKey>> {
    let file = config.signing_key_file();
    let Some(genesis) = genesis(log)? else { return Ok(None) };
    match OwnKey::open(&file, &ruma::OwnedServerName::try_from(genesis.server_name)?) {
        Err(KeyError::Missing { .. }) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn text(sound: &Sound) -> String {
    let Sound { tail, records, facts, events, bytes, chain, .. } = sound;
    let signatures =
        if sound.signatures { "their signatures by this server" } else { "no signatures (no signing key)" };
    let models = match sound.read_models {
        Some(lsn) => format!("the read models agree with it up to {lsn}"),
        None => "there are no read models to compare with".to_owned(),
    };
    let end = time(sound.log_time);
    format!(
        "nothing is wrong up to {tail} at {end}: {records} records with {facts} facts, {bytes} bytes\n\
         checked {events} events, and {signatures}; {models}\nchain {chain}"
    )
}
