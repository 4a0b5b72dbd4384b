use std::{
    collections::HashSet,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use everfold::log::{AppendError, EmbeddedLog, Log, LogReader, ReadError, Receipt};
use projections::Entry;
use schemas::{Header, Key, Lsn, Record, RecordId};
use tokio::sync::{Semaphore, oneshot};

use super::forward_reads;

/// A call that is held back: its records, and who waits for them.
type Held = (Vec<Bytes>, Senders);
type Senders = Vec<oneshot::Sender<Result<Lsn, AppendError>>>;

/// A log that refuses or holds back appends and reads when a test wants it.
pub struct HeldLog {
    inner: Arc<EmbeddedLog>,
    full: AtomicBool,
    /// The records of which the first copy finds no room; none lets all through.
    fickle: Mutex<Option<HashSet<RecordId>>>,
    contended: Mutex<Vec<Key>>,
    hold: Mutex<Hold>,
    arrived: Semaphore,
    /// The records of each call.
    calls: Mutex<Vec<usize>>,
    reads: Mutex<Reads>,
    reads_changed: Condvar,
}

/// What becomes of reads.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Reads {
    #[default]
    Through,
    Held,
    Damaged,
}

#[derive(Default)]
struct Hold {
    /// How many more calls go through before some are held back.
    through: usize,
    /// How many more calls are held back then.
    calls: usize,
    held: Vec<Held>,
}

impl HeldLog {
    pub fn over(inner: EmbeddedLog) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::new(inner),
            full: AtomicBool::new(false),
            fickle: Mutex::default(),
            contended: Mutex::default(),
            hold: Mutex::default(),
            arrived: Semaphore::new(0),
            calls: Mutex::default(),
            reads: Mutex::default(),
            reads_changed: Condvar::new(),
        })
    }

    /// Refuses appends, as on a full disk, or takes them again.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// From here on refuses each record that follows from another the first time: whoever appends it breaks off, and begins
    /// again there. Or no longer.
    pub fn refuse_each_once(&self, refuse: bool) {
        *self.fickle.lock().unwrap() = refuse.then(HashSet::new);
    }

    fn refuses(&self, records: &[Bytes]) -> bool {
        let mut fickle = self.fickle.lock().unwrap();
        let Header { id, cause, .. } = Record::decode(records.last().unwrap()).unwrap().header;
        let breaks = fickle.as_mut().is_some_and(|seen| cause.is_some() && seen.insert(id));
        breaks || self.full.load(Ordering::SeqCst)
    }

    /// Before each call from here on, another node's record writes these keys.
    pub fn contend(&self, keys: &[Key]) {
        *self.contended.lock().unwrap() = keys.to_vec();
    }

    fn append_contended(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        let writes = self.contended.lock().unwrap().clone();
        if !writes.is_empty() {
            let ours = Record::decode(records.last().unwrap()).unwrap().header;
            let header = Header { id: RecordId(rand::random()), writes, reads: Vec::new(), after: None, ..ours };
            let foreign = Record { header, facts: Vec::new() }.encode().unwrap();
            drop(self.inner.append(vec![foreign.into()]));
        }
        self.inner.append(records)
    }

    /// Holds back the next calls.
    pub fn hold_next(&self, calls: usize) {
        self.hold_after(0, calls);
    }

    /// Lets some more calls through, and holds back those that come next.
    pub fn hold_after(&self, through: usize, calls: usize) {
        let mut hold = self.hold.lock().unwrap();
        (hold.through, hold.calls) = (through, calls);
    }

    /// Waits until a call was held back.
    pub async fn held(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    /// Appends what was held back.
    pub fn release(&self) {
        let held = std::mem::take(&mut self.hold.lock().unwrap().held);
        for (records, senders) in held {
            for (receipt, sender) in self.inner.append(records).into_iter().zip(senders) {
                tokio::spawn(async move { sender.send(receipt.await.unwrap()) });
            }
        }
    }

    /// Says of what was held back that it is not known whether it was appended; so many of the calls were.
    pub fn give_up(&self, appended: usize) {
        let held = std::mem::take(&mut self.hold.lock().unwrap().held);
        for (n, (records, senders)) in held.into_iter().enumerate() {
            if n < appended {
                drop(self.inner.append(records));
            }
            for sender in senders {
                sender.send(Err(AppendError::Unconfirmed("the producer can't go on".into()))).unwrap();
            }
        }
    }

    /// Lets whoever reads wait.
    pub fn hold_reads(&self) {
        *self.reads.lock().unwrap() = Reads::Held;
    }

    /// Lets all read on.
    pub fn release_reads(&self) {
        *self.reads.lock().unwrap() = Reads::Through;
        self.reads_changed.notify_all();
    }

    /// Lets reads find damage from now on.
    pub fn damage_reads(&self) {
        *self.reads.lock().unwrap() = Reads::Damaged;
    }

    /// The log as another node has it: nothing of that is held back, and it stays open when that node stops.
    pub fn beside(&self) -> Arc<dyn Log> {
        Arc::new(Beside(Arc::clone(&self.inner)))
    }

    /// How many records each call has had.
    pub fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap().clone()
    }
}

impl LogReader for HeldLog {
    forward_reads!(inner);

    fn read(&self, from: Lsn, records: usize, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let reads = self.reads.lock().unwrap();
        let reads = *self.reads_changed.wait_while(reads, |reads| *reads == Reads::Held).unwrap();
        if reads == Reads::Damaged {
            return Err(ReadError::Damaged { lsn: from, why: "the test says so".into() });
        }
        self.inner.read(from, records, bytes)
    }
}

impl Log for HeldLog {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        self.calls.lock().unwrap().push(records.len());
        let mut hold = self.hold.lock().unwrap();
        let through = hold.through > 0 || hold.calls == 0;
        hold.through = hold.through.saturating_sub(1);
        let refused = self.refuses(&records);
        if !refused && through {
            return self.append_contended(records);
        }
        let (senders, receipts): (Senders, Vec<Receipt>) = records.iter().map(|_| oneshot::channel()).unzip();
        if refused {
            let full = || Err(AppendError::Unavailable("no space left on device".into()));
            senders.into_iter().for_each(|sender| sender.send(full()).unwrap());
        } else {
            hold.calls -= 1;
            hold.held.push((records, senders));
            self.arrived.add_permits(1);
        }
        receipts
    }

    fn close(&self) {
        self.inner.close();
    }
}

struct Beside(Arc<EmbeddedLog>);

impl LogReader for Beside {
    forward_reads!(0, with read);
}

impl Log for Beside {
    fn append(&self, records: Vec<Bytes>) -> Vec<Receipt> {
        self.0.append(records)
    }

    fn close(&self) {}
}
