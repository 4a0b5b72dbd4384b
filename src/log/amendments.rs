//! Amendments: records taken out of effect by hand, because they can't be folded. They stay on the log, in the hash
//! chain and in log time, and are void for every fold.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

use schemas::Lsn;
use serde::{Deserialize, Serialize};

/// In the log's folder, so that it is backed up with it: a JSON object a line.
const FILE: &str = "amendments.jsonl";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// The record.
    pub void: Lsn,
    /// Why.
    pub reason: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// All of a log, by record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amendments(BTreeMap<Lsn, Amendment>);

impl FromIterator<Amendment> for Amendments {
    fn from_iter<I: IntoIterator<Item = Amendment>>(amendments: I) -> Self {
        Self(amendments.into_iter().map(|amendment| (amendment.void, amendment)).collect())
    }
}

impl Amendments {
    /// Reads those of the log in a folder.
    ///
    /// # Errors
    /// When the file can't be read, or is malformed.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let file = match File::open(folder.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let read = |line: io::Result<String>| Ok(serde_json::from_str::<Amendment>(&line?)?);
        BufReader::new(file).lines().map(read).collect()
    }

    /// Adds one, durably. Only the log's writer may.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn add(folder: &Path, amendment: &Amendment) -> io::Result<()> {
        let mut line = serde_json::to_vec(amendment)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().append(true).create(true).open(folder.join(FILE))?;
        file.write_all(&line)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    }

    /// Leaves a copy of the file in another folder, if there are any.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.0.is_empty() { Ok(()) } else { std::fs::copy(from.join(FILE), to.join(FILE)).map(|_| ()) }
    }

    /// Whether a record was taken out of effect.
    #[must_use]
    pub fn has(&self, lsn: Lsn) -> bool {
        self.0.contains_key(&lsn)
    }

    /// All of them, in the records' order.
    pub fn iter(&self) -> impl Iterator<Item = &Amendment> {
        self.0.values()
    }
}
