//! What models, decisions and responses read through: one trait over snapshots, live tables and the fold's own batch.

use schemas::codec;
use serde::de::DeserializeOwned;

use crate::{Model, StoreError, keys::after_prefix};

/// A table of a model: all its keys begin with one byte, never reused within the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    /// Whose it is.
    pub model: Model,
    /// The byte.
    pub prefix: u8,
}

impl Table {
    /// The key as it stands in the model's column family.
    #[must_use]
    pub fn key(self, key: &[u8]) -> Vec<u8> {
        let mut full = Vec::with_capacity(key.len() + 1);
        full.push(self.prefix);
        full.extend_from_slice(key);
        full
    }

    /// A range's bounds as they stand in the model's column family: from (inclusive), to (exclusive).
    #[must_use]
    pub fn bounds(self, range: &Range) -> (Vec<u8>, Vec<u8>) {
        let to = range.to.as_ref().map_or_else(|| vec![self.prefix + 1], |to| self.key(to));
        (self.key(&range.from), to)
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} table {}", self.model.name(), self.prefix)
    }
}

/// Keys from `from` on, before `to`, in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lowest key.
    pub from: Vec<u8>,
    /// The first key that is too high; none is the end of the table.
    pub to: Option<Vec<u8>>,
    /// From the highest key down.
    pub reverse: bool,
}

impl Range {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let from = prefix.into();
        let to = if from.is_empty() { None } else { after_prefix(&from) };
        Self { to, from, reverse: false }
    }

    /// Keys that begin with `prefix`, from `prefix ‖ from` on (inclusive).
    #[must_use]
    pub fn prefix_from(prefix: &[u8], from: &[u8]) -> Self {
        Self { from: [prefix, from].concat(), to: after_prefix(prefix), reverse: false }
    }

    /// Keys that begin with `prefix`, before `prefix ‖ to` (exclusive).
    #[must_use]
    pub fn prefix_until(prefix: &[u8], to: &[u8]) -> Self {
        Self { from: prefix.to_vec(), to: Some([prefix, to].concat()), reverse: false }
    }

    /// The same keys from the highest down.
    #[must_use]
    pub fn rev(mut self) -> Self {
        self.reverse = true;
        self
    }
}

/// A key without its table's byte, and a value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Rows, one after another; an error ends them.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<Row, StoreError>> + 'a>;

/// Something with tables in it.
pub trait Read {
    /// The value at a key.
    ///
    /// # Errors
    /// When the store fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The rows of a range.
    fn scan(&self, table: Table, range: Range) -> Rows<'_>;
}

/// Reads and decodes a row.
///
/// # Errors
/// When the store fails or the row is malformed.
pub fn row<T: DeserializeOwned>(read: &dyn Read, table: Table, key: impl AsRef<[u8]>) -> Result<Option<T>, StoreError> {
    read.get(table, key.as_ref())?.map(|bytes| decode(table, &bytes)).transpose()
}

/// Reads and decodes the rows of a range.
pub fn rows<'a, T: DeserializeOwned>(
    read: &'a dyn Read,
    table: Table,
    range: Range,
) -> impl Iterator<Item = Result<(Vec<u8>, T), StoreError>> + 'a {
    read.scan(table, range).map(move |row| {
        let (key, value) = row?;
        Ok((key, decode(table, &value)?))
    })
}

/// Decodes a row's value.
///
/// # Errors
/// When it is malformed.
pub fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    codec::decode(bytes).map_err(|source| StoreError::Row { table: table.to_string(), source })
}

/// The error for a key that its model did not write.
#[must_use]
pub fn malformed_key(table: Table) -> StoreError {
    StoreError::Row { table: table.to_string(), source: schemas::DecodeError::Malformed("its key".into()) }
}
