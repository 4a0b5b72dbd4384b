//! Logs that move to another place, and logs that are restored from an older copy.

use std::path::Path;

use everfold::{
    clock::{SystemClock, SystemRandom},
    config::Config,
    log::{EmbeddedLog, EmbeddedOptions, epoch},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cli::{Served, everfold, printed, run, text},
    common::{Client, SigningKey, TestServer, broker, replay},
};

/// The files of a folder and those below it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn place(folder: &Path) -> String {
    format!("embedded:{}", folder.display())
}

#[tokio::test]
async fn a_server_moves_with_its_log_and_keeps_its_read_models() {
    let (data, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (data, larger) = (data.path(), other.path().join("larger"));
    let serve =
        |data: &Path| Served::of(&mut everfold(data, &["serve", "--listen", "127.0.0.1:0", "--registration", "open"]));
    let served = serve(data);
    let client = Client::new(served.url.clone());
    let body = json!({ "username": "anna", "password": "her password", "auth": { "type": "m.login.dummy" } });
    let anna = client.logged_in(&client.post("/register", body).await.ok());
    let room = anna.room_with(&[]).await;
    let log_copy = |to: &Path, more: &[&str]| {
        let places = (place(data), place(to));
        run(&mut everfold(data, &[&["log", "copy", "--from", &places.0, "--to", &places.1], more].concat()), "")
    };
    let beside = printed(&log_copy(&larger, &[])).pop().unwrap();
    assert_eq!((&beside["in_use"], &beside["before"], &beside["records"]), (&json!(true), &json!(0), &beside["tail"]));
    anna.say(&room, "meanwhile").await;
    assert_eq!(served.signal("TERM"), Some(0));
    let digest = printed(&run(&mut everfold(data, &["digest"]), ""));

    let rest = printed(&log_copy(&larger, &[])).pop().unwrap();
    assert_eq!((&rest["in_use"], &rest["before"]), (&json!(false), &beside["tail"]));
    assert!(rest["records"].as_u64() >= Some(1), "{rest}");
    assert_eq!((&rest["source_chain"], &rest["target_chain"]), (&digest[0]["chain"], &digest[0]["chain"]));
    // What changing the settings does, where both logs can be in one folder.
    for name in ["read-models", "signing.key"] {
        std::fs::rename(data.join(name), larger.join(name)).unwrap();
    }
    assert_eq!(printed(&run(&mut everfold(&larger, &["digest"]), "")), digest);
    let served = serve(&larger);
    let anna = Client::new(served.url.clone()).with_token(anna.token());
    anna.say(&room, "here").await;
    let locked = log_copy(&larger, &[]);
    assert!(locked.status.code() == Some(1) && text(&locked).contains("another process has the log"));
    assert_eq!(served.signal("TERM"), Some(0));
    let beyond = log_copy(&larger, &[]);
    assert!(beyond.status.code() == Some(1) && text(&beyond).contains("holds something else"), "{}", text(&beyond));

    // An older copy in place of what clients have seen.
    let third = other.path().join("third");
    let epoch = printed(&log_copy(&third, &["--as-new-epoch"])).pop().unwrap();
    assert_eq!((&epoch["tail"], epoch["epoch"].as_u64().unwrap() >> 40), (&rest["tail"], 1));
    std::fs::copy(larger.join("signing.key"), third.join("signing.key")).unwrap();
    let served = serve(&third);
    Client::new(served.url.clone()).with_token(anna.token()).say(&room, "again").await;
    let stat = printed(&run(&mut everfold(&third, &["log", "stat"]), "")).remove(0);
    assert!(stat["tail"].as_u64() > epoch["epoch"].as_u64(), "{stat}");
    let last = printed(&run(&mut everfold(&third, &["log", "tail", "-n", "4"]), ""));
    assert_eq!(last.len(), 4);
    assert!(last.iter().any(|record| record["facts"][0]["fact"] == "epoch"), "{last:?}");
    let dump = ["log", "dump", "--from", "2", "--until", &(epoch["tail"].as_u64().unwrap() + 9).to_string()];
    assert_eq!(printed(&run(&mut everfold(&third, &dump), "")).last().unwrap()["lsn"], epoch["tail"]);
    assert_eq!(served.signal("TERM"), Some(0), "and a replay gives the same read models");
    for (from, to, why) in [("embedded:", "embedded:x", "data folder"), ("nowhere", "embedded:x", "data folder")] {
        let wrong = run(&mut everfold(data, &["log", "copy", "--from", from, "--to", to]), "");
        assert!(wrong.status.code() == Some(2) && text(&wrong).contains(why), "{}", text(&wrong));
    }
}

#[tokio::test]
async fn a_server_outgrows_its_machine_and_comes_back() {
    let Some(address) = tokio::task::spawn_blocking(broker::address).await.unwrap() else { return };
    let topic = |name: &str| format!("kafka://{address}/moving-{name}-{}", std::process::id());
    let (first, second) = (topic("first"), topic("second"));
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let data = at("data");
    let on = |data: &Path, log: &str, arguments: &[&str]| {
        let mut command = everfold(data, arguments);
        command.env("EVERFOLD_LOG_BACKEND", log);
        command
    };
    let serve = |data: &Path, log: &str| {
        Served::of(&mut on(data, log, &["serve", "--listen", "127.0.0.1:0", "--registration", "open"]))
    };
    let tool = |data: &Path, log: &str, arguments: &[&str]| {
        printed(&run(&mut on(data, log, arguments), "")).pop().expect("an object")
    };
    let log_copy = |from: &str, to: &str, more: &[&str]| {
        tool(&data, "embedded", &[&["log", "copy", "--from", from, "--to", to], more].concat())
    };
    let served = serve(&data, "embedded");
    let client = Client::new(served.url.clone());
    let body = json!({ "username": "anna", "password": "her password", "auth": { "type": "m.login.dummy" } });
    let anna = client.logged_in(&client.post("/register", body).await.ok());
    let room = anna.room_with(&[]).await;
    anna.say(&room, "embedded").await;
    assert_eq!(served.signal("TERM"), Some(0));

    // Stop, copy, change one line, start.
    let digest = tool(&data, "embedded", &["digest"]);
    let copied = log_copy(&place(&data), &first, &[]);
    assert_eq!((&copied["source_chain"], &copied["target_chain"]), (&digest["chain"], &digest["chain"]));
    std::fs::rename(data.join("log"), at("old")).unwrap();
    let served = serve(&data, &first);
    let anna = Client::new(served.url.clone()).with_token(anna.token());
    anna.say(&room, "kafka").await;
    assert_eq!(log_copy(&first, &place(&at("beside")), &[])["before"], 0, "beside the server");

    // Another node, with a snapshot and the rest.
    let taken = at("taken");
    let made = tool(&data, &first, &["snapshot", "create", "--with-signing-key", "--into", taken.to_str().unwrap()]);
    anna.say(&room, "after the snapshot").await;
    let node = at("node");
    let put_back = tool(&node, &first, &["snapshot", "restore", "--from", taken.to_str().unwrap()]);
    assert_eq!((&put_back["epoch"], &put_back["read_models"]), (&Value::Null, &made["read_models"]["lsn"]));
    assert_eq!(served.signal("TERM"), Some(0));
    let served = serve(&node, &first);
    let there = Client::new(served.url.clone()).with_token(anna.token());
    let said = there.page(&room, "dir=f&limit=100").await;
    assert_eq!(bodies(&said["chunk"]), ["embedded", "kafka", "after the snapshot"]);
    assert_eq!(served.signal("TERM"), Some(0));

    // And back, with the read models of the node.
    let back = at("back");
    log_copy(&first, &place(&back), &[]);
    for name in ["read-models", "signing.key"] {
        std::fs::rename(node.join(name), back.join(name)).unwrap();
    }
    let served = serve(&back, "embedded");
    Client::new(served.url.clone()).with_token(anna.token()).say(&room, "back").await;
    assert_eq!(served.signal("TERM"), Some(0), "and a replay gives the same read models");

    // An older copy in another topic.
    let epoch = log_copy(&place(&at("beside")), &second, &["--as-new-epoch"])["epoch"].as_u64().unwrap();
    let third = at("third");
    std::fs::create_dir(&third).unwrap();
    std::fs::copy(back.join("signing.key"), third.join("signing.key")).unwrap();
    let served = serve(&third, &second);
    let there = Client::new(served.url.clone()).with_token(anna.token());
    there.say(&room, "another").await;
    let said = there.page(&room, "dir=f&limit=100").await;
    assert_eq!(bodies(&said["chunk"]), ["embedded", "kafka", "another"]);
    assert_eq!(served.signal("TERM"), Some(0));
    assert_eq!(tool(&third, &second, &["log", "verify"])["ok"], true);
    let last = at("last");
    let copied = log_copy(&second, &place(&last), &[]);
    assert!(copied["tail"].as_u64() > Some(epoch) && copied["source_chain"] == copied["target_chain"], "{copied}");
    replay::check(&last.join("log"), &third.join("read-models"));
}

/// Puts an older log in place of a server's, as a new epoch.
pub fn restore(config: &Config, older: &Path) -> epoch::Begun {
    std::fs::remove_dir_all(config.log_folder()).unwrap();
    copy(older, &config.log_folder());
    let begin = || {
        let log = EmbeddedLog::create_or_open(&config.log_folder(), EmbeddedOptions::default()).unwrap();
        epoch::begin(&log, &SystemClock::default(), &SystemRandom).unwrap()
    };
    // Nothing may block in a test's own thread.
    std::thread::scope(|scope| scope.spawn(begin).join().unwrap())
}

fn one_time_key(n: usize) -> Value {
    let signature = json!({ "@u:test.example": { "ed25519:D": "c2ln" } });
    json!({ format!("signed_curve25519:K{n:03}"): { "key": format!("{n:0>43}"), "signatures": signature } })
}

fn count(reply: &Value, key: &str) -> Value {
    reply[key]["signed_curve25519"].clone()
}

struct Pair {
    alice: Client,
    bob: Client,
    /// Bob's second device.
    tablet: Client,
    room: String,
}

impl Pair {
    async fn meet(server: &TestServer) -> Self {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let tablet = bob.on_device("TABLET").await;
        let room = alice.room_with(&[&bob]).await;
        alice.set(&room, "m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await;
        alice.set(&room, "m.room.topic", "", json!({ "topic": "kept" })).await;
        for device in [&alice, &bob, &tablet] {
            let keys = SigningKey::of_device(&device.device).device_keys(device);
            device.post("/keys/upload", json!({ "device_keys": keys })).await.ok();
        }
        Self { alice, bob, tablet, room }
    }

    /// The same people at another server, or the same one under another URL.
    fn at(&self, server: &TestServer) -> Self {
        let client = |client: &Client| {
            let reply = json!({ "access_token": client.token(), "user_id": client.user, "device_id": client.device });
            server.client().logged_in(&reply)
        };
        let room = self.room.clone();
        Self { alice: client(&self.alice), bob: client(&self.bob), tablet: client(&self.tablet), room }
    }

    async fn claim(&self) -> Value {
        let wanted = json!({ &self.alice.user: { &self.alice.device: "signed_curve25519" } });
        let claimed = self.bob.post("/keys/claim", json!({ "one_time_keys": wanted })).await.ok();
        let keys = claimed["one_time_keys"][&self.alice.user][&self.alice.device].as_object().cloned();
        keys.unwrap_or_default().keys().next().cloned().into()
    }

    fn send(&self, txn: &str) -> String {
        format!("/rooms/{}/send/m.room.message/{txn}", self.room)
    }
}

async fn next_batch(client: &Client) -> String {
    client.get("/sync?timeout=0").await.ok()["next_batch"].as_str().unwrap().to_owned()
}

fn bodies(events: &Value) -> Vec<&str> {
    events.as_array().into_iter().flatten().filter_map(|event| event["content"]["body"].as_str()).collect()
}

#[tokio::test]
async fn a_restored_log_goes_on_in_a_new_epoch() {
    let (server, older) = (TestServer::start().await, TempDir::new().unwrap());
    let pair = Pair::meet(&server).await;
    for n in 1..4 {
        pair.alice.post("/keys/upload", json!({ "one_time_keys": one_time_key(n) })).await.ok();
    }
    let fallback = json!({ "signed_curve25519:F": one_time_key(9)["signed_curve25519:K009"] });
    pair.alice.post("/keys/upload", json!({ "fallback_keys": fallback })).await.ok();
    assert_eq!(pair.claim().await, "signed_curve25519:K001");
    pair.alice.say(&pair.room, "before").await;
    let before = next_batch(&pair.alice).await;
    let server = server.restart_after(|config| copy(&config.log_folder(), older.path())).await.unwrap();

    // What will be lost.
    let pair = pair.at(&server);
    let fork = server.app().view().unwrap().cursor().clone();
    assert_eq!(pair.claim().await, "signed_curve25519:K002");
    let lost = pair.alice.put(&pair.send("txn"), json!({ "msgtype": "m.text", "body": "lost" })).await.ok();
    pair.alice.set(&pair.room, "m.room.topic", "", json!({ "topic": "lost" })).await;
    pair.tablet.post("/logout", json!({})).await.ok();
    let to_bob = |n: u8| json!({ "messages": { &pair.bob.user: { "*": { "n": n } } } });
    pair.alice.put("/sendToDevice/m.test/1", to_bob(1)).await.ok();
    let tokens = (next_batch(&pair.alice).await, next_batch(&pair.bob).await);
    let page = pair.alice.page(&pair.room, "dir=f&limit=1000").await;
    let page = page["end"].as_str().map_or_else(|| tokens.0.clone(), ToOwned::to_owned);
    let lost_lsn = server.app().view().unwrap().lsn();

    let mut begun = None;
    let restored = server.restart_after(|config| {
        std::fs::remove_dir_all(config.read_models_folder()).unwrap();
        begun = Some(restore(config, older.path()));
    });
    let (server, pair) = (restored.await.unwrap(), &pair);
    let (begun, pair) = (begun.unwrap(), pair.at(&server));
    assert_eq!((begun.fork, begun.chain), (fork.lsn, fork.chain));
    let cursor = server.app().view().unwrap().cursor().clone();
    assert!(cursor.lsn >= begun.lsn && begun.lsn > lost_lsn && cursor.log_time.ms >= fork.log_time.ms);

    // Who has seen what is lost learns what is: the state, and everybody's devices. It comes at once.
    let sync = pair.alice.get(&format!("/sync?timeout=30000&since={}", tokens.0)).await.ok();
    let joined = &sync["rooms"]["join"][&pair.room];
    assert!(bodies(&joined["timeline"]["events"]).is_empty(), "{joined}");
    let topics = joined["state"]["events"].as_array().unwrap().iter().filter(|event| event["type"] == "m.room.topic");
    assert_eq!(topics.map(|topic| &topic["content"]["topic"]).collect::<Vec<_>>(), ["kept"]);
    let mut changed: Vec<_> = sync["device_lists"]["changed"].as_array().unwrap().iter().collect();
    changed.sort_by_key(ToString::to_string);
    assert_eq!(changed, [&json!(pair.alice.user), &json!(pair.bob.user)]);
    let since = sync["next_batch"].as_str().unwrap();
    let changes = pair.alice.get(&format!("/keys/changes?from={}&to={since}", tokens.0)).await.ok();
    assert_eq!(changes["changed"].as_array().unwrap().len(), 2, "{changes}");
    let devices = pair.alice.post("/keys/query", json!({ "device_keys": { &pair.bob.user: [] } })).await.ok();
    assert_eq!(devices["device_keys"][&pair.bob.user].as_object().unwrap().len(), 2, "what was logged out is back");

    // Nobody knows which one-time keys were given away, so none is given twice.
    assert_eq!(count(&sync, "device_one_time_keys_count"), 0);
    assert_eq!(sync["device_unused_fallback_key_types"], json!([]));
    assert_eq!(pair.claim().await, "signed_curve25519:F");
    pair.alice.post("/keys/upload", json!({ "one_time_keys": one_time_key(7) })).await.ok();
    assert_eq!(pair.claim().await, "signed_curve25519:K007");

    // A transaction id of the lost future is free; what it named is not there.
    let again = pair.alice.put(&pair.send("txn"), json!({ "msgtype": "m.text", "body": "after" })).await.ok();
    assert_ne!(again["event_id"], lost["event_id"]);
    let gone = format!("/rooms/{}/event/{}", pair.room, lost["event_id"].as_str().unwrap());
    assert_eq!(pair.alice.get(&gone).await.error(), (404, "M_NOT_FOUND"));
    pair.alice.put("/sendToDevice/m.test/1", to_bob(2)).await.ok();

    // Tokens of before, of what was lost, and of now.
    let of_bob = pair.bob.get(&format!("/sync?timeout=0&since={}", tokens.1)).await.ok();
    assert_eq!(of_bob["to_device"]["events"][0]["content"], json!({ "n": 2 }));
    assert_eq!(bodies(&of_bob["rooms"]["join"][&pair.room]["timeline"]["events"]), ["after"]);
    for token in [&before, &tokens.0, since] {
        let sync = pair.alice.get(&format!("/sync?timeout=0&since={token}")).await.ok();
        assert_eq!(bodies(&sync["rooms"]["join"][&pair.room]["timeline"]["events"]), ["after"], "since {token}");
        let later = pair.alice.page(&pair.room, &format!("dir=f&from={token}")).await;
        assert_eq!(bodies(&later["chunk"]), ["after"], "from {token}");
    }
    let earlier = pair.alice.page(&pair.room, &format!("dir=b&limit=100&from={page}")).await;
    assert_eq!(bodies(&earlier["chunk"]), ["before"], "from {page}");
    let now = pair.alice.get(&format!("/sync?timeout=0&since={since}")).await.ok();
    assert!(now["rooms"]["join"][&pair.room]["state"]["events"].as_array().is_none_or(Vec::is_empty), "{now}");

    server.restart().await.finish().await;
}
