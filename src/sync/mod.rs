//! /sync: what is new for a user since a token, and waiting for it.

mod acknowledged;
mod notifier;
mod token;
pub mod v3;
mod wait;

pub use acknowledged::Acknowledged;
pub use notifier::{Mark, Notifier, Watch};
pub use token::{BadToken, SyncToken};
pub use wait::{AHEAD, SyncError, Syncs};
