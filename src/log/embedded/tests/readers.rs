//! Other handles on the same folder: none may write, and readers see what is durable.

use std::sync::mpsc;

use futures::StreamExt;
use rocksdb::{DB, WriteBatch};

use super::{super::writer::Disk, open, *};
use crate::log::conformance::{all, append, number, record};

#[test]
fn one_writer_at_a_time() {
    let folder = TempDir::new().unwrap();
    let log = open(folder.path());
    let second = EmbeddedLog::create_or_open(folder.path(), EmbeddedOptions::default());
    let error = second.err().unwrap();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    assert!(error.to_string().contains("another process has the log"));
    append(&log, vec![record(0, 1, 1)]);
    drop(log);
    assert_eq!(open(folder.path()).tail(), Lsn(1));
}

#[test]
fn nothing_to_read() {
    let folder = TempDir::new().unwrap();
    for folder in [folder.path().to_owned(), folder.path().join("none")] {
        let error = EmbeddedLog::open_read_only(&folder).err().unwrap();
        assert!(matches!(error, OpenError::Missing(_)), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "looking leaves nothing behind");
}

/// The records are large, so that the writer makes tables and deletes files meanwhile.
#[test]
fn reading_beside_the_writer() {
    let folder = TempDir::new().unwrap();
    let log = open(folder.path());
    append(&log, vec![record(0, 7, 1)]);
    let total = 90;
    let reader = Arc::new(EmbeddedLog::open_read_only(folder.path()).unwrap());
    assert_eq!((reader.tail(), reader.at_time(7).unwrap()), (Lsn(1), Lsn(1)));
    std::thread::scope(|scope| {
        scope.spawn(|| (1..total).for_each(|n| drop(append(&log, vec![record(n, 7 + n, 700_000)]))));
        while reader.tail() < Lsn(total) {
            let seen = reader.refresh().unwrap();
            assert!(seen <= log.tail());
            let found = reader.read(seen, 1, 1).unwrap();
            assert_eq!((found[0].lsn, number(&found[0].bytes)), (seen, seen.0 - 1));
        }
    });
    assert_eq!(all(&*reader), all(&log));
    assert_eq!(reader.note(Lsn(total)).unwrap(), log.note(Lsn(total)).unwrap());
    assert_eq!(all(&EmbeddedLog::open_read_only(folder.path()).unwrap()), all(&log));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = Arc::clone(&reader).follow(Lsn(total - 4));
        for receipt in log.append((total..total + 5).map(|n| record(n, 7, 1)).collect()) {
            receipt.await.unwrap().unwrap();
        }
        let numbers: Vec<_> = stream.take(10).map(|entry| number(&entry.unwrap().bytes)).collect().await;
        assert_eq!(numbers, (total - 5..total + 5).collect::<Vec<_>>());
    });
}

/// Says when it has written, and comes back when it is told.
struct Slow(mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);

impl Disk for Slow {
    fn write(&self, db: &DB, batch: WriteBatch) -> Result<(), String> {
        store::write(db, batch).map_err(|error| error.to_string())?;
        self.0.send(()).unwrap();
        self.1.lock().unwrap().recv().map_err(|error| error.to_string())
    }

    fn has_room(&self, _: &Path, _: u64) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn nobody_sees_what_is_not_durable_yet() {
    let folder = TempDir::new().unwrap();
    let (written, is_written) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel();
    let disk = Box::new(Slow(written, Mutex::new(may_go_on)));
    let log = EmbeddedLog::open_on(folder.path(), EmbeddedOptions::default(), disk).unwrap();
    let mut receipt = log.append(vec![record(0, 1, 1)]).remove(0);
    is_written.recv().unwrap();
    let reader = EmbeddedLog::open_read_only(folder.path()).unwrap();
    assert_eq!((log.tail(), reader.tail()), (Lsn::ZERO, Lsn::ZERO));
    assert!(log.read(Lsn::FIRST, 1, 1).unwrap().is_empty() && reader.read(Lsn::FIRST, 1, 1).unwrap().is_empty());
    assert!(receipt.try_recv().is_err());
    go_on.send(()).unwrap();
    assert_eq!(receipt.blocking_recv().unwrap().unwrap(), Lsn(1));
    assert_eq!((log.tail(), reader.refresh().unwrap()), (Lsn(1), Lsn(1)));
}
