//! What is not history: typing and presence. It lives in memory, has positions of its own for one run of the process,
//! and is neither on the log nor replayed. A token of another run (another boot id) gets the whole of what is current.

mod presence;
mod typing;

#[cfg(test)]
mod tests;

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, presence::PresenceState};

use crate::clock::Clock;

pub use presence::Presence;

/// A place in the order of what happened in this run, from 1; zero is before everything.
pub type Position = u64;

/// What changed, for those who wait.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Who types in a room.
    Typing(&'a RoomId),
    /// A user's presence.
    Presence(&'a UserId),
}

type Listener = Box<dyn Fn(Change<'_>, Position) + Send + Sync>;

/// Typing and presence of this run.
pub struct Ephemeral {
    clock: Arc<dyn Clock>,
    boot: String,
    position: AtomicU64,
    typing: Mutex<typing::Typing>,
    presence: Mutex<presence::Presences>,
    listeners: RwLock<Vec<Listener>>,
}

/// A user who is there.
pub struct Present<'a> {
    ephemeral: &'a Ephemeral,
    user: OwnedUserId,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        let now = self.ephemeral.clock.now_ms();
        self.ephemeral.presence().go(&self.user, now);
    }
}

impl Ephemeral {
    /// Begins a run named `boot`: a few letters and digits.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, boot: String) -> Self {
        Self {
            clock,
            boot,
            position: AtomicU64::new(0),
            typing: Mutex::default(),
            presence: Mutex::default(),
            listeners: RwLock::new(Vec::new()),
        }
    }

    /// This run's name.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Where it is now.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position.load(Ordering::SeqCst)
    }

    /// Calls `listener` with each change. It must be quick.
    pub fn listen(&self, listener: impl Fn(Change<'_>, Position) + Send + Sync + 'static) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    fn changed(&self, change: Change<'_>, position: Position) {
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(change, position);
        }
    }

    fn typing(&self) -> MutexGuard<'_, typing::Typing> {
        self.typing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn presence(&self) -> MutexGuard<'_, presence::Presences> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user types in a room for so many milliseconds, at most two minutes; zero is: no more.
    pub fn set_typing(&self, room: &RoomId, user: &UserId, for_ms: u64) {
        let until = match for_ms {
            0 => None,
            ms => Some(self.clock.now_ms().saturating_add(ms.min(typing::LONGEST_MS))),
        };
        let position = {
            let mut typing = self.typing();
            if !typing.set(room, user, until) {
                return;
            }
            let position = self.position.fetch_add(1, Ordering::SeqCst) + 1;
            typing.mark(room, position);
            position
        };
        self.changed(Change::Typing(room), position);
    }

    /// Who types in a room, if that has changed after a position.
    #[must_use]
    pub fn typing_since(&self, room: &RoomId, since: Position) -> Option<Vec<OwnedUserId>> {
        self.typing().since(room, since)
    }

    /// Rooms in which somebody types or has typed since a position.
    #[must_use]
    pub fn rooms_since(&self, since: Position) -> Vec<OwnedRoomId> {
        self.typing().rooms_since(since)
    }

    /// Ends what was not renewed. To be called about once a second.
    pub fn expire(&self) {
        let now = self.clock.now_ms();
        let rooms = self.typing().expire(now);
        for room in rooms {
            let position = self.position.fetch_add(1, Ordering::SeqCst) + 1;
            self.typing().mark(&room, position);
            self.changed(Change::Typing(&room), position);
        }
        let users = self.presence().expire(now);
        for user in users {
            self.note_presence(&user);
        }
    }

    /// A user shows up, or says what others are to see; none keeps the message that is there.
    pub fn set_presence(&self, user: &UserId, state: PresenceState, message: Option<Option<String>>) {
        let now = self.clock.now_ms();
        if self.presence().set(user, state, message, now) {
            self.note_presence(user);
        }
    }

    /// A user is there from now on, until what this returns is dropped: neither idle nor gone, however long it takes.
    pub fn present(&self, user: &UserId, state: PresenceState) -> Present<'_> {
        self.set_presence(user, state, None);
        self.presence().stay(user);
        Present { ephemeral: self, user: user.to_owned() }
    }

    fn note_presence(&self, user: &UserId) {
        let position = self.position.fetch_add(1, Ordering::SeqCst) + 1;
        self.presence().mark(user, position);
        self.changed(Change::Presence(user), position);
    }

    /// A user's presence, if they ever had any in this run.
    #[must_use]
    pub fn presence_of(&self, user: &UserId) -> Option<Presence> {
        self.presence().get(user, self.clock.now_ms())
    }

    /// Users whose presence has changed after a position.
    #[must_use]
    pub fn presence_since(&self, since: Position) -> Vec<(OwnedUserId, Presence)> {
        self.presence().since(since, self.clock.now_ms())
    }
}
