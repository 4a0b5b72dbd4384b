//! What waits to be written: calls of `append` in their order, bounded by count and bytes.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use schemas::Lsn;
use tokio::sync::oneshot;

use crate::log::{AppendError, Receipt, Stamp, refused};

/// At most so much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub records: usize,
    pub bytes: usize,
}

/// A record on its way.
pub(super) struct Pending {
    /// Where it is to stand, if that isn't right after the last.
    pub at: Option<Lsn>,
    pub bytes: Bytes,
    pub stamp: Stamp,
    pub receipt: oneshot::Sender<Result<Lsn, AppendError>>,
}

impl Pending {
    /// Where it stands, after what stands at `last`.
    pub fn lsn(&self, last: Lsn) -> Lsn {
        self.at.unwrap_or(last.next())
    }
}

/// The records of one call: they stand together, and are written together or not at all.
pub(super) struct Group {
    pub records: Vec<Pending>,
    pub bytes: usize,
    pub since: Instant,
}

impl Group {
    /// Tells everyone who waits that nothing was appended.
    pub fn fail(self, error: &AppendError) {
        for pending in self.records {
            // Whoever asked may be gone.
            let _ = pending.receipt.send(Err(error.clone()));
        }
    }
}

#[derive(Default)]
struct State {
    groups: VecDeque<Group>,
    records: usize,
    bytes: usize,
    closed: bool,
}

impl State {
    fn pop(&mut self) -> Option<Group> {
        let group = self.groups.pop_front()?;
        self.records -= group.records.len();
        self.bytes -= group.bytes;
        Some(group)
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    limit: Limit,
}

impl Queue {
    pub fn new(limit: Limit) -> Self {
        Self { state: Mutex::default(), ready: Condvar::new(), limit }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the records of one call, or refuses them all.
    pub fn push(&self, records: Vec<(Option<Lsn>, Bytes)>, stamps: Vec<Stamp>) -> Vec<Receipt> {
        if records.is_empty() {
            return Vec::new();
        }
        let (count, bytes) = (records.len(), records.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
        let pending = |((at, bytes), stamp)| {
            let (sender, receipt) = oneshot::channel();
            (Pending { at, bytes, stamp, receipt: sender }, receipt)
        };
        let (pending, receipts) = records.into_iter().zip(stamps).map(pending).unzip();
        let mut state = self.state();
        if state.closed {
            return refused(count, &AppendError::Closed);
        }
        if state.records + count > self.limit.records || state.bytes + bytes > self.limit.bytes {
            return refused(count, &AppendError::Unavailable("too much waits to be written".into()));
        }
        state.records += count;
        state.bytes += bytes;
        state.groups.push_back(Group { records: pending, bytes, since: Instant::now() });
        drop(state);
        self.ready.notify_one();
        receipts
    }

    /// Waits for something to write, and takes what is ready, at least one call; none once the queue is closed and
    /// empty.
    pub fn take(&self, limit: Limit) -> Option<Vec<Group>> {
        let idle = |state: &mut State| state.groups.is_empty() && !state.closed;
        let mut state = self.ready.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner);
        let mut taken = vec![state.pop()?];
        let (mut records, mut bytes) = (taken[0].records.len(), taken[0].bytes);
        while let Some(next) = state.groups.front() {
            records += next.records.len();
            bytes += next.bytes;
            if records > limit.records || bytes > limit.bytes {
                break;
            }
            taken.extend(state.pop());
        }
        Some(taken)
    }

    /// Takes everything.
    pub fn drain(&self) -> Vec<Group> {
        let mut state = self.state();
        std::iter::from_fn(|| state.pop()).collect()
    }

    /// Refuses what comes from now on.
    pub fn close(&self) {
        self.state().closed = true;
        self.ready.notify_all();
    }
}
