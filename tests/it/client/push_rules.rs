use serde_json::{Value, json};

use crate::common::{Client, TestServer};

/// The ids of a user's own rules of a kind, in order.
async fn own_rules(user: &Client, kind: &str) -> Vec<String> {
    let rules = user.get("/pushrules/global/").await.ok();
    let own = rules[kind].as_array().into_iter().flatten().filter(|rule| rule["default"] == false);
    own.map(|rule| rule["rule_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn rules_come_in_order_and_go() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let all = alice.get("/pushrules/").await.ok();
    assert_eq!(all, json!({ "global": alice.get("/pushrules/global/").await.ok() }));
    assert_eq!(alice.get("/pushrules").await.ok(), all);
    assert!(own_rules(&alice, "content").await.is_empty());

    let put = async |path: &str, pattern: &str| {
        let rule = json!({ "pattern": pattern, "actions": ["notify", { "set_tweak": "sound", "value": "bing" }] });
        alice.put(&format!("/pushrules/global/content/{path}"), rule).await
    };
    put("a", "x").await.ok();
    put("b?after=a", "y").await.ok();
    put("c?before=b", "z").await.ok();
    put("first", "w").await.ok();
    assert_eq!(own_rules(&alice, "content").await, ["first", "a", "c", "b"]);
    put("c", "changed").await.ok();
    assert_eq!(own_rules(&alice, "content").await, ["first", "a", "c", "b"]);
    let rule = alice.get("/pushrules/global/content/c").await.ok();
    assert_eq!((&rule["pattern"], &rule["enabled"]), (&json!("changed"), &json!(true)));
    assert_eq!(rule["actions"], json!(["notify", { "set_tweak": "sound", "value": "bing" }]));

    alice.delete("/pushrules/global/content/a").await.ok();
    assert_eq!(alice.delete("/pushrules/global/content/a").await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(own_rules(&alice, "content").await, ["first", "c", "b"]);

    // Without conditions a rule always matches; what old clients ask for is kept.
    alice.put("/pushrules/global/override/all", json!({ "actions": ["dont_notify"] })).await.ok();
    assert_eq!(alice.get("/pushrules/global/override/all/actions").await.ok(), json!({ "actions": ["dont_notify"] }));
    alice.put("/pushrules/global/room/!r:test.example", json!({ "actions": [] })).await.ok();
    alice.put("/pushrules/global/sender/@b:test.example", json!({ "actions": ["notify"] })).await.ok();
    assert_eq!(own_rules(&alice, "room").await, ["!r:test.example"]);
    assert_eq!(own_rules(&alice, "sender").await, ["@b:test.example"]);
    server.finish().await;
}

#[tokio::test]
async fn the_servers_rules_can_be_switched_and_changed_but_not_removed() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let master = "/pushrules/global/override/.m.rule.master";
    assert_eq!(alice.get(&format!("{master}/enabled")).await.ok(), json!({ "enabled": false }));
    alice.put(&format!("{master}/enabled"), json!({ "enabled": true })).await.ok();
    assert_eq!(alice.get(&format!("{master}/enabled")).await.ok(), json!({ "enabled": true }));
    let message = "/pushrules/global/underride/.m.rule.message/actions";
    alice.put(message, json!({ "actions": ["notify"] })).await.ok();
    assert_eq!(alice.get(message).await.ok(), json!({ "actions": ["notify"] }));
    assert_eq!(alice.delete(master).await.error(), (400, "M_INVALID_PARAM"));

    let before = server.app().view().unwrap().lsn();
    alice.put(&format!("{master}/enabled"), json!({ "enabled": true })).await.ok();
    assert_eq!(server.app().view().unwrap().lsn(), before);
    server.finish().await;
}

#[tokio::test]
async fn what_is_no_rule_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let rule = json!({ "pattern": "x", "actions": [] });
    let cases: &[(&str, &Value, (u16, &str))] = &[
        ("content/.mine", &rule, (400, "M_INVALID_PARAM")),
        ("content/a%2Fb", &rule, (400, "M_INVALID_PARAM")),
        ("content/a%5Cb", &rule, (400, "M_INVALID_PARAM")),
        ("content/a?before=nowhere", &rule, (400, "M_INVALID_PARAM")),
        ("content/a?after=.m.rule.contains_user_name", &rule, (400, "M_INVALID_PARAM")),
        ("content/a", &json!({ "actions": [] }), (400, "M_MISSING_PARAM")),
        ("content/a", &json!({ "pattern": "x" }), (400, "M_MISSING_PARAM")),
        ("content/a", &json!({ "pattern": "x", "actions": 7 }), (400, "M_BAD_JSON")),
        ("content/a", &json!([]), (400, "M_BAD_JSON")),
        ("content/a", &json!({ "pattern": "x", "actions": [{ "set_tweak": 7 }] }), (400, "M_BAD_JSON")),
        ("override/a", &json!({ "actions": [], "conditions": [{ "kind": "event_match" }] }), (400, "M_MISSING_PARAM")),
        ("room/nowhere", &rule, (400, "M_INVALID_PARAM")),
        ("nonsense/a", &rule, (400, "M_INVALID_PARAM")),
    ];
    for (path, body, error) in cases {
        let reply = alice.put(&format!("/pushrules/global/{path}"), (*body).clone()).await;
        assert_eq!(&reply.error(), error, "{path} {body}");
    }
    for path in ["content/a", "nonsense/a", "content/a/enabled", "override/a/actions"] {
        assert_eq!(alice.get(&format!("/pushrules/global/{path}")).await.error(), (404, "M_NOT_FOUND"), "{path}");
    }
    let enabled = alice.put("/pushrules/global/content/a/enabled", json!({ "enabled": true })).await;
    assert_eq!(enabled.error(), (404, "M_NOT_FOUND"));
    let actions = alice.put("/pushrules/global/nonsense/a/actions", json!({ "actions": [] })).await;
    assert_eq!(actions.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn there_is_an_end_to_rules() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let huge = json!({ "pattern": "x".repeat(200_000), "actions": [] });
    alice.put("/pushrules/global/content/one", huge.clone()).await.ok();
    assert_eq!(alice.put("/pushrules/global/content/two", huge).await.error(), (413, "M_TOO_LARGE"));
    alice.delete("/pushrules/global/content/one").await.ok();
    server.finish().await;
}
