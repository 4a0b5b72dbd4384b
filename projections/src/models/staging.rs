//! The parts of records that are too large for one: kept until the record that decides names their set.
//!
//! Tables: 1 `set | n -> EventBodies`; 2 `set | n -> StateSetPart`.

use schemas::{
    Blob, Fact, codec,
    facts::{EventBodies, EventLearned, StagedEvents, StateChange, StateSet, StateSetPart},
};
use sha2::{Digest, Sha256};

use crate::{
    At, Batch, FoldError, Model, Projection,
    keys::KeyBuf,
    read::{Range, Read, Table, decode},
};

const EVENTS: Table = Table { model: Model::Staging, prefix: 1 };
const STATES: Table = Table { model: Model::Staging, prefix: 2 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Staging, version: 1, reads: &[], fold };

fn key(set: &Blob, n: u32) -> KeyBuf {
    KeyBuf::new().raw(&set.0).u64(u64::from(n))
}

fn fold(_: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::EventBodies(part) if part.set.0.len() == 16 => batch.put(EVENTS, key(&part.set, part.n), part),
        Fact::StateSetPart(part) if part.set.0.len() == 16 => batch.put(STATES, key(&part.set, part.n), part),
        // By now the events are in their own tables.
        Fact::StagedEvents(staged) => batch.delete_prefix(EVENTS, &staged.set.0),
        _ => {}
    }
    Ok(())
}

/// The events of a staged set.
pub(crate) fn events(at: &At<'_>, staged: &StagedEvents, batch: &Batch<'_>) -> Result<Vec<EventLearned>, FoldError> {
    let parts: Vec<EventBodies> = parts(at, EVENTS, &staged.set, staged.count, &staged.sha256, batch)?;
    Ok(parts.into_iter().flat_map(|part| part.events).collect())
}

/// The entries of a staged state.
pub(crate) fn state(at: &At<'_>, set: &StateSet, batch: &Batch<'_>) -> Result<Vec<StateChange>, FoldError> {
    let parts: Vec<StateSetPart> = parts(at, STATES, &set.set, set.count, &set.sha256, batch)?;
    Ok(parts.into_iter().flat_map(|part| part.entries).collect())
}

/// Forgets the parts of a staged state, once the state model has made a tree of them.
pub(crate) fn forget_state(set: &StateSet, batch: &mut Batch<'_>) {
    batch.delete_prefix(STATES, &set.set.0);
}

fn parts<T: serde::de::DeserializeOwned>(
    at: &At<'_>,
    table: Table,
    set: &Blob,
    count: u32,
    sha256: &Blob,
    batch: &Batch<'_>,
) -> Result<Vec<T>, FoldError> {
    let mut hash = Sha256::new();
    let mut parts = Vec::new();
    for row in batch.scan(table, Range::prefix(set.0.clone())) {
        let (_, bytes) = row?;
        hash.update(&bytes);
        parts.push(decode(table, &bytes)?);
    }
    if parts.len() != count as usize || hash.finalize().as_slice() != sha256.0 {
        return Err(at.refuse("it names a staged set that is not complete"));
    }
    Ok(parts)
}

/// SHA-256 over encoded parts in order, as [`StagedEvents`] and [`StateSet`] state it.
pub fn checksum<T: serde::Serialize>(parts: &[T]) -> Blob {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(codec::encode(part));
    }
    Blob(hash.finalize().to_vec())
}
