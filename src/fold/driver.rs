use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use projections::{Cursor, FoldError, Model, Projector, Reader, Source, Store, StoreError};
use schemas::{Fact, Lsn, Record};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use super::Progress;
use crate::{
    log::{Log, ReadError},
    metrics::Metrics,
};

/// At most so many records, or so many bytes of them, go into one commit.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;

/// Why the fold can't begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A record can't be folded, or the store failed.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The store failed, or doesn't fit the log.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Answer = oneshot::Sender<Result<Cursor, StartError>>;

enum Order {
    Rebuild(Vec<Model>, Answer),
    /// A rebuild has come close to the live tables.
    Adopt(Result<Box<Projector>, StartError>, Answer),
}

/// What a fold starts from.
pub struct Start<'a> {
    /// Where the records are.
    pub log: Arc<dyn Log>,
    /// Where the tables are.
    pub store: Arc<Store>,
    /// Is told of every commit.
    pub metrics: Arc<Metrics>,
    /// Is told (position, tail) while the start takes long.
    pub report: &'a dyn Fn(Lsn, Lsn),
}

/// The thread that folds the log as it grows; the only writer of the read models.
pub struct Driver {
    progress: Arc<Progress>,
    orders: mpsc::Sender<Order>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Checks that log and read models fit, rebuilds what another version folded, catches up with the tail found, and
    /// goes on in a thread of its own. Blocks until it has caught up.
    ///
    /// # Errors
    /// When log and cursor don't fit, or the log or the store fails.
    pub fn start(start: Start<'_>, runtime: Handle) -> Result<(Self, Arc<Reader>), StartError> {
        let Start { log, store, metrics, report } = start;
        let mut projector = Projector::open(Arc::clone(&store))?;
        check_fit(&*log, projector.cursor())?;
        let stale = projector.stale();
        if !stale.is_empty() {
            let names: Vec<_> = stale.iter().map(|model| model.name()).collect();
            tracing::info!(models = ?names, "folding anew what another version folded");
            let mut scratch = projector.rebuild(&stale)?;
            catch_up(&mut scratch, &*log, projector.cursor().lsn, false, report)?;
            projector.adopt(&scratch)?;
            projector.drop_old_families()?;
        }
        catch_up(&mut projector, &*log, log.tail(), true, report)?;
        let reader = Arc::new(Reader::new(store));
        let source: Arc<dyn Source> = Arc::clone(&reader) as Arc<dyn Source>;
        let progress = Arc::new(Progress::new(source, projector.cursor().clone()));
        let (orders, inbox) = mpsc::channel(4);
        let stopping = Arc::new(AtomicBool::new(false));
        let work = Work {
            projector,
            log,
            metrics,
            progress: Arc::clone(&progress),
            inbox,
            again: orders.downgrade(),
            stopping: Arc::clone(&stopping),
        };
        let thread = std::thread::Builder::new()
            .name("fold".into())
            .spawn(move || work.run(&runtime))
            .map_err(|error| ReadError::Backend(error.to_string()))?;
        Ok((Self { progress, orders, stopping, thread: Some(thread) }, reader))
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Folds models anew from the first record, beside the live tables, and swaps them in. The server goes on
    /// meanwhile. Says where the swap happened.
    ///
    /// # Errors
    /// When the log or the store fails, or the fold has stopped.
    pub async fn rebuild(&self, models: Vec<Model>) -> Result<Cursor, StartError> {
        let (sender, receiver) = oneshot::channel();
        let gone = || StartError::from(ReadError::Backend("the fold has stopped".into()));
        self.orders.send(Order::Rebuild(models, sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Folds what the log has, and ends the thread. The log must be closed before.
    pub fn stop(mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let (closed, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.orders, closed));
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the fold's thread panicked");
        }
    }
}

struct Work {
    projector: Projector,
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    progress: Arc<Progress>,
    inbox: mpsc::Receiver<Order>,
    again: mpsc::WeakSender<Order>,
    stopping: Arc<AtomicBool>,
}

impl Work {
    fn run(mut self, runtime: &Handle) {
        match self.fold_until_stopped(runtime) {
            Ok(()) => self.progress.stop("it was shut down"),
            Err(error) => {
                tracing::error!(%error, "the fold has stopped: nothing can be written any more");
                self.progress.stop(&error.to_string());
            }
        }
        if let Err(error) = self.projector.store().flush() {
            tracing::warn!(%error, "the read models could not be flushed; the next start folds the rest from the log");
        }
    }

    fn fold_until_stopped(&mut self, runtime: &Handle) -> Result<(), StartError> {
        let mut tail = self.log.watch_tail();
        loop {
            while self.projector.cursor().lsn < *tail.borrow_and_update() {
                let began = Instant::now();
                let entries = self.log.read(self.projector.cursor().lsn.next(), BATCH_RECORDS, BATCH_BYTES)?;
                let applied = self.projector.apply(&entries, true)?;
                self.metrics.applied(&applied, began.elapsed());
                self.progress.publish(&applied);
            }
            if self.stopping.load(Ordering::SeqCst) {
                return Ok(());
            }
            let order = runtime.block_on(async {
                tokio::select! {
                    order = self.inbox.recv() => order.map_or(Wake::Stop, Wake::Order),
                    changed = tail.changed() => changed.map_or(Wake::Stop, |()| Wake::Tail),
                }
            });
            match order {
                Wake::Tail => {}
                Wake::Order(order) => self.obey(order),
                Wake::Stop => self.stopping.store(true, Ordering::SeqCst),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Rebuild(models, answer) => self.begin_rebuild(&models, answer),
            Order::Adopt(scratch, answer) => {
                let adopted = scratch.and_then(|mut scratch| {
                    // What was folded while the rebuild ran.
                    catch_up(&mut scratch, &*self.log, self.projector.cursor().lsn, false, &|_, _| {})?;
                    self.projector.adopt(&scratch)?;
                    Ok(self.projector.cursor().clone())
                });
                // Whoever asked may be gone.
                let _ = answer.send(adopted);
            }
        }
    }

    fn begin_rebuild(&self, models: &[Model], answer: Answer) {
        let scratch = self.projector.rebuild(models);
        let (log, until, again) = (Arc::clone(&self.log), self.projector.cursor().lsn, self.again.clone());
        let work = move || {
            let folded = scratch.map_err(StartError::from).and_then(|mut scratch| {
                catch_up(&mut scratch, &*log, until, false, &|_, _| {})?;
                Ok(Box::new(scratch))
            });
            if let Some(orders) = again.upgrade() {
                // A closed inbox means that the process stops: the next start drops what was begun.
                let _ = orders.blocking_send(Order::Adopt(folded, answer));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("rebuild".into()).spawn(work) {
            tracing::error!(%error, "no thread for a rebuild");
        }
    }
}

enum Wake {
    Tail,
    Order(Order),
    Stop,
}

/// A read model that is not a fold of this log must not be used.
///
/// # Errors
/// [`StoreError::AheadOfLog`], [`StoreError::OtherLog`] or [`StoreError::OtherHistory`], with both sides named.
pub fn check_fit(log: &dyn Log, cursor: &Cursor) -> Result<(), StartError> {
    if cursor.lsn == Lsn::ZERO {
        return Ok(());
    }
    if cursor.lsn > log.tail() {
        return Err(StoreError::AheadOfLog { cursor: cursor.lsn, tail: log.tail() }.into());
    }
    let found = log.read(Lsn::FIRST, 1, 1)?.first().and_then(|entry| {
        let record = Record::decode(&entry.bytes).ok()?;
        match record.facts.first()?.decode().ok()? {
            Fact::Genesis(genesis) => Some(genesis.log_id),
            _ => None,
        }
    });
    if found.as_ref() != Some(&cursor.log_id) {
        return Err(StoreError::OtherLog {
            found: hex::encode(&cursor.log_id.0),
            expected: found.map_or_else(|| "without a Genesis".to_owned(), |id| hex::encode(id.0)),
        }
        .into());
    }
    let there = log.read(cursor.lsn, 1, 1)?;
    let expected = there.first().filter(|entry| entry.lsn == cursor.lsn);
    let expected = expected.map(|entry| cursor.chain_before.extend(entry.lsn, &entry.bytes));
    if expected != Some(cursor.chain) {
        return Err(StoreError::OtherHistory {
            lsn: cursor.lsn,
            found: cursor.chain.to_string(),
            expected: expected.map_or_else(|| "missing".to_owned(), |chain| chain.to_string()),
        }
        .into());
    }
    Ok(())
}

/// Folds up to a position.
fn catch_up(
    projector: &mut Projector,
    log: &dyn Log,
    until: Lsn,
    commit_cursor: bool,
    report: &dyn Fn(Lsn, Lsn),
) -> Result<(), StartError> {
    while projector.cursor().lsn < until {
        let mut entries = log.read(projector.cursor().lsn.next(), BATCH_RECORDS, BATCH_BYTES)?;
        entries.retain(|entry| entry.lsn <= until);
        if entries.is_empty() {
            break;
        }
        projector.apply(&entries, commit_cursor)?;
        report(projector.cursor().lsn, until);
    }
    Ok(())
}
