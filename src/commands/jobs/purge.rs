//! Taking a detached room, or the past of one, out of the read models: what each step's record says, and how much that
//! removes.

use projections::{
    FoldError, View,
    models::events,
    purge::{ROOM_MODELS, measure},
};
use ruma::RoomId;
use schemas::{
    Draft, Fact,
    facts::{EventsForgotten, HistoryWithdrawn, RoomPurged},
};
use serde::{Deserialize, Serialize};

use super::Error;

/// So many events go with one step.
pub(super) const EVENTS: usize = 100;
/// So many keys of a model.
const KEYS: u32 = 1_000;

/// What has been removed so far, and from which models.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Removal {
    /// Keys.
    pub(super) keys: u64,
    /// Bytes of keys and values.
    pub(super) bytes: u64,
    /// How many models have forgotten the room.
    models: usize,
}

impl Removal {
    /// Adds what these facts remove; says how many keys.
    pub(super) fn note(&mut self, view: &View, facts: &[Fact]) -> Result<u64, Error> {
        let removed = measure(view, facts).map_err(|error| match error {
            FoldError::Store(error) => Error::from(error),
            error => Error::Internal(error.to_string()),
        })?;
        self.keys += removed.keys;
        self.bytes += removed.bytes;
        Ok(removed.keys)
    }

    /// The next step of taking a room away; without facts when nothing is left.
    pub(super) fn next(&mut self, view: &View, room: &RoomId) -> Result<Draft, Error> {
        let Some(nid) = events::detached(view, room.as_str())? else { return Ok(Draft::default()) };
        let mut ids = Vec::new();
        for event in events::of_room(view, nid).take(EVENTS) {
            ids.extend(events::head(view, event?)?.map(|head| head.id));
        }
        if ids.is_empty() {
            return Ok(Draft { facts: self.of_models(view, room)?, ..Draft::default() });
        }
        let facts = forgetting(room, ids, Vec::new());
        self.note(view, &facts)?;
        Ok(Draft { facts, ..Draft::default() })
    }

    /// As many models as one step allows; the last in a step may have more.
    fn of_models(&mut self, view: &View, room: &RoomId) -> Result<Vec<Fact>, Error> {
        let (mut facts, mut keys) = (Vec::new(), 0);
        while let Some(model) = ROOM_MODELS.get(self.models).filter(|_| keys < u64::from(KEYS)) {
            let purged = |last| RoomPurged { room: room.to_string(), model: model.name().into(), keys: KEYS, last };
            let removed = self.note(view, &[purged(false).into()])?;
            let last = removed < u64::from(KEYS);
            facts.push(purged(last).into());
            keys += removed;
            if !last {
                break;
            }
            self.models += 1;
        }
        Ok(facts)
    }
}

/// The facts by which events are withdrawn, and forgotten or kept as outliers.
pub(super) fn forgetting(room: &RoomId, forgotten: Vec<String>, kept: Vec<String>) -> Vec<Fact> {
    let events = forgotten.iter().chain(&kept).cloned().collect();
    let room = room.to_string();
    vec![HistoryWithdrawn { room: room.clone(), events }.into(), EventsForgotten { room, forgotten, kept }.into()]
}
