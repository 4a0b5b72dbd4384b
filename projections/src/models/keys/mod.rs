//! End-to-end keys of this server's users: devices' identity keys, cross-signing keys and signatures
//! ([`mod@cross_signing`]), one-time and fallback keys ([`one_time`]); and who changed theirs, and when.
//!
//! What are the keys of this user's devices, with the signatures that the asker may see? Who changed keys since? How
//! many one-time keys has a device left, and which? Which key did a claim get?
//!
//! | Table | Rows |
//! |---|---|
//! | 1 | `user ‖ device -> JSON`, as uploaded |
//! | 2 | `user ‖ usage -> JSON`, cross-signing keys as uploaded |
//! | 3 | `owner ‖ key ‖ signer -> JSON`, `{key id: signature}`; the key is a device id or a public key |
//! | 4 | `lsn ‖ user -> ()`, the last change of each user's device list |
//! | 5 | `user ‖ lsn -> ()`, all changes of each; the last is the one in table 4 |
//! | 6 | `who ‖ lsn ‖ user -> ()`, changes of a user's keys that one other user, or only they themselves, see |
//! | 10 | `user ‖ device ‖ algorithm ‖ lsn ‖ key id -> JSON`, one-time keys in the order in which they are given away |
//! | 11 | `user ‖ device ‖ key id -> lsn`, where table 10 has it |
//! | 12 | `user ‖ device -> {algorithm: count}` |
//! | 13 | `user ‖ device ‖ algorithm -> Fallback` |
//! | 14 | `lsn, index ‖ place -> Claimed`, what a claim got |
//! | 15 | `-> lsn`, the last `Epoch`: fallback keys from before it count as used |
//!
//! Signatures by others than the owner are seen by the signer alone: they tell who trusts whom.
//! A device list changes with its keys, their own user's signatures and the names of devices that have keys; a device
//! without keys is on nobody's list. Table 4 has each user once: whoever asks for changes after a position gets all
//! who changed since, so what changed twice needs no second row there.

mod cross_signing;
mod one_time;

use schemas::{
    Fact, Json, Lsn,
    facts::{DeviceKeysUploaded, DeviceRemoved},
};

pub use self::{
    cross_signing::{CrossSigning, cross_signing, public_part},
    one_time::{Claimed, claimed, counts, fallback_key, one_time_key, unused_fallback_types},
};
use super::devices;
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const DEVICE_KEYS: Table = table(1);
const CHANGES: Table = table(4);
const ALL_CHANGES: Table = table(5);
const PRIVATE_CHANGES: Table = table(6);

const fn table(prefix: u8) -> Table {
    Table { model: Model::Keys, prefix }
}

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Keys, version: 2, reads: &[Model::Devices], fold };

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::DeviceKeysUploaded(f) => upload(at, f, batch)?,
        Fact::DeviceRenamed(f) if has_keys(batch, &f.user, &f.device)? => changed(at, &f.user, batch)?,
        Fact::DeviceRemoved(f) => remove(at, f, batch)?,
        Fact::AccountDeactivated(f) => {
            let of_user = KeyBuf::new().str(&f.user);
            let some = [DEVICE_KEYS, cross_signing::KEYS]
                .iter()
                .find_map(|&table| batch.scan(table, Range::prefix(of_user.clone())).next());
            if some.transpose()?.is_some() {
                changed(at, &f.user, batch)?;
            }
            batch.delete_prefix(DEVICE_KEYS, &of_user);
            batch.delete_prefix(PRIVATE_CHANGES, &of_user);
            cross_signing::forget_user(&f.user, batch);
            one_time::forget(&of_user, batch);
        }
        Fact::CrossSigningKeysSet(f) => cross_signing::set(at, f, batch)?,
        Fact::SignaturesUploaded(f) => cross_signing::sign(at, f, batch)?,
        Fact::OneTimeKeysUploaded(f) => one_time::upload(at, f, batch)?,
        Fact::FallbackKeysUploaded(f) => one_time::upload_fallback(at, f, batch)?,
        Fact::OneTimeKeysClaimed(f) => one_time::claim(at, f, batch)?,
        Fact::Epoch(_) => one_time::fork(at, batch),
        _ => {}
    }
    Ok(())
}

fn key(user: &str, device: &str) -> KeyBuf {
    KeyBuf::new().str(user).str(device)
}

fn has_keys(read: &dyn Read, user: &str, device: &str) -> Result<bool, StoreError> {
    Ok(read.get(DEVICE_KEYS, key(user, device).as_ref())?.is_some())
}

fn upload(at: &At<'_>, fact: &DeviceKeysUploaded, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if devices::get(batch, &fact.user, &fact.device)?.is_none() {
        return Ok(());
    }
    let key = key(&fact.user, &fact.device);
    let before: Option<Json> = row(batch, DEVICE_KEYS, &key)?;
    if before.as_ref() != Some(&fact.keys) {
        // What was signed were the keys before.
        cross_signing::forget_key(&fact.user, &fact.device, batch);
        batch.put(DEVICE_KEYS, key, &fact.keys);
        changed(at, &fact.user, batch)?;
    }
    Ok(())
}

fn remove(at: &At<'_>, fact: &DeviceRemoved, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if has_keys(batch, &fact.user, &fact.device)? {
        batch.delete(DEVICE_KEYS, key(&fact.user, &fact.device));
        cross_signing::forget_key(&fact.user, &fact.device, batch);
        changed(at, &fact.user, batch)?;
    }
    one_time::forget(&key(&fact.user, &fact.device), batch);
    Ok(())
}

/// Notes that a user's device list has changed, for all who share a room with them.
fn changed(at: &At<'_>, user: &str, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Some(before) = last_change(batch, user)? {
        batch.delete(CHANGES, KeyBuf::new().lsn(before).str(user));
    }
    batch.put(CHANGES, KeyBuf::new().lsn(at.lsn).str(user), &());
    batch.put(ALL_CHANGES, KeyBuf::new().str(user).lsn(at.lsn), &());
    batch.touch_device_list(user);
    batch.touch_user(user);
    Ok(())
}

/// Notes that a user's keys look different to one other user, or to themselves alone.
fn changed_for(at: &At<'_>, who: &str, user: &str, batch: &mut Batch<'_>) {
    batch.put(PRIVATE_CHANGES, KeyBuf::new().str(who).lsn(at.lsn).str(user), &());
    batch.touch_user(who);
}

/// The keys of a device, with the signatures that `asker` may see.
///
/// # Errors
/// When the store fails.
pub fn of_device(read: &dyn Read, user: &str, device: &str, asker: &str) -> Result<Option<Json>, StoreError> {
    let keys: Option<Json> = row(read, DEVICE_KEYS, key(user, device))?;
    keys.map(|keys| cross_signing::with_signatures(read, user, device, asker, keys)).transpose()
}

/// The keys of all devices of a user that have any, with the signatures that `asker` may see.
///
/// # Errors
/// When the store fails.
pub fn of_user(read: &dyn Read, user: &str, asker: &str) -> Result<Vec<(String, Json)>, StoreError> {
    let stored = rows(read, DEVICE_KEYS, Range::prefix(KeyBuf::new().str(user)));
    stored
        .map(|row| {
            let (key, keys) = row?;
            let mut key = KeyReader::new(&key);
            let device = key.str().and_then(|_| key.str()).ok_or_else(|| malformed_key(DEVICE_KEYS))?;
            let keys = cross_signing::with_signatures(read, user, &device, asker, keys)?;
            Ok((device, keys))
        })
        .collect()
}

/// Users whose device lists changed after a position, each once, with the position of the last change; in that order.
pub fn changed_after(read: &dyn Read, after: Lsn) -> impl Iterator<Item = Result<(Lsn, String), StoreError>> + '_ {
    let range = Range { from: KeyBuf::new().lsn(after).u8(0xff).into(), to: None, reverse: false };
    changes(read, CHANGES, 0, range)
}

/// Users whose keys look different to `who` alone since a position (they signed them, or they are their own), with the
/// positions of the changes.
pub fn changed_for_after<'a>(
    read: &'a dyn Read,
    who: &str,
    after: Lsn,
) -> impl Iterator<Item = Result<(Lsn, String), StoreError>> + 'a {
    let prefix = Vec::from(KeyBuf::new().str(who));
    let start = prefix.len();
    changes(read, PRIVATE_CHANGES, start, Range::prefix_from(&prefix, KeyBuf::new().lsn(after).u8(0xff).as_ref()))
}

fn changes(
    read: &dyn Read,
    table: Table,
    start: usize,
    range: Range,
) -> impl Iterator<Item = Result<(Lsn, String), StoreError>> + '_ {
    read.scan(table, range).map(move |row| {
        let (key, _) = row?;
        let mut key = KeyReader::new(&key[start..]);
        key.lsn().and_then(|lsn| Some((lsn, key.str()?))).ok_or_else(|| malformed_key(table))
    })
}

/// When a user's device list changed last.
///
/// # Errors
/// When the store fails.
pub fn last_change(read: &dyn Read, user: &str) -> Result<Option<Lsn>, StoreError> {
    changed_at(read, Range::prefix(KeyBuf::new().str(user)).rev())
}

/// Whether a user's device list changed after a position, and up to another.
///
/// # Errors
/// When the store fails.
pub fn has_changed(read: &dyn Read, user: &str, after: Lsn, until: Lsn) -> Result<bool, StoreError> {
    let range = Range::prefix_from(KeyBuf::new().str(user).as_ref(), &after.next().to_bytes());
    Ok(changed_at(read, range)?.is_some_and(|lsn| lsn <= until))
}

fn changed_at(read: &dyn Read, range: Range) -> Result<Option<Lsn>, StoreError> {
    let Some((key, _)) = read.scan(ALL_CHANGES, range).next().transpose()? else { return Ok(None) };
    let mut key = KeyReader::new(&key);
    key.str().and_then(|_| key.lsn()).map(Some).ok_or_else(|| malformed_key(ALL_CHANGES))
}

#[cfg(test)]
mod tests;
