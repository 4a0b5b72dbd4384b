//! A persistent ordered map: every version of it stays readable, and versions share the nodes they have in common.
//!
//! It is a B+ tree from keys (bytes) to event [`Nid`]s, copied on write: one more entry writes the nodes on the way to
//! it, O(log n) of them with at most [`MAX`] slots each. Ids of nodes come from the fact that wrote them and a counter,
//! so that the same log gives the same trees.
//!
//! Nodes lie in a table of the model that uses them: `scope | fact | n -> Stored`.

use std::{cmp::Ordering, collections::BTreeMap};

use schemas::{Blob, Lsn, Nid};
use serde::{Deserialize, Serialize};

use crate::{
    Batch, StoreError,
    keys::{KeyBuf, after_prefix},
    read::{Read, Table, malformed_key, row},
};

/// A node has at most so many slots …
const MAX: usize = 32;
/// … and, unless it is the root, at least so many.
const MIN: usize = 8;

/// One version of the map. Copying it copies nothing below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tree {
    root: Option<NodeId>,
    len: u32,
}

impl Tree {
    /// How many entries it has.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// The record that made this version; none for the empty one.
    pub(crate) fn made_by(&self) -> Option<Lsn> {
        self.root.map(|root| root.fact.lsn)
    }
}

/// A node: the fact that wrote it, and which of that fact's nodes it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NodeId {
    fact: Nid,
    n: u32,
}

/// What changes: the keys, and their new values or none.
pub(crate) type Changes = BTreeMap<Vec<u8>, Option<Nid>>;

/// A key whose value differs between two versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) key: Vec<u8>,
    pub(crate) before: Option<Nid>,
    pub(crate) after: Option<Nid>,
}

/// Where the nodes of some trees lie: all those of a scope share what they can, and are dropped together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trees {
    pub(crate) table: Table,
    pub(crate) scope: Nid,
}

/// A key's slot: in a leaf (level 0) `id` is the value, above it is the child, whose smallest key this is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slot {
    key: Vec<u8>,
    id: NodeId,
}

#[derive(Clone, Debug)]
struct Node {
    level: u8,
    slots: Vec<Slot>,
}

/// A node as it is stored: what all its keys begin with stands once.
#[derive(Serialize, Deserialize)]
struct Stored {
    level: u8,
    prefix: Blob,
    slots: Vec<(Blob, NodeId)>,
}

impl Node {
    /// As few nodes as can hold these slots, evenly filled; none for no slots.
    fn split(level: u8, mut slots: Vec<Slot>) -> Vec<Self> {
        let mut nodes = Vec::new();
        let mut left = slots.len().div_ceil(MAX);
        while left > 1 {
            let rest = slots.split_off(slots.len() / left);
            nodes.push(Self { level, slots: std::mem::replace(&mut slots, rest) });
            left -= 1;
        }
        if !slots.is_empty() {
            nodes.push(Self { level, slots });
        }
        nodes
    }

    fn store(&self) -> Stored {
        let (first, last) = (self.slots.first(), self.slots.last());
        let shared = match (first, last) {
            (Some(first), Some(last)) => first.key.iter().zip(&last.key).take_while(|(a, b)| a == b).count(),
            _ => 0,
        };
        let prefix = first.map_or_else(Vec::new, |first| first.key[..shared].to_vec());
        let slots = self.slots.iter().map(|slot| (Blob(slot.key[shared..].to_vec()), slot.id)).collect();
        Stored { level: self.level, prefix: Blob(prefix), slots }
    }

    /// The child in whose range a key falls.
    fn child(&self, key: &[u8]) -> usize {
        self.slots.partition_point(|slot| slot.key.as_slice() <= key).saturating_sub(1)
    }
}

impl Trees {
    fn key(&self, id: NodeId) -> KeyBuf {
        KeyBuf::new().nid(self.scope).nid(id.fact).raw(&id.n.to_be_bytes())
    }

    fn stored(&self, read: &dyn Read, id: NodeId) -> Result<Stored, StoreError> {
        row(read, self.table, self.key(id))?.ok_or_else(|| malformed_key(self.table))
    }

    fn load(&self, read: &dyn Read, id: NodeId) -> Result<Node, StoreError> {
        let stored = self.stored(read, id)?;
        let key = |rest: Blob| [stored.prefix.0.as_slice(), &rest.0].concat();
        let slots = stored.slots.into_iter().map(|(rest, id)| Slot { key: key(rest), id }).collect();
        Ok(Node { level: stored.level, slots })
    }

    /// The value at a key: reads one node a level.
    pub(crate) fn get(&self, read: &dyn Read, tree: &Tree, key: &[u8]) -> Result<Option<Nid>, StoreError> {
        let mut next = tree.root;
        while let Some(id) = next {
            let node = self.stored(read, id)?;
            let (head, rest) = key.split_at(key.len().min(node.prefix.0.len()));
            let at = match head.cmp(&node.prefix.0) {
                Ordering::Less => 0,
                Ordering::Equal => node.slots.partition_point(|(slot, _)| slot.0.as_slice() <= rest),
                Ordering::Greater => node.slots.len(),
            };
            let Some((slot, id)) = at.checked_sub(1).and_then(|at| node.slots.get(at)) else { return Ok(None) };
            if node.level == 0 {
                return Ok((head == node.prefix.0 && rest == slot.0).then_some(id.fact));
            }
            next = Some(*id);
        }
        Ok(None)
    }

    /// All entries whose keys begin with `prefix`, in order; reads the nodes that hold them.
    pub(crate) fn scan<'a>(&self, read: &'a dyn Read, tree: &Tree, prefix: &[u8]) -> Scan<'a> {
        self.range(read, tree, prefix.to_vec(), after_prefix(prefix))
    }

    /// All entries whose keys don't begin with `prefix`, in order; reads the nodes that hold them, and not those between.
    pub(crate) fn scan_without<'a>(
        &self,
        read: &'a dyn Read,
        tree: &Tree,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Nid), StoreError>> + use<'a> {
        let after = after_prefix(prefix).map(|after| self.range(read, tree, after, None));
        self.range(read, tree, Vec::new(), Some(prefix.to_vec())).chain(after.into_iter().flatten())
    }

    /// The entries from one key on (inclusive) and before another.
    fn range<'a>(&self, read: &'a dyn Read, tree: &Tree, from: Vec<u8>, to: Option<Vec<u8>>) -> Scan<'a> {
        let root = tree.root.map(|id| (true, Slot { key: Vec::new(), id }));
        Scan { trees: *self, read, from, to, pending: root.into_iter().collect() }
    }

    /// What differs between two versions, in order of keys; it skips what they share, and so costs the differences.
    pub(crate) fn diff<'a>(&self, read: &'a dyn Read, before: &Tree, after: &Tree) -> Diff<'a> {
        let roots = if before.root == after.root { [None, None] } else { [before.root, after.root] };
        Diff { trees: *self, read, roots, pending: [Vec::new(), Vec::new()] }
    }

    /// A version with some changes. `author` gives the new nodes their ids.
    pub(crate) fn apply(
        &self,
        batch: &mut Batch<'_>,
        author: &mut Author,
        tree: &Tree,
        changes: &Changes,
    ) -> Result<Tree, StoreError> {
        let changes: Vec<Change<'_>> = changes.iter().map(|(key, value)| (key.as_slice(), *value)).collect();
        let mut edit = Edit { trees: *self, batch, author, len: tree.len };
        let root = match tree.root {
            Some(id) => edit.trees.load(edit.batch, id)?,
            None => Node { level: 0, slots: Vec::new() },
        };
        match edit.change(root, &changes)? {
            None => Ok(*tree),
            Some(nodes) => Ok(Tree { root: edit.grow(nodes)?, len: edit.len }),
        }
    }
}

/// Gives nodes their ids: one for each fact and model.
pub(crate) struct Author {
    fact: Nid,
    next: u32,
}

impl Author {
    pub(crate) const fn new(fact: Nid) -> Self {
        Self { fact, next: 0 }
    }

    const fn next(&mut self) -> NodeId {
        let id = NodeId { fact: self.fact, n: self.next };
        self.next += 1;
        id
    }
}

type Change<'a> = (&'a [u8], Option<Nid>);

/// A change on its way from the leaves to the root.
struct Edit<'a, 'b> {
    trees: Trees,
    batch: &'a mut Batch<'b>,
    author: &'a mut Author,
    len: u32,
}

/// A child of a node that is being changed.
enum Piece {
    Kept(Slot),
    New(Node),
}

impl Edit<'_, '_> {
    /// The nodes that take a node's place, not yet written; none if nothing changes.
    fn change(&mut self, node: Node, changes: &[Change<'_>]) -> Result<Option<Vec<Node>>, StoreError> {
        let level = node.level;
        let slots =
            if level == 0 { self.change_leaf(node.slots, changes) } else { self.change_children(node, changes)? };
        Ok(slots.map(|slots| Node::split(level, slots)))
    }

    fn change_leaf(&mut self, slots: Vec<Slot>, changes: &[Change<'_>]) -> Option<Vec<Slot>> {
        let mut merged = Vec::with_capacity(slots.len() + changes.len());
        let mut changed = false;
        let mut slots = slots.into_iter().peekable();
        for &(key, value) in changes {
            while let Some(slot) = slots.next_if(|slot| slot.key.as_slice() < key) {
                merged.push(slot);
            }
            let old = slots.next_if(|slot| slot.key == key).map(|slot| slot.id.fact);
            changed |= old != value;
            self.len = self.len + u32::from(value.is_some()) - u32::from(old.is_some());
            merged.extend(value.map(|fact| Slot { key: key.to_vec(), id: NodeId { fact, n: 0 } }));
        }
        merged.extend(slots);
        changed.then_some(merged)
    }

    fn change_children(&mut self, node: Node, mut changes: &[Change<'_>]) -> Result<Option<Vec<Slot>>, StoreError> {
        let mut pieces = Vec::with_capacity(node.slots.len() + 1);
        let mut changed = false;
        let mut slots = node.slots.into_iter().peekable();
        while let Some(slot) = slots.next() {
            let mine = slots
                .peek()
                .map_or(changes.len(), |next| changes.partition_point(|(key, _)| *key < next.key.as_slice()));
            let (mine, rest) = changes.split_at(mine);
            changes = rest;
            let nodes = match mine {
                [] => None,
                mine => {
                    let child = self.trees.load(self.batch, slot.id)?;
                    self.change(child, mine)?
                }
            };
            match nodes {
                None => pieces.push(Piece::Kept(slot)),
                Some(nodes) => {
                    changed = true;
                    pieces.extend(nodes.into_iter().map(Piece::New));
                }
            }
        }
        if !changed {
            return Ok(None);
        }
        self.join_small(&mut pieces)?;
        let slots = pieces.into_iter().map(|piece| match piece {
            Piece::Kept(slot) => slot,
            Piece::New(node) => self.write(&node),
        });
        Ok(Some(slots.collect()))
    }

    /// Joins nodes that have become too small with a neighbour.
    fn join_small(&self, pieces: &mut Vec<Piece>) -> Result<(), StoreError> {
        let mut at = 0;
        while at < pieces.len() {
            let small = matches!(&pieces[at], Piece::New(node) if node.slots.len() < MIN);
            if !small || pieces.len() == 1 {
                at += 1;
                continue;
            }
            let left = at.saturating_sub(1);
            let mut both = pieces.drain(left..left + 2).map(|piece| match piece {
                Piece::Kept(slot) => self.trees.load(self.batch, slot.id),
                Piece::New(node) => Ok(node),
            });
            let mut joined = Node { level: 0, slots: Vec::new() };
            for node in &mut both {
                let node = node?;
                joined.level = node.level;
                joined.slots.extend(node.slots);
            }
            drop(both);
            pieces.splice(left..left, Node::split(joined.level, joined.slots).into_iter().map(Piece::New));
            at = left;
        }
        Ok(())
    }

    fn write(&mut self, node: &Node) -> Slot {
        let id = self.author.next();
        self.batch.put(self.trees.table, self.trees.key(id), &node.store());
        Slot { key: node.slots.first().map_or_else(Vec::new, |slot| slot.key.clone()), id }
    }

    /// Writes the topmost nodes, and levels above or below them until one root is left.
    fn grow(&mut self, mut nodes: Vec<Node>) -> Result<Option<NodeId>, StoreError> {
        while nodes.len() > 1 {
            let level = nodes[0].level + 1;
            let slots = nodes.iter().map(|node| self.write(node)).collect();
            nodes = Node::split(level, slots);
        }
        let Some(mut root) = nodes.pop() else { return Ok(None) };
        let mut written = None;
        while let (1.., [only]) = (root.level, root.slots.as_slice()) {
            written = Some(only.id);
            root = self.trees.load(self.batch, only.id)?;
        }
        Ok(Some(written.unwrap_or_else(|| self.write(&root).id)))
    }
}

/// See [`Trees::scan`] and [`Trees::scan_without`].
pub(crate) struct Scan<'a> {
    trees: Trees,
    read: &'a dyn Read,
    from: Vec<u8>,
    /// None is the end of the map.
    to: Option<Vec<u8>>,
    /// What is still to come, the next last; true for nodes.
    pending: Vec<(bool, Slot)>,
}

impl Scan<'_> {
    fn expand(&mut self, id: NodeId) -> Result<(), StoreError> {
        let mut node = self.trees.load(self.read, id)?;
        let end = node.slots.partition_point(|slot| self.to.as_ref().is_none_or(|to| slot.key < *to));
        node.slots.truncate(end);
        let start = match node.level {
            0 => node.slots.partition_point(|slot| slot.key < self.from),
            _ => node.child(&self.from),
        };
        let inner = node.level > 0;
        self.pending.extend(node.slots.into_iter().skip(start).rev().map(|slot| (inner, slot)));
        Ok(())
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<(Vec<u8>, Nid), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.pending.pop()? {
                (false, slot) => return Some(Ok((slot.key, slot.id.fact))),
                (true, slot) => {
                    if let Err(error) = self.expand(slot.id) {
                        self.pending.clear();
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}

/// See [`Trees::diff`].
pub(crate) struct Diff<'a> {
    trees: Trees,
    read: &'a dyn Read,
    /// The roots, until they are expanded.
    roots: [Option<NodeId>; 2],
    /// What is still to come before and after, the next last, with its height: 0 for an entry.
    pending: [Vec<(u8, Slot)>; 2],
}

impl Diff<'_> {
    fn expand(&mut self, side: usize, id: NodeId) -> Result<(), StoreError> {
        let node = self.trees.load(self.read, id)?;
        self.pending[side].extend(node.slots.into_iter().rev().map(|slot| (node.level, slot)));
        Ok(())
    }

    /// Takes the next item of one side: an entry is a difference, a node gives way to its slots.
    fn take(&mut self, side: usize) -> Result<Option<Difference>, StoreError> {
        let Some((height, slot)) = self.pending[side].pop() else { return Ok(None) };
        if height > 0 {
            self.expand(side, slot.id)?;
            return Ok(None);
        }
        let value = |of: usize| (of == side).then_some(slot.id.fact);
        Ok(Some(Difference { before: value(0), after: value(1), key: slot.key }))
    }

    /// Some step towards the next difference; none at the end.
    fn step(&mut self) -> Result<Option<Option<Difference>>, StoreError> {
        for side in [0, 1] {
            if let Some(root) = self.roots[side].take() {
                self.expand(side, root)?;
            }
        }
        let [before, after] = &self.pending;
        let order = match (before.last(), after.last()) {
            (None, None) => return Ok(None),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // The smaller key can't be on the other side any more; of two nodes with one key the higher is opened.
            (Some((a, x)), Some((b, y))) => match x.key.cmp(&y.key).then(b.cmp(a)) {
                Ordering::Equal if *a > 0 && x.id != y.id => Ordering::Less,
                order => order,
            },
        };
        match order {
            Ordering::Less => self.take(0).map(Some),
            Ordering::Greater => self.take(1).map(Some),
            Ordering::Equal => {
                let [before, after] = &mut self.pending;
                let same = before.pop().zip(after.pop());
                Ok(same.map(|((_, x), (_, y))| {
                    let (before, after) = (Some(x.id.fact), Some(y.id.fact));
                    (before != after).then_some(Difference { key: x.key, before, after })
                }))
            }
        }
    }
}

impl Iterator for Diff<'_> {
    type Item = Result<Difference, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.step() {
                Ok(None) => return None,
                Ok(Some(None)) => {}
                Ok(Some(Some(found))) => return Some(Ok(found)),
                Err(error) => {
                    self.pending = Default::default();
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use schemas::Lsn;

    use super::*;
    use crate::{Model, testing::Nothing};

    const TREES: Trees =
        Trees { table: Table { model: Model::Staging, prefix: 99 }, scope: Nid { lsn: Lsn(1), index: 0 } };

    const fn nid(lsn: u64) -> Nid {
        Nid { lsn: Lsn(lsn), index: 0 }
    }

    /// Keys as states have them: few types, many state keys, some a prefix of others.
    fn key(n: u16) -> Vec<u8> {
        match n % 8 {
            0 => format!("m.room.{}", n / 8 % 5).into_bytes(),
            1 => format!("m.room.{}\0", n / 8).into_bytes(),
            2 => vec![u8::try_from(n / 8 % 256).unwrap(); usize::from(n % 3)],
            _ => format!("m.room.member\0@user{n}:example.org").into_bytes(),
        }
    }

    fn check(batch: &Batch<'_>, tree: &Tree, map: &BTreeMap<Vec<u8>, Nid>) {
        assert_eq!(tree.len() as usize, map.len());
        let scan = |prefix: &[u8]| TREES.scan(batch, tree, prefix).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(scan(b""), map.clone().into_iter().collect::<Vec<_>>());
        for prefix in [&b"m.room.member"[..], b"m.room.1", b"m.room.2\0", b"\xff", b"\xff\xff"] {
            let expected = map.iter().filter(|(key, _)| key.starts_with(prefix)).map(|(k, v)| (k.clone(), *v));
            assert_eq!(scan(prefix), expected.collect::<Vec<_>>());
            let others = TREES.scan_without(batch, tree, prefix).collect::<Result<Vec<_>, _>>().unwrap();
            let expected = map.iter().filter(|(key, _)| !key.starts_with(prefix)).map(|(k, v)| (k.clone(), *v));
            assert_eq!(others, expected.collect::<Vec<_>>());
        }
        if let Some(root) = tree.root {
            let root = TREES.load(batch, root).unwrap();
            assert!(root.level == 0 || root.slots.len() > 1);
            check_node(batch, &root);
        }
    }

    fn check_node(batch: &Batch<'_>, node: &Node) {
        assert!(node.slots.len() <= MAX && node.slots.is_sorted_by(|a, b| a.key < b.key));
        for slot in node.slots.iter().filter(|_| node.level > 0) {
            let child = TREES.load(batch, slot.id).unwrap();
            assert_eq!((child.level + 1, &child.slots[0].key), (node.level, &slot.key));
            assert!(child.slots.len() >= MIN);
            check_node(batch, &child);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_version_is_the_map_that_it_was(edits in vec(vec((0..600_u16, prop::option::weighted(0.6, 1..5_u64)), 1..60), 1..16)) {
            let mut batch = Batch::new(&Nothing);
            let mut versions = vec![(Tree::default(), BTreeMap::new())];
            for (lsn, edit) in edits.into_iter().enumerate() {
                let changes: Changes = edit.into_iter().map(|(n, value)| (key(n), value.map(nid))).collect();
                let (tree, mut map) = versions.last().unwrap().clone();
                let tree = TREES.apply(&mut batch, &mut Author::new(nid(lsn as u64)), &tree, &changes).unwrap();
                for (key, value) in changes {
                    match value {
                        Some(value) => map.insert(key, value),
                        None => map.remove(&key),
                    };
                }
                versions.push((tree, map));
            }
            for (tree, map) in &versions {
                check(&batch, tree, map);
                for key in (0..600).map(key) {
                    prop_assert_eq!(TREES.get(&batch, tree, &key).unwrap(), map.get(&key).copied());
                }
            }
            for ((a, before), (b, after)) in versions.iter().zip(versions.iter().skip(3)) {
                let found = TREES.diff(&batch, a, b).collect::<Result<Vec<_>, _>>().unwrap();
                let keys: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
                let expected = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).map(|key| {
                    Difference { key: key.clone(), before: before.get(key).copied(), after: after.get(key).copied() }
                });
                prop_assert_eq!(found, expected.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_change_and_a_difference_cost_the_change() {
        let mut batch = Batch::new(&Nothing);
        let member = |n: u32| format!("m.room.member\0@user{n:06}:example.org").into_bytes();
        let all = (0..10_000).map(|n| (member(n), Some(nid(7)))).collect();
        let big = TREES.apply(&mut batch, &mut Author::new(nid(1)), &Tree::default(), &all).unwrap();
        let before = batch.cost();
        let one = Changes::from([(member(5_000), Some(nid(8)))]);
        let changed = TREES.apply(&mut batch, &mut Author::new(nid(2)), &big, &one).unwrap();
        assert_eq!(batch.cost().writes - before.writes, 3);
        assert_eq!(batch.cost().reads - before.reads, 3);

        let before = batch.cost().reads;
        assert_eq!(TREES.diff(&batch, &big, &changed).count(), 1);
        assert_eq!(batch.cost().reads - before, 6);

        let same = TREES.apply(&mut batch, &mut Author::new(nid(3)), &changed, &one).unwrap();
        assert_eq!(same, changed);
        let none = all.into_keys().map(|key| (key, None)).collect();
        let empty = TREES.apply(&mut batch, &mut Author::new(nid(4)), &changed, &none).unwrap();
        assert_eq!(empty, Tree::default());
    }
}
