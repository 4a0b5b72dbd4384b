//! A number over all rows that two folds of the same log agree on, whatever the batch sizes, restarts and machine.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::{Model, Projection, StoreError, View, models, read::Range, read::Read, read::Table};

/// The sum modulo 2^256 of SHA-256(table ‖ key ‖ value) over a model's rows: independent of order and batching.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum([u64; 4]);

impl Sum {
    /// Adds a row.
    pub fn add(&mut self, table: u8, key: &[u8], value: &[u8]) {
        let mut hash = Sha256::new();
        hash.update([table]);
        hash.update((key.len() as u64).to_le_bytes());
        hash.update(key);
        hash.update(value);
        let bytes = hash.finalize();
        let mut carry = false;
        for (limb, chunk) in self.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
            let (sum, over) = limb.overflowing_add(u64::from_le_bytes(*chunk));
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over || over_again;
        }
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|limb| write!(f, "{limb:016x}"))
    }
}

/// One model's digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The model.
    pub model: &'static str,
    /// Its version.
    pub version: u16,
    /// Logical rows.
    pub rows: u64,
    /// Their sum.
    pub sum: Sum,
}

/// The digest of one model.
///
/// # Errors
/// When the store fails.
pub fn of(view: &View, projection: &Projection) -> Result<Digest, StoreError> {
    let mut digest =
        Digest { model: projection.model.name(), version: projection.version, rows: 0, sum: Sum::default() };
    for prefix in 0..u8::MAX {
        for row in view.scan(Table { model: projection.model, prefix }, Range::prefix([])) {
            let (key, value) = row?;
            digest.sum.add(prefix, &key, &value);
            digest.rows += 1;
        }
    }
    Ok(digest)
}

/// How many logical rows a model has.
///
/// # Errors
/// When the store fails.
pub fn rows(view: &View, model: Model) -> Result<u64, StoreError> {
    let mut rows = 0;
    for prefix in 0..u8::MAX {
        for row in view.scan(Table { model, prefix }, Range::prefix([])) {
            row?;
            rows += 1;
        }
    }
    Ok(rows)
}

/// The digests of all models, in fold order.
///
/// # Errors
/// When the store fails.
pub fn all(view: &View) -> Result<Vec<Digest>, StoreError> {
    models::ALL.iter().map(|projection| of(view, projection)).collect()
}
