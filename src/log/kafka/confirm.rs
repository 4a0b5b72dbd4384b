//! A producer whose caller waits for each message.

use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{DeliveryResult, OwnedHeaders},
    producer::{BaseRecord, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;

use super::settings::Context;

/// Why a record has no place that the brokers have: they answer so to one that comes again and that they know only by its
/// number.
pub(super) const NOWHERE: &str = "the brokers have it, but don't say where";

/// The offset of a message that the brokers have, or why it is not known whether they do.
pub(super) type Confirmation = oneshot::Receiver<Result<u64, String>>;

pub(super) struct Confirming {
    producer: ThreadedProducer<Confirms>,
    topic: String,
}

impl Confirming {
    pub fn open(config: &ClientConfig, topic: &str) -> Result<Self, String> {
        let made = config.create_with_context(Confirms(Context::default()));
        Ok(Self { producer: made.map_err(|error| error.to_string())?, topic: topic.to_owned() })
    }

    /// Puts a message into the queue.
    pub fn send(&self, bytes: &[u8], headers: OwnedHeaders) -> Result<Confirmation, String> {
        let (sender, confirmation) = oneshot::channel();
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(&self.topic, Box::new(sender));
        let sent = self.producer.send(record.partition(0).payload(bytes).headers(headers));
        sent.map_err(|(error, _)| error.to_string())?;
        Ok(confirmation)
    }
}

struct Confirms(Context);

impl ClientContext for Confirms {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Confirms {
    type DeliveryOpaque = Box<oneshot::Sender<Result<u64, String>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sender: Self::DeliveryOpaque) {
        let confirmed = match result {
            Ok(message) => u64::try_from(message.offset()).map_err(|_| NOWHERE.to_owned()),
            Err((error, _)) => Err(format!("{error}{}", self.0.trouble())),
        };
        // Whoever asked may be gone.
        let _ = sender.send(confirmed);
    }
}
