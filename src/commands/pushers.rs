//! Pushers: through which gateways a user wants to be notified.

use projections::{View, models::pushers};
use ruma::api::client::push::PusherIds;
use schemas::{
    Blob, Draft, Part,
    facts::{PusherRemoved, PusherSet},
};
use sha2::{Digest, Sha256};

use super::{Commands, Decision, Error, Refusal, Sender, guards::standing};

/// An app's id has at most so many characters (client-server API, `POST /pushers/set`).
const MAX_APP_ID_CHARS: usize = 64;
/// A pushkey has at most so many bytes.
const MAX_PUSHKEY_BYTES: usize = 512;
/// A pusher has at most so many bytes as JSON.
const MAX_BYTES: usize = 16 * 1024;
/// A user has at most so many.
const AT_MOST: usize = 100;

fn id(ids: &PusherIds) -> Blob {
    Blob(Sha256::digest(format!("{}\0{}", ids.app_id, ids.pushkey)).to_vec())
}

/// Sets a pusher of the sender's; `json` is all that is said of it. Others who have it keep it only if they are to.
///
/// # Errors
/// `M_INVALID_PARAM` for one that is too large, or one too many, and those of [`standing`].
pub async fn set(
    commands: &Commands,
    sender: &Sender,
    ids: &PusherIds,
    json: Vec<u8>,
    append: bool,
) -> Result<(), Error> {
    if ids.app_id.chars().count() > MAX_APP_ID_CHARS || ids.pushkey.len() > MAX_PUSHKEY_BYTES || json.len() > MAX_BYTES
    {
        let message = format!(
            "app_id has at most {MAX_APP_ID_CHARS} characters, pushkey {MAX_PUSHKEY_BYTES} bytes, a pusher {MAX_BYTES}"
        );
        return Err(Refusal::invalid(message).into());
    }
    let (by, id) = (sender.clone(), id(ids));
    let decide = move |view: &View| {
        let reads = standing(view, &by)?;
        let there = pushers::of_user(view, by.user.as_str()).collect::<Result<Vec<_>, _>>()?;
        if there.len() >= AT_MOST && there.iter().all(|(other, _)| *other != id.0) {
            return Err(Refusal::invalid(format!("a user has at most {AT_MOST} pushers")).into());
        }
        let (user, device) = (by.user.to_string(), by.device.to_string());
        let fact = PusherSet { user, device, id: id.clone(), pusher: Part::clear(json.clone()), append };
        Ok(Decision::append_then(Draft { reads, writes: Vec::new(), facts: vec![fact.into()] }, ()))
    };
    commands.execute(sender, decide).await
}

/// Ends a pusher of the sender's, if there is one.
///
/// # Errors
/// Those of [`standing`].
pub async fn remove(commands: &Commands, sender: &Sender, ids: &PusherIds) -> Result<(), Error> {
    let (by, id) = (sender.clone(), id(ids));
    let decide = move |view: &View| {
        let reads = standing(view, &by)?;
        let user = by.user.to_string();
        if !pushers::of_user(view, &user).any(|row| matches!(row, Ok((other, _)) if other == id.0)) {
            return Ok(Decision::Reply(()));
        }
        let fact = PusherRemoved { user, id: id.clone() };
        Ok(Decision::append_then(Draft { reads, writes: Vec::new(), facts: vec![fact.into()] }, ()))
    };
    commands.execute(sender, decide).await
}
