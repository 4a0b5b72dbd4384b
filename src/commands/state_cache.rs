use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use projections::{Pdu, StoreError, models::state::State};
use ruma::events::StateEventType;

/// A room's rules ask for so few events that more come from something odd: then it begins anew.
const MAX_EVENTS: usize = 1_024;

/// The state events that the rules asked for lately, as long as the room's state stays the same. A message changes no
/// state, so that the messages of a room read it once.
///
/// An event may have been redacted meanwhile; redaction keeps everything that the rules look at.
#[derive(Clone, Default)]
pub struct StateCache(Arc<Mutex<Cached>>);

#[derive(Default)]
struct Cached {
    of: Option<State>,
    events: HashMap<(StateEventType, String), Option<Pdu>>,
}

impl StateCache {
    /// The event at a place of a state.
    ///
    /// # Errors
    /// When `read` fails.
    pub(super) fn get(
        &self,
        state: &State,
        event_type: &StateEventType,
        state_key: &str,
        read: impl FnOnce() -> Result<Option<Pdu>, StoreError>,
    ) -> Result<Option<Pdu>, StoreError> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.of.as_ref() != Some(state) || cached.events.len() >= MAX_EVENTS {
            cached.of = Some(*state);
            cached.events.clear();
        }
        let place = (event_type.clone(), state_key.to_owned());
        if let Some(event) = cached.events.get(&place) {
            return Ok(event.clone());
        }
        let event = read()?;
        cached.events.insert(place, event.clone());
        Ok(event)
    }
}
