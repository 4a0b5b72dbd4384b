//! Who does the work that is done once: each of its shards has one owner at a time.
//!
//! Which node owns this shard?
//!
//! Tables: 1 `shard -> node`. Since when it does is the record that wrote the shard's key (admission).

use schemas::Fact;

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Read, Table, row},
};

const OWNERS: Table = Table { model: Model::Leases, prefix: 1 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Leases, version: 1, reads: &[], fold };

fn fold(_: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Fact::ShardsTaken(f) = fact {
        for shard in &f.shards {
            batch.put(OWNERS, KeyBuf::new().u8(*shard), &f.node);
        }
    }
    Ok(())
}

/// The node that owns a shard; none while nobody has taken it.
///
/// # Errors
/// When the store fails.
pub fn owner(read: &dyn Read, shard: u8) -> Result<Option<u32>, StoreError> {
    row(read, OWNERS, KeyBuf::new().u8(shard))
}

#[cfg(test)]
mod tests {
    use schemas::facts::ShardsTaken;

    use super::*;
    use crate::testing::World;

    #[test]
    fn who_took_a_shard_last_owns_it() {
        let mut world = World::new();
        world.apply([ShardsTaken { shards: vec![1, 2], node: 7 }.into()]);
        world.apply([ShardsTaken { shards: vec![2, 3], node: 8 }.into()]);
        let owners = (0..=3).map(|shard| owner(&world.view(), shard).unwrap());
        assert_eq!(owners.collect::<Vec<_>>(), [None, Some(7), Some(8), Some(8)]);
        world.check_replay();
    }
}
