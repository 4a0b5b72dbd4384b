//! The log in a topic of Apache Kafka, with exactly one partition.
//!
//! An Lsn is the message's offset and a base that stands in its header ([`segments`]). Appends go through an idempotent
//! producer ([`writer`]); one thread fetches whatever is appended, by this process or another ([`follower`]), and the
//! last records are kept in memory ([`shared`]). What lies further back is fetched when it is asked for ([`fetch`]).
//! The topic is made or checked first ([`topic`]). Positions are never kept on the brokers: each node knows its own.

mod amendments;
mod confirm;
mod error;
mod fetch;
mod follower;
mod import;
mod segments;
/// Clients of the brokers, as the settings describe them.
pub mod settings;
mod shared;
mod times;
mod topic;
mod used;
mod writer;

#[cfg(test)]
#[path = "../../../tests/kafka/broker.rs"]
pub(crate) mod broker;
#[cfg(test)]
mod tests;

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use projections::Entry;
use rdkafka::ClientConfig;
use schemas::Lsn;
use tokio::sync::watch;

pub use self::{error::OpenError, import::KafkaImporter};
use self::{
    fetch::Fetcher,
    follower::Follower,
    segments::Segments,
    shared::{Known, Shared},
    times::Times,
    topic::Topics,
    writer::Writer,
};
use super::{
    EntryStream, Log, LogReader, Note, ReadError, Receipt,
    amendments::{Amendment, Amendments},
    embedded::Observer,
    follow::follow,
};
use crate::config::{Kafka, Topic};

/// So long a reader waits for the brokers to give what they have confirmed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Brokers that are there say in this time how far the topic goes.
const ASK: Duration = Duration::from_secs(1);

/// The reading half: it goes on with what other processes append.
pub struct KafkaReader {
    shared: Arc<Shared>,
    follower: Mutex<Option<Follower>>,
    /// Fetches what is not kept in memory.
    archive: Mutex<Fetcher>,
    times: Mutex<Times>,
    /// Asks how far the topic goes, also while something is fetched from long ago.
    scout: Fetcher,
}

/// See the module. Dropping it closes it.
pub struct KafkaLog {
    reader: KafkaReader,
    writer: Writer,
}

impl KafkaLog {
    /// Opens the log in a topic, which is made if it is missing and the settings allow that; an empty log waits for its
    /// `Genesis`. Blocks on the network, for a bounded time.
    ///
    /// # Errors
    /// When the brokers can't be reached, or the topic would lose records or has lost some.
    pub fn open(settings: &Kafka, topic: &Topic, observer: Arc<dyn Observer>) -> Result<Self, OpenError> {
        let client = settings::client(settings, &topic.brokers)?;
        let topics = Topics::new(settings, topic, &client)?;
        topics.ensure(&topic.name)?;
        let reader = KafkaReader::open(settings, topic, &client, &topics)?;
        let writer = Writer::open(&client, settings, Arc::clone(&reader.shared), observer)?;
        Ok(Self { reader, writer })
    }

    /// Opens the reading half, which needs no more rights than to read. Blocks on the network, for a bounded time.
    ///
    /// # Errors
    /// When there is no such topic, or it can't be read.
    pub fn open_read_only(settings: &Kafka, topic: &Topic) -> Result<KafkaReader, OpenError> {
        let client = settings::client(settings, &topic.brokers)?;
        let topics = Topics::new(settings, topic, &client)?;
        topics.find(&topic.name)?;
        KafkaReader::open(settings, topic, &client, &topics)
    }

    /// Takes a record out of effect: see [`super::amendments::Amendments`]. No server may run. Blocks on the network.
    ///
    /// # Errors
    /// When there is no such record, a server runs, or the brokers refuse it.
    pub fn amend(settings: &Kafka, topic: &Topic, amendment: &Amendment) -> Result<(), OpenError> {
        let log = Self::open_read_only(settings, topic)?;
        let there = log.read(amendment.void, 1, 1)?.first().is_some_and(|entry| entry.lsn == amendment.void);
        if !there {
            return Err(OpenError::NoRecord { lsn: amendment.void, tail: log.tail() });
        }
        let client = settings::client(settings, &topic.brokers)?;
        let topics = Topics::new(settings, topic, &client)?;
        used::refuse(settings, &client, &topics, topic)?;
        amendments::add(settings, &client, &topics, &topic.name, amendment)
    }
}

impl KafkaReader {
    fn open(settings: &Kafka, topic: &Topic, client: &ClientConfig, topics: &Topics<'_>) -> Result<Self, OpenError> {
        let name = &topic.name;
        let amendments = amendments::read(settings, client, topics, name)?;
        let mut scout = client.clone();
        // Nothing of the log may stand up to the end: that must show.
        scout.set("enable.partition.eof", "true");
        let mut scout = Fetcher::new(&scout, name, settings.timeout)?;
        let (begin, end) = scout.range(settings.timeout).map_err(ReadError::Backend)?;
        if begin > 0 {
            let why = format!("the topic {name} begins at offset {begin}: what stood before it was deleted");
            return Err(ReadError::Damaged { lsn: Lsn::FIRST, why }.into());
        }
        let mut look = |offset: u64| {
            let mut found = None;
            scout.fetch(offset, end, &mut |message| match message.base {
                Some(base) => {
                    found = Some((message.offset, base));
                    ControlFlow::Break(())
                }
                None => ControlFlow::Continue(()),
            })?;
            Ok::<_, String>(found)
        };
        let (segments, last) = Segments::find(end, &mut look).map_err(ReadError::Backend)?;
        scout.rest();
        let shared = Arc::new(Shared::new(name.clone(), amendments, segments, end, last));
        let follower = Follower::start(client, Arc::clone(&shared))?;
        let archive = Fetcher::new(client, name, PATIENCE)?;
        let (follower, archive, times) = (Mutex::new(Some(follower)), Mutex::new(archive), Mutex::default());
        Ok(Self { shared, follower, archive, times, scout })
    }

    /// Records from one offset up to another, of which at least one is at or after a position.
    fn fetch(&self, from: Lsn, (begin, end): (u64, u64), limit: (usize, usize)) -> Result<Vec<Entry>, ReadError> {
        let (count, bytes) = limit;
        let (mut found, mut taken) = (Vec::new(), 0);
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = begin;
        let fetched = archive.fetch(begin, end, &mut |message| {
            next = message.offset + 1;
            let lsn = self.shared.state().segments.lsn(message.offset, message.base);
            if let Some(lsn) = lsn.filter(|lsn| *lsn >= from) {
                taken += message.bytes.len();
                found.push(Entry { lsn, bytes: message.bytes.into(), amended: self.shared.amendments.has(lsn) });
            }
            if found.len() >= count.max(1) || taken >= bytes && !found.is_empty() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if self.shared.keeps(next) {
            archive.rest();
        }
        match fetched {
            // What came is whole as far as it goes.
            Err(why) if found.is_empty() => Err(ReadError::Backend(why)),
            _ => Ok(found),
        }
    }
}

impl LogReader for KafkaReader {
    fn follow(self: Arc<Self>, from: Lsn) -> EntryStream {
        follow(self, from)
    }

    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        match self.shared.read(from.max(Lsn::FIRST), (records, bytes)) {
            Known::Records(found) => Ok(found),
            Known::Fetch(begin, end) => self.fetch(from, (begin, end), (records, bytes)),
        }
    }

    fn tail(&self) -> Lsn {
        self.shared.tail()
    }

    fn watch_tail(&self) -> watch::Receiver<Lsn> {
        self.shared.watch_tail()
    }

    fn at_time(&self, ms: u64) -> Result<Lsn, ReadError> {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.find(ms, self.tail(), |from, records, bytes| self.read(from, records, bytes))
    }

    fn note(&self, _: Lsn) -> Result<Option<Note>, ReadError> {
        Ok(None)
    }

    fn refresh(&self) -> Result<Lsn, ReadError> {
        let (_, end) = self.scout.range(ASK).map_err(ReadError::Backend)?;
        if !self.shared.reach(end, PATIENCE) {
            let late = || format!("the topic goes up to offset {end}, but the brokers don't give all of it");
            return Err(ReadError::Backend(self.failed().unwrap_or_else(late)));
        }
        Ok(self.tail())
    }

    fn failed(&self) -> Option<String> {
        self.shared.state().broken.clone()
    }

    fn amendments(&self) -> Amendments {
        self.shared.amendments.clone()
    }
}

/// Reads as its reader does.
macro_rules! read_through {
    ($type:ty) => {
        impl LogReader for $type {
            fn follow(self: Arc<Self>, from: Lsn) -> EntryStream {
                follow(self, from)
            }

            fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
                self.reader.read(from, records, bytes)
            }

            fn tail(&self) -> Lsn {
                self.reader.tail()
            }

            fn watch_tail(&self) -> watch::Receiver<Lsn> {
                self.reader.watch_tail()
            }

            fn at_time(&self, ms: u64) -> Result<Lsn, ReadError> {
                self.reader.at_time(ms)
            }

            fn note(&self, lsn: Lsn) -> Result<Option<Note>, ReadError> {
                self.reader.note(lsn)
            }

            fn refresh(&self) -> Result<Lsn, ReadError> {
                self.reader.refresh()
            }

            fn failed(&self) -> Option<String> {
                self.reader.failed()
            }

            fn amendments(&self) -> Amendments {
                self.reader.amendments()
            }
        }
    };
}

read_through!(KafkaLog);
read_through!(KafkaImporter);

impl Log for KafkaLog {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        self.writer.append(records)
    }

    fn close(&self) {
        self.writer.close();
        let follower = self.reader.follower.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(follower) = follower {
            drop(follower);
            self.reader.shared.end();
        }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.close();
    }
}
