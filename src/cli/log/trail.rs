//! Records in order, each with what the log and admission say of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use projections::{Entry, Judge, View, models::admission};
use schemas::{Chain, Fact, Header, Lsn, Record, admission::Void};
use serde::Serialize;

use crate::{
    fold::{StartError, check_fit},
    log::{LogReader, Note, ReadError},
};

/// Records are read in batches of this size.
const BATCH_RECORDS: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;
/// Another process can't wake this one.
const POLL: Duration = Duration::from_millis(200);
/// What was learned of so many records since the end was reached is forgotten for a new view of the read models.
const RENEW: u64 = 100_000;

/// A record as dumps show it.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub lsn: Lsn,
    /// Milliseconds since the Unix epoch. Where the log takes no notes (Kafka), this and the chain are known from the
    /// first record on, or from where the read models are.
    pub log_time: Option<u64>,
    /// The hash chain's value after it.
    pub chain: Option<Chain>,
    /// Why it has no effect; none if it counts.
    pub void: Option<Void>,
    pub header: Header,
    pub facts: Vec<Fact>,
}

/// A log that is read beside its server. Which records are void, the read models say as far as they are; from there on,
/// or where there are none, each record is judged anew.
pub(super) struct Trail {
    pub log: Arc<dyn LogReader>,
    pub read_models: PathBuf,
}

impl Trail {
    /// Hands over the records from a position on, up to another (both inclusive), or for ever.
    pub fn walk(
        &self,
        from: Lsn,
        until: Option<Lsn>,
        mut each: impl FnMut(Shown) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut next = from;
        while !self.stretch(&mut next, until, &mut each)? {}
        Ok(())
    }

    /// Walks on with one view of the read models, and says whether that was all.
    fn stretch(
        &self,
        next: &mut Lsn,
        until: Option<Lsn>,
        each: &mut dyn FnMut(Shown) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let view = self.view()?;
        let mut judge = Judge::new(&view);
        let mut at = view.lsn().next().min(*next);
        let mut learned = None;
        let mut note = (at <= Lsn::FIRST).then(Note::default);
        loop {
            let tail = if until.is_none() { self.log.refresh()? } else { self.log.tail() };
            let end = until.unwrap_or(tail).min(tail);
            while at <= end {
                let entries = self.log.read(at, BATCH_RECORDS, BATCH_BYTES)?;
                // The end need not be a record.
                at = entries.last().map_or(end, |last| last.lsn).min(end).next();
                for entry in entries.iter().take_while(|entry| entry.lsn <= end) {
                    let is_folded = entry.lsn <= view.lsn();
                    let void = if is_folded { admission::void(&view, entry.lsn)? } else { judge.next(entry)? };
                    note = self.note(entry, note, &view)?;
                    if entry.lsn >= *next {
                        each(show(entry, void, note)?)?;
                    }
                }
            }
            *next = at.max(*next);
            let records = judge.cursor().records;
            if until.is_some() || records - *learned.get_or_insert(records) > RENEW {
                return Ok(until.is_some());
            }
            std::thread::sleep(POLL);
        }
    }

    /// The note for a record, given that for the one before it.
    fn note(&self, entry: &Entry, before: Option<Note>, view: &View) -> Result<Option<Note>, ReadError> {
        let lsn = entry.lsn;
        if let Some(note) = self.log.note(lsn)? {
            return Ok(Some(note));
        }
        if lsn == view.lsn() {
            return Ok(Some(Note { chain: view.cursor().chain, time: view.log_time() }));
        }
        let Some(Note { chain, time }) = before else { return Ok(None) };
        let record = Record::decode(&entry.bytes).map_err(|source| ReadError::Record { lsn, source })?;
        Ok(Some(Note { chain: chain.extend(lsn, &entry.bytes), time: time.advance(&record) }))
    }

    /// The read models, if they are a fold of this log.
    fn view(&self) -> anyhow::Result<View> {
        // Damaged ones are no reason not to read the log.
        let beside = View::beside(&self.read_models).ok().flatten();
        self.log.refresh()?;
        match beside.map(|view| (check_fit(&*self.log, view.cursor()), view)) {
            Some((Ok(()), view)) => Ok(view),
            Some((Err(StartError::Log(error)), _)) => Err(error.into()),
            _ => Ok(View::empty()),
        }
    }
}

fn show(entry: &Entry, void: Option<Void>, note: Option<Note>) -> anyhow::Result<Shown> {
    let lsn = entry.lsn;
    let refuse = |source| ReadError::Record { lsn, source };
    let Record { header, facts } = Record::decode(&entry.bytes).map_err(refuse)?;
    let decoded = facts.iter().map(|fact| fact.decode().map_err(refuse));
    // Of what was taken out of effect, whatever can be read.
    let facts = if entry.amended { decoded.flatten().collect() } else { decoded.collect::<Result<_, _>>()? };
    let (log_time, chain) = (note.map(|note| note.time.ms), note.map(|note| note.chain));
    Ok(Shown { lsn, log_time, chain, void, header, facts })
}
