//! What is not history: typing and presence. It lives in memory, and is neither on the log nor replayed. Nodes tell each other
//! of it, and each takes over what it hears, in the order of the channel, its own messages too: positions are the
//! channel's. A token of another channel gets the whole of what is current.

mod presence;
mod tellers;
mod typing;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, presence::PresenceState};

use crate::{
    clock::Clock,
    nodes::{self, Channel, Ending, Members, Message, Node, Told},
};

pub use crate::nodes::Position;
pub use presence::Presence;

/// What a client has heard from another node is waited for so long.
const AHEAD: Duration = Duration::from_secs(1);
/// One message tells of so many users at most.
const TOGETHER: usize = 100;

/// What changed, for those who wait.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// Who types in a room.
    Typing(&'a RoomId),
    /// A user's presence.
    Presence(&'a UserId),
}

type Listener = Box<dyn Fn(Change<'_>, Position) + Send + Sync>;

/// Typing and presence, as far as this node has heard.
pub struct Ephemeral {
    clock: Arc<dyn Clock>,
    channel: Arc<dyn Channel>,
    members: Arc<Members>,
    /// From here on this node has heard.
    from: AtomicU64,
    /// The last that it has heard.
    last: AtomicU64,
    typing: Mutex<typing::Typing>,
    presence: Mutex<presence::Presences>,
    tellers: Mutex<tellers::Tellers>,
    /// A node has asked who is there.
    asked: AtomicBool,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ephemeral {
    /// Begins to hear.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, channel: Arc<dyn Channel>, members: Arc<Members>) -> Arc<Self> {
        let own = members.own();
        let this = Arc::new(Self {
            from: AtomicU64::new(0),
            last: AtomicU64::new(0),
            typing: Mutex::new(typing::Typing::new(own.clone())),
            presence: Mutex::new(presence::Presences::new(own.clone())),
            tellers: Mutex::default(),
            asked: AtomicBool::new(false),
            listeners: RwLock::new(Vec::new()),
            clock,
            channel,
            members,
        });
        let hearing = Arc::downgrade(&this);
        this.channel.listen(Box::new(move |position, told| {
            if let Some(this) = hearing.upgrade() {
                this.hear(position, told);
            }
        }));
        // What was told before it listened is missed.
        this.from.fetch_max(this.channel.position(), Ordering::SeqCst);
        this
    }

    /// The name of the order in which it counts.
    #[must_use]
    pub fn channel(&self) -> &str {
        self.channel.name()
    }

    /// Where it is now.
    #[must_use]
    pub fn position(&self) -> Position {
        self.channel.position()
    }

    /// After which position there is news for who has heard up to a position of some channel: zero, so that they get all
    /// that is current, if that says nothing here. Waits a moment for what this node has yet to hear.
    pub async fn news_after(&self, channel: &str, position: Position) -> Position {
        if channel != self.channel.name() || position < self.from.load(Ordering::SeqCst) {
            return 0;
        }
        if position > self.position() {
            let heard = tokio::time::timeout(AHEAD, self.channel.caught_up()).await;
            if matches!(heard, Ok(Ok(()))) && position > self.position() {
                // Nobody can have heard that: the order has begun anew.
                return 0;
            }
        }
        position
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
        lock(&self.typing)
    }

    fn presence(&self) -> MutexGuard<'_, presence::Presences> {
        lock(&self.presence)
    }

    /// Takes over what was told.
    fn hear(&self, position: Position, told: &Told) {
        if position <= self.last.swap(position, Ordering::SeqCst) {
            // The order has begun anew, and older positions mean nothing any more.
            self.from.store(position, Ordering::SeqCst);
            self.typing().rewind(position);
            self.presence().rewind(position);
        }
        let (from, is_own) = (&told.from, told.from == *self.members.own());
        match &told.message {
            Message::Typing { room, user, types } => {
                if *types && !is_own {
                    lock(&self.tellers).told(from, Ending::Typing);
                }
                let differs = self.typing().hear((position, self.clock.elapsed()), from, room, user, *types);
                if differs {
                    self.changed(Change::Typing(room), position);
                }
            }
            Message::Presence(users) => {
                if !is_own {
                    lock(&self.tellers).told(from, Ending::Presence);
                }
                for presence in users {
                    let differs = self.presence().hear(position, from, presence);
                    if differs {
                        self.changed(Change::Presence(&presence.user), position);
                    }
                }
            }
            Message::Leaving => self.end(position, from, Ending::Typing),
            Message::Ended { node, what } => self.end(position, node, *what),
            Message::WhoIsThere if !is_own => self.asked.store(true, Ordering::SeqCst),
            Message::WhoIsThere | Message::Alive { .. } | Message::Authentication(_) => {}
        }
    }

    fn end(&self, position: Position, node: &Node, what: Ending) {
        lock(&self.tellers).ended(node, what);
        match what {
            Ending::Typing => {
                let rooms = self.typing().end(position, node);
                for room in rooms {
                    self.changed(Change::Typing(&room), position);
                }
            }
            Ending::Presence => {
                let users = self.presence().end(position, node);
                for user in users {
                    self.changed(Change::Presence(&user), position);
                }
            }
        }
    }

    /// Tells what time changes: ends what was not renewed or what a node that is gone left, and answers who asks who is
    /// there. To be called about once a second.
    pub fn expire(&self) {
        let (now_ms, at) = (self.clock.now_ms(), self.clock.elapsed());
        let alive = self.members.others_alive();
        let asked = self.asked.swap(false, Ordering::SeqCst);
        // Nothing is told under a lock: a node alone hears at once.
        let typing = self.typing().due(now_ms, at, !alive.is_empty(), asked);
        let ended = match self.members.can_judge() {
            true => lock(&self.tellers).due(self.members.own(), &alive, at),
            false => Vec::new(),
        };
        let presence = {
            let mut presence = self.presence();
            if asked {
                presence.ask();
            }
            presence.due(now_ms, !alive.is_empty())
        };
        let presence = presence.chunks(TOGETHER).map(|together| Message::Presence(together.to_vec()));
        for message in typing.into_iter().chain(ended).chain(presence) {
            self.channel.tell(message);
        }
    }

    /// A user types in a room for so many milliseconds, at most two minutes; zero is: no more.
    pub fn set_typing(&self, room: &RoomId, user: &UserId, for_ms: u64) {
        let until = match for_ms {
            0 => None,
            ms => Some(self.clock.now_ms().saturating_add(ms.min(typing::LONGEST_MS))),
        };
        let is_news = self.typing().set(room, user, until);
        if is_news {
            let (room, user) = (room.to_owned(), user.to_owned());
            self.channel.tell(Message::Typing { room, user, types: until.is_some() });
        }
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

    /// A user shows up, or says what others are to see; none keeps the message that is there.
    pub fn set_presence(&self, user: &UserId, state: PresenceState, message: Option<Option<String>>) {
        let news = self.presence().set(user, state, message, self.clock.now_ms());
        self.tell_presence(news);
    }

    fn tell_presence(&self, news: Option<nodes::Presence>) {
        if let Some(presence) = news {
            self.channel.tell(Message::Presence(vec![presence]));
        }
    }

    /// A user is there from now on, until what this returns is dropped: neither idle nor gone, however long it takes.
    pub fn present(&self, user: &UserId, state: PresenceState) -> Present<'_> {
        let news = {
            let mut presence = self.presence();
            let news = presence.set(user, state, None, self.clock.now_ms());
            presence.stay(user);
            news
        };
        self.tell_presence(news);
        Present { ephemeral: self, user: user.to_owned() }
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
