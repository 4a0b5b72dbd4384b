use std::sync::Arc;

use bytes::Bytes;
use projections::{View, dry_fold, models::staging};
use schemas::{
    After, Blob, CopyId, DecodeError, Draft, Fact, Header, Lsn, Origin, RawFact, Record, RecordId,
    facts::{EventBodies, EventLearned, IdleGap, StagedEvents},
};

use super::{Error, Lease, Parts, Refusal, Request};
use crate::telemetry;

/// A staged part holds about so many bytes of events; an event has at most 64 KiB.
const PART_BYTES: usize = 512 << 10;
/// A decision stages at most so many parts.
const MAX_PARTS: usize = 32;

/// Folding what one decision puts on the log writes at most so many keys, whole ranges that go apart.
const MAX_WRITES: u64 = 6_144;

/// Makes records out of drafts: stamps them with id, attempt, time and node, and checks that they can be folded.
pub struct Stamp {
    parts: Arc<Parts>,
    origin: Origin,
    cause: Option<Lsn>,
    lease: Option<Lease>,
    id: RecordId,
    attempt: u16,
    copy: CopyId,
    /// The request's, so that its log lines show what it wrote.
    span: tracing::Span,
}

impl Stamp {
    /// For the attempts at one request.
    #[must_use]
    pub fn new(parts: &Arc<Parts>, request: Request) -> Self {
        let id = request.id.unwrap_or_else(|| parts.random.record_id());
        let span = tracing::Span::current();
        let Request { origin, cause, lease, .. } = request;
        let copy = parts.random.copy_id();
        Self { parts: Arc::clone(parts), origin, cause, lease, id, attempt: 0, copy, span }
    }

    /// The record's id: the same in all attempts.
    #[must_use]
    pub const fn id(&self) -> RecordId {
        self.id
    }

    /// What names this attempt's record to those that build on it.
    #[must_use]
    pub const fn mark(&self) -> After {
        After { id: self.id, copy: self.copy }
    }

    /// Notes where the record was applied.
    pub fn applied(&self, lsn: Lsn) {
        telemetry::wrote(&self.span, self.id, lsn);
    }

    /// Counts an attempt that came to nothing.
    pub fn again(&mut self) {
        self.attempt = self.attempt.saturating_add(1);
        self.copy = self.parts.random.copy_id();
        self.parts.metrics.decisions_again_total.inc();
    }

    /// How many attempts came to nothing.
    #[must_use]
    pub const fn attempts(&self) -> u16 {
        self.attempt
    }

    /// The bytes of a draft's record, and of what has to stand before it: an `IdleGap` where log time would hold it back,
    /// staged events where it would be too large. They are folded dry, so that no poison gets on the log.
    ///
    /// # Errors
    /// When the record is too large, would change too much, or could not be folded; when the lease is another node's.
    pub fn seal(&self, draft: Draft, view: &View) -> Result<Vec<Bytes>, Error> {
        let (header, facts) = self.stamp(draft, view, None)?;
        let mut records = self.idle_gap(view, &header)?;
        match encode(header.clone(), &facts) {
            Err(DecodeError::TooLarge { .. }) => self.stage(header, facts, &mut records)?,
            encoded => records.push(encoded?),
        }
        let dry: Vec<Arc<[u8]>> = records.iter().map(|bytes| Arc::from(&bytes[..])).collect();
        let cost = dry_fold(view, view.cursor(), &dry).map_err(|error| broken(&error))?;
        // What other servers have decided among themselves can't be asked for in smaller pieces.
        if cost.writes > MAX_WRITES && !matches!(self.origin, Origin::Remote { .. }) {
            return Err(Refusal::too_large("the request changes more than can be recorded at once").into());
        }
        Ok(records)
    }

    /// The bytes of a message's record. It may build on one still in flight (`after`), which is not in the view: so it is
    /// decoded again, and not folded dry.
    ///
    /// # Errors
    /// When the record is too large, or could not be decoded; when the lease is another node's.
    pub fn seal_message(&self, draft: Draft, view: &View, after: Option<After>) -> Result<Vec<Bytes>, Error> {
        let (header, facts) = self.stamp(draft, view, after)?;
        let mut records = if after.is_none() { self.idle_gap(view, &header)? } else { Vec::with_capacity(1) };
        let bytes = encode(header, &facts)?;
        let record = Record::decode(&bytes).map_err(|error| broken(&error))?;
        record.facts.iter().try_for_each(|fact| fact.decode().map(drop)).map_err(|error| broken(&error))?;
        records.push(bytes);
        Ok(records)
    }

    fn stamp(&self, draft: Draft, view: &View, after: Option<After>) -> Result<(Header, Vec<Fact>), Error> {
        let Draft { mut reads, writes, facts } = draft;
        reads.extend(self.lease.map(|lease| lease.guard(view)).transpose()?);
        let header = self.header(self.mark(), self.parts.now_ms());
        Ok((Header { attempt: self.attempt, reads, writes, after, ..header }, facts))
    }

    fn idle_gap(&self, view: &View, header: &Header) -> Result<Vec<Bytes>, Error> {
        let mut records = Vec::with_capacity(2);
        if view.log_time().needs_idle_gap(header.at_ms) {
            let gap = self.header(self.parts.random.mark(), header.at_ms);
            records.push(encode(Header { origin: Origin::Server, ..gap }, &[IdleGap {}.into()])?);
        }
        Ok(records)
    }

    fn header(&self, mark: After, at_ms: u64) -> Header {
        let header = Header::plain(mark, at_ms, self.origin.clone());
        Header { node: self.parts.node, cause: self.cause, ..header }
    }

    /// Events go into records of their own, which have no effect until the deciding record names them.
    fn stage(&self, header: Header, facts: Vec<Fact>, records: &mut Vec<Bytes>) -> Result<(), Error> {
        let set = Blob(self.parts.random.record_id().0.to_vec());
        let mut parts = vec![EventBodies { set: set.clone(), n: 0, events: Vec::new() }];
        let (mut others, mut bytes, mut n) = (Vec::new(), 0, 0);
        for fact in facts {
            let Fact::EventLearned(event) = fact else {
                others.push(fact);
                continue;
            };
            bytes += size(&event);
            if bytes > PART_BYTES {
                bytes = size(&event);
                n += 1;
                parts.push(EventBodies { set: set.clone(), n, events: Vec::new() });
            }
            if let Some(part) = parts.last_mut() {
                part.events.push(event);
            }
        }
        if parts.len() > MAX_PARTS {
            return Err(Refusal::too_large("the request makes more events than can be recorded at once").into());
        }
        let staged = StagedEvents { sha256: staging::checksum(&parts), set, count: n + 1 };
        // Where a log loses one of them and takes the rest, as brokers may, whatever names the set is void.
        let mut after = None;
        for part in parts {
            let mark = self.parts.random.mark();
            let own = Header { after, ..self.header(mark, header.at_ms) };
            after = Some(mark);
            records.push(encode(own, &[part.into()])?);
        }
        others.insert(0, staged.into());
        records.push(encode(Header { after, ..header }, &others)?);
        Ok(())
    }
}

fn size(event: &EventLearned) -> usize {
    let rest = event.rest.as_ref().and_then(schemas::Part::open).map_or(0, <[u8]>::len);
    event.skeleton.0.len() + rest + event.id.len() + event.room.len()
}

fn encode(header: Header, facts: &[Fact]) -> Result<Bytes, DecodeError> {
    let record = Record { header, facts: facts.iter().map(RawFact::from).collect() };
    record.encode().map(Bytes::from)
}

fn broken(error: &impl std::fmt::Display) -> Error {
    Error::Internal(format!("a decision could not be folded: {error}"))
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge { .. } => Refusal::too_large("the request is too large to be recorded").into(),
            other => Self::Internal(other.to_string()),
        }
    }
}
