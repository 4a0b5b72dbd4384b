//! What the log means: a deterministic fold of records into tables, and the reads over them.
//!
//! [`models`] lists every model in fold order; a model's fold reads only models above it. [`Projector`] folds records
//! and commits the tables together with the [`Cursor`]; [`Reader`] gives [`View`]s, each one snapshot.

mod batch;
mod beside;
mod counted;
pub mod digest;
mod error;
pub mod keys;
mod listing;
pub mod models;
pub mod pdu;
mod position;
mod projection;
mod projector;
pub mod purge;
pub mod read;
mod store;
mod suffixes;
#[cfg(test)]
mod testing;
mod tree;
mod view;

pub use batch::{Batch, Cost, Touched};
pub use beside::Beside;
pub use error::{FoldError, StoreError};
pub use listing::Page;
pub use models::Model;
pub use pdu::{Halves, Pdu, PduError};
pub use position::{BadPosition, Position};
pub use projection::{At, Projection};
pub use projector::{Applied, Entry, Judge, Projector, dry_fold};
pub use read::{Range, Read, Row, Rows, Table};
pub use store::{Cursor, Generation, Generations, Store, StoreOptions};
pub use view::{Frozen, Reader, Source, View};
