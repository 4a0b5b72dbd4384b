//! What Everfold writes on its log.
//!
//! A [`Record`] is one decision: a [`Header`] that says who decided, when and on what it rested, and a list of
//! facts that say what was decided. Facts are numbered and versioned ([`facts`]); numbers are never reused, a changed
//! shape is a new version with an upcast, and golden bytes of every version stay in the tree.
//!
//! To read a log in another language: `json/` has the JSON Schema of every fact as dumps show it, `fixtures/` golden bytes
//! and vectors, and `tests/admission.py` tells void records from applied ones in thirty lines.
//!
//! This crate knows neither Matrix rules nor any store: it is what an analyst needs to read a log.

pub mod admission;
mod chain;
pub mod codec;
mod error;
pub mod facts;
mod guard;
mod json;
mod log_time;
mod lsn;
mod part;
mod record;

pub use chain::Chain;
pub use error::DecodeError;
pub use facts::Fact;
pub use guard::{Expect, Key, Read, Tag};
pub use json::{Blob, Json};
pub use log_time::LogTime;
pub use lsn::{Lsn, Nid};
pub use part::Part;
pub use record::{After, CopyId, Draft, Header, MAX_RECORD_BYTES, Origin, RawFact, Record, RecordId};

/// The record format that this build writes; `Genesis` and `FormatBarrier` name it.
pub const FORMAT: u8 = 1;
