//! Messages from device to device.

use std::collections::{BTreeMap, BTreeSet};

use projections::{View, models::devices};
use ruma::{OwnedUserId, to_device::DeviceIdOrAllDevices};
use schemas::{
    Draft, Json, Part,
    facts::{ToDeviceMessage, ToDeviceSent},
};

use super::{Commands, Decision, Error, Refusal, Request, Sender, content::check_name, guards};

/// One request goes to at most so many devices: the fold writes a row for each.
const MAX_MESSAGES: usize = 4_000;

/// What is to be sent, by user and device.
pub type Messages = BTreeMap<OwnedUserId, BTreeMap<DeviceIdOrAllDevices, Json>>;

/// Sends messages to devices of this server's users, once for each request id. Devices that are not there get nothing.
///
/// # Errors
/// `M_TOO_LARGE`, `M_INVALID_PARAM` for users of other servers, and those of [`guards::standing`].
pub async fn send(
    commands: &Commands,
    request: Request,
    sender: &Sender,
    event_type: &str,
    messages: Messages,
) -> Result<(), Error> {
    check_name("type", event_type)?;
    let server = &commands.parts().server_name;
    if let Some(user) = messages.keys().find(|user| user.server_name() != server) {
        return Err(Refusal::invalid(format!("{user} is not of this server, which does not reach others")).into());
    }
    let (by, event_type) = (sender.clone(), event_type.to_owned());
    commands.execute_once(request, move |view| decide(view, &by, &event_type, &messages), |_, _| Ok(())).await
}

fn decide(view: &View, by: &Sender, event_type: &str, messages: &Messages) -> Result<Decision<()>, Error> {
    let reads = guards::standing(view, by)?;
    let mut spelled_out = Vec::new();
    for (user, by_device) in messages {
        for (device, content) in recipients(view, user, by_device)? {
            let content = Part::clear(content.0.clone());
            spelled_out.push(ToDeviceMessage { user: user.to_string(), device, content });
        }
        if spelled_out.len() > MAX_MESSAGES {
            return Err(Refusal::too_large(format!("one request can go to at most {MAX_MESSAGES} devices")).into());
        }
    }
    if spelled_out.is_empty() {
        return Ok(Decision::Reply(()));
    }
    let fact = ToDeviceSent { sender: by.user.to_string(), event_type: event_type.to_owned(), messages: spelled_out };
    Ok(Decision::append_then(Draft { reads, writes: Vec::new(), facts: vec![fact.into()] }, ()))
}

/// Which of a user's devices get what. A device that is named gets what names it, not what is for all.
fn recipients<'a>(
    view: &View,
    user: &OwnedUserId,
    by_device: &'a BTreeMap<DeviceIdOrAllDevices, Json>,
) -> Result<Vec<(String, &'a Json)>, Error> {
    let mut recipients = Vec::new();
    let mut named = BTreeSet::new();
    for (device, content) in by_device {
        if let DeviceIdOrAllDevices::DeviceId(device) = device
            && devices::get(view, user.as_str(), device.as_str())?.is_some()
        {
            named.insert(device.to_string());
            recipients.push((device.to_string(), content));
        }
    }
    if let Some(content) = by_device.get(&DeviceIdOrAllDevices::AllDevices) {
        for row in devices::of_user(view, user.as_str()).take(MAX_MESSAGES + 1) {
            let (device, _) = row?;
            if !named.contains(&device) {
                recipients.push((device, content));
            }
        }
    }
    Ok(recipients)
}
