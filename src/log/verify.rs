//! Reads a log from its first record on and stops at the first damage.
//!
//! Checksums find what chance alters. Whoever alters a record *and* its checksum breaks the hash chain there; whoever
//! rewrites the chain too no longer agrees with the read models' cursor, or with another node; and no one can give an
//! event another content under its old id and signatures, which the caller checks for each fact.

use projections::{Cursor, Entry};
use schemas::{Fact, Lsn, Record};

use super::{LogReader, Note, ReadError, Stamp};

/// Records are read in batches of this size.
const BATCH_RECORDS: usize = 1_024;
const BATCH_BYTES: usize = 4 << 20;

/// What to check beyond what the log says of itself.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// Where the read models are: the log must have come by there, with the same history.
    pub cursor: Option<&'a Cursor>,
    /// Says what is wrong with a fact, such as the hashes or signatures of its event.
    pub fact: &'a dyn Fn(&Fact) -> Result<(), String>,
    /// Which records are known to be out of effect, beside those of which the log says it.
    pub amended: &'a dyn Fn(Lsn) -> bool,
    /// Is told how far it has come, and the position where it will end.
    pub progress: &'a dyn Fn(Lsn, Lsn),
}

impl Default for Checks<'_> {
    fn default() -> Self {
        Self { cursor: None, fact: &|_| Ok(()), amended: &|_| false, progress: &|_, _| {} }
    }
}

/// A log, or what of it was there when the check began, in which nothing is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The last record.
    pub tail: Lsn,
    /// Chain and log time there.
    pub note: Note,
    /// Records.
    pub records: u64,
    /// Their facts.
    pub facts: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Checks every record and fact, in order.
///
/// # Errors
/// The first damage, with its position.
pub fn verify(log: &dyn LogReader, checks: Checks<'_>) -> Result<Verified, ReadError> {
    let mut verified = Verified::default();
    verified.go_on(log, checks)?;
    match checks.cursor {
        Some(cursor) if cursor.lsn > verified.tail => {
            let (folded, end) = (cursor.lsn, verified.tail);
            let why = format!("the read models have folded up to {folded}, but the log ends at {end}");
            Err(damaged(end.next(), why))
        }
        _ => Ok(verified),
    }
}

impl Verified {
    /// Checks what the log has after that, too, up to where it goes now.
    ///
    /// # Errors
    /// The first damage, with its position.
    pub fn go_on(&mut self, log: &dyn LogReader, checks: Checks<'_>) -> Result<(), ReadError> {
        let end = log.tail();
        while self.tail < end {
            let entries = log.read(self.tail.next(), BATCH_RECORDS, BATCH_BYTES)?;
            if entries.is_empty() {
                return Err(damaged(self.tail.next(), "it is missing, although the log goes on"));
            }
            for entry in entries.into_iter().take_while(|entry| entry.lsn <= end) {
                self.check(log, &entry, checks)?;
            }
            (checks.progress)(self.tail, end);
        }
        Ok(())
    }

    fn check(&mut self, log: &dyn LogReader, entry: &Entry, checks: Checks<'_>) -> Result<(), ReadError> {
        let (lsn, bytes) = (entry.lsn, &entry.bytes);
        let refuse = |source| ReadError::Record { lsn, source };
        let record = Record::decode(bytes).map_err(refuse)?;
        let note = self.note.next(lsn, bytes, Stamp::of(&record));
        if let Some(noted) = log.note(lsn)? {
            if noted.chain != note.chain {
                return Err(damaged(lsn, "it is not the record that the hash chain was made with"));
            }
            if noted.time != note.time {
                return Err(damaged(lsn, "the log time noted with it doesn't follow from the records"));
            }
        }
        // What was taken out of effect need not be anything that can be folded.
        let facts = if entry.amended || (checks.amended)(lsn) { &[] } else { &record.facts[..] };
        for (index, fact) in facts.iter().enumerate() {
            let fact = fact.decode().map_err(refuse)?;
            (checks.fact)(&fact).map_err(|why| damaged(lsn, format!("fact {index} ({}): {why}", fact.name())))?;
        }
        if let Some(cursor) = checks.cursor.filter(|cursor| cursor.lsn == lsn && cursor.chain != note.chain) {
            let (there, here) = (cursor.chain, note.chain);
            let why = format!("the chain here is {here}, but {there} in the read models: it or one before was altered");
            return Err(damaged(lsn, why));
        }
        self.tail = lsn;
        self.note = note;
        self.records += 1;
        self.facts += record.facts.len() as u64;
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

fn damaged(lsn: Lsn, why: impl Into<String>) -> ReadError {
    ReadError::Damaged { lsn, why: why.into() }
}
