//! Reading a topic's messages by their offsets.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
};

use super::{
    OpenError,
    settings::{self, Context},
};

/// The header with the base of the message's Lsn, eight bytes, big-endian. What lacks it is not of the log.
const BASE: &str = "lsn-base";

/// The headers of a record.
pub(super) fn headers(base: u64) -> OwnedHeaders {
    OwnedHeaders::new().insert(Header { key: BASE, value: Some(&base.to_be_bytes()) })
}

/// A message, as far as the log is concerned.
pub(super) struct Fetched<'a> {
    pub offset: u64,
    /// None if it is not of the log.
    pub base: Option<u64>,
    pub bytes: &'a [u8],
}

impl<'a> Fetched<'a> {
    pub fn of(message: &'a BorrowedMessage<'_>) -> Self {
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let mut base = headers.filter(|header| header.key == BASE).filter_map(|header| header.value?.try_into().ok());
        Self {
            offset: u64::try_from(message.offset()).unwrap_or_default(),
            base: base.next().map(u64::from_be_bytes),
            bytes: message.payload().unwrap_or_default(),
        }
    }
}

/// Whether an error says that there is no such offset any more. Others pass, or are of the connection.
pub(super) fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}

/// Reads a topic's one partition from any offset on.
pub(super) struct Fetcher {
    consumer: BaseConsumer<Context>,
    topic: String,
    patience: Duration,
    /// What comes next without a seek.
    next: Option<u64>,
}

impl Fetcher {
    /// It waits so long for a message.
    pub fn new(client: &ClientConfig, topic: &str, patience: Duration) -> Result<Self, OpenError> {
        let consumer = settings::consumer(client, Context::default())?;
        Ok(Self { consumer, topic: topic.to_owned(), patience, next: None })
    }

    /// Where the topic begins and ends, if the brokers say so in time.
    pub fn range(&self, within: Duration) -> Result<(u64, u64), String> {
        let watermarks = self.consumer.fetch_watermarks(&self.topic, 0, within);
        let (low, high) = watermarks.map_err(|error| format!("{error}{}", self.consumer.context().trouble()))?;
        let offset =
            |offset: i64| u64::try_from(offset).map_err(|_| format!("the brokers say {offset}, which is no offset"));
        Ok((offset(low)?, offset(high)?))
    }

    /// Hands over the messages from an offset on until `each` has enough, or up to another offset, before which there
    /// must be one.
    pub fn fetch(
        &mut self,
        from: u64,
        end: u64,
        each: &mut dyn FnMut(&Fetched<'_>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        if from >= end {
            return Ok(());
        }
        if self.next.take() != Some(from) {
            assign(&self.consumer, &self.topic, from).map_err(|error| error.to_string())?;
        }
        let mut deadline = Instant::now() + self.patience;
        loop {
            match self.consumer.poll(deadline.saturating_duration_since(Instant::now())) {
                Some(Ok(message)) => {
                    let message = Fetched::of(&message);
                    if message.offset >= end {
                        return Ok(());
                    }
                    let enough = each(&message).is_break();
                    self.next = Some(message.offset + 1);
                    if enough || message.offset + 1 == end {
                        return Ok(());
                    }
                    deadline = Instant::now() + self.patience;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) if is_out_of_range(&error) => {
                    self.next = None;
                    return Err(format!("the topic {} has no offset {from} any more: {error}", self.topic));
                }
                Some(Err(_)) if Instant::now() < deadline => {}
                Some(Err(_)) | None => {
                    self.next = None;
                    let (topic, trouble) = (&self.topic, self.consumer.context().trouble());
                    return Err(format!("the brokers don't give offset {from} of the topic {topic}{trouble}"));
                }
            }
        }
    }

    /// Stops fetching what nobody asked for yet.
    pub fn rest(&mut self) {
        self.next = None;
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(%error, "a consumer goes on fetching");
        }
    }
}

/// Lets a consumer read on from an offset.
pub(super) fn assign(consumer: &BaseConsumer<Context>, topic: &str, from: u64) -> Result<(), KafkaError> {
    let mut partitions = TopicPartitionList::with_capacity(1);
    let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
    partitions.add_partition_offset(topic, 0, offset)?;
    consumer.assign(&partitions)
}
