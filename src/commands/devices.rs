//! Devices that are there already: their names and their end. They begin with a session.

use std::collections::BTreeSet;

use projections::{View, models::devices};
use ruma::{DeviceId, OwnedDeviceId};
use schemas::{
    Draft,
    facts::{DeviceRemoved, DeviceRenamed},
};

use super::{Commands, Decision, Error, Refusal, Sender, guards, unchanged};

/// A device's name has at most so many characters.
pub const MAX_NAME_CHARS: usize = 100;

/// So many devices end with one record: the fold of each deletes from a dozen tables.
const REMOVED_AT_ONCE: usize = 200;

/// Refuses a name that is too long.
///
/// # Errors
/// `M_INVALID_PARAM`.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    if name.chars().count() > MAX_NAME_CHARS {
        return Err(Refusal::invalid(format!("the name of a device has at most {MAX_NAME_CHARS} characters")));
    }
    Ok(())
}

/// Gives one of the sender's devices another name.
///
/// # Errors
/// `M_NOT_FOUND` for a device that is not there, `M_INVALID_PARAM` for an overlong name, and those of
/// [`guards::standing`].
pub async fn rename(
    commands: &Commands,
    sender: &Sender,
    device: &DeviceId,
    name: Option<String>,
) -> Result<(), Error> {
    name.as_deref().map_or(Ok(()), check_name)?;
    let (by, device) = (sender.clone(), device.to_string());
    commands
        .execute(sender, move |view| {
            let reads = guards::standing(view, &by)?;
            let user = by.user.to_string();
            let before = devices::get(view, &user, &device)?;
            let before = before.ok_or_else(|| Refusal::not_found("there is no such device"))?;
            // Without a name the request changes nothing.
            if name.is_none() || before.display_name == name {
                return Ok(Decision::Reply(()));
            }
            let fact = DeviceRenamed { user, device: device.clone(), display_name: name.clone() };
            Ok(Decision::append_then(Draft { reads, writes: Vec::new(), facts: vec![fact.into()] }, ()))
        })
        .await
}

/// Ends devices of the sender's, with their sessions, keys and waiting messages. Those that are not there are passed
/// over.
///
/// # Errors
/// Those of [`guards::standing`].
pub async fn remove(
    commands: &Commands,
    sender: &Sender,
    devices: impl IntoIterator<Item = OwnedDeviceId>,
) -> Result<(), Error> {
    let devices: BTreeSet<OwnedDeviceId> = devices.into_iter().collect();
    let mut devices: Vec<OwnedDeviceId> = devices.into_iter().collect();
    // Without it the sender could do no more.
    devices.sort_by_key(|device| *device == sender.device);
    for some in devices.chunks(REMOVED_AT_ONCE) {
        let (by, some) = (sender.clone(), some.to_vec());
        commands.execute(sender, move |view| decide_removal(view, &by, &some)).await?;
    }
    Ok(())
}

fn decide_removal(view: &View, by: &Sender, some: &[OwnedDeviceId]) -> Result<Decision<()>, Error> {
    let mut draft = Draft { reads: guards::standing(view, by)?, ..Draft::default() };
    let user = by.user.as_str();
    for device in some {
        if devices::get(view, user, device.as_str())?.is_none() {
            continue;
        }
        let key = guards::device(user, device.as_str());
        if *device != by.device {
            draft.reads.push(unchanged(view, key)?);
        }
        draft.writes.push(key);
        draft.facts.push(DeviceRemoved { user: user.to_owned(), device: device.to_string() }.into());
    }
    if draft.facts.is_empty() { Ok(Decision::Reply(())) } else { Ok(Decision::append_then(draft, ())) }
}
