use std::collections::BTreeMap;

use projections::{View, models::keys};
use ruma::OwnedUserId;
use schemas::{
    Draft, Json, Key, Tag,
    facts::{SignaturesUploaded, SignedObject},
};

use super::signed::Signed;
use crate::commands::{Commands, Decision, Error, Refusal, Sender, content, guards, unchanged};

/// One request signs at most so many keys.
const MAX_SIGNED: usize = 1_000;

/// A key with new signatures under it.
#[derive(Clone, Debug)]
pub struct SignedKey {
    /// Whose key it is.
    pub user: OwnedUserId,
    /// A device id, or the public part of a cross-signing key.
    pub key: String,
    /// The key with the signatures, JSON.
    pub object: String,
}

/// A key whose signatures are not taken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whose key it is.
    pub user: OwnedUserId,
    /// Which.
    pub key: String,
    /// Why.
    pub refusal: Refusal,
}

/// Records the sender's signatures under keys of their own and of others, and gives those that are not taken.
///
/// # Errors
/// `M_TOO_LARGE`, and those of [`guards::standing`].
pub async fn sign(commands: &Commands, sender: &Sender, keys: Vec<SignedKey>) -> Result<Vec<Failure>, Error> {
    if keys.len() > MAX_SIGNED {
        return Err(Refusal::too_large(format!("one request can sign at most {MAX_SIGNED} keys")).into());
    }
    let by = sender.clone();
    commands.execute(sender, move |view| decide(view, &by, &keys)).await
}

fn decide(view: &View, by: &Sender, signed: &[SignedKey]) -> Result<Decision<Vec<Failure>>, Error> {
    let mut reads = guards::standing(view, by)?;
    reads.push(unchanged(view, Key::new(Tag::CrossSigning, by.user.as_str()))?);
    let (mut objects, mut failures) = (Vec::new(), Vec::new());
    for SignedKey { user, key, object } in signed {
        match check(view, by, user, key, object) {
            Ok(object) => objects.push(object),
            Err(Error::Refused(refusal)) => failures.push(Failure { user: user.clone(), key: key.clone(), refusal }),
            Err(fault) => return Err(fault),
        }
    }
    if objects.is_empty() {
        return Ok(Decision::Reply(failures));
    }
    let fact = SignaturesUploaded { signer: by.user.to_string(), objects };
    Ok(Decision::append_then(Draft { reads, writes: Vec::new(), facts: vec![fact.into()] }, failures))
}

/// Whose signatures count under a key.
enum Signers {
    /// The cross-signing key with this public part.
    Key(String),
    /// The signer's own devices.
    Devices,
}

/// Users sign their own devices with their self-signing key, their own master key with their devices' keys, and the
/// master keys of others with their user-signing key (client-server API, "Cross-signing").
fn check(view: &View, by: &Sender, owner: &OwnedUserId, key: &str, object: &str) -> Result<SignedObject, Error> {
    let object = Signed::parse(object)?;
    let (signer, user) = (by.user.as_str(), owner.as_str());
    let (known, signers) = find(view, signer, user, key)?;
    let known = Signed::parse(&known.as_str())?;
    if !known.says_the_same(&object) {
        return Err(Refusal::invalid_signature("what is signed is not the key that is there").into());
    }
    let mut good = BTreeMap::new();
    for (id, signature) in object.signatures(signer) {
        let public = public_part(view, signer, &signers, id)?;
        if public.is_some_and(|public| object.is_signed(signer, id, &public)) {
            good.insert(id, signature);
        } else if !known.signatures(signer).any(|before| before == (id, signature)) {
            // Those that were there before may come along.
            return Err(Refusal::invalid_signature(format!("the signature by {id} is not good")).into());
        }
    }
    if good.is_empty() {
        return Err(Refusal::invalid_signature("there is no signature by a key that can sign this").into());
    }
    let signatures = content::written(&BTreeMap::from([(signer, good)]))?;
    Ok(SignedObject { user: user.to_owned(), key: key.to_owned(), signatures })
}

/// The key that is to be signed, and who can sign it.
fn find(view: &View, signer: &str, user: &str, key: &str) -> Result<(Json, Signers), Error> {
    let own = keys::cross_signing(view, signer, signer)?;
    let by = |key: Option<Json>, what: &str| {
        let public = key.as_ref().and_then(keys::public_part);
        public.map(Signers::Key).ok_or_else(|| Refusal::invalid_signature(format!("the signer has no {what} key")))
    };
    if signer == user
        && let Some(device) = keys::of_device(view, user, key, signer)?
    {
        return Ok((device, by(own.self_signing, "self-signing")?));
    }
    let master = keys::cross_signing(view, user, signer)?.master;
    let master = master.filter(|master| keys::public_part(master).as_deref() == Some(key));
    let master = master.ok_or_else(|| Refusal::not_found("there is no such key to be signed"))?;
    let signers = if signer == user { Signers::Devices } else { by(own.user_signing, "user-signing")? };
    Ok((master, signers))
}

/// The public part of the key with this id, if its signatures count.
fn public_part(view: &View, signer: &str, signers: &Signers, id: &str) -> Result<Option<String>, Error> {
    let Some(name) = id.strip_prefix("ed25519:") else { return Ok(None) };
    match signers {
        Signers::Key(public) => Ok(Some(public.clone()).filter(|public| public == name)),
        Signers::Devices => {
            let Some(keys) = keys::of_device(view, signer, name, signer)? else { return Ok(None) };
            Ok(Signed::parse(&keys.as_str())?.key(id).map(ToOwned::to_owned))
        }
    }
}
