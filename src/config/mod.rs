//! The settings: one typed tree, put together from defaults, file, environment and flags, and checked once at start.
//!
//! `default.toml` is the one source of the defaults and of what `everfold config example` prints: every key must
//! stand in it, with the reason for its value.

mod kafka;
mod merge;

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ruma::{OwnedServerName, RoomVersionId, UserId};
use serde::{Deserialize, Deserializer};

pub use kafka::{Compression, Kafka, Property, Topic};
pub use merge::{ConfigError, Sources};

/// Every setting with its default and its reason, as TOML.
pub const EXAMPLE: &str = include_str!("default.toml");

/// All settings. `default.toml` says what each is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting, and is what people read")]
pub struct Config {
    pub server_name: OwnedServerName,
    pub data: PathBuf,
    #[serde(deserialize_with = "optional")]
    pub admin_contact: Option<String>,
    pub http: Http,
    pub log: Log,
    pub node: Node,
    pub projector: Projector,
    pub memory: Memory,
    pub registration: Registration,
    pub sessions: Sessions,
    pub account_validity: AccountValidity,
    pub rooms: Rooms,
    pub server_notices: ServerNotices,
    pub limits: Limits,
    pub presence: Presence,
    pub rate_limits: RateLimits,
    pub well_known: WellKnown,
    pub telemetry: Telemetry,
}

/// `[http]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Http {
    pub listen: Vec<SocketAddr>,
    #[serde(deserialize_with = "optional")]
    pub public_url: Option<BaseUrl>,
    pub trusted_proxies: Vec<IpAddr>,
    pub body_bytes: usize,
    pub federation_body_bytes: usize,
    #[serde(rename = "request_timeout_seconds", deserialize_with = "seconds")]
    pub request_timeout: Duration,
    pub max_connections: usize,
    #[serde(rename = "shutdown_seconds", deserialize_with = "seconds")]
    pub shutdown: Duration,
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Log {
    pub backend: Backend,
    #[serde(rename = "sync_delay_ms", deserialize_with = "milliseconds")]
    pub sync_delay: Duration,
    pub kafka: Kafka,
}

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In the data folder.
    Embedded,
    /// On Kafka.
    Kafka(Topic),
}

/// `[node]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Node {
    pub number: u32,
    pub projector: bool,
    #[serde(deserialize_with = "optional")]
    pub url: Option<BaseUrl>,
}

/// `[projector]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Projector {
    pub listen: Vec<SocketAddr>,
}

/// `[memory]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Memory {
    pub block_cache_mib: usize,
    pub write_buffer_mib: usize,
}

/// `[registration]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Registration {
    pub mode: RegistrationMode,
    #[serde(deserialize_with = "optional")]
    pub shared_secret: Option<String>,
    pub guests: bool,
    pub min_password_length: usize,
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationMode {
    /// Anybody.
    Open,
    /// Whoever has a registration token.
    Token,
    /// Nobody without the shared secret.
    Closed,
}

/// `[sessions]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Sessions {
    #[serde(rename = "access_token_seconds", deserialize_with = "lifetime")]
    pub access_token: Option<Duration>,
    #[serde(rename = "refreshable_access_token_seconds", deserialize_with = "lifetime")]
    pub refreshable_access_token: Option<Duration>,
    #[serde(rename = "authentication_seconds", deserialize_with = "seconds")]
    pub authentication: Duration,
    #[serde(rename = "login_token_seconds", deserialize_with = "seconds")]
    pub login_token: Duration,
    pub last_seen_on_log: LastSeen,
}

/// What gets on the log of where devices were last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastSeen {
    /// Times, addresses and programs.
    Everything,
    /// Times alone.
    Times,
    /// Nothing.
    Nothing,
}

/// `[account_validity]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct AccountValidity {
    pub enabled: bool,
    #[serde(rename = "period_days", deserialize_with = "days")]
    pub period: Duration,
}

impl AccountValidity {
    /// When an account expires that begins at a time, milliseconds since the Unix epoch; none if it doesn't.
    #[must_use]
    pub fn end_of_new(&self, now_ms: u64) -> Option<u64> {
        self.enabled.then(|| self.end_of_renewed(now_ms))
    }

    /// When an account expires that is renewed at a time, milliseconds since the Unix epoch.
    #[must_use]
    pub fn end_of_renewed(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `[rooms]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Rooms {
    pub default_version: RoomVersionId,
}

/// `[server_notices]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct ServerNotices {
    #[serde(deserialize_with = "optional")]
    pub localpart: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub display_name: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub avatar_url: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub room_name: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub room_avatar_url: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub room_topic: Option<String>,
    pub auto_join: bool,
}

/// `[limits]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Limits {
    pub events_per_page: usize,
    pub sync_timeline_events: usize,
    #[serde(rename = "sync_timeout_seconds", deserialize_with = "seconds")]
    pub sync_timeout: Duration,
}

/// `[presence]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Presence {
    pub enabled: bool,
}

/// `[rate_limits]`
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct RateLimits {
    pub enabled: bool,
    pub login: Rate,
    pub login_token: Rate,
    pub failed_login: Rate,
    pub registration: Rate,
    pub message: Rate,
    pub join: Rate,
    pub report: Rate,
}

/// How often something may be done.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// In the long run.
    pub per_second: f64,
    /// At once.
    pub burst: u32,
}

/// `[well_known]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct WellKnown {
    #[serde(deserialize_with = "optional")]
    pub server: Option<String>,
    #[serde(deserialize_with = "optional")]
    pub identity_server: Option<BaseUrl>,
    #[serde(deserialize_with = "optional")]
    pub support_page: Option<BaseUrl>,
}

/// `[telemetry]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Telemetry {
    pub filter: String,
    pub format: Format,
    pub metrics: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people.
    Text,
    /// For machines, an object a line.
    Json,
}

/// An absolute http or https URL without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            return Err(format!("{text:?} is not a plain http:// or https:// URL"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            _ if text.starts_with("kafka:") => text.parse().map(Self::Kafka),
            _ => Err(format!("{text:?} is no log backend; use \"embedded\", or \"kafka://HOST:PORT/TOPIC\"")),
        }
    }
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Config {
    /// Puts the settings together and checks them.
    ///
    /// # Errors
    /// Everything that is wrong with them, each with the key and where it stands.
    pub fn load(sources: Sources<'_>) -> Result<Self, ConfigError> {
        let config = merge::load(sources)?;
        config.check()?;
        Ok(config)
    }

    /// Where the log is.
    #[must_use]
    pub fn log_folder(&self) -> PathBuf {
        self.data.join("log")
    }

    /// Where the read models are.
    #[must_use]
    pub fn read_models_folder(&self) -> PathBuf {
        self.data.join("read-models")
    }

    /// Where the shared secret for registration is, if the settings have none.
    #[must_use]
    pub fn shared_secret_file(&self) -> PathBuf {
        self.data.join("registration-secret")
    }

    /// Where the key is by which the server signs what it says.
    #[must_use]
    pub fn signing_key_file(&self) -> PathBuf {
        self.data.join("signing.key")
    }

    /// Where a running server notes its first URL, for the commands that ask it.
    #[must_use]
    pub fn address_file(&self) -> PathBuf {
        self.data.join("address")
    }

    /// Whether a user of this server can have this name.
    fn is_localpart(&self, name: &str) -> bool {
        let user = UserId::parse_with_server_name(name, &self.server_name);
        user.is_ok_and(|user| user.localpart() == name && user.validate_strict().is_ok())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let rates = &self.rate_limits;
        let RateLimits { enabled: _, login, login_token, failed_login, registration, message, join, report } = *rates;
        let rates = [login, login_token, failed_login, registration, message, join, report];
        let rules = [
            (!self.http.listen.is_empty(), "http.listen is empty: name at least one address"),
            (self.http.body_bytes >= 65_536, "http.body_bytes is below 65536, so that not even one event fits"),
            (
                self.http.federation_body_bytes >= 65_536,
                "http.federation_body_bytes is below 65536, so that not even one event fits",
            ),
            (!self.http.request_timeout.is_zero(), "http.request_timeout_seconds is 0: no request could be answered"),
            (self.http.max_connections > 0, "http.max_connections is 0: nobody could connect"),
            (!self.sessions.authentication.is_zero(), "sessions.authentication_seconds is 0: nobody could finish"),
            (!self.sessions.login_token.is_zero(), "sessions.login_token_seconds is 0: nobody could use one in time"),
            (self.memory.block_cache_mib > 0, "memory.block_cache_mib is 0"),
            (self.memory.write_buffer_mib > 0, "memory.write_buffer_mib is 0"),
            (
                (1..=9).contains(&self.log.kafka.timeout.as_secs()),
                "log.kafka.timeout_seconds is not one of 1 to 9: a request waits for 10 seconds at most",
            ),
            (self.log.kafka.batch_bytes >= 1, "log.kafka.batch_bytes is 0"),
            (
                self.node.url.as_ref().is_none_or(|url| url.as_str().starts_with("http://")),
                "node.url is no http:// URL: nodes speak with each other without TLS, in a network of their own",
            ),
            (self.limits.events_per_page > 0, "limits.events_per_page is 0"),
            (self.limits.sync_timeline_events > 0, "limits.sync_timeline_events is 0"),
            (
                (6..=12).any(|version: u8| self.rooms.default_version.as_str() == version.to_string()),
                "rooms.default_version is not one of 6 to 12, in which rooms can be created",
            ),
            (
                self.server_notices.localpart.as_ref().is_none_or(|name| self.is_localpart(name)),
                "server_notices.localpart is not made of a-z, 0-9 and . _ = - / +",
            ),
            (
                rates.iter().all(|rate| rate.per_second.is_finite() && rate.per_second > 0.0 && rate.burst > 0),
                "rate_limits: per_second and burst must be above 0; to have no limits, set rate_limits.enabled = false",
            ),
            (
                tracing_subscriber::EnvFilter::try_new(&self.telemetry.filter).is_ok(),
                "telemetry.filter is no filter: use a level such as \"info\", or \"info,everfold::http=debug\"",
            ),
        ];
        ConfigError::unless_empty(rules.into_iter().filter(|(holds, _)| !holds).map(|(_, why)| why.to_owned()))
    }
}

/// The settings of a file, if one is named, and of the environment of this process.
///
/// # Errors
/// Everything that is wrong with them.
pub fn from_environment(file: Option<&Path>, flags: &[(&'static str, String)]) -> Result<Config, ConfigError> {
    // What is not Unicode is none of ours.
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    let environment: Vec<(String, String)> = std::env::vars_os().filter_map(text).collect();
    Config::load(Sources { file, environment: &environment, flags })
}

/// An empty string is none.
fn optional<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u32::deserialize(deserializer).map(|seconds| Duration::from_secs(seconds.into()))
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u16::deserialize(deserializer).map(|days| Duration::from_secs(u64::from(days) * 86_400))
}

fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u32::deserialize(deserializer).map(|ms| Duration::from_millis(ms.into()))
}

/// Zero is for ever.
fn lifetime<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    seconds(deserializer).map(|time| Some(time).filter(|time| !time.is_zero()))
}
