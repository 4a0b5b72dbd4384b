//! The program's tools, beside a server in a process of its own, and after it.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use everfold::{
    keys::OwnKey,
    log::{EmbeddedLog, EmbeddedOptions, Log, LogReader},
};
use ruma::server_name;
use schemas::{Fact, Lsn, Part, Record};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    cli::{Served, everfold, printed, run, text},
    common::Client,
};

/// A server with two people in a room, and what they said.
struct Town {
    data: TempDir,
    served: Served,
    anna: Client,
    bert: Client,
    room: String,
}

impl Town {
    async fn found() -> Self {
        let data = TempDir::new().unwrap();
        let served =
            Served::of(&mut everfold(data.path(), &["serve", "--listen", "127.0.0.1:0", "--registration", "open"]));
        let client = Client::new(served.url.clone());
        let register = async |name: &str| {
            let body = json!({ "username": name, "password": format!("password of {name}"), "auth": { "type": "m.login.dummy" } });
            client.logged_in(&client.post("/register", body).await.ok())
        };
        let (anna, bert) = (register("anna").await, register("bert").await);
        let room = anna.post("/createRoom", json!({ "preset": "public_chat", "name": "Town" })).await.ok();
        let room = room["room_id"].as_str().unwrap().to_owned();
        bert.post(&format!("/rooms/{room}/join"), json!({})).await.ok();
        let town = Self { data, served, anna, bert, room };
        town.say(&town.anna, "first").await;
        town.say(&town.bert, "second").await;
        town
    }

    async fn say(&self, who: &Client, body: &str) {
        who.put(&self.send(body), json!({ "msgtype": "m.text", "body": body })).await.ok();
    }

    fn send(&self, txn: &str) -> String {
        format!("/rooms/{}/send/m.room.message/{txn}", self.room)
    }

    fn tool(&self, arguments: &[&str]) -> Vec<Value> {
        tool(self.data.path(), arguments)
    }

    fn tail(&self) -> u64 {
        self.tool(&["log", "stat"])[0]["tail"].as_u64().unwrap()
    }
}

fn tool(data: &Path, arguments: &[&str]) -> Vec<Value> {
    printed(&run(&mut everfold(data, arguments), ""))
}

fn lsns(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["lsn"].as_u64().unwrap()).collect()
}

fn facts(record: &Value) -> Vec<&str> {
    record["facts"].as_array().unwrap().iter().map(|fact| fact["fact"].as_str().unwrap()).collect()
}

/// What a client that has just come sees said in the room.
async fn said(who: &Client, room: &str) -> Vec<String> {
    let sync = who.get("/sync?timeout=0").await.ok();
    let events = sync["rooms"]["join"][room]["timeline"]["events"].as_array().cloned().unwrap_or_default();
    events.iter().filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned)).collect()
}

#[tokio::test]
async fn the_log_is_read_beside_its_server() {
    let town = Town::found().await;
    let stat = town.tool(&["log", "stat"]).remove(0);
    let tail = stat["tail"].as_u64().unwrap();
    assert_eq!((&stat["server_name"], &stat["folded"], &stat["void"]), (&json!("localhost"), &json!(tail), &json!(0)));
    assert_eq!(stat["log_id"].as_str().map(str::len), Some(32));

    let dump = town.tool(&["log", "dump"]);
    assert_eq!(lsns(&dump), (1..=tail).collect::<Vec<_>>());
    assert_eq!(facts(&dump[0]), ["genesis"]);
    assert_eq!((&dump[0]["facts"][0]["server_name"], &dump[0]["void"]), (&json!("localhost"), &Value::Null));
    assert_eq!(
        (&dump.last().unwrap()["chain"], &dump.last().unwrap()["log_time"]),
        (&stat["chain"], &stat["log_time"])
    );
    let second = dump.iter().find(|record| record.to_string().contains("second")).expect("what Bert said");
    assert_eq!(second["header"]["origin"]["user"]["user"], "@bert:localhost");
    assert!(facts(second).contains(&"event_learned"), "{second}");
    let at = second["log_time"].as_u64().unwrap();

    assert_eq!(lsns(&town.tool(&["log", "tail", "-n", "2"])), [tail - 1, tail]);
    assert_eq!(town.tool(&["log", "tail"]).len(), 10.min(dump.len()));
    assert_eq!(lsns(&town.tool(&["log", "tail", "--from", "3"])), (3..=tail).collect::<Vec<_>>());
    assert_eq!(lsns(&town.tool(&["log", "dump", "--from", "2", "--until", "3"])), [2, 3]);
    let since = lsns(&town.tool(&["log", "dump", "--from", &format!("{at}ms")]));
    assert!(since.contains(&second["lsn"].as_u64().unwrap()) && since.len() < dump.len(), "{since:?}");
    assert!(town.tool(&["log", "dump", "--from", "2100-01-01T00:00:00Z"]).is_empty());
    for who in ["bert", "@bert:localhost"] {
        let his = town.tool(&["log", "tail", "--user", who]);
        assert!(
            his.len() >= 2 && his.iter().all(|record| record["header"]["origin"]["user"]["user"] == "@bert:localhost")
        );
    }
    let about = town.tool(&["log", "dump", "--room", &town.room, "--user", "anna"]);
    assert!(about.len() >= 2 && about.iter().all(|record| record.to_string().contains(&town.room)), "{about:?}");
    assert!(town.tool(&["log", "tail", "--user", "nobody"]).is_empty());

    let sound = town.tool(&["log", "verify"]).remove(0);
    assert_eq!((&sound["ok"], &sound["tail"], &sound["chain"]), (&json!(true), &json!(tail), &stat["chain"]));
    assert_eq!((&sound["read_models"], &sound["signatures"]), (&json!(tail), &json!(true)));
    assert!(sound["events"].as_u64().unwrap() >= 8, "{sound}");
    assert_eq!(town.tail(), tail, "looking appends nothing");
    assert_eq!(town.served.signal("TERM"), Some(0));
}

#[tokio::test]
async fn a_tail_follows_what_is_appended() {
    let town = Town::found().await;
    let tail = town.tail();
    let mut child =
        everfold(town.data.path(), &["log", "tail", "--follow", "-n", "1", "--room", &town.room]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = move || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(next()["lsn"], tail);
    for body in ["third", "fourth"] {
        town.say(&town.anna, body).await;
        town.bert.put("/profile/@bert:localhost/displayname", json!({ "displayname": body })).await.ok();
        while !next().to_string().contains(body) {}
    }
    child.kill().unwrap();
    child.wait().unwrap();
    town.served.signal("TERM");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let data = TempDir::new().unwrap();
    let served = Served::start(data.path());
    let mut child = everfold(data.path(), &["log", "tail", "--follow"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    drop(lines);
    run(&mut everfold(data.path(), &["user", "create", "anna"]), "");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output).as_str()), (Some(0), ""));
    served.signal("TERM");
}

/// Appends to a log without its server, as another node would.
fn append(data: &Path, records: impl IntoIterator<Item = Vec<u8>>) {
    let log = EmbeddedLog::create_or_open(&data.join("log"), EmbeddedOptions::default()).unwrap();
    for receipt in log.append(records.into_iter().map(Into::into).collect()) {
        receipt.blocking_recv().unwrap().unwrap();
    }
}

fn records(data: &Path) -> Vec<Vec<u8>> {
    let log = EmbeddedLog::open_read_only(&data.join("log")).unwrap();
    log.read(Lsn::FIRST, usize::MAX, usize::MAX).unwrap().iter().map(|entry| entry.bytes.to_vec()).collect()
}

#[tokio::test]
async fn void_records_are_shown_with_their_reason() {
    let town = Town::found().await;
    let Town { data, served, .. } = town;
    assert_eq!(served.signal("TERM"), Some(0));
    let path = data.path().to_owned();
    let appended = tokio::task::spawn_blocking(move || append(&path, [records(&path).remove(2)]));
    appended.await.unwrap();
    let void = |record: &Value| record["void"].clone();
    // The read models don't know of it yet; then they do.
    let last = tool(data.path(), &["log", "tail", "-n", "1"]).remove(0);
    assert_eq!(void(&last), json!({ "repeated": 3 }));
    let from_nothing = TempDir::new().unwrap();
    copy(&data.path().join("log"), &from_nothing.path().join("log"));
    assert_eq!(tool(from_nothing.path(), &["log", "tail", "-n", "1"]), std::slice::from_ref(&last));
    let served = Served::start(data.path());
    assert_eq!(tool(data.path(), &["log", "stat"])[0]["void"], 1);
    assert_eq!(tool(data.path(), &["log", "dump", "--from", &last["lsn"].to_string()]), [last]);
    served.signal("TERM");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() && entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// What `log verify` says of a damaged log: where, and why.
fn damage(data: &Path) -> (u64, String) {
    let output = run(&mut everfold(data, &["log", "verify"]), "");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["ok"], false);
    (found["lsn"].as_u64().unwrap(), found["why"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn an_altered_log_is_found_with_its_position() {
    let Town { data, served, .. } = Town::found().await;
    assert_eq!(served.signal("TERM"), Some(0));
    let folder = data.path().join("log");
    let tail = tool(data.path(), &["log", "verify"])[0]["tail"].as_u64().unwrap();

    // A byte on the disk.
    let tables: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    let table = tables.iter().find(|path| path.extension().is_some_and(|extension| extension == "sst")).unwrap();
    let whole = std::fs::read(table).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    std::fs::write(table, bytes).unwrap();
    let (lsn, why) = damage(data.path());
    assert!((1..=tail).contains(&lsn), "{lsn}: {why}");
    let dump = run(&mut everfold(data.path(), &["log", "dump"]), "");
    assert_eq!(dump.status.code(), Some(3), "{}", text(&dump));
    std::fs::write(table, whole).unwrap();
    assert_eq!(tool(data.path(), &["log", "verify"])[0]["ok"], true);

    // The whole log written anew, with checksums and chain, but with other content.
    let forge = async |from: &[u8], to: &[u8], keep: &[&str]| {
        let forged = TempDir::new().unwrap();
        let all = records(data.path());
        let alter = |record: &Vec<u8>| {
            let mut record = Record::decode(record).unwrap();
            for fact in &mut record.facts {
                *fact = altered(&fact.decode().unwrap(), from, to).encode();
            }
            record.encode().unwrap()
        };
        let new: Vec<_> = all.iter().map(alter).collect();
        let first = all.iter().zip(&new).position(|(old, new)| old != new).expect("something to alter") as u64 + 1;
        let path = forged.path().to_owned();
        tokio::task::spawn_blocking(move || append(&path, new)).await.unwrap();
        for name in keep {
            match std::fs::metadata(data.path().join(name)).unwrap().is_dir() {
                true => copy(&data.path().join(name), &forged.path().join(name)),
                false => drop(std::fs::copy(data.path().join(name), forged.path().join(name)).unwrap()),
            }
        }
        (first, forged)
    };
    let (first, forged) = forge(b"second", b"Second", &["signing.key"]).await;
    let (lsn, why) = damage(forged.path());
    assert!(lsn == first && why.contains("content hash") && why.contains("EventLearned"), "{lsn}: {why}");
    let (first, forged) = forge(b"anna", b"Anna", &["read-models"]).await;
    let (lsn, why) = damage(forged.path());
    assert!(lsn >= first && why.contains("altered"), "{lsn}: {why}");
}

#[tokio::test]
async fn a_signing_key_that_is_gone_is_replaced_by_request_alone() {
    let Town { data, served, .. } = Town::found().await;
    assert_eq!(served.signal("TERM"), Some(0));
    let file = data.path().join("signing.key");
    let old = std::fs::read_to_string(&file).unwrap();
    let public = OwnKey::open(&file, server_name!("localhost")).unwrap().public();
    std::fs::remove_file(&file).unwrap();
    for refused in [&["serve", "--listen", "127.0.0.1:0"][..], &["project"], &["user", "create", "carl"]] {
        let refused = run(&mut everfold(data.path(), refused), "password of carl\n");
        assert!(refused.status.code() == Some(1) && text(&refused).contains("--new-signing-key"), "{}", text(&refused));
        assert!(!file.exists());
    }
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--registration", "open", "--new-signing-key"];
    let served = Served::of(&mut everfold(data.path(), &arguments));
    let nobody = Client::new(served.url.clone());
    let body = json!({ "username": "carl", "password": "password of carl", "auth": { "type": "m.login.dummy" } });
    nobody.logged_in(&nobody.post("/register", body).await.ok()).room_with(&[]).await;
    assert_eq!(served.signal("TERM"), Some(0));
    let (_, why) = damage(data.path());
    assert!(why.contains("another key than those in signing.key"), "{why}");
    let new = std::fs::read_to_string(&file).unwrap();
    let name = old.split(' ').nth(1).unwrap();
    for with_old in [new.clone() + &old, format!("{new}old ed25519 {name} {public}\n")] {
        std::fs::write(&file, with_old).unwrap();
        assert_eq!(tool(data.path(), &["log", "verify"])[0]["signatures"], true);
    }
    std::fs::write(&file, old + &new).unwrap();
    assert_eq!(Served::start(data.path()).signal("TERM"), Some(0), "what it signed by before is its own");
}

/// A fact with other content: what users are called, and what they say.
fn altered(fact: &Fact, from: &[u8], to: &[u8]) -> Fact {
    let swap = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes).replace(&*String::from_utf8_lossy(from), &String::from_utf8_lossy(to))
    };
    match fact.clone() {
        Fact::EventLearned(mut event) if from == b"second" => {
            event.rest = event.rest.map(|rest| Part::clear(swap(rest.open().unwrap())));
            event.into()
        }
        Fact::UserRegistered(mut registered) => {
            registered.user = swap(registered.user.as_bytes());
            registered.into()
        }
        other => other,
    }
}

#[tokio::test]
async fn a_replay_shows_what_was_then_and_takes_no_writes() {
    let town = Town::found().await;
    let then = town.tail();
    let before = town.tool(&["digest"]);
    town.say(&town.anna, "later").await;
    let late = Client::new(town.served.url.clone());
    let body = json!({ "username": "late", "password": "password of late", "auth": { "type": "m.login.dummy" } });
    let late = late.logged_in(&late.post("/register", body).await.ok());
    assert_eq!(said(&town.bert, &town.room).await, ["first", "second", "later"]);

    let folder = TempDir::new().unwrap();
    let into = folder.path().join("then");
    let replay = |until: &str, into: &Path| {
        run(&mut everfold(town.data.path(), &["replay", "--until", until, "--into", into.to_str().unwrap()]), "")
    };
    assert_eq!(printed(&replay(&then.to_string(), &into))[0]["lsn"], then);
    let again = replay(&then.to_string(), &into);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("is not empty"), "{}", text(&again));
    let beyond = replay("4711", &folder.path().join("beyond"));
    assert!(beyond.status.code() == Some(1) && text(&beyond).contains("there is no record 4711"), "{}", text(&beyond));
    let now = folder.path().join("now");
    assert_eq!(printed(&replay("2100-01-01T00:00:00Z", &now))[0]["lsn"], town.tail());
    assert_eq!(tool(&now, &["digest"]), town.tool(&["digest"]));
    assert_eq!(tool(&into, &["digest"]), before);

    let shown = Served::of(&mut everfold(&into, &["serve", "--listen", "127.0.0.1:0", "--registration", "open"]));
    assert!(shown.greeting.contains(&format!("it shows what was at Lsn {then}")), "{}", shown.greeting);
    let nobody = Client::new(shown.url.clone());
    let (anna, bert) = (nobody.with_token(town.anna.token()), nobody.with_token(town.bert.token()));
    assert_eq!(nobody.get("/health/ready").await.ok()["tail"], then);
    assert_eq!(anna.get("/account/whoami").await.ok()["user_id"], "@anna:localhost");
    assert_eq!(said(&bert, &town.room).await, ["first", "second"]);
    let age =
        async || anna.get("/sync?timeout=0").await.ok()["rooms"]["join"][&town.room]["timeline"]["events"].clone();
    assert_eq!(age().await, age().await, "time stands still");
    let unknown = nobody.with_token(late.token()).get("/account/whoami").await;
    assert_eq!(unknown.error(), (401, "M_UNKNOWN_TOKEN"));

    let register = json!({ "username": "carl", "password": "password of carl", "auth": { "type": "m.login.dummy" } });
    for refused in [
        anna.put(&town.send("now"), json!({ "msgtype": "m.text", "body": "now" })).await,
        anna.put(&format!("/rooms/{}/state/m.room.topic", town.room), json!({ "topic": "now" })).await,
        anna.post("/createRoom", json!({})).await,
        bert.post(&format!("/rooms/{}/leave", town.room), json!({})).await,
        bert.put("/profile/@bert:localhost/displayname", json!({ "displayname": "Bert" })).await,
        bert.post("/logout", json!({})).await,
        bert.put(&format!("/rooms/{}/typing/@bert:localhost", town.room), json!({ "typing": true })).await,
        bert.put("/presence/@bert:localhost/status", json!({ "presence": "online" })).await,
        bert.post("/user/@bert:localhost/filter", json!({})).await,
        nobody.post("/register", register).await,
        nobody.log_in("anna", "password of anna", json!({})).await,
    ] {
        assert_eq!(refused.error(), (403, "M_FORBIDDEN"), "{}", refused.text);
        assert!(refused["error"].as_str().unwrap().contains(&format!("Lsn {then}")), "{}", refused.text);
    }
    assert_eq!(anna.put("/nonsense", json!({})).await.error(), (404, "M_UNRECOGNIZED"));
    assert_eq!(anna.post("/keys/query", json!({ "device_keys": {} })).await.status, 200);
    let users = tool(&into, &["user", "list"]);
    assert_eq!(users.iter().map(|user| &user["name"]).collect::<Vec<_>>(), ["@anna:localhost", "@bert:localhost"]);
    let created = run(&mut everfold(&into, &["user", "create", "carl"]), "");
    assert!(created.status.code() == Some(1) && text(&created).contains("can only be read"), "{}", text(&created));
    let stat = run(&mut everfold(&into, &["log", "stat"]), "");
    assert!(stat.status.code() == Some(1) && text(&stat).contains("is a replay up to"), "{}", text(&stat));
    assert_eq!(shown.signal("TERM"), Some(0));
    assert_eq!(tool(&into, &["digest"]), before, "serving it changes nothing");
    town.served.signal("TERM");
}

#[tokio::test]
async fn read_models_are_listed_and_folded_anew() {
    let town = Town::found().await;
    let tail = town.tail();
    let list =
        |name: &str| town.tool(&["projections", "list"]).into_iter().find(|model| model["name"] == name).unwrap();
    let before = list("accounts");
    assert_eq!((&before["generation"], &before["lsn"]), (&json!(1), &json!(tail)));
    assert!(before["rows"].as_u64().unwrap() >= 2, "{before}");
    let digest = town.tool(&["digest"]);
    assert_eq!((&digest[0]["lsn"], digest.len()), (&json!(tail), 1));

    let rebuilt = town.tool(&["projections", "rebuild", "accounts"]).remove(0);
    assert_eq!((&rebuilt["name"], &rebuilt["generation"]), (&json!("accounts"), &json!(2)));
    assert_eq!(list("accounts")["generation"], 2);
    assert_eq!((list("push")["generation"].clone(), town.tool(&["digest"])), (json!(1), digest.clone()));
    town.say(&town.anna, "still here").await;
    let unknown = run(&mut everfold(town.data.path(), &["projections", "rebuild", "nothing"]), "");
    assert!(unknown.status.code() == Some(1) && text(&unknown).contains("no read model nothing"), "{}", text(&unknown));
    let Town { data, served, .. } = town;
    assert_eq!(served.signal("TERM"), Some(0));

    let digest = tool(data.path(), &["digest"]);
    assert_eq!(tool(data.path(), &["projections", "rebuild", "accounts"])[0]["generation"], 3);
    assert_eq!(tool(data.path(), &["digest"]), digest);
    let nowhere = run(&mut everfold(&data.path().join("nowhere"), &["digest"]), "");
    assert!(nowhere.status.code() == Some(1) && text(&nowhere).contains("no read models"), "{}", text(&nowhere));
}

#[test]
fn a_folder_without_a_log_is_left_alone() {
    let data = TempDir::new().unwrap();
    for arguments in [
        &["log", "stat"][..],
        &["log", "tail"],
        &["log", "dump"],
        &["log", "verify"],
        &["replay", "--into", "x"],
        &["projections", "list"],
        &["projections", "rebuild", "accounts"],
        &["user", "create", "anna"],
    ] {
        let output = run(&mut everfold(data.path(), arguments), "");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
    }
    assert_eq!(std::fs::read_dir(data.path()).unwrap().count(), 0, "looking leaves nothing behind");
    for arguments in [&["log"][..], &["log", "tail", "--from", "yesterday"], &["replay"], &["projections", "rebuild"]] {
        let output = run(&mut everfold(data.path(), arguments), "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
    }
}

#[tokio::test]
async fn tools_beside_a_busy_server_agree_with_it() {
    let town = Arc::new(Town::found().await);
    let busy = Arc::clone(&town);
    let talk = tokio::spawn(async move {
        for n in 0..60 {
            busy.say(if n % 2 == 0 { &busy.anna } else { &busy.bert }, &format!("message {n}")).await;
        }
    });
    while !talk.is_finished() {
        let looking = Arc::clone(&town);
        let looked = tokio::task::spawn_blocking(move || {
            let sound = looking.tool(&["log", "verify"]).remove(0);
            let dump = looking.tool(&["log", "dump"]);
            (sound["tail"].as_u64().unwrap(), lsns(&dump), looking.tool(&["digest"]).remove(0))
        });
        let (tail, dumped, digest) = looked.await.unwrap();
        assert!(dumped.len() as u64 >= tail && dumped == (1..=dumped.len() as u64).collect::<Vec<_>>());
        assert!(digest["lsn"].as_u64().unwrap() >= tail);
    }
    talk.await.unwrap();
    let town = Arc::into_inner(town).unwrap();
    let digest = town.tool(&["digest"]);
    let again = TempDir::new().unwrap();
    town.tool(&["replay", "--into", again.path().to_str().unwrap()]);
    assert_eq!(tool(again.path(), &["digest"]), digest);
    town.served.signal("TERM");
}
