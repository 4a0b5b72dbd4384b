//! Devices that are there already: their names and their end. They begin with a session.

use std::collections::BTreeSet;

use projections::{View, models::devices};
use ruma::{DeviceId, OwnedDeviceId, UserId};
use schemas::{
    Draft,
    facts::{DeviceAdded, DeviceRemoved, DeviceRenamed},
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

/// Adds a device of the sender's that has no session yet; one that is there stays as it is.
///
/// # Errors
/// `M_INVALID_PARAM` for what can't be a device's id, and those of [`guards::standing`].
pub async fn add(commands: &Commands, sender: &Sender, device: &DeviceId) -> Result<(), Error> {
    check_id(device)?;
    let (by, device) = (sender.clone(), device.to_string());
    let decide = move |view: &View| {
        let (mut reads, user) = (guards::standing(view, &by)?, by.user.to_string());
        if devices::get(view, &user, &device)?.is_some() {
            return Ok(Decision::Reply(()));
        }
        let key = guards::device(&user, &device);
        reads.push(unchanged(view, key)?);
        let fact = DeviceAdded { user, device: device.clone(), display_name: None };
        Ok(Decision::append_then(Draft { reads, writes: vec![key], facts: vec![fact.into()] }, ()))
    };
    commands.execute(sender, decide).await
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

/// Refuses what can't be a device's id.
///
/// # Errors
/// `M_INVALID_PARAM`.
pub fn check_id(device: &DeviceId) -> Result<(), Refusal> {
    match device.as_str().len() {
        1..=255 => Ok(()),
        _ => Err(Refusal::invalid("the id of a device has between 1 and 255 bytes")),
    }
}

/// Ends devices of the sender's, with their sessions, keys and waiting messages. Those that are not there are passed
/// over. Locked users may do this too: it is how they log out.
///
/// # Errors
/// Those of [`guards::present`].
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
        let decide = move |view: &View| {
            let mut draft = Draft { reads: guards::present(view, &by)?, ..Draft::default() };
            add_removals(&mut draft, view, &by, &some)?;
            if draft.facts.is_empty() { Ok(Decision::Reply(())) } else { Ok(Decision::append_then(draft, ())) }
        };
        commands.execute(sender, decide).await?;
    }
    Ok(())
}

/// The sender's devices, without the one that they use.
pub(super) fn others(view: &View, by: &Sender) -> Result<Vec<OwnedDeviceId>, Error> {
    let ids = devices::of_user(view, by.user.as_str()).map(|row| row.map(|(id, _)| id.into()));
    let others = ids.filter(|id| !matches!(id, Ok(id) if *id == by.device));
    Ok(others.collect::<Result<_, _>>()?)
}

/// Ends all devices of the sender's that are there now.
///
/// # Errors
/// Those of [`guards::present`].
pub async fn remove_all(commands: &Commands, sender: &Sender) -> Result<(), Error> {
    let others = others(&commands.parts().source.view()?, sender)?;
    remove(commands, sender, others.into_iter().chain([sender.device.clone()])).await
}

/// Adds the end of devices to a decision of their user's; of many, as many as one record takes. Gives the rest.
pub(super) fn add_removals<'a>(
    draft: &mut Draft,
    view: &View,
    by: &Sender,
    devices: &'a [OwnedDeviceId],
) -> Result<&'a [OwnedDeviceId], Error> {
    let (some, rest) = devices.split_at(devices.len().min(REMOVED_AT_ONCE));
    let user = by.user.as_str();
    for device in some {
        if devices::get(view, user, device.as_str())?.is_none() {
            continue;
        }
        // The sender's own is among the guards already.
        if *device != by.device {
            draft.reads.push(unchanged(view, guards::device(user, device.as_str()))?);
        }
        add_removal(draft, user, device.as_str());
    }
    Ok(rest)
}

/// Adds the end of all devices of a user to a decision about them, or of as many as one record takes; says whether
/// there are more.
pub(super) fn add_all_removals(draft: &mut Draft, view: &View, user: &UserId) -> Result<bool, Error> {
    let user = user.as_str();
    let mut ids = devices::of_user(view, user).map(|row| row.map(|(id, _)| id));
    for id in ids.by_ref().take(REMOVED_AT_ONCE) {
        let id = id?;
        draft.reads.push(unchanged(view, guards::device(user, &id))?);
        add_removal(draft, user, &id);
    }
    Ok(ids.next().is_some())
}

fn add_removal(draft: &mut Draft, user: &str, device: &str) {
    draft.writes.push(guards::device(user, device));
    draft.facts.push(DeviceRemoved { user: user.to_owned(), device: device.to_owned() }.into());
}
