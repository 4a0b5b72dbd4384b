use std::sync::Arc;

use bytes::Bytes;
use projections::{View, dry_fold};
use schemas::{Draft, FORMAT, Fact, Header, Lsn, Origin, RawFact, Record, RecordId, facts::IdleGap};

use super::{Error, Parts, Refusal, Request};
use crate::telemetry;

/// Makes records out of drafts: stamps them with id, attempt, time and node, and checks that they can be folded.
pub struct Stamp {
    parts: Arc<Parts>,
    origin: Origin,
    id: RecordId,
    attempt: u16,
    /// The request's, so that its log lines show what it wrote.
    span: tracing::Span,
}

impl Stamp {
    /// For the attempts at one request.
    #[must_use]
    pub fn new(parts: &Arc<Parts>, request: Request) -> Self {
        let id = request.id.unwrap_or_else(|| parts.random_id());
        let span = tracing::Span::current();
        Self { parts: Arc::clone(parts), origin: request.origin, id, attempt: 0, span }
    }

    /// The record's id: the same in all attempts.
    #[must_use]
    pub const fn id(&self) -> RecordId {
        self.id
    }

    /// Who asks.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Notes where the record was applied.
    pub fn applied(&self, lsn: Lsn) {
        telemetry::wrote(&self.span, self.id, lsn);
    }

    /// Counts an attempt that came to nothing.
    pub fn again(&mut self) {
        self.attempt = self.attempt.saturating_add(1);
    }

    /// The bytes of a draft's record, and of an `IdleGap` before it where log time would hold it back. A record that
    /// doesn't build on one still in flight (`after`) is folded dry, so that no poison gets on the log.
    ///
    /// # Errors
    /// When the record is too large, or could not be folded.
    pub fn seal(&self, draft: Draft, view: &View, after: Option<RecordId>) -> Result<Vec<Bytes>, Error> {
        let header = Header {
            format: FORMAT,
            id: self.id,
            attempt: self.attempt,
            at_ms: self.parts.now_ms(),
            node: self.parts.node,
            origin: self.origin.clone(),
            cause: None,
            reads: draft.reads,
            writes: draft.writes,
            after,
        };
        let mut records = Vec::with_capacity(1);
        if view.log_time().needs_idle_gap(header.at_ms) && after.is_none() {
            records.push(self.parts.idle_gap(header.at_ms)?);
        }
        let record = Record { header, facts: draft.facts.iter().map(RawFact::from).collect() };
        let bytes = record.encode().map_err(|_| Refusal::too_large("the request is too large to be recorded"))?;
        let broken = |error: String| Error::Internal(format!("a decision could not be folded: {error}"));
        if after.is_none() {
            dry_fold(view, view.cursor(), Arc::from(bytes.as_slice())).map_err(|error| broken(error.to_string()))?;
        } else {
            // What it builds on is not in the view yet: it must at least decode.
            let record = Record::decode(&bytes).map_err(|error| broken(error.to_string()))?;
            record.facts.iter().try_for_each(|fact| fact.decode().map(drop)).map_err(|e| broken(e.to_string()))?;
        }
        records.push(Bytes::from(bytes));
        Ok(records)
    }
}

impl Parts {
    pub(crate) fn random_id(&self) -> RecordId {
        let mut id = [0; 16];
        self.random.fill(&mut id);
        RecordId(id)
    }

    fn idle_gap(&self, at_ms: u64) -> Result<Bytes, Error> {
        let header = Header {
            format: FORMAT,
            id: self.random_id(),
            attempt: 0,
            at_ms,
            node: self.node,
            origin: Origin::Server,
            cause: None,
            reads: Vec::new(),
            writes: Vec::new(),
            after: None,
        };
        let record = Record { header, facts: vec![RawFact::from(&Fact::from(IdleGap {}))] };
        record.encode().map(Bytes::from).map_err(|error| Error::Internal(error.to_string()))
    }
}
