//! Cross-signing keys, and the signatures that users put under each other's and their own keys.

use schemas::{
    Json,
    facts::{CrossSigningKeysSet, SignaturesUploaded, SignedObject},
};
use serde_json::{Map, Value};

use super::{changed, changed_for, table};
use crate::{
    At, Batch, FoldError, StoreError,
    keys::KeyBuf,
    read::{Read, Table, row},
};

pub(super) const KEYS: Table = table(2);
const SIGNATURES: Table = table(3);

const MASTER: u8 = 0;
const SELF_SIGNING: u8 = 1;
const USER_SIGNING: u8 = 2;

/// A user's cross-signing keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CrossSigning {
    /// Master key.
    pub master: Option<Json>,
    /// Self-signing key.
    pub self_signing: Option<Json>,
    /// User-signing key, which only its owner gets.
    pub user_signing: Option<Json>,
}

fn key(user: &str, usage: u8) -> KeyBuf {
    KeyBuf::new().str(user).u8(usage)
}

pub(super) fn set(at: &At<'_>, fact: &CrossSigningKeysSet, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let user = &fact.user;
    let keys = [(MASTER, &fact.master), (SELF_SIGNING, &fact.self_signing), (USER_SIGNING, &fact.user_signing)];
    let mut public = false;
    for (usage, new) in keys {
        let Some(new) = new else { continue };
        if row::<Json>(batch, KEYS, key(user, usage))?.as_ref() == Some(new) {
            continue;
        }
        batch.put(KEYS, key(user, usage), new);
        public |= usage != USER_SIGNING;
        changed_for(at, user, user, batch);
    }
    if public {
        changed(at, user, batch)?;
    }
    Ok(())
}

pub(super) fn sign(at: &At<'_>, fact: &SignaturesUploaded, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    for object in &fact.objects {
        if !add(&fact.signer, object, batch)? {
            continue;
        }
        if object.user == fact.signer {
            changed(at, &object.user, batch)?;
        } else {
            changed_for(at, &fact.signer, &object.user, batch);
        }
    }
    Ok(())
}

/// Adds the signer's own signatures to those that are there; whether any of them is new.
fn add(signer: &str, object: &SignedObject, batch: &mut Batch<'_>) -> Result<bool, FoldError> {
    let Ok(Value::Object(mut by_signer)) = object.signatures.read() else { return Ok(false) };
    let Some(Value::Object(new)) = by_signer.remove(signer) else { return Ok(false) };
    let at = KeyBuf::new().str(&object.user).str(&object.key).str(signer);
    let mut signatures = signatures(batch, &at)?;
    let before = signatures.clone();
    signatures.extend(new);
    if signatures == before {
        return Ok(false);
    }
    batch.put(SIGNATURES, at, &Json::from(Value::Object(signatures).to_string()));
    Ok(true)
}

fn signatures(read: &dyn Read, at: &KeyBuf) -> Result<Map<String, Value>, StoreError> {
    let stored: Option<Json> = row(read, SIGNATURES, at)?;
    Ok(stored.and_then(|json| json.read().ok()).unwrap_or_default())
}

pub(super) fn forget_key(user: &str, key: &str, batch: &mut Batch<'_>) {
    batch.delete_prefix(SIGNATURES, KeyBuf::new().str(user).str(key));
}

pub(super) fn forget_user(user: &str, batch: &mut Batch<'_>) {
    batch.delete_prefix(KEYS, KeyBuf::new().str(user));
    batch.delete_prefix(SIGNATURES, KeyBuf::new().str(user));
}

/// A key with the signatures by its owner and by the asker.
pub(super) fn with_signatures(
    read: &dyn Read,
    owner: &str,
    key: &str,
    asker: &str,
    json: Json,
) -> Result<Json, StoreError> {
    let mut signers = vec![owner];
    if asker != owner {
        signers.push(asker);
    }
    let mut more = Vec::new();
    for signer in signers {
        let signatures = signatures(read, &KeyBuf::new().str(owner).str(key).str(signer))?;
        if !signatures.is_empty() {
            more.push((signer, signatures));
        }
    }
    let Ok(Value::Object(mut object)) = json.read() else { return Ok(json) };
    if more.is_empty() {
        return Ok(json);
    }
    let all = object.entry("signatures").or_insert_with(|| Map::new().into());
    for (signer, signatures) in more {
        let Value::Object(all) = all else { break };
        if let Value::Object(of_signer) = all.entry(signer).or_insert_with(|| Map::new().into()) {
            of_signer.extend(signatures);
        }
    }
    Ok(Value::Object(object).to_string().into())
}

/// The public part of a cross-signing key, by which signatures name it.
#[must_use]
pub fn public_part(key: &Json) -> Option<String> {
    let key: Value = key.read().ok()?;
    key.get("keys")?.as_object()?.values().next()?.as_str().map(ToOwned::to_owned)
}

/// A user's cross-signing keys, with the signatures that `asker` may see.
///
/// # Errors
/// When the store fails.
pub fn cross_signing(read: &dyn Read, user: &str, asker: &str) -> Result<CrossSigning, StoreError> {
    let get = |usage| -> Result<Option<Json>, StoreError> {
        let Some(json) = row::<Json>(read, KEYS, key(user, usage))? else { return Ok(None) };
        match public_part(&json) {
            Some(public) => with_signatures(read, user, &public, asker, json).map(Some),
            None => Ok(Some(json)),
        }
    };
    Ok(CrossSigning {
        master: get(MASTER)?,
        self_signing: get(SELF_SIGNING)?,
        user_signing: if asker == user { get(USER_SIGNING)? } else { None },
    })
}
