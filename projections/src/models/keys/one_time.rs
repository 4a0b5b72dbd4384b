//! One-time keys, each given away at most once, and the fallback keys for when they run out.

use std::collections::BTreeMap;

use schemas::{
    Json, Lsn,
    facts::{Claim, FallbackKeysUploaded, NamedKey, OneTimeKeysClaimed, OneTimeKeysUploaded},
};
use serde::{Deserialize, Serialize};

use super::{devices, key, table};
use crate::{
    At, Batch, FoldError, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const ONE_TIME: Table = table(10);
const IDS: Table = table(11);
const COUNTS: Table = table(12);
const FALLBACK: Table = table(13);
const CLAIMED: Table = table(14);
const FORK: Table = table(15);

/// What claims got can be read for this much log time, in milliseconds: the reply is read right after the fold.
const KEEP_CLAIMED_MS: u64 = 60 * 60 * 1000;

#[derive(Serialize, Deserialize)]
struct Fallback {
    id: String,
    key: Json,
    uploaded: Lsn,
    used: bool,
}

/// What a claim got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// The key's id, `algorithm:id`, and the key; none if the device has none left.
    pub key: Option<(String, Json)>,
    /// Log time of the claim, milliseconds since the Unix epoch.
    at_ms: u64,
}

fn algorithm(id: &str) -> &str {
    id.split_once(':').map_or(id, |(algorithm, _)| algorithm)
}

fn change_count(device: &KeyBuf, batch: &mut Batch<'_>, edit: impl FnOnce(&mut Counts)) -> Result<(), FoldError> {
    let mut counts: Counts = row(batch, COUNTS, device)?.unwrap_or_default();
    edit(&mut counts);
    batch.put(COUNTS, device, &counts);
    Ok(())
}

type Counts = BTreeMap<String, u64>;

pub(super) fn upload(at: &At<'_>, fact: &OneTimeKeysUploaded, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if devices::get(batch, &fact.user, &fact.device)?.is_none() {
        return Ok(());
    }
    let device = key(&fact.user, &fact.device);
    let mut added = Counts::new();
    for NamedKey { id, key } in &fact.keys {
        if batch.get(IDS, device.clone().str(id).as_ref())?.is_some() {
            continue;
        }
        batch.put(ONE_TIME, device.clone().str(algorithm(id)).lsn(at.lsn).str(id), key);
        batch.put(IDS, device.clone().str(id), &at.lsn);
        *added.entry(algorithm(id).to_owned()).or_default() += 1;
    }
    batch.touch_user(&fact.user);
    change_count(&device, batch, |counts| {
        for (algorithm, more) in added {
            *counts.entry(algorithm).or_default() += more;
        }
    })
}

pub(super) fn upload_fallback(
    at: &At<'_>,
    fact: &FallbackKeysUploaded,
    batch: &mut Batch<'_>,
) -> Result<(), FoldError> {
    if devices::get(batch, &fact.user, &fact.device)?.is_none() {
        return Ok(());
    }
    for NamedKey { id, key: json } in &fact.keys {
        let fallback = Fallback { id: id.clone(), key: json.clone(), uploaded: at.lsn, used: false };
        batch.put(FALLBACK, key(&fact.user, &fact.device).str(algorithm(id)), &fallback);
    }
    batch.touch_user(&fact.user);
    Ok(())
}

pub(super) fn claim(at: &At<'_>, fact: &OneTimeKeysClaimed, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    forget_old_claims(at, 2 * fact.claims.len() + 2, batch)?;
    for (place, claim) in (0..).zip(&fact.claims) {
        let key = match take(claim, batch)? {
            Some(key) => Some(key),
            None => fall_back(claim, batch)?,
        };
        let claimed = Claimed { user: claim.user.clone(), device: claim.device.clone(), key, at_ms: at.log_time.ms };
        batch.put(CLAIMED, KeyBuf::new().nid(at.nid()).u64(place), &claimed);
        batch.touch_user(&claim.user);
    }
    Ok(())
}

/// At most `limit` rows a record: more than it adds, so that a backlog shrinks.
fn forget_old_claims(at: &At<'_>, limit: usize, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let oldest = rows::<Claimed>(batch, CLAIMED, Range::prefix([])).take(limit);
    let is_old = |claimed: &Claimed| claimed.at_ms.saturating_add(KEEP_CLAIMED_MS) <= at.log_time.ms;
    let oldest = oldest.take_while(|row| row.as_ref().map_or(true, |(_, claimed)| is_old(claimed)));
    for (key, _) in oldest.collect::<Result<Vec<_>, _>>()? {
        batch.delete(CLAIMED, key);
    }
    Ok(())
}

/// The one-time key of the lowest upload, then key id.
fn take(claim: &Claim, batch: &mut Batch<'_>) -> Result<Option<(String, Json)>, FoldError> {
    let device = key(&claim.user, &claim.device);
    let prefix = Vec::from(device.clone().str(&claim.algorithm));
    let first = rows::<Json>(batch, ONE_TIME, Range::prefix(prefix.clone())).next().transpose()?;
    let Some((place, json)) = first else { return Ok(None) };
    let mut rest = KeyReader::new(&place[prefix.len()..]);
    let id = rest.lsn().and_then(|_| rest.str()).ok_or_else(|| malformed_key(ONE_TIME))?;
    batch.delete(ONE_TIME, place);
    batch.delete(IDS, device.clone().str(&id));
    change_count(&device, batch, |counts| {
        let count = counts.entry(claim.algorithm.clone()).or_default();
        *count = count.saturating_sub(1);
    })?;
    Ok(Some((id, json)))
}

fn fall_back(claim: &Claim, batch: &mut Batch<'_>) -> Result<Option<(String, Json)>, FoldError> {
    let at = key(&claim.user, &claim.device).str(&claim.algorithm);
    let Some(mut fallback) = row::<Fallback>(batch, FALLBACK, &at)? else { return Ok(None) };
    if !fallback.used {
        fallback.used = true;
        batch.put(FALLBACK, at, &fallback);
    }
    Ok(Some((fallback.id, fallback.key)))
}

/// Forgets what belongs to a user, or to one device of theirs.
pub(super) fn forget(owner: &KeyBuf, batch: &mut Batch<'_>) {
    for table in [ONE_TIME, IDS, COUNTS, FALLBACK] {
        batch.delete_prefix(table, owner);
    }
}

/// After a restore nobody knows which one-time keys were given away in the history that was lost.
pub(super) fn fork(at: &At<'_>, batch: &mut Batch<'_>) {
    for table in [ONE_TIME, IDS, COUNTS] {
        batch.delete_prefix(table, []);
    }
    batch.put(FORK, [], &at.lsn);
}

/// How many one-time keys a device has left, by algorithm.
///
/// # Errors
/// When the store fails.
pub fn counts(read: &dyn Read, user: &str, device: &str) -> Result<BTreeMap<String, u64>, StoreError> {
    Ok(row(read, COUNTS, key(user, device))?.unwrap_or_default())
}

/// A one-time key that is still to be given away, by its id.
///
/// # Errors
/// When the store fails.
pub fn one_time_key(read: &dyn Read, user: &str, device: &str, id: &str) -> Result<Option<Json>, StoreError> {
    let device = key(user, device);
    let Some(uploaded) = row::<Lsn>(read, IDS, device.clone().str(id))? else { return Ok(None) };
    row(read, ONE_TIME, device.str(algorithm(id)).lsn(uploaded).str(id))
}

/// A device's fallback key for an algorithm, with its id.
///
/// # Errors
/// When the store fails.
pub fn fallback_key(
    read: &dyn Read,
    user: &str,
    device: &str,
    algorithm: &str,
) -> Result<Option<(String, Json)>, StoreError> {
    let fallback: Option<Fallback> = row(read, FALLBACK, key(user, device).str(algorithm))?;
    Ok(fallback.map(|fallback| (fallback.id, fallback.key)))
}

/// Algorithms for which a device has a fallback key that nobody got yet.
///
/// # Errors
/// When the store fails.
pub fn unused_fallback_types(read: &dyn Read, user: &str, device: &str) -> Result<Vec<String>, StoreError> {
    let fork: Option<Lsn> = row(read, FORK, [])?;
    let mut unused = Vec::new();
    for row in rows::<Fallback>(read, FALLBACK, Range::prefix(key(user, device))) {
        let (_, fallback) = row?;
        if !fallback.used && fork.is_none_or(|fork| fallback.uploaded > fork) {
            unused.push(algorithm(&fallback.id).to_owned());
        }
    }
    Ok(unused)
}

/// What the claims of a record got, in their order, for an hour of log time.
///
/// # Errors
/// When the store fails.
pub fn claimed(read: &dyn Read, lsn: Lsn) -> Result<Vec<Claimed>, StoreError> {
    rows(read, CLAIMED, Range::prefix(lsn.to_bytes())).map(|row| Ok(row?.1)).collect()
}
