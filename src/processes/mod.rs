//! One server in several processes on one machine: a projector, which folds, and others beside it, which serve.
//!
//! ```text
//!   everfold serve --no-projector          everfold project
//!   ┌────────────────────────┐  records   ┌──────────────────────┐
//!   │ commands ── RemoteLog ─┼───────────▶│ log                  │
//!   │                        │ receipts,  │  │ fold              │
//!   │ Progress ◀── follower ◀┼────────────┤  ▼                   │
//!   │                │       │ positions  │ read models          │
//!   │ views ◀─────── ▼       │            │  │                   │
//!   │  secondary instances ◀─┼─ ─ ─ ─ ─ ─ ┼──┘ (files)           │
//!   └────────────────────────┘            └──────────────────────┘
//! ```
//!
//! [`Hub`] is the projector's end of a Unix socket in the data folder, [`Link`] the other. What goes over it is in
//! `protocol`: records to append, and what came of them; how far the fold has come, and what that touched; what the
//! processes tell each other. A position comes after the commit, and is published once views show it: so a process reads
//! what it wrote, and what wakes somebody can be seen.

mod follower;
mod frame;
mod hub;
mod link;
mod protocol;
mod relayed;
mod remote_log;
mod socket;

#[cfg(test)]
mod tests;

pub use hub::{Hub, Projecting};
pub use link::{Link, LinkError, Standing, look};
pub use relayed::Relayed;
pub use remote_log::RemoteLog;
