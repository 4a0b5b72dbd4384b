//! Signing keys.

mod own;

pub use own::{KeyError, OwnKey};
