//! Everfold, a Matrix homeserver whose only source of truth is an append-only log.
//!
//! `ARCHITECTURE.md` draws the whole picture. Modules stand in the order of their knowledge: one may use those above.

pub mod clock;
pub mod commands;
pub mod ephemeral;
pub mod fold;
pub mod log;
pub mod sync;
