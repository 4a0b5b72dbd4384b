//! The accounts of this server, and the tokens with which new ones can be registered.
//!
//! Is there such an account, and may it be used? What is its password's hash? Is this name taken in any case? Who is
//! there, in order? Can this registration token be used?
//!
//! Tables: 1 `user -> Account`; 2 `user -> Part`, the password's hash, apart because it may have to be forgotten;
//! 3 `user, localpart in lower case -> user`; 4 `token -> RegistrationToken`.
//!
//! A fact about an account or a token that is not there has no effect.

use std::collections::BTreeSet;

use schemas::{
    Fact, LogTime, Lsn, Part,
    facts::{RateLimit, RegistrationTokenSet, UserKind, UserRegistered},
};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const ACCOUNTS: Table = Table { model: Model::Accounts, prefix: 1 };
const PASSWORDS: Table = Table { model: Model::Accounts, prefix: 2 };
const NAMES: Table = Table { model: Model::Accounts, prefix: 3 };
const TOKENS: Table = Table { model: Model::Accounts, prefix: 4 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Accounts, version: 2, reads: &[], fold };

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What sort.
    pub kind: UserKind,
    /// Administers the server.
    pub admin: bool,
    /// Can't use its tokens.
    pub locked: bool,
    /// Can read and leave, but not send or join.
    pub suspended: bool,
    /// What they send gets to nobody else, and they aren't told.
    pub shadow_banned: bool,
    /// Has ended.
    pub deactivated: bool,
    /// Has ended, and asked to be forgotten.
    pub erased: bool,
    /// What sort of user administrators take this one for, such as `bot`.
    pub user_type: Option<String>,
    /// How often they may send, in place of the settings.
    pub rate_limit: Option<RateLimit>,
    /// Log time at which it can't be used any more, milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// Log time up to which cross-signing keys may be replaced without showing that it is the user who does it.
    pub keys_replaceable_until_ms: Option<u64>,
    /// Names of the features that this user has and not everybody.
    pub features: BTreeSet<String>,
    /// The record that registered it.
    pub created: Lsn,
    /// Log time then, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
}

/// A registration token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationToken {
    /// How many accounts it may make; none is without limit.
    pub uses_allowed: Option<u64>,
    /// How many it made.
    pub completed: u64,
    /// Log time at which it ends, milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

impl Account {
    /// Whether it has come to its end by itself, and can be renewed.
    #[must_use]
    pub fn is_expired(&self, now: LogTime) -> bool {
        self.expires_at_ms.is_some_and(|end| end <= now.ms)
    }
}

impl RegistrationToken {
    /// Whether one more account can be made with it.
    #[must_use]
    pub fn is_usable(&self, now: LogTime) -> bool {
        self.uses_allowed.is_none_or(|allowed| self.completed < allowed)
            && self.expires_at_ms.is_none_or(|end| now.ms < end)
    }
}

/// A user id with its localpart in lower case: two accounts may not differ by case alone.
#[must_use]
pub fn folded(user: &str) -> String {
    let (localpart, server) = user.split_at(user.find(':').unwrap_or(user.len()));
    localpart.to_ascii_lowercase() + server
}

fn key(name: &str) -> KeyBuf {
    KeyBuf::new().str(name)
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::UserRegistered(f) => register(at, f, batch)?,
        Fact::PasswordSet(f) if get(batch, &f.user)?.is_some_and(|account| !account.deactivated) => {
            set_password(&f.user, f.password.as_ref(), batch);
        }
        Fact::AccountDeactivated(f) => {
            set_password(&f.user, None, batch);
            change(&f.user, batch, |account| {
                account.deactivated = true;
                account.erased |= f.erase;
                account.expires_at_ms = None;
            })?;
        }
        Fact::AccountReactivated(f) => change(&f.user, batch, |account| {
            account.deactivated = false;
            account.erased = false;
        })?,
        Fact::AdminSet(f) => change(&f.user, batch, |account| account.admin = f.admin)?,
        Fact::AccountStatusSet(f) => change(&f.user, batch, |account| {
            account.locked = f.locked;
            account.suspended = f.suspended;
        })?,
        Fact::ShadowBanSet(f) => change(&f.user, batch, |account| account.shadow_banned = f.banned)?,
        Fact::UserTypeSet(f) => change(&f.user, batch, |account| account.user_type.clone_from(&f.user_type))?,
        Fact::RateLimitSet(f) => change(&f.user, batch, |account| account.rate_limit = f.limit)?,
        Fact::AccountValiditySet(f) => change(&f.user, batch, |account| account.expires_at_ms = f.expires_at_ms)?,
        Fact::KeyReplacementAllowed(f) => {
            change(&f.user, batch, |account| account.keys_replaceable_until_ms = Some(f.until_ms))?;
        }
        Fact::ExperimentalFeatureSet(f) => change(&f.user, batch, |account| {
            if f.enabled {
                account.features.insert(f.feature.clone());
            } else {
                account.features.remove(&f.feature);
            }
        })?,
        Fact::RegistrationTokenSet(f) => set_token(f, batch)?,
        Fact::RegistrationTokenRemoved(f) => batch.delete(TOKENS, key(&f.token)),
        _ => {}
    }
    Ok(())
}

fn register(at: &At<'_>, fact: &UserRegistered, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if get(batch, &fact.user)?.is_some() {
        return Ok(());
    }
    let account = Account {
        kind: fact.kind,
        admin: fact.admin,
        locked: false,
        suspended: false,
        shadow_banned: false,
        deactivated: false,
        erased: false,
        user_type: None,
        rate_limit: None,
        expires_at_ms: None,
        keys_replaceable_until_ms: None,
        features: BTreeSet::new(),
        created: at.lsn,
        created_at_ms: at.log_time.ms,
    };
    batch.put(ACCOUNTS, key(&fact.user), &account);
    batch.put(NAMES, key(&folded(&fact.user)), &fact.user);
    set_password(&fact.user, fact.password.as_ref(), batch);
    if let Some(token) = &fact.registration_token
        && let Some(mut used) = registration_token(batch, token)?
    {
        used.completed += 1;
        batch.put(TOKENS, key(token), &used);
    }
    Ok(())
}

fn set_password(user: &str, password: Option<&Part>, batch: &mut Batch<'_>) {
    match password {
        Some(password) => batch.put(PASSWORDS, key(user), password),
        None => batch.delete(PASSWORDS, key(user)),
    }
}

fn change(user: &str, batch: &mut Batch<'_>, edit: impl FnOnce(&mut Account)) -> Result<(), FoldError> {
    if let Some(mut account) = get(batch, user)? {
        edit(&mut account);
        batch.put(ACCOUNTS, key(user), &account);
        batch.touch_user(user);
    }
    Ok(())
}

fn set_token(fact: &RegistrationTokenSet, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let completed = registration_token(batch, &fact.token)?.map_or(0, |before| before.completed);
    let token = RegistrationToken { uses_allowed: fact.uses_allowed, completed, expires_at_ms: fact.expires_at_ms };
    batch.put(TOKENS, key(&fact.token), &token);
    Ok(())
}

/// An account by its full user id, deactivated ones among them.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, user: &str) -> Result<Option<Account>, StoreError> {
    row(read, ACCOUNTS, key(user))
}

/// The hash of an account's password, an Argon2id string in PHC format; none where there is no password.
///
/// # Errors
/// When the store fails.
pub fn password(read: &dyn Read, user: &str) -> Result<Option<Part>, StoreError> {
    row(read, PASSWORDS, key(user))
}

/// Who has this name, whatever the case of its localpart; of several the last that registered.
///
/// # Errors
/// When the store fails.
pub fn named(read: &dyn Read, user: &str) -> Result<Option<String>, StoreError> {
    row(read, NAMES, key(&folded(user)))
}

/// All accounts in the order of their ids, after one of them.
pub fn list<'a>(
    read: &'a dyn Read,
    after: Option<&str>,
) -> impl Iterator<Item = Result<(String, Account), StoreError>> + 'a {
    in_order(read, ACCOUNTS, after)
}

/// A registration token.
///
/// # Errors
/// When the store fails.
pub fn registration_token(read: &dyn Read, token: &str) -> Result<Option<RegistrationToken>, StoreError> {
    row(read, TOKENS, key(token))
}

/// All registration tokens in order, after one of them.
pub fn registration_tokens<'a>(
    read: &'a dyn Read,
    after: Option<&str>,
) -> impl Iterator<Item = Result<(String, RegistrationToken), StoreError>> + 'a {
    in_order(read, TOKENS, after)
}

fn in_order<'a, T: serde::de::DeserializeOwned>(
    read: &'a dyn Read,
    table: Table,
    after: Option<&str>,
) -> impl Iterator<Item = Result<(String, T), StoreError>> + 'a {
    let from = after.map_or_else(Vec::new, |name| key(name).u8(0).into());
    rows(read, table, Range { from, to: None, reverse: false }).map(move |row| {
        let (key, value) = row?;
        let name = KeyReader::new(&key).str().ok_or_else(|| malformed_key(table))?;
        Ok((name, value))
    })
}

#[cfg(test)]
mod tests {
    use schemas::facts::{
        AccountDeactivated, AccountReactivated, AccountStatusSet, AccountValiditySet, AdminSet, ExperimentalFeatureSet,
        KeyReplacementAllowed, PasswordSet, RateLimitSet, RegistrationTokenRemoved, RegistrationTokenSet, ShadowBanSet,
        UserTypeSet,
    };

    use super::*;
    use crate::testing::World;

    const ALICE: &str = "@alice:example.org";

    fn registered(user: &str, token: Option<&str>) -> Fact {
        UserRegistered {
            user: user.into(),
            password: Some(Part::clear("$argon2id$1")),
            admin: false,
            kind: UserKind::Regular,
            registration_token: token.map(Into::into),
        }
        .into()
    }

    #[test]
    fn an_account_lives_and_ends() {
        let mut world = World::new();
        let created = world.apply([registered(ALICE, None)]);
        let account = get(&world.view(), ALICE).unwrap().unwrap();
        assert_eq!((account.created, account.created_at_ms), (created, world.log_time().ms));
        assert_eq!(password(&world.view(), ALICE).unwrap(), Some(Part::clear("$argon2id$1")));

        world.apply([
            PasswordSet { user: ALICE.into(), password: Some(Part::clear("$argon2id$2")) }.into(),
            AdminSet { user: ALICE.into(), admin: true }.into(),
            AccountStatusSet { user: ALICE.into(), locked: true, suspended: true }.into(),
        ]);
        let account = get(&world.view(), ALICE).unwrap().unwrap();
        assert!(account.admin && account.locked && account.suspended && !account.deactivated);
        assert_eq!(password(&world.view(), ALICE).unwrap(), Some(Part::clear("$argon2id$2")));

        world.apply([AccountDeactivated { user: ALICE.into(), erase: true }.into()]);
        world.apply([PasswordSet { user: ALICE.into(), password: Some(Part::clear("again")) }.into()]);
        let account = get(&world.view(), ALICE).unwrap().unwrap();
        assert!(account.deactivated && account.erased);
        assert_eq!(password(&world.view(), ALICE).unwrap(), None);
        assert_eq!(named(&world.view(), ALICE).unwrap().as_deref(), Some(ALICE));
        world.check_replay();
    }

    #[test]
    fn what_administrators_say_of_an_account_stays_beyond_its_end() {
        let mut world = World::new();
        let user = || ALICE.to_owned();
        let limit = RateLimit { per_second: 1, burst: 2 };
        let feature = |enabled| ExperimentalFeatureSet { user: user(), feature: "x".into(), enabled };
        world.apply([
            registered(ALICE, None),
            ShadowBanSet { user: user(), banned: true }.into(),
            UserTypeSet { user: user(), user_type: Some("bot".into()) }.into(),
            RateLimitSet { user: user(), limit: Some(limit) }.into(),
            AccountValiditySet { user: user(), expires_at_ms: Some(world.log_time().ms + 60_000) }.into(),
            KeyReplacementAllowed { user: user(), until_ms: 7 }.into(),
            feature(true).into(),
        ]);
        let found = |world: &World| get(&world.view(), ALICE).unwrap().unwrap();
        let account = found(&world);
        assert!(account.shadow_banned && account.features.contains("x") && !account.is_expired(world.log_time()));
        assert_eq!((account.rate_limit, account.keys_replaceable_until_ms), (Some(limit), Some(7)));
        world.wait_ms(60_000);
        world.apply([AccountDeactivated { user: user(), erase: true }.into(), feature(false).into()]);
        assert!(account.is_expired(world.log_time()));
        world.apply([AccountReactivated { user: user() }.into()]);
        let account = found(&world);
        assert!(!account.deactivated && !account.erased && account.shadow_banned && account.features.is_empty());
        assert_eq!((account.expires_at_ms, account.user_type.as_deref()), (None, Some("bot")));
        assert_eq!(password(&world.view(), ALICE).unwrap(), None, "it went with the account");
        world.check_replay();
    }

    #[test]
    fn facts_about_nobody_change_nothing() {
        let mut world = World::new();
        world.apply([
            AdminSet { user: ALICE.into(), admin: true }.into(),
            PasswordSet { user: ALICE.into(), password: Some(Part::clear("x")) }.into(),
            AccountDeactivated { user: ALICE.into(), erase: false }.into(),
        ]);
        assert_eq!(get(&world.view(), ALICE).unwrap(), None);
        assert_eq!(password(&world.view(), ALICE).unwrap(), None);
    }

    #[test]
    fn names_are_taken_in_any_case_and_listed_in_order() {
        let mut world = World::new();
        for user in ["@bob:example.org", "@Alice:Example.org", "@al:example.org"] {
            world.apply([registered(user, None)]);
        }
        let view = world.view();
        assert_eq!(named(&view, "@aLICE:Example.org").unwrap().as_deref(), Some("@Alice:Example.org"));
        assert_eq!(named(&view, "@alice:example.org").unwrap(), None);
        let names = |after| list(&view, after).map(|row| row.unwrap().0).collect::<Vec<_>>();
        assert_eq!(names(None), ["@Alice:Example.org", "@al:example.org", "@bob:example.org"]);
        assert_eq!(names(Some("@al:example.org")), ["@bob:example.org"]);
    }

    #[test]
    fn registration_tokens_are_used_up_and_expire() {
        let mut world = World::new();
        let set = |uses_allowed, expires_at_ms| {
            RegistrationTokenSet { token: "come-in".into(), uses_allowed, expires_at_ms }.into()
        };
        world.apply([set(Some(1), None)]);
        let token = |world: &World| registration_token(&world.view(), "come-in").unwrap().unwrap();
        assert!(token(&world).is_usable(world.log_time()));
        world.apply([registered(ALICE, Some("come-in"))]);
        assert_eq!(token(&world).completed, 1);
        assert!(!token(&world).is_usable(world.log_time()));
        world.apply([set(Some(2), Some(world.log_time().ms + 10_000))]);
        assert!(token(&world).is_usable(world.log_time()));
        world.wait_ms(10_000);
        world.apply([registered("@bob:example.org", Some("gone"))]);
        assert!(!token(&world).is_usable(world.log_time()));
        assert_eq!(registration_tokens(&world.view(), None).count(), 1);
        world.apply([RegistrationTokenRemoved { token: "come-in".into() }.into()]);
        assert_eq!(registration_token(&world.view(), "come-in").unwrap(), None);
        world.check_replay();
    }
}
