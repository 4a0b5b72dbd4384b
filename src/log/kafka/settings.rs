use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::OpenError;
use crate::config::{Kafka, Property};

/// A message may have so many bytes: a record of the largest size, its headers, and what surrounds a batch.
pub(super) const MESSAGE_BYTES: u32 = 2 << 20;

/// A client of the brokers, as the settings describe it. What it is for, whoever makes it adds.
///
/// # Errors
/// When the file with more properties can't be read, or the client library refuses one.
pub fn client(settings: &Kafka, brokers: &str) -> Result<ClientConfig, OpenError> {
    let mut config = ClientConfig::new();
    config.set("client.id", "everfold");
    // A broker that comes back is found within a second.
    config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "1000").set("retry.backoff.ms", "50");
    config.set("socket.keepalive.enable", "true").set("socket.nagle.disable", "true");
    // Addresses are often private, and a broker that is away has its connection closed often enough.
    config.set("log.connection.close", "false");
    config.set_log_level(RDKafkaLogLevel::Info);
    let in_file = settings.properties_file.as_deref().map_or_else(
        || Ok(Vec::new()),
        |file| {
            let wrong =
                |why: String| OpenError::Settings(format!("log.kafka.properties_file {}: {why}", file.display()));
            let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
            let lines = (1..).zip(text.lines().map(str::trim));
            let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
            let parse = |(n, line): (u32, &str)| line.parse().map_err(|why| wrong(format!("line {n}: {why}")));
            lines.map(parse).collect::<Result<Vec<Property>, _>>()
        },
    )?;
    for Property { name, value } in settings.properties.iter().chain(&in_file) {
        config.set(name, value);
    }
    config.set("bootstrap.servers", brokers);
    // A topic that is missing is an error. The library has brokers make it, with whatever settings, for who appends.
    config.set("allow.auto.create.topics", "false");
    // It also says which property it doesn't know.
    config.create_native_config().map_err(|error| {
        let why = match error {
            // What it is set to may be a secret.
            KafkaError::ClientConfig(_, why, name, _) => format!("{name}: {why}"),
            other => other.to_string(),
        };
        OpenError::Settings(format!("log.kafka.properties: {why}"))
    })?;
    Ok(config)
}

/// A consumer that reads where it is told to, and keeps no positions on the brokers.
///
/// # Errors
/// When the client library refuses a setting.
pub fn consumer(client: &ClientConfig, context: Context) -> Result<BaseConsumer<Context>, OpenError> {
    let mut config = client.clone();
    // The library wants a name, but no group is ever joined, and no position committed.
    config.set("group.id", "everfold");
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    // What is missing is an error, and never skipped.
    config.set("auto.offset.reset", "error");
    // A transaction that somebody left open on the topic must not hide what comes after it.
    config.set("isolation.level", "read_uncommitted");
    config.set("fetch.error.backoff.ms", "50").set("fetch.queue.backoff.ms", "10");
    config.set("fetch.message.max.bytes", MESSAGE_BYTES.to_string());
    config.set("queued.max.messages.kbytes", "16384");
    config.create_with_context(context).map_err(|error| OpenError::Settings(error.to_string()))
}

/// Takes what the client library says, for the server's own log, and remembers what was wrong last.
#[derive(Clone, Default)]
pub struct Context {
    last: Arc<Mutex<Option<String>>>,
}

impl Context {
    fn note(&self, reason: &str) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// What was wrong last, as the end of a sentence: empty if nothing was.
    #[must_use]
    pub fn trouble(&self) -> String {
        let mut text = String::new();
        if let Some(last) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            // Writing into a string can't fail.
            let _ = write!(text, " ({last})");
        }
        text
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(target: "everfold::kafka", facility, "{message}");
            }
            // A broker that is away is an error to the library, and passes.
            _ => {
                tracing::warn!(target: "everfold::kafka", facility, "{message}");
                if facility == "FAIL" {
                    // Which thread says so is of no interest.
                    let reason = message.split_once("]: ").map_or(message, |(_, reason)| reason);
                    self.note(reason);
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "everfold::kafka", %error, "{reason}");
        // That all are down says less than why each is.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.note(reason);
        }
    }
}

impl ConsumerContext for Context {}
