//! Who did what, when: one row a record, by position, by user and by room. Void records are among them.
//!
//! Tables: 1 `lsn -> Entry`; 2 `user | lsn -> ()`; 3 `room | lsn -> ()`.

use std::collections::BTreeSet;

use schemas::{Fact, Lsn, Origin, RecordId, admission::Void};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, row},
};

const ENTRIES: Table = Table { model: Model::Audit, prefix: 1 };
const BY_USER: Table = Table { model: Model::Audit, prefix: 2 };
const BY_ROOM: Table = Table { model: Model::Audit, prefix: 3 };

/// The fold itself is [`fold_record`], which the projector calls once for each record, void or not.
pub const PROJECTION: Projection = Projection { model: Model::Audit, version: 1, reads: &[], fold: nothing };

fn nothing(_: &At<'_>, _: &Fact, _: &mut Batch<'_>) -> Result<(), FoldError> {
    Ok(())
}

/// A record in the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Log time, milliseconds since the Unix epoch.
    pub log_time_ms: u64,
    /// The record's id.
    pub id: RecordId,
    /// Who.
    pub origin: Origin,
    /// What: numbers of the facts, each once.
    pub facts: Vec<u16>,
    /// Why it had no effect, if it had none.
    pub void: Option<Void>,
}

pub(crate) fn fold_record(at: &At<'_>, facts: &[Fact], void: Option<Void>, batch: &mut Batch<'_>) {
    let numbers: BTreeSet<u16> = facts.iter().map(Fact::number).collect();
    let entry = Entry {
        log_time_ms: at.log_time.ms,
        id: at.header.id,
        origin: at.header.origin.clone(),
        facts: numbers.into_iter().collect(),
        void,
    };
    batch.put(ENTRIES, at.lsn.to_bytes(), &entry);
    if let Some(user) = user(&at.header.origin) {
        batch.put(BY_USER, KeyBuf::new().str(user).lsn(at.lsn), &());
    }
    let rooms: BTreeSet<&str> = facts.iter().filter_map(room).collect();
    for room in rooms {
        batch.put(BY_ROOM, KeyBuf::new().str(room).lsn(at.lsn), &());
    }
}

/// The user who caused a record, if one did.
#[must_use]
pub fn user(origin: &Origin) -> Option<&str> {
    match origin {
        Origin::User { user, .. } | Origin::Admin { user } => Some(user),
        _ => None,
    }
}

/// The room that a fact says something about.
#[must_use]
pub fn room(fact: &Fact) -> Option<&str> {
    match fact {
        Fact::EventLearned(f) => Some(&f.room),
        Fact::RoomForgotten(f) => Some(&f.room),
        Fact::RoomBlocked(f) => Some(&f.room),
        Fact::AccountDataSet(f) => f.room.as_deref(),
        Fact::TagSet(f) => Some(&f.room),
        Fact::ReceiptSet(f) => Some(&f.room),
        Fact::AliasSet(f) => Some(&f.room),
        Fact::RoomPublished(f) => Some(&f.room),
        _ => None,
    }
}

/// The record at a position.
///
/// # Errors
/// When the store fails.
pub fn entry(read: &dyn Read, lsn: Lsn) -> Result<Option<Entry>, StoreError> {
    row(read, ENTRIES, lsn.to_bytes())
}

/// Positions of the records that a user caused, from one on.
pub fn of_user<'a>(read: &'a dyn Read, user: &str, from: Lsn) -> impl Iterator<Item = Result<Lsn, StoreError>> + 'a {
    positions(read, BY_USER, user, from)
}

/// Positions of the records that say something about a room, from one on.
pub fn of_room<'a>(read: &'a dyn Read, room: &str, from: Lsn) -> impl Iterator<Item = Result<Lsn, StoreError>> + 'a {
    positions(read, BY_ROOM, room, from)
}

fn positions<'a>(
    read: &'a dyn Read,
    table: Table,
    name: &str,
    from: Lsn,
) -> impl Iterator<Item = Result<Lsn, StoreError>> + 'a {
    let prefix = Vec::from(KeyBuf::new().str(name));
    let start = prefix.len();
    read.scan(table, Range::prefix_from(&prefix, &from.to_bytes())).map(move |row| {
        let (key, _) = row?;
        let lsn = key[start..].try_into().map(Lsn::from_bytes);
        lsn.map_err(|_| crate::read::malformed_key(table))
    })
}
