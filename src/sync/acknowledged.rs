//! What devices have got of the messages to them: the `since` of a sync acknowledges what came before it. It is collected
//! here and goes on the log coalesced, at most once a minute, so that syncing itself appends nothing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use projections::{StoreError, View, models::to_device};
use schemas::{
    Draft, Lsn, Origin,
    facts::{Acknowledgement, ToDeviceAcknowledged},
};

use super::SyncToken;
use crate::commands::{Commands, Decision, Error, Sender};

/// One record takes so many acknowledgements at most; each is one range that is deleted.
const AT_ONCE: usize = 1_000;

/// Acknowledgements that are not on the log yet.
#[derive(Default)]
pub struct Acknowledged {
    waiting: Mutex<BTreeMap<(String, String), Lsn>>,
}

impl Acknowledged {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(String, String), Lsn>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device has got everything up to a token. Where nothing waited for it, nothing is noted.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note(&self, view: &View, sender: &Sender, since: &SyncToken) -> Result<(), StoreError> {
        let up_to = since.to_device.unwrap_or(since.lsn).min(view.lsn());
        let (user, device) = (sender.user.as_str(), sender.device.as_str());
        if to_device::has_until(view, user, device, up_to)? {
            let mut waiting = self.waiting();
            let noted = waiting.entry((user.to_owned(), device.to_owned())).or_default();
            *noted = up_to.max(*noted);
        }
        Ok(())
    }

    /// What a device has got and what is still kept for it.
    pub fn of(&self, sender: &Sender) -> Lsn {
        let key = (sender.user.to_string(), sender.device.to_string());
        self.waiting().get(&key).copied().unwrap_or_default()
    }

    /// Puts what is noted on the log.
    ///
    /// # Errors
    /// When the log can't be written; what is noted then waits for the next time.
    pub async fn flush(&self, commands: &Commands) -> Result<(), Error> {
        loop {
            let acks: Vec<Acknowledgement> = {
                let waiting = self.waiting();
                let some = waiting.iter().take(AT_ONCE);
                some.map(|((user, device), up_to)| Acknowledgement {
                    user: user.clone(),
                    device: device.clone(),
                    up_to: *up_to,
                })
                .collect()
            };
            if acks.is_empty() {
                return Ok(());
            }
            let fact = ToDeviceAcknowledged { acks: acks.clone() };
            commands
                .execute(Origin::Server, move |_| {
                    let draft = Draft { facts: vec![fact.clone().into()], ..Draft::default() };
                    Ok(Decision::append_then(draft, ()))
                })
                .await?;
            let mut waiting = self.waiting();
            for ack in acks {
                let key = (ack.user, ack.device);
                if waiting.get(&key) == Some(&ack.up_to) {
                    waiting.remove(&key);
                }
            }
        }
    }
}
