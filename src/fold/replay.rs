use std::{
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use projections::{Cursor, Projector, Reader, Source, Store, StoreError, StoreOptions};
use ruma::OwnedServerName;
use schemas::{Blob, Lsn};
use serde::{Deserialize, Serialize};

use super::{Progress, StartError, driver::catch_up};
use crate::log::{LogReader, genesis};

/// The file that makes a folder a replay, and the read models beside it.
const MARKER: &str = "replay.json";
const READ_MODELS: &str = "read-models";

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Nothing is written over.
    #[error("{0} is not empty: name a folder that is, or that isn't there yet")]
    NotEmpty(PathBuf),
    /// No such moment.
    #[error("there is no record {until} on this log: it goes from 1 to {tail}")]
    NoRecord {
        /// What was asked for.
        until: Lsn,
        /// The log's last position.
        tail: Lsn,
    },
    /// It has not come as far as it was to.
    #[error("the replay in {0} was not finished: delete the folder, and replay again")]
    Unfinished(PathBuf),
    /// There is no log to fold it again from.
    #[error("the replay in {0} was made by another version of Everfold: replay again with this one")]
    OtherVersion(PathBuf),
    /// The marker is not one.
    #[error("{path} is malformed: {source}")]
    Marker {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file or folder can't be used.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log can't be read or folded.
    #[error(transparent)]
    Fold(#[from] StartError),
}

impl From<StoreError> for ReplayError {
    fn from(error: StoreError) -> Self {
        Self::Fold(error.into())
    }
}

/// What a folder with a replay says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// Whose log was folded.
    pub server_name: OwnedServerName,
    /// Its id.
    pub log_id: Blob,
    /// The last record that was folded.
    pub lsn: Lsn,
}

impl Replayed {
    /// The replay that a folder is; none if it isn't one.
    ///
    /// # Errors
    /// When the marker can't be read.
    pub fn find(folder: &Path) -> Result<Option<Self>, ReplayError> {
        let path = folder.join(MARKER);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|source| ReplayError::Marker { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ReplayError::Io { path, source }),
        }
    }
}

/// Folds a log up to a record into a folder, which is made or must be empty, and is a replay from then on. Says where
/// that is.
///
/// # Errors
/// When the folder is in use, there is no such record, or the log or the store fails.
pub fn replay(
    log: &dyn LogReader,
    until: Lsn,
    folder: &Path,
    report: &dyn Fn(Lsn, Lsn),
) -> Result<Cursor, ReplayError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        |source| ReplayError::Io { path, source }
    };
    let there = log.read(until, 1, 1).map_err(StartError::from)?.first().map(|entry| entry.lsn);
    let begun = genesis(log).map_err(StartError::from)?.filter(|_| there == Some(until));
    let server = begun.and_then(|genesis| Some((OwnedServerName::try_from(genesis.server_name).ok()?, genesis.log_id)));
    let (server_name, log_id) = server.ok_or_else(|| ReplayError::NoRecord { until, tail: log.tail() })?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))?;
    if std::fs::read_dir(folder).map_err(io(folder))?.next().is_some() {
        return Err(ReplayError::NotEmpty(folder.to_owned()));
    }
    let marker = serde_json::to_vec(&Replayed { server_name, log_id, lsn: until });
    let path = folder.join(MARKER);
    let marker = marker.map_err(|source| ReplayError::Marker { path: path.clone(), source })?;
    // It comes first: whatever happens then, the folder is never taken for a server's own.
    std::fs::write(&path, marker).map_err(io(&path))?;
    let store = Arc::new(Store::open(&folder.join(READ_MODELS), StoreOptions::default())?);
    let mut projector = Projector::open(store)?;
    catch_up(&mut projector, log, until, true, report)?;
    projector.store().flush()?;
    Ok(projector.cursor().clone())
}

/// Opens the read models of a replay for reading; nothing is folded into them any more.
///
/// # Errors
/// When they are not where the replay was to end, or of another version.
pub fn open_replay(
    folder: &Path,
    replayed: &Replayed,
    memory: StoreOptions,
) -> Result<(Arc<Progress>, Arc<Reader>), ReplayError> {
    let store = Arc::new(Store::open(&folder.join(READ_MODELS), memory)?);
    let projector = Projector::open(Arc::clone(&store))?;
    let cursor = projector.cursor().clone();
    if (cursor.lsn, &cursor.log_id) != (replayed.lsn, &replayed.log_id) {
        return Err(ReplayError::Unfinished(folder.to_owned()));
    }
    if !projector.stale().is_empty() {
        return Err(ReplayError::OtherVersion(folder.to_owned()));
    }
    let reader = Arc::new(Reader::new(store));
    let progress = Progress::new(Arc::clone(&reader) as Arc<dyn Source>, cursor);
    Ok((Arc::new(progress), reader))
}

#[cfg(test)]
mod tests {
    use projections::{Generation, Model, View, digest};
    use tempfile::TempDir;

    use super::*;
    use crate::{
        clock::{SimulatedClock, SimulatedRandom},
        commands::found,
        log::{Log, MemoryLog},
    };

    fn begun() -> MemoryLog {
        let log = MemoryLog::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (clock, random) = (SimulatedClock::at(5), SimulatedRandom::seeded(1));
        runtime.block_on(found(&log, ruma::server_name!("a.example"), &clock, &random)).unwrap();
        let again = log.read(Lsn::FIRST, 1, 1).unwrap()[0].bytes.to_vec();
        // A second Genesis is void, but a record.
        drop(log.append(vec![again.clone().into(), again.into()]));
        log
    }

    #[test]
    fn a_replay_ends_where_it_was_told_and_is_recognised() {
        let (log, folder) = (begun(), TempDir::new().unwrap());
        let into = folder.path().join("then");
        let cursor = replay(&log, Lsn(2), &into, &|_, _| {}).unwrap();
        assert_eq!((cursor.lsn, cursor.log_time.ms), (Lsn(2), 5));
        let replayed = Replayed::find(&into).unwrap().unwrap();
        assert_eq!((replayed.server_name.as_str(), replayed.lsn), ("a.example", Lsn(2)));
        let (progress, reader) = open_replay(&into, &replayed, StoreOptions::default()).unwrap();
        assert_eq!(progress.cursor(), cursor);
        let whole = replay(&log, Lsn(3), &folder.path().join("whole"), &|_, _| {}).unwrap();
        assert_eq!((whole.lsn, whole.log_id), (Lsn(3), cursor.log_id));
        let beside = View::beside(&into.join(READ_MODELS)).unwrap().unwrap();
        assert_eq!(digest::all(&beside).unwrap(), digest::all(&reader.view().unwrap()).unwrap());
        assert_eq!(Replayed::find(folder.path()).unwrap(), None);
    }

    #[test]
    fn what_is_no_replay_is_refused() {
        let (log, folder) = (begun(), TempDir::new().unwrap());
        let into = folder.path().join("then");
        for until in [Lsn::ZERO, Lsn(4)] {
            let error = replay(&log, until, &into, &|_, _| {}).unwrap_err();
            assert_eq!(error.to_string(), format!("there is no record {until} on this log: it goes from 1 to 3"));
        }
        assert!(!into.exists());
        let used = replay(&log, Lsn(2), &into, &|_, _| {}).and_then(|_| replay(&log, Lsn(2), &into, &|_, _| {}));
        assert!(matches!(used, Err(ReplayError::NotEmpty(_))));
        let replayed = Replayed { lsn: Lsn(3), ..Replayed::find(&into).unwrap().unwrap() };
        let opened = open_replay(&into, &replayed, StoreOptions::default());
        assert!(matches!(opened, Err(ReplayError::Unfinished(_))));
        let replayed = Replayed { lsn: Lsn(2), ..replayed };
        let store = Store::open(&into.join(READ_MODELS), StoreOptions::default()).unwrap();
        let mut generations = store.generations().unwrap();
        let older = Generation { version: 0, ..generations.of(Model::Push).unwrap().clone() };
        store.create_family(&older.family()).unwrap();
        generations.set(Model::Push, older);
        store.commit(rocksdb::WriteBatch::default(), None, Some(&generations)).unwrap();
        drop(store);
        let opened = open_replay(&into, &replayed, StoreOptions::default());
        assert!(matches!(opened, Err(ReplayError::OtherVersion(folder)) if folder == into));
        std::fs::write(into.join(MARKER), "{").unwrap();
        assert!(matches!(Replayed::find(&into), Err(ReplayError::Marker { .. })));
    }
}
