//! The file `acknowledged`: up to where the log was acknowledged, written after each sync, and not synced itself.
//!
//! It is a second witness beside the database: after a crash of the process it is exact, after a loss of power a lower
//! bound. A database that ends before it has lost what it promised, which RocksDB alone can't tell from a torn last
//! write. It also says that what lies beyond it is to be cut off, after a failed append, and its lock says whether a
//! writer is alive.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use schemas::Lsn;

const NAME: &str = "acknowledged";
const LEN: usize = 13;

/// What the file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// Every record up to here was acknowledged.
    pub lsn: Lsn,
    /// Whatever stands beyond was reported as not appended, and is to be removed.
    pub cut: bool,
}

impl Acknowledged {
    fn encode(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..8].copy_from_slice(&self.lsn.to_bytes());
        bytes[8] = u8::from(self.cut);
        let crc = crc32c::crc32c(&bytes[..9]);
        bytes[9..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; LEN]) -> Option<Self> {
        let acknowledged = Self { lsn: Lsn::from_bytes(*bytes.first_chunk()?), cut: bytes[8] == 1 };
        (acknowledged.encode() == bytes).then_some(acknowledged)
    }
}

/// The writer's hold on the file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Opens or makes the file, and locks it for as long as this lives; none if another writer has it.
    pub fn lock(folder: &Path) -> io::Result<Option<Self>> {
        let path = folder.join(NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        // A reader holds the lock for an instant, to see whether a writer lives.
        for _ in 0..50 {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { file, path })),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What the file says; none if it is new.
    pub fn read(&self) -> io::Result<Option<Acknowledged>> {
        read(&self.file, &self.path)
    }

    /// Takes a note. It is in the file at once, and on the disk when the system writes it.
    pub fn write(&self, acknowledged: Acknowledged) -> io::Result<()> {
        self.file.write_all_at(&acknowledged.encode(), 0)
    }

    /// Takes a note that must not be lost.
    pub fn write_durably(&self, acknowledged: Acknowledged) -> io::Result<()> {
        self.write(acknowledged)?;
        self.file.sync_all()?;
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }
}

/// Leaves a note with a copy of a log, durably.
pub(super) fn leave(folder: &Path, acknowledged: Acknowledged) -> io::Result<()> {
    let path = folder.join(NAME);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    Mark { file, path }.write_durably(acknowledged)
}

/// What a reader beside the writer learns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peek {
    /// What the file says; none if it is new or missing.
    pub acknowledged: Option<Acknowledged>,
    /// Whether a writer has the log open.
    pub writer: bool,
}

/// Looks at the file without holding it.
pub(super) fn peek(folder: &Path) -> io::Result<Peek> {
    let path = folder.join(NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Peek::default()),
        Err(error) => return Err(error),
    };
    let writer = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    Ok(Peek { acknowledged: read(&file, &path)?, writer })
}

fn read(file: &File, path: &Path) -> io::Result<Option<Acknowledged>> {
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    let mut bytes = [0; LEN];
    // A reader may come in the middle of a write.
    for _ in 0..5 {
        file.read_exact_at(&mut bytes, 0)?;
        if let Some(acknowledged) = Acknowledged::decode(bytes) {
            return Ok(Some(acknowledged));
        }
    }
    let why = format!("{} is damaged; delete it if the log verifies, and it will be written anew", path.display());
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}
