//! `[log.kafka]`, and the address of a topic.

use std::{path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer};

use super::{milliseconds, optional, seconds};

/// Topics beside the log's have its name and a suffix; Kafka allows 249 characters.
const LONGEST_NAME: usize = 230;

/// Where a log is on Kafka: `kafka://HOST:PORT,HOST:PORT/TOPIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The brokers to ask first, `HOST:PORT,HOST:PORT`.
    pub brokers: String,
    /// The topic with the log.
    pub name: String,
}

impl Topic {
    /// The topic beside it, in which the nodes of a server tell each other what is not history.
    #[must_use]
    pub fn channel(&self) -> String {
        format!("{}-ephemeral", self.name)
    }
}

impl FromStr for Topic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?}: {why}; write kafka://HOST:PORT,HOST:PORT/TOPIC");
        let rest = text.strip_prefix("kafka://").ok_or_else(|| wrong("it doesn't begin with kafka://"))?;
        let (brokers, name) = rest.split_once('/').ok_or_else(|| wrong("it names no topic"))?;
        for broker in brokers.split(',') {
            let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse());
            if !matches!(port, Some(Ok(1..=u16::MAX))) {
                return Err(wrong(&format!("{broker:?} is no HOST:PORT")));
            }
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(legal) || name.starts_with('.') {
            return Err(wrong(&format!(
                "{name:?} is no topic: up to {LONGEST_NAME} letters, digits, '.', '_' and '-'"
            )));
        }
        Ok(Self { brokers: brokers.to_owned(), name: name.to_owned() })
    }
}

/// `[log.kafka]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "default.toml documents every setting")]
pub struct Kafka {
    pub create_topic: bool,
    /// Zero: as many as there are brokers, at most three.
    pub replication_factor: u16,
    pub accept_power_loss: bool,
    #[serde(rename = "timeout_seconds", deserialize_with = "seconds")]
    pub timeout: Duration,
    #[serde(rename = "linger_ms", deserialize_with = "milliseconds")]
    pub linger: Duration,
    pub batch_bytes: u32,
    pub compression: Compression,
    pub properties: Vec<Property>,
    #[serde(deserialize_with = "optional")]
    pub properties_file: Option<PathBuf>,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are names of algorithms")]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    /// librdkafka's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// What is Everfold's own to set: its promises rest on it.
const OWN: &[&str] = &[
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "batch.size",
    "bootstrap.servers",
    "compression.codec",
    "compression.type",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "fetch.message.max.bytes",
    "fetch.queue.backoff.ms",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "max.partition.fetch.bytes",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queuing.strategy",
    "request.required.acks",
    "topic.blacklist",
    "transactional.id",
];

/// `name=value`, as librdkafka has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Such as `security.protocol`.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // It is not quoted: there may be a password in it.
        let (name, value) = text.split_once('=').ok_or("a property is no name=value")?;
        let (name, value) = (name.trim(), value.trim());
        if OWN.contains(&name) {
            return Err(format!("{name} is set by Everfold, and what it promises rests on it"));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

impl<'de> Deserialize<'de> for Property {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|why| serde::de::Error::custom(format!("log.kafka.properties: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_named_by_brokers_and_name() {
        let topic: Topic = "kafka://a:9092,[::1]:9093/org.example-log_1".parse().unwrap();
        assert_eq!((topic.brokers.as_str(), topic.name.as_str()), ("a:9092,[::1]:9093", "org.example-log_1"));
        for wrong in [
            "kafka:/a:1/t",
            "kafka://a:1",
            "kafka://a/t",
            "kafka://:1/t",
            "kafka://a:0/t",
            "kafka://a:1,/t",
            "kafka://a:1/",
            "kafka://a:1/t/u",
            "kafka://a:1/..",
            "kafka://a:1/ü",
        ] {
            let error = wrong.parse::<Topic>().unwrap_err();
            assert!(error.contains("write kafka://HOST:PORT,HOST:PORT/TOPIC"), "{wrong}: {error}");
        }
    }

    #[test]
    fn properties_pass_except_those_that_promises_rest_on() {
        let property: Property = "sasl.password = a=b ".parse().unwrap();
        assert_eq!((property.name.as_str(), property.value.as_str()), ("sasl.password", "a=b"));
        assert!("security.protocol".parse::<Property>().unwrap_err().contains("name=value"));
        for own in ["acks=1", "enable.partition.eof = true", "delivery.report.only.error=true", "queuing.strategy=lifo"]
        {
            assert!(own.parse::<Property>().unwrap_err().contains("rests on it"), "{own}");
        }
    }
}
