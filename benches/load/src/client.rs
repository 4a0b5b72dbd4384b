//! The client-server API as the scenarios need it: one method a call, nothing cached, nothing tried again.

use std::hash::{BuildHasher, RandomState};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use sha1::Sha1;

/// How accounts are made.
#[derive(Clone, Debug)]
pub enum Registration {
    /// Open registration, by `m.login.dummy`.
    Open,
    /// By `m.login.registration_token`.
    Token(String),
    /// By a secret shared with the server, at `/_synapse/admin/v1/register`.
    SharedSecret(String),
}

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// The server answered with an error.
    Status {
        /// Method and path of the request.
        call: String,
        /// HTTP status.
        status: StatusCode,
        /// The body, as text.
        body: String,
    },
    /// There was no answer, or one that could not be read.
    Transport(String),
}

impl CallError {
    /// Whether the server asks for fewer calls (`M_LIMIT_EXCEEDED`).
    pub fn is_limited(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == StatusCode::TOO_MANY_REQUESTS)
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status { call, status, body } => write!(out, "{call}: {status}: {body}"),
            Self::Transport(why) => out.write_str(why),
        }
    }
}

impl std::error::Error for CallError {}

impl From<reqwest::Error> for CallError {
    fn from(error: reqwest::Error) -> Self {
        use std::error::Error as _;
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        Self::Transport(text)
    }
}

/// The answer to a call.
pub type CallResult<T> = Result<T, CallError>;

/// A homeserver, without an account.
#[derive(Clone, Debug)]
pub struct Server {
    http: reqwest::Client,
    /// Its nodes, which take the calls in turn.
    nodes: Vec<String>,
    calls: Arc<AtomicUsize>,
    registration: Registration,
    /// Tells the accounts of this run from those of earlier ones.
    run: String,
}

/// The part of a /sync answer that the scenarios read.
#[derive(Deserialize)]
pub struct Batch {
    /// The position to sync from next.
    pub next_batch: String,
}

/// The part of a /messages answer that the scenarios read.
#[derive(Deserialize)]
pub struct Page {
    /// The position of the next page, if there is one.
    pub end: Option<String>,
    /// The events, unread.
    pub chunk: Vec<IgnoredAny>,
}

#[derive(Deserialize)]
struct Registered {
    user_id: String,
    access_token: String,
}

#[derive(Deserialize)]
struct Uia {
    session: Option<String>,
    flows: Vec<Flow>,
    #[serde(default)]
    completed: Vec<String>,
    /// Why the stage last tried was refused.
    error: Option<String>,
}

#[derive(Deserialize)]
struct Flow {
    stages: Vec<String>,
}

impl Server {
    /// The homeserver with nodes at `urls`, at least one.
    pub fn new(urls: &[String], registration: Registration) -> Result<Self> {
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(300)).build().context("build the HTTP client")?;
        Ok(Self {
            http,
            nodes: urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            calls: Arc::default(),
            registration,
            // The standard library's hash keys are random in each process.
            run: format!("{:x}", RandomState::new().hash_one("run")),
        })
    }

    /// Fails unless every node answers.
    pub async fn check(&self) -> Result<()> {
        for node in &self.nodes {
            let url = format!("{node}/_matrix/client/versions");
            let reply = self.http.get(&url).send().await;
            let reply = reply.with_context(|| format!("no homeserver answers at {node}"))?;
            reply.error_for_status().with_context(|| format!("{url} answers with an error"))?;
        }
        Ok(())
    }

    fn next_node(&self) -> &str {
        &self.nodes[self.calls.fetch_add(1, Ordering::Relaxed) % self.nodes.len()]
    }

    /// Makes one new account; `name` is unique within the run.
    pub async fn register(&self, name: &str) -> Result<Account> {
        let username = format!("load-{}-{name}", self.run);
        let registered = match &self.registration {
            Registration::SharedSecret(secret) => self.register_by_secret(&username, secret).await,
            Registration::Open => self.register_in_stages(&username, None).await,
            Registration::Token(token) => self.register_in_stages(&username, Some(token)).await,
        };
        let registered = registered.with_context(|| format!("register {username}"))?;
        Ok(Account {
            server: self.clone(),
            user_id: registered.user_id,
            authorization: format!("Bearer {}", registered.access_token),
        })
    }

    async fn register_by_secret(&self, username: &str, secret: &str) -> Result<Registered> {
        #[derive(Deserialize)]
        struct Nonce {
            nonce: String,
        }
        let path = "/_synapse/admin/v1/register";
        let reply = self.request(Method::GET, path, None, &[], None).await?;
        let Nonce { nonce } = serde_json::from_slice(&reply)?;
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes())?;
        mac.update(format!("{nonce}\0{username}\0password\0notadmin").as_bytes());
        let mac = hex::encode(mac.finalize().into_bytes());
        let body = json!({ "nonce": nonce, "username": username, "password": "password", "admin": false, "mac": mac });
        Ok(serde_json::from_slice(&self.request(Method::POST, path, None, &[], Some(&body)).await?)?)
    }

    /// Registers by user-interactive authentication with the stages that need no person.
    async fn register_in_stages(&self, username: &str, token: Option<&str>) -> Result<Registered> {
        let mut body = json!({ "username": username, "password": "correct-horse-battery-staple" });
        for _ in 0..4 {
            let reply = self.request(Method::POST, "/_matrix/client/v3/register", None, &[], Some(&body)).await;
            let uia: Uia = match reply {
                Ok(reply) => return Ok(serde_json::from_slice(&reply)?),
                Err(CallError::Status { status: StatusCode::UNAUTHORIZED, body, .. }) => {
                    serde_json::from_str(&body).with_context(|| format!("not a list of stages: {body}"))?
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(error) = uia.error {
                bail!("refused: {error}");
            }
            let able = |stage: &String| match stage.as_str() {
                "m.login.dummy" => true,
                "m.login.registration_token" => token.is_some(),
                _ => false,
            };
            let flow = uia.flows.iter().find(|flow| flow.stages.iter().all(able));
            let Some(flow) = flow else {
                bail!("the server offers no registration by m.login.dummy or with the token given");
            };
            let Some(stage) = flow.stages.iter().find(|stage| !uia.completed.contains(stage)) else {
                bail!("the server asks for no further stage, yet does not register");
            };
            body["auth"] = json!({ "type": stage, "session": uia.session, "token": token });
        }
        bail!("registration did not end after four stages")
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> CallResult<Bytes> {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.next_node()));
        if let Some(authorization) = authorization {
            request = request.header(reqwest::header::AUTHORIZATION, authorization);
        }
        if !query.is_empty() {
            request = request.query(query);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let reply = request.send().await?;
        let status = reply.status();
        let bytes = reply.bytes().await?;
        if status.is_success() {
            return Ok(bytes);
        }
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Err(CallError::Status { call: format!("{method} {path}"), status, body })
    }
}

/// A user with an access token.
#[derive(Clone, Debug)]
pub struct Account {
    server: Server,
    /// The full user id.
    pub user_id: String,
    authorization: String,
}

impl Account {
    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> CallResult<Bytes> {
        let path = format!("/_matrix/client/v3{path}");
        self.server.request(method, &path, Some(&self.authorization), query, body).await
    }

    /// Creates a room and gives its id.
    pub async fn create_room(&self, options: &Value) -> CallResult<String> {
        #[derive(Deserialize)]
        struct Created {
            room_id: String,
        }
        let reply = self.call(Method::POST, "/createRoom", &[], Some(options)).await?;
        Ok(parse::<Created>(&reply)?.room_id)
    }

    /// Joins a room that is open or to which there is an invite.
    pub async fn join(&self, room: &str) -> CallResult<()> {
        self.call(Method::POST, &format!("/rooms/{room}/join"), &[], Some(&json!({}))).await?;
        Ok(())
    }

    /// Sends a text message; `transaction` is unique for this account. Gives the event id.
    pub async fn send(&self, room: &str, transaction: &str, text: &str) -> CallResult<String> {
        #[derive(Deserialize)]
        struct Sent {
            event_id: String,
        }
        let path = format!("/rooms/{room}/send/m.room.message/{transaction}");
        let content = json!({ "msgtype": "m.text", "body": text });
        let reply = self.call(Method::PUT, &path, &[], Some(&content)).await?;
        Ok(parse::<Sent>(&reply)?.event_id)
    }

    /// Sets the room's topic.
    pub async fn topic(&self, room: &str, topic: &str) -> CallResult<()> {
        let path = format!("/rooms/{room}/state/m.room.topic/");
        self.call(Method::PUT, &path, &[], Some(&json!({ "topic": topic }))).await?;
        Ok(())
    }

    /// One /sync; the answer unread, see [`next_batch`].
    pub async fn sync(&self, since: Option<&str>, timeout_ms: u32, filter: Option<&str>) -> CallResult<Bytes> {
        let timeout = timeout_ms.to_string();
        let mut query = vec![("timeout", timeout.as_str())];
        query.extend(since.map(|since| ("since", since)));
        query.extend(filter.map(|filter| ("filter", filter)));
        self.call(Method::GET, "/sync", &query, None).await
    }

    /// The current sync position.
    pub async fn position(&self) -> CallResult<String> {
        next_batch(&self.sync(None, 0, None).await?)
    }

    /// One page of a room's history, backwards from `from`, or from the end.
    pub async fn messages(&self, room: &str, from: Option<&str>, limit: usize) -> CallResult<Page> {
        let limit = limit.to_string();
        let mut query = vec![("dir", "b"), ("limit", limit.as_str())];
        query.extend(from.map(|from| ("from", from)));
        parse(&self.call(Method::GET, &format!("/rooms/{room}/messages"), &query, None).await?)
    }

    /// The whole current state; gives the size of the answer in bytes.
    pub async fn state(&self, room: &str) -> CallResult<usize> {
        Ok(self.call(Method::GET, &format!("/rooms/{room}/state"), &[], None).await?.len())
    }

    /// All membership events; gives the size of the answer in bytes.
    pub async fn members(&self, room: &str) -> CallResult<usize> {
        Ok(self.call(Method::GET, &format!("/rooms/{room}/members"), &[], None).await?.len())
    }

    /// Marks the room as read up to an event.
    pub async fn read_receipt(&self, room: &str, event: &str) -> CallResult<()> {
        let path = format!("/rooms/{room}/receipt/m.read/{event}");
        self.call(Method::POST, &path, &[], Some(&json!({}))).await?;
        Ok(())
    }

    /// Shows the user as typing, for half a minute.
    pub async fn typing(&self, room: &str) -> CallResult<()> {
        let path = format!("/rooms/{room}/typing/{}", self.user_id);
        self.call(Method::PUT, &path, &[], Some(&json!({ "typing": true, "timeout": 30_000 }))).await?;
        Ok(())
    }
}

/// The position after a /sync answer.
pub fn next_batch(reply: &Bytes) -> CallResult<String> {
    Ok(parse::<Batch>(reply)?.next_batch)
}

fn parse<T: DeserializeOwned>(reply: &Bytes) -> CallResult<T> {
    serde_json::from_slice(reply).map_err(|error| CallError::Transport(format!("unexpected answer: {error}")))
}
