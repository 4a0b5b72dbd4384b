use std::time::Duration;

use schemas::Lsn;

use crate::log::ReadError;

/// Why a log on Kafka can't be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),
    /// Nobody answers.
    #[error(
        "no Kafka broker of {brokers} answered within {} s{trouble}: do the addresses (log.backend) fit, and what the \
         listener wants (security.protocol and the like, in log.kafka.properties)?",
        .within.as_secs()
    )]
    Unreachable {
        /// Who was asked.
        brokers: String,
        /// How long it was tried.
        within: Duration,
        /// What went wrong, in brackets.
        trouble: String,
    },
    /// Nothing to read.
    #[error("there is no topic {topic} on the Kafka brokers {brokers}{hint}")]
    Missing {
        /// Which.
        topic: String,
        /// Where.
        brokers: String,
        /// What to do about it.
        hint: String,
    },
    /// The brokers refuse something.
    #[error("{what}: {why}")]
    Refused {
        /// What was asked of them.
        what: String,
        /// What they say.
        why: String,
    },
    /// A topic that would lose records, or can't take them.
    #[error("the Kafka topic {topic} can't hold a log:\n{}", .problems.join("\n"))]
    Unfit {
        /// Which.
        topic: String,
        /// Everything that is wrong, and what to do about each.
        problems: Vec<String>,
    },
    /// A server runs on it, which would go on as if nothing had happened.
    #[error(
        "a server runs on the Kafka topic {topic}: its nodes are heard in {channel}. Stop all of them first, or name another \
         topic"
    )]
    Used {
        /// Which.
        topic: String,
        /// Where it is heard.
        channel: String,
    },
    /// What is there can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No such position.
    #[error("there is no record {lsn} on this log: it ends at {tail}")]
    NoRecord {
        /// What was asked for.
        lsn: Lsn,
        /// The log's last position.
        tail: Lsn,
    },
}
