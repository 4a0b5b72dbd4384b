//! The topic: made where that is allowed, and checked in any case. One that would lose records is refused, with
//! everything that is wrong and how to change it.

use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    metadata::Metadata,
};

use super::{
    OpenError,
    settings::{self, Context, MESSAGE_BYTES},
};
use crate::config::{Kafka, Topic};

/// What must hold on each topic of the log.
const SETTINGS: [(&str, &str, &str); 5] = [
    ("cleanup.policy", "delete", "compaction removes records"),
    ("retention.ms", "-1", "old records would be deleted"),
    ("retention.bytes", "-1", "old records would be deleted"),
    ("unclean.leader.election.enable", "false", "a broker that lacks acknowledged records could become the leader"),
    (
        "message.timestamp.type",
        "LogAppendTime",
        "records would be refused for the clock of the node that they come from",
    ),
];

/// The topic as the brokers describe it.
struct Found {
    partitions: usize,
    /// On the broker that has the fewest.
    copies: usize,
}

/// Makes and checks topics.
pub(super) struct Topics<'a> {
    settings: &'a Kafka,
    brokers: &'a str,
    client: &'a ClientConfig,
    consumer: BaseConsumer<Context>,
}

impl<'a> Topics<'a> {
    pub fn new(settings: &'a Kafka, topic: &'a Topic, client: &'a ClientConfig) -> Result<Self, OpenError> {
        let consumer = settings::consumer(client, Context::default())?;
        Ok(Self { settings, brokers: &topic.brokers, client, consumer })
    }

    /// Finds the topic, and checks what reading needs.
    pub fn find(&self, name: &str) -> Result<(), OpenError> {
        match self.look(name)? {
            Some(Found { partitions: 1, .. }) => Ok(()),
            Some(found) => Err(OpenError::Unfit { topic: name.to_owned(), problems: vec![found.partitions()] }),
            None => Err(self.missing(name, "")),
        }
    }

    /// Whether there is such a topic.
    pub fn exists(&self, name: &str) -> Result<bool, OpenError> {
        Ok(self.look(name)?.is_some())
    }

    /// Finds or makes the topic, and checks that it loses nothing.
    pub fn ensure(&self, name: &str) -> Result<(), OpenError> {
        let found = match self.look(name)? {
            Some(found) => found,
            None if self.settings.create_topic => self.create(name)?,
            None => {
                let hint = "; make it, or let the server make it with log.kafka.create_topic = true";
                return Err(self.missing(name, hint));
            }
        };
        let problems = self.problems(name, &found, &self.describe(name)?);
        if problems.is_empty() { Ok(()) } else { Err(OpenError::Unfit { topic: name.to_owned(), problems }) }
    }

    fn missing(&self, name: &str, hint: &str) -> OpenError {
        OpenError::Missing { topic: name.to_owned(), brokers: self.brokers.to_owned(), hint: hint.to_owned() }
    }

    fn metadata(&self, name: &str) -> Result<Metadata, OpenError> {
        let within = self.settings.timeout;
        self.consumer.fetch_metadata(Some(name), within).map_err(|error| match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut) | None => {
                // The library says why to whoever polls.
                for _ in 0..20 {
                    drop(self.consumer.poll(Duration::ZERO));
                }
                let trouble = self.consumer.context().trouble();
                OpenError::Unreachable { brokers: self.brokers.to_owned(), within, trouble }
            }
            Some(_) => refused(name, "can't be looked at", &error),
        })
    }

    fn look(&self, name: &str) -> Result<Option<Found>, OpenError> {
        let metadata = self.metadata(name)?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
            Some(error) => return Err(refused(name, "can't be looked at", &error)),
        }
        let copies = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
        Ok(Some(Found { partitions: topic.partitions().len(), copies: copies.unwrap_or_default() }))
    }

    fn admin(&self) -> Result<AdminClient<Context>, OpenError> {
        let admin = self.client.create_with_context(self.consumer.context().as_ref().clone());
        admin.map_err(|error| OpenError::Settings(error.to_string()))
    }

    fn options(&self) -> AdminOptions {
        let within = Some(self.settings.timeout);
        AdminOptions::new().request_timeout(within).operation_timeout(within)
    }

    fn create(&self, name: &str) -> Result<Found, OpenError> {
        let brokers = self.metadata(name)?.brokers().len();
        let copies = match self.settings.replication_factor {
            0 => i32::try_from(brokers.clamp(1, 3)).unwrap_or(1),
            copies => i32::from(copies),
        };
        let (bytes, minimum) = (MESSAGE_BYTES.to_string(), if copies > 1 { "2" } else { "1" });
        let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(copies));
        for (key, value, _) in SETTINGS {
            topic = topic.set(key, value);
        }
        topic = topic.set("max.message.bytes", &bytes).set("min.insync.replicas", minimum);
        if copies == 1 && !self.settings.accept_power_loss {
            topic = topic.set("flush.messages", "1");
        }
        let made = block_on(self.admin()?.create_topics([&topic], &self.options()));
        match made.map_err(|error| refused(name, "can't be made", &error))?.into_iter().next() {
            Some(Err((_, error))) if error != RDKafkaErrorCode::TopicAlreadyExists => {
                return Err(refused(name, &format!("can't be made on {copies} brokers of {brokers}"), &error));
            }
            _ => tracing::info!(topic = name, copies, "made the topic"),
        }
        let deadline = Instant::now() + self.settings.timeout;
        loop {
            if let Some(found) = self.look(name)?.filter(|found| found.partitions > 0) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(self.missing(name, ", though it was just made"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn describe(&self, name: &str) -> Result<ConfigResource, OpenError> {
        let described = block_on(self.admin()?.describe_configs([&ResourceSpecifier::Topic(name)], &self.options()));
        let what = "can't be checked (its user needs DescribeConfigs)";
        let described = described.map_err(|error| refused(name, what, &error))?.into_iter().next();
        described.ok_or_else(|| self.missing(name, ""))?.map_err(|error| refused(name, what, &error))
    }

    /// Everything that is wrong with a topic.
    fn problems(&self, name: &str, found: &Found, config: &ConfigResource) -> Vec<String> {
        let value = |key: &str| config.get(key).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        let number = |key: &str| value(key).parse::<u64>().unwrap_or_default();
        let (mut problems, mut changes) = (Vec::new(), Vec::new());
        let mut wrong = |key: &str, better: String, why: &str| {
            problems.push(format!("- {key} is {}: {why}", value(key)));
            changes.push(format!("{key}={better}"));
        };
        for (key, better, why) in SETTINGS {
            if value(key) != better {
                wrong(key, better.to_owned(), why);
            }
        }
        if number("max.message.bytes") < u64::from(MESSAGE_BYTES) {
            wrong("max.message.bytes", MESSAGE_BYTES.to_string(), "a record of the largest size would not fit");
        }
        let mut others = Vec::new();
        if found.partitions != 1 {
            others.push(found.partitions());
        }
        if found.copies > 1 {
            if number("min.insync.replicas") < 2 {
                wrong("min.insync.replicas", "2".to_owned(), "a record could be acknowledged with one copy");
            }
        } else if !self.settings.accept_power_loss && number("flush.messages") != 1 {
            let why = "it is on one broker, where a loss of power would lose acknowledged records (more brokers, with a \
                       replication factor of 3, are better; to take the risk, set log.kafka.accept_power_loss = true)";
            wrong("flush.messages", "1".to_owned(), why);
        }
        problems.extend(others);
        if !changes.is_empty() {
            problems.push(format!(
                "To change it: kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name {name} \
                 --add-config {}",
                self.brokers,
                changes.join(",")
            ));
        }
        problems
    }
}

impl Found {
    fn partitions(&self) -> String {
        let count = self.partitions;
        format!(
            "- it has {count} partitions: a log is one order, and takes exactly 1; name another topic, or make this one anew"
        )
    }
}

fn refused(name: &str, what: &str, why: &impl ToString) -> OpenError {
    OpenError::Refused { what: format!("the Kafka topic {name} {what}"), why: why.to_string() }
}
