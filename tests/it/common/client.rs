use std::ops::Index;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use sha1::Sha1;

/// Talks to a server like a Matrix client, as one user or as nobody.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
    /// The user's id; empty before the login.
    pub user: String,
    /// The device's id; empty before the login.
    pub device: String,
}

impl Client {
    pub fn new(url: String) -> Self {
        Self { http: reqwest::Client::new(), url, token: None, user: String::new(), device: String::new() }
    }

    /// The same client with what a login or registration answered.
    pub fn logged_in(&self, reply: &Value) -> Self {
        let text = |key: &str| reply[key].as_str().unwrap_or_else(|| panic!("no {key} in {reply}")).to_owned();
        Self { token: Some(text("access_token")), user: text("user_id"), device: text("device_id"), ..self.clone() }
    }

    /// The same client with another node.
    pub fn at(&self, url: String) -> Self {
        Self { url, ..self.clone() }
    }

    /// Its access token.
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("a client that is logged in")
    }

    /// The same client with an access token.
    pub fn with_token(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// A request. A path that begins with neither `/_` nor `/.` is the client-server API's, version 3.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let whole =
            path.starts_with("/_") || path.starts_with("/.") || path.starts_with("/health") || path == "/metrics";
        let prefix = if whole { "" } else { "/_matrix/client/v3" };
        let request = self.http.request(method, format!("{}{prefix}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Logs in by password, on a new device, with whatever else `extra` says.
    pub async fn log_in(&self, user: &str, password: &str, extra: Value) -> Reply {
        let mut body = json!({
            "type": "m.login.password", "password": password, "identifier": { "type": "m.id.user", "user": user },
        });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        self.post("/login", body).await
    }

    /// This user on another device, or on the same anew; the password is `password of NAME`.
    pub async fn on_device(&self, device: &str) -> Self {
        let name = self.user.trim_start_matches('@').split(':').next().unwrap();
        let device = json!({ "device_id": device });
        self.logged_in(&self.log_in(&self.user, &format!("password of {name}"), device).await.ok())
    }

    /// Registers by the shared secret; the password is `password of NAME`.
    pub async fn register_by_secret(&self, name: &str, secret: &str, admin: bool) -> Reply {
        self.register_as(name, secret, admin, None).await
    }

    /// The same for a user of some type.
    pub async fn register_as(&self, name: &str, secret: &str, admin: bool, user_type: Option<&str>) -> Reply {
        let nonce = self.get("/_synapse/admin/v1/register").await.ok()["nonce"].as_str().unwrap().to_owned();
        let password = format!("password of {name}");
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
        let parts = [nonce.as_str(), name, &password, if admin { "admin" } else { "notadmin" }];
        mac.update(parts.into_iter().chain(user_type).collect::<Vec<_>>().join("\0").as_bytes());
        let mac = hex::encode(mac.finalize().into_bytes());
        let body = json!({
            "nonce": nonce, "username": name, "password": password, "admin": admin, "user_type": user_type, "mac": mac,
        });
        self.post("/_synapse/admin/v1/register", body).await
    }

    /// `auth` of a user-interactive authentication by this user's password.
    pub fn password_auth(&self, password: &str) -> Value {
        let identifier = json!({ "type": "m.id.user", "user": self.user });
        json!({ "type": "m.login.password", "identifier": identifier, "password": password })
    }

    pub async fn get(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        Reply::of(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        Reply::of(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        Reply::of(self.request(Method::PUT, path).json(&body)).await
    }

    /// Sends a body that may be anything.
    pub async fn send_raw(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        Reply::of(self.request(method, path).body(body)).await
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// As JSON; null if it is none.
    pub json: Value,
    pub text: String,
}

impl Reply {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        Self::read(request.send().await.unwrap()).await
    }

    /// The answer to a request as it stands.
    pub async fn sent(request: reqwest::Request) -> Self {
        Self::read(reqwest::Client::new().execute(request).await.unwrap()).await
    }

    async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        Self { status, headers, json: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    /// The body of a reply that must be 200.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json
    }

    /// Status and error code, of a reply that must be an error.
    #[track_caller]
    pub fn error(&self) -> (u16, &str) {
        assert!(self.status.is_client_error() || self.status.is_server_error(), "{} {}", self.status, self.text);
        assert!(self.json["error"].is_string(), "no message: {}", self.text);
        (self.status.as_u16(), self.json["errcode"].as_str().expect("an error code"))
    }

    /// A header, empty if it isn't there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Index<&str> for Reply {
    type Output = Value;

    fn index(&self, key: &str) -> &Value {
        &self.json[key]
    }
}
