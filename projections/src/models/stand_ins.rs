//! Administrators who are logged in as somebody else. Their tokens are known by their SHA-256 alone.
//!
//! Who acts with this token, in whose stead, and until when? With which tokens does this administrator act?
//!
//! Tables: 1 `SHA-256 of a token -> StandIn`; 2 `user | SHA-256 -> ()`, by the user in whose stead; 3 `administrator |
//! SHA-256 -> ()`.
//!
//! A token ends with the account that it is for, and with its administrator's being one.

use schemas::{Fact, LogTime, facts::StandInOpened};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, row},
};

const TOKENS: Table = Table { model: Model::StandIns, prefix: 1 };
const BY_USER: Table = Table { model: Model::StandIns, prefix: 2 };
const BY_ADMINISTRATOR: Table = Table { model: Model::StandIns, prefix: 3 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::StandIns, version: 1, reads: &[], fold };

/// So many of a user's tokens, or of an administrator's, are there at most: a new one ends the others' first.
const AT_MOST: usize = 500;

/// Somebody in another's stead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// Full id of the user in whose stead they act.
    pub user: String,
    /// Who, as the record's origin names them.
    pub administrator: String,
    /// Log time at which it ends, milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

impl StandIn {
    /// Whether it is over.
    #[must_use]
    pub fn is_expired(&self, now: LogTime) -> bool {
        self.expires_at_ms.is_some_and(|end| end <= now.ms)
    }
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::StandInOpened(f) => open(at, f, batch)?,
        Fact::StandInEnded(f) => end(&f.access.0, batch)?,
        Fact::AdminSet(f) if !f.admin => end_all(BY_ADMINISTRATOR, &f.user, batch)?,
        Fact::AccountDeactivated(f) => {
            end_all(BY_ADMINISTRATOR, &f.user, batch)?;
            end_all(BY_USER, &f.user, batch)?;
        }
        _ => {}
    }
    Ok(())
}

fn open(at: &At<'_>, fact: &StandInOpened, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    for (table, name) in [(BY_USER, &fact.user), (BY_ADMINISTRATOR, &fact.administrator)] {
        let there = tokens(batch, table, name)?;
        let surplus = (there.len() + 1).saturating_sub(AT_MOST);
        for (place, token) in there.iter().enumerate() {
            let over = get(batch, token)?.is_none_or(|found| found.is_expired(at.log_time));
            if over || place < surplus {
                end(token, batch)?;
            }
        }
    }
    let (user, administrator) = (fact.user.clone(), fact.administrator.clone());
    batch.put(BY_USER, KeyBuf::new().str(&user).raw(&fact.access.0), &());
    batch.put(BY_ADMINISTRATOR, KeyBuf::new().str(&administrator).raw(&fact.access.0), &());
    batch.put(TOKENS, &fact.access.0, &StandIn { user, administrator, expires_at_ms: fact.expires_at_ms });
    Ok(())
}

fn end_all(table: Table, name: &str, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    tokens(batch, table, name)?.iter().try_for_each(|token| end(token, batch))
}

fn end(token: &[u8], batch: &mut Batch<'_>) -> Result<(), StoreError> {
    if let Some(found) = get(batch, token)? {
        batch.delete(BY_USER, KeyBuf::new().str(&found.user).raw(token));
        batch.delete(BY_ADMINISTRATOR, KeyBuf::new().str(&found.administrator).raw(token));
        batch.delete(TOKENS, token);
    }
    Ok(())
}

fn tokens(read: &dyn Read, table: Table, name: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    let prefix = Vec::from(KeyBuf::new().str(name));
    let start = prefix.len();
    read.scan(table, Range::prefix(prefix)).map(|row| Ok(row?.0[start..].to_vec())).collect()
}

/// Who acts with a token, which is named by its SHA-256.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, sha256: &[u8]) -> Result<Option<StandIn>, StoreError> {
    row(read, TOKENS, sha256)
}

/// The SHA-256 of all tokens with which an administrator acts in others' stead.
///
/// # Errors
/// When the store fails.
pub fn of_administrator(read: &dyn Read, administrator: &str) -> Result<Vec<Vec<u8>>, StoreError> {
    tokens(read, BY_ADMINISTRATOR, administrator)
}

#[cfg(test)]
mod tests {
    use schemas::{
        Blob,
        facts::{AccountDeactivated, AdminSet, StandInEnded},
    };

    use super::*;
    use crate::testing::{ALICE, BOB, World};

    const ROOT: &str = "@root:example.org";

    fn opened(user: &str, administrator: &str, token: u8, expires_at_ms: Option<u64>) -> Fact {
        let access = Blob(vec![token; 32]);
        StandInOpened { user: user.into(), administrator: administrator.into(), access, expires_at_ms }.into()
    }

    fn valid(world: &World) -> Vec<u8> {
        (0..9).filter(|token| get(&world.view(), &[*token; 32]).unwrap().is_some()).collect()
    }

    #[test]
    fn tokens_end_with_their_account_and_with_their_administrator() {
        let mut world = World::new();
        world.apply([opened(ALICE, ROOT, 1, None), opened(BOB, ROOT, 2, None), opened(BOB, ALICE, 3, None)]);
        world.apply([opened(BOB, ROOT, 4, None), StandInEnded { access: Blob(vec![4; 32]) }.into()]);
        assert_eq!(valid(&world), [1, 2, 3]);
        assert_eq!(of_administrator(&world.view(), ROOT).unwrap().len(), 2);
        world.apply([AdminSet { user: ALICE.into(), admin: false }.into()]);
        assert_eq!(valid(&world), [1, 2]);
        world.apply([AccountDeactivated { user: BOB.into(), erase: false }.into()]);
        assert_eq!(valid(&world), [1]);
        world.apply([AccountDeactivated { user: ROOT.into(), erase: false }.into()]);
        assert!(valid(&world).is_empty());
        world.check_replay();
    }

    #[test]
    fn what_is_over_goes_with_the_next() {
        let mut world = World::new();
        let end = world.log_time().ms + 5_000;
        world.apply([opened(ALICE, ROOT, 1, Some(end))]);
        assert!(!get(&world.view(), &[1; 32]).unwrap().unwrap().is_expired(world.log_time()));
        world.wait_ms(10_000);
        world.apply([opened(BOB, ROOT, 2, None)]);
        assert_eq!(valid(&world), [2]);
        world.check_replay();
    }
}
