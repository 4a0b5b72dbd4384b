use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    iter::Peekable,
};

use rocksdb::WriteBatch;
use schemas::{Nid, codec};
use serde::Serialize;

use crate::{
    Generations, Model, Store, StoreError,
    keys::after_prefix,
    read::{Range, Read, Row, Rows, Table},
};

/// What a batch of records touched: positions to wake up with, never data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Rooms whose timeline, state, receipts or anything else that all their members see has changed.
    pub rooms: BTreeSet<Nid>,
    /// Users of whom something that only they see has changed, their memberships among it.
    pub users: BTreeSet<String>,
    /// Users whose devices or identity keys have changed, which concerns all who share a room with them.
    pub device_lists: BTreeSet<String>,
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
    dropped: Vec<Vec<u8>>,
}

impl Changes {
    fn is_dropped(&self, key: &[u8]) -> bool {
        self.dropped.iter().any(|prefix| key.starts_with(prefix))
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

    /// Deletes all rows of a table whose keys begin with `prefix`. Counts as one write.
    pub fn delete_prefix(&mut self, table: Table, prefix: impl AsRef<[u8]>) {
        let prefix = table.key(prefix.as_ref());
        let changes = self.changes.entry(table.model).or_default();
        changes.rows.retain(|key, _| !key.starts_with(&prefix));
        changes.dropped.push(prefix);
        self.writes += 1;
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

    /// The changes as one RocksDB batch, and what they touched.
    ///
    /// # Errors
    /// When a model has no column family.
    pub fn finish(self, store: &Store, generations: &Generations) -> Result<(WriteBatch, Touched), StoreError> {
        let mut out = WriteBatch::default();
        for (model, changes) in self.changes {
            let family = store.family(generations, model)?;
            for prefix in changes.dropped {
                // A model's byte is below 0xff, so that every prefix has an end.
                if let Some(end) = after_prefix(&prefix) {
                    out.delete_range_cf(&family, prefix, end);
                }
            }
            for (key, value) in changes.rows {
                match value {
                    Some(value) => out.put_cf(&family, key, value),
                    None => out.delete_cf(&family, key),
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
        let from = table.key(&range.from);
        let to = range.to.as_ref().map_or_else(|| vec![table.prefix + 1], |to| table.key(to));
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
