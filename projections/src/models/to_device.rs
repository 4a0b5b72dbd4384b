//! Messages that wait for devices.
//!
//! What waits for this device after a position? Is there anything that it has got and that can be deleted?
//!
//! Tables: 1 `user | device | lsn, index | place -> Message`.
//!
//! Reading deletes nothing: what a device's sync token has passed is not sent again, and goes when an acknowledgement
//! is folded.

use schemas::{Fact, Lsn, Part, facts::Acknowledgement};
use serde::{Deserialize, Serialize};

use super::devices;
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, rows},
};

const WAITING: Table = Table { model: Model::ToDevice, prefix: 1 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::ToDevice, version: 1, reads: &[Model::Devices], fold };

/// A message for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Full user id of the sender.
    pub sender: String,
    /// Event type.
    pub event_type: String,
    /// Content, JSON.
    pub content: Part,
}

/// Messages for a device, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The messages.
    pub messages: Vec<Message>,
    /// More wait after this position; none if that is all.
    pub until: Option<Lsn>,
}

fn device_key(user: &str, device: &str) -> KeyBuf {
    KeyBuf::new().str(user).str(device)
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::ToDeviceSent(f) => {
            for (place, message) in (0..).zip(&f.messages) {
                if devices::get(batch, &message.user, &message.device)?.is_none() {
                    continue;
                }
                let row = Message {
                    sender: f.sender.clone(),
                    event_type: f.event_type.clone(),
                    content: message.content.clone(),
                };
                batch.put(WAITING, device_key(&message.user, &message.device).nid(at.nid()).u64(place), &row);
                batch.touch_user(&message.user);
            }
        }
        Fact::ToDeviceAcknowledged(f) => {
            for Acknowledgement { user, device, up_to } in &f.acks {
                batch.delete_range(WAITING, &until(user, device, *up_to));
            }
        }
        Fact::DeviceRemoved(f) => batch.delete_prefix(WAITING, device_key(&f.user, &f.device)),
        Fact::AccountDeactivated(f) => batch.delete_prefix(WAITING, KeyBuf::new().str(&f.user)),
        _ => {}
    }
    Ok(())
}

/// What waits for a device up to a position (inclusive).
fn until(user: &str, device: &str, up_to: Lsn) -> Range {
    Range::prefix_until(device_key(user, device).as_ref(), KeyBuf::new().lsn(up_to).raw(&[0xff; 3]).as_ref())
}

/// What waits for a device after a position: about `limit` messages, but always all of a record, so that a position
/// says how far it goes.
///
/// # Errors
/// When the store fails.
pub fn after(read: &dyn Read, user: &str, device: &str, after: Lsn, limit: usize) -> Result<Waiting, StoreError> {
    let prefix = Vec::from(device_key(user, device));
    let mut waiting = Waiting::default();
    let mut last = after;
    for row in
        rows::<Message>(read, WAITING, Range::prefix_from(&prefix, KeyBuf::new().lsn(after).raw(&[0xff; 3]).as_ref()))
    {
        let (key, message) = row?;
        let lsn = KeyReader::new(&key[prefix.len()..]).lsn().ok_or_else(|| malformed_key(WAITING))?;
        if waiting.messages.len() >= limit && lsn > last {
            waiting.until = Some(last);
            break;
        }
        last = lsn;
        waiting.messages.push(message);
    }
    Ok(waiting)
}

/// Whether anything waits that a device has got, as it acknowledges everything up to a position.
///
/// # Errors
/// When the store fails.
pub fn has_until(read: &dyn Read, user: &str, device: &str, up_to: Lsn) -> Result<bool, StoreError> {
    Ok(read.scan(WAITING, until(user, device, up_to)).next().transpose()?.is_some())
}

#[cfg(test)]
mod tests {
    use schemas::facts::{DeviceAdded, DeviceRemoved, ToDeviceAcknowledged, ToDeviceMessage, ToDeviceSent};

    use super::*;
    use crate::testing::World;

    const ALICE: &str = "@alice:example.org";

    fn world() -> World {
        let mut world = World::new();
        let added = |device: &str| DeviceAdded { user: ALICE.into(), device: device.into(), display_name: None };
        world.apply([added("PHONE").into(), added("DESK").into()]);
        world
    }

    fn sent(messages: &[(&str, &str)]) -> Fact {
        let messages = messages.iter().map(|(device, text)| ToDeviceMessage {
            user: ALICE.into(),
            device: (*device).into(),
            content: Part::clear(*text),
        });
        ToDeviceSent { sender: "@bob:example.org".into(), event_type: "m.x".into(), messages: messages.collect() }
            .into()
    }

    fn acknowledged(device: &str, up_to: Lsn) -> Fact {
        let ack = Acknowledgement { user: ALICE.into(), device: device.into(), up_to };
        ToDeviceAcknowledged { acks: vec![ack] }.into()
    }

    fn texts(world: &World, device: &str, since: Lsn, limit: usize) -> (String, Option<Lsn>) {
        let waiting = after(&world.view(), ALICE, device, since, limit).unwrap();
        let text = |m: Message| String::from_utf8(m.content.open().unwrap().to_vec()).unwrap();
        (waiting.messages.into_iter().map(text).collect::<Vec<_>>().join(" "), waiting.until)
    }

    #[test]
    fn each_device_gets_its_messages_in_order() {
        let mut world = world();
        let one = world
            .apply([sent(&[("PHONE", "1"), ("DESK", "2"), ("PHONE", "3"), ("GONE", "4")]), sent(&[("PHONE", "5")])]);
        let two = world.apply([sent(&[("PHONE", "6")])]);
        assert_eq!(texts(&world, "PHONE", Lsn::ZERO, 100), ("1 3 5 6".into(), None));
        assert_eq!(texts(&world, "DESK", Lsn::ZERO, 100), ("2".into(), None));
        assert_eq!(texts(&world, "GONE", Lsn::ZERO, 100), (String::new(), None));
        assert_eq!(texts(&world, "PHONE", Lsn::ZERO, 1), ("1 3 5".into(), Some(one)));
        assert_eq!(texts(&world, "PHONE", one, 1), ("6".into(), None));
        assert_eq!(texts(&world, "PHONE", two, 1), (String::new(), None));
        world.check_replay();
    }

    #[test]
    fn what_was_acknowledged_goes_and_nothing_else() {
        let mut world = world();
        let one = world.apply([sent(&[("PHONE", "1"), ("DESK", "2")])]);
        let two = world.apply([sent(&[("PHONE", "3")])]);
        assert!(has_until(&world.view(), ALICE, "PHONE", one).unwrap());
        world.apply([acknowledged("PHONE", one)]);
        assert!(!has_until(&world.view(), ALICE, "PHONE", one).unwrap());
        assert_eq!(texts(&world, "PHONE", Lsn::ZERO, 100), ("3".into(), None));
        assert_eq!(texts(&world, "DESK", Lsn::ZERO, 100), ("2".into(), None));
        world.apply([acknowledged("PHONE", Lsn(u64::MAX)), sent(&[("PHONE", "4")])]);
        assert_eq!(texts(&world, "PHONE", two, 100), ("4".into(), None));
        world.apply([DeviceRemoved { user: ALICE.into(), device: "PHONE".into() }.into()]);
        assert_eq!(texts(&world, "PHONE", Lsn::ZERO, 100), (String::new(), None));
        world.check_replay();
    }
}
