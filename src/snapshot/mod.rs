//! Snapshots: a folder with the read models as of one record, with the log if it lies on this machine, and with a manifest
//! that says what is there. From one, a server begins again, and a node on a shared log begins with the tail alone.
//!
//! ```text
//!  DIR/manifest.json    written last: a folder without it is no snapshot
//!      read-models/     RocksDB checkpoint: hard links where the file system is the same
//!      log/             the same, taken afterwards, so that it is as far as the read models or further
//!      signing.key      only if that was asked for
//! ```

mod create;
mod restore;

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use projections::{Store, StoreError};
use ruma::OwnedServerName;
use schemas::{Chain, Lsn};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::restore::{Place, Restored, restore};
use crate::{
    clock::Clock,
    fold,
    log::{LogReader, ReadError, copy::CopyError, embedded::OpenError},
};

const MANIFEST: &str = "manifest.json";
const READ_MODELS: &str = "read-models";
const LOG: &str = "log";
const SIGNING_KEY: &str = "signing.key";
/// Of the manifest and the folder's layout.
const FORMAT: u32 = 1;

/// What is in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of the manifest itself.
    pub format: u32,
    /// The version of Everfold that made it.
    pub everfold: String,
    /// When, milliseconds since the Unix epoch.
    pub made_at_ms: u64,
    /// Whose it is.
    pub server_name: OwnedServerName,
    /// The log's id, in hexadecimal digits.
    pub log_id: String,
    /// How far the read models are.
    pub read_models: At,
    /// The version of each model's fold.
    pub models: Vec<ModelVersion>,
    /// How far the log is; none where it lies elsewhere.
    pub log: Option<At>,
    /// All files but this.
    pub files: Vec<FileSum>,
}

/// A point on the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// The record.
    pub lsn: Lsn,
    /// The chain after it.
    pub chain: Chain,
    /// Log time there, milliseconds since the Unix epoch.
    pub log_time: u64,
}

/// A model's fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u16,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// Where it is in the folder.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// Reads that of a snapshot.
    ///
    /// # Errors
    /// When the folder holds none, or one that this build doesn't know.
    pub fn read(folder: &Path) -> Result<Self, SnapshotError> {
        let path = folder.join(MANIFEST);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::None(folder.to_owned()));
            }
            read => read.map_err(SnapshotError::io(&path))?,
        };
        let malformed = |source| SnapshotError::Manifest { path: path.clone(), source };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(&text).map_err(malformed)?;
        if format != FORMAT {
            return Err(SnapshotError::Format { folder: folder.to_owned(), format });
        }
        serde_json::from_slice(&text).map_err(malformed)
    }

    /// The bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Why there is no snapshot, or none restored.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Nothing is written over.
    #[error("{0} is not empty: name a folder that is, or that isn't there yet")]
    NotEmpty(PathBuf),
    /// Where a server works is no way of saying where a file is to be.
    #[error("{0} is not an absolute path of a folder")]
    NotAbsolute(PathBuf),
    /// One at a time.
    #[error("another snapshot is being made")]
    Busy,
    /// Whoever folds can't be asked, or says why not.
    #[error("no snapshot can be made: {0}")]
    Elsewhere(String),
    /// Whoever folds can't make it there.
    #[error("{0}")]
    Refused(String),
    /// It was told to stop.
    #[error("the server stopped before the snapshot was finished")]
    Stopped,
    /// No manifest.
    #[error("{0} is no snapshot: it has no manifest.json")]
    None(PathBuf),
    /// Another build's.
    #[error("the snapshot in {folder} has format {format}, which this build doesn't know")]
    Format {
        /// Where it is.
        folder: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The manifest is not one.
    #[error("{path} is malformed: {source}")]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file is not what the manifest says.
    #[error("the snapshot is damaged: {path} {why}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A server's folder is never written over.
    #[error("{0} is there already: restore into a data folder that has neither log nor read models")]
    Occupied(PathBuf),
    /// There is another server's key.
    #[error("{0} is another key than the snapshot's: move one of them away")]
    OtherKey(PathBuf),
    /// A file or folder can't be used.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The read models can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The restored log can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new epoch can't begin.
    #[error(transparent)]
    Epoch(#[from] CopyError),
    /// The read models don't fit the log.
    #[error(transparent)]
    Fit(#[from] fold::StartError),
}

impl SnapshotError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The folder.
    pub into: PathBuf,
    /// Whether the signing key is to be in it.
    pub with_signing_key: bool,
}

/// How the snapshot stands that was asked for last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// None was.
    #[default]
    None,
    /// It is being made.
    Running {
        /// Where.
        into: PathBuf,
        /// So many bytes are done.
        done: u64,
        /// Of so many; zero until that is known.
        of: u64,
    },
    /// It is there.
    Done {
        /// Where.
        into: PathBuf,
        /// How far its read models are.
        read_models: At,
        /// How far its log is, if it has one.
        log: Option<At>,
        /// Its size.
        bytes: u64,
        /// How long it took.
        millis: u64,
    },
    /// There is none.
    Failed {
        /// Where it was to be.
        into: PathBuf,
        /// Why.
        why: String,
    },
}

/// What snapshots are made of.
pub struct Parts {
    /// The read models.
    pub store: Arc<Store>,
    /// The log.
    pub log: Arc<dyn LogReader>,
    /// For its date.
    pub clock: Arc<dyn Clock>,
    /// Where the key is.
    pub signing_key: PathBuf,
}

/// What asking for a snapshot comes to.
pub type Asked = BoxFuture<'static, Result<State, SnapshotError>>;

/// Makes snapshots while a server runs, one at a time.
#[derive(Clone)]
pub struct Snapshots {
    ask: Arc<dyn Fn(Option<Wanted>) -> Asked + Send + Sync>,
    stop: CancellationToken,
}

impl Snapshots {
    /// Where somebody makes them: the way to ask for one, or how the last one stands.
    #[must_use]
    pub fn new(ask: impl Fn(Option<Wanted>) -> Asked + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask), stop: CancellationToken::new() }
    }

    /// Where the read models are folded.
    #[must_use]
    pub fn of(parts: Parts) -> Self {
        let stop = CancellationToken::new();
        let maker = Maker { parts: Arc::new(parts), state: watch::Sender::default(), stop: stop.clone() };
        let ask = move |wanted: Option<Wanted>| {
            let asked = wanted.map_or(Ok(()), |wanted| maker.begin(wanted));
            ready(asked.map(|()| maker.state.borrow().clone())).boxed()
        };
        Self { ask: Arc::new(ask), stop }
    }

    /// Where nothing is folded.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| ready(Err(SnapshotError::Elsewhere("what is shown here is a replay".into()))).boxed())
    }

    /// How the last one stands.
    ///
    /// # Errors
    /// When nobody can be asked.
    pub async fn state(&self) -> Result<State, SnapshotError> {
        (self.ask)(None).await
    }

    /// Begins to make one.
    ///
    /// # Errors
    /// When another one is being made, or this one can't be made there.
    pub async fn begin(&self, wanted: Wanted) -> Result<State, SnapshotError> {
        (self.ask)(Some(wanted)).await
    }

    /// Ends what is being made here.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

/// Makes snapshots in this process.
struct Maker {
    parts: Arc<Parts>,
    state: watch::Sender<State>,
    stop: CancellationToken,
}

impl Maker {
    fn begin(&self, wanted: Wanted) -> Result<(), SnapshotError> {
        create::check(&wanted.into)?;
        let begun = self.state.send_if_modified(|state| {
            let is_free = !matches!(state, State::Running { .. });
            if is_free {
                *state = State::Running { into: wanted.into.clone(), done: 0, of: 0 };
            }
            is_free
        });
        if !begun {
            return Err(SnapshotError::Busy);
        }
        let (parts, state, stop) = (Arc::clone(&self.parts), self.state.clone(), self.stop.clone());
        let into = wanted.into.clone();
        let work = move || {
            let report = |done, of| _ = state.send_replace(State::Running { into: wanted.into.clone(), done, of });
            let end = create::create(&parts, &wanted, &stop, &report).unwrap_or_else(|error| {
                tracing::error!(%error, into = %wanted.into.display(), "made no snapshot");
                State::Failed { into: wanted.into.clone(), why: error.to_string() }
            });
            state.send_replace(end);
        };
        std::thread::Builder::new().name("snapshot".into()).spawn(work).map(|_| ()).map_err(|source| {
            self.state.send_replace(State::default());
            SnapshotError::Io { path: into, source }
        })
    }
}

/// Reads a file to its end, gives each piece away, and says what it was.
fn sum(
    path: &Path,
    named: PathBuf,
    each: &mut dyn FnMut(&[u8]) -> Result<(), SnapshotError>,
) -> Result<FileSum, SnapshotError> {
    let mut file = File::open(path).map_err(SnapshotError::io(path))?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer).map_err(SnapshotError::io(path))?;
        if read == 0 {
            return Ok(FileSum { path: named, bytes, sha256: hex::encode(hash.finalize()) });
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        each(&buffer[..read])?;
    }
}

/// Writes a file durably.
fn write(path: &Path, content: &[u8]) -> Result<(), SnapshotError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(SnapshotError::io(path))
}

fn sync_folder(path: &Path) -> Result<(), SnapshotError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(SnapshotError::io(path))
}

/// Whether a folder is there and holds something.
fn is_used(path: &Path) -> Result<bool, SnapshotError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(SnapshotError::io(path)(error)),
    }
}

/// Removes what a run left that did not finish.
fn clear(path: &Path) -> Result<(), SnapshotError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SnapshotError::io(path)(error)),
        _ => Ok(()),
    }
}
