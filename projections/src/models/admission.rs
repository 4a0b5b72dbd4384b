//! Whether a record is applied or void; who wrote a guarded key last; which requests were applied.
//!
//! Tables: 1 `record id -> Admitted`; 2 `key -> Written`; 3 `ordinal -> record id`, for expiry; 4 `lsn -> Void`.

use schemas::{
    CopyId, Fact, Key, Lsn, RecordId,
    admission::{Known, Void, judge},
};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Rows, Table, decode, row},
};

const IDS: Table = Table { model: Model::Admission, prefix: 1 };
const KEYS: Table = Table { model: Model::Admission, prefix: 2 };
const QUEUE: Table = Table { model: Model::Admission, prefix: 3 };
const VOIDS: Table = Table { model: Model::Admission, prefix: 4 };

/// Record ids are known for this much log time at the least, in milliseconds …
const KEEP_MS: u64 = 24 * 60 * 60 * 1000;
/// … and for this many records.
const KEEP_RECORDS: u64 = 1_000_000;
/// At most so many ids are forgotten with one record: more than are learned, so that a backlog shrinks.
const FORGET: usize = 2;

/// The fold itself is [`fold`], called by the projector before all others: this entry only gives it its place.
pub const PROJECTION: Projection = Projection { model: Model::Admission, version: 3, reads: &[], fold: nothing };

fn nothing(_: &At<'_>, _: &Fact, _: &mut Batch<'_>) -> Result<(), FoldError> {
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Admitted {
    lsn: Lsn,
    log_time_ms: u64,
    copy: CopyId,
}

#[derive(Serialize, Deserialize)]
struct Written {
    lsn: Lsn,
    id: RecordId,
}

/// Judges a record, the `ordinal`-th of the log, and notes what follows from it.
pub(crate) fn fold(at: &At<'_>, ordinal: u64, batch: &mut Batch<'_>) -> Result<Option<Void>, FoldError> {
    let void = judge(at.header, &Tables(&*batch))?;
    if let Some(void) = void {
        batch.put(VOIDS, at.lsn.to_bytes(), &void);
        return Ok(Some(void));
    }
    let admitted = Admitted { lsn: at.lsn, log_time_ms: at.log_time.ms, copy: at.header.copy };
    batch.put(IDS, at.header.id.0, &admitted);
    batch.put_raw(QUEUE, KeyBuf::new().u64(ordinal), at.header.id.0.to_vec());
    for key in &at.header.writes {
        batch.put(KEYS, key.0, &Written { lsn: at.lsn, id: at.header.id });
    }
    forget(at, ordinal, batch)?;
    Ok(None)
}

/// Notes that a record was taken out of effect by hand.
pub(crate) fn amend(lsn: Lsn, batch: &mut Batch<'_>) -> Void {
    batch.put(VOIDS, lsn.to_bytes(), &Void::Amended);
    Void::Amended
}

fn forget(at: &At<'_>, ordinal: u64, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(last) = ordinal.checked_sub(KEEP_RECORDS) else { return Ok(()) };
    let range = Range { from: Vec::new(), to: Some(KeyBuf::new().u64(last).into()), reverse: false };
    let old = batch.scan(QUEUE, range).take(FORGET).collect::<Result<Vec<_>, _>>()?;
    for (place, id) in old {
        let Some(admitted) = row::<Admitted>(batch, IDS, &id)? else { continue };
        if admitted.log_time_ms.saturating_add(KEEP_MS) > at.log_time.ms {
            break;
        }
        batch.delete(IDS, id);
        batch.delete(QUEUE, place);
    }
    Ok(())
}

struct Tables<'a>(&'a dyn Read);

impl Known for Tables<'_> {
    type Error = StoreError;

    fn applied(&self, id: &RecordId) -> Result<Option<(Lsn, CopyId)>, StoreError> {
        Ok(row::<Admitted>(self.0, IDS, id.0)?.map(|admitted| (admitted.lsn, admitted.copy)))
    }

    fn written(&self, key: &Key) -> Result<Option<(Lsn, RecordId)>, StoreError> {
        written(self.0, key)
    }
}

/// Where the record with this id was applied, as far back as ids are kept.
///
/// # Errors
/// When the store fails.
pub fn applied(read: &dyn Read, id: &RecordId) -> Result<Option<Lsn>, StoreError> {
    Ok(row::<Admitted>(read, IDS, id.0)?.map(|admitted| admitted.lsn))
}

/// The last applied record that wrote a key.
///
/// # Errors
/// When the store fails.
pub fn written(read: &dyn Read, key: &Key) -> Result<Option<(Lsn, RecordId)>, StoreError> {
    Ok(row::<Written>(read, KEYS, key.0)?.map(|written| (written.lsn, written.id)))
}

/// Why the record at this position is void; none if it was applied.
///
/// # Errors
/// When the store fails.
pub fn void(read: &dyn Read, lsn: Lsn) -> Result<Option<Void>, StoreError> {
    row(read, VOIDS, lsn.to_bytes())
}

/// Void records from a position on.
pub fn voids(read: &dyn Read, from: Lsn) -> impl Iterator<Item = Result<(Lsn, Void), StoreError>> + '_ {
    let rows: Rows<'_> = read.scan(VOIDS, Range { from: from.to_bytes().to_vec(), to: None, reverse: false });
    rows.map(|row| {
        let (key, value) = row?;
        let lsn = key.try_into().map(Lsn::from_bytes).map_err(|_| crate::read::malformed_key(VOIDS))?;
        Ok((lsn, decode(VOIDS, &value)?))
    })
}

#[cfg(test)]
mod tests {
    use schemas::{FORMAT, Header, LogTime, Origin};

    use super::*;
    use crate::testing::Nothing;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn id(ordinal: u64) -> RecordId {
        RecordId(u128::from(ordinal).to_be_bytes())
    }

    /// Folds the `ordinal`-th record of a log, at a log time.
    fn fold_at(ordinal: u64, ms: u64, batch: &mut Batch<'_>) -> Option<Void> {
        let header = Header {
            format: FORMAT,
            id: id(ordinal),
            attempt: 0,
            copy: CopyId::default(),
            at_ms: ms,
            node: 0,
            origin: Origin::Server,
            cause: None,
            reads: Vec::new(),
            writes: Vec::new(),
            after: None,
        };
        let log_time = LogTime::default().advance_by(ms, true);
        fold(&At { lsn: Lsn(ordinal), index: 0, header: &header, log_time }, ordinal, batch).unwrap()
    }

    /// Which of the first records are known.
    fn known(batch: &Batch<'_>) -> Vec<u64> {
        (1..=5).filter(|ordinal| applied(batch, &id(*ordinal)).unwrap().is_some()).collect()
    }

    #[test]
    fn record_ids_are_known_for_a_day_and_a_million_records() {
        let begun = |batch: &mut Batch<'_>| (1..=5).for_each(|n| assert_eq!(fold_at(n, n, batch), None));

        // A million records, but not a day.
        let mut batch = Batch::new(&Nothing);
        begun(&mut batch);
        fold_at(2_000_000, DAY_MS, &mut batch);
        assert_eq!(known(&batch), [1, 2, 3, 4, 5]);
        fold_at(2_000_001, DAY_MS + 1, &mut batch);
        assert_eq!(known(&batch), [2, 3, 4, 5], "the first is a day old");

        // A day, but not a million records.
        let mut batch = Batch::new(&Nothing);
        begun(&mut batch);
        fold_at(KEEP_RECORDS + 1, 30 * DAY_MS, &mut batch);
        assert_eq!(known(&batch), [1, 2, 3, 4, 5]);
        fold_at(KEEP_RECORDS + 2, 30 * DAY_MS, &mut batch);
        assert_eq!(known(&batch), [2, 3, 4, 5], "a million came after the first");

        // Both: some with each record, the oldest first.
        fold_at(2 * KEEP_RECORDS, 30 * DAY_MS, &mut batch);
        assert_eq!(known(&batch), [4, 5]);
        assert_eq!(fold_at(4, 30 * DAY_MS, &mut batch), Some(Void::Repeated(Lsn(4))), "what is known is void again");
        fold_at(2 * KEEP_RECORDS + 1, 30 * DAY_MS, &mut batch);
        assert!(known(&batch).is_empty());
        assert_eq!(fold_at(3, 30 * DAY_MS, &mut batch), None, "what is forgotten is new");
    }
}
