//! Which device an access or refresh token belongs to. Tokens are known by their SHA-256 alone.
//!
//! Tables: 1 `SHA-256 of a token -> Holder`; 2 `user | device -> Session`.
//!
//! A token counts only while its device's session names it: table 1 merely finds the session. A session holds a pair of
//! tokens and, after a refresh, the pair before it. Using a token appends nothing, so the fold can't see when a client
//! has got its new pair; the rule is therefore:
//! - the pair before goes on until the new refresh token is used in its turn, and its access token no longer than its
//!   own expiry: a client that never got the new pair can refresh with the old token again;
//! - when it does, the pair that it never got ends at once, and the old one stays the pair before.

use schemas::{
    Blob, Fact, LogTime,
    facts::{SessionOpened, SessionRefreshed},
};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, row, rows},
};

const TOKENS: Table = Table { model: Model::Sessions, prefix: 1 };
const SESSIONS: Table = Table { model: Model::Sessions, prefix: 2 };

/// So many sessions of an account that ends have their tokens' rows cleared. Rows beyond name a session that is gone,
/// and so have no effect.
const CLEARED: usize = 500;

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Sessions, version: 1, reads: &[], fold };

#[derive(Clone, Serialize, Deserialize)]
struct Holder {
    user: String,
    device: String,
}

#[derive(Serialize, Deserialize)]
struct Session {
    current: Pair,
    before: Option<Pair>,
}

#[derive(Serialize, Deserialize)]
struct Pair {
    access: Blob,
    access_expires_at_ms: Option<u64>,
    refresh: Option<Blob>,
}

impl Session {
    /// The pairs, with whether a newer one was given out.
    fn pairs(&self) -> impl Iterator<Item = (&Pair, bool)> {
        std::iter::once((&self.current, false)).chain(self.before.iter().map(|pair| (pair, true)))
    }
}

/// What an access token gives access to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// Log time at which it ends, milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// The session was refreshed since.
    pub superseded: bool,
}

impl Access {
    /// Whether it has ended by itself: the client may refresh it, or log in again (a soft logout).
    #[must_use]
    pub fn is_expired(&self, now: LogTime) -> bool {
        self.expires_at_ms.is_some_and(|end| end <= now.ms)
    }
}

/// What a refresh token refreshes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Full user id.
    pub user: String,
    /// Device id.
    pub device: String,
    /// It was used before, and the refresh token that it gave was not.
    pub superseded: bool,
}

fn key(user: &str, device: &str) -> KeyBuf {
    KeyBuf::new().str(user).str(device)
}

fn fold(_: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::SessionOpened(f) => open(f, batch)?,
        Fact::SessionRefreshed(f) => refresh_session(f, batch)?,
        Fact::DeviceRemoved(f) => {
            if let Some(session) = session(batch, &f.user, &f.device)? {
                session.pairs().for_each(|(pair, _)| end(pair, batch));
            }
            batch.delete(SESSIONS, key(&f.user, &f.device));
        }
        Fact::AccountDeactivated(f) => {
            let of_user = KeyBuf::new().str(&f.user);
            let sessions = rows(batch, SESSIONS, Range::prefix(of_user.clone())).take(CLEARED);
            for (_, session) in sessions.collect::<Result<Vec<(_, Session)>, _>>()? {
                session.pairs().for_each(|(pair, _)| end(pair, batch));
            }
            batch.delete_prefix(SESSIONS, of_user);
        }
        _ => {}
    }
    Ok(())
}

fn open(fact: &SessionOpened, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if let Some(session) = session(batch, &fact.user, &fact.device)? {
        session.pairs().for_each(|(pair, _)| end(pair, batch));
    }
    let current = Pair {
        access: fact.access.clone(),
        access_expires_at_ms: fact.access_expires_at_ms,
        refresh: fact.refresh.clone(),
    };
    begin(&fact.user, &fact.device, &Session { current, before: None }, batch);
    Ok(())
}

fn refresh_session(fact: &SessionRefreshed, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(Session { current, before }) = session(batch, &fact.user, &fact.device)? else { return Ok(()) };
    let uses = |pair: &Pair| pair.refresh.as_ref() == Some(&fact.used);
    let (kept, ended) = if uses(&current) {
        (current, before)
    } else if let Some(before) = before.filter(uses) {
        (before, Some(current))
    } else {
        return Ok(());
    };
    if let Some(pair) = &ended {
        end(pair, batch);
    }
    let current = Pair {
        access: fact.access.clone(),
        access_expires_at_ms: fact.access_expires_at_ms,
        refresh: Some(fact.refresh.clone()),
    };
    begin(&fact.user, &fact.device, &Session { current, before: Some(kept) }, batch);
    Ok(())
}

fn begin(user: &str, device: &str, session: &Session, batch: &mut Batch<'_>) {
    let holder = Holder { user: user.to_owned(), device: device.to_owned() };
    for token in std::iter::once(&session.current.access).chain(&session.current.refresh) {
        batch.put(TOKENS, &token.0, &holder);
    }
    batch.put(SESSIONS, key(user, device), session);
}

fn end(pair: &Pair, batch: &mut Batch<'_>) {
    for token in std::iter::once(&pair.access).chain(&pair.refresh) {
        batch.delete(TOKENS, &token.0);
    }
}

fn session(read: &dyn Read, user: &str, device: &str) -> Result<Option<Session>, StoreError> {
    row(read, SESSIONS, key(user, device))
}

fn find(read: &dyn Read, sha256: &[u8]) -> Result<Option<(Holder, Session)>, StoreError> {
    let Some(holder) = row::<Holder>(read, TOKENS, sha256)? else { return Ok(None) };
    Ok(session(read, &holder.user, &holder.device)?.map(|session| (holder, session)))
}

/// What the access token with this SHA-256 gives access to, even if it has expired.
///
/// # Errors
/// When the store fails.
pub fn access(read: &dyn Read, sha256: &[u8]) -> Result<Option<Access>, StoreError> {
    let Some((Holder { user, device }, session)) = find(read, sha256)? else { return Ok(None) };
    let found = session.pairs().find(|(pair, _)| pair.access.0 == sha256);
    Ok(found.map(|(pair, superseded)| Access { user, device, expires_at_ms: pair.access_expires_at_ms, superseded }))
}

/// What the refresh token with this SHA-256 refreshes.
///
/// # Errors
/// When the store fails.
pub fn refresh(read: &dyn Read, sha256: &[u8]) -> Result<Option<Refresh>, StoreError> {
    let Some((Holder { user, device }, session)) = find(read, sha256)? else { return Ok(None) };
    let found = session.pairs().find(|(pair, _)| pair.refresh.as_ref().is_some_and(|token| token.0 == sha256));
    Ok(found.map(|(_, superseded)| Refresh { user, device, superseded }))
}

#[cfg(test)]
mod tests {
    use schemas::facts::{AccountDeactivated, DeviceRemoved};

    use super::*;
    use crate::testing::World;

    const ALICE: &str = "@alice:example.org";

    fn opened(device: &str, access: &str, refresh: Option<&str>) -> Fact {
        SessionOpened {
            user: ALICE.into(),
            device: device.into(),
            access: Blob(access.into()),
            access_expires_at_ms: None,
            refresh: refresh.map(|token| Blob(token.into())),
        }
        .into()
    }

    fn refreshed(used: &str, n: u8) -> Fact {
        SessionRefreshed {
            user: ALICE.into(),
            device: "PHONE".into(),
            used: Blob(used.into()),
            access: Blob(format!("a{n}").into()),
            access_expires_at_ms: Some(u64::from(n)),
            refresh: Blob(format!("r{n}").into()),
        }
        .into()
    }

    /// Which of these tokens count, in the given order.
    fn valid(world: &World, tokens: &[&str]) -> String {
        let view = world.view();
        let counts = |token: &str| {
            let token = token.as_bytes();
            access(&view, token).unwrap().is_some() || refresh(&view, token).unwrap().is_some()
        };
        tokens.iter().filter(|token| counts(token)).copied().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_new_login_on_a_device_ends_the_old_one() {
        let mut world = World::new();
        world.apply([opened("PHONE", "a0", Some("r0")), opened("DESK", "b0", None)]);
        world.apply([opened("PHONE", "a1", None)]);
        assert_eq!(valid(&world, &["a0", "r0", "a1", "b0"]), "a1 b0");
        let found = access(&world.view(), b"b0").unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.device.as_str(), found.superseded), (ALICE, "DESK", false));
        assert!(!found.is_expired(world.log_time()));
        world.apply([DeviceRemoved { user: ALICE.into(), device: "PHONE".into() }.into()]);
        assert_eq!(valid(&world, &["a1", "b0"]), "b0");
        world.apply([AccountDeactivated { user: ALICE.into(), erase: false }.into()]);
        assert_eq!(valid(&world, &["a1", "b0"]), "");
        world.check_replay();
    }

    #[test]
    fn the_pair_before_goes_on_until_the_new_refresh_token_is_used() {
        let tokens = &["a0", "r0", "a1", "r1", "a2", "r2"];
        let mut world = World::new();
        world.apply([opened("PHONE", "a0", Some("r0"))]);
        world.apply([refreshed("r0", 1)]);
        assert_eq!(valid(&world, tokens), "a0 r0 a1 r1");
        assert!(refresh(&world.view(), b"r0").unwrap().unwrap().superseded);
        assert!(access(&world.view(), b"a1").unwrap().unwrap().is_expired(world.log_time()));
        world.apply([refreshed("r1", 2)]);
        assert_eq!(valid(&world, tokens), "a1 r1 a2 r2");
        world.apply([refreshed("r0", 3)]);
        assert_eq!(valid(&world, tokens), "a1 r1 a2 r2");
        world.check_replay();
    }

    #[test]
    fn a_client_that_lost_its_new_pair_refreshes_with_the_old_token_again() {
        let tokens = &["a0", "r0", "a1", "r1", "a2", "r2"];
        let mut world = World::new();
        world.apply([opened("PHONE", "a0", Some("r0"))]);
        world.apply([refreshed("r0", 1)]);
        world.apply([refreshed("r0", 2)]);
        assert_eq!(valid(&world, tokens), "a0 r0 a2 r2");
        assert!(!refresh(&world.view(), b"r2").unwrap().unwrap().superseded);
        world.check_replay();
    }

    #[test]
    fn an_access_token_is_no_refresh_token() {
        let mut world = World::new();
        world.apply([opened("PHONE", "a0", Some("r0"))]);
        assert_eq!(access(&world.view(), b"r0").unwrap(), None);
        assert_eq!(refresh(&world.view(), b"a0").unwrap(), None);
    }
}
