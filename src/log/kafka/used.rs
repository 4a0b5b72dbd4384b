//! Whether a server runs on a log: its nodes tell each other that they live.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;

use super::{OpenError, fetch::Fetcher, topic::Topics};
use crate::{
    config::{Kafka, Topic},
    log::ReadError,
};

/// Each node tells something every second.
const LISTEN: Duration = Duration::from_secs(3);
/// So often it is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Refuses a log that a server runs on, for what no server expects. Takes some seconds where one has run. Blocks.
///
/// # Errors
/// When one runs, or the brokers don't say.
pub(super) fn refuse(
    settings: &Kafka,
    client: &ClientConfig,
    topics: &Topics<'_>,
    log: &Topic,
) -> Result<(), OpenError> {
    let channel = log.channel();
    if !topics.exists(&channel)? {
        return Ok(());
    }
    let fetcher = Fetcher::new(client, &channel, settings.timeout)?;
    let end = || fetcher.range(settings.timeout).map(|(_, end)| end).map_err(ReadError::Backend);
    let (since, before) = (Instant::now(), end()?);
    while since.elapsed() < LISTEN {
        if end()? > before {
            return Err(OpenError::Used { topic: log.name.clone(), channel });
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
