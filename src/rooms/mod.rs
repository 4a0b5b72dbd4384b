//! What a Matrix room is: pure rules over events and state, mostly ruma's. No I/O, no clock, no chance.
//!
//! | Module | The questions it answers |
//! |---|---|
//! | `versions` | Which room versions are there, and what are their rules? |
//! | `build`, `create` | What does an event of this server look like; with which does a room begin? |
//! | `check`, `intact` | Is this what another server signed; is it still? |
//! | `auth` | Which state allows an event, and does it? |
//! | `resolve` | What is the state after a fork; how do two states differ? |
//! | `power`, `join_rules`, `visibility`, `redaction`, `invite_state` | Who may do what, join, see, redact; what does an invite show? |
//!
//! A state is asked through a [`State`]: a closure from type and state key to the event there.

pub mod auth;
pub mod build;
pub mod check;
pub mod create;
pub mod intact;
pub mod invite_state;
pub mod join_rules;
pub mod power;
pub mod redaction;
pub mod resolve;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod versions;
pub mod visibility;

use std::cell::RefCell;

use ruma::{
    UserId,
    events::{StateEventType, room::member::MembershipState},
    state_res::events::RoomMemberEvent,
};

pub use auth::Forbidden;
pub use build::{BuildError, Builder, Built, Position, Prototype};
pub use power::Power;
pub use projections::pdu::{Halves, Pdu, PduError, client, learn, split};
pub use resolve::StateMap;

/// No event has more bytes, as canonical JSON with its signatures (client-server API, "Size limits").
pub const MAX_PDU_BYTES: usize = 65_536;

/// A room's state, as whoever decides sees it.
pub trait State: Fn(&StateEventType, &str) -> Option<Pdu> {}

impl<F: Fn(&StateEventType, &str) -> Option<Pdu>> State for F {}

/// A user's membership in a state: `leave` where there is none.
#[must_use]
pub fn membership(user: &UserId, state: impl State) -> MembershipState {
    let event = state(&StateEventType::RoomMember, user.as_str()).map(RoomMemberEvent::new);
    event.and_then(|event| event.membership().ok()).unwrap_or(MembershipState::Leave)
}

/// Decides over a state whose look-ups can fail: the first failure is the result.
///
/// # Errors
/// What a look-up failed with.
pub fn over<T, E>(
    read: impl Fn(&StateEventType, &str) -> Result<Option<Pdu>, E>,
    decide: impl FnOnce(&dyn Fn(&StateEventType, &str) -> Option<Pdu>) -> T,
) -> Result<T, E> {
    let failure = RefCell::new(None);
    let state = |event_type: &StateEventType, state_key: &str| {
        read(event_type, state_key).unwrap_or_else(|error| {
            failure.borrow_mut().get_or_insert(error);
            None
        })
    };
    let decided = decide(&state);
    match failure.into_inner() {
        None => Ok(decided),
        Some(error) => Err(error),
    }
}
