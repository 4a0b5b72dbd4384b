use std::{
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Instant,
};

use projections::View;
use ruma::OwnedServerName;
use schemas::Lsn;
use tokio_util::sync::CancellationToken;

use super::{
    At, FORMAT, FileSum, LOG, MANIFEST, Manifest, ModelVersion, Parts, READ_MODELS, SIGNING_KEY, SnapshotError, State,
    Wanted, clear, is_used, sum, sync_folder, write,
};
use crate::log::{ReadError, genesis};

/// Is told how many bytes are done of how many, and says whether to go on.
type Going<'a> = &'a dyn Fn(u64, u64) -> Result<(), SnapshotError>;

/// Whether a snapshot may be made in a folder: it must be empty, or not there.
pub(super) fn check(into: &Path) -> Result<(), SnapshotError> {
    if !into.is_absolute() || into.file_name().is_none() {
        return Err(SnapshotError::NotAbsolute(into.to_owned()));
    }
    if is_used(into)? { Err(SnapshotError::NotEmpty(into.to_owned())) } else { Ok(()) }
}

/// Makes a snapshot beside its folder, and moves it there once it is whole. Whatever fails, nothing is left.
pub(super) fn create(
    parts: &Parts,
    wanted: &Wanted,
    stop: &CancellationToken,
    report: &dyn Fn(u64, u64),
) -> Result<State, SnapshotError> {
    let (began, into) = (Instant::now(), &wanted.into);
    let mut name = into.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = into.with_file_name(name);
    clear(&partial)?;
    let made = fill(parts, wanted, &partial, &|done, of| {
        report(done, of);
        if stop.is_cancelled() { Err(SnapshotError::Stopped) } else { Ok(()) }
    })
    .and_then(|manifest| {
        std::fs::rename(&partial, into).map_err(SnapshotError::io(into))?;
        into.parent().map_or(Ok(()), sync_folder)?;
        Ok(manifest)
    });
    if made.is_err() {
        clear(&partial)?;
    }
    let manifest = made?;
    let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (read_models, log, bytes) = (manifest.read_models, manifest.log, manifest.bytes());
    tracing::info!(into = %into.display(), at = %read_models.lsn, bytes, millis, "made a snapshot");
    Ok(State::Done { into: into.clone(), read_models, log, bytes, millis })
}

fn fill(parts: &Parts, wanted: &Wanted, folder: &Path, report: Going<'_>) -> Result<Manifest, SnapshotError> {
    // What is in it concerns nobody else on the machine.
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(SnapshotError::io(folder))?;
    let (read_models, log_folder) = (folder.join(READ_MODELS), folder.join(LOG));
    parts.store.checkpoint(&read_models)?;
    // Afterwards, so that it is not behind the read models.
    let log = parts.log.checkpoint(&log_folder)?.map(|lsn| at(parts, lsn)).transpose()?;
    if wanted.with_signing_key {
        let copied = std::fs::copy(&parts.signing_key, folder.join(SIGNING_KEY));
        copied.map_err(SnapshotError::io(&parts.signing_key))?;
    }
    let view = View::beside(&read_models)?.ok_or_else(|| SnapshotError::None(read_models.clone()))?;
    let founded = genesis(&*parts.log)?.and_then(|genesis| OwnedServerName::try_from(genesis.server_name).ok());
    let no_genesis = || ReadError::Damaged { lsn: Lsn::FIRST, why: "it is no Genesis".into() };
    let cursor = view.cursor();
    let manifest = Manifest {
        format: FORMAT,
        everfold: env!("CARGO_PKG_VERSION").to_owned(),
        made_at_ms: parts.clock.now_ms(),
        server_name: founded.ok_or_else(no_genesis)?,
        log_id: hex::encode(&cursor.log_id.0),
        read_models: At { lsn: cursor.lsn, chain: cursor.chain, log_time: cursor.log_time.ms },
        models: view.generations().iter().map(|g| ModelVersion { name: g.model.clone(), version: g.version }).collect(),
        log,
        files: sums(folder, report)?,
    };
    drop(view);
    let text = serde_json::to_vec_pretty(&manifest);
    let path = folder.join(MANIFEST);
    write(&path, &text.map_err(|source| SnapshotError::Manifest { path: path.clone(), source })?)?;
    [Some(read_models), log.map(|_| log_folder), Some(folder.to_owned())]
        .iter()
        .flatten()
        .try_for_each(|folder| sync_folder(folder))?;
    Ok(manifest)
}

fn at(parts: &Parts, lsn: Lsn) -> Result<At, SnapshotError> {
    let note = parts.log.note(lsn)?.unwrap_or_default();
    Ok(At { lsn, chain: note.chain, log_time: note.time.ms })
}

/// Sums up the files of a snapshot, and sees to it that they are on the disk.
fn sums(folder: &Path, report: Going<'_>) -> Result<Vec<FileSum>, SnapshotError> {
    let mut names = Vec::new();
    list(folder, Path::new(""), &mut names)?;
    names.sort();
    let length = |(_, bytes): &(PathBuf, u64)| *bytes;
    let (mut done, of) = (0, names.iter().map(length).sum());
    let mut files = Vec::with_capacity(names.len());
    for (name, _) in names {
        let path = folder.join(&name);
        let file = sum(&path, name, &mut |bytes| {
            done += bytes.len() as u64;
            report(done, of)
        });
        files.push(file?);
        std::fs::File::open(&path).and_then(|file| file.sync_all()).map_err(SnapshotError::io(&path))?;
    }
    Ok(files)
}

/// All files below a folder, by their paths in it, with their lengths.
fn list(root: &Path, below: &Path, names: &mut Vec<(PathBuf, u64)>) -> Result<(), SnapshotError> {
    let folder = root.join(below);
    for entry in std::fs::read_dir(&folder).map_err(SnapshotError::io(&folder))? {
        let entry = entry.map_err(SnapshotError::io(&folder))?;
        let (name, kind) = (below.join(entry.file_name()), entry.metadata().map_err(SnapshotError::io(&folder))?);
        // RocksDB's lock files belong to whoever has it open.
        match (kind.is_dir(), entry.file_name() == "LOCK") {
            (true, _) => list(root, &name, names)?,
            (false, false) => names.push((name, kind.len())),
            (false, true) => {}
        }
    }
    Ok(())
}
