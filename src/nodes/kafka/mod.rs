//! A channel in a topic of Apache Kafka, beside the log's: one partition, whose offsets are the positions, and which
//! forgets what was told after some minutes.

mod topic;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use rdkafka::{
    ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, DeliveryResult},
    producer::{BaseRecord, ProducerContext, ThreadedProducer},
};
use tokio::sync::watch;

use super::{Channel, Listener, Message, Node, Position, Silent, Told};
use crate::{
    config::{Kafka, Topic},
    latest::Latest,
    log::kafka::{
        OpenError,
        settings::{self, Context},
    },
};

/// So long it may take to see that it is to end.
const POLL: Duration = Duration::from_millis(100);
/// What the brokers don't take in this time is not told any more.
const STALE: Duration = Duration::from_secs(5);
/// The brokers are asked for so long where the order ends.
const ASK: Duration = Duration::from_secs(1);
/// So many messages wait to be told; what comes on top is lost.
const WAITING: usize = 10_000;

/// See the module. Dropping it closes it.
pub struct KafkaChannel {
    name: String,
    consumer: Arc<BaseConsumer<Context>>,
    shared: Arc<Shared>,
    latest: Latest<Position>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread that hears shares.
struct Shared {
    node: Node,
    topic: String,
    producer: ThreadedProducer<Reports>,
    told: AtomicU64,
    position: watch::Sender<Position>,
    listeners: RwLock<Vec<Listener>>,
    /// The brokers didn't answer last.
    away: AtomicBool,
    stop: AtomicBool,
}

impl KafkaChannel {
    /// Joins the nodes on a log, and hears what is told from now on. The topic is made if it is missing and the settings allow
    /// that. Blocks on the network, for a bounded time.
    ///
    /// # Errors
    /// When the brokers can't be reached, or the topic is missing or has not one order.
    pub fn open(settings: &Kafka, log: &Topic, log_id: &[u8], node: Node) -> Result<Self, OpenError> {
        let client = settings::client(settings, &log.brokers)?;
        let consumer = Arc::new(consumer(&client)?);
        let topic = topic::ensure(settings, log, &client, &consumer)?;
        let wrong = |error: KafkaError| OpenError::Refused {
            what: format!("the Kafka topic {topic} can't be followed"),
            why: error.to_string(),
        };
        let (_, end) = consumer.fetch_watermarks(&topic, 0, settings.timeout).map_err(wrong)?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&topic, 0, Offset::Offset(end)).map_err(wrong)?;
        consumer.assign(&from).map_err(wrong)?;
        let shared = Arc::new(Shared {
            producer: producer(&client).map_err(wrong)?,
            position: watch::Sender::new(u64::try_from(end).unwrap_or_default()),
            node,
            topic,
            told: AtomicU64::new(0),
            listeners: RwLock::default(),
            away: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let (hearing, following) = (Arc::clone(&shared), Arc::clone(&consumer));
        let thread = std::thread::Builder::new().name("nodes".into()).spawn(move || hearing.follow(&following));
        let thread = thread.map_err(|error| OpenError::Settings(error.to_string()))?;
        let name = super::order('k', log_id);
        Ok(Self { name, consumer, shared, latest: Latest::default(), thread: Some(thread) })
    }

    /// The position of the last message that any node told.
    async fn end(&self) -> Result<Position, Silent> {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.shared.topic.clone());
        let ask = move || {
            let (_, end) = consumer.fetch_watermarks(&topic, 0, ASK).map_err(|error| error.to_string())?;
            u64::try_from(end).map_err(|error| error.to_string())
        };
        let end = self.latest.ask(ask).await;
        self.shared.away.store(end.is_err(), Ordering::SeqCst);
        end.map_err(Silent)
    }
}

fn consumer(client: &ClientConfig) -> Result<BaseConsumer<Context>, OpenError> {
    let mut config = client.clone();
    // The library wants a name, but no group is ever joined, and no position committed.
    config.set("group.id", "everfold");
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    // What was forgotten meanwhile is missed, which shows in the offsets.
    config.set("auto.offset.reset", "latest");
    config.set("fetch.error.backoff.ms", "50").set("queued.max.messages.kbytes", "16384");
    config.create_with_context(Context::default()).map_err(|error| OpenError::Settings(error.to_string()))
}

fn producer(client: &ClientConfig) -> Result<ThreadedProducer<Reports>, KafkaError> {
    let mut config = client.clone();
    config.set("acks", "1").set("linger.ms", "2").set("compression.type", "lz4");
    config.set("message.timeout.ms", STALE.as_millis().to_string());
    config.set("queue.buffering.max.messages", WAITING.to_string());
    // What one node tells keeps its order, whatever has to be sent again.
    config.set("max.in.flight.requests.per.connection", "1");
    let reports = Reports { done: watch::Sender::new(0), failing: AtomicBool::new(false), client: Context::default() };
    config.create_with_context(reports)
}

impl Shared {
    fn tell(&self, message: Message) {
        let told = Told { from: self.node.clone(), message };
        let Ok(bytes) = serde_json::to_vec(&told) else { return };
        let record = BaseRecord::<(), [u8], ()>::to(&self.topic).partition(0).payload(&bytes);
        match self.producer.send(record) {
            Ok(()) => _ = self.told.fetch_add(1, Ordering::SeqCst),
            Err((error, _)) => tracing::debug!(%error, "something was not told to the other nodes"),
        }
    }

    fn follow(&self, consumer: &BaseConsumer<Context>) {
        while !self.stop.load(Ordering::SeqCst) {
            match consumer.poll(POLL) {
                Some(Ok(message)) => self.hear(&message),
                // The library connects again by itself.
                Some(Err(error)) => tracing::debug!(%error, "the other nodes can't be heard for now"),
                None => {}
            }
        }
    }

    fn hear(&self, message: &BorrowedMessage<'_>) {
        let position = u64::try_from(message.offset()).unwrap_or_default() + 1;
        let missed = position != *self.position.borrow() + 1;
        {
            let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
            match message.payload().map(serde_json::from_slice::<Told>) {
                Some(Ok(told)) => listeners.iter().for_each(|listener| listener(position, &told)),
                // Perhaps of a later version.
                _ => tracing::debug!(position, "something that a node told is not known here"),
            }
            self.position.send_replace(position);
        }
        self.away.store(false, Ordering::SeqCst);
        if missed {
            tracing::warn!(position, "some of what the other nodes told was missed");
            self.tell(Message::WhoIsThere);
        }
    }
}

impl Channel for KafkaChannel {
    fn name(&self) -> &str {
        &self.name
    }

    fn position(&self) -> Position {
        *self.shared.position.borrow()
    }

    fn tell(&self, message: Message) {
        self.shared.tell(message);
    }

    fn listen(&self, listener: Listener) {
        self.shared.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn caught_up(&self) -> BoxFuture<'_, Result<(), Silent>> {
        async {
            let told = self.shared.told.load(Ordering::SeqCst);
            let gone = |_| Silent("the channel is closed".into());
            let mut done = rdkafka::producer::Producer::context(&self.shared.producer).done.subscribe();
            if !self.shared.away.load(Ordering::SeqCst) {
                done.wait_for(|done| *done >= told).await.map_err(gone)?;
            }
            let end = self.end().await?;
            self.shared.position.subscribe().wait_for(|position| *position >= end).await.map_err(gone)?;
            Ok(())
        }
        .boxed()
    }
}

impl Drop for KafkaChannel {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that hears the other nodes panicked");
        }
    }
}

/// Learns what became of what was told.
struct Reports {
    /// How much of it was taken or given up.
    done: watch::Sender<u64>,
    failing: AtomicBool,
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
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let before = self.failing.swap(result.is_err(), Ordering::SeqCst);
        match result {
            Err((error, _)) if !before => tracing::warn!(%error, "the other nodes are not told anything for now"),
            Ok(_) if before => tracing::info!("the other nodes are told again"),
            _ => {}
        }
        self.done.send_modify(|done| *done += 1);
    }
}
