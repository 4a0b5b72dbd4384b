//! Logs that go to a topic, and topics that are not what read models were folded from.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use everfold::log::{EmbeddedLog, EmbeddedOptions, Log};
use http::StatusCode;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use schemas::{
    After, Blob, CopyId, FORMAT, Fact, Header, Json, Origin, RawFact, Record, RecordId,
    facts::{Genesis, ProfileFieldSet},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{broker, client::Client, served::Place};

/// How long something may take that must happen.
const LONG: Duration = Duration::from_secs(60);

/// Puts a log of so many records into a data folder.
fn fill(data: &Path, records: u64) {
    let log = EmbeddedLog::create_or_open(&data.join("log"), EmbeddedOptions::default()).unwrap();
    let record = |n: u64| {
        let fact: Fact = if n == 0 {
            Genesis { log_id: Blob(vec![7; 16]), server_name: "test.example".into(), format: FORMAT }.into()
        } else {
            let note = Json::from(format!("{:?}", "note ".repeat(200)));
            ProfileFieldSet { user: format!("@u{n}:test.example"), field: "note".into(), value: Some(note) }.into()
        };
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let header = Header::plain(After { id: RecordId(id), copy: CopyId::default() }, 1_000 + n, Origin::Server);
        Record { header, facts: vec![RawFact::from(&fact)] }.encode().unwrap().into()
    };
    for first in (0..records).step_by(1_000) {
        let receipts = log.append((first..records.min(first + 1_000)).map(record).collect());
        receipts.into_iter().for_each(|receipt| _ = receipt.blocking_recv().unwrap().unwrap());
    }
    log.close();
}

/// How many messages there are in a topic: none if it is not there yet.
fn messages(brokers: &str, topic: &str) -> i64 {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    consumer.fetch_watermarks(topic, 0, Duration::from_secs(5)).map_or(0, |(_, end)| end)
}

#[test]
fn a_copy_to_a_topic_that_is_killed_goes_on_where_it_was() {
    const RECORDS: i64 = 40_000;
    let Some(brokers) = broker::address() else { return };
    let (place, data) = (Place::on(&brokers), TempDir::new().unwrap());
    fill(data.path(), RECORDS as u64);
    let from = format!("embedded:{}", data.path().display());
    let arguments = ["log", "copy", "--from", &from, "--to", &place.log()];
    let (mut there, began) = (0, Instant::now());
    for _ in 0..2 {
        let mut copying = place.begin(&arguments);
        while messages(&brokers, place.topic()) <= there {
            assert!(began.elapsed() < LONG && copying.try_wait().unwrap().is_none(), "it copies nothing");
        }
        copying.kill().unwrap();
        copying.wait().unwrap();
        let killed = messages(&brokers, place.topic());
        assert!((there + 1..RECORDS).contains(&killed), "{killed} records were there when it was killed");
        there = killed;
    }
    let copied = place.objects(&arguments).pop().unwrap();
    // The brokers may have had some of it that they had not told of yet.
    let before = copied["before"].as_i64().unwrap();
    assert!((there..RECORDS).contains(&before), "{there}: {copied}");
    assert_eq!((&copied["records"], &copied["tail"]), (&json!(RECORDS - before), &json!(RECORDS)), "{copied}");
    assert_eq!(copied["source_chain"], copied["target_chain"]);
    assert_eq!(place.tool(&["log", "verify"])["chain"], copied["source_chain"]);
}

#[tokio::test]
async fn nothing_is_copied_into_a_topic_that_a_server_runs_on() {
    let Some(brokers) = broker::address() else { return };
    let place = Place::on(&brokers);
    let served = place.start();
    served.register("alice").await;
    let beside = format!("embedded:{}", place.data().join("copy").display());
    let back = ["log", "copy", "--from", &beside, "--to", &place.log()];
    place.tool(&["log", "copy", "--from", &place.log(), "--to", &beside]);
    let why = place.refusal(&back);
    assert!(why.contains("a server runs on the Kafka topic") && why.contains("Stop all of them first"), "{why}");
    served.register("bob").await;
    served.stop();
    // What was folded meanwhile is there; the copy lacks it, and that is seen.
    let why = place.refusal(&back);
    assert!(why.contains("the target holds something else than the source"), "{why}");
    place.check();
}

#[tokio::test]
async fn a_topic_that_is_made_anew_under_a_server_is_noticed() {
    let Some(brokers) = broker::address() else { return };
    let place = Place::on(&brokers);
    let served = place.start();
    let alice = served.register("alice").await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(LONG));
    admin.delete_topics(&[place.topic()], &options).await.unwrap().remove(0).unwrap();
    let began = Instant::now();
    let made = NewTopic::new(place.topic(), 1, TopicReplication::Fixed(1));
    while admin.create_topics([&made], &options).await.unwrap().remove(0).is_err() {
        assert!(began.elapsed() < LONG, "the brokers don't forget the topic");
    }
    let health = Client::new(served.url.clone());
    let why = loop {
        let ready = health.get("/health/ready").await;
        if ready.status == StatusCode::SERVICE_UNAVAILABLE {
            break ready.json["stopped"].as_str().unwrap().to_owned();
        }
        assert!(began.elapsed() < LONG, "nothing is noticed: {}", ready.text);
    };
    assert!(why.contains("has lost records or was made anew while the server ran"), "{why}");
    let refused = alice.post("/createRoom", json!({})).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.text.contains("was made anew"), "{}", refused.text);
    let whoami = alice.get("/account/whoami").await.ok();
    assert_eq!(whoami["user_id"], "@alice:test.example", "what is folded can be read");
    served.stop();
    let why = place.refusal(&["serve", "--server-name", "test.example", "--listen", "127.0.0.1:0"]);
    assert!(why.contains("can't hold a log"), "{why}");
}

#[tokio::test]
async fn read_models_that_are_ahead_of_their_topic_are_refused() {
    let Some(brokers) = broker::address() else { return };
    let (place, older) = (Place::on(&brokers), Place::on(&brokers));
    let served = place.start();
    let alice = served.register("alice").await;
    served.stop();
    place.tool(&["log", "copy", "--from", &place.log(), "--to", &older.log()]);
    let served = place.start();
    served.client_of(&alice).post("/createRoom", json!({})).await.ok();
    served.stop();
    let (log, ahead) = (place.log(), place.with([("EVERFOLD_LOG", older.log())]));
    let why = ahead.refusal(&["serve", "--server-name", "test.example", "--listen", "127.0.0.1:0"]);
    assert!(why.contains("the read models are at Lsn") && why.contains("but the log ends at Lsn"), "{why}");
    // It has written nothing, and goes on with the log that it was folded from.
    assert_eq!(older.tool(&["log", "verify"])["ok"], true);
    let place = ahead.with([("EVERFOLD_LOG", log)]);
    let served = place.start();
    let rooms = served.client_of(&alice).get("/joined_rooms").await.ok();
    assert_eq!(rooms["joined_rooms"].as_array().unwrap().len(), 1);
    served.stop();
    place.check();
}
