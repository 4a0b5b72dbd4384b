//! The devices of this server's users.
//!
//! Which devices has a user? What is a device called, and since when is it there? Who changed keys is answered by
//! [`super::keys`], when a device was last seen by the node that saw it.
//!
//! Tables: 1 `user | device -> Device`.

use schemas::{Fact, Lsn};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const DEVICES: Table = Table { model: Model::Devices, prefix: 1 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Devices, version: 1, reads: &[], fold };

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// What the user sees it called.
    pub display_name: Option<String>,
    /// The record that added it.
    pub added: Lsn,
    /// Log time then, milliseconds since the Unix epoch.
    pub added_at_ms: u64,
}

fn key(user: &str, device: &str) -> KeyBuf {
    KeyBuf::new().str(user).str(device)
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::DeviceAdded(f) if get(batch, &f.user, &f.device)?.is_none() => {
            let device = Device { display_name: f.display_name.clone(), added: at.lsn, added_at_ms: at.log_time.ms };
            batch.put(DEVICES, key(&f.user, &f.device), &device);
            batch.touch_user(&f.user);
        }
        Fact::DeviceRenamed(f) => {
            if let Some(mut device) = get(batch, &f.user, &f.device)? {
                device.display_name.clone_from(&f.display_name);
                batch.put(DEVICES, key(&f.user, &f.device), &device);
                batch.touch_user(&f.user);
            }
        }
        Fact::DeviceRemoved(f) => {
            batch.delete(DEVICES, key(&f.user, &f.device));
            batch.touch_user(&f.user);
        }
        Fact::AccountDeactivated(f) => {
            batch.delete_prefix(DEVICES, KeyBuf::new().str(&f.user));
            batch.touch_user(&f.user);
        }
        _ => {}
    }
    Ok(())
}

/// A device.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, user: &str, device: &str) -> Result<Option<Device>, StoreError> {
    row(read, DEVICES, key(user, device))
}

/// A user's devices with their ids, in the order of those.
pub fn of_user<'a>(read: &'a dyn Read, user: &str) -> impl Iterator<Item = Result<(String, Device), StoreError>> + 'a {
    rows(read, DEVICES, Range::prefix(KeyBuf::new().str(user))).map(|row| {
        let (key, device) = row?;
        let mut key = KeyReader::new(&key);
        let id = key.str().and_then(|_| key.str()).ok_or_else(|| malformed_key(DEVICES))?;
        Ok((id, device))
    })
}

#[cfg(test)]
mod tests {
    use schemas::facts::{AccountDeactivated, DeviceAdded, DeviceRemoved, DeviceRenamed};

    use super::*;
    use crate::testing::World;

    const ALICE: &str = "@alice:example.org";

    fn added(device: &str, name: &str) -> Fact {
        DeviceAdded { user: ALICE.into(), device: device.into(), display_name: Some(name.into()) }.into()
    }

    fn names(world: &World) -> Vec<(String, Option<String>)> {
        of_user(&world.view(), ALICE).map(|row| row.map(|(id, d)| (id, d.display_name)).unwrap()).collect()
    }

    #[test]
    fn devices_come_are_renamed_and_go() {
        let mut world = World::new();
        let first = world.apply([added("PHONE", "phone"), added("DESK", "desk")]);
        world.apply([added("PHONE", "again")]);
        let phone = get(&world.view(), ALICE, "PHONE").unwrap().unwrap();
        assert_eq!((phone.added, phone.display_name.as_deref()), (first, Some("phone")));

        let renamed = |device: &str| DeviceRenamed { user: ALICE.into(), device: device.into(), display_name: None };
        world.apply([renamed("DESK").into(), renamed("NOBODY").into()]);
        assert_eq!(names(&world), [("DESK".into(), None), ("PHONE".into(), Some("phone".into()))]);

        world.apply([DeviceRemoved { user: ALICE.into(), device: "DESK".into() }.into()]);
        assert_eq!(names(&world), [("PHONE".into(), Some("phone".into()))]);
        world.apply([AccountDeactivated { user: ALICE.into(), erase: false }.into()]);
        assert_eq!(names(&world), []);
        world.check_replay();
    }
}
