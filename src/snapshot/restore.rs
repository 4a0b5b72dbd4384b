use std::{
    fs::{DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use projections::View;

use super::{FileSum, LOG, Manifest, READ_MODELS, SIGNING_KEY, SnapshotError, clear, sum, sync_folder};
use crate::{
    clock::{Clock, Random},
    fold::{Replayed, check_fit},
    log::{
        EmbeddedLog, EmbeddedOptions, Log,
        epoch::{self, Begun},
    },
};

/// Where a snapshot is restored to.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data folder.
    pub data: PathBuf,
    /// Where the log is in it.
    pub log: PathBuf,
    /// Where the read models are in it.
    pub read_models: PathBuf,
    /// Where the key is.
    pub signing_key: PathBuf,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the snapshot says of itself.
    pub manifest: Manifest,
    /// The new epoch, if the log goes on in one.
    pub epoch: Option<Begun>,
    /// Whether there is a signing key now.
    pub has_signing_key: bool,
}

/// Puts a snapshot into a data folder that has neither log nor read models, once every file is what the manifest says.
/// Unless `same_epoch`, a log in it goes on in a new epoch: what was appended after the snapshot is lost then.
///
/// # Errors
/// When the snapshot is damaged, or the folder is in use; nothing is restored then.
pub fn restore(
    from: &Path,
    place: &Place,
    same_epoch: bool,
    (clock, random): (&dyn Clock, &dyn Random),
    report: &dyn Fn(u64, u64),
) -> Result<Restored, SnapshotError> {
    let manifest = Manifest::read(from)?;
    vacant(from, place, &manifest)?;
    DirBuilder::new().recursive(true).mode(0o700).create(&place.data).map_err(SnapshotError::io(&place.data))?;
    let partial = place.data.join("restoring.partial");
    clear(&partial)?;
    let filled = fill(from, &partial, &manifest, report).and_then(|()| begin(&partial, same_epoch, (clock, random)));
    let moved = filled.and_then(|epoch| {
        // The log comes first: with it alone, a server folds its read models itself.
        for (name, to) in [(SIGNING_KEY, &place.signing_key), (LOG, &place.log), (READ_MODELS, &place.read_models)] {
            let from = partial.join(name);
            if from.exists() {
                std::fs::rename(&from, to).map_err(SnapshotError::io(to))?;
                to.parent().map_or(Ok(()), sync_folder)?;
            }
        }
        Ok(epoch)
    });
    clear(&partial)?;
    Ok(Restored { manifest, epoch: moved?, has_signing_key: place.signing_key.exists() })
}

/// Nothing that is there may be written over.
fn vacant(from: &Path, place: &Place, manifest: &Manifest) -> Result<(), SnapshotError> {
    if let Some(there) = [&place.log, &place.read_models].into_iter().find(|path| path.exists()) {
        return Err(SnapshotError::Occupied(there.clone()));
    }
    match Replayed::find(&place.data) {
        Ok(None) => {}
        _ => return Err(SnapshotError::Occupied(place.data.clone())),
    }
    let has_key = manifest.files.iter().any(|file| file.path == Path::new(SIGNING_KEY));
    if has_key && place.signing_key.exists() {
        let read = |path: &Path| std::fs::read(path).map_err(SnapshotError::io(path));
        if read(&from.join(SIGNING_KEY))? != read(&place.signing_key)? {
            return Err(SnapshotError::OtherKey(place.signing_key.clone()));
        }
    }
    Ok(())
}

/// Copies every file, and checks each on the way.
fn fill(from: &Path, into: &Path, manifest: &Manifest, report: &dyn Fn(u64, u64)) -> Result<(), SnapshotError> {
    let (mut done, of) = (0, manifest.bytes());
    for expected in &manifest.files {
        let FileSum { path, .. } = expected;
        let damaged = |why: &str| SnapshotError::Damaged { path: from.join(path), why: why.to_owned() };
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(damaged("is not a path in it"));
        }
        let (source, target) = (from.join(path), into.join(path));
        let folder = target.parent().unwrap_or(into);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(SnapshotError::io(folder))?;
        let mut options = File::options();
        let options = options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&target).map_err(SnapshotError::io(&target))?;
        let found = sum(&source, path.clone(), &mut |bytes| {
            done += bytes.len() as u64;
            report(done, of);
            file.write_all(bytes).map_err(SnapshotError::io(&target))
        });
        let found = match found {
            Err(SnapshotError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("is missing"));
            }
            found => found?,
        };
        if found != *expected {
            return Err(damaged("is not what the manifest says"));
        }
        file.sync_all().map_err(SnapshotError::io(&target))?;
    }
    Ok(())
}

/// Opens what was restored, as a server will, and begins the new epoch.
fn begin(
    folder: &Path,
    same_epoch: bool,
    (clock, random): (&dyn Clock, &dyn Random),
) -> Result<Option<Begun>, SnapshotError> {
    let (log, read_models) = (folder.join(LOG), folder.join(READ_MODELS));
    let view = View::beside(&read_models)?.ok_or_else(|| SnapshotError::None(read_models.clone()))?;
    if !log.exists() {
        return Ok(None);
    }
    let log = EmbeddedLog::create_or_open(&log, EmbeddedOptions::default())?;
    check_fit(&log, view.cursor())?;
    let epoch = if same_epoch { None } else { Some(epoch::begin(&log, clock, random)?) };
    log.close();
    Ok(epoch)
}
