//! By what else than their user id this server's users are known: mail addresses and numbers, and who they are at identity
//! providers.
//!
//! Which third-party ids has this user, and which ids at providers? Whose is this one?
//!
//! Tables: 1 `user | hash -> ThirdPartyId`; 2 `user | hash -> ExternalId`; 3 `hash -> user`. The hashes are those of the
//! facts.

use schemas::{
    Fact, Part,
    facts::{ExternalIdAdded, ThirdPartyIdAdded},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, row, rows},
};

const THIRD_PARTY: Table = Table { model: Model::Identities, prefix: 1 };
const EXTERNAL: Table = Table { model: Model::Identities, prefix: 2 };
const HOLDERS: Table = Table { model: Model::Identities, prefix: 3 };

/// So many third-party ids of an account that ends are freed. Rows beyond say of a user what is not theirs any more, and
/// so have no effect.
const FREED: usize = 500;

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Identities, version: 1, reads: &[], fold };

/// A third-party id of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThirdPartyId {
    /// `email` or `msisdn`.
    pub medium: String,
    /// The address or number.
    pub address: Part,
    /// When it was shown to be the user's, milliseconds since the Unix epoch.
    pub validated_at_ms: u64,
    /// Log time at which it was added, milliseconds since the Unix epoch.
    pub added_at_ms: u64,
}

/// Who a user is at an identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalId {
    /// Which.
    pub provider: String,
    /// Their id there.
    pub id: Part,
}

fn key(user: &str, hash: &[u8]) -> KeyBuf {
    KeyBuf::new().str(user).raw(hash)
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::ThirdPartyIdAdded(f) => {
            let ThirdPartyIdAdded { user, hash, medium, address, validated_at_ms } = f;
            take_over(THIRD_PARTY, user, &hash.0, batch)?;
            let before: Option<ThirdPartyId> = row(batch, THIRD_PARTY, key(user, &hash.0))?;
            let added_at_ms = before.map_or(at.log_time.ms, |before| before.added_at_ms);
            let (medium, address) = (medium.clone(), address.clone());
            let id = ThirdPartyId { medium, address, validated_at_ms: *validated_at_ms, added_at_ms };
            batch.put(THIRD_PARTY, key(user, &hash.0), &id);
        }
        Fact::ThirdPartyIdRemoved(f) => free(THIRD_PARTY, &f.user, &f.hash.0, batch)?,
        Fact::ExternalIdAdded(f) => {
            let ExternalIdAdded { user, hash, provider, id } = f;
            take_over(EXTERNAL, user, &hash.0, batch)?;
            batch.put(EXTERNAL, key(user, &hash.0), &ExternalId { provider: provider.clone(), id: id.clone() });
        }
        Fact::ExternalIdRemoved(f) => free(EXTERNAL, &f.user, &f.hash.0, batch)?,
        Fact::AccountDeactivated(f) => {
            let hashes = of_user::<ThirdPartyId>(batch, THIRD_PARTY, &f.user).take(FREED);
            for (hash, _) in hashes.collect::<Result<Vec<_>, _>>()? {
                free(THIRD_PARTY, &f.user, &hash, batch)?;
            }
            batch.delete_prefix(THIRD_PARTY, KeyBuf::new().str(&f.user));
        }
        _ => {}
    }
    Ok(())
}

/// Whoever had it has it no more.
fn take_over(table: Table, user: &str, hash: &[u8], batch: &mut Batch<'_>) -> Result<(), StoreError> {
    if let Some(before) = row::<String>(batch, HOLDERS, hash)?.filter(|before| before != user) {
        batch.delete(table, key(&before, hash));
    }
    batch.put(HOLDERS, hash, user);
    Ok(())
}

fn free(table: Table, user: &str, hash: &[u8], batch: &mut Batch<'_>) -> Result<(), StoreError> {
    if row::<String>(batch, HOLDERS, hash)?.as_deref() == Some(user) {
        batch.delete(HOLDERS, hash);
    }
    batch.delete(table, key(user, hash));
    Ok(())
}

fn of_user<'a, T: DeserializeOwned>(
    read: &'a dyn Read,
    table: Table,
    user: &str,
) -> impl Iterator<Item = Result<(Vec<u8>, T), StoreError>> + use<'a, T> {
    let prefix = Vec::from(KeyBuf::new().str(user));
    let start = prefix.len();
    rows(read, table, Range::prefix(prefix)).map(move |row| row.map(|(key, id)| (key[start..].to_vec(), id)))
}

/// A user's third-party ids, each with its hash.
pub fn third_party<'a>(
    read: &'a dyn Read,
    user: &str,
) -> impl Iterator<Item = Result<(Vec<u8>, ThirdPartyId), StoreError>> + use<'a> {
    of_user(read, THIRD_PARTY, user)
}

/// Who a user is at identity providers, each with its hash.
pub fn external<'a>(
    read: &'a dyn Read,
    user: &str,
) -> impl Iterator<Item = Result<(Vec<u8>, ExternalId), StoreError>> + use<'a> {
    of_user(read, EXTERNAL, user)
}

/// Whose a third-party id, or an id at a provider, is.
///
/// # Errors
/// When the store fails.
pub fn holder(read: &dyn Read, hash: &[u8]) -> Result<Option<String>, StoreError> {
    let Some(user) = row::<String>(read, HOLDERS, hash)? else { return Ok(None) };
    for table in [THIRD_PARTY, EXTERNAL] {
        if read.get(table, key(&user, hash).as_ref())?.is_some() {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use schemas::{
        Blob,
        facts::{AccountDeactivated, ExternalIdRemoved, ThirdPartyIdRemoved},
    };

    use super::*;
    use crate::testing::{ALICE, BOB, World};

    fn mail(user: &str, name: u8) -> Fact {
        let (hash, address) = (Blob(vec![name; 32]), Part::clear(vec![name]));
        ThirdPartyIdAdded { user: user.into(), hash, medium: "email".into(), address, validated_at_ms: 1 }.into()
    }

    fn known(user: &str, name: u8) -> Fact {
        let (hash, id) = (Blob(vec![name; 32]), Part::clear(vec![name]));
        ExternalIdAdded { user: user.into(), hash, provider: "p".into(), id }.into()
    }

    fn of(world: &World, user: &str) -> (Vec<u8>, Vec<u8>) {
        let view = world.view();
        let third_party = third_party(&view, user).map(|row| row.unwrap().0[0]).collect();
        (third_party, external(&view, user).map(|row| row.unwrap().0[0]).collect())
    }

    #[test]
    fn an_id_is_one_users() {
        let mut world = World::new();
        world.apply([mail(ALICE, 1), mail(ALICE, 2), known(ALICE, 3), known(BOB, 4)]);
        world.apply([mail(BOB, 2)]);
        assert_eq!((of(&world, ALICE), of(&world, BOB)), ((vec![1], vec![3]), (vec![2], vec![4])));
        let holder = |world: &World, name: u8| holder(&world.view(), &[name; 32]).unwrap();
        assert_eq!([holder(&world, 2).as_deref(), holder(&world, 3).as_deref()], [Some(BOB), Some(ALICE)]);

        // Without effect: it is not hers any more.
        world.apply([ThirdPartyIdRemoved { user: ALICE.into(), hash: Blob(vec![2; 32]) }.into()]);
        assert_eq!(holder(&world, 2).as_deref(), Some(BOB));
        world.apply([ExternalIdRemoved { user: BOB.into(), hash: Blob(vec![4; 32]) }.into()]);
        assert_eq!(holder(&world, 4), None);
        world.apply([AccountDeactivated { user: ALICE.into(), erase: false }.into()]);
        assert_eq!((of(&world, ALICE), holder(&world, 1)), ((vec![], vec![3]), None));
        world.check_replay();
    }
}
