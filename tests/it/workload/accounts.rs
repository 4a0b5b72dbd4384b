//! What administrators do to accounts and users to their pushers, while everybody goes on.

use http::Method;
use serde_json::json;

use super::{Asked, Town};
use crate::common::{Client, Reply, SigningKey, TestServer};

const ROUNDS: usize = 12;

impl Town {
    pub(super) async fn look_after(&self, server: &TestServer) {
        let root = self.people.borrow()[0].clone();
        let keyed = server.user("keyed").await;
        let keys = json!({ "master_key": SigningKey::of_user().cross_signing_key(&keyed.user, "master") });
        keyed.post("/keys/device_signing/upload", keys).await.ok();
        for round in 0..ROUNDS {
            let user = format!("@kept{}:test.example", self.below(2));
            let on = round.is_multiple_of(2);
            for (method, path, body) in self.flags(&user, on).into_iter().chain(self.accounts(&user, &keyed, on)) {
                ask(&root, method, &path, body).await;
            }
            let token = ask(&root, Method::POST, &format!("/_synapse/admin/v1/users/{user}/login"), json!({})).await;
            if let Some(token) = token["access_token"].as_str().filter(|_| on) {
                ask(&root.with_token(token), Method::POST, "/logout", json!({})).await;
            }
            let pusher = json!({
                "app_id": "org.example", "pushkey": format!("key{}", self.below(2)), "app_display_name": "App",
                "kind": if on { json!("http") } else { json!(null) }, "device_display_name": "Phone", "lang": "en",
                "data": { "url": "https://push.example/_matrix/push/v1/notify" }, "append": self.below(2) == 0,
            });
            let me = self.pick(&self.people.borrow().clone());
            for me in [&me, &keyed] {
                ask(me, Method::POST, "/pushers/set", pusher.clone()).await;
            }
        }
    }

    fn accounts(&self, user: &str, keyed: &Client, on: bool) -> [Asked; 4] {
        let path = format!("/_synapse/admin/v2/users/{user}");
        let mail = json!({ "medium": "email", "address": format!("a{}@example.org", self.below(3)) });
        let outside = json!({ "auth_provider": "p", "external_id": self.below(3).to_string() });
        let ids = json!({
            "threepids": if on { vec![mail] } else { vec![] }, "external_ids": if on { vec![outside] } else { vec![] },
            "displayname": if on { "Kept" } else { "" },
        });
        let kind = json!({ "locked": on, "user_type": if on { json!("bot") } else { json!(null) } });
        let keys = format!("/_synapse/admin/v1/users/{}/_allow_cross_signing_replacement_without_uia", keyed.user);
        [
            (Method::PUT, path.clone(), ids),
            (Method::PUT, path.clone(), kind),
            (Method::PUT, path, json!({ "deactivated": !on })),
            (Method::POST, keys, json!({})),
        ]
    }

    fn flags(&self, user: &str, on: bool) -> [Asked; 5] {
        let method = if on { Method::POST } else { Method::DELETE };
        let path = |path: String| format!("/_synapse/admin/v1/{path}");
        let rate = json!({ "messages_per_second": self.below(3), "burst_count": self.below(9) });
        [
            (Method::PUT, path(format!("suspend/{user}")), json!({ "suspend": on })),
            (method.clone(), path(format!("users/{user}/shadow_ban")), json!({})),
            (method, path(format!("users/{user}/override_ratelimit")), rate),
            (Method::POST, path("account_validity/validity".into()), json!({ "user_id": user })),
            (Method::PUT, path(format!("experimental_features/{user}")), json!({ "features": { "msc3881": on } })),
        ]
    }
}

async fn ask(client: &Client, method: Method, path: &str, body: serde_json::Value) -> Reply {
    let reply = Reply::of(client.request(method, path).json(&body)).await;
    assert!(!reply.status.is_server_error(), "{path} {body}: {} {}", reply.status, reply.text);
    reply
}
