//! Appending: an idempotent producer, whose queue has the order of the calls.
//!
//! ```text
//!  append ─▶ lock ─▶ the library's queue ─▶ batches, at most 5 on their way ─▶ all replicas in sync
//!                                                                     report ─▶ last records, tail ─▶ receipt
//! ```
//!
//! What stands before a record decides which place it has, so that it is acknowledged once that was fetched.
//!
//! What the brokers don't confirm in time may have reached them all the same. Whoever waits is told so; a record that
//! comes twice is void the second time.

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use schemas::Lsn;
use tokio::sync::oneshot;

use super::{
    OpenError,
    confirm::NOWHERE,
    fetch::headers,
    settings::{Context, MESSAGE_BYTES},
    shared::{Own, Shared},
};
use crate::{
    config::Kafka,
    log::{
        AppendError, Receipt, Stamp,
        embedded::{Committed, Observer},
        refused,
    },
};

/// So many records may be on their way; beyond that, appends are refused.
const RECORDS: usize = 16_384;
/// So many bytes of them.
const BYTES: usize = 64 << 20;
/// A producer that can't go on is replaced so often at most.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    shared: Arc<Shared>,
    config: ClientConfig,
    /// What is not confirmed in this time is given up.
    timeout: Duration,
    observer: Arc<dyn Observer>,
    waiting: Arc<Waiting>,
    /// None once it is closed.
    producer: Mutex<Option<Made>>,
}

struct Made {
    producer: ThreadedProducer<Reports>,
    at: Instant,
}

impl Writer {
    pub fn open(
        client: &ClientConfig,
        settings: &Kafka,
        shared: Arc<Shared>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, OpenError> {
        let timeout = settings.timeout;
        let mut config = producer(client, settings);
        config.set("message.timeout.ms", timeout.as_millis().to_string());
        let (waiting, producer) = (Arc::default(), Mutex::default());
        let writer = Self { shared, config, timeout, observer, waiting, producer };
        let made = writer.make().map_err(|error| OpenError::Settings(error.to_string()))?;
        *writer.producer() = Some(made);
        Ok(writer)
    }

    fn make(&self) -> Result<Made, KafkaError> {
        let reports = Reports { shared: Arc::clone(&self.shared), client: Context::default() };
        Ok(Made { producer: self.config.create_with_context(reports)?, at: Instant::now() })
    }

    fn producer(&self) -> MutexGuard<'_, Option<Made>> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        let count = records.len();
        if let Err(error) = Stamp::all(&records) {
            return refused(count, &error);
        }
        // While it is held, nobody else's records get in between.
        let mut producer = self.producer();
        let Some(now) = &mut *producer else { return refused(count, &AppendError::Closed) };
        if let Err(error) = self.renew(now) {
            return refused(count, &error);
        }
        let (place, broken) = {
            let state = self.shared.state();
            ((state.segments.base(), state.next), state.broken.clone())
        };
        let admitted = match broken {
            Some(why) => Err(AppendError::Unavailable(why)),
            None => self.waiting.admit(count, records.iter().map(Bytes::len).sum()),
        };
        match admitted {
            Ok(()) => self.send(&now.producer, place, records),
            Err(error) => refused(count, &error),
        }
    }

    /// Puts another producer into the place of one that can't go on.
    fn renew(&self, now: &mut Made) -> Result<(), AppendError> {
        let Some((_, why)) = now.producer.client().fatal_error() else { return Ok(()) };
        if now.at.elapsed() < AGAIN {
            // What it failed by may last.
            return Err(AppendError::Unavailable(why));
        }
        tracing::warn!(%why, "the producer can't go on: what is on its way is given up, and a new one is made");
        let made = self.make().map_err(|error| AppendError::Unavailable(error.to_string()))?;
        let old = std::mem::replace(now, made);
        // It fails what is outstanding, for which it takes its time.
        std::thread::spawn(move || drop(old));
        Ok(())
    }

    /// Puts the records of one call into the queue, one right after another; they stand at or after an offset.
    fn send(
        &self,
        producer: &ThreadedProducer<Reports>,
        (base, after): (u64, u64),
        records: Vec<Bytes>,
    ) -> Vec<Receipt> {
        let mut failed: Option<AppendError> = None;
        let send = |bytes: Bytes| {
            let (sender, receipt) = oneshot::channel();
            let (waiting, observer) = (Arc::clone(&self.waiting), Arc::clone(&self.observer));
            let since = Instant::now();
            let pending = Box::new(Pending { bytes: bytes.clone(), base, after, since, sender, waiting, observer });
            if let Some(error) = &failed {
                pending.resolve(Err(error.clone()));
                return receipt;
            }
            let record = BaseRecord::<(), [u8], _>::with_opaque_to(&self.shared.topic, pending);
            let record = record.partition(0).payload(&bytes).headers(headers(base));
            if let Err((error, record)) = producer.send(record) {
                let error = AppendError::Unavailable(error.to_string());
                failed = Some(error.clone());
                record.delivery_opaque.resolve(Err(error));
            }
            receipt
        };
        records.into_iter().map(send).collect()
    }

    /// Takes no more records, and returns once what was taken is confirmed or given up.
    pub fn close(&self) {
        let producer = self.producer().take();
        self.waiting.settle(self.timeout + Duration::from_secs(2));
        drop(producer);
    }
}

/// A producer as the log needs it; the time to wait comes on top.
pub(super) fn producer(client: &ClientConfig, settings: &Kafka) -> ClientConfig {
    let mut config = client.clone();
    config.set("enable.idempotence", "true").set("acks", "all").set("max.in.flight.requests.per.connection", "5");
    config.set("message.max.bytes", MESSAGE_BYTES.to_string());
    config.set("linger.ms", settings.linger.as_millis().to_string());
    config.set("batch.size", settings.batch_bytes.min(MESSAGE_BYTES).to_string());
    config.set("compression.type", settings.compression.name());
    // The log has limits of its own, which refuse the records of a call together.
    config.set("queue.buffering.max.messages", (4 * RECORDS).to_string());
    config.set("queue.buffering.max.kbytes", (4 * BYTES / 1024).to_string());
    config
}

/// A record on its way.
struct Pending {
    bytes: Bytes,
    base: u64,
    /// It stands at this offset or later.
    after: u64,
    since: Instant,
    sender: oneshot::Sender<Result<Lsn, AppendError>>,
    waiting: Arc<Waiting>,
    observer: Arc<dyn Observer>,
}

impl Pending {
    fn resolve(self, outcome: Result<Lsn, AppendError>) {
        let bytes = self.bytes.len();
        match &outcome {
            Ok(_) => {
                let waits = vec![self.since.elapsed()];
                self.observer.committed(&Committed { records: 1, bytes, waits });
            }
            Err(error) => {
                tracing::debug!(%error, "a record was not confirmed");
                self.observer.failed(1);
            }
        }
        // Whoever asked may be gone.
        let _ = self.sender.send(outcome);
        self.waiting.leave(bytes);
    }
}

/// How much is on its way.
#[derive(Default)]
struct Waiting {
    /// Records and their bytes.
    sum: Mutex<(usize, usize)>,
    none: Condvar,
}

impl Waiting {
    fn sum(&self) -> MutexGuard<'_, (usize, usize)> {
        self.sum.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, records: usize, bytes: usize) -> Result<(), AppendError> {
        let mut sum = self.sum();
        if sum.0 + records > RECORDS || sum.1 + bytes > BYTES {
            return Err(AppendError::Unavailable("too much waits for the brokers".into()));
        }
        *sum = (sum.0 + records, sum.1 + bytes);
        Ok(())
    }

    fn leave(&self, bytes: usize) {
        let mut sum = self.sum();
        *sum = (sum.0 - 1, sum.1 - bytes);
        if sum.0 == 0 {
            self.none.notify_all();
        }
    }

    fn settle(&self, patience: Duration) {
        drop(self.none.wait_timeout_while(self.sum(), patience, |sum| sum.0 > 0));
    }
}

/// Hears what became of records, in the producer's thread.
struct Reports {
    shared: Arc<Shared>,
    client: Context,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        let offset = match result {
            Ok(message) => u64::try_from(message.offset()).map_err(|_| AppendError::Unconfirmed(NOWHERE.into())),
            Err((error, _)) => Err(self.explain(error)),
        };
        match offset {
            Ok(offset) => {
                let Pending { base, after, ref bytes, .. } = *pending;
                let bytes = bytes.clone();
                let done = Box::new(move |place| pending.resolve(place));
                self.shared.delivered(Own { offset, base, bytes, after, done });
            }
            Err(error) => pending.resolve(Err(error)),
        }
    }
}

impl Reports {
    fn explain(&self, error: &KafkaError) -> AppendError {
        let why = format!("{error}{}", self.client.trouble());
        match error.rdkafka_error_code() {
            // It never left this machine.
            Some(RDKafkaErrorCode::PurgeQueue) => AppendError::Unavailable(why),
            _ => AppendError::Unconfirmed(why),
        }
    }
}
