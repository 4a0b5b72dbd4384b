//! Log time follows the clock, also after a pause.

use std::time::Duration;

use everfold::log::LogReader;
use schemas::{Fact, Lsn, Origin, Record};
use serde_json::json;

use crate::common::TestServer;

/// A record moves log time by no more than this.
const STEP: Duration = Duration::from_secs(10 * 60);

fn records(log: &dyn LogReader, after: Lsn) -> Vec<(Origin, Vec<Fact>)> {
    let entries = log.read(after.next(), usize::MAX, usize::MAX).unwrap();
    let decoded = entries.iter().map(|entry| Record::decode(&entry.bytes).unwrap());
    decoded.map(|record| (record.header.origin, record.facts.iter().map(|f| f.decode().unwrap()).collect())).collect()
}

#[tokio::test]
async fn an_idle_gap_goes_before_what_comes_after_a_pause() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    let requests = [
        (format!("/rooms/{room}/send/m.room.message"), json!({ "body": "Hi", "msgtype": "m.text" })),
        (format!("/rooms/{room}/state/m.room.topic"), json!({ "topic": "new" })),
        (format!("/user/{}/account_data/org.example", alice.user), json!({})),
    ];
    let mut n = 0;
    for (pause, has_gap) in [
        (Duration::from_secs(1), false),
        (STEP, false),
        (STEP + Duration::from_millis(1), true),
        (100 * STEP, true),
        (Duration::from_secs(1), false),
    ] {
        for (path, body) in &requests {
            n += 1;
            let path = if path.contains("/send/") { format!("{path}/{n}") } else { path.clone() };
            let mut body = body.clone();
            body["n"] = n.into();
            clock.advance(pause);
            let before = server.app().reader.tail();
            alice.put(&path, body).await.ok();
            let came = records(&*server.app().reader, before);
            let gaps = came.iter().filter(|(_, facts)| matches!(facts[..], [Fact::IdleGap(_)])).count();
            assert_eq!((came.len(), gaps), (1 + usize::from(has_gap), usize::from(has_gap)), "{pause:?} {path}");
            assert!(!has_gap || came[0].0 == Origin::Server, "it is nobody's doing: {came:?}");
            let view = server.app().view().unwrap();
            assert_eq!(view.log_time().ms, server.app().clock.now_ms(), "{pause:?} {path}");
        }
    }
    server.finish().await;
}
