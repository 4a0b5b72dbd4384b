//! A projector and servers beside it as real processes, of which some are killed with -9 under load: requests get 503 for a
//! while, everything goes on by itself, nothing acknowledged is lost, and nothing is there twice.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says so by panicking")]

#[expect(dead_code, clippy::expect_used, reason = "the tests in process use the rest of it")]
#[path = "it/common/client.rs"]
mod client;
#[path = "it/common/replay.rs"]
mod replay;
#[expect(dead_code, reason = "other tests use the rest of it")]
#[path = "kafka/said.rs"]
mod said;

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use client::Client;
use futures::future::join_all;
use http::StatusCode;
use projections::View;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

const WORKERS: usize = 6;
/// No request waits longer, whatever happens.
const LONGEST: Duration = Duration::from_secs(20);

fn everfold(data: &Path, arguments: &[&str]) -> Command {
    let told = File::options().create(true).append(true).open(data.join("told")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_everfold"));
    command.args(arguments).arg("--data").arg(data).env_remove("EVERFOLD_CONFIG").env("EVERFOLD_RATE_LIMITS", "off");
    command.env("EVERFOLD_SERVER_NAME", "test.example").env("EVERFOLD_REGISTRATION", "open");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(told);
    command
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    everfold(data, arguments).output().unwrap()
}

/// What a command printed, which must have done what it was asked.
fn printed(data: &Path, arguments: &[&str]) -> Value {
    let output = run(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", std::fs::read_to_string(data.join("told")).unwrap());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The program, as a process.
struct Process {
    child: Child,
    place: String,
    /// Kept, since it goes on writing.
    _output: BufReader<ChildStdout>,
}

impl Process {
    fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut child = everfold(data, arguments).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let place = line.trim().strip_prefix("listening on ");
        let told = || std::fs::read_to_string(data.join("told")).unwrap();
        let place = place.unwrap_or_else(|| panic!("{arguments:?} doesn't start: {}", told())).to_owned();
        Self { child, place, _output: output }
    }

    fn project(data: &Path) -> Self {
        Self::start(data, &["project"])
    }

    fn serve(data: &Path) -> Self {
        Self::start(data, &["serve", "--no-projector", "--listen", "127.0.0.1:0"])
    }

    fn kill(self) {
        drop(self);
    }

    fn stop(mut self) {
        assert!(Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

/// So that a test that fails leaves no process behind.
impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the servers are; they may come back elsewhere.
type Places = watch::Sender<[String; 2]>;

struct Worker<'a> {
    number: usize,
    user: Client,
    room: String,
    places: &'a Places,
    goes_on: &'a AtomicBool,
    acknowledged: &'a AtomicU64,
    longest_ms: &'a AtomicU64,
}

impl Worker<'_> {
    /// By its own server, or the other one now and then.
    fn client(&self, turn: usize) -> Client {
        self.user.at(self.places.borrow()[(self.number + turn / 7) % 2].clone())
    }

    /// Sends messages, each by one transaction id until it is acknowledged, and reads each back where it was acknowledged.
    async fn work(self) -> Vec<String> {
        let mut sent = Vec::new();
        while self.goes_on.load(Ordering::SeqCst) {
            let n = sent.len();
            let body = json!({ "msgtype": "m.text", "body": format!("{} {n}", self.number) });
            let path = format!("/rooms/{}/send/m.room.message/w{}t{n}", self.room, self.number);
            let deadline = Instant::now() + Duration::from_secs(60);
            let id = loop {
                let (client, began) = (self.client(n), Instant::now());
                let reply = client.request(http::Method::PUT, &path).json(&body).send().await;
                self.longest_ms.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap(), Ordering::SeqCst);
                assert!(Instant::now() < deadline, "message {n} of {} is never acknowledged", self.number);
                match reply {
                    Ok(reply) if reply.status() == StatusCode::OK => {
                        let reply: Value = reply.json().await.unwrap();
                        let id = reply["event_id"].as_str().unwrap().to_owned();
                        let read = client.request(http::Method::GET, &format!("/rooms/{}/event/{id}", self.room));
                        match read.send().await {
                            Ok(read) => {
                                assert_eq!(read.status(), StatusCode::OK, "what was acknowledged is read at once");
                            }
                            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                        }
                        break id;
                    }
                    Ok(reply) => assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE),
                    // This server was killed.
                    Err(_) => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            sent.push(id);
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        sent
    }
}

/// Waits until so many more messages are acknowledged: things go on.
async fn until_acknowledged(acknowledged: &AtomicU64, more: u64) {
    let until = acknowledged.load(Ordering::SeqCst) + more;
    let reached = async {
        while acknowledged.load(Ordering::SeqCst) < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), reached).await.unwrap();
}

struct Servers {
    data: PathBuf,
    places: Places,
    running: [Option<Process>; 2],
}

impl Servers {
    fn start(data: &Path) -> Self {
        let running = [Process::serve(data), Process::serve(data)];
        let places = watch::Sender::new([running[0].place.clone(), running[1].place.clone()]);
        Self { data: data.to_owned(), places, running: running.map(Some) }
    }

    fn restart(&mut self, at: usize) {
        self.running[at].take().unwrap().kill();
        let again = Process::serve(&self.data);
        self.places.send_modify(|places| places[at].clone_from(&again.place));
        self.running[at] = Some(again);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_may_be_killed_and_lose_nothing() {
    let folder = TempDir::new().unwrap();
    let data = folder.path();
    assert_eq!(run(data, &["project", "--check"]).status.code(), Some(1), "none runs");
    let mut projector = Some(Process::project(data));
    assert_eq!(printed(data, &["project", "--check"])["ready"], true);
    assert!(printed(data, &["user", "create", "root", "--admin"])["password"].is_string(), "with no server yet");
    let mut servers = Servers::start(data);
    let first = Client::new(servers.places.borrow()[0].clone());
    let register = async |name: String| {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": "a password", "auth": auth });
        first.logged_in(&first.post("/register", body).await.ok())
    };
    let keeper = register("keeper".into()).await;
    let room = keeper.post("/createRoom", json!({ "preset": "public_chat" })).await.ok();
    let room = room["room_id"].as_str().unwrap().to_owned();
    let (goes_on, acknowledged, longest_ms) = (AtomicBool::new(true), AtomicU64::new(0), AtomicU64::new(0));
    let places = servers.places.clone();
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let user = register(format!("worker{number}")).await;
        user.post(&format!("/join/{room}"), json!({})).await.ok();
        let (goes_on, acknowledged, longest_ms) = (&goes_on, &acknowledged, &longest_ms);
        workers.push(Worker { number, user, room: room.clone(), places: &places, goes_on, acknowledged, longest_ms });
    }
    // The other server shows all of that, too.
    let last = workers[WORKERS - 1].user.at(places.borrow()[1].clone());
    let shown = async {
        while last.get(&format!("/rooms/{room}/joined_members")).await.json["joined"].get(&last.user).is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), shown).await.unwrap();
    let work = join_all(workers.into_iter().map(Worker::work));
    let accidents = async {
        until_acknowledged(&acknowledged, 50).await;
        let rebuilding = tokio::task::spawn_blocking({
            let data = data.to_owned();
            move || printed(&data, &["projections", "rebuild", "timeline"])
        });
        until_acknowledged(&acknowledged, 50).await;
        assert_eq!(rebuilding.await.unwrap()["generation"], 2);
        for turn in 0..3 {
            projector.take().unwrap().kill();
            // For some time nobody folds.
            tokio::time::sleep(Duration::from_millis(300 * turn)).await;
            projector = Some(Process::project(data));
            until_acknowledged(&acknowledged, 50).await;
            servers.restart(usize::try_from(turn % 2).unwrap());
            until_acknowledged(&acknowledged, 50).await;
        }
        goes_on.store(false, Ordering::SeqCst);
    };
    let (sent, ()) = tokio::join!(work, accidents);
    println!("{} messages, the longest took {longest_ms:?} ms", acknowledged.load(Ordering::SeqCst));
    assert!(Duration::from_millis(longest_ms.into_inner()) < LONGEST);

    let tail = printed(data, &["log", "stat"]);
    let listed = run(data, &["projections", "list"]);
    assert!(listed.status.success());
    let digest = printed(data, &["digest"]);
    assert_eq!(digest["lsn"], tail["tail"], "{tail}");
    servers.running.into_iter().flatten().for_each(Process::stop);
    projector.unwrap().stop();
    let view = replay::check(&data.join("log"), &data.join("read-models"));
    assert_eq!(messages(&view, &room), sent, "each message once, in order, and nothing else");
    let told = std::fs::read_to_string(data.join("told")).unwrap();
    assert!(!told.contains("panicked"), "{told}");
}

/// The ids of what each worker has said, in the room's order.
fn messages(view: &View, room: &str) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = vec![Vec::new(); WORKERS];
    for (body, id) in said::said(view, room) {
        found[body.split(' ').next().unwrap().parse::<usize>().unwrap()].push(id);
    }
    found
}
