use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
    ops::Bound,
};

use rocksdb::WriteBatch;
use schemas::{Nid, codec};
use serde::{Deserialize, Serialize};

use crate::{
    Model, StoreError,
    purge::Removed,
    read::{Range, Read, Row, Rows, Table},
    store::Families,
};

/// So many rows of a range are deleted one by one: later reads pay for every range that was ever deleted.
const FEW: usize = 64;

/// What a batch of records touched: positions to wake up with, never data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Rooms whose timeline, state, receipts or anything else that all their members see has changed.
    pub rooms: BTreeSet<Nid>,
    /// Users of whom something that only they see has changed, their memberships among it.
    pub users: BTreeSet<String>,
    /// Users whose devices or identity keys have changed, which concerns all who share a room with them.
    pub device_lists: BTreeSet<String>,
    /// There is a new job.
    pub jobs: bool,
    /// It is not known what: everybody is to look.
    pub everything: bool,
}

impl Touched {
    /// Adds what another commit touched. Beyond so many names it is everything.
    pub fn add(&mut self, other: &Self, at_most: usize) {
        self.everything |= other.everything;
        self.jobs |= other.jobs;
        if !self.everything {
            self.rooms.extend(&other.rooms);
            self.users.extend(other.users.iter().cloned());
            self.device_lists.extend(other.device_lists.iter().cloned());
            self.everything = self.rooms.len() + self.users.len() + self.device_lists.len() > at_most;
        }
        if self.everything {
            *self = Self::everything();
        }
    }

    /// Whatever there is.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }
}

/// How many keys the fold has read and written: its cost, independent of machine and load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Gets, and rows that scans gave.
    pub reads: u64,
    /// Puts, deletes and range deletes.
    pub writes: u64,
}

/// Changes on the way to one commit, over the tables as they are: the fold reads its own writes.
pub struct Batch<'a> {
    base: &'a dyn Read,
    changes: BTreeMap<Model, Changes>,
    touched: Touched,
    reads: Cell<u64>,
    writes: u64,
    bytes: usize,
}

#[derive(Default)]
struct Changes {
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Ranges of which nothing stored counts any more, from (inclusive) to (exclusive). None overlap.
    dropped: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Changes {
    fn is_dropped(&self, key: &[u8]) -> bool {
        let before = self.dropped.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, to)| key < to.as_slice())
    }

    fn drop_range(&mut self, mut from: Vec<u8>, mut to: Vec<u8>) {
        let rows: Vec<_> = self.rows.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
        for key in rows {
            self.rows.remove(&key);
        }
        while let Some((start, end)) = self.dropped.range(..=to.clone()).next_back().filter(|(_, end)| **end >= from) {
            let start = start.clone();
            to = to.max(end.clone());
            self.dropped.remove(&start);
            from = from.min(start);
        }
        self.dropped.insert(from, to);
    }
}

impl<'a> Batch<'a> {
    /// An empty batch over what is there.
    #[must_use]
    pub fn new(base: &'a dyn Read) -> Self {
        Self { base, changes: BTreeMap::new(), touched: Touched::default(), reads: Cell::new(0), writes: 0, bytes: 0 }
    }

    /// Writes a row.
    pub fn put<T: Serialize + ?Sized>(&mut self, table: Table, key: impl AsRef<[u8]>, row: &T) {
        self.put_raw(table, key, codec::encode(&row));
    }

    /// Writes bytes.
    pub fn put_raw(&mut self, table: Table, key: impl AsRef<[u8]>, value: Vec<u8>) {
        self.change(table, key.as_ref(), Some(value));
    }

    /// Deletes a row, if it is there.
    pub fn delete(&mut self, table: Table, key: impl AsRef<[u8]>) {
        self.change(table, key.as_ref(), None);
    }

    /// Deletes all rows of a table whose keys begin with `prefix`.
    pub fn delete_prefix(&mut self, table: Table, prefix: impl AsRef<[u8]>) {
        self.delete_range(table, &Range::prefix(prefix.as_ref()));
    }

    /// Deletes all rows of a table in a range: a few of them one by one, more as one range. Either counts as one write.
    pub fn delete_range(&mut self, table: Table, range: &Range) {
        let few: Result<Vec<Row>, StoreError> = self.scan(table, range.clone()).take(FEW + 1).collect();
        match few {
            Ok(few) if few.len() <= FEW => {
                let writes = self.writes;
                few.iter().for_each(|(key, _)| self.change(table, key, None));
                self.writes = writes + u64::from(!few.is_empty());
            }
            // Should the store have failed to read them, it will say so again at the next read.
            _ => self.drop_range(table, range),
        }
    }

    fn drop_range(&mut self, table: Table, range: &Range) {
        let (from, to) = table.bounds(range);
        if from < to {
            self.changes.entry(table.model).or_default().drop_range(from, to);
            self.writes += 1;
        }
    }

    fn change(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        let key = table.key(key);
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.writes += 1;
        self.changes.entry(table.model).or_default().rows.insert(key, value);
    }

    /// Wakes those who look at a room.
    pub fn touch_room(&mut self, room: Nid) {
        self.touched.rooms.insert(room);
    }

    /// Wakes a user.
    pub fn touch_user(&mut self, user: &str) {
        self.touched.users.insert(user.to_owned());
    }

    /// Wakes those who share a room with a user whose devices changed.
    pub fn touch_device_list(&mut self, user: &str) {
        self.touched.device_lists.insert(user.to_owned());
    }

    /// Wakes who does the jobs of administrators.
    pub fn touch_jobs(&mut self) {
        self.touched.jobs = true;
    }

    /// What the fold cost so far.
    #[must_use]
    pub fn cost(&self) -> Cost {
        Cost { reads: self.reads.get(), writes: self.writes }
    }

    /// Bytes of keys and values written so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What of the base it deletes, and puts nothing in its place.
    ///
    /// # Errors
    /// When the store fails.
    pub fn removed(&self) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let mut count = |(key, value): Row| {
            removed.keys += 1;
            removed.bytes += (key.len() + 1 + value.len()) as u64;
        };
        for (model, changes) in &self.changes {
            let table = |key: &[u8]| Some((Table { model: *model, prefix: *key.first()? }, key.get(1..)?.to_vec()));
            for (key, _) in changes.rows.iter().filter(|(_, value)| value.is_none()) {
                let Some((table, key)) = table(key) else { continue };
                if let Some(value) = self.base.get(table, &key)? {
                    count((key, value));
                }
            }
            for (from, to) in &changes.dropped {
                let Some((table, from)) = table(from) else { continue };
                let to = to.strip_prefix(&[table.prefix]).map(ToOwned::to_owned);
                for row in self.base.scan(table, Range { from, to, reverse: false }) {
                    count(row?);
                }
            }
        }
        Ok(removed)
    }

    /// The changes as one RocksDB batch, and what they touched.
    ///
    /// # Errors
    /// When a model has no column family.
    pub(crate) fn finish(self, families: &Families<'_>) -> Result<(WriteBatch, Touched), StoreError> {
        let mut out = WriteBatch::default();
        for (model, changes) in self.changes {
            let family = families.of(model)?;
            for (from, to) in changes.dropped {
                out.delete_range_cf(family, from, to);
            }
            for (key, value) in changes.rows {
                match value {
                    Some(value) => out.put_cf(family, key, value),
                    None => out.delete_cf(family, key),
                }
            }
        }
        Ok((out, self.touched))
    }
}

impl Read for Batch<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reads.set(self.reads.get() + 1);
        if let Some(changes) = self.changes.get(&table.model) {
            let key = table.key(key);
            if let Some(value) = changes.rows.get(&key) {
                return Ok(value.clone());
            }
            if changes.is_dropped(&key) {
                return Ok(None);
            }
        }
        self.base.get(table, key)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        let (from, to) = table.bounds(&range);
        let reverse = range.reverse;
        let stored = self.base.scan(table, range);
        let Some(changes) = self.changes.get(&table.model) else {
            return Box::new(stored.inspect(|_| self.reads.set(self.reads.get() + 1)));
        };
        let stored = stored.filter(move |row| match row {
            Ok((key, _)) => !changes.is_dropped(&table.key(key)),
            Err(_) => true,
        });
        let changed: Box<dyn Iterator<Item = Change<'_>>> = if from >= to {
            Box::new(std::iter::empty())
        } else if reverse {
            Box::new(changes.rows.range(from..to).rev())
        } else {
            Box::new(changes.rows.range(from..to))
        };
        let stored: Rows<'_> = Box::new(stored);
        Box::new(
            Merge { stored: stored.peekable(), changed: changed.peekable(), reverse }
                .inspect(|_| self.reads.set(self.reads.get() + 1)),
        )
    }
}

type Change<'a> = (&'a Vec<u8>, &'a Option<Vec<u8>>);

/// Stored rows with the batch's changes on top, in order.
struct Merge<'a> {
    stored: Peekable<Rows<'a>>,
    changed: Peekable<Box<dyn Iterator<Item = Change<'a>> + 'a>>,
    reverse: bool,
}

impl Iterator for Merge<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.stored.peek(), self.changed.peek()) {
                (None, None) => return None,
                (Some(Err(_)) | Some(Ok(_)), None) | (Some(Err(_)), Some(_)) => return self.stored.next(),
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(Ok((stored, _))), Some((changed, _))) => {
                    let order = stored.as_slice().cmp(&changed[1..]);
                    if self.reverse { order.reverse() } else { order }
                }
            };
            if order.is_lt() {
                return self.stored.next();
            }
            if order.is_eq() {
                self.stored.next();
            }
            if let Some((key, Some(value))) = self.changed.next() {
                return Some(Ok((key[1..].to_vec(), value.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: Table = Table { model: Model::Admission, prefix: 1 };

    /// Rows that are there before the batch.
    struct Stored(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Read for Stored {
        fn get(&self, _: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.0.get(key).cloned())
        }

        fn scan(&self, _: Table, range: Range) -> Rows<'_> {
            let within = move |key: &Vec<u8>| *key >= range.from && range.to.as_ref().is_none_or(|to| key < to);
            let rows: Vec<Row> =
                self.0.iter().filter(|(key, _)| within(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
            if range.reverse { Box::new(rows.into_iter().rev().map(Ok)) } else { Box::new(rows.into_iter().map(Ok)) }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(Vec<u8>, u8),
        Delete(Vec<u8>),
        DeletePrefix(Vec<u8>),
        DeleteRange(Vec<u8>, Vec<u8>),
        DropRange(Vec<u8>, Vec<u8>),
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![0_u8..4, Just(0xff)], 0..4)
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (key(), any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
            2 => key().prop_map(Op::Delete),
            1 => key().prop_map(Op::DeletePrefix),
            1 => (key(), key()).prop_map(|(from, to)| Op::DeleteRange(from, to)),
            1 => (key(), key()).prop_map(|(from, to)| Op::DropRange(from, to)),
        ]
    }

    proptest! {
        #[test]
        fn a_batch_reads_as_if_it_were_committed(
            stored in proptest::collection::btree_map(key(), proptest::collection::vec(any::<u8>(), 1), 0..20),
            ops in proptest::collection::vec(op(), 0..20),
            (from, to, reverse) in (key(), proptest::option::of(key()), any::<bool>()),
        ) {
            let base = Stored(stored.clone());
            let mut model = stored;
            let mut batch = Batch::new(&base);
            for op in ops {
                match op {
                    Op::Put(key, value) => {
                        batch.put_raw(TABLE, &key, vec![value]);
                        model.insert(key, vec![value]);
                    }
                    Op::Delete(key) => {
                        batch.delete(TABLE, &key);
                        model.remove(&key);
                    }
                    Op::DeletePrefix(prefix) => {
                        batch.delete_prefix(TABLE, &prefix);
                        model.retain(|key, _| !key.starts_with(&prefix));
                    }
                    Op::DeleteRange(ref from, ref to) | Op::DropRange(ref from, ref to) => {
                        let range = Range { from: from.clone(), to: Some(to.clone()), reverse: false };
                        match op {
                            Op::DeleteRange(..) => batch.delete_range(TABLE, &range),
                            _ => batch.drop_range(TABLE, &range),
                        }
                        model.retain(|key, _| key < from || key >= to);
                    }
                }
            }
            let range = Range { from, to, reverse };
            let expected: Vec<Row> = Stored(model.clone()).scan(TABLE, range.clone()).map(Result::unwrap).collect();
            let found: Vec<Row> = batch.scan(TABLE, range).map(Result::unwrap).collect();
            prop_assert_eq!(found, expected);
            for (key, value) in &model {
                prop_assert_eq!(batch.get(TABLE, key).unwrap(), Some(value.clone()));
            }
        }
    }
}
