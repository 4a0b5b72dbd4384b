//! Where the projector is found: a socket in the data folder, for the owner alone.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

const NAME: &str = "projector.sock";
/// It has another name until nobody else can use it.
const UNFINISHED: &str = "projector.new";
/// The system takes no longer paths, of a little more than a hundred bytes.
const LONGEST: usize = 100;

/// Its path in a data folder.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join(NAME)
}

/// A path to the socket that is short enough, as long as this lives.
struct Reach {
    path: PathBuf,
    _folder: Option<File>,
}

impl Reach {
    fn of(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path, _folder: None });
        }
        if cfg!(not(target_os = "linux")) {
            let why = format!("the path of the data folder, {}, is too long for a socket", folder.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        // Linux finds it by the open folder, too.
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}

/// Listens. Only who has the read models' lock may: another projector's socket is replaced.
pub(super) fn listen(folder: &Path) -> io::Result<UnixListener> {
    let unfinished = Reach::of(folder, UNFINISHED)?;
    match fs::remove_file(&unfinished.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&unfinished.path)?;
    fs::set_permissions(&unfinished.path, Permissions::from_mode(0o600))?;
    fs::rename(&unfinished.path, path(folder))?;
    Ok(listener)
}

pub(super) async fn connect(folder: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(&Reach::of(folder, NAME)?.path).await
}

/// Says that nobody listens any more.
pub(super) fn remove(folder: &Path) {
    if let Err(error) = fs::remove_file(path(folder)) {
        tracing::warn!(%error, "the projector's socket stays behind");
    }
}
