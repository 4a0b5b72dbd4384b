use schemas::{Fact, Header, LogTime, Lsn, Nid};

use crate::{Batch, FoldError, Model};

/// Where a fact stands: everything besides the tables that a fold may depend on.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The record.
    pub lsn: Lsn,
    /// The fact's place in it; events of a staged set take a place each.
    pub index: u16,
    /// The record's header.
    pub header: &'a Header,
    /// Log time at the record.
    pub log_time: LogTime,
}

impl At<'_> {
    /// The short id of what this fact introduces.
    #[must_use]
    pub const fn nid(&self) -> Nid {
        Nid { lsn: self.lsn, index: self.index }
    }

    /// The error for a fact that can't be folded.
    #[must_use]
    pub fn refuse(&self, why: impl Into<String>) -> FoldError {
        FoldError::Fact { lsn: self.lsn, why: why.into() }
    }
}

/// A model's fold.
pub struct Projection {
    /// Whose.
    pub model: Model,
    /// Rises whenever the same log would give other rows: the model is then folded again at the next start.
    pub version: u16,
    /// The models whose tables the fold looks at, all above this one.
    pub reads: &'static [Model],
    /// Folds one fact. It depends on nothing but its arguments.
    pub fold: fn(&At<'_>, &Fact, &mut Batch<'_>) -> Result<(), FoldError>,
}
