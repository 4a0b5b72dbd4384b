//! Filling a topic with another log's records, which keep their Lsns.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rdkafka::ClientConfig;
use schemas::Lsn;
use tokio::sync::oneshot;

use super::{
    KafkaReader, OpenError, amendments, confirm::Confirming, fetch::headers, settings, shared::Own, topic::Topics,
    used, writer,
};
use crate::{
    config::{Kafka, Topic},
    log::{
        AppendError, LogReader, Stamp,
        amendments::Amendment,
        copy::{ImportError, Importer},
    },
};

/// A log on Kafka that takes over records with their positions. No server may run on the topic meanwhile: a message of
/// somebody else's in between ends it. It can be gone on with where it ended.
pub struct KafkaImporter {
    pub(super) reader: KafkaReader,
    settings: Kafka,
    topic: Topic,
    client: ClientConfig,
    producer: Mutex<Confirming>,
}

impl KafkaImporter {
    /// Opens the topic, which is made if it is missing and the settings allow that. Blocks on the network.
    ///
    /// # Errors
    /// When the brokers can't be reached, the topic can't hold a log, or a server runs on it.
    pub fn open(settings: &Kafka, topic: &Topic) -> Result<Self, OpenError> {
        let client = settings::client(settings, &topic.brokers)?;
        let topics = Topics::new(settings, topic, &client)?;
        topics.ensure(&topic.name)?;
        used::refuse(settings, &client, &topics, topic)?;
        let reader = KafkaReader::open(settings, topic, &client, &topics)?;
        let mut config = writer::producer(&client, settings);
        // Nothing is given up, so that nothing is missing in between; brokers that are away are waited for.
        config.set("message.timeout.ms", "0").set("enable.gapless.guarantee", "true");
        let producer = Mutex::new(Confirming::open(&config, &topic.name).map_err(OpenError::Settings)?);
        Ok(Self { reader, settings: settings.clone(), topic: topic.clone(), client, producer })
    }
}

impl Importer for KafkaImporter {
    /// Blocks for as long as no broker takes them. After an error, it has to be opened anew.
    fn import(&self, records: Vec<(Lsn, Bytes)>) -> Result<(), ImportError> {
        let shared = &self.reader.shared;
        ImportError::check_order(&records, shared.tail())?;
        let bytes: Vec<Bytes> = records.iter().map(|(_, bytes)| bytes.clone()).collect();
        Stamp::all(&bytes)?;
        let refused = |why: String| ImportError::from(AppendError::Unavailable(why));
        // One import at a time.
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, mut base) = {
            let state = shared.state();
            (state.next, state.segments.base())
        };
        let mut sent = Vec::with_capacity(records.len());
        for ((lsn, bytes), offset) in records.into_iter().zip(first..) {
            if lsn.0 < base + offset {
                let why = format!("there are messages in the topic that are not of the log: record {lsn} has no place");
                return Err(refused(why));
            }
            base = lsn.0 - offset;
            sent.push((offset, base, producer.send(&bytes, headers(base)).map_err(refused)?, bytes));
        }
        for (expected, base, confirmation, bytes) in sent {
            let confirmed = confirmation.blocking_recv().unwrap_or_else(|_| Err("the client has ended".into()));
            let offset = confirmed.map_err(refused)?;
            if offset != expected {
                let why = "something else writes to the topic: delete it, and begin anew".to_owned();
                return Err(refused(why));
            }
            let (sender, placed) = oneshot::channel();
            // Whoever waits is below.
            let done = Box::new(move |place| _ = sender.send(place));
            shared.delivered(Own { offset, base, bytes, after: first, done });
            placed.blocking_recv().map_err(|_| AppendError::Closed)??;
        }
        Ok(())
    }

    fn amend(&self, amendment: &Amendment) -> Result<(), ImportError> {
        if self.reader.amendments().has(amendment.void) {
            return Ok(());
        }
        let add = || {
            let topics = Topics::new(&self.settings, &self.topic, &self.client)?;
            amendments::add(&self.settings, &self.client, &topics, &self.topic.name, amendment)
        };
        add().map_err(|error| ImportError::Amend { lsn: amendment.void, why: error.to_string() })
    }
}
