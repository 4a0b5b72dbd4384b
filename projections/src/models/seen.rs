//! When, from where and by which program the devices of this server's users were last seen, as nodes have told it. What
//! they have not told yet, they know themselves.
//!
//! Where was this device last seen, when, and by what? When was this user?
//!
//! Tables: 1 `user | device -> [Seen]`, the latest first; 2 `user -> time`, milliseconds since the Unix epoch.

use schemas::{Fact, Part, facts::DeviceSeen};
use serde::{Deserialize, Serialize};

use super::devices;
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const DEVICES: Table = Table { model: Model::Seen, prefix: 1 };
const USERS: Table = Table { model: Model::Seen, prefix: 2 };

/// So many addresses and programs of a device are kept, the latest.
pub const KEPT: usize = 8;

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Seen, version: 1, reads: &[Model::Devices], fold };

/// A device was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When last, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// From where, if that is told.
    pub address: Option<Part>,
    /// What its program says that it is, if that is told.
    pub user_agent: Option<Part>,
}

impl Seen {
    /// Whether both came from one address and program.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.address, &self.user_agent) == (&other.address, &other.user_agent)
    }
}

/// Adds what was seen to what was seen before: of each address and program the latest, the latest first.
pub fn join(before: &mut Vec<Seen>, seen: Seen) {
    let known = before.iter().position(|other| other.is_like(&seen)).map(|at| before.remove(at));
    let at_ms = known.map_or(seen.at_ms, |known| known.at_ms.max(seen.at_ms));
    let place = before.iter().position(|other| other.at_ms < at_ms).unwrap_or(before.len());
    before.insert(place, Seen { at_ms, ..seen });
    before.truncate(KEPT);
}

fn key(user: &str, device: &str) -> KeyBuf {
    KeyBuf::new().str(user).str(device)
}

fn fold(_: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::DevicesSeen(f) => f.seen.iter().try_for_each(|seen| note(seen, batch))?,
        Fact::DeviceRemoved(f) => batch.delete(DEVICES, key(&f.user, &f.device)),
        Fact::AccountDeactivated(f) => batch.delete_prefix(DEVICES, KeyBuf::new().str(&f.user)),
        _ => {}
    }
    Ok(())
}

fn note(fact: &DeviceSeen, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let DeviceSeen { user, device, at_ms, address, user_agent } = fact;
    // It may have been logged out since.
    if devices::get(batch, user, device)?.is_none() {
        return Ok(());
    }
    let mut before = of_device(batch, user, device)?;
    join(&mut before, Seen { at_ms: *at_ms, address: address.clone(), user_agent: user_agent.clone() });
    batch.put(DEVICES, key(user, device), &before);
    if last(batch, user)?.is_none_or(|last| last < *at_ms) {
        batch.put(USERS, KeyBuf::new().str(user), at_ms);
    }
    Ok(())
}

/// When and from where a device was seen, the latest first.
///
/// # Errors
/// When the store fails.
pub fn of_device(read: &dyn Read, user: &str, device: &str) -> Result<Vec<Seen>, StoreError> {
    Ok(row(read, DEVICES, key(user, device))?.unwrap_or_default())
}

/// The same of all of a user's devices that were seen.
pub fn of_user<'a>(
    read: &'a dyn Read,
    user: &str,
) -> impl Iterator<Item = Result<(String, Vec<Seen>), StoreError>> + use<'a> {
    rows(read, DEVICES, Range::prefix(KeyBuf::new().str(user))).map(|row| {
        let (key, seen) = row?;
        let mut key = KeyReader::new(&key);
        let device = key.str().and_then(|_| key.str()).ok_or_else(|| malformed_key(DEVICES))?;
        Ok((device, seen))
    })
}

/// When a user was last seen, on whichever device, milliseconds since the Unix epoch.
///
/// # Errors
/// When the store fails.
pub fn last(read: &dyn Read, user: &str) -> Result<Option<u64>, StoreError> {
    row(read, USERS, KeyBuf::new().str(user))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::facts::{AccountDeactivated, DeviceAdded, DeviceRemoved, DevicesSeen};

    use super::*;
    use crate::testing::{ALICE, World};

    fn seen(at_ms: u64, address: u8) -> DeviceSeen {
        let (address, user_agent) = (Some(Part::clear(vec![address])), None);
        DeviceSeen { user: ALICE.into(), device: "PHONE".into(), at_ms, address, user_agent }
    }

    fn phone() -> Fact {
        DeviceAdded { user: ALICE.into(), device: "PHONE".into(), display_name: None }.into()
    }

    fn times(world: &World) -> Vec<u64> {
        of_device(&world.view(), ALICE, "PHONE").unwrap().iter().map(|seen| seen.at_ms).collect()
    }

    #[test]
    fn devices_are_seen_until_they_end() {
        let mut world = World::new();
        world.apply([DevicesSeen { seen: vec![seen(1, 1)] }.into()]);
        assert_eq!((times(&world), last(&world.view(), ALICE).unwrap()), (vec![], None), "it is not there yet");
        world.apply([phone(), DevicesSeen { seen: vec![seen(5, 1), seen(7, 2), seen(3, 1)] }.into()]);
        assert_eq!((times(&world), last(&world.view(), ALICE).unwrap()), (vec![7, 5], Some(7)));
        world.apply([DevicesSeen { seen: vec![seen(9, 1)] }.into()]);
        assert_eq!(times(&world), [9, 7]);
        world.apply([DeviceRemoved { user: ALICE.into(), device: "PHONE".into() }.into()]);
        assert_eq!((times(&world), last(&world.view(), ALICE).unwrap()), (vec![], Some(9)));
        world.apply([phone(), DevicesSeen { seen: vec![seen(10, 1)] }.into()]);
        assert_eq!(of_user(&world.view(), ALICE).count(), 1);
        world.apply([AccountDeactivated { user: ALICE.into(), erase: false }.into()]);
        assert!(times(&world).is_empty());
        world.check_replay();
    }

    proptest! {
        #[test]
        fn in_whatever_order_nodes_tell_it_the_latest_counts(
            all in prop::collection::vec((0..100_u64, 0..6_u8), 0..20).prop_shuffle(),
        ) {
            let part = |address: u8| Some(Part::clear(vec![address]));
            let mut joined = Vec::new();
            for &(at_ms, address) in &all {
                join(&mut joined, Seen { at_ms, address: part(address), user_agent: None });
            }
            let latest = |address| all.iter().filter(|(_, other)| *other == address).map(|(at, _)| *at).max();
            for seen in &joined {
                let address = seen.address.as_ref().unwrap().open().unwrap()[0];
                prop_assert_eq!(Some(seen.at_ms), latest(address));
            }
            prop_assert_eq!(joined.len(), (0..6).filter(|address| latest(*address).is_some()).count());
            prop_assert!(joined.is_sorted_by(|a, b| a.at_ms >= b.at_ms));
        }
    }
}
