//! A sorted index that knows how many entries lie where: the page at any offset, and the number of entries in any range,
//! cost some hundred rows of a million, whichever kinds of entries are wanted.
//!
//! Every entry has a class, a small number for what it can be filtered by. Some entries' keys are fences: with each
//! stands how many entries of each class lie from it on, up to the next fence. Some fences are fences of the level above,
//! which counts more entries with one row. A block of entries without a wanted class, or before the offset, is passed by.
//!
//! A key is a fence if its hash ends in enough zero bits. So blocks are never balanced: the rows depend only on the
//! entries that are there, not on the order in which they came, and a change rewrites its entry and one row a level.
//!
//! Rows: `scope | 0 | key -> class, value`; `scope | level | fence -> Counts`. What lies before the first fence is counted
//! at the empty key.

use std::{collections::BTreeMap, iter::Peekable};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Batch, StoreError,
    keys::after_prefix,
    read::{Range, Read, Row, Rows, Table, decode, malformed_key},
};

/// How many zero bits make a fence on each level: one in 64 entries, and one in 128 of those.
const BITS: [u32; 2] = [6, 13];

/// Which classes are wanted.
pub(crate) type Classes<'a> = dyn Fn(u16) -> bool + 'a;

/// Where an index lies: several share a table, each with its scope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    table: Table,
    scope: u8,
    bits: [u32; 2],
}

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) class: u16,
    pub(crate) value: Vec<u8>,
}

/// How many entries of each class there are; none stands at zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counts(BTreeMap<u16, u64>);

impl Counts {
    fn add(&mut self, class: u16, count: u64) {
        *self.0.entry(class).or_default() += count;
    }

    fn take(&mut self, class: u16, count: u64) {
        if let Some(left) = self.0.get_mut(&class) {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.0.remove(&class);
            }
        }
    }

    fn of(&self, classes: &Classes<'_>) -> u64 {
        self.0.iter().filter(|(class, _)| classes(**class)).map(|(_, count)| count).sum()
    }
}

/// The entries from one key on, before another.
#[derive(Clone, Debug)]
struct Part {
    from: Vec<u8>,
    /// None is the end of the index.
    to: Option<Vec<u8>>,
    /// It ends where a block of the level on which it is looked at ends.
    even: bool,
}

impl Counted {
    pub(crate) const fn new(table: Table, scope: u8) -> Self {
        Self { table, scope, bits: BITS }
    }

    pub(crate) const fn table(&self) -> Table {
        self.table
    }

    /// How many levels of fences a key is in.
    fn height(&self, key: &[u8]) -> u8 {
        let hash = Sha256::digest(key);
        let zeros = hash.last_chunk().map_or(0, |end| u64::from_be_bytes(*end).trailing_zeros());
        self.bits.iter().map(|bits| u8::from(zeros >= *bits)).sum()
    }

    const fn top(&self) -> u8 {
        self.bits.len() as u8
    }

    fn key(&self, level: u8, key: &[u8]) -> Vec<u8> {
        [&[self.scope, level], key].concat()
    }

    /// Adds an entry, or gives the one with this key another class and value.
    pub(crate) fn insert(&self, batch: &mut Batch<'_>, key: &[u8], class: u16, value: &[u8]) -> Result<(), StoreError> {
        let before = self.class(batch, key)?;
        batch.put_raw(self.table, self.key(0, key), [&class.to_be_bytes(), value].concat());
        if before == Some(class) {
            return Ok(());
        }
        for level in 1..=self.top() {
            let (fence, mut counts) = self.fence_at(batch, level, key)?;
            if let Some(before) = before {
                counts.take(before, 1);
            }
            counts.add(class, 1);
            self.put(batch, level, &fence, &counts);
        }
        if before.is_none() {
            for level in 1..=self.height(key) {
                self.split(batch, level, key)?;
            }
        }
        Ok(())
    }

    /// Removes the entry with this key, if there is one.
    pub(crate) fn remove(&self, batch: &mut Batch<'_>, key: &[u8]) -> Result<(), StoreError> {
        let Some(class) = self.class(batch, key)? else { return Ok(()) };
        batch.delete(self.table, self.key(0, key));
        let height = self.height(key);
        for level in 1..=self.top() {
            let (mut fence, mut counts) = self.fence_at(batch, level, key)?;
            counts.take(class, 1);
            if level <= height {
                batch.delete(self.table, self.key(level, &fence));
                let (below, more) = self.fence_before(batch, level, key.to_vec())?;
                fence = below;
                more.0.iter().for_each(|(class, count)| counts.add(*class, *count));
            }
            self.put(batch, level, &fence, &counts);
        }
        Ok(())
    }

    /// How many entries of some classes lie from one key on (inclusive), before another or the end.
    pub(crate) fn count(
        &self,
        read: &dyn Read,
        from: &[u8],
        to: Option<&[u8]>,
        classes: &Classes<'_>,
    ) -> Result<u64, StoreError> {
        let part = Part { from: from.to_vec(), to: to.map(<[u8]>::to_vec), even: to.is_none() };
        Ok(self.tally(read, self.top(), part)?.of(classes))
    }

    /// The entries of some classes from one key on (inclusive), before another or the end, without the first `skip`; from
    /// the highest down if `falling`.
    pub(crate) fn entries<'a>(
        &self,
        read: &'a dyn Read,
        (from, to): (&[u8], Option<&[u8]>),
        falling: bool,
        classes: Box<Classes<'a>>,
        skip: u64,
    ) -> Result<Entries<'a>, StoreError> {
        let part = Part { from: from.to_vec(), to: to.map(<[u8]>::to_vec), even: to.is_none() };
        let top = Level { level: self.top(), blocks: self.blocks(read, self.top(), part, falling)? };
        Ok(Entries { index: *self, read, falling, classes, skip, open: vec![top], rows: None })
    }

    fn class(&self, read: &dyn Read, key: &[u8]) -> Result<Option<u16>, StoreError> {
        let value = read.get(self.table, &self.key(0, key))?;
        value.map(|value| self.split_value(&value).map(|(class, _)| class)).transpose()
    }

    fn split_value<'v>(&self, value: &'v [u8]) -> Result<(u16, &'v [u8]), StoreError> {
        let (class, value) = value.split_first_chunk().ok_or_else(|| malformed_key(self.table))?;
        Ok((u16::from_be_bytes(*class), value))
    }

    /// The last fence that is not after a key, and what it counts.
    fn fence_at(&self, read: &dyn Read, level: u8, key: &[u8]) -> Result<(Vec<u8>, Counts), StoreError> {
        self.fence_before(read, level, [key, &[0]].concat())
    }

    /// The last fence before a key.
    fn fence_before(&self, read: &dyn Read, level: u8, key: Vec<u8>) -> Result<(Vec<u8>, Counts), StoreError> {
        let range = Range { from: self.key(level, &[]), to: Some(self.key(level, &key)), reverse: true };
        let fence = read.scan(self.table, range).next().map(|row| self.fence(row));
        Ok(fence.transpose()?.unwrap_or_default())
    }

    fn fence(&self, row: Result<Row, StoreError>) -> Result<(Vec<u8>, Counts), StoreError> {
        let (key, counts) = row?;
        let fence = key.get(2..).ok_or_else(|| malformed_key(self.table))?;
        Ok((fence.to_vec(), decode(self.table, &counts)?))
    }

    fn put(&self, batch: &mut Batch<'_>, level: u8, fence: &[u8], counts: &Counts) {
        if counts.0.is_empty() {
            batch.delete(self.table, self.key(level, fence));
        } else {
            batch.put(self.table, self.key(level, fence), counts);
        }
    }

    /// Makes a key a fence: what lies from it on is counted there from now on.
    fn split(&self, batch: &mut Batch<'_>, level: u8, key: &[u8]) -> Result<(), StoreError> {
        let (fence, mut counts) = self.fence_at(batch, level, key)?;
        let end = after_prefix(&self.key(level, &[]));
        let rest = Range { from: self.key(level, &[key, &[0]].concat()), to: end, reverse: false };
        let next = batch.scan(self.table, rest).next().map(|row| self.fence(row)).transpose()?;
        let part = Part { from: key.to_vec(), to: next.map(|(next, _)| next), even: true };
        let upper = self.tally(batch, level - 1, part)?;
        upper.0.iter().for_each(|(class, count)| counts.take(*class, *count));
        self.put(batch, level, &fence, &counts);
        self.put(batch, level, key, &upper);
        Ok(())
    }

    /// Counts a part: blocks that lie in it whole by their fences, others on the level below.
    fn tally(&self, read: &dyn Read, level: u8, part: Part) -> Result<Counts, StoreError> {
        let mut sum = Counts::default();
        if part.to.as_ref().is_some_and(|to| *to <= part.from) {
            return Ok(sum);
        }
        if level == 0 {
            for row in self.rows(read, &part, false) {
                sum.add(self.split_value(&row?.1)?.0, 1);
            }
            return Ok(sum);
        }
        for block in self.blocks(read, level, part, false)? {
            let Block { part, counts } = block?;
            let counts = match counts {
                Some(counts) => counts,
                None => self.tally(read, level - 1, part)?,
            };
            counts.0.iter().for_each(|(class, count)| sum.add(*class, *count));
        }
        Ok(sum)
    }

    /// The entries of a part as they are stored.
    fn rows<'a>(&self, read: &'a dyn Read, part: &Part, falling: bool) -> Rows<'a> {
        let to = part.to.as_ref().map_or_else(|| after_prefix(&self.key(0, &[])), |to| Some(self.key(0, to)));
        read.scan(self.table, Range { from: self.key(0, &part.from), to, reverse: falling })
    }

    /// The blocks of a level that a part touches.
    fn blocks<'a>(&self, read: &'a dyn Read, level: u8, part: Part, falling: bool) -> Result<Blocks<'a>, StoreError> {
        let (first, _) = self.fence_at(read, level, &part.from)?;
        let to = part.to.as_ref().map_or_else(|| after_prefix(&self.key(level, &[])), |to| Some(self.key(level, to)));
        let rows = read.scan(self.table, Range { from: self.key(level, &first), to, reverse: falling });
        Ok(Blocks { index: *self, rows: rows.peekable(), from: part.from, end: (part.to, part.even), falling })
    }
}

/// A block of entries, or of fences of the level below.
struct Block {
    part: Part,
    /// None if only a part of the block was asked for.
    counts: Option<Counts>,
}

struct Blocks<'a> {
    index: Counted,
    rows: Peekable<Rows<'a>>,
    from: Vec<u8>,
    /// Where the next block ends, if falling, or else the last one; and whether that is where it ends by itself.
    end: (Option<Vec<u8>>, bool),
    falling: bool,
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (fence, counts) = match self.index.fence(self.rows.next()?) {
            Ok(fence) => fence,
            Err(error) => return Some(Err(error)),
        };
        let (to, even) = if self.falling {
            std::mem::replace(&mut self.end, (Some(fence.clone()), true))
        } else {
            match self.rows.peek() {
                Some(Ok((next, _))) => (next.get(2..).map(<[u8]>::to_vec), true),
                _ => self.end.clone(),
            }
        };
        let whole = even && fence >= self.from;
        let from = fence.max(self.from.clone());
        Some(Ok(Block { part: Part { from, to, even }, counts: whole.then_some(counts) }))
    }
}

/// See [`Counted::entries`].
pub(crate) struct Entries<'a> {
    index: Counted,
    read: &'a dyn Read,
    falling: bool,
    classes: Box<Classes<'a>>,
    skip: u64,
    /// What is left on each level, the lowest last.
    open: Vec<Level<'a>>,
    rows: Option<Rows<'a>>,
}

struct Level<'a> {
    level: u8,
    blocks: Blocks<'a>,
}

impl Entries<'_> {
    /// The next entry of the block that is open, if it has one that is wanted.
    fn next_of_block(&mut self) -> Result<Option<Entry>, StoreError> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        for row in rows {
            let (key, value) = row?;
            let (class, value) = self.index.split_value(&value)?;
            if !(self.classes)(class) {
                continue;
            }
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            let key = key.get(2..).ok_or_else(|| malformed_key(self.index.table))?.to_vec();
            return Ok(Some(Entry { key, class, value: value.to_vec() }));
        }
        self.rows = None;
        Ok(None)
    }

    /// Opens the next block with wanted entries behind those to skip; false if there is none.
    fn open_block(&mut self) -> Result<bool, StoreError> {
        while let Some(Level { level, blocks }) = self.open.last_mut() {
            let below = *level - 1;
            let Some(block) = blocks.next() else {
                self.open.pop();
                continue;
            };
            let Block { part, counts } = block?;
            let wanted = counts.map(|counts| counts.of(&*self.classes));
            if let Some(wanted) = wanted.filter(|wanted| *wanted <= self.skip) {
                self.skip -= wanted;
            } else if below == 0 {
                self.rows = Some(self.index.rows(self.read, &part, self.falling));
                return Ok(true);
            } else {
                let blocks = self.index.blocks(self.read, below, part, self.falling)?;
                self.open.push(Level { level: below, blocks });
            }
        }
        Ok(false)
    }

    fn step(&mut self) -> Result<Option<Entry>, StoreError> {
        loop {
            if let Some(entry) = self.next_of_block()? {
                return Ok(Some(entry));
            }
            if !self.open_block()? {
                return Ok(None);
            }
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.step();
        if entry.is_err() {
            self.open.clear();
            self.rows = None;
        }
        entry.transpose()
    }
}

#[cfg(test)]
mod tests;
