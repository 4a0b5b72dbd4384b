//! Accounts in the hands of administrators: made and changed, whatever of it at once, by one record.

use std::collections::BTreeSet;

use projections::{
    View,
    models::{
        accounts::{self, Account},
        identities, profiles,
    },
};
use ruma::{OwnedUserId, UserId, api::error::ErrorKind};
use schemas::{
    Blob, Draft, Fact, Json, Key, Origin, Part, Tag,
    facts::{
        AccountDeactivated, AccountReactivated, AccountStatusSet, AdminSet, ExternalIdAdded, ExternalIdRemoved,
        PasswordSet, ProfileFieldSet, ThirdPartyIdAdded, ThirdPartyIdRemoved, UserTypeSet,
    },
};
use sha2::{Digest, Sha256};

use super::{
    Commands, Decision, Error, Refusal,
    accounts::{NewAccount, begin},
    devices,
    guards::user_status,
    profiles::{AVATAR_URL, DISPLAY_NAME, check_value},
    unchanged,
};

/// A user has at most so many third-party ids, and so many ids at providers.
const MAX_IDS: usize = 100;

/// What is to become of an account; what is none stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The hash of a new password, an Argon2id string in PHC format.
    pub password: Option<String>,
    /// With a new password, all devices are logged out.
    pub log_out: bool,
    /// The name that others see; an empty one takes it away.
    pub display_name: Option<String>,
    /// The picture that others see; an empty one takes it away.
    pub avatar_url: Option<String>,
    /// All third-party ids: medium and address.
    pub third_party: Option<Vec<(String, String)>>,
    /// Who they are at identity providers: provider and id.
    pub external: Option<Vec<(String, String)>>,
    /// Administers the server.
    pub admin: Option<bool>,
    /// Has ended.
    pub deactivated: Option<bool>,
    /// Can't use its tokens.
    pub locked: Option<bool>,
    /// Can read and leave, but not send or join.
    pub suspended: Option<bool>,
    /// What sort of user they are taken for; `Some(None)` for people.
    pub user_type: Option<Option<String>>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a new account.
    Made,
    /// The account is as was asked for.
    Changed,
    /// An id at a provider is another user's: nothing changed.
    IdInUse,
}

/// What stands for a third-party id in guards and look-ups.
#[must_use]
pub fn third_party_hash(medium: &str, address: &str) -> [u8; 32] {
    Sha256::digest(format!("3pid\0{medium}\0{address}")).into()
}

/// What stands for an id at a provider in guards and look-ups.
#[must_use]
pub fn external_hash(provider: &str, id: &str) -> [u8; 32] {
    Sha256::digest(format!("external\0{provider}\0{id}")).into()
}

/// A third-party id as it is looked up: mail addresses in lower case.
#[must_use]
pub fn canonical(medium: &str, address: &str) -> String {
    if medium == "email" { address.trim().to_lowercase() } else { address.trim().to_owned() }
}

/// Makes an account with all that is asked for, or changes what there is of it. `new` is what it begins with.
///
/// # Errors
/// `M_INVALID_PARAM` for a profile that is too large, or too many ids; `M_USER_IN_USE` for a name that differs from
/// another by case alone; `M_UNKNOWN` for a password of an account that has ended and is to stay so.
pub async fn put(commands: &Commands, origin: Origin, new: NewAccount, change: Change) -> Result<Outcome, Error> {
    change.check()?;
    let (user, now_ms) = (new.user.clone(), commands.parts().now_ms());
    let mut first = None;
    loop {
        let (new, change) = (new.clone(), change.clone());
        let decide = move |view: &View| decide_put(view, &new, &change, now_ms);
        let (outcome, more) = commands.execute(origin.clone(), decide).await?;
        let outcome = *first.get_or_insert(outcome);
        if !more {
            commands.let_rooms_follow(&user).await;
            return Ok(outcome);
        }
    }
}

fn decide_put(view: &View, new: &NewAccount, change: &Change, now_ms: u64) -> Result<Decision<(Outcome, bool)>, Error> {
    let user = &*new.user;
    let before = accounts::get(view, user.as_str())?;
    let (mut draft, outcome) = match &before {
        Some(_) => (draft_for(view, user)?, Outcome::Changed),
        None => (begin(view, new, now_ms)?, Outcome::Made),
    };
    let ended = before.as_ref().is_some_and(|account| account.deactivated);
    if ended && change.password.is_some() && change.deactivated != Some(false) {
        let message = "this account has ended: it can have a password again with \"deactivated\": false";
        return Err(Refusal::new(ErrorKind::Unknown, message).into());
    }
    change.add_account(&mut draft.facts, user, before.as_ref());
    change.add_profile(&mut draft.facts, view, user)?;
    if !change.add_ids(&mut draft, view, user, now_ms)? {
        return Ok(Decision::Reply((Outcome::IdInUse, false)));
    }
    let logs_out = before.is_some() && change.password.is_some() && change.log_out;
    let more = logs_out && devices::add_all_removals(&mut draft, view, user)?;
    if change.deactivated == Some(true) && !ended {
        draft.facts.push(AccountDeactivated { user: user.to_string(), erase: false }.into());
    }
    if draft.facts.is_empty() {
        return Ok(Decision::Reply((outcome, false)));
    }
    Ok(Decision::append_then(draft, (outcome, more)))
}

/// The beginning of a decision about an account that is there, ended or not.
fn draft_for(view: &View, user: &UserId) -> Result<Draft, Error> {
    let key = user_status(user.as_str());
    Ok(Draft { reads: vec![unchanged(view, key)?], writes: vec![key], facts: Vec::new() })
}

impl Change {
    fn check(&self) -> Result<(), Refusal> {
        for (field, value) in self.profile() {
            check_value(field, &written(value))?;
        }
        let many = [&self.third_party, &self.external].into_iter().flatten().any(|ids| ids.len() > MAX_IDS);
        if many { Err(Refusal::invalid(format!("a user has at most {MAX_IDS} ids"))) } else { Ok(()) }
    }

    fn profile(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fields = [(DISPLAY_NAME, &self.display_name), (AVATAR_URL, &self.avatar_url)];
        fields.into_iter().filter_map(|(field, value)| value.as_deref().map(|value| (field, value)))
    }

    fn add_account(&self, facts: &mut Vec<Fact>, user: &UserId, before: Option<&Account>) {
        let user = || user.to_string();
        if self.deactivated == Some(false) && before.is_some_and(|account| account.deactivated) {
            facts.push(AccountReactivated { user: user() }.into());
        }
        if let (Some(password), Some(_)) = (&self.password, before) {
            facts.push(PasswordSet { user: user(), password: Some(Part::clear(password.as_str())) }.into());
        }
        let is = |field: fn(&Account) -> bool| before.is_some_and(field);
        if let (Some(admin), Some(_)) = (self.admin, before)
            && admin != is(|account| account.admin)
        {
            facts.push(AdminSet { user: user(), admin }.into());
        }
        let (was_locked, was_suspended) = (is(|account| account.locked), is(|account| account.suspended));
        let (locked, suspended) = (self.locked.unwrap_or(was_locked), self.suspended.unwrap_or(was_suspended));
        if (locked, suspended) != (was_locked, was_suspended) {
            facts.push(AccountStatusSet { user: user(), locked, suspended }.into());
        }
        if let Some(user_type) = &self.user_type
            && *user_type != before.and_then(|account| account.user_type.clone())
        {
            facts.push(UserTypeSet { user: user(), user_type: user_type.clone() }.into());
        }
    }

    fn add_profile(&self, facts: &mut Vec<Fact>, view: &View, user: &UserId) -> Result<(), Error> {
        for (field, value) in self.profile() {
            let value = Some(value).filter(|value| !value.is_empty()).map(written);
            if profiles::field(view, user.as_str(), field)? != value {
                facts.push(ProfileFieldSet { user: user.to_string(), field: field.to_owned(), value }.into());
            }
        }
        Ok(())
    }

    /// Says whether none of the ids at providers is another's. A third-party id goes from whoever has it.
    fn add_ids(&self, draft: &mut Draft, view: &View, user: &UserId, now_ms: u64) -> Result<bool, Error> {
        if let Some(wanted) = &self.third_party {
            let wanted: BTreeSet<_> = wanted.iter().collect();
            let there: Vec<_> =
                identities::third_party(view, user.as_str()).map(|row| Ok(row?.0)).collect::<Result<_, Error>>()?;
            let hashes: Vec<_> = wanted.iter().map(|(medium, address)| third_party_hash(medium, address)).collect();
            for hash in there.iter().filter(|hash| !hashes.iter().any(|wanted| wanted[..] == hash[..])) {
                guard(draft, view, hash)?;
                let hash = Blob(hash.clone());
                draft.facts.push(ThirdPartyIdRemoved { user: user.to_string(), hash }.into());
            }
            for ((medium, address), hash) in wanted.into_iter().zip(hashes) {
                let holder = identities::holder(view, &hash)?;
                if holder.as_deref() == Some(user.as_str()) {
                    continue;
                }
                guard(draft, view, &hash)?;
                let hash = Blob(hash.to_vec());
                draft.facts.extend(holder.map(|user| ThirdPartyIdRemoved { user, hash: hash.clone() }.into()));
                let (medium, address) = (medium.clone(), Part::clear(address.as_str()));
                let user = user.to_string();
                draft.facts.push(ThirdPartyIdAdded { user, hash, medium, address, validated_at_ms: now_ms }.into());
            }
        }
        let Some(wanted) = &self.external else { return Ok(true) };
        let wanted: BTreeSet<_> = wanted.iter().collect();
        let there: Vec<_> =
            identities::external(view, user.as_str()).map(|row| Ok(row?.0)).collect::<Result<_, Error>>()?;
        let hashes: Vec<_> = wanted.iter().map(|(provider, id)| external_hash(provider, id)).collect();
        for hash in there.iter().filter(|hash| !hashes.iter().any(|wanted| wanted[..] == hash[..])) {
            guard(draft, view, hash)?;
            draft.facts.push(ExternalIdRemoved { user: user.to_string(), hash: Blob(hash.clone()) }.into());
        }
        for ((provider, id), hash) in wanted.into_iter().zip(hashes) {
            match identities::holder(view, &hash)? {
                Some(holder) if holder == *user => continue,
                Some(_) => return Ok(false),
                None => guard(draft, view, &hash)?,
            }
            let (provider, id, hash) = (provider.clone(), Part::clear(id.as_str()), Blob(hash.to_vec()));
            draft.facts.push(ExternalIdAdded { user: user.to_string(), hash, provider, id }.into());
        }
        Ok(true)
    }
}

fn guard(draft: &mut Draft, view: &View, hash: &[u8]) -> Result<(), Error> {
    let key = Key::new(Tag::ThirdPartyId, &hex::encode(hash));
    draft.reads.push(unchanged(view, key)?);
    draft.writes.push(key);
    Ok(())
}

fn written(text: &str) -> Json {
    Json::from(serde_json::json!(text).to_string())
}

/// Records what follows for an account from how it stands, ended or not. Nothing follows where no fact is given.
///
/// # Errors
/// `M_NOT_FOUND` where there is no such account.
pub async fn change<F>(commands: &Commands, origin: Origin, user: OwnedUserId, mut facts: F) -> Result<(), Error>
where
    F: FnMut(&Account) -> Vec<Fact> + Send + 'static,
{
    let decide = move |view: &View| {
        let account = accounts::get(view, user.as_str())?.ok_or_else(unknown)?;
        let facts = facts(&account);
        if facts.is_empty() {
            return Ok(Decision::Reply(()));
        }
        Ok(Decision::append_then(Draft { facts, ..draft_for(view, &user)? }, ()))
    };
    commands.execute(origin, decide).await
}

/// Ends an account in its user's stead; of one that has ended, it can still be forgotten. They leave all rooms.
///
/// # Errors
/// `M_NOT_FOUND` where there is no such account.
pub async fn deactivate(commands: &Commands, origin: Origin, user: OwnedUserId, erase: bool) -> Result<(), Error> {
    let ends = user.to_string();
    let facts = move |account: &Account| match account.deactivated && (account.erased || !erase) {
        true => Vec::new(),
        false => vec![AccountDeactivated { user: ends.clone(), erase }.into()],
    };
    change(commands, origin, user.clone(), facts).await?;
    commands.let_rooms_follow(&user).await;
    Ok(())
}

/// 404 `M_NOT_FOUND`.
#[must_use]
pub fn unknown() -> Refusal {
    Refusal::new(ErrorKind::NotFound, "User not found")
}
