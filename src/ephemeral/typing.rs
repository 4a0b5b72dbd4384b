use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::Position;
use crate::nodes::{Message, Node};

/// Nobody types longer than this without saying so again.
pub(super) const LONGEST_MS: u64 = 120_000;
/// Where there are other nodes, they are told so often of who goes on typing, …
const AGAIN: Duration = Duration::from_secs(60);
/// … and take for lost that somebody stopped, if nobody has told for this time that they go on.
const LOST: Duration = Duration::from_secs(150);

pub(super) struct Typing {
    own: Node,
    rooms: HashMap<OwnedRoomId, Room>,
    /// Until when those type who said so here, in milliseconds since the Unix epoch.
    here: HashMap<OwnedRoomId, HashMap<OwnedUserId, u64>>,
}

#[derive(Default)]
struct Room {
    changed: Position,
    users: BTreeMap<OwnedUserId, Typist>,
}

struct Typist {
    /// The node that ends it: where they said so last.
    node: Node,
    /// When this was told last.
    at: Duration,
}

impl Typing {
    pub(super) fn new(own: Node) -> Self {
        Self { own, rooms: HashMap::new(), here: HashMap::new() }
    }

    /// Takes note of what somebody says here. Says whether it is to be told.
    pub(super) fn set(&mut self, room: &RoomId, user: &UserId, until: Option<u64>) -> bool {
        let typist = self.rooms.get(room).and_then(|room| room.users.get(user));
        match until {
            Some(until) => {
                self.here.entry(room.to_owned()).or_default().insert(user.to_owned(), until);
                typist.is_none_or(|typist| typist.node != self.own)
            }
            None => self.here.get_mut(room).is_some_and(|users| users.remove(user).is_some()) || typist.is_some(),
        }
    }

    /// Takes note of what was told. Says whether others see a difference.
    pub(super) fn hear(
        &mut self,
        at: (Position, Duration),
        node: &Node,
        room: &RoomId,
        user: &UserId,
        types: bool,
    ) -> bool {
        let (position, at) = at;
        let differs = if types {
            let room = self.rooms.entry(room.to_owned()).or_default();
            room.users.insert(user.to_owned(), Typist { node: node.clone(), at }).is_none()
        } else {
            self.rooms.get_mut(room).is_some_and(|room| room.users.remove(user).is_some())
        };
        if let Some(room) = self.rooms.get_mut(room).filter(|_| differs) {
            room.changed = position;
        }
        differs
    }

    /// Takes note that a node is gone. Gives the rooms where others see a difference.
    pub(super) fn end(&mut self, position: Position, node: &Node) -> Vec<OwnedRoomId> {
        let mut changed = Vec::new();
        for (id, room) in &mut self.rooms {
            let before = room.users.len();
            room.users.retain(|_, typist| typist.node != *node);
            if room.users.len() < before {
                room.changed = position;
                changed.push(id.clone());
            }
        }
        changed
    }

    /// What is to be told as time goes by: who has stopped and, to `others`, who goes on. All of it again where a node asks
    /// `who_is_there`.
    pub(super) fn due(&mut self, now_ms: u64, at: Duration, others: bool, who_is_there: bool) -> Vec<Message> {
        let mut messages = Vec::new();
        self.here.retain(|id, users| {
            users.retain(|user, until| {
                let goes_on = *until > now_ms;
                if !goes_on && self.rooms.get(id).is_none_or(|room| !room.users.contains_key(user)) {
                    // Others may have heard what this node has not.
                    messages.push(Message::Typing { room: id.clone(), user: user.clone(), types: false });
                }
                goes_on
            });
            !users.is_empty()
        });
        for (id, room) in &self.rooms {
            for (user, typist) in &room.users {
                let age = at.saturating_sub(typist.at);
                let is_own = typist.node == self.own;
                let types =
                    if is_own { self.here.get(id).is_some_and(|users| users.contains_key(user)) } else { age <= LOST };
                let again = is_own && (who_is_there || others && age >= AGAIN);
                if !types || again {
                    messages.push(Message::Typing { room: id.clone(), user: user.clone(), types });
                }
            }
        }
        messages
    }

    /// What has changed has changed by a position at the latest.
    pub(super) fn rewind(&mut self, position: Position) {
        for room in self.rooms.values_mut() {
            room.changed = room.changed.min(position);
        }
    }

    pub(super) fn since(&self, room: &RoomId, since: Position) -> Option<Vec<OwnedUserId>> {
        let room = self.rooms.get(room).filter(|room| room.changed > since)?;
        Some(room.users.keys().cloned().collect())
    }

    pub(super) fn rooms_since(&self, since: Position) -> Vec<OwnedRoomId> {
        self.rooms.iter().filter(|(_, room)| room.changed > since).map(|(id, _)| id.clone()).collect()
    }
}
