use http::Method;
use serde_json::json;

use crate::common::{Client, Reply, TestServer};

/// Sends the form of a stage, as a browser does.
async fn submit(client: &Client, path: &str, form: &str) -> Reply {
    let request = client.request(Method::POST, path).header("content-type", "application/x-www-form-urlencoded");
    Reply::of(request.body(form.to_owned())).await
}

fn is_done(page: &Reply) -> bool {
    assert!(page.header("content-type").starts_with("text/html"), "{}", page.text);
    page.status == 200 && page.text.contains("window.onAuthDone()")
}

#[tokio::test]
async fn a_password_is_given_in_a_browser() {
    let server = TestServer::start().await;
    let (alice, browser) = (server.user("alice").await, server.client());
    let change = |session: &str| json!({ "new_password": "another password", "auth": { "session": session } });
    let offered = alice.post("/account/password", json!({ "new_password": "another password" })).await;
    let session = offered["session"].as_str().unwrap();
    let path = format!("/auth/m.login.password/fallback/web?session={session}");
    let asked = browser.get(&path).await;
    assert!(
        asked.status == 200 && !is_done(&asked) && asked.text.contains(r#"<form method="post">"#),
        "{}",
        asked.text
    );
    let wrong = submit(&browser, &path, "password=wrong").await;
    assert!(wrong.status == 403 && wrong.text.contains("the password is wrong"), "{}", wrong.text);
    assert_eq!(alice.post("/account/password", change(session)).await.status, 401, "not yet");
    assert!(is_done(&submit(&browser, &path, "password=password+of+alice").await));
    assert!(is_done(&browser.get(&path).await), "a page that is opened again");
    alice.post("/account/password", change(session)).await.ok();

    // Only what a session asks for, and only for a session that is there.
    for path in [
        format!("/auth/m.login.dummy/fallback/web?session={session}"),
        "/auth/m.login.password/fallback/web?session=none".to_owned(),
        format!("/auth/m.login.sso/fallback/web?session={session}"),
    ] {
        assert_eq!(browser.get(&path).await.error(), (404, "M_NOT_FOUND"));
        assert_eq!(submit(&browser, &path, "").await.error(), (404, "M_NOT_FOUND"));
    }
    assert_eq!(browser.get("/auth/m.login.password/fallback/web").await.error(), (400, "M_INVALID_PARAM"));
    server.finish().await;
}

#[tokio::test]
async fn a_registration_goes_on_after_a_browser() {
    for (mode, stage, form) in
        [("open", "m.login.dummy", ""), ("token", "m.login.registration_token", "token=come%2Din")]
    {
        let server = TestServer::with(&[("registration.mode", mode)]).await;
        let admin = server.admin("root").await;
        admin.post("/_synapse/admin/v1/registration_tokens/new", json!({ "token": "come-in" })).await.ok();
        let client = server.client();
        let body = json!({ "username": "bob", "password": "password of bob" });
        let offered = client.post("/register", body.clone()).await;
        let session = offered["session"].as_str().unwrap();
        assert_eq!(offered["flows"], json!([{ "stages": [stage] }]));
        let path = format!("/_matrix/client/r0/auth/{stage}/fallback/web?session={session}");
        assert!(!is_done(&client.get(&path).await), "looking is not yet doing");
        if mode == "token" {
            let wrong = submit(&client, &path, "token=%3Cscript%3E").await;
            assert!(wrong.status == 403 && !wrong.text.contains("<script>"), "{}", wrong.text);
        }
        assert!(is_done(&submit(&client, &path, form).await));
        let mut body = body;
        body["auth"] = json!({ "session": session });
        client.post("/register", body).await.ok();
        server.finish().await;
    }
}
