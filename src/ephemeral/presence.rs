use std::collections::HashMap;

use ruma::{OwnedUserId, UserId, presence::PresenceState};

use super::Position;

/// Who has not done anything for this time is unavailable, and offline after …
const IDLE_MS: u64 = 5 * 60 * 1000;
/// … no request for this time.
const GONE_MS: u64 = 60 * 1000;

/// What others see of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Online, unavailable, offline.
    pub state: PresenceState,
    /// The user's own words.
    pub message: Option<String>,
    /// Milliseconds since the user last did something.
    pub last_active_ago_ms: u64,
}

#[derive(Default)]
pub(super) struct Presences {
    users: HashMap<OwnedUserId, Entry>,
}

struct Entry {
    changed: Position,
    state: PresenceState,
    message: Option<String>,
    last_active_ms: u64,
    last_seen_ms: u64,
    /// How many requests of theirs are waiting.
    staying: usize,
}

impl Entry {
    fn show(&self, now_ms: u64) -> Presence {
        Presence {
            state: self.state.clone(),
            message: self.message.clone(),
            last_active_ago_ms: now_ms.saturating_sub(self.last_active_ms),
        }
    }
}

impl Presences {
    /// Says whether others see a difference.
    pub(super) fn set(
        &mut self,
        user: &UserId,
        state: PresenceState,
        message: Option<Option<String>>,
        now_ms: u64,
    ) -> bool {
        let entry = self.users.entry(user.to_owned()).or_insert_with(|| Entry {
            changed: 0,
            state: PresenceState::Offline,
            message: None,
            last_active_ms: now_ms,
            last_seen_ms: now_ms,
            staying: 0,
        });
        entry.last_seen_ms = now_ms;
        if state == PresenceState::Online {
            entry.last_active_ms = now_ms;
        }
        let message = message.unwrap_or_else(|| entry.message.clone());
        let differs = entry.state != state || entry.message != message;
        entry.state = state;
        entry.message = message;
        differs
    }

    /// A request of the user waits.
    pub(super) fn stay(&mut self, user: &UserId) {
        if let Some(entry) = self.users.get_mut(user) {
            entry.staying += 1;
        }
    }

    /// It waits no more.
    pub(super) fn go(&mut self, user: &UserId, now_ms: u64) {
        let Some(entry) = self.users.get_mut(user) else { return };
        entry.staying = entry.staying.saturating_sub(1);
        entry.last_seen_ms = now_ms;
        if entry.state == PresenceState::Online {
            entry.last_active_ms = now_ms;
        }
    }

    pub(super) fn mark(&mut self, user: &UserId, position: Position) {
        if let Some(entry) = self.users.get_mut(user) {
            entry.changed = position;
        }
    }

    pub(super) fn get(&self, user: &UserId, now_ms: u64) -> Option<Presence> {
        self.users.get(user).map(|entry| entry.show(now_ms))
    }

    pub(super) fn since(&self, since: Position, now_ms: u64) -> Vec<(OwnedUserId, Presence)> {
        let changed = self.users.iter().filter(|(_, entry)| entry.changed > since);
        let mut changed: Vec<_> = changed.map(|(user, entry)| (user.clone(), entry.show(now_ms))).collect();
        changed.sort_by(|a, b| a.0.cmp(&b.0));
        changed
    }

    /// Users who have gone idle or offline.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<OwnedUserId> {
        let mut changed = Vec::new();
        for (user, entry) in self.users.iter_mut().filter(|(_, entry)| entry.staying == 0) {
            let state = if now_ms.saturating_sub(entry.last_seen_ms) > GONE_MS {
                PresenceState::Offline
            } else if now_ms.saturating_sub(entry.last_active_ms) > IDLE_MS && entry.state == PresenceState::Online {
                PresenceState::Unavailable
            } else {
                continue;
            };
            if entry.state != state {
                entry.state = state;
                changed.push(user.clone());
            }
        }
        changed.sort();
        changed
    }
}
