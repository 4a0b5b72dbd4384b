use everfold::log::LogReader;
use reqwest::Method;
use serde_json::{Value, json};

use super::deletion::v1;
use crate::common::{Client, HeldLog, TestServer, until};

const STATUS: &str = "/_synapse/admin/v1/background_updates/status";
const ENABLED: &str = "/_synapse/admin/v1/background_updates/enabled";
const START_JOB: &str = "/_synapse/admin/v1/background_updates/start_job";

/// The tasks that a query finds, by what they work on.
async fn tasks(admin: &Client, query: &str) -> Vec<Value> {
    let found = admin.get(&format!("/_synapse/admin/v1/scheduled_tasks{query}")).await.ok();
    found["scheduled_tasks"].as_array().unwrap().iter().map(|task| task["resource_id"].clone()).collect()
}

#[tokio::test]
async fn jobs_are_listed_and_outlive_a_restart() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    assert_eq!(tasks(&admin, "").await, [""; 0]);
    for room in ["!a:test.example", "!b:test.example"] {
        admin.send_raw(Method::DELETE, &v1(room), "{}").await.ok();
    }
    let body = json!({ "rooms": [] }).to_string();
    admin.send_raw(Method::POST, "/_synapse/admin/v1/user/@x:test.example/redact", body).await.ok();
    until(async || tasks(&admin, "?status=complete").await.len() == 3).await;
    let server = server.restart().await;
    let admin = server.client().with_token(admin.token());
    let all = ["!a:test.example", "!b:test.example", "@x:test.example"];
    assert_eq!(tasks(&admin, "").await, all);
    assert_eq!(tasks(&admin, "?resource_id=!b:test.example").await, all[1..2]);
    assert_eq!(tasks(&admin, "?action_name=redact_all_events&job_status=complete").await, all[2..]);
    assert_eq!(tasks(&admin, "?job_status=failed").await, [""; 0]);
    assert_eq!(tasks(&admin, "?max_timestamp=1").await, [""; 0]);
    assert_eq!(tasks(&admin, "?max_timestamp=9999999999999").await, all);
    let task = &admin.get("/_synapse/admin/v1/scheduled_tasks").await.ok()["scheduled_tasks"][0];
    assert_eq!((&task["action"], &task["status"]), (&json!("shutdown_and_purge_room"), &json!("complete")));
    assert_eq!((&task["result"]["new_room_id"], &task["error"]), (&Value::Null, &Value::Null));
    assert!(task["timestamp_ms"].is_u64() && task["id"].is_string());
    for wrong in ["?status=over", "?max_timestamp=soon"] {
        let refused = admin.get(&format!("/_synapse/admin/v1/scheduled_tasks{wrong}")).await;
        assert_eq!(refused.error(), (400, "M_INVALID_PARAM"), "{wrong}");
    }
    server.finish().await;
}

#[tokio::test]
async fn background_updates_are_rebuilds_of_read_models() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let admin = server.admin("root").await;
    let status = async || admin.get(STATUS).await.ok();
    let start = async |name: &str| admin.post(START_JOB, json!({ "job_name": name })).await;
    let enable = async |body: Value| admin.post(ENABLED, body).await;
    assert_eq!(status().await, json!({ "enabled": true, "current_updates": {} }));

    assert_eq!(enable(json!({ "enabled": false })).await.ok(), json!({ "enabled": false }));
    assert_eq!(admin.get(ENABLED).await.ok(), json!({ "enabled": false }));
    assert_eq!(start("regenerate_directory").await.error(), (400, "M_UNKNOWN"));
    assert_eq!(enable(json!({})).await.ok(), json!({ "enabled": true }));
    assert_eq!(enable(json!({ "enabled": 1 })).await["error"], "'enabled' parameter must be a boolean");

    log.hold_reads();
    assert_eq!(start("populate_stats_process_rooms").await.ok(), json!({}));
    until(async || status().await["current_updates"]["master"]["name"] == "populate_stats_process_rooms").await;
    let again = start("sessions").await;
    assert_eq!(
        (again.error(), &again["error"]),
        ((400, "M_UNKNOWN"), &json!("Job sessions is already in queue of background updates."))
    );
    assert!(log.tail().0 > 0);
    log.release_reads();
    until(async || status().await["current_updates"] == json!({})).await;
    let shown = admin.get("/_everfold/admin/v1/projections").await.ok();
    let rooms = shown["projections"].as_array().unwrap().iter().find(|model| model["name"] == "rooms").unwrap().clone();
    assert_eq!(rooms["generation"], 2);

    assert_eq!(start("event_resign").await["error"], "Invalid job_name");
    let missing = admin.post(START_JOB, json!({})).await;
    assert_eq!(
        (missing.error(), &missing["error"]),
        ((400, "M_MISSING_PARAM"), &json!("Missing params: ['job_name']"))
    );
    server.finish().await;
}
