//! Snapshots: made beside a server, and what begins from one.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use everfold::{
    log::{Log, LogReader, ReadError, Receipt},
    snapshot::State,
};
use projections::{Entry, digest};
use schemas::Lsn;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cli::{Served, everfold, printed, run, text},
    common::{Client, HeldLog, TestServer, forward_reads, until},
    moving::copy,
};

const SNAPSHOT: &str = "/_everfold/admin/v1/snapshot";

fn serve(data: &Path) -> Served {
    Served::of(
        everfold(data, &["serve", "--listen", "127.0.0.1:0", "--registration", "open"])
            .env("EVERFOLD_RATE_LIMITS", "off"),
    )
}

fn tool(data: &Path, arguments: &[&str]) -> Value {
    printed(&run(&mut everfold(data, arguments), "")).pop().expect("an object")
}

fn refused(data: &Path, arguments: &[&str], why: &str) {
    let output = run(&mut everfold(data, arguments), "");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains(why), "{}", text(&output));
}

/// All files of a snapshot.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

async fn said(who: &Client, room: &str) -> Vec<String> {
    let page = who.page(room, "dir=b&limit=1000").await;
    let events = page["chunk"].as_array().unwrap().iter().rev();
    events.filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned)).collect()
}

#[tokio::test]
async fn a_snapshot_of_a_busy_server_is_as_of_one_record() {
    let (data, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (into, restored, again) =
        (folder.path().join("taken"), folder.path().join("restored"), folder.path().join("again"));
    let served = serve(data.path());
    let client = Client::new(served.url.clone());
    let body = json!({ "username": "anna", "password": "her password", "auth": { "type": "m.login.dummy" } });
    let anna = client.logged_in(&client.post("/register", body).await.ok());
    let room = anna.room_with(&[]).await;
    let (busy, place) = (anna.clone(), room.clone());
    let talk = tokio::spawn(async move {
        let mut n = 0;
        loop {
            busy.say(&place, &format!("message {n}")).await;
            n += 1;
        }
    });
    until(async || said(&anna, &room).await.len() > 5).await;
    let create = ["snapshot", "create", "--into", into.to_str().unwrap()];
    let (path, arguments) = (data.path().to_owned(), create.map(ToOwned::to_owned));
    let made = tokio::task::spawn_blocking(move || tool(&path, &arguments.each_ref().map(String::as_str)));
    let made = made.await.unwrap();
    let now = said(&anna, &room).await.pop();
    until(async || said(&anna, &room).await.pop() != now).await;
    talk.abort();
    let (models, log) = (made["read_models"]["lsn"].as_u64().unwrap(), made["log"]["lsn"].as_u64().unwrap());
    assert!(models <= log && models > 5, "{made}");
    assert!(!into.with_file_name("taken.partial").exists() && !into.join("signing.key").exists());
    refused(data.path(), &create, "is not empty");
    let before = files(&into);

    // The read models are those of that record, and no other.
    let restore = ["snapshot", "restore", "--nothing-written-since", "--from", into.to_str().unwrap()];
    let put_back = tool(&restored, &restore);
    assert_eq!((&put_back["read_models"], &put_back["log"]), (&json!(models), &json!(log)));
    assert_eq!((&put_back["epoch"], &put_back["has_signing_key"]), (&Value::Null, &json!(false)));
    let (until, replayed) = (models.to_string(), again.to_str().unwrap());
    tool(data.path(), &["replay", "--until", &until, "--into", replayed]);
    assert_eq!(tool(&restored, &["digest"]), tool(&again, &["digest"]));
    assert_eq!(tool(&restored, &["log", "verify"])["tail"], log);
    assert_eq!(files(&into), before, "a snapshot can be restored more than once");
    refused(&restored, &restore, "is there already");

    let mut elsewhere = everfold(&folder.path().join("elsewhere"), &restore);
    let elsewhere = run(elsewhere.env("EVERFOLD_LOG_BACKEND", "kafka://localhost:9092/everfold"), "");
    assert!(
        elsewhere.status.code() == Some(1) && text(&elsewhere).contains("a log of its own"),
        "{}",
        text(&elsewhere)
    );

    // It goes on from there, and with the key, under its own name.
    std::fs::copy(data.path().join("signing.key"), restored.join("signing.key")).unwrap();
    assert_eq!(served.signal("TERM"), Some(0));
    let served = serve(&restored);
    let anna = Client::new(served.url.clone()).with_token(anna.token());
    let heard = said(&anna, &room).await;
    assert!(heard.len() > 5, "{heard:?}");
    anna.say(&room, "goes on").await;
    assert_eq!(served.signal("TERM"), Some(0));
}

#[tokio::test]
async fn a_snapshot_that_is_not_what_it_was_is_not_restored() {
    let (data, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (into, restored) = (folder.path().join("taken"), folder.path().join("restored"));
    Served::start(data.path()).signal("TERM");
    // Where no server runs, too, and with the key where it is wanted.
    let made = tool(data.path(), &["snapshot", "create", "--with-signing-key", "--into", into.to_str().unwrap()]);
    assert_eq!(made["read_models"]["lsn"], made["log"]["lsn"]);
    let manifest: Value = serde_json::from_slice(&std::fs::read(into.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((&manifest["format"], &manifest["server_name"]), (&json!(1), &json!("localhost")));
    let restore = |from: &Path, why: &str| {
        refused(&restored, &["snapshot", "restore", "--from", from.to_str().unwrap()], why);
        let left = std::fs::read_dir(&restored).map_or(0, Iterator::count);
        assert_eq!(left, 0, "something was left: {why}");
    };
    restore(folder.path(), "is no snapshot");
    for file in files(&into).iter().filter(|file| !file.ends_with("manifest.json")) {
        let harmed = TempDir::new().unwrap();
        copy(&into, harmed.path());
        let file = harmed.path().join(file.strip_prefix(&into).unwrap());
        let mut bytes = std::fs::read(&file).unwrap();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
            std::fs::write(&file, &bytes).unwrap();
            restore(harmed.path(), "is not what the manifest says");
        }
        std::fs::remove_file(&file).unwrap();
        restore(harmed.path(), "is missing");
    }
    for (key, value, why) in [
        ("format", json!(2), "has format 2"),
        ("files", json!([{ "path": "../outside", "bytes": 1, "sha256": "" }]), "is not a path in it"),
        ("files", json!(7), "is malformed"),
    ] {
        let harmed = TempDir::new().unwrap();
        copy(&into, harmed.path());
        let mut manifest = manifest.clone();
        manifest[key] = value;
        std::fs::write(harmed.path().join("manifest.json"), manifest.to_string()).unwrap();
        restore(harmed.path(), why);
    }
    let other = TempDir::new().unwrap();
    std::fs::write(other.path().join("signing.key"), "another").unwrap();
    refused(other.path(), &["snapshot", "restore", "--from", into.to_str().unwrap()], "is another key");

    // An older log: it goes on in a new epoch, unless nothing was written since.
    let back = tool(&restored, &["snapshot", "restore", "--from", into.to_str().unwrap()]);
    assert_eq!((&back["has_signing_key"], back["epoch"].as_u64().unwrap() >> 40), (&json!(true), 1));
    assert_eq!(tool(&restored, &["log", "tail", "-n", "1"])["facts"][0]["fork"], made["log"]["lsn"]);
    let served = Served::start(&restored);
    assert!(run(&mut everfold(&restored, &["user", "create", "anna"]), "").status.success());
    assert_eq!(served.signal("TERM"), Some(0));
    let key = |data: &Path| std::fs::read(data.join("signing.key")).unwrap();
    assert_eq!(key(&restored), key(data.path()));
}

#[tokio::test]
async fn a_projector_makes_snapshots_for_those_who_serve_beside_it() {
    let (data, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let into = folder.path().join("taken");
    let mut projector = everfold(data.path(), &["project"]).spawn().unwrap();
    let ready = async || run(&mut everfold(data.path(), &["project", "--check"]), "").status.success();
    until(ready).await;
    let served = Served::of(&mut everfold(data.path(), &["serve", "--no-projector", "--listen", "127.0.0.1:0"]));
    let create = ["snapshot", "create", "--into", into.to_str().unwrap()];
    let made = tool(data.path(), &create);
    assert!(made["log"]["lsn"].as_u64() >= Some(1), "{made}");
    refused(data.path(), &create, "is not empty");
    let kill = |id: u32| std::process::Command::new("kill").args(["-s", "TERM", &id.to_string()]).status().unwrap();
    kill(projector.id());
    assert!(projector.wait().unwrap().success());
    let restored = folder.path().join("restored");
    tool(&restored, &["snapshot", "restore", "--nothing-written-since", "--from", into.to_str().unwrap()]);
    assert_eq!(tool(&restored, &["log", "verify"])["tail"], made["log"]["lsn"]);
    assert_eq!(served.signal("TERM"), Some(0));
}

/// A log that notes from where on it is read.
struct Watched {
    log: Arc<dyn Log>,
    lowest: Mutex<Option<Lsn>>,
}

impl LogReader for Watched {
    forward_reads!(log);

    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        // A look at one record is no fold.
        if records > 1 {
            let mut lowest = self.lowest.lock().unwrap();
            *lowest = Some(lowest.map_or(from, |lowest| lowest.min(from)));
        }
        self.log.read(from, records, bytes)
    }
}

impl Log for Watched {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        self.log.append(records)
    }

    fn close(&self) {
        self.log.close();
    }
}

async fn taken(admin: &Client, into: &Path) -> Value {
    let asked = admin.post(SNAPSHOT, json!({ "into": into })).await;
    assert_eq!(asked.status, 202, "{}", asked.text);
    until(async || admin.get(SNAPSHOT).await.ok()["state"] != "running").await;
    admin.get(SNAPSHOT).await.ok()
}

#[tokio::test]
async fn a_node_begins_with_a_snapshot_and_the_rest_of_the_log() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let (admin, folder) = (server.admin("admin").await, TempDir::new().unwrap());
    let room = admin.room_with(&[]).await;
    admin.say(&room, "before").await;
    let into = folder.path().join("taken");
    let made = taken(&admin, &into).await;
    assert_eq!((&made["state"], &made["log"]), (&json!("done"), &Value::Null), "the log is not this node's: {made}");
    admin.say(&room, "after").await;

    let watched = Arc::new(Watched { log: log.beside(), lowest: Mutex::default() });
    let node = server.node_from(Arc::clone(&watched) as Arc<dyn Log>, &into).await;
    let lowest = watched.lowest.lock().unwrap().expect("it has read");
    assert_eq!(lowest.0, made["read_models"]["lsn"].as_u64().unwrap() + 1, "it folded what came after the snapshot");
    let there = node.client().with_token(admin.token());
    assert_eq!(said(&there, &room).await, ["before", "after"]);
    there.say(&room, "from the new node").await;
    until(async || said(&admin, &room).await.len() == 3).await;
    let digest = |server: &TestServer| digest::all(&server.app().view().unwrap()).unwrap();
    assert_eq!(digest(&node), digest(&server));
    node.stop().await;
    server.finish().await;
}

#[tokio::test]
async fn snapshots_are_for_administrators_and_made_one_at_a_time() {
    let server = TestServer::start().await;
    let (admin, alice, folder) = (server.admin("admin").await, server.user("alice").await, TempDir::new().unwrap());
    let into = folder.path().join("taken");
    let body = json!({ "into": into });
    assert_eq!(alice.post(SNAPSHOT, body.clone()).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.get(SNAPSHOT).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(admin.get(SNAPSHOT).await.ok(), json!({ "state": "none" }));
    for wrong in [json!({ "into": "taken" }), json!({ "into": "/" }), json!({ "into": folder.path().join("..") })] {
        assert_eq!(admin.post(SNAPSHOT, wrong).await.error(), (400, "M_INVALID_PARAM"));
    }
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let asked = futures::future::join_all([first, second].map(|into| {
        let admin = admin.clone();
        async move { admin.post(SNAPSHOT, json!({ "into": into })).await.status.as_u16() }
    }));
    let asked = asked.await;
    assert!(asked.contains(&202) && asked.iter().all(|status| [202, 409].contains(status)), "{asked:?}");
    until(async || !matches!(server.app().snapshots.state().await.unwrap(), State::Running { .. })).await;
    let made = taken(&admin, &into).await;
    assert_eq!(made["state"], "done", "{made}");
    assert_eq!(admin.post(SNAPSHOT, body).await.error(), (400, "M_INVALID_PARAM"), "it is there");
    // Where nothing can be made, nothing is left.
    std::fs::write(folder.path().join("file"), "").unwrap();
    let below = taken(&admin, &folder.path().join("file.partial")).await;
    assert_eq!(below["state"], "done");
    let error = admin.post(SNAPSHOT, json!({ "into": folder.path().join("file/below") })).await;
    assert_eq!(error.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}
