//! The process dies at any moment: what was acknowledged is there.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use super::{open, *};
use crate::log::{
    conformance::{all, number, record},
    verify::{Checks, verify},
};

const CHILD: &str = "EVERFOLD_LOG_CRASH_CHILD";

/// Not a test by itself: appends for ever in a process that the test below kills, and says what was acknowledged.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let log = open(Path::new(&folder));
    let first = log.tail().0 + 1_000;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for call in 0_u64.. {
                    let numbers: Vec<_> = (0..3).map(|n| first * 1_000_000 + writer * 100_000 + call * 3 + n).collect();
                    let records = numbers.iter().map(|n| record(*n, 1, 200)).collect();
                    for (n, receipt) in numbers.iter().zip(log.append(records)) {
                        let lsn = receipt.blocking_recv().unwrap().unwrap();
                        // The parent may have stopped listening.
                        let _ = std::io::stdout().write_all(format!("acknowledged {lsn} {n}\n").as_bytes());
                    }
                }
            });
        }
    });
}

#[test]
fn acknowledged_records_survive_kill() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged: Vec<(Lsn, u64)> = Vec::new();
    for wanted in [1, 10, 100, 700, 3] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::embedded::tests::crash::child", "--nocapture", "--test-threads=1"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let parse = |line: String| {
            let mut words = line.strip_prefix("acknowledged ")?.split(' ').map(|word| word.parse().unwrap());
            Some((Lsn(words.next()?), words.next()?))
        };
        acknowledged.extend(lines.by_ref().filter_map(parse).take(wanted));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts too. The last line may be cut off.
        let whole = |line: &String| line.ends_with(|c: char| c.is_ascii_digit()) && line.split(' ').count() == 3;
        let rest: Vec<_> = lines.filter(whole).collect();
        acknowledged.extend(rest.into_iter().rev().skip(1).filter_map(parse));

        let beside = EmbeddedLog::open_read_only(folder.path()).unwrap();
        let before = all(&beside);
        drop(beside);
        let log = open(folder.path());
        assert_eq!(all(&log), before, "reading shows the same without a recovery");
        for (lsn, n) in &acknowledged {
            let there = log.read(*lsn, 1, 1).unwrap();
            assert_eq!((there[0].lsn, number(&there[0].bytes)), (*lsn, *n));
        }
        assert_eq!(before.len() as u64, log.tail().0, "dense");
        let in_flight = log.tail().0 - acknowledged.iter().map(|(lsn, _)| lsn.0).max().unwrap();
        assert!(in_flight <= 24, "{in_flight} records that nobody was told of");
        verify(&log, Checks::default()).unwrap();
    }
}

fn wal(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    logs.sort();
    logs.pop().unwrap()
}

/// A loss of power in the middle of a write leaves a part of it, and of the note no more than that before it.
#[test]
fn a_torn_write_was_never_appended() {
    let folder = TempDir::new().unwrap();
    let log = open(folder.path());
    let append = |n| crate::log::conformance::append(&log, vec![record(n, 1, 100)]);
    (0..5).for_each(|n| drop(append(n)));
    let wal = wal(folder.path());
    let (short, note) =
        (std::fs::metadata(&wal).unwrap().len(), std::fs::read(folder.path().join("acknowledged")).unwrap());
    append(5);
    let long = std::fs::metadata(&wal).unwrap().len();
    for cut in (short..long).step_by(29).chain([long - 1]) {
        let torn = TempDir::new().unwrap();
        copy(folder.path(), torn.path());
        std::fs::File::options()
            .write(true)
            .open(torn.path().join(wal.file_name().unwrap()))
            .unwrap()
            .set_len(cut)
            .unwrap();
        // With the later note the record was acknowledged: then this is no torn write.
        for _ in 0..2 {
            match EmbeddedLog::create_or_open(torn.path(), EmbeddedOptions::default()) {
                Err(OpenError::Read(ReadError::Damaged { lsn: Lsn(6), why })) => {
                    assert!(why.contains("up to 6 were acknowledged"), "{why}");
                }
                Err(error) => panic!("{error}"),
                Ok(_) => panic!("a lost record was not noticed"),
            }
        }
        assert!(EmbeddedLog::open_read_only(torn.path()).is_err());
        std::fs::write(torn.path().join("acknowledged"), &note).unwrap();
        assert_eq!(all(&EmbeddedLog::open_read_only(torn.path()).unwrap()).len(), 5);
        let log = open(torn.path());
        assert_eq!(log.tail(), Lsn(5));
        crate::log::conformance::append(&log, vec![record(6, 1, 10)]);
        drop(log);
        assert_eq!(open(torn.path()).tail(), Lsn(6));
    }
}
