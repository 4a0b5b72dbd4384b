//! Who waits for what. A wake-up carries a position, never data: register, take a view, compute, wait.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use projections::{
    Applied, Source, StoreError, View,
    models::{
        events,
        membership::{self, Membership},
    },
};
use ruma::{OwnedUserId, UserId};
use schemas::{Lsn, Nid};
use tokio::sync::watch;

use crate::ephemeral::{Change, Position};

/// A user who has not synced for this time is forgotten; their next sync asks the read models.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

/// The last positions that concern a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// On the log.
    pub lsn: Lsn,
    /// Of typing and presence.
    pub ephemeral: Position,
}

/// Wakes the users concerned, and only those: it keeps, for the users who sync, which rooms they are in.
pub struct Notifier {
    source: Arc<dyn Source>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was touched up to here is in the marks of those who were known then.
    last: Mark,
    users: HashMap<OwnedUserId, Active>,
    /// Active users by room.
    rooms: HashMap<Nid, HashSet<OwnedUserId>>,
}

struct Active {
    mark: watch::Sender<Mark>,
    /// Marks are complete from this position on.
    from: Mark,
    rooms: HashSet<Nid>,
    /// The record as of which these are their rooms; zero before they were looked up.
    rooms_at: Lsn,
    /// Their rooms may have changed since.
    stale: bool,
    used: Instant,
}

/// A registered wait.
pub struct Watch {
    receiver: watch::Receiver<Mark>,
    from: Mark,
}

impl Watch {
    /// Whether nothing that concerns the user has happened since a position.
    #[must_use]
    pub fn is_quiet_since(&self, lsn: Lsn, ephemeral: Position) -> bool {
        let mark = *self.receiver.borrow();
        lsn >= self.from.lsn && lsn >= mark.lsn && ephemeral >= self.from.ephemeral && ephemeral >= mark.ephemeral
    }

    /// Waits for the next thing that concerns the user.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The user was forgotten, which takes longer than anybody waits.
            std::future::pending::<()>().await;
        }
    }
}

impl Notifier {
    /// Wakes nobody yet.
    #[must_use]
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a wait. What is touched after this call wakes it; so a view taken afterwards misses nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub fn watch(&self, user: &UserId) -> Result<Watch, StoreError> {
        let rooms_at = {
            let mut state = self.state();
            if let Some(watch) = state.known(user) {
                return Ok(watch);
            }
            state.begin(user)
        };
        let view = self.source.view()?;
        let changes = changes(&view, user.as_str(), rooms_at)?;
        Ok(self.state().fill(user, view.lsn(), changes))
    }

    /// Wakes those whom a commit concerns.
    pub fn applied(&self, applied: &Applied) {
        let lsn = applied.cursor.lsn;
        let touched = &applied.touched;
        let mut state = self.state();
        state.last.lsn = lsn;
        if touched.everything {
            state.touch_everybody(lsn);
        }
        for user in &touched.users {
            if let Ok(user) = <&UserId>::try_from(user.as_str()) {
                state.touch_user(user, lsn);
            }
        }
        for room in &touched.rooms {
            state.touch_room(*room, Mark { lsn, ephemeral: 0 });
        }
        drop(state);
        for user in &touched.device_lists {
            self.touch_neighbours(user, Mark { lsn, ephemeral: 0 });
        }
    }

    /// Wakes those whom typing or presence concerns.
    pub fn changed(&self, change: Change<'_>, position: Position) {
        let mark = Mark { lsn: Lsn::ZERO, ephemeral: position };
        self.state().last.ephemeral = position;
        match change {
            Change::Typing(room) => {
                let found = self.source.view().and_then(|view| events::room_nid(&view, room.as_str()));
                if let Ok(Some(room)) = found {
                    self.state().touch_room(room, mark);
                }
            }
            Change::Presence(user) => self.touch_neighbours(user.as_str(), mark),
        }
    }

    /// Wakes a user and all who share a room with them.
    fn touch_neighbours(&self, user: &str, mark: Mark) {
        let rooms = self.source.view().and_then(|view| joined(&view, user));
        match rooms {
            Ok(rooms) => {
                let state = self.state();
                for room in rooms {
                    state.touch_room(room, mark);
                }
                if let Ok(user) = <&UserId>::try_from(user)
                    && let Some(active) = state.users.get(user)
                {
                    active.raise(mark);
                }
            }
            Err(error) => tracing::error!(%error, "those who share a room with a user could not be woken"),
        }
    }

    /// Forgets users who have not synced for long. To be called now and then.
    pub fn forget_idle(&self) {
        let mut state = self.state();
        let idle = |active: &Active| active.used.elapsed() > FORGET_AFTER && active.mark.receiver_count() == 0;
        let gone: Vec<_> = state.users.iter().filter(|(_, a)| idle(a)).map(|(user, _)| user.clone()).collect();
        for user in gone {
            state.forget(&user);
        }
    }

    /// How many syncs wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.state().users.values().map(|active| active.mark.receiver_count()).sum()
    }
}

fn joined(view: &View, user: &str) -> Result<Vec<Nid>, StoreError> {
    membership::rooms_of(view, user, Membership::Join).map(|room| Ok(room?.0)).collect()
}

/// The rooms that a user has come into since a record, and those that they have left: true and false.
fn changes(view: &View, user: &str, since: Lsn) -> Result<Vec<(Nid, bool)>, StoreError> {
    if since == Lsn::ZERO {
        return Ok(joined(view, user)?.into_iter().map(|room| (room, true)).collect());
    }
    let changes = membership::changes_since(view, user, since);
    changes.map(|change| change.map(|(_, room, change)| (room, change.to == Some(Membership::Join)))).collect()
}

impl Active {
    fn raise(&self, mark: Mark) {
        self.mark.send_if_modified(|last| {
            let next = Mark { lsn: last.lsn.max(mark.lsn), ephemeral: last.ephemeral.max(mark.ephemeral) };
            std::mem::replace(last, next) != next
        });
    }
}

fn leave(rooms: &mut HashMap<Nid, HashSet<OwnedUserId>>, room: Nid, user: &UserId) {
    if let Some(users) = rooms.get_mut(&room) {
        users.remove(user);
        if users.is_empty() {
            rooms.remove(&room);
        }
    }
}

impl State {
    fn known(&mut self, user: &UserId) -> Option<Watch> {
        let active = self.users.get_mut(user).filter(|active| !active.stale)?;
        active.used = Instant::now();
        Some(Watch { receiver: active.mark.subscribe(), from: active.from })
    }

    /// From here on nothing that touches the user is missed; how their rooms changed since a record is still to be found
    /// out.
    fn begin(&mut self, user: &UserId) -> Lsn {
        let from = Mark { lsn: Lsn::MAX, ephemeral: Position::MAX };
        let active = self.users.entry(user.to_owned()).or_insert_with(|| Active {
            mark: watch::channel(Mark::default()).0,
            from,
            rooms: HashSet::new(),
            rooms_at: Lsn::ZERO,
            stale: true,
            used: Instant::now(),
        });
        active.stale = false;
        active.from = from;
        active.rooms_at
    }

    fn fill(&mut self, user: &UserId, lsn: Lsn, changes: Vec<(Nid, bool)>) -> Watch {
        // What was touched between the view and now may have missed rooms that were not known yet.
        let from = Mark { lsn: lsn.max(self.last.lsn), ephemeral: self.last.ephemeral };
        let Some(active) = self.users.get_mut(user) else {
            // Forgotten in between: a wait that is never quiet.
            return Watch { receiver: watch::channel(Mark::default()).1, from: Mark { lsn: Lsn::MAX, ephemeral: 0 } };
        };
        active.from = from;
        let watch = Watch { receiver: active.mark.subscribe(), from: active.from };
        if active.rooms_at >= lsn {
            // Another sync of theirs has looked later, and come first.
            return watch;
        }
        active.rooms_at = lsn;
        for (room, is_in) in changes {
            if is_in {
                active.rooms.insert(room);
                self.rooms.entry(room).or_default().insert(user.to_owned());
            } else {
                active.rooms.remove(&room);
                leave(&mut self.rooms, room, user);
            }
        }
        watch
    }

    fn forget(&mut self, user: &UserId) {
        if let Some(active) = self.users.remove(user) {
            for room in active.rooms {
                leave(&mut self.rooms, room, user);
            }
        }
    }

    fn touch_user(&mut self, user: &UserId, lsn: Lsn) {
        if let Some(active) = self.users.get_mut(user) {
            active.stale = true;
            active.raise(Mark { lsn, ephemeral: 0 });
        }
    }

    fn touch_everybody(&mut self, lsn: Lsn) {
        for active in self.users.values_mut() {
            active.stale = true;
            active.raise(Mark { lsn, ephemeral: 0 });
        }
    }

    fn touch_room(&self, room: Nid, mark: Mark) {
        for user in self.rooms.get(&room).into_iter().flatten() {
            if let Some(active) = self.users.get(user) {
                active.raise(mark);
            }
        }
    }
}
