//! The record format, held against files that never change.
//!
//! - `fixtures/<fact>[-<case>].v<version>.bin` are the bytes of facts as they were once written, `.json` beside them what
//!   dumps show of them. Every version that was ever written must decode to the same for ever.
//! - `fixtures/record-<origin>.bin` and `.json` are the same for whole records.
//! - `fixtures/admission.json`, `log_time.json` and `chain.json` are vectors for those who write a reader of their own;
//!   `admission.py` is one.
//! - `json/` holds the JSON Schemas of what dumps show.
//!
//! A new fact, or a new version of one, gets a sample in `samples.rs`; then `UPDATE_FIXTURES=1 cargo test -p
//! everfold-schemas` writes what is missing. It never changes a file that is there: a test that fails because of one
//! has found a change of the format, which needs a new version. `UPDATE_SCHEMAS=1` writes the JSON Schemas anew.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod admission;
mod golden;
mod json_schemas;
mod made_up;
mod properties;
mod samples;
mod vectors;

use std::path::PathBuf;

/// A file of this crate.
fn file(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of this crate.
fn text(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `SomeFact` as `some_fact`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
