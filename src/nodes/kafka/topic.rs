use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};

use crate::{
    config::{Kafka, Topic},
    log::kafka::{OpenError, settings::Context},
};

/// What was told is forgotten soon after ten minutes: Kafka deletes whole segments.
const SETTINGS: [(&str, &str); 6] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "600000"),
    ("segment.ms", "600000"),
    ("segment.bytes", "67108864"),
    ("min.insync.replicas", "1"),
    ("message.timestamp.type", "LogAppendTime"),
];

/// A topic that keeps for longer what was told is not what it is meant to be: a day.
const LONGEST: i64 = 86_400_000;

/// Finds the topic beside a log's and checks it, or makes it; gives its name.
pub(super) fn ensure(
    settings: &Kafka,
    log: &Topic,
    client: &ClientConfig,
    consumer: &BaseConsumer<Context>,
) -> Result<String, OpenError> {
    let (name, brokers) = (log.channel(), &log.brokers);
    let partitions = match look(settings, log, &name, consumer)? {
        0 if settings.create_topic => make(settings, log, &name, client, consumer)?,
        partitions => partitions,
    };
    match partitions {
        1 => {
            let problems = problems(brokers, &name, &describe(settings, &name, client)?);
            if problems.is_empty() { Ok(name) } else { Err(OpenError::Unfit { topic: name, problems }) }
        }
        0 => {
            let hint = "; nodes tell each other there who types and who lives. Make it with one partition and a \
                        retention.ms of 600000, or let the server make it with log.kafka.create_topic = true";
            Err(OpenError::Missing { topic: name, brokers: brokers.clone(), hint: hint.to_owned() })
        }
        partitions => {
            let why = format!(
                "- it has {partitions} partitions: what nodes tell each other has one order, and takes exactly 1; \
                 delete it, which loses nothing, and the server makes it anew"
            );
            Err(OpenError::Unfit { topic: name, problems: vec![why] })
        }
    }
}

fn admin(settings: &Kafka, client: &ClientConfig) -> Result<(AdminClient<Context>, AdminOptions), OpenError> {
    let admin =
        client.create_with_context(Context::default()).map_err(|error| OpenError::Settings(error.to_string()))?;
    let within = Some(settings.timeout);
    Ok((admin, AdminOptions::new().request_timeout(within).operation_timeout(within)))
}

fn describe(settings: &Kafka, name: &str, client: &ClientConfig) -> Result<ConfigResource, OpenError> {
    let refused = |why: String| {
        let what = format!("the Kafka topic {name} can't be checked (its user needs DescribeConfigs)");
        OpenError::Refused { what, why }
    };
    let (admin, options) = admin(settings, client)?;
    let described = block_on(admin.describe_configs([&ResourceSpecifier::Topic(name)], &options));
    let described = described.map_err(|error| refused(error.to_string()))?.into_iter().next();
    let gone = || refused("the brokers don't describe it".to_owned());
    described.ok_or_else(gone)?.map_err(|error| refused(error.to_string()))
}

/// Everything that is wrong with the topic.
fn problems(brokers: &str, name: &str, config: &ConfigResource) -> Vec<String> {
    let value = |key: &str| config.get(key).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    let mut problems = Vec::new();
    let (policy, retention) = (value("cleanup.policy"), value("retention.ms"));
    if policy != "delete" {
        problems.push(format!("- cleanup.policy is {policy}: nothing would be told, since no message has a key"));
    }
    if !retention.parse::<i64>().is_ok_and(|ms| (1..=LONGEST).contains(&ms)) {
        problems.push(format!("- retention.ms is {retention}: what nodes tell each other every second would pile up"));
    }
    if !problems.is_empty() {
        problems.push(format!(
            "To change it: kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {name} \
             --add-config cleanup.policy=delete,retention.ms=600000"
        ));
    }
    problems
}

/// How many partitions the topic has: none if it is not there.
fn look(settings: &Kafka, log: &Topic, name: &str, consumer: &BaseConsumer<Context>) -> Result<usize, OpenError> {
    let within = settings.timeout;
    let metadata = consumer.fetch_metadata(Some(name), within).map_err(|_| OpenError::Unreachable {
        brokers: log.brokers.clone(),
        within,
        trouble: consumer.context().trouble(),
    })?;
    let topic = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
    Ok(topic.map_or(0, |topic| topic.partitions().len()))
}

fn make(
    settings: &Kafka,
    log: &Topic,
    name: &str,
    client: &ClientConfig,
    consumer: &BaseConsumer<Context>,
) -> Result<usize, OpenError> {
    let what = || format!("the Kafka topic {name} can't be made");
    let refused = |why: String| OpenError::Refused { what: what(), why };
    let all = consumer.fetch_metadata(None, settings.timeout).map_err(|error| refused(error.to_string()))?;
    let copies = match settings.replication_factor {
        0 => i32::try_from(all.brokers().len().clamp(1, 3)).unwrap_or(1),
        copies => i32::from(copies),
    };
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(copies));
    let topic = SETTINGS.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
    let (admin, options) = admin(settings, client)?;
    let made = block_on(admin.create_topics([&topic], &options)).map_err(|error| refused(error.to_string()))?;
    match made.into_iter().next() {
        // Another node may have been first.
        Some(Err((_, error))) if error != RDKafkaErrorCode::TopicAlreadyExists => {
            return Err(refused(error.to_string()));
        }
        _ => tracing::info!(topic = name, copies, "made the topic for what nodes tell each other"),
    }
    let deadline = Instant::now() + settings.timeout;
    loop {
        let partitions = look(settings, log, name, consumer)?;
        if partitions > 0 || Instant::now() > deadline {
            return Ok(partitions);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
