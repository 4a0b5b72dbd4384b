//! For those who run a server: its health, its figures, and its end.

use everfold::log::{Log, LogReader};
use http::StatusCode;
use schemas::Lsn;
use serde_json::{Value, json};

use crate::common::{Beside, Client, HeldLog, PATIENCE, TestServer, until};

/// The value of a metric with these labels, as Prometheus reads it; none if there is no such line.
async fn metric(client: &Client, name: &str) -> Option<f64> {
    let text = client.get("/metrics").await.text;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("everfold_")?.rsplit_once(' '));
    lines.find(|(found, _)| *found == name).map(|(_, value)| value.parse().unwrap())
}

#[tokio::test]
async fn a_server_is_live_and_ready() {
    let server = TestServer::start().await;
    let client = server.client();
    client.get("/health/live").await.ok();
    assert_eq!(client.get("/health/ready").await.ok(), json!({ "ready": true, "tail": 1, "folded": 1 }));
    server.finish().await;
}

#[tokio::test]
async fn a_projector_shows_its_own_health_and_figures_and_nothing_else() {
    let beside = Beside::start().await;
    let client = Client::new(format!("http://{}", beside.projector().addresses()[0]));
    assert_eq!(client.get("/health/live").await.ok(), json!({}));
    assert_eq!(client.get("/health/ready").await.ok(), json!({ "ready": true, "tail": 1, "folded": 1 }));
    let server = beside.serve().await;
    server.user("alice").await;
    let tail = beside.projector().cursor().lsn.0;
    assert_eq!(client.get("/health/ready").await.ok()["folded"], tail);
    // What only the projector counts.
    for name in ["log_append_seconds_count", "fold_records_total", "fold_seconds_count"] {
        assert!(metric(&client, name).await.unwrap() >= 1.0, "{name}");
    }
    assert_eq!(metric(&client, "fold_lsn").await, Some(tail as f64));
    assert!(metric(&client, "rocksdb{property=\"total-sst-files-size\",store=\"log\"}").await.is_some());
    for elsewhere in ["/_matrix/client/versions", "/_synapse/admin/v1/server_version", "/"] {
        assert_eq!(client.get(elsewhere).await.status, StatusCode::NOT_FOUND, "{elsewhere}");
    }
    beside.finish([server]).await;
}

#[tokio::test]
async fn a_server_is_not_ready_while_its_fold_is_behind() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let folded = log.tail().0;
    log.hold_reads();
    let path = format!("/user/{}/account_data/org.example", alice.user);
    let write = tokio::spawn({
        let (alice, path) = (alice.clone(), path.clone());
        async move { alice.put(&path, json!({})).await }
    });
    log.watch_tail().wait_for(|tail| tail.0 > folded).await.unwrap();
    let behind = alice.get("/health/ready").await;
    assert_eq!(behind.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(behind.json, json!({ "ready": false, "tail": folded + 1, "folded": folded }));
    assert_eq!(metric(&alice, "fold_lag{projection=\"account_data\"}").await, Some(1.0));
    log.release_reads();
    write.await.unwrap().ok();
    assert_eq!(alice.get("/health/ready").await.ok()["folded"], folded + 1);
    server.finish().await;
}

#[tokio::test]
async fn a_server_whose_fold_has_stopped_is_not_ready_and_says_why() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let folded = log.tail().0;
    log.damage_reads();
    let path = format!("/user/{}/account_data/org.example", alice.user);
    assert_eq!(alice.put(&path, json!({})).await.error(), (503, "M_UNKNOWN"));
    let stopped = alice.get("/health/ready").await;
    assert_eq!(stopped.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((&stopped["tail"], &stopped["folded"]), (&json!(folded + 1), &json!(folded)));
    assert!(stopped["stopped"].as_str().unwrap().contains("the log is damaged"), "{}", stopped.text);
    alice.get("/account/whoami").await.ok();
    // Once the log can be read again, a start folds the rest.
    log.release_reads();
    let server = server.restart().await;
    assert_eq!(server.app().view().unwrap().lsn(), Lsn(folded + 1));
    server.finish().await;
}

#[tokio::test]
async fn metrics_show_what_the_server_does() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = bob.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    for n in 0..10 {
        alice.say(&room, &n.to_string()).await;
    }
    assert_eq!(alice.get("/rooms/!none:test.example/state").await.status, 403);
    let (tail, records) = (server.app().reader.tail().0, server.app().reader.tail().0);
    let text = alice.get("/metrics").await.text;
    let value = async |name: &str| {
        let found = metric(&alice, name).await;
        found.unwrap_or_else(|| panic!("there is no {name} in {text}"))
    };
    #[expect(clippy::cast_precision_loss, reason = "a test has few records")]
    let (tail, records) = (tail as f64, records as f64);
    // The log.
    assert_eq!(value("log_records_total").await, records);
    assert!(value("log_append_seconds_count").await >= 10.0 && value("log_append_seconds_sum").await > 0.0);
    assert!(value("log_batch_records_count").await >= 10.0);
    assert_eq!(value("log_batch_records_sum").await, records, "records of all batches");
    assert!(value("log_bytes_total").await > 1000.0);
    assert_eq!(value("log_failed_records_total").await, 0.0);
    // The fold.
    assert_eq!((value("log_tail_lsn").await, value("fold_lsn").await), (tail, tail));
    for projection in projections::models::ALL {
        assert_eq!(value(&format!("fold_lag{{projection=\"{}\"}}", projection.model.name())).await, 0.0);
    }
    assert!(value("fold_records_total").await >= tail - 1.0 && value("fold_seconds_count").await >= 10.0);
    assert!(value("fold_keys_read_total").await > 0.0 && value("fold_keys_written_total").await > 0.0);
    // Requests.
    let send = "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}";
    assert_eq!(value(&format!("http_requests_total{{method=\"PUT\",route=\"{send}\",status=\"200\"}}")).await, 10.0);
    assert_eq!(value(&format!("http_request_seconds_count{{route=\"{send}\"}}")).await, 10.0);
    let state = "/_matrix/client/v3/rooms/{room_id}/state";
    let refused = format!("http_requests_total{{method=\"GET\",route=\"{state}\",status=\"403\"}}");
    assert_eq!(value(&refused).await, 1.0);
    // Who waits.
    assert_eq!(value("sync_waiters").await, 0.0);
    let last = bob.get(&format!("/sync?since={since}")).await.ok()["next_batch"].as_str().unwrap().to_owned();
    let waits = tokio::spawn(async move { bob.get(&format!("/sync?timeout=100000&since={last}")).await.ok() });
    until(async || metric(&alice, "sync_waiters").await == Some(1.0)).await;
    alice.say(&room, "wake up").await;
    waits.await.unwrap();
    // Both databases.
    for store in ["log", "read-models"] {
        let figure = |name: &str| format!("rocksdb{{property=\"{name}\",store=\"{store}\"}}");
        assert!(value(&figure("cur-size-all-mem-tables")).await > 0.0, "{store}");
        assert!(value(&figure("estimate-num-keys")).await >= tail, "{store}");
    }
    server.finish().await;
}

#[tokio::test]
async fn void_records_are_counted_by_reason() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let again = log.read(log.tail(), 1, usize::MAX).unwrap().remove(0).bytes;
    for receipt in log.append(vec![again.to_vec().into()]) {
        let lsn = receipt.await.unwrap().unwrap();
        assert!(server.app().progress.reached(lsn, PATIENCE).await);
    }
    assert_eq!(metric(&alice, "void_records_total{reason=\"repeated\"}").await, Some(1.0));
    server.finish().await;
}

#[tokio::test]
async fn metrics_can_be_off() {
    let server = TestServer::with(&[("telemetry.metrics", "off")]).await;
    assert_eq!(server.client().get("/metrics").await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn who_waits_is_answered_when_the_server_stops() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    alice.get("/sync").await.ok();
    let since = alice.get("/sync").await.ok()["next_batch"].clone();
    let waits = tokio::spawn({
        let (alice, path) = (alice.clone(), format!("/sync?timeout=100000&since={}", since.as_str().unwrap()));
        async move { alice.get(&path).await.ok() }
    });
    until(async || server.app().syncs.notifier.waiters() > 0).await;
    server.finish().await;
    assert_eq!(waits.await.unwrap()["next_batch"], since);
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_server_stops() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    log.hold_next(1);
    let sending = tokio::spawn(async move { alice.try_send(&room, "m.room.message", json!({ "body": "last" })).await });
    log.held().await;
    let (stop, before) = (server.app().stop.clone(), log.tail());
    let newcomer = server.client();
    let stopping = tokio::spawn(server.finish());
    stop.cancelled().await;
    // Nobody else comes in any more; who is in is answered once it is on the log.
    until(async || newcomer.request(http::Method::GET, "/health/live").send().await.is_err()).await;
    assert!(!sending.is_finished() && !stopping.is_finished());
    log.release();
    let sent: Value = sending.await.unwrap().ok();
    assert!(sent["event_id"].is_string());
    stopping.await.unwrap();
    assert_eq!(log.tail(), Lsn(before.0 + 1));
}
