//! Writes that fail: nothing has changed, reading goes on, and so does writing once it can.

use std::{io, process::Command};

use rocksdb::{DB, WriteBatch};

use super::{super::writer::Disk, open, *};
use crate::log::{
    AppendError,
    conformance::{all, append, number, record},
    verify::{Checks, verify},
};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Works,
    /// Fails before anything is written.
    Refuses,
    /// Fails after all is written, as when only the sync fails.
    Lies,
}

#[derive(Clone)]
struct Faulty {
    mode: Arc<Mutex<Mode>>,
    room: Arc<Mutex<bool>>,
}

impl Faulty {
    fn new() -> Self {
        Self { mode: Arc::new(Mutex::new(Mode::Works)), room: Arc::new(Mutex::new(true)) }
    }

    fn set(&self, mode: Mode, room: bool) {
        *self.mode.lock().unwrap() = mode;
        *self.room.lock().unwrap() = room;
    }

    fn open(&self, folder: &Path, observer: Arc<dyn Observer>) -> EmbeddedLog {
        let options = EmbeddedOptions { retry_after: Duration::ZERO, observer, ..EmbeddedOptions::default() };
        EmbeddedLog::open_on(folder, options, Box::new(self.clone())).unwrap()
    }
}

impl Disk for Faulty {
    fn write(&self, db: &DB, batch: WriteBatch) -> Result<(), String> {
        let mode = *self.mode.lock().unwrap();
        if mode != Mode::Refuses {
            store::write(db, batch).unwrap();
        }
        if mode == Mode::Works { Ok(()) } else { Err("no space left on device".into()) }
    }

    fn has_room(&self, _: &Path, _: u64) -> io::Result<()> {
        if *self.room.lock().unwrap() { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

fn numbers(log: &dyn LogReader) -> Vec<u64> {
    all(log).iter().map(|(_, bytes)| number(bytes)).collect()
}

fn refused(log: &EmbeddedLog, n: u64) -> String {
    let receipts = log.append((n..n + 3).map(|n| record(n, 1, 50)).collect());
    let errors: Vec<_> = receipts.into_iter().map(|receipt| receipt.blocking_recv().unwrap().unwrap_err()).collect();
    assert!(errors.iter().all(|error| matches!(error, AppendError::Unavailable(_))));
    errors[0].to_string()
}

#[derive(Default)]
struct Counts(Mutex<(Vec<Committed>, usize)>);

impl Observer for Counts {
    fn committed(&self, committed: &Committed) {
        self.0.lock().unwrap().0.push(committed.clone());
    }

    fn failed(&self, records: usize) {
        self.0.lock().unwrap().1 += records;
    }
}

#[test]
fn a_failed_write_changes_nothing() {
    for mode in [Mode::Refuses, Mode::Lies] {
        let folder = TempDir::new().unwrap();
        let (disk, counts) = (Faulty::new(), Arc::new(Counts::default()));
        let log = disk.open(folder.path(), Arc::clone(&counts) as Arc<dyn Observer>);
        let bytes: usize = (0..5).map(|n| record(n, 1, 50).len()).sum();
        append(&log, (0..5).map(|n| record(n, 1, 50)).collect());
        for round in 0..3 {
            disk.set(mode, false);
            assert!(refused(&log, 100).contains("no space left"));
            assert!(refused(&log, 200).contains("there is no room yet"), "it was tried again");
            assert_eq!(numbers(&log), (0..5 + round).collect::<Vec<_>>(), "reading goes on, and nothing was added");
            let beside = EmbeddedLog::open_read_only(folder.path()).unwrap();
            assert_eq!(numbers(&beside), (0..5 + round).collect::<Vec<_>>());
            drop(beside);
            disk.set(mode, true);
            assert!(refused(&log, 300).contains("no space left"), "there was room, but not for long");
            disk.set(Mode::Works, true);
            assert_eq!(append(&log, vec![record(5 + round, 1, 50)]), [Lsn(6 + round)]);
            assert_eq!(numbers(&log), (0..6 + round).collect::<Vec<_>>());
        }
        let (committed, failed) = &*counts.0.lock().unwrap();
        assert_eq!((committed[0].records, committed[0].bytes, committed.len()), (5, bytes, 4));
        assert!(committed.iter().all(|committed| committed.waits.len() == 1));
        assert_eq!(*failed, 27);
        drop(log);
        let log = open(folder.path());
        assert_eq!(numbers(&log), (0..8).collect::<Vec<_>>());
        verify(&log, Checks::default()).unwrap();
    }
}

#[test]
fn what_failed_does_not_come_back_with_a_restart() {
    let folder = TempDir::new().unwrap();
    let disk = Faulty::new();
    let log = disk.open(folder.path(), Arc::new(()));
    append(&log, (0..5).map(|n| record(n, 1, 50)).collect());
    disk.set(Mode::Lies, false);
    refused(&log, 100);
    // As if it were killed here.
    let killed = TempDir::new().unwrap();
    copy(folder.path(), killed.path());
    let db = store::open_unchanged(killed.path()).unwrap();
    assert_eq!(store::end(&db).unwrap(), Lsn(8), "the database itself has them");
    drop(db);
    assert_eq!(numbers(&EmbeddedLog::open_read_only(killed.path()).unwrap()), [0, 1, 2, 3, 4]);
    for n in 5..8 {
        let log = open(killed.path());
        assert_eq!(log.tail(), Lsn(n));
        append(&log, vec![record(n, 1, 50)]);
    }
    assert_eq!(numbers(&open(killed.path())), (0..8).collect::<Vec<_>>());
}

#[test]
fn a_copy_has_what_was_acknowledged_and_no_more() {
    let folder = TempDir::new().unwrap();
    let (made, disk) = (folder.path().join("log"), Faulty::new());
    let log = disk.open(&made, Arc::new(()));
    append(&log, (0..5).map(|n| record(n, 1, 50)).collect());
    let amendment = Amendment { void: Lsn(3), reason: "bad".into(), at_ms: 1 };
    log.amend(&amendment).unwrap();
    drop(log);
    let log = disk.open(&made, Arc::new(()));
    disk.set(Mode::Lies, false);
    refused(&log, 100);
    let into = folder.path().join("copy");
    assert_eq!(log.checkpoint(&into).unwrap(), Some(Lsn(5)));
    assert!(log.checkpoint(&into).is_err(), "nothing is written over");
    disk.set(Mode::Works, true);
    append(&log, vec![record(5, 1, 50)]);
    assert_eq!(numbers(&EmbeddedLog::open_read_only(&into).unwrap()), [0, 1, 2, 3, 4]);
    let copied = open(&into);
    assert_eq!(append(&copied, vec![record(6, 1, 50)]), [Lsn(6)]);
    assert_eq!(numbers(&copied), [0, 1, 2, 3, 4, 6]);
    assert_eq!(copied.amendments().iter().collect::<Vec<_>>(), [&amendment]);
    assert_eq!(numbers(&log), [0, 1, 2, 3, 4, 5]);
}

/// What waits behind a failed write fails with it: nothing is appended whose predecessor is missing.
#[test]
fn a_failure_takes_the_whole_queue_along() {
    let folder = TempDir::new().unwrap();
    let disk = Faulty::new();
    let log = disk.open(folder.path(), Arc::new(()));
    append(&log, vec![record(0, 1, 50)]);
    disk.set(Mode::Lies, false);
    let receipts: Vec<_> = (1..300).flat_map(|n| log.append(vec![record(n, 1, 50)])).collect();
    assert!(receipts.into_iter().all(|receipt| receipt.blocking_recv().unwrap().is_err()));
    log.close();
    assert_eq!(numbers(&log), [0]);
    drop(log);
    assert_eq!(numbers(&open(folder.path())), [0]);
}

#[test]
fn a_full_queue_refuses() {
    let folder = TempDir::new().unwrap();
    let options = EmbeddedOptions { queue_records: 4, queue_bytes: 100_000, ..EmbeddedOptions::default() };
    let log = EmbeddedLog::create_or_open(folder.path(), options).unwrap();
    let too_many = log.append((0..5).map(|n| record(n, 1, 50)).collect());
    let too_large = log.append((0..3).map(|n| record(n, 1, 40_000)).collect());
    for receipt in too_many.into_iter().chain(too_large) {
        let error = receipt.blocking_recv().unwrap().unwrap_err();
        assert!(matches!(&error, AppendError::Unavailable(why) if why.contains("waits")), "{error}");
    }
    append(&log, (0..4).map(|n| record(n, 1, 50)).collect());
    assert_eq!(numbers(&log), [0, 1, 2, 3]);
}

#[test]
fn many_callers_share_a_sync() {
    let folder = TempDir::new().unwrap();
    let counts = Arc::new(Counts::default());
    let observer = Arc::clone(&counts) as Arc<dyn Observer>;
    let options = EmbeddedOptions { sync_delay: Duration::from_millis(5), observer, ..EmbeddedOptions::default() };
    let log = EmbeddedLog::create_or_open(folder.path(), options).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..32 {
            let log = &log;
            scope.spawn(move || (0..10).for_each(|n| drop(append(log, vec![record(writer * 10 + n, 1, 50)]))));
        }
    });
    let (committed, _) = &*counts.0.lock().unwrap();
    assert_eq!(committed.iter().map(|committed| committed.records).sum::<usize>(), 320);
    assert!(committed.len() <= 40, "{} syncs for 320 appends", committed.len());
}

const CHILD: &str = "EVERFOLD_LOG_FULL_DISK";
const MOUNT: &str = r#"mount -t tmpfs -o size=160m none "$0" && exec "$@""#;

/// On a small file system of its own, where the machine lets an ordinary process make one.
#[test]
fn a_full_disk() {
    let folder = TempDir::new().unwrap();
    let inside = |program: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", MOUNT]).arg(folder.path()).args(program).env(CHILD, folder.path());
        command
    };
    if !inside(&["true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("no file system can be mounted here: only the injected faults are tested");
        return;
    }
    let program = std::env::current_exe().unwrap();
    let test = "log::embedded::tests::disk::child";
    let output = inside(&[program.to_str().unwrap(), "--exact", test, "--nocapture"]).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("went on after a full disk"));
}

/// Not a test by itself: runs on the file system that the test above makes.
#[test]
fn child() {
    let Some(mount) = std::env::var_os(CHILD) else { return };
    let (folder, ballast) = (Path::new(&mount).join("log"), Path::new(&mount).join("ballast"));
    let options = EmbeddedOptions { retry_after: Duration::ZERO, ..EmbeddedOptions::default() };
    let log = EmbeddedLog::create_or_open(&folder, options.clone()).unwrap();
    let mut acknowledged = Vec::new();
    let mut next = 0;
    let mut try_append = |log: &EmbeddedLog| {
        next += 1;
        let result = log.append(vec![record(next, 1, 60_000)]).remove(0).blocking_recv().unwrap();
        if result.is_ok() {
            acknowledged.push(next);
        }
        result
    };
    for _ in 0..2 {
        for _ in 0..20 {
            try_append(&log).unwrap();
        }
        let chunk = vec![1; 1 << 16];
        let mut file = std::fs::File::create(&ballast).unwrap();
        while io::Write::write_all(&mut file, &chunk).is_ok() {}
        drop(file);
        let error = (0..1_000).find_map(|_| try_append(&log).err()).expect("the disk is full");
        assert!(matches!(&error, AppendError::Unavailable(why) if why.to_lowercase().contains("no space")), "{error}");
        for _ in 0..10 {
            try_append(&log).unwrap_err();
        }
        let tail = log.tail();
        assert_eq!(all(&log).len() as u64, tail.0, "reading goes on");
        assert_eq!(EmbeddedLog::open_read_only(&folder).unwrap().tail(), tail);
        std::fs::remove_file(&ballast).unwrap();
        // RocksDB may still be busy with files of its own.
        let errors: Vec<_> = std::iter::from_fn(|| try_append(&log).err()).take(100).collect();
        assert!(errors.len() < 100, "there is room again: {}", errors[99]);
        assert_eq!(log.tail(), tail.next());
    }
    assert_eq!(numbers(&log), acknowledged);
    drop(log);
    let log = EmbeddedLog::create_or_open(&folder, options).unwrap();
    assert_eq!(numbers(&log), acknowledged);
    verify(&log, Checks::default()).unwrap();
    println!("went on after a full disk");
}
