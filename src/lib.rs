//! Everfold, a Matrix homeserver whose only source of truth is an append-only log.
//!
//! `ARCHITECTURE.md` draws the whole picture. Modules stand in the order of their knowledge: a group may use those
//! above it, which `tests/tidy.rs` checks.

pub mod clock;
pub mod config;
mod latest;
pub mod metrics;
pub mod telemetry;

pub mod log;

pub mod nodes;

pub mod keys;
pub mod rooms;

pub mod fold;

pub mod snapshot;

pub mod processes;

pub mod commands;

pub mod ephemeral;

pub mod reading;

pub mod sync;

pub mod http;

pub mod server;

pub mod cli;
