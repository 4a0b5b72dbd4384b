//! When, from where and by which program devices were last seen. A node knows it of its own requests at once; the others,
//! and the time after a restart, know what it has put on the log: at most once a minute, and of a device, an address and a
//! program once an hour.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use moka::sync::Cache;
use projections::{
    StoreError, View,
    models::{devices, seen},
};
use schemas::{
    Draft, Origin, Part,
    facts::{DeviceSeen, DevicesSeen},
};

use super::auth::Caller;
use crate::{
    commands::{Commands, Decision, Error, Sender},
    config::LastSeen,
};

/// So many devices are known here at most.
const DEVICES: u64 = 100_000;
/// To the minute is good enough.
const MINUTE_MS: u64 = 60_000;
/// What was put on the log is so long good enough for others.
const TOLD_MS: u64 = 3_600_000;
/// One record takes so many devices at most: each moves its user in the orders by which users are listed.
const AT_ONCE: usize = 50;
/// So much is kept of what a program says that it is.
const AGENT_CHARS: usize = 256;

/// What this node has seen.
pub struct Seen {
    telling: LastSeen,
    devices: Cache<Sender, Arc<Vec<Sighting>>>,
    /// Of these there is something to tell.
    changed: Mutex<HashSet<Sender>>,
}

/// A device, from an address and by a program, of each the latest, the latest first.
#[derive(Clone)]
struct Sighting {
    address: IpAddr,
    agent: String,
    at_ms: u64,
    /// When it was last on the log.
    told_ms: u64,
}

impl Sighting {
    fn is_like(&self, caller: Caller<'_>) -> bool {
        self.address == caller.address && self.agent == agent(caller)
    }

    fn is_news(&self) -> bool {
        self.told_ms + TOLD_MS <= self.at_ms
    }

    fn shown(&self) -> seen::Seen {
        let address = Some(Part::clear(self.address.to_string()));
        let user_agent = Some(Part::clear(self.agent.as_str()));
        seen::Seen { at_ms: self.at_ms, address, user_agent }
    }
}

fn agent(caller: Caller<'_>) -> &str {
    let agent = caller.agent.unwrap_or_default();
    agent.char_indices().nth(AGENT_CHARS).map_or(agent, |(end, _)| &agent[..end])
}

impl Seen {
    /// Nothing yet. The settings say what of it gets on the log.
    #[must_use]
    pub fn new(telling: LastSeen) -> Self {
        let devices = Cache::builder().max_capacity(DEVICES).build();
        Self { telling, devices, changed: Mutex::default() }
    }

    fn changed(&self) -> MutexGuard<'_, HashSet<Sender>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device shows up.
    pub fn note(&self, sender: &Sender, caller: Caller<'_>, now_ms: u64) {
        let before = self.devices.get(sender).unwrap_or_default();
        if before.first().is_some_and(|last| last.is_like(caller) && now_ms < last.at_ms + MINUTE_MS) {
            return;
        }
        let told_ms = before.iter().find(|other| other.is_like(caller)).map_or(0, |known| known.told_ms);
        let now = Sighting { address: caller.address, agent: agent(caller).to_owned(), at_ms: now_ms, told_ms };
        let news = self.telling != LastSeen::Nothing && now.is_news();
        let others = before.iter().filter(|other| !other.is_like(caller)).cloned();
        let all: Vec<_> = std::iter::once(now).chain(others).take(seen::KEPT).collect();
        self.devices.insert(sender.clone(), Arc::new(all));
        if news {
            let mut changed = self.changed();
            // Where the log can't be written for long, the latest are not told.
            if changed.len() < usize::try_from(DEVICES).unwrap_or(usize::MAX) {
                changed.insert(sender.clone());
            }
        }
    }

    /// When and from where a device was seen, the latest first: as this node knows and as the log says.
    ///
    /// # Errors
    /// When the store fails.
    pub fn of_device(&self, view: &View, device: &Sender) -> Result<Vec<seen::Seen>, StoreError> {
        let mut all = seen::of_device(view, device.user.as_str(), device.device.as_str())?;
        for sighting in self.devices.get(device).unwrap_or_default().iter() {
            seen::join(&mut all, sighting.shown());
        }
        Ok(all)
    }

    /// When a user was last seen, on whichever device, milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// When the store fails.
    pub fn of_user(&self, view: &View, user: &ruma::UserId) -> Result<Option<u64>, StoreError> {
        let mut last = seen::last(view, user.as_str())?;
        for row in devices::of_user(view, user.as_str()) {
            let device = Sender::new(user.to_owned(), row?.0.into());
            let here = self.devices.get(&device).and_then(|all| all.first().map(|sighting| sighting.at_ms));
            last = last.max(here);
        }
        Ok(last)
    }

    /// Puts on the log what is new.
    ///
    /// # Errors
    /// When the log can't be written; it is then tried again the next time.
    pub async fn flush(&self, commands: &Commands) -> Result<(), Error> {
        loop {
            let some: Vec<Sender> = self.changed().iter().take(AT_ONCE).cloned().collect();
            if some.is_empty() {
                return Ok(());
            }
            let view = commands.parts().source.view()?;
            let mut news = Vec::new();
            for device in &some {
                self.add_news(&view, device, &mut news)?;
            }
            drop(view);
            if !news.is_empty() {
                let fact = DevicesSeen { seen: news };
                let decide = move |_: &View| {
                    let draft = Draft { facts: vec![fact.clone().into()], ..Draft::default() };
                    Ok(Decision::append_then(draft, ()))
                };
                commands.execute(Origin::Server, decide).await?;
            }
            let mut changed = self.changed();
            for device in some {
                self.told(&device);
                changed.remove(&device);
            }
        }
    }

    /// What is not on the log yet, by this node or, a short while ago, by another.
    fn add_news(&self, view: &View, device: &Sender, news: &mut Vec<DeviceSeen>) -> Result<(), StoreError> {
        let (user, on) = (device.user.as_str(), device.device.as_str());
        let known = seen::of_device(view, user, on)?;
        for sighting in self.devices.get(device).unwrap_or_default().iter().filter(|sighting| sighting.is_news()) {
            let mut shown = sighting.shown();
            if self.telling == LastSeen::Times {
                (shown.address, shown.user_agent) = (None, None);
            }
            let before = known.iter().find(|other| other.is_like(&shown));
            if before.is_some_and(|before| before.at_ms + TOLD_MS > shown.at_ms) {
                continue;
            }
            let seen::Seen { at_ms, address, user_agent } = shown;
            news.push(DeviceSeen { user: user.to_owned(), device: on.to_owned(), at_ms, address, user_agent });
        }
        Ok(())
    }

    fn told(&self, device: &Sender) {
        let Some(all) = self.devices.get(device) else { return };
        let told = |sighting: &Sighting| match sighting.is_news() {
            true => Sighting { told_ms: sighting.at_ms, ..sighting.clone() },
            false => sighting.clone(),
        };
        self.devices.insert(device.clone(), Arc::new(all.iter().map(told).collect()));
    }
}
