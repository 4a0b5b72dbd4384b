//! What reading, following and appending share: the last records, and up to where the log goes.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use projections::Entry;
use schemas::Lsn;
use tokio::sync::watch;

use super::{fetch::Fetched, segments::Segments};
use crate::log::{ReadError, amendments::Amendments};

/// So many bytes of the last records are kept.
const RING_BYTES: usize = 64 << 20;

pub(super) struct Shared {
    pub topic: String,
    pub amendments: Amendments,
    state: Mutex<State>,
    /// Something was fetched, or nothing will be any more.
    fetched: Condvar,
    tail: watch::Receiver<Lsn>,
}

pub(super) struct State {
    pub segments: Segments,
    /// The last records, without a hole from `start` up to the message before `next`.
    ring: VecDeque<Entry>,
    bytes: usize,
    start: Lsn,
    /// The offset of the next message to fetch.
    pub next: u64,
    /// The offset of the last record.
    pub last: u64,
    /// None once the log is closed.
    tail: Option<watch::Sender<Lsn>>,
    /// Why nothing may be appended any more, and nothing more is fetched.
    pub broken: Option<String>,
    /// Nothing more is fetched.
    ended: bool,
}

/// What is known without asking the brokers.
pub(super) enum Known {
    /// These records.
    Records(Vec<Entry>),
    /// They have to be fetched, from one offset up to another (exclusive).
    Fetch(u64, u64),
}

impl Shared {
    /// Begins at the end of a topic: `next` is its end, `last` the offset of the last record.
    pub fn new(topic: String, amendments: Amendments, segments: Segments, next: u64, last: Option<u64>) -> Self {
        let lsn = last.map_or(Lsn::ZERO, |last| Lsn(segments.base() + last));
        let (sender, tail) = watch::channel(lsn);
        let state = State {
            segments,
            ring: VecDeque::new(),
            bytes: 0,
            start: lsn.next(),
            next,
            last: last.unwrap_or_default(),
            tail: Some(sender),
            broken: None,
            ended: false,
        };
        Self { topic, amendments, state: Mutex::new(state), fetched: Condvar::new(), tail }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn tail(&self) -> Lsn {
        *self.tail.borrow()
    }

    pub fn watch_tail(&self) -> watch::Receiver<Lsn> {
        let mut tail = self.tail.clone();
        tail.mark_unchanged();
        tail
    }

    /// Takes a message that was fetched.
    pub fn fetched(&self, message: &Fetched<'_>) {
        let mut state = self.state();
        // Our own we have already.
        if message.offset >= state.next {
            state.take(message, &self.topic, &self.amendments);
            drop(state);
            self.fetched.notify_all();
        }
    }

    /// Takes note of a record of our own that the brokers have confirmed. What comes right after the last one that was
    /// fetched need not be fetched.
    pub fn delivered(&self, message: &Fetched<'_>) -> Result<Lsn, String> {
        let mut state = self.state();
        if message.offset == state.next {
            state.take(message, &self.topic, &self.amendments);
        }
        let placed = match message.base {
            Some(base) if message.offset < state.next => state.segments.lsn(message.offset, Some(base)),
            // What stands between is not fetched yet.
            Some(base) if base == state.segments.base() => Some(Lsn(base + message.offset)),
            _ => None,
        };
        if let Some(lsn) = placed {
            state.raise(lsn, message.offset);
        }
        drop(state);
        self.fetched.notify_all();
        placed.ok_or_else(|| "another process gave the topic other positions meanwhile".to_owned())
    }

    /// Records from a position on. Those that are known to be there, but were not fetched yet, are waited for.
    pub fn read(&self, from: Lsn, limit: (usize, usize), patience: Duration) -> Result<Known, ReadError> {
        if from > self.tail() {
            return Ok(Known::Records(Vec::new()));
        }
        let lacks = |state: &mut State| state.lacks(from);
        let waited = self.fetched.wait_timeout_while(self.state(), patience, lacks);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            let why = format!("record {from} is on the log, but the brokers don't give it; it is tried again");
            return Err(ReadError::Backend(why));
        }
        if from >= state.start && !state.misses(from) {
            return Ok(Known::Records(state.records(from, limit)));
        }
        Ok(Known::Fetch(state.segments.offset(from), state.last + 1))
    }

    /// Waits until everything before an offset was fetched; says whether it was.
    pub fn reach(&self, offset: u64, patience: Duration) -> bool {
        let behind = |state: &mut State| state.next < offset && !state.ended;
        let waited = self.fetched.wait_timeout_while(self.state(), patience, behind);
        waited.unwrap_or_else(PoisonError::into_inner).0.next >= offset
    }

    /// Waits until everything up to the tail was fetched.
    pub fn settle(&self, patience: Duration) {
        let behind = |state: &mut State| state.next <= state.last && state.broken.is_none();
        drop(self.fetched.wait_timeout_while(self.state(), patience, behind));
    }

    /// Whether what stands at an offset is kept here, too.
    pub fn keeps(&self, offset: u64) -> bool {
        let state = self.state();
        offset >= state.segments.offset(state.start)
    }

    /// Nothing is fetched any more: the topic is not what it was.
    pub fn fail(&self, why: String) {
        let mut state = self.state();
        (state.broken, state.ended) = (Some(why), true);
        drop(state);
        self.fetched.notify_all();
    }

    /// Nothing is fetched or appended any more: the log is closed.
    pub fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.tail = None;
        drop(state);
        self.fetched.notify_all();
    }
}

impl State {
    fn take(&mut self, message: &Fetched<'_>, topic: &str, amendments: &Amendments) {
        self.next = message.offset + 1;
        let Some(lsn) = self.segments.take(message.offset, message.base) else {
            tracing::warn!(topic, offset = message.offset, "a message that is not of the log is passed over");
            return;
        };
        let bytes: Arc<[u8]> = message.bytes.into();
        self.bytes += bytes.len();
        self.ring.push_back(Entry { lsn, bytes, amended: amendments.has(lsn) });
        while self.bytes > RING_BYTES
            && let Some(oldest) = self.ring.pop_front()
        {
            self.bytes -= oldest.bytes.len();
            self.start = oldest.lsn.next();
        }
        self.raise(lsn, message.offset);
    }

    fn raise(&mut self, lsn: Lsn, offset: u64) {
        self.last = self.last.max(offset);
        if let Some(tail) = &self.tail {
            tail.send_if_modified(|tail| std::mem::replace(tail, lsn.max(*tail)) < lsn);
        }
    }

    /// Nothing at or after a position was fetched yet.
    fn misses(&self, from: Lsn) -> bool {
        self.ring.back().is_none_or(|last| last.lsn < from)
    }

    /// The same, and it will be.
    fn lacks(&self, from: Lsn) -> bool {
        !self.ended && from >= self.start && self.misses(from)
    }

    fn records(&self, from: Lsn, (count, bytes): (usize, usize)) -> Vec<Entry> {
        let (mut found, mut taken) = (Vec::new(), 0);
        let begin = self.ring.partition_point(|entry| entry.lsn < from);
        for entry in self.ring.range(begin..).take(count.max(1)) {
            taken += entry.bytes.len();
            found.push(entry.clone());
            if taken >= bytes {
                break;
            }
        }
        found
    }
}
