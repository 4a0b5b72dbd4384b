use projections::{
    View,
    models::{
        devices,
        keys::{self, CrossSigning},
    },
};
use ruma::{
    api::error::ErrorKind,
    encryption::{CrossSigningKey, KeyUsage},
};
use schemas::{Draft, Json, Key, Tag, facts::CrossSigningKeysSet};

use super::signed::{Signed, public_key};
use crate::commands::{Commands, Decision, Error, Refusal, Sender, guards, unchanged};

/// A key as JSON has at most so many bytes.
const MAX_KEY_BYTES: usize = 16 * 1024;

/// A cross-signing key that is well formed.
#[derive(Clone, Debug)]
struct Uploaded {
    public: String,
    signed: Signed,
}

/// The cross-signing keys that a user uploads, each well formed.
#[derive(Clone, Debug)]
pub struct CrossSigningUpload {
    master: Option<Uploaded>,
    self_signing: Option<Uploaded>,
    user_signing: Option<Uploaded>,
}

impl CrossSigningUpload {
    /// Checks the JSON texts of the keys.
    ///
    /// # Errors
    /// `M_BAD_JSON`, `M_INVALID_PARAM` or `M_TOO_LARGE` for what is not as it should be.
    pub fn check(
        sender: &Sender,
        master: Option<&str>,
        self_signing: Option<&str>,
        user_signing: Option<&str>,
    ) -> Result<Self, Refusal> {
        let check = |text: Option<&str>, usage| text.map(|text| check_key(sender, text, &usage)).transpose();
        Ok(Self {
            master: check(master, KeyUsage::Master)?,
            self_signing: check(self_signing, KeyUsage::SelfSigning)?,
            user_signing: check(user_signing, KeyUsage::UserSigning)?,
        })
    }

    fn subkeys(&self) -> impl Iterator<Item = &Uploaded> {
        self.self_signing.iter().chain(&self.user_signing)
    }

    fn all(&self) -> impl Iterator<Item = &Uploaded> {
        self.master.iter().chain(self.subkeys())
    }
}

fn check_key(sender: &Sender, text: &str, usage: &KeyUsage) -> Result<Uploaded, Refusal> {
    if text.len() > MAX_KEY_BYTES {
        return Err(Refusal::too_large(format!("a key has at most {MAX_KEY_BYTES} bytes")));
    }
    let key: CrossSigningKey = serde_json::from_str(text)
        .map_err(|error| Refusal::bad_json(format!("this is no cross-signing key: {error}")))?;
    if key.user_id != sender.user {
        return Err(Refusal::invalid("this is a key of another user"));
    }
    if !key.usage.contains(usage) {
        return Err(Refusal::invalid(format!("this key must be for the use as {usage}")));
    }
    let mut public_keys = key.keys.iter();
    let (Some((id, public)), None) = (public_keys.next(), public_keys.next()) else {
        return Err(Refusal::invalid("a cross-signing key is one public key"));
    };
    if id.as_str() != format!("ed25519:{public}") || public_key(public).is_none() {
        return Err(Refusal::invalid("a cross-signing key is an Ed25519 key with its public part as its id"));
    }
    Ok(Uploaded { public: public.clone(), signed: Signed::parse(text)? })
}

/// What of an upload is new.
struct New {
    fact: CrossSigningKeysSet,
    /// There were keys before, and one of them becomes another.
    replaces: bool,
}

/// Whether an upload replaces keys that are there, for which users have to confirm that it is they who ask.
///
/// # Errors
/// When the store fails.
pub fn replaces_keys(view: &View, sender: &Sender, upload: &CrossSigningUpload) -> Result<bool, Error> {
    Ok(new_keys(view, sender, upload)?.replaces)
}

fn new_keys(view: &View, sender: &Sender, upload: &CrossSigningUpload) -> Result<New, Error> {
    let user = sender.user.as_str();
    let before = keys::cross_signing(view, user, user)?;
    let new = |key: Option<&Uploaded>, before: Option<&Json>| -> Result<Option<Json>, Refusal> {
        let Some(key) = key else { return Ok(None) };
        let is_there = before.is_some_and(|before| {
            Signed::parse(&before.as_str()).is_ok_and(|before| before.says_the_same(&key.signed))
        });
        if is_there { Ok(None) } else { key.signed.clone().for_record(user).map(Some) }
    };
    let fact = CrossSigningKeysSet {
        user: user.to_owned(),
        master: new(upload.master.as_ref(), before.master.as_ref())?,
        self_signing: new(upload.self_signing.as_ref(), before.self_signing.as_ref())?,
        user_signing: new(upload.user_signing.as_ref(), before.user_signing.as_ref())?,
    };
    let is_any_new = fact.master.is_some() || fact.self_signing.is_some() || fact.user_signing.is_some();
    Ok(New { replaces: is_any_new && before.master.is_some(), fact })
}

/// Sets the sender's cross-signing keys. `confirmed` says that the user has confirmed that it is they who ask.
///
/// # Errors
/// `M_MISSING_PARAM` without a master key, `M_INVALID_SIGNATURE`, `M_FORBIDDEN` for a key with the id of a device and
/// where keys would be replaced without confirmation, and those of [`guards::standing`].
pub async fn set_cross_signing(
    commands: &Commands,
    sender: &Sender,
    upload: CrossSigningUpload,
    confirmed: bool,
) -> Result<(), Error> {
    let by = sender.clone();
    commands.execute(sender, move |view| decide(view, &by, &upload, confirmed)).await
}

fn decide(view: &View, by: &Sender, upload: &CrossSigningUpload, confirmed: bool) -> Result<Decision<()>, Error> {
    let mut reads = guards::standing(view, by)?;
    let user = by.user.as_str();
    let own = Key::new(Tag::CrossSigning, user);
    reads.push(unchanged(view, own)?);
    check_signatures(&keys::cross_signing(view, user, user)?, user, upload)?;
    for key in upload.all() {
        if devices::get(view, user, &key.public)?.is_some() {
            return Err(Refusal::new(ErrorKind::Forbidden, "a device has the id of this key").into());
        }
    }
    let New { fact, replaces } = new_keys(view, by, upload)?;
    if replaces && !confirmed {
        return Err(Refusal::forbidden("other keys came in between; replacing them needs confirmation").into());
    }
    if fact.master.is_none() && fact.self_signing.is_none() && fact.user_signing.is_none() {
        return Ok(Decision::Reply(()));
    }
    Ok(Decision::append_then(Draft { reads, writes: vec![own], facts: vec![fact.into()] }, ()))
}

/// The self-signing and the user-signing key are signed by the master key that comes with them, else by the one that is
/// there.
fn check_signatures(before: &CrossSigning, user: &str, upload: &CrossSigningUpload) -> Result<(), Refusal> {
    let stored = || before.master.as_ref().and_then(keys::public_part);
    let master = upload.master.as_ref().map(|master| master.public.clone()).or_else(stored);
    let Some(master) = master else {
        return Err(Refusal::new(ErrorKind::MissingParam, "there is no master key, neither here nor from before"));
    };
    let id = format!("ed25519:{master}");
    if upload.subkeys().all(|key| key.signed.is_signed(user, &id, &master)) {
        Ok(())
    } else {
        Err(Refusal::invalid_signature("a key has no good signature by the master key"))
    }
}
