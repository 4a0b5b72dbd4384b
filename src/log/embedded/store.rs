//! The log's database: what lies in it, and how it is opened.

use std::{
    path::Path,
    sync::{PoisonError, RwLock},
};

use projections::Entry;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, ErrorKind, LogLevel, Options, WriteBatch,
    WriteOptions, checkpoint::Checkpoint,
};
use schemas::{Lsn, Record};

use super::frame::Frame;
use crate::log::{Note, ReadError, Stamp, amendments::Amendments};

/// What RocksDB keeps in memory, and so at most reads from its write-ahead log at a start.
pub(super) const WRITE_BUFFER: usize = 16 << 20;
const BLOCK_CACHE: usize = 8 << 20;

/// The end of a log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last {
    pub lsn: Lsn,
    pub note: Note,
}

/// Options for opening as the one writer.
///
/// A log cut off in its last write is the mark of a crash; anything else that doesn't match is an error, where RocksDB
/// by default would silently drop what follows. Files of the write-ahead log are never reused, so that no remains of
/// an older one can be mistaken for records.
pub(super) fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(32 << 10);
    // A look-up then reads no block of a file that doesn't hold the record, be it damaged.
    table.set_bloom_filter(10.0, false);
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE));
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_recycle_log_file_num(0);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(WRITE_BUFFER);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_block_based_table_factory(&table);
    options.set_info_logger(rocksdb::InfoLogger::new_callback_logger(LogLevel::Warn, |level, message| match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "everfold::log::rocksdb", "{message}"),
        _ => tracing::debug!(target: "everfold::log::rocksdb", "{message}"),
    }));
    options
}

/// Opens without changing anything on the disk. Not beside a writer, whose files may vanish.
pub(super) fn open_unchanged(folder: &Path) -> Result<DB, rocksdb::Error> {
    DB::open_for_read_only(&options(), folder, false)
}

/// The database, which is closed and opened again after a failed write.
pub(super) struct Slot(RwLock<Option<DB>>);

impl Slot {
    pub fn new(db: DB) -> Self {
        Self(RwLock::new(Some(db)))
    }

    /// Reads or writes it.
    pub fn with<T>(&self, work: impl FnOnce(&DB) -> Result<T, ReadError>) -> Result<T, ReadError> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(db) => work(db),
            None => Err(ReadError::Backend("it could not be opened again after a failed write".into())),
        }
    }

    /// Closes it and opens it anew; readers wait meanwhile.
    pub fn replace<T>(&self, open: impl FnOnce() -> (Option<DB>, T)) -> T {
        let mut slot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // RocksDB's lock is held until the old one is gone.
        *slot = None;
        let (db, result) = open();
        *slot = db;
        result
    }
}

/// The highest position in the database; zero if it is empty.
pub(super) fn end(db: &DB) -> Result<Lsn, rocksdb::Error> {
    let mut rows = db.raw_iterator();
    rows.seek_to_last();
    rows.status()?;
    Ok(rows.key().map_or(Lsn::ZERO, position))
}

/// Records in order, none missing, up to `until`, which is in the database, or up to the first that is damaged; an error
/// if that is the first of all. The bounds are those of `LogReader::read`.
pub(super) fn scan(
    (db, amendments): (&DB, &Amendments),
    from: Lsn,
    until: Lsn,
    records: usize,
    bytes: usize,
) -> Result<Vec<Entry>, ReadError> {
    let (mut entries, mut taken, mut next) = (Vec::new(), 0, from.max(Lsn::FIRST));
    while next <= until {
        let entry = |lsn, frame: Frame<'_>| Entry { lsn, bytes: frame.record.into(), amended: amendments.has(lsn) };
        match first_from(db, next, entry) {
            Ok(entry) if entry.lsn > until && entries.is_empty() => return Err(missing(until)),
            Ok(entry) if entry.lsn > until => break,
            Ok(entry) => {
                next = entry.lsn.next();
                entries.push(entry);
            }
            Err(error) if entries.is_empty() => return Err(error),
            Err(_) => break,
        }
        taken += entries.last().map_or(0, |entry| entry.bytes.len());
        if taken >= bytes || entries.len() >= records {
            break;
        }
    }
    Ok(entries)
}

/// The end that a log with this last record has.
pub(super) fn last(db: &DB, lsn: Lsn) -> Result<Last, ReadError> {
    if lsn == Lsn::ZERO {
        return Ok(Last::default());
    }
    read(db, lsn, |frame| Last { lsn, note: frame.note })?.ok_or_else(|| missing(lsn))
}

/// The last record at or before a position that is not beyond the last of all; the beginning if there is none.
fn at_or_before(db: &DB, lsn: Lsn) -> Result<Last, ReadError> {
    if lsn == Lsn::ZERO {
        return Ok(Last::default());
    }
    match read(db, lsn, |frame| Last { lsn, note: frame.note })? {
        Some(there) => Ok(there),
        None => gap(db, lsn).map(|(before, _)| before),
    }
}

/// The last record up to `until` at or before a log time; zero if all are later.
pub(super) fn at_time(db: &DB, until: Lsn, ms: u64) -> Result<Lsn, ReadError> {
    // Log time never goes back, so that it can be searched by halves.
    let (mut found, mut before, mut after) = (Lsn::ZERO, 0, until.0 + 1);
    while before + 1 < after {
        let middle = before + (after - before) / 2;
        let last = at_or_before(db, Lsn(middle))?;
        if last.note.time.ms <= ms {
            (found, before) = (last.lsn, middle);
        } else {
            after = last.lsn.0;
        }
    }
    Ok(found)
}

/// The note at a position up to `until`, if a record is there.
pub(super) fn note(db: &DB, until: Lsn, lsn: Lsn) -> Result<Option<Note>, ReadError> {
    if lsn == Lsn::ZERO || lsn > until {
        return Ok(None);
    }
    match read(db, lsn, |frame| frame.note)? {
        Some(note) => Ok(Some(note)),
        None => gap(db, lsn).map(|_| None),
    }
}

/// Checks the last records up to `until` as a start must: none is missing, checksums and chain match, each decodes.
pub(super) fn check_end(db: &DB, until: Lsn, records: u64) -> Result<Last, ReadError> {
    if until == Lsn::ZERO {
        return Ok(Last::default());
    }
    last(db, Lsn::FIRST)?;
    let mut before = last(db, back(db, until, records)?)?;
    while before.lsn < until {
        before = first_from(db, before.lsn.next(), |lsn, frame| {
            let record = Record::decode(frame.record).map_err(|source| ReadError::Record { lsn, source })?;
            if frame.note == before.note.next(lsn, frame.record, Stamp::of(&record)) {
                Ok(Last { lsn, note: frame.note })
            } else {
                Err(damaged(lsn, "hash chain or log time don't follow from the record"))
            }
        })??;
    }
    if before.lsn == until { Ok(before) } else { Err(missing(until)) }
}

/// So many records back, if there are so many. Where none is missing, that needs no iterator.
fn back(db: &DB, until: Lsn, records: u64) -> Result<Lsn, ReadError> {
    let dense = Lsn(until.0.saturating_sub(records));
    if dense == Lsn::ZERO || read(db, dense, |_| ())?.is_some() {
        return Ok(dense);
    }
    let mut rows = db.raw_iterator();
    rows.seek_for_prev(until.to_bytes());
    for _ in 0..records {
        rows.prev();
    }
    rows.status().map_err(|error| failed(db, until, &error))?;
    Ok(rows.key().map_or(Lsn::ZERO, position))
}

/// Makes a copy in a folder that isn't there yet: tables are linked where that is possible.
pub(super) fn checkpoint(db: &DB, into: &Path) -> Result<(), ReadError> {
    let made = Checkpoint::new(db).and_then(|checkpoint| checkpoint.create_checkpoint(into));
    made.map_err(|error| ReadError::Backend(error.to_string()))
}

/// One of RocksDB's own figures.
pub(super) fn property(db: &DB, name: &str) -> Result<Option<u64>, ReadError> {
    db.property_int_value(name).map_err(|error| ReadError::Backend(error.to_string()))
}

/// Removes whatever lies beyond a position.
pub(super) fn cut(db: &DB, beyond: Lsn) -> Result<(), rocksdb::Error> {
    let end = end(db)?;
    if end <= beyond {
        return Ok(());
    }
    tracing::warn!(from = %beyond.next(), to = %end, "removing records that were reported as not appended");
    let mut batch = WriteBatch::default();
    batch.delete_range(beyond.next().to_bytes(), end.next().to_bytes());
    write(db, batch)
}

/// Writes durably.
pub(super) fn write(db: &DB, batch: WriteBatch) -> Result<(), rocksdb::Error> {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(batch, &options)
}

/// The error for a record that is not what was appended.
pub(super) fn damaged(lsn: Lsn, why: impl Into<String>) -> ReadError {
    ReadError::Damaged { lsn, why: why.into() }
}

/// The position that a key stands for.
pub(super) fn position(key: &[u8]) -> Lsn {
    key.try_into().map_or(Lsn::MAX, Lsn::from_bytes)
}

fn missing(lsn: Lsn) -> ReadError {
    damaged(lsn, "it is missing")
}

/// The first record at or after a position that is not beyond the last of all.
///
/// Nearly always the record at the position itself: so each is a look-up of its own, where an iterator would stumble
/// over damage in another file.
fn first_from<T>(db: &DB, lsn: Lsn, use_frame: impl Fn(Lsn, Frame<'_>) -> T) -> Result<T, ReadError> {
    if let Some(there) = read(db, lsn, |frame| use_frame(lsn, frame))? {
        return Ok(there);
    }
    let (_, after) = gap(db, lsn)?;
    read(db, after, |frame| use_frame(after, frame))?.ok_or_else(|| missing(after))
}

/// The records around a position at which there is none: what a log may have skipped, unless the hash chain says that
/// something stood there.
fn gap(db: &DB, lsn: Lsn) -> Result<(Last, Lsn), ReadError> {
    let mut rows = db.raw_iterator();
    rows.seek_for_prev(lsn.to_bytes());
    rows.status().map_err(|error| failed(db, lsn, &error))?;
    let before = last(db, rows.key().map_or(Lsn::ZERO, position))?;
    rows.seek(lsn.to_bytes());
    rows.status().map_err(|error| failed(db, lsn, &error))?;
    let after = rows.key().map(position).ok_or_else(|| missing(lsn))?;
    let follows = |frame: Frame<'_>| before.note.chain.extend(after, frame.record) == frame.note.chain;
    if read(db, after, follows)?.ok_or_else(|| missing(after))? {
        return Ok((before, after));
    }
    let first = before.lsn.next();
    Err(damaged(first, format!("it is missing: the hash chain at {after} doesn't go on from {}", before.lsn)))
}

/// An iterator's error. It looks into more files than the one in which the record is, or would be.
fn failed(db: &DB, lsn: Lsn, error: &rocksdb::Error) -> ReadError {
    let why = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => damaged(lsn.max(first_of_named_file(db, &why)), why),
        _ => ReadError::Backend(why),
    }
}

/// Reads one record, if it is there.
fn read<T>(db: &DB, lsn: Lsn, use_frame: impl FnOnce(Frame<'_>) -> T) -> Result<Option<T>, ReadError> {
    match db.get_pinned(lsn.to_bytes()) {
        Ok(Some(value)) => {
            Frame::decode(lsn, &value).map(|frame| Some(use_frame(frame))).map_err(|why| damaged(lsn, why))
        }
        Ok(None) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Corruption => Err(damaged(lsn, error.to_string())),
        Err(error) => Err(ReadError::Backend(error.to_string())),
    }
}

/// A look-up may fail over a file that can't be opened, though it would have found its record in another.
pub(super) fn first_of_named_file(db: &DB, why: &str) -> Lsn {
    let files = db.live_files().unwrap_or_default();
    let named = files.into_iter().find(|file| why.contains(&file.name));
    named.and_then(|file| file.start_key).map_or(Lsn::FIRST, |key| position(&key))
}
