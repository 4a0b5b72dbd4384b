//! Whether a record is applied or void, from its header alone. Frozen with format 1; `fixtures/admission.json` holds
//! test vectors, so that thirty lines in any language can tell void from applied.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CopyId, Expect, Header, Key, Lsn, RecordId};

/// What admission knows of the log so far.
pub trait Known {
    /// Why a look-up can fail.
    type Error;

    /// Where the record with this id was applied, and which of that id it was, if one was.
    ///
    /// # Errors
    /// When the store can't be read.
    fn applied(&self, id: &RecordId) -> Result<Option<(Lsn, CopyId)>, Self::Error>;

    /// The last applied record that wrote the key.
    ///
    /// # Errors
    /// When the store can't be read.
    fn written(&self, key: &Key) -> Result<Option<(Lsn, RecordId)>, Self::Error>;
}

/// Why a record is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Void {
    /// A record with its id was applied before, at this Lsn.
    Repeated(Lsn),
    /// The record that it builds on was not applied, be it that another with its id was.
    LostPredecessor,
    /// Something got in between: the read with this place in the header doesn't match.
    StaleRead(u16),
    /// It can't be folded, and was taken out of effect by hand; its header does not tell.
    Amended,
}

impl Void {
    /// A word for metrics and tools.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Repeated(_) => "repeated",
            Self::LostPredecessor => "lost_predecessor",
            Self::StaleRead(_) => "stale_read",
            Self::Amended => "amended",
        }
    }
}

/// Judges a header: `Ok(None)` is applied, `Ok(Some(_))` is void.
///
/// # Errors
/// When what is known can't be read.
pub fn judge<K: Known>(header: &Header, known: &K) -> Result<Option<Void>, K::Error> {
    if let Some((lsn, _)) = known.applied(&header.id)? {
        return Ok(Some(Void::Repeated(lsn)));
    }
    if let Some(after) = &header.after
        && known.applied(&after.id)?.is_none_or(|(_, copy)| copy != after.copy)
    {
        return Ok(Some(Void::LostPredecessor));
    }
    for (place, read) in (0..).zip(&header.reads) {
        let matches = match (read.expect, known.written(&read.key)?) {
            (Expect::Absent, None) => true,
            (Expect::At(expected), Some((lsn, _))) => expected == lsn,
            (Expect::By(expected), Some((_, id))) => expected == id,
            _ => false,
        };
        if !matches {
            return Ok(Some(Void::StaleRead(place)));
        }
    }
    Ok(None)
}
