//! A sorted index that knows how many entries lie where: the page at any offset, and the number of entries in any range,
//! cost some hundred rows of a million, whichever kinds of entries are wanted.
//!
//! Every entry has a class, a small number for what it can be filtered by. Some entries' keys are fences: with each
//! stands how many entries of each class lie up to it, from the fence before. Some fences are fences of the level above,
//! which counts more entries with one row. A block of entries without a wanted class, or before the offset, is passed by.
//!
//! A key is a fence if its hash ends in enough zero bits. So blocks are never balanced: the rows depend only on the
//! entries that are there, not on the order in which they came, and a change rewrites its entry and one row a level. That
//! row is the first one from the key on: `RocksDB` looks forward much faster than back, above all at rows that often change.
//!
//! Rows: `scope | 0 | key -> class, value`; `scope | 2 level | fence -> Counts`; `scope | 2 level + 1 -> Counts` of what lies
//! behind the last fence.

use std::{collections::BTreeMap, iter::Peekable};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    Batch, StoreError,
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
    /// It begins where a block of the level on which it is looked at begins.
    even: bool,
    /// None is the end of the index.
    to: Option<Vec<u8>>,
}

impl Part {
    fn new(from: &[u8], to: Option<&[u8]>) -> Self {
        Self { from: from.to_vec(), even: from.is_empty(), to: to.map(<[u8]>::to_vec) }
    }

    fn is_empty(&self) -> bool {
        self.to.as_ref().is_some_and(|to| *to <= self.from)
    }

    /// Whether it goes at least as far as a block's end.
    fn reaches(&self, end: Option<&Vec<u8>>) -> bool {
        self.to.as_ref().is_none_or(|to| end.is_some_and(|end| end <= to))
    }
}

/// A fence, or none for the end of the index, and what it counts.
type Fence = (Option<Vec<u8>>, Counts);

/// The first key after this one.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
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

    /// The row of an entry (level 0), or of a fence.
    fn key(&self, level: u8, key: &[u8]) -> Vec<u8> {
        [&[self.scope, 2 * level], key].concat()
    }

    fn fence_key(&self, level: u8, fence: Option<&[u8]>) -> Vec<u8> {
        fence.map_or_else(|| vec![self.scope, 2 * level + 1], |fence| self.key(level, fence))
    }

    /// Adds an entry, or gives the one with this key another class and value.
    pub(crate) fn insert(&self, batch: &mut Batch<'_>, key: &[u8], class: u16, value: &[u8]) -> Result<(), StoreError> {
        let before = self.class(batch, key)?;
        batch.put_raw(self.table, self.key(0, key), [&class.to_be_bytes(), value].concat());
        if before == Some(class) {
            return Ok(());
        }
        for level in 1..=self.top() {
            let (fence, mut counts) = self.fence_from(batch, level, key)?;
            if let Some(before) = before {
                counts.take(before, 1);
            }
            counts.add(class, 1);
            self.put(batch, level, fence.as_deref(), &counts);
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
            let (mut fence, mut counts) = self.fence_from(batch, level, key)?;
            counts.take(class, 1);
            if level <= height {
                batch.delete(self.table, self.key(level, key));
                let (next, more) = self.fence_from(batch, level, &after(key))?;
                fence = next;
                more.0.iter().for_each(|(class, count)| counts.add(*class, *count));
            }
            self.put(batch, level, fence.as_deref(), &counts);
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
        Ok(self.tally(read, self.top(), Part::new(from, to))?.of(classes))
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
        let (level, part) = (self.top(), Part::new(from, to));
        let blocks = if part.is_empty() { None } else { Some(self.blocks(read, level, part, falling)?) };
        let open = blocks.map(|blocks| Level { level, blocks }).into_iter().collect();
        Ok(Entries { index: *self, read, falling, classes, skip, open, rows: None })
    }

    fn class(&self, read: &dyn Read, key: &[u8]) -> Result<Option<u16>, StoreError> {
        let value = read.get(self.table, &self.key(0, key))?;
        value.map(|value| self.split_value(&value).map(|(class, _)| class)).transpose()
    }

    fn split_value<'v>(&self, value: &'v [u8]) -> Result<(u16, &'v [u8]), StoreError> {
        let (class, value) = value.split_first_chunk().ok_or_else(|| malformed_key(self.table))?;
        Ok((u16::from_be_bytes(*class), value))
    }

    /// The first fence that is not before a key.
    fn fence_from(&self, read: &dyn Read, level: u8, key: &[u8]) -> Result<Fence, StoreError> {
        let range = Range { from: self.key(level, key), to: Some(self.key(level + 1, &[])), reverse: false };
        let fence = read.scan(self.table, range).next().map(|row| self.fence(row?));
        Ok(fence.transpose()?.unwrap_or_default())
    }

    fn fence(&self, (key, counts): Row) -> Result<Fence, StoreError> {
        let [_, level, fence @ ..] = key.as_slice() else { return Err(malformed_key(self.table)) };
        Ok((level.is_multiple_of(2).then(|| fence.to_vec()), decode(self.table, &counts)?))
    }

    fn put(&self, batch: &mut Batch<'_>, level: u8, fence: Option<&[u8]>, counts: &Counts) {
        let key = self.fence_key(level, fence);
        if counts.0.is_empty() {
            batch.delete(self.table, key);
        } else {
            batch.put(self.table, key, counts);
        }
    }

    /// Makes a key a fence: what lies up to it is counted there from now on.
    fn split(&self, batch: &mut Batch<'_>, level: u8, key: &[u8]) -> Result<(), StoreError> {
        let before = Range { from: self.key(level, &[]), to: Some(self.key(level, key)), reverse: true };
        let before = batch.scan(self.table, before).next().map(|row| self.fence(row?)).transpose()?;
        let from = before.and_then(|(fence, _)| fence).map_or_else(Vec::new, |fence| after(&fence));
        let lower = self.tally(batch, level - 1, Part { from, even: true, to: Some(after(key)) })?;
        let (fence, mut counts) = self.fence_from(batch, level, key)?;
        lower.0.iter().for_each(|(class, count)| counts.take(*class, *count));
        self.put(batch, level, fence.as_deref(), &counts);
        self.put(batch, level, Some(key), &lower);
        Ok(())
    }

    /// Counts a part: blocks that lie in it whole by their fences, others on the level below.
    fn tally(&self, read: &dyn Read, level: u8, part: Part) -> Result<Counts, StoreError> {
        let mut sum = Counts::default();
        if part.is_empty() {
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
        let to = part.to.as_ref().map_or_else(|| vec![self.scope, 1], |to| self.key(0, to));
        read.scan(self.table, Range { from: self.key(0, &part.from), to: Some(to), reverse: falling })
    }

    /// The blocks of a level that a part, which is not empty, touches.
    fn blocks<'a>(&self, read: &'a dyn Read, level: u8, part: Part, falling: bool) -> Result<Blocks<'a>, StoreError> {
        // The last block that it touches ends where it ends, or else with the first fence from there on.
        let last = match part.to.as_deref().filter(|_| falling) {
            Some(to) => self.fence_from(read, level, to.strip_suffix(&[0]).unwrap_or(to))?.0,
            None => None,
        };
        let to = after(&self.fence_key(level, last.as_deref()));
        let rows = read.scan(self.table, Range { from: self.key(level, &part.from), to: Some(to), reverse: falling });
        Ok(Blocks { index: *self, rows: rows.peekable(), part: Some(part), falling })
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
    /// What is still to come; none after its last block.
    part: Option<Part>,
    falling: bool,
}

impl Blocks<'_> {
    fn step(&mut self) -> Result<Option<Block>, StoreError> {
        let Some(part) = self.part.take() else { return Ok(None) };
        let Some(row) = self.rows.next() else { return Ok(None) };
        let (fence, counts) = self.index.fence(row?)?;
        let end = fence.as_deref().map(after);
        let ends = part.reaches(end.as_ref());
        let to = if ends { end.clone() } else { part.to.clone() };
        let block = if self.falling {
            let next = match self.rows.peek() {
                Some(Ok((next, _))) => next.get(2..).map(after),
                _ => None,
            };
            let (from, even) = next.map_or_else(|| (part.from.clone(), part.even), |from| (from, true));
            self.part = Some(Part { to: Some(from.clone()), ..part });
            Part { from, even, to }
        } else {
            let Part { from, even, to: last } = part;
            let rest = end.filter(|_| ends).map(|from| Part { from, even: true, to: last });
            self.part = rest.filter(|rest| !rest.is_empty());
            Part { from, even, to }
        };
        let whole = block.even && ends;
        Ok(Some(Block { part: block, counts: whole.then_some(counts) }))
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
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
