//! The server on a real Kafka broker: what a client sees, what a kill loses, and what brokers may do to it.
//!
//! `EVERFOLD_TEST_CLUSTER=1` adds the long suite, on three brokers. See `kafka/broker.rs` for where brokers come from.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says so by panicking")]

#[path = "kafka/broker.rs"]
mod broker;
#[expect(dead_code, clippy::expect_used, reason = "the tests in process use the rest of it")]
#[path = "it/common/client.rs"]
mod client;
#[path = "kafka/cluster.rs"]
mod cluster;
#[path = "it/common/contention.rs"]
mod contention;
#[path = "kafka/crowd.rs"]
mod crowd;
#[path = "kafka/moving.rs"]
mod moving;
#[path = "kafka/nodes.rs"]
mod nodes;
#[path = "kafka/outages.rs"]
mod outages;
#[expect(dead_code, reason = "the tests of the embedded log use the rest of it")]
#[path = "it/common/replay.rs"]
mod replay;
#[path = "kafka/said.rs"]
mod said;
#[path = "kafka/secure.rs"]
mod secure;
#[path = "kafka/served.rs"]
mod served;

use serde_json::json;

use client::{Client, Reply};
use crowd::Crowd;
use served::Place;

#[tokio::test]
async fn people_talk_and_tools_read_along() {
    let Some(brokers) = broker::address() else { return };
    let place = Place::on(&brokers);
    let served = place.start();
    let [alice, bob] = [served.register("alice").await, served.register("bob").await];
    let room = alice.post("/createRoom", json!({ "preset": "public_chat" })).await.ok()["room_id"].clone();
    let room = room.as_str().unwrap();
    bob.post(&format!("/join/{room}"), json!({})).await.ok();
    let since = bob.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let path = format!("/rooms/{room}/send/m.room.message/1");
    let hear = async {
        let mut since = since;
        loop {
            // Who comes and goes wakes it, too.
            let heard = bob.get(&format!("/sync?timeout=30000&since={since}")).await.ok();
            if let Some(event) = heard["rooms"]["join"][room]["timeline"]["events"].get(0) {
                break event["event_id"].clone();
            }
            since = heard["next_batch"].as_str().unwrap().to_owned();
        }
    };
    let (sent, heard) = tokio::join!(alice.put(&path, json!({ "msgtype": "m.text", "body": "Hi" })), hear);
    let id = sent.ok()["event_id"].clone();
    assert_eq!(heard, id);
    // The tools take the same settings, beside the server.
    let stat = place.tool(&["log", "stat"]);
    assert_eq!((&stat["server_name"], &stat["void"]), (&json!("test.example"), &json!(0)), "{stat}");
    assert_eq!(stat["tail"], place.tool(&["log", "verify"])["tail"]);
    assert_eq!(place.tool(&["log", "tail", "-n", "1"])["lsn"], stat["tail"]);
    assert_eq!(place.tool(&["digest"])["lsn"], stat["tail"]);
    assert_eq!(place.tool(&["user", "list"])["name"], "@alice:test.example", "it asks the server that runs");
    let then = place.data().join("then");
    let replayed = place.tool(&["replay", "--until", "3", "--into", then.to_str().unwrap()]);
    assert_eq!(replayed["lsn"], 3);
    // It is stopped and goes on; a transaction id is known again.
    served.stop();
    let served = place.start();
    assert_eq!(
        served.client_of(&alice).put(&path, json!({ "msgtype": "m.text", "body": "Hi" })).await.ok()["event_id"],
        id
    );
    served.stop();
    place.check();
    // Copied into a data folder, it is the same log.
    let to = format!("embedded:{}", place.data().join("copy").display());
    let copied = place.tool(&["log", "copy", "--from", &place.log(), "--to", &to]);
    assert_eq!(copied["source_chain"], copied["target_chain"], "{copied}");
}

#[tokio::test]
async fn what_was_acknowledged_survives_kills_of_the_server() {
    let Some(brokers) = broker::address() else { return };
    let place = Place::on(&brokers);
    let mut served = place.start();
    let mut crowd = Crowd::gather(&served).await;
    for acknowledged in [30, 90, 50] {
        let working = crowd.work(&served.url);
        working.until(acknowledged).await;
        drop(served);
        crowd = working.stop().await;
        served = place.start();
    }
    crowd.settle(&served.url).await;
    served.stop();
    crowd.check(&place.check());
}
