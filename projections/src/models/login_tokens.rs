//! Login tokens that can still be used: each by whoever has it, once. They are known by their SHA-256 alone.
//!
//! Whom does this login token let in, and until when?
//!
//! Tables: 1 `SHA-256 of a token -> LoginToken`; 2 `expires at | SHA-256 -> ()`, for expiry.

use schemas::{Fact, LogTime};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, row},
};

const TOKENS: Table = Table { model: Model::LoginTokens, prefix: 1 };
const ENDS: Table = Table { model: Model::LoginTokens, prefix: 2 };

/// At most so many tokens that are over are forgotten with each new one: more than come, so that a backlog shrinks.
const FORGET: usize = 2;

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::LoginTokens, version: 1, reads: &[], fold };

/// A login token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginToken {
    /// Full id of the user whom it lets in.
    pub user: String,
    /// The device that asked for it.
    pub device: String,
    /// Log time at which it ends, milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

impl LoginToken {
    /// Whether it is over.
    #[must_use]
    pub const fn is_expired(&self, now: LogTime) -> bool {
        self.expires_at_ms <= now.ms
    }
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::LoginTokenIssued(f) => {
            let token = LoginToken { user: f.user.clone(), device: f.device.clone(), expires_at_ms: f.expires_at_ms };
            remove(&f.token.0, batch)?;
            batch.put(ENDS, end(f.expires_at_ms, &f.token.0), &());
            batch.put(TOKENS, &f.token.0, &token);
            forget(at, batch)?;
        }
        Fact::LoginTokenUsed(f) => remove(&f.token.0, batch)?,
        _ => {}
    }
    Ok(())
}

fn remove(sha256: &[u8], batch: &mut Batch<'_>) -> Result<(), StoreError> {
    if let Some(token) = get(batch, sha256)? {
        batch.delete(ENDS, end(token.expires_at_ms, sha256));
        batch.delete(TOKENS, sha256);
    }
    Ok(())
}

fn end(expires_at_ms: u64, sha256: &[u8]) -> KeyBuf {
    KeyBuf::new().u64(expires_at_ms).raw(sha256)
}

fn forget(at: &At<'_>, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let over = Range { from: Vec::new(), to: Some(KeyBuf::new().u64(at.log_time.ms).into()), reverse: false };
    let over = batch.scan(ENDS, over).take(FORGET).collect::<Result<Vec<_>, _>>()?;
    for (key, _) in over {
        batch.delete(TOKENS, &key[8..]);
        batch.delete(ENDS, key);
    }
    Ok(())
}

/// The login token with this SHA-256, unless it was used; it may be over.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, sha256: &[u8]) -> Result<Option<LoginToken>, StoreError> {
    row(read, TOKENS, sha256)
}

#[cfg(test)]
mod tests {
    use schemas::{
        Blob,
        facts::{LoginTokenIssued, LoginTokenUsed},
    };

    use super::*;
    use crate::testing::{ALICE, World};

    fn sha256(n: u8) -> Blob {
        Blob(vec![n; 32])
    }

    fn issue(world: &mut World, n: u8, lasts_ms: u64) {
        let expires_at_ms = world.log_time().ms + lasts_ms;
        world.apply([
            LoginTokenIssued { token: sha256(n), user: ALICE.into(), device: "D".into(), expires_at_ms }.into()
        ]);
    }

    /// Which of the first tokens are there.
    fn there(world: &World) -> Vec<u8> {
        (1..=6).filter(|n| get(&world.view(), &sha256(*n).0).unwrap().is_some()).collect()
    }

    #[test]
    fn a_token_is_there_until_it_is_used() {
        let mut world = World::new();
        issue(&mut world, 1, 60_000);
        let found = get(&world.view(), &sha256(1).0).unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.device.as_str()), (ALICE, "D"));
        assert!(!found.is_expired(world.log_time()));
        issue(&mut world, 2, 60_000);
        let used = || LoginTokenUsed { token: sha256(1) }.into();
        world.apply([used()]);
        assert_eq!(there(&world), [2]);
        world.apply([used()]);
        assert_eq!(there(&world), [2], "there is nothing left to end");
        world.check_replay();
    }

    #[test]
    fn what_is_over_is_forgotten_a_few_at_a_time() {
        let mut world = World::new();
        (1..=4).for_each(|n| issue(&mut world, n, 60_000));
        world.wait_ms(100_000);
        issue(&mut world, 5, 60_000);
        assert_eq!(there(&world), [3, 4, 5]);
        assert!(get(&world.view(), &sha256(3).0).unwrap().unwrap().is_expired(world.log_time()));
        issue(&mut world, 6, 60_000);
        assert_eq!(there(&world), [5, 6]);
        world.check_replay();
    }
}
