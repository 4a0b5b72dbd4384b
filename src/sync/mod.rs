//! /sync.
mod token;
pub use token::{BadToken, SyncToken};
