//! A fold that can't go on: nothing is written meanwhile, reading goes on, and so does writing once it can.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Lines, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use everfold::log::{EmbeddedLog, EmbeddedOptions, Log, LogReader};
use projections::{
    Position, View,
    models::{events, timeline},
};
use schemas::{FORMAT, Fact, Header, Lsn, Origin, Record, RecordId, facts::FormatBarrier};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{Client, TestServer, replay};

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

/// A record that only a newer Everfold can fold.
fn newer() -> bytes::Bytes {
    let header = Header {
        format: FORMAT,
        id: RecordId([9; 16]),
        attempt: 0,
        at_ms: 1,
        node: 1,
        origin: Origin::Server,
        cause: None,
        reads: vec![],
        writes: vec![],
        after: None,
    };
    let barrier = Fact::from(FormatBarrier { format: FORMAT + 1 });
    Record { header, facts: vec![barrier.encode()] }.encode().unwrap().into()
}

#[tokio::test]
async fn behind_a_format_barrier_a_server_only_reads() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let told = alice.say(&room, "before").await;
    let mut folded = Lsn::ZERO;
    let server = server
        .restart_after(|config| {
            let log = EmbeddedLog::create_or_open(&config.log_folder(), EmbeddedOptions::default()).unwrap();
            folded = log.tail();
            let appended = log.append(vec![newer()]).remove(0);
            std::thread::spawn(|| appended.blocking_recv().unwrap().unwrap()).join().unwrap();
        })
        .await
        .unwrap();
    let alice = server.client().with_token(alice.token());
    let event = alice.get(&format!("/rooms/{room}/event/{told}")).await.ok();
    assert_eq!(event["content"]["body"], "before");
    let refused = alice.put(&format!("/rooms/{room}/send/m.room.message/1"), json!({ "body": "after" })).await;
    assert_eq!(refused.error(), (503, "M_UNKNOWN"));
    assert!(refused["error"].as_str().unwrap().contains("run a newer Everfold"), "{}", refused.text);
    assert_eq!(alice.put("/user/@alice:test.example/account_data/a", json!({})).await.status, 503);
    assert_eq!(server.app().reader.tail(), folded.next(), "nothing was appended");
    let health = server.client().get("/health/ready").await;
    assert_eq!((health.status.as_u16(), &health["folded"], &health["ready"]), (503, &json!(folded.0), &json!(false)));
    server.stop().await;
}
