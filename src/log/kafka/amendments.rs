//! Amendments to a log on Kafka: a topic beside the log's, made with the first of them.

use std::ops::ControlFlow;

use rdkafka::{ClientConfig, message::OwnedHeaders};

use super::{OpenError, confirm::Confirming, fetch::Fetcher, topic::Topics, writer};
use crate::{
    config::Kafka,
    log::{
        ReadError,
        amendments::{Amendment, Amendments},
    },
};

pub(super) fn topic_of(log: &str) -> String {
    format!("{log}-amendments")
}

/// Reads those of a log.
pub(super) fn read(
    settings: &Kafka,
    client: &ClientConfig,
    topics: &Topics<'_>,
    log: &str,
) -> Result<Amendments, OpenError> {
    let name = topic_of(log);
    if !topics.exists(&name)? {
        return Ok(Amendments::default());
    }
    let broken = |why: String| ReadError::Backend(format!("the topic {name}: {why}"));
    let mut fetcher = Fetcher::new(client, &name, settings.timeout)?;
    let (_, end) = fetcher.range(settings.timeout).map_err(broken)?;
    let mut found: Result<Vec<Amendment>, serde_json::Error> = Ok(Vec::new());
    let fetched = fetcher.fetch(0, end, &mut |message| match (&mut found, serde_json::from_slice(message.bytes)) {
        (Ok(found), Ok(amendment)) => {
            found.push(amendment);
            ControlFlow::Continue(())
        }
        (_, Err(error)) => {
            found = Err(error);
            ControlFlow::Break(())
        }
        (Err(_), _) => ControlFlow::Break(()),
    });
    fetched.map_err(broken)?;
    Ok(found.map_err(|error| broken(error.to_string()))?.into_iter().collect())
}

/// Adds one.
pub(super) fn add(
    settings: &Kafka,
    client: &ClientConfig,
    topics: &Topics<'_>,
    log: &str,
    amendment: &Amendment,
) -> Result<(), OpenError> {
    let name = topic_of(log);
    topics.ensure(&name)?;
    let refused = |why: String| OpenError::Refused { what: format!("the topic {name} takes no amendment"), why };
    let mut config = writer::producer(client, settings);
    config.set("message.timeout.ms", settings.timeout.as_millis().to_string());
    let producer = Confirming::open(&config, &name).map_err(refused)?;
    let line = serde_json::to_vec(amendment).map_err(|error| refused(error.to_string()))?;
    let confirmation = producer.send(&line, OwnedHeaders::new()).map_err(refused)?;
    let confirmed = confirmation.blocking_recv().unwrap_or_else(|_| Err("the client has ended".into()));
    confirmed.map(drop).map_err(refused)
}
