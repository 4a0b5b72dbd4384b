use http::Method;
use serde_json::{Value, json};

use crate::common::{Client, TestServer};

const ANNA: &str = "/_synapse/admin/v2/users/@anna:test.example";

#[tokio::test]
async fn administrators_are_made_and_passwords_reset() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let path = "/_synapse/admin/v1/users/@anna:test.example/admin";
    assert_eq!(admin.get(path).await.ok()["admin"], false);
    admin.put(path, json!({ "admin": true })).await.ok();
    assert_eq!(anna.get(path).await.ok()["admin"], true);
    let himself = anna.put(path, json!({ "admin": false })).await;
    assert_eq!((himself.error(), &himself["error"]), ((400, "M_UNKNOWN"), &json!("You may not demote yourself.")));
    assert_eq!(anna.put(ANNA, json!({ "admin": false })).await.error(), (400, "M_UNKNOWN"));
    admin.put(path, json!({ "admin": false })).await.ok();
    assert_eq!(anna.get(path).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(admin.put(path, json!({})).await.error(), (400, "M_MISSING_PARAM"));
    assert_eq!(admin.put(path, json!({ "admin": 1 })).await.error(), (400, "M_BAD_JSON"));
    let nobody = "/_synapse/admin/v1/users/@nobody:test.example/admin";
    assert_eq!(admin.put(nobody, json!({ "admin": true })).await.error(), (404, "M_NOT_FOUND"));
    for (wrong, code) in [("@anna:other.example", "M_UNKNOWN"), ("anna", "M_INVALID_PARAM"), ("%ff", "M_INVALID_PARAM")]
    {
        let path = format!("/_synapse/admin/v1/users/{wrong}/admin");
        assert_eq!(admin.get(&path).await.error(), (400, code), "{wrong}");
    }

    let path = "/_synapse/admin/v1/reset_password/@anna:test.example";
    let reset = |password: &str, log_out: bool| json!({ "new_password": password, "logout_devices": log_out });
    assert_eq!(admin.post(path, reset("weak", true)).await.error(), (400, "M_WEAK_PASSWORD"));
    assert_eq!(admin.post(path, json!({})).await.error(), (400, "M_MISSING_PARAM"));
    admin.post(path, reset("another password", false)).await.ok();
    anna.get("/account/whoami").await.ok();
    admin.post(path, reset("a third password", true)).await.ok();
    assert_eq!(anna.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    server.client().log_in("anna", "a third password", json!({})).await.ok();
    server.finish().await;
}

#[tokio::test]
async fn an_account_is_made_whole_with_one_record() {
    let (server, _clock) = TestServer::with_clock(&[]).await;
    let admin = server.admin("root").await;
    assert_eq!(admin.get(ANNA).await.error(), (404, "M_NOT_FOUND"));
    let before = server.app().reader.tail();
    let whole = json!({
        "password": "password of anna", "displayname": "Anna", "avatar_url": "mxc://test.example/a", "admin": true,
        "user_type": "support", "locked": true,
        "threepids": [{ "medium": "email", "address": "Anna@Example.org" }, { "medium": "msisdn", "address": "4420" }],
        "external_ids": [{ "auth_provider": "oidc-x", "external_id": "12345" }],
    });
    let made = admin.put(ANNA, whole).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(server.app().reader.tail().0, before.0 + 1);
    let at = 1_700_000_000_000_u64;
    let id = |medium: &str, address: &str| json!({ "medium": medium, "address": address, "validated_at": at, "added_at": at });
    let shown = json!({
        "name": "@anna:test.example", "displayname": "Anna", "avatar_url": "mxc://test.example/a",
        "threepids": [id("email", "anna@example.org"), id("msisdn", "4420")],
        "external_ids": [{ "auth_provider": "oidc-x", "external_id": "12345" }],
        "is_guest": false, "admin": true, "deactivated": false, "erased": false, "shadow_banned": false,
        "locked": true, "suspended": false, "user_type": "support", "creation_ts": at / 1_000, "last_seen_ts": null,
        "appservice_id": null, "consent_server_notice_sent": null, "consent_version": null, "consent_ts": null,
    });
    assert_eq!(made.json, shown);
    assert_eq!(admin.get(ANNA).await.ok(), shown);
    // It is so already.
    assert_eq!(admin.put(ANNA, json!({ "displayname": "Anna", "locked": true })).await.ok(), shown);
    assert_eq!(server.app().reader.tail().0, before.0 + 1);
    admin.put(ANNA, json!({ "locked": false })).await.ok();
    let anna = server.client().logged_in(&server.client().log_in("anna", "password of anna", json!({})).await.ok());
    assert_eq!(anna.get("/account/3pid").await.ok()["threepids"], shown["threepids"]);

    server.client().register_as("helper", "shared", false, Some("support")).await.ok();
    let helper = admin.get("/_synapse/admin/v2/users/@helper:test.example").await.ok();
    assert_eq!(helper["user_type"], "support");
    let king = server.client().register_as("king", "shared", false, Some("king")).await;
    assert_eq!(king.error(), (400, "M_UNKNOWN"));
    let plain = admin.put("/_synapse/admin/v2/users/@plain:test.example", json!({})).await;
    assert_eq!((plain.status.as_u16(), &plain["displayname"]), (201, &json!("plain")));
    server.finish().await;
}

#[tokio::test]
async fn an_account_is_changed_with_all_that_follows() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = bert.room_with(&[&anna]).await;
    let member = format!("/rooms/{room}/state/m.room.member/{}", anna.user);
    admin.put(ANNA, json!({ "displayname": "Anna", "avatar_url": "mxc://test.example/a" })).await.ok();
    let shown = bert.get(&member).await.ok();
    assert_eq!((&shown["displayname"], &shown["avatar_url"]), (&json!("Anna"), &json!("mxc://test.example/a")));
    let shown = admin.put(ANNA, json!({ "displayname": "", "avatar_url": "" })).await.ok();
    assert_eq!((&shown["displayname"], &shown["avatar_url"]), (&Value::Null, &Value::Null));
    assert_eq!(bert.get(&member).await.ok().get("displayname"), None);

    for suspended in [true, false] {
        assert_eq!(admin.put(ANNA, json!({ "suspended": suspended })).await.ok()["suspended"], suspended);
    }
    admin.put(ANNA, json!({ "password": "another password", "logout_devices": false })).await.ok();
    anna.get("/account/whoami").await.ok();
    admin.put(ANNA, json!({ "password": "a third password" })).await.ok();
    assert_eq!(anna.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    let anna = server.client().logged_in(&server.client().log_in("anna", "a third password", json!({})).await.ok());

    let ended = admin.put(ANNA, json!({ "deactivated": true })).await.ok();
    assert_eq!((&ended["deactivated"], &ended["erased"]), (&json!(true), &json!(false)));
    assert_eq!(anna.get("/account/whoami").await.error(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(bert.get(&member).await.ok()["membership"], "leave");
    let found =
        async || bert.post("/user_directory/search", json!({ "search_term": "anna" })).await.ok()["results"].clone();
    let late = admin.put(ANNA, json!({ "password": "too late, now" })).await;
    assert_eq!(late.error(), (400, "M_UNKNOWN"));
    let back = admin.put(ANNA, json!({ "deactivated": false, "password": "password of anna" })).await.ok();
    assert_eq!(back["deactivated"], false);
    let anna = server.client().logged_in(&server.client().log_in("anna", "password of anna", json!({})).await.ok());
    anna.join(&room).await;
    assert_eq!(found().await[0]["user_id"], "@anna:test.example");
    server.finish().await;
}

#[tokio::test]
async fn ids_elsewhere_are_one_users() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let of = |user: &Client| format!("/_synapse/admin/v2/users/{}", user.user);
    let mail = |address: &str| json!({ "medium": "email", "address": address });
    let outside = |id: &str| json!({ "auth_provider": "p", "external_id": id });
    let by_mail = async |address: &str| admin.get(&format!("/_synapse/admin/v1/threepid/email/users/{address}")).await;
    let by_id = async |id: &str| admin.get(&format!("/_synapse/admin/v1/auth_providers/p/users/{id}")).await;
    admin.put(&of(&anna), json!({ "threepids": [mail("a@x.org"), mail("b@x.org")] })).await.ok();
    admin.put(&of(&anna), json!({ "external_ids": [outside("1"), outside("2")] })).await.ok();
    assert_eq!(by_mail("A@x.org").await.ok()["user_id"], anna.user);
    assert_eq!(by_id("2").await.ok()["user_id"], anna.user);

    // A mail address goes to whom it is given; who somebody is at a provider does not.
    let shown = admin.put(&of(&bert), json!({ "threepids": [mail("b@x.org")] })).await.ok();
    assert_eq!(shown["threepids"][0]["address"], "b@x.org");
    assert_eq!(by_mail("b@x.org").await.ok()["user_id"], bert.user);
    assert_eq!(anna.get("/account/3pid").await.ok()["threepids"].as_array().unwrap().len(), 1);
    let taken = admin.put(&of(&bert), json!({ "displayname": "B", "external_ids": [outside("2")] })).await;
    assert_eq!((taken.error(), &taken["error"]), ((409, "M_UNKNOWN"), &json!("External id is already in use.")));
    assert_eq!(admin.get(&of(&bert)).await.ok()["displayname"], Value::Null, "nothing of it happened");

    admin.put(&of(&anna), json!({ "external_ids": [outside("1")], "threepids": [] })).await.ok();
    assert_eq!(by_mail("a@x.org").await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(by_id("2").await.error(), (404, "M_NOT_FOUND"));
    admin.put(&of(&bert), json!({ "external_ids": [outside("2")] })).await.ok();
    admin.post(&format!("/_synapse/admin/v1/deactivate/{}", bert.user), json!({})).await.ok();
    assert_eq!(by_mail("b@x.org").await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(by_id("2").await.ok()["user_id"], bert.user, "that goes on, as with Synapse");
    server.finish().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    server.user("anna").await;
    let long = "x".repeat(513);
    for (body, code, message) in [
        (json!([]), "M_BAD_JSON", "Content must be a JSON object."),
        (json!({ "threepids": [{ "medium": "email" }] }), "M_MISSING_PARAM", "Missing params: ['address']"),
        (json!({ "external_ids": [{}] }), "M_MISSING_PARAM", "Missing params: ['auth_provider', 'external_id']"),
        (json!({ "user_type": "king" }), "M_UNKNOWN", "Invalid user type"),
        (json!({ "user_type": 7 }), "M_UNKNOWN", "Invalid user type"),
        (json!({ "admin": "yes" }), "M_BAD_JSON", "Param 'admin' must be a boolean, if given"),
        (json!({ "password": 7 }), "M_UNKNOWN", "Invalid password"),
        (json!({ "password": long }), "M_UNKNOWN", "Invalid password"),
        (json!({ "logout_devices": 7 }), "M_UNKNOWN", "'logout_devices' parameter is not of type boolean"),
        (json!({ "deactivated": 7 }), "M_UNKNOWN", "'deactivated' parameter is not of type boolean"),
        (json!({ "locked": null }), "M_UNKNOWN", "'locked' parameter is not of type boolean"),
        (json!({ "suspended": 0 }), "M_UNKNOWN", "'suspended' parameter is not of type boolean"),
        (json!({ "deactivated": true, "locked": true }), "M_UNKNOWN", "An user can't be deactivated and locked"),
        (json!({ "displayname": 7 }), "M_INVALID_PARAM", "'displayname' must be a string"),
        (
            json!({ "threepids": [{ "medium": "fax", "address": "1" }] }),
            "M_INVALID_PARAM",
            "'fax' is not a valid value for 'medium'",
        ),
    ] {
        for user in ["anna", "new"] {
            let refused = admin.put(&format!("/_synapse/admin/v2/users/@{user}:test.example"), body.clone()).await;
            assert_eq!((refused.error(), &refused["error"]), ((400, code), &json!(message)), "{body}");
        }
    }
    let refused = async |body| admin.put(ANNA, body).await.error().1.to_owned();
    assert_eq!(refused(json!({ "displayname": "x".repeat(257) })).await, "M_INVALID_PARAM");
    assert_eq!(refused(json!({ "threepids": "many" })).await, "M_BAD_JSON");
    assert_eq!(refused(json!({ "threepids": [{ "medium": "email", "address": "no" }] })).await, "M_INVALID_PARAM");
    assert_eq!(refused(json!({ "password": "weak" })).await, "M_WEAK_PASSWORD");
    assert_eq!(admin.send_raw(Method::PUT, ANNA, "").await.error(), (400, "M_NOT_JSON"));
    for (user, code) in [
        ("@Anna:test.example", "M_INVALID_USERNAME"),
        ("@_bridge:test.example", "M_INVALID_USERNAME"),
        ("@anna:other.example", "M_UNKNOWN"),
        ("anna", "M_INVALID_PARAM"),
    ] {
        let refused = admin.put(&format!("/_synapse/admin/v2/users/{user}"), json!({})).await;
        assert_eq!(refused.error(), (400, code), "{user}");
    }
    assert_eq!(admin.get("/_synapse/admin/v2/users/@anna:other.example").await.error(), (400, "M_UNKNOWN"));
    server.finish().await;
}

#[tokio::test]
async fn accounts_end_and_are_forgotten() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = bert.room_with(&[&anna]).await;
    admin.put(ANNA, json!({ "displayname": "Anna" })).await.ok();
    let path = "/_synapse/admin/v1/deactivate/@anna:test.example";
    assert_eq!(admin.post(path, json!({ "erase": "yes" })).await.error(), (400, "M_BAD_JSON"));
    let nobody = "/_synapse/admin/v1/deactivate/@nobody:test.example";
    assert_eq!(admin.post(nobody, json!({})).await.error(), (404, "M_NOT_FOUND"));
    let elsewhere = "/_synapse/admin/v1/deactivate/@anna:other.example";
    assert_eq!(admin.post(elsewhere, json!({})).await.error(), (400, "M_UNKNOWN"));

    // The body may be left out.
    let ended = admin.send_raw(Method::POST, path, "").await.ok();
    assert_eq!(ended, json!({ "id_server_unbind_result": "success" }));
    let shown = admin.get(ANNA).await.ok();
    assert_eq!(
        (&shown["deactivated"], &shown["erased"], &shown["displayname"]),
        (&json!(true), &json!(false), &json!("Anna"))
    );
    let member = bert.get(&format!("/rooms/{room}/state/m.room.member/{}", anna.user)).await.ok();
    assert_eq!(member["membership"], "leave");
    admin.post(path, json!({ "erase": true })).await.ok();
    let shown = admin.get(ANNA).await.ok();
    assert_eq!((&shown["erased"], &shown["displayname"]), (&json!(true), &Value::Null));
    let server = server.restart().await;
    server.finish().await;
}
