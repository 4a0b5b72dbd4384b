//! Through which push gateways this server's users want to be notified.
//!
//! Which pushers has this user?
//!
//! Tables: 1 `user | id -> Pusher`; 2 `id | user -> ()`. An id is the SHA-256 of app and pushkey.

use schemas::{Fact, Part, facts::PusherSet};
use serde::{Deserialize, Serialize};

use super::accounts;
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, rows},
};

const PUSHERS: Table = Table { model: Model::Pushers, prefix: 1 };
const USERS: Table = Table { model: Model::Pushers, prefix: 2 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Pushers, version: 1, reads: &[Model::Accounts], fold };

/// At most so many pushers of a user are looked at, and so many users of one: more are not taken on.
pub const AT_MOST: usize = 500;

/// A pusher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pusher {
    /// The device that asked for it; empty where there was none.
    pub device: String,
    /// What the client said, JSON.
    pub pusher: Part,
}

fn fold(_: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::PusherSet(f) if accounts::get(batch, &f.user)?.is_some_and(|account| !account.deactivated) => {
            set(f, batch)?;
        }
        Fact::PusherRemoved(f) => remove(&f.user, &f.id.0, batch),
        Fact::DeviceRemoved(f) => {
            for (id, pusher) in of_user(batch, &f.user).take(AT_MOST).collect::<Result<Vec<_>, _>>()? {
                if pusher.device == f.device {
                    remove(&f.user, &id, batch);
                }
            }
        }
        Fact::AccountDeactivated(f) => {
            for (id, _) in of_user(batch, &f.user).take(AT_MOST).collect::<Result<Vec<_>, _>>()? {
                remove(&f.user, &id, batch);
            }
        }
        _ => {}
    }
    Ok(())
}

fn set(fact: &PusherSet, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let id = &fact.id.0;
    let there = batch.scan(USERS, Range::prefix(id.as_slice())).take(AT_MOST).collect::<Result<Vec<_>, _>>()?;
    if !fact.append {
        for (key, _) in &there {
            let other = KeyReader::new(&key[id.len()..]).str().ok_or_else(|| malformed_key(USERS))?;
            remove(&other, id, batch);
        }
    }
    let is_new = batch.get(PUSHERS, key(&fact.user, id).as_ref())?.is_none();
    let is_full = there.len() >= AT_MOST && fact.append || of_user(batch, &fact.user).take(AT_MOST).count() >= AT_MOST;
    if is_new && is_full {
        return Ok(());
    }
    batch.put(PUSHERS, key(&fact.user, id), &Pusher { device: fact.device.clone(), pusher: fact.pusher.clone() });
    batch.put(USERS, KeyBuf::new().raw(id).str(&fact.user), &());
    Ok(())
}

fn remove(user: &str, id: &[u8], batch: &mut Batch<'_>) {
    batch.delete(PUSHERS, key(user, id));
    batch.delete(USERS, KeyBuf::new().raw(id).str(user));
}

fn key(user: &str, id: &[u8]) -> KeyBuf {
    KeyBuf::new().str(user).raw(id)
}

/// A user's pushers with their ids.
pub fn of_user<'a>(
    read: &'a dyn Read,
    user: &str,
) -> impl Iterator<Item = Result<(Vec<u8>, Pusher), StoreError>> + use<'a> {
    let prefix = Vec::from(KeyBuf::new().str(user));
    let start = prefix.len();
    rows(read, PUSHERS, Range::prefix(prefix)).map(move |row| row.map(|(key, pusher)| (key[start..].to_vec(), pusher)))
}

#[cfg(test)]
mod tests {
    use schemas::{
        Blob,
        facts::{AccountDeactivated, DeviceRemoved, PusherRemoved, UserKind, UserRegistered},
    };

    use super::*;
    use crate::testing::{ALICE, BOB, World};

    fn registered(user: &str) -> Fact {
        let (user, kind) = (user.into(), UserKind::Regular);
        UserRegistered { user, password: None, admin: false, kind, registration_token: None }.into()
    }

    fn set(user: &str, device: &str, id: u8, append: bool) -> Fact {
        let (pusher, id) = (Part::clear("{}"), Blob(vec![id; 32]));
        PusherSet { user: user.into(), device: device.into(), id, pusher, append }.into()
    }

    fn ids(world: &World, user: &str) -> Vec<u8> {
        of_user(&world.view(), user).map(|row| row.unwrap().0[0]).collect()
    }

    #[test]
    fn pushers_come_and_go_with_their_device_and_their_account() {
        let mut world = World::new();
        world.apply([registered(ALICE), registered(BOB), set("@nobody:example.org", "", 1, true)]);
        world.apply([set(ALICE, "PHONE", 1, false), set(ALICE, "DESK", 2, false), set(BOB, "B", 1, true)]);
        assert_eq!((ids(&world, ALICE), ids(&world, BOB)), (vec![1, 2], vec![1]));
        world.apply([set(BOB, "B", 2, false)]);
        assert_eq!((ids(&world, ALICE), ids(&world, BOB)), (vec![1], vec![1, 2]));
        world.apply([DeviceRemoved { user: ALICE.into(), device: "PHONE".into() }.into()]);
        world.apply([PusherRemoved { user: BOB.into(), id: Blob(vec![1; 32]) }.into()]);
        assert_eq!((ids(&world, ALICE), ids(&world, BOB)), (vec![], vec![2]));
        world.apply([AccountDeactivated { user: BOB.into(), erase: false }.into(), set(BOB, "B", 3, true)]);
        assert!(ids(&world, BOB).is_empty());
        world.check_replay();
    }
}
