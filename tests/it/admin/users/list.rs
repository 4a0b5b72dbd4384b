use serde_json::json;

use crate::common::{Client, TestServer};

#[tokio::test]
async fn administrators_list_users_a_page_at_a_time() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    for name in ["anna", "bert", "carl"] {
        server.user(name).await;
    }
    let gone = server.user("gone").await;
    let auth = json!({ "auth": gone.password_auth("password of gone") });
    gone.post("/account/deactivate", auth).await.ok();
    let list = async |query: &str| {
        let page = admin.get(&format!("/_synapse/admin/v2/users?{query}")).await.ok();
        let names: Vec<_> = page["users"].as_array().unwrap().iter().map(|user| user["name"].clone()).collect();
        (names, page["next_token"].as_str().map(ToOwned::to_owned))
    };
    let id = |name: &str| json!(format!("@{name}:test.example"));
    assert_eq!(list("").await, (vec![id("anna"), id("bert"), id("carl"), id("root")], None));
    let (first, next) = list("limit=2").await;
    assert_eq!((first, next.as_deref()), (vec![id("anna"), id("bert")], Some("2")));
    assert_eq!(list("limit=2&from=2").await, (vec![id("carl"), id("root")], None));
    assert_eq!(list("name=ar&deactivated=true").await.0, [id("carl")]);
    assert_eq!(list("deactivated=true").await.0.len(), 5);
    assert_eq!(admin.get("/_synapse/admin/v2/users?limit=many").await.error(), (400, "M_INVALID_PARAM"));
    let anna = server.client().log_in("anna", "password of anna", json!({})).await.ok();
    let anna = server.client().logged_in(&anna);
    assert_eq!(anna.get("/_synapse/admin/v2/users").await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(
        server.client().with_token("guess").get("/_synapse/admin/v2/users").await.error(),
        (401, "M_UNKNOWN_TOKEN")
    );
    server.client().with_token("shared").get("/_synapse/admin/v2/users").await.ok();
    server.finish().await;
}

/// The localparts of a page.
async fn names(admin: &Client, query: &str) -> Vec<String> {
    let page = admin.get(&format!("/_synapse/admin/{query}")).await.ok();
    let names = page["users"].as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap());
    names.map(|name| name[1..].split(':').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn users_are_filtered_and_stand_in_every_order() {
    let (server, clock) = TestServer::with_clock(&[]).await;
    let admin = server.admin("root").await;
    for (name, change) in [
        ("anna", json!({ "displayname": "Zoe", "avatar_url": "mxc://test.example/b" })),
        ("bert", json!({ "user_type": "bot", "displayname": "" })),
        ("carl", json!({ "user_type": "support", "admin": true })),
        ("dora", json!({ "avatar_url": "mxc://test.example/a" })),
    ] {
        clock.advance(std::time::Duration::from_secs(1));
        let made = admin.put(&format!("/_synapse/admin/v2/users/@{name}:test.example"), change).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    admin.post("/_synapse/admin/v1/users/@bert:test.example/shadow_ban", json!({})).await.ok();
    admin.put("/_synapse/admin/v2/users/@dora:test.example", json!({ "locked": true })).await.ok();
    admin.post("/_synapse/admin/v1/deactivate/@anna:test.example", json!({})).await.ok();
    for (query, expected) in [
        ("v2/users", "bert carl root"),
        ("v2/users?deactivated=true", "anna bert carl root"),
        ("v2/users?locked=true", "bert carl dora root"),
        ("v3/users?locked=true", "anna bert carl dora root"),
        ("v3/users?deactivated=true", "anna"),
        ("v3/users?deactivated=false", "bert carl root"),
        ("v3/users?admins=true", "carl root"),
        ("v3/users?admins=false", "anna bert"),
        ("v3/users?name=ZO", "anna"),
        ("v3/users?name=test", ""),
        ("v3/users?user_id=TEST&name=", "anna bert carl root"),
        ("v3/users?user_id=ar", "carl"),
        ("v3/users?not_user_type=bot", "anna carl root"),
        ("v3/users?not_user_type=bot&not_user_type=support", "anna root"),
        ("v3/users?not_user_type=", "bert carl"),
        ("v3/users?not_user_type=&not_user_type=bot", "carl"),
        ("v3/users?guests=false", "anna bert carl root"),
        // Equals stand in the order of their names, in either direction.
        ("v3/users?order_by=name&dir=b&locked=true", "root dora carl bert anna"),
        ("v3/users?order_by=displayname&locked=true", "anna carl dora bert root"),
        ("v3/users?order_by=displayname&dir=b&locked=true", "bert root dora carl anna"),
        ("v3/users?order_by=is_guest&locked=true", "anna bert carl dora root"),
        ("v3/users?order_by=admin&dir=b&locked=true", "carl root anna bert dora"),
        ("v3/users?order_by=deactivated&locked=true", "bert carl dora root anna"),
        ("v3/users?order_by=user_type&locked=true", "bert carl anna dora root"),
        ("v3/users?order_by=avatar_url&locked=true", "dora anna bert carl root"),
        ("v3/users?order_by=shadow_banned&locked=true", "anna carl dora root bert"),
        ("v3/users?order_by=creation_ts&locked=true", "root anna bert carl dora"),
        ("v3/users?order_by=last_seen_ts&locked=true", "anna bert carl dora root"),
        ("v3/users?order_by=locked&dir=b&locked=true", "dora anna bert carl root"),
        ("v3/users?from=1&limit=2", "bert carl"),
        ("v3/users?from=9", ""),
        ("v3/users?limit=0", ""),
    ] {
        assert_eq!(names(&admin, query).await.join(" "), expected, "{query}");
    }
    let page = admin.get("/_synapse/admin/v3/users?limit=3").await.ok();
    assert_eq!((&page["total"], &page["next_token"]), (&json!(4), &json!("3")));
    let page = admin.get("/_synapse/admin/v3/users?from=3").await.ok();
    assert_eq!((&page["total"], page.get("next_token")), (&json!(4), None));
    let bert = &admin.get("/_synapse/admin/v2/users?name=bert").await.ok()["users"][0];
    assert_eq!((&bert["user_type"], &bert["shadow_banned"]), (&json!("bot"), &json!(true)));
    assert_eq!((&bert["displayname"], &bert["creation_ts"]), (&json!(null), &json!(1_700_000_002_000_u64)));

    server.finish().await;
}

#[tokio::test]
async fn what_the_list_can_not_be_asked_is_refused() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    for (query, message) in [
        ("from=x", "Query parameter from must be an integer"),
        ("limit=-1", "Query parameter limit must be a positive integer."),
        ("guests=maybe", "Boolean query parameter 'guests' must be one of ['true', 'false']"),
        ("deactivated=1", "Boolean query parameter 'deactivated' must be one of ['true', 'false']"),
        ("dir=x", "Query parameter 'dir' must be one of ['f', 'b']"),
        (
            "order_by=size",
            "Query parameter 'order_by' must be one of ['name', 'displayname', 'is_guest', 'admin', 'deactivated', \
             'user_type', 'avatar_url', 'shadow_banned', 'creation_ts', 'last_seen_ts', 'locked']",
        ),
    ] {
        let refused = admin.get(&format!("/_synapse/admin/v2/users?{query}")).await;
        assert_eq!((refused.error(), &refused["error"]), ((400, "M_INVALID_PARAM"), &json!(message)));
    }
    server.finish().await;
}

#[tokio::test]
async fn the_old_search_shows_no_hash() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    server.user("anna").await;
    let path = "/_synapse/admin/v1/search_users/@root:test.example";
    let found = admin.get(&format!("{path}?term=ann")).await.ok();
    let anna = json!({
        "name": "@anna:test.example", "password_hash": null, "is_guest": false, "admin": false, "user_type": null,
    });
    assert_eq!(found, json!([anna]));
    assert_eq!(admin.get(path).await.error(), (400, "M_MISSING_PARAM"));
    let elsewhere = "/_synapse/admin/v1/search_users/@root:other.example?term=a";
    assert_eq!(admin.get(elsewhere).await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}
