//! What reading, following and appending share: the last records, and up to where the log goes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use projections::Entry;
use schemas::Lsn;
use tokio::sync::watch;

use super::{fetch::Fetched, segments::Segments};
use crate::log::{AppendError, amendments::Amendments};

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
    /// Records of our own that are confirmed, by their offsets, before which something is not fetched yet.
    early: BTreeMap<u64, Vec<Own>>,
    /// None once the log is closed.
    tail: Option<watch::Sender<Lsn>>,
    /// Why nothing may be appended any more, and nothing more is fetched.
    pub broken: Option<String>,
    /// Nothing more is fetched.
    ended: bool,
}

/// A record of our own that the brokers have confirmed.
pub(super) struct Own {
    pub offset: u64,
    pub base: u64,
    pub bytes: Bytes,
    /// The offset of the next message to fetch when it was sent: it stands there or later.
    pub after: u64,
    pub done: Done,
}

/// Is told where a record stands, or why it doesn't.
pub(super) type Done = Box<dyn FnOnce(Result<Lsn, AppendError>) + Send>;

/// Those that are to be told, outside the lock.
type Judged = Vec<(Done, Result<Lsn, AppendError>)>;

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
            early: BTreeMap::new(),
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
        self.change(|state| {
            // Our own we have already.
            if message.offset >= state.next && state.broken.is_none() {
                state.take(message, &self.topic, &self.amendments);
            }
        });
    }

    /// Takes note of a record of our own that the brokers have confirmed. It has a place once all before it is fetched, since
    /// what is fetched may take that place away. What comes right after the last one that was fetched need not be fetched.
    pub fn delivered(&self, own: Own) {
        self.change(|state| {
            if own.offset == state.next && !state.ended {
                let message = Fetched { offset: own.offset, base: Some(own.base), bytes: &own.bytes };
                state.take(&message, &self.topic, &self.amendments);
            }
            state.early.entry(own.offset).or_default().push(own);
        });
    }

    /// Changes something, and tells whoever waits for it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        let judged = state.judge();
        drop(state);
        self.fetched.notify_all();
        for (done, outcome) in judged {
            done(outcome);
        }
    }

    /// Records from a position on, as far as they are known.
    pub fn read(&self, from: Lsn, limit: (usize, usize)) -> Known {
        let state = self.state();
        if from >= state.start {
            return Known::Records(state.records(from, limit));
        }
        Known::Fetch(state.segments.offset(from), state.segments.offset(state.start))
    }

    /// Waits until everything before an offset was fetched; says whether it was.
    pub fn reach(&self, offset: u64, patience: Duration) -> bool {
        let behind = |state: &mut State| state.next < offset && !state.ended;
        let waited = self.fetched.wait_timeout_while(self.state(), patience, behind);
        waited.unwrap_or_else(PoisonError::into_inner).0.next >= offset
    }

    /// Whether what stands at an offset is kept here, too.
    pub fn keeps(&self, offset: u64) -> bool {
        let state = self.state();
        offset >= state.segments.offset(state.start)
    }

    /// Nothing is fetched or appended any more: the topic is not what it was.
    pub fn fail(&self, why: String) {
        self.change(|state| state.fail(why));
    }

    /// Nothing is fetched or appended any more: the log is closed.
    pub fn end(&self) {
        self.change(|state| (state.ended, state.tail) = (true, None));
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
        if let Some(tail) = &self.tail {
            tail.send_if_modified(|tail| std::mem::replace(tail, lsn.max(*tail)) < lsn);
        }
    }

    fn fail(&mut self, why: String) {
        tracing::error!(%why, "the log is not what it was");
        (self.broken, self.ended) = (Some(why), true);
    }

    /// Those of our own whose place is known by now.
    fn judge(&mut self) -> Judged {
        let mut judged = Vec::new();
        while let Some(own) = self.early.first_entry()
            && (self.ended || *own.key() < self.next)
        {
            for own in own.remove() {
                let place = self.place(&own);
                judged.push((own.done, place));
            }
        }
        judged
    }

    /// Where a record of our own stands. If another stands there, the brokers have not what they confirmed.
    fn place(&mut self, own: &Own) -> Result<Lsn, AppendError> {
        if let Some(why) = &self.broken {
            return Err(AppendError::Unconfirmed(why.clone()));
        }
        if own.offset >= self.next {
            return Err(AppendError::Unconfirmed("the log was closed".into()));
        }
        let Some(lsn) = self.segments.lsn(own.offset, Some(own.base)) else {
            return Err(AppendError::Unavailable("another process gave the topic other positions meanwhile".into()));
        };
        let is_there = if lsn < self.start {
            own.offset >= own.after
        } else {
            let at = self.ring.binary_search_by_key(&lsn, |entry| entry.lsn);
            at.is_ok_and(|at| *self.ring[at].bytes == *own.bytes)
        };
        if is_there {
            return Ok(lsn);
        }
        let why = format!(
            "the brokers confirmed a record at offset {} of the topic, where another one stands: find out what became of \
             the topic, and start the server again",
            own.offset
        );
        self.fail(why.clone());
        Err(AppendError::Unconfirmed(why))
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    type Placed = oneshot::Receiver<Result<Lsn, AppendError>>;

    /// At the end of a topic of so many messages, all of which are of the log.
    fn shared(next: u64) -> Shared {
        let mut segments = Segments::default();
        for offset in 0..next {
            segments.take(offset, Some(1));
        }
        Shared::new("log".into(), Amendments::default(), segments, next, next.checked_sub(1))
    }

    fn fetch(shared: &Shared, offset: u64, base: Option<u64>, bytes: &[u8]) {
        shared.fetched(&Fetched { offset, base, bytes });
    }

    /// The brokers confirm a record that was sent when the topic ended after the first.
    fn deliver(shared: &Shared, offset: u64, bytes: &'static [u8]) -> Placed {
        let (sender, placed) = oneshot::channel();
        let done: Done = Box::new(move |place| sender.send(place).unwrap());
        shared.delivered(Own { offset, base: 1, bytes: Bytes::from_static(bytes), after: 1, done });
        placed
    }

    fn place(mut placed: Placed) -> Result<Lsn, AppendError> {
        placed.try_recv().unwrap()
    }

    #[test]
    fn what_is_confirmed_has_its_place_once_all_before_it_is_fetched() {
        let shared = shared(1);
        assert_eq!(place(deliver(&shared, 1, b"next")).unwrap(), Lsn(2), "it need not be fetched");
        let mut early = [deliver(&shared, 3, b"own"), deliver(&shared, 4, b"own, too")];
        assert!(early.iter_mut().all(|placed| placed.try_recv().is_err()), "something stands before it");
        assert_eq!(shared.tail(), Lsn(2));
        fetch(&shared, 2, Some(1), b"another's");
        fetch(&shared, 3, Some(1), b"own");
        fetch(&shared, 4, Some(1), b"own, too");
        assert_eq!(early.map(|placed| place(placed).unwrap()), [Lsn(4), Lsn(5)]);
        // It was fetched before it was confirmed.
        fetch(&shared, 5, Some(1), b"own");
        assert_eq!(place(deliver(&shared, 5, b"own")).unwrap(), Lsn(6));
        // Nobody is left waiting.
        let last = deliver(&shared, 9, b"own");
        shared.end();
        assert!(matches!(place(last), Err(AppendError::Unconfirmed(_))));
    }

    #[test]
    fn what_readers_pass_over_is_not_acknowledged() {
        let shared = shared(1);
        let early = deliver(&shared, 2, b"own");
        fetch(&shared, 1, Some(1_000), b"another's");
        fetch(&shared, 2, Some(1), b"own");
        assert!(matches!(place(early), Err(AppendError::Unavailable(_))));
        // Nor where it comes right after that.
        assert!(matches!(place(deliver(&shared, 3, b"own")), Err(AppendError::Unavailable(_))));
        assert_eq!((shared.tail(), shared.state().broken.clone()), (Lsn(1_001), None));
    }

    #[test]
    fn a_record_that_is_confirmed_where_another_stands_fails_the_log() {
        for at in [0, 1, 2] {
            let shared = shared(1);
            fetch(&shared, 1, Some(1), b"another's");
            fetch(&shared, 2, None, b"not of the log");
            let (early, wrong) = (deliver(&shared, 7, b"own"), deliver(&shared, at, b"own"));
            let refused = place(wrong).map_or_else(|error| error.to_string(), |lsn| panic!("acknowledged at {lsn}"));
            assert!(refused.contains(&format!("at offset {at} of the topic")), "{refused}");
            assert!(matches!(place(early), Err(AppendError::Unconfirmed(_))));
            assert!(shared.state().broken.is_some(), "nothing is appended any more");
            fetch(&shared, 3, Some(1), b"later");
            assert_eq!(shared.tail(), Lsn(2), "nor read");
        }
    }
}
