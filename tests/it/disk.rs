//! A fold that can't go on: nothing is written meanwhile, reading goes on, and so does writing once it can.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use everfold::{
    config::{Config, Sources},
    log::{EmbeddedLog, EmbeddedOptions, Log, amendments::Amendment},
};
use projections::{
    Position, View,
    models::{events, timeline},
};
use schemas::{CopyId, FORMAT, Fact, Header, Lsn, Origin, RawFact, Record, RecordId, facts::FormatBarrier};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cli::{Served, everfold, printed, run, text},
    common::{Client, TestServer, replay},
};

/// Mounts a small file system, runs the program on it, and ends it when told; stays until its input ends.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=160m none "$0" || exit 1
"$@" &
read _; kill $!; wait $!; echo ended with $?; read _
"#;

/// A server on a small file system of its own, where the machine lets an ordinary process make one.
struct OnSmallDisk {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    folder: TempDir,
}

impl OnSmallDisk {
    fn start() -> Option<(Self, String)> {
        let folder = TempDir::new().unwrap();
        let probe = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none"]).arg(folder.path()).output();
        if !probe.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let program = [env!("CARGO_BIN_EXE_everfold"), "serve", "--listen", "127.0.0.1:0", "--registration", "open"];
        let mut child = Command::new("unshare")
            .args(["-rm", "sh", "-c", SCRIPT])
            .arg(folder.path())
            .args(program)
            .arg("--data")
            .arg(folder.path().join("data"))
            .env("EVERFOLD_RATE_LIMITS", "off")
            .env("EVERFOLD_HTTP_REQUEST_TIMEOUT_SECONDS", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = stdout.next().unwrap().unwrap();
        let url = first.strip_prefix("listening on ").expect("it says where it listens").to_owned();
        Some((Self { child, stdout, folder }, url))
    }

    /// The file system's root, which nobody else sees.
    fn root(&self) -> PathBuf {
        let root = Path::new("/proc").join(self.child.id().to_string()).join("root");
        root.join(self.folder.path().strip_prefix("/").unwrap())
    }

    /// Fills it; what this gives empties it again.
    fn fill(&self) -> impl FnOnce() + use<> {
        let path = self.root().join("ballast");
        let mut ballast = File::create(&path).unwrap();
        while ballast.write_all(&[1; 1 << 16]).is_ok() {}
        move || fs::remove_file(path).unwrap()
    }

    /// Stops the server and gives a view of its read models, which must be the fold of its log.
    fn stop(mut self) -> View {
        let mut stdin = self.child.stdin.take().unwrap();
        writeln!(stdin).unwrap();
        assert!(self.stdout.any(|line| line.unwrap() == "ended with 0"));
        let data = self.root().join("data");
        let view = replay::check(&data.join("log"), &data.join("read-models"));
        drop(stdin);
        self.child.wait().unwrap();
        view
    }
}

/// The numbers of a room's messages, in order.
fn numbers(view: &View, room: &str) -> Vec<u64> {
    let room = events::room_nid(view, room).unwrap().unwrap();
    let number = |event| {
        let text = events::client(view, event).unwrap().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["content"]["number"].as_u64()
    };
    timeline::forward(view, room, Position::START).filter_map(|row| number(row.unwrap().1.event)).collect()
}

#[tokio::test]
async fn a_server_goes_on_after_a_full_disk() {
    let Some((disk, url)) = OnSmallDisk::start() else {
        eprintln!("no file system can be mounted here: only the log's injected faults are tested");
        return;
    };
    let client = Client::new(url);
    let body = json!({ "username": "alice", "password": "wonderland", "auth": { "type": "m.login.dummy" } });
    let alice = client.logged_in(&client.post("/register", body).await.ok());
    let room = alice.room_with(&[]).await;
    let (mut sent, mut acknowledged) = (0, Vec::new());
    let mut send = async |length: usize| {
        sent += 1;
        let body = json!({ "msgtype": "m.text", "body": "x".repeat(length), "number": sent });
        (sent, alice.put(&format!("/rooms/{room}/send/m.room.message/{sent}"), body).await)
    };
    for _ in 0..2 {
        let empty = disk.fill();
        let refused = loop {
            match send(30_000).await {
                (number, reply) if reply.status == 200 => acknowledged.push(number),
                (_, refused) => break refused,
            }
        };
        assert_eq!(refused.error(), (503, "M_UNKNOWN"));
        alice.get("/sync?timeout=0").await.ok();
        empty();
        // RocksDB may be busy with files of its own for some seconds.
        loop {
            let (number, reply) = send(1).await;
            if reply.status == 200 {
                acknowledged.push(number);
                break;
            }
        }
    }
    assert_eq!(client.get("/health/ready").await.status, 200);
    let shown = tokio::task::spawn_blocking(move || numbers(&disk.stop(), &room)).await.unwrap();
    assert!(acknowledged.iter().all(|number| shown.contains(number)), "{acknowledged:?} {shown:?}");
    assert!(shown.is_sorted_by(|a, b| a < b), "each once, in order: {shown:?}");
}

/// A record of another build's.
fn foreign(id: u8, facts: Vec<RawFact>) -> bytes::Bytes {
    let header = Header {
        format: FORMAT,
        id: RecordId([id; 16]),
        attempt: 0,
        copy: CopyId::default(),
        at_ms: 1,
        node: 1,
        origin: Origin::Server,
        cause: None,
        reads: vec![],
        writes: vec![],
        after: None,
    };
    Record { header, facts }.encode().unwrap().into()
}

/// Appends to the log of a server that is stopped, and says where that is.
fn append(config: &Config, record: bytes::Bytes) -> Lsn {
    let log = EmbeddedLog::create_or_open(&config.log_folder(), EmbeddedOptions::default()).unwrap();
    let appended = log.append(vec![record]).remove(0);
    std::thread::spawn(|| appended.blocking_recv().unwrap().unwrap()).join().unwrap()
}

#[tokio::test]
async fn behind_a_format_barrier_a_server_only_reads() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let told = alice.say(&room, "before").await;
    let folded = server.app().reader.tail();
    let barrier = foreign(9, vec![Fact::from(FormatBarrier { format: FORMAT + 1 }).encode()]);
    let mut appended = Lsn::ZERO;
    let server = server.restart_after(|config| appended = append(config, barrier)).await.unwrap();
    let alice = server.client().with_token(alice.token());
    let event = alice.get(&format!("/rooms/{room}/event/{told}")).await.ok();
    assert_eq!(event["content"]["body"], "before");
    let refused = alice.put(&format!("/rooms/{room}/send/m.room.message/1"), json!({ "body": "after" })).await;
    assert_eq!(refused.error(), (503, "M_UNKNOWN"));
    assert!(refused["error"].as_str().unwrap().contains("run a newer Everfold"), "{}", refused.text);
    assert_eq!(alice.put("/user/@alice:test.example/account_data/a", json!({})).await.status, 503);
    assert_eq!(server.app().reader.tail(), appended, "nothing was appended");
    let health = server.client().get("/health/ready").await;
    assert_eq!((health.status.as_u16(), &health["folded"], &health["ready"]), (503, &json!(folded.0), &json!(false)));
    let amendment = Amendment { void: appended, reason: "the newer build is not to come".into(), at_ms: 1 };
    let amend = |config: &Config| EmbeddedLog::amend(&config.log_folder(), &amendment).unwrap();
    server.restart_after(amend).await.unwrap().finish().await;
}

#[tokio::test]
async fn a_record_that_can_not_be_folded_is_taken_out_of_effect_by_hand() {
    let data = TempDir::new().unwrap();
    let serve = || everfold(data.path(), &["serve", "--listen", "127.0.0.1:0", "--registration", "open"]);
    let served = Served::of(&mut serve());
    let client = Client::new(served.url.clone());
    let body = json!({ "username": "alice", "password": "wonderland", "auth": { "type": "m.login.dummy" } });
    let alice = client.logged_in(&client.post("/register", body).await.ok());
    served.signal("TERM");

    let config = Config::load(Sources { flags: &[("data", data.path().display().to_string())], ..Sources::default() });
    let mut known = Fact::from(FormatBarrier { format: FORMAT }).encode();
    known.number = u16::MAX;
    let poison = append(&config.unwrap(), foreign(9, vec![known]));
    let amend = |lsn: Lsn, reason: &str| {
        run(&mut everfold(data.path(), &["log", "amend", "--void", &lsn.0.to_string(), "--reason", reason]), "")
    };
    let refused = run(&mut serve(), "");
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused);
    assert!(told.contains(&format!("record {} can't be folded", poison.0)) && told.contains("log amend"), "{told}");

    for (lsn, reason, why) in [
        (Lsn(poison.0 - 1), "a mistake", "has been folded"),
        (poison.next(), "a mistake", "there is no record"),
        (Lsn::FIRST, "a mistake", "can't be taken out"),
        (poison, " ", "--reason"),
    ] {
        let refused = amend(lsn, reason);
        assert_eq!(refused.status.code(), Some(1));
        assert!(text(&refused).contains(why), "{}", text(&refused));
    }
    assert_eq!(printed(&amend(poison, "made up by a test"))[0]["void"], poison.0);

    let served = Served::of(&mut serve());
    let alice = Client::new(served.url.clone()).with_token(alice.token());
    alice.room_with(&[]).await;
    assert!(text(&amend(poison.next(), "a mistake")).contains("has been folded"));
    served.signal("TERM");
    let shown = printed(&run(&mut everfold(data.path(), &["log", "dump", "--from", &poison.0.to_string()]), ""));
    assert_eq!((&shown[0]["void"], &shown[1]["void"]), (&json!("amended"), &Value::Null));
    let stat = printed(&run(&mut everfold(data.path(), &["log", "stat"]), "")).remove(0);
    assert_eq!((&stat["amended"][0]["reason"], &stat["void"]), (&json!("made up by a test"), &json!(1)));
    assert!(run(&mut everfold(data.path(), &["log", "verify"]), "").status.success());
    replay::check(&data.path().join("log"), &data.path().join("read-models"));
}
