use everfold::log::LogReader;
use serde_json::{Value, json};

use crate::common::{HeldLog, TestServer, until};

#[tokio::test]
async fn read_models_are_folded_anew_while_the_server_goes_on() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let list = async || admin.get("/_everfold/admin/v1/projections").await.ok();
    let generation = |list: &Value, name: &str| {
        let all = list["projections"].as_array().unwrap().clone();
        all.into_iter().find(|model| model["name"] == name).map(|model| model["generation"].clone()).unwrap()
    };
    let begun = list().await;
    assert_eq!(generation(&begun, "sessions"), 1);
    let path = "/_everfold/admin/v1/projections/sessions/rebuild";
    let rebuilt = admin.post(path, json!({})).await.ok();
    assert_eq!((generation(&rebuilt, "sessions"), generation(&rebuilt, "rooms")), (json!(2), json!(1)));
    assert!(rebuilt["lsn"].as_u64() >= begun["lsn"].as_u64());
    // Models that a rebuilt one reads are folded with it.
    assert_eq!(generation(&list().await, "admission"), 2);
    anna.get("/account/whoami").await.ok();
    let name = json!({ "displayname": "Anna" });
    anna.put("/profile/@anna:test.example/displayname", name.clone()).await.ok();

    // One at a time: of several, those that come too early are told so.
    let several = (0..4).map(|_| admin.post(path, json!({})));
    let replies = futures::future::join_all(several).await;
    let done = replies.iter().filter(|reply| reply.status == 200).count();
    assert!(done >= 1, "{replies:?}");
    for reply in replies.iter().filter(|reply| reply.status != 200) {
        assert_eq!(reply.error(), (409, "M_UNKNOWN"));
    }
    assert_eq!(generation(&list().await, "sessions"), 2 + done);
    assert_eq!(anna.get("/profile/@anna:test.example/displayname").await.ok(), name);

    assert_eq!(
        admin.post("/_everfold/admin/v1/projections/none/rebuild", json!({})).await.error(),
        (404, "M_NOT_FOUND")
    );
    assert_eq!(anna.post(path, json!({})).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(anna.get("/_everfold/admin/v1/projections").await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(server.client().post(path, json!({})).await.error(), (401, "M_MISSING_TOKEN"));
    server.finish().await;
}

#[tokio::test]
async fn a_rebuild_shows_how_far_it_has_come() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let admin = server.admin("root").await;
    let list = async || admin.get("/_everfold/admin/v1/projections").await.ok();
    assert_eq!(list().await["rebuilding"], Value::Null);
    log.hold_reads();
    let rebuilding = tokio::spawn({
        let admin = admin.clone();
        async move { admin.post("/_everfold/admin/v1/projections/sessions/rebuild", json!({})).await.ok() }
    });
    until(async || !list().await["rebuilding"].is_null()).await;
    let shown = list().await;
    assert_eq!((&shown["rebuilding"], &shown["lsn"]), (&json!(0), &json!(log.tail())));
    log.release_reads();
    assert_eq!(rebuilding.await.unwrap()["rebuilding"], Value::Null, "it is done");
    assert_eq!(list().await["rebuilding"], Value::Null);
    server.finish().await;
}
