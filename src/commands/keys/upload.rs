use std::collections::{BTreeMap, BTreeSet};

use projections::{View, models::keys};
use ruma::{
    OneTimeKeyAlgorithm, OneTimeKeyId,
    encryption::{DeviceKeys, SignedKey},
};
use schemas::{
    Draft, Json,
    facts::{DeviceKeysUploaded, FallbackKeysUploaded, NamedKey, OneTimeKeysUploaded},
};
use serde_json::Value;

use super::signed::Signed;
use crate::commands::{Commands, Decision, Error, Refusal, Sender, content, guards};

/// One request uploads at most so many one-time keys: the fold writes two rows for each.
const MAX_ONE_TIME_KEYS: usize = 1_000;
/// A device holds at most so many one-time keys. Clients keep some fifty or hundred.
const MAX_HELD: u64 = 10_000;
/// A key as JSON has at most so many bytes.
const MAX_KEY_BYTES: usize = 32 * 1024;

/// What a device uploads, checked as far as it can be without knowing what is there.
#[derive(Clone, Debug)]
pub struct Upload {
    device_keys: Option<(Signed, Json)>,
    one_time: Vec<NamedKey>,
    fallback: Vec<NamedKey>,
}

impl Upload {
    /// Checks what the sender's device uploads: JSON texts, one-time and fallback keys by their ids.
    ///
    /// # Errors
    /// `M_BAD_JSON`, `M_INVALID_PARAM`, `M_INVALID_SIGNATURE` or `M_TOO_LARGE` for what is not as it should be.
    pub fn check<'a>(
        sender: &Sender,
        device_keys: Option<&str>,
        one_time: impl IntoIterator<Item = (&'a OneTimeKeyId, &'a str)>,
        fallback: impl IntoIterator<Item = (&'a OneTimeKeyId, &'a str)>,
    ) -> Result<Self, Refusal> {
        let device_keys = device_keys.map(|text| check_device_keys(sender, text)).transpose()?;
        let one_time = check_all(one_time)?;
        if one_time.len() > MAX_ONE_TIME_KEYS {
            return Err(Refusal::too_large(format!("at most {MAX_ONE_TIME_KEYS} one-time keys can come at once")));
        }
        let fallback = check_all(fallback)?;
        let algorithms: BTreeSet<_> = fallback.iter().map(|key| algorithm(&key.id)).collect();
        if algorithms.len() < fallback.len() {
            return Err(Refusal::invalid("there can be one fallback key for each algorithm"));
        }
        Ok(Self { device_keys, one_time, fallback })
    }
}

fn algorithm(id: &str) -> &str {
    id.split_once(':').map_or(id, |(algorithm, _)| algorithm)
}

fn check_bytes(text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_KEY_BYTES {
        return Err(Refusal::too_large(format!("a key has at most {MAX_KEY_BYTES} bytes")));
    }
    Ok(())
}

fn check_device_keys(sender: &Sender, text: &str) -> Result<(Signed, Json), Refusal> {
    check_bytes(text)?;
    let keys: DeviceKeys = serde_json::from_str(text)
        .map_err(|error| Refusal::bad_json(format!("these are no keys of a device: {error}")))?;
    if keys.user_id != sender.user || keys.device_id != sender.device {
        return Err(Refusal::invalid("these are not the keys of the user and the device that upload them"));
    }
    let signed = Signed::parse(text)?;
    let (user, own) = (sender.user.as_str(), format!("ed25519:{}", sender.device));
    // The signature may be missing. Where it is there, it is right.
    let is_signed = signed.signatures(user).any(|(id, _)| id == own);
    if is_signed && !signed.key(&own).is_some_and(|public| signed.is_signed(user, &own, public)) {
        return Err(Refusal::invalid_signature("the device's signature under its keys is wrong"));
    }
    let record = signed.clone().for_record(user)?;
    Ok((signed, record))
}

fn check_all<'a>(keys: impl IntoIterator<Item = (&'a OneTimeKeyId, &'a str)>) -> Result<Vec<NamedKey>, Refusal> {
    keys.into_iter().map(|(id, text)| check_key(id, text)).collect()
}

fn check_key(id: &OneTimeKeyId, text: &str) -> Result<NamedKey, Refusal> {
    content::check_name("key id", id.as_str())?;
    check_bytes(text)?;
    let bad = |what: &str| Refusal::bad_json(format!("{what}: {id}"));
    let key: Value = serde_json::from_str(text).map_err(|error| bad(&error.to_string()))?;
    match (&key, id.algorithm()) {
        (_, OneTimeKeyAlgorithm::SignedCurve25519) => {
            serde_json::from_str::<SignedKey>(text)
                .map_err(|error| bad(&format!("this is no signed key ({error})")))?;
        }
        (Value::String(_) | Value::Object(_), _) => {}
        _ => return Err(bad("a key is a string or an object")),
    }
    Ok(NamedKey { id: id.to_string(), key: content::written(&key)? })
}

/// Records what of an upload is new, and gives the numbers of one-time keys that are left, by algorithm.
///
/// # Errors
/// `M_INVALID_PARAM` for another key under an id that is there, `M_UNKNOWN` without a device, and those of [`guards::standing`].
pub async fn upload(commands: &Commands, sender: &Sender, upload: Upload) -> Result<BTreeMap<String, u64>, Error> {
    let by = sender.clone();
    commands.execute(sender, move |view| decide(view, &by, &upload)).await
}

fn decide(view: &View, by: &Sender, upload: &Upload) -> Result<Decision<BTreeMap<String, u64>>, Error> {
    by.on_device()?;
    let mut draft = Draft { reads: guards::standing(view, by)?, ..Draft::default() };
    let (user, device) = (by.user.to_string(), by.device.to_string());
    if let Some((signed, keys)) = &upload.device_keys {
        let before = keys::of_device(view, &user, &device, &user)?;
        let is_there =
            before.is_some_and(|keys| Signed::parse(&keys.as_str()).is_ok_and(|before| before.says_the_same(signed)));
        if !is_there {
            let fact = DeviceKeysUploaded { user: user.clone(), device: device.clone(), keys: keys.clone() };
            draft.facts.push(fact.into());
        }
    }
    let keys = new_one_time_keys(view, &user, &device, &upload.one_time)?;
    if !keys.is_empty() {
        draft.facts.push(OneTimeKeysUploaded { user: user.clone(), device: device.clone(), keys }.into());
    }
    let mut keys = Vec::new();
    for key in &upload.fallback {
        // A key that comes again is not unused again.
        if keys::fallback_key(view, &user, &device, algorithm(&key.id))?.is_none_or(|(id, _)| id != key.id) {
            keys.push(key.clone());
        }
    }
    if !keys.is_empty() {
        draft.facts.push(FallbackKeysUploaded { user: user.clone(), device: device.clone(), keys }.into());
    }
    if draft.facts.is_empty() {
        return Ok(Decision::Reply(keys::counts(view, &user, &device)?));
    }
    Ok(Decision::append(draft, move |done| Ok(keys::counts(&done.view()?, &user, &device)?)))
}

fn new_one_time_keys(view: &View, user: &str, device: &str, keys: &[NamedKey]) -> Result<Vec<NamedKey>, Error> {
    let mut new = Vec::new();
    for key in keys {
        match keys::one_time_key(view, user, device, &key.id)? {
            None => new.push(key.clone()),
            Some(before) if is_same(&before, &key.key) => {}
            Some(_) => {
                return Err(Refusal::invalid(format!("there is another one-time key with the id {}", key.id)).into());
            }
        }
    }
    let held: u64 = keys::counts(view, user, device)?.values().sum();
    if held.saturating_add(new.len() as u64) > MAX_HELD {
        return Err(Refusal::too_large(format!("a device can have at most {MAX_HELD} one-time keys")).into());
    }
    Ok(new)
}

/// Whether two uploads are of one key, though it may have been signed anew.
fn is_same(one: &Json, other: &Json) -> bool {
    let unsigned = |key: &Json| {
        let mut key: Value = key.read().unwrap_or_default();
        if let Value::Object(key) = &mut key {
            key.remove("signatures");
        }
        key
    };
    one == other || unsigned(one) == unsigned(other)
}
