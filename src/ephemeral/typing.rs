use std::collections::{BTreeMap, HashMap};

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use super::Position;

/// Nobody types longer than this without saying so again.
pub(super) const LONGEST_MS: u64 = 120_000;

#[derive(Default)]
pub(super) struct Typing {
    rooms: HashMap<OwnedRoomId, Room>,
}

#[derive(Default)]
struct Room {
    changed: Position,
    until: BTreeMap<OwnedUserId, u64>,
}

impl Typing {
    /// Says whether others see a difference.
    pub(super) fn set(&mut self, room: &RoomId, user: &UserId, until: Option<u64>) -> bool {
        match until {
            Some(until) => {
                let room = self.rooms.entry(room.to_owned()).or_default();
                room.until.insert(user.to_owned(), until).is_none()
            }
            None => self.rooms.get_mut(room).is_some_and(|room| room.until.remove(user).is_some()),
        }
    }

    pub(super) fn mark(&mut self, room: &RoomId, position: Position) {
        if let Some(room) = self.rooms.get_mut(room) {
            room.changed = position;
        }
    }

    pub(super) fn since(&self, room: &RoomId, since: Position) -> Option<Vec<OwnedUserId>> {
        let room = self.rooms.get(room).filter(|room| room.changed > since)?;
        Some(room.until.keys().cloned().collect())
    }

    pub(super) fn rooms_since(&self, since: Position) -> Vec<OwnedRoomId> {
        self.rooms.iter().filter(|(_, room)| room.changed > since).map(|(id, _)| id.clone()).collect()
    }

    /// Rooms where somebody's time is over. Rooms where nobody has typed for long are forgotten later, so that those
    /// who wait learn of the end.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<OwnedRoomId> {
        let mut changed = Vec::new();
        for (id, room) in &mut self.rooms {
            let before = room.until.len();
            room.until.retain(|_, until| *until > now_ms);
            if room.until.len() < before {
                changed.push(id.clone());
            }
        }
        changed.sort();
        changed
    }
}
