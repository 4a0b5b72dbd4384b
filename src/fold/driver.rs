use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use projections::{Applied, Cursor, Entry, FoldError, Model, Projector, Reader, Source, Store, StoreError};
use schemas::{Fact, Lsn, Record};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};

use super::Progress;
use crate::{
    log::{Log, LogReader, ReadError, genesis},
    metrics::Metrics,
};

/// At most so many records, or so many bytes of them, go into one commit.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 4 << 20;
/// When the disk fails, it is tried again after so long.
const RETRY_AFTER: Duration = Duration::from_millis(500);

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

impl StartError {
    /// Whether the disk failed, which may pass; what is on the log doesn't change.
    const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Log(ReadError::Backend(_))
                | Self::Fold(FoldError::Store(StoreError::Rocks(_)))
                | Self::Store(StoreError::Rocks(_))
        )
    }

    /// The record that can't be folded, nor any after it.
    const fn record(&self) -> Option<Lsn> {
        match self {
            Self::Fold(
                FoldError::Barrier { lsn, .. } | FoldError::Record { lsn, .. } | FoldError::Fact { lsn, .. },
            ) => Some(*lsn),
            _ => None,
        }
    }
}

type Answer = oneshot::Sender<Result<Cursor, RebuildError>>;

enum Order {
    Rebuild(Vec<Model>, Answer),
    /// A rebuild has come close to the live tables.
    Adopt(Result<Box<Projector>, StartError>, Answer),
}

/// Why models can't be folded anew.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// One rebuild at a time.
    #[error("another rebuild is under way")]
    Busy,
    /// Nothing is folded here, or not any more.
    #[error("the read models are not being folded")]
    Stopped,
    /// The log or the store failed; the tables are as they were.
    #[error(transparent)]
    Failed(#[from] StartError),
    /// The same in the process that folds.
    #[error("{0}")]
    Elsewhere(String),
}

/// What a rebuild comes to.
pub type Rebuilt = BoxFuture<'static, Result<Cursor, RebuildError>>;

/// Folds models anew while a server runs.
#[derive(Clone)]
pub struct Rebuilds {
    at: watch::Receiver<Option<Lsn>>,
    run: Arc<dyn Fn(Vec<Model>) -> Rebuilt + Send + Sync>,
}

impl Rebuilds {
    /// Where somebody rebuilds: how far they have come, and the way to ask them.
    #[must_use]
    pub fn new(at: watch::Receiver<Option<Lsn>>, run: impl Fn(Vec<Model>) -> Rebuilt + Send + Sync + 'static) -> Self {
        Self { at, run: Arc::new(run) }
    }

    /// Where nothing is folded.
    #[must_use]
    pub fn none() -> Self {
        Self::new(watch::channel(None).1, |_| futures::future::ready(Err(RebuildError::Stopped)).boxed())
    }

    /// How far the rebuild that is under way has come; none if there is none.
    #[must_use]
    pub fn at(&self) -> Option<Lsn> {
        *self.at.borrow()
    }

    /// Changes with it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Lsn>> {
        self.at.clone()
    }

    /// Folds models and those that they read anew from the first record, beside the live tables, and swaps them in. The
    /// server goes on meanwhile, and so does the rebuild if nobody waits for it. Says where the swap happened.
    ///
    /// # Errors
    /// When another rebuild is under way, the log or the store fails, or the fold has stopped.
    pub async fn run(&self, models: Vec<Model>) -> Result<Cursor, RebuildError> {
        (self.run)(models).await
    }
}

async fn rebuild(orders: mpsc::WeakSender<Order>, models: Vec<Model>) -> Result<Cursor, RebuildError> {
    let (sender, receiver) = oneshot::channel();
    let orders = orders.upgrade().ok_or(RebuildError::Stopped)?;
    orders.send(Order::Rebuild(models, sender)).await.map_err(|_| RebuildError::Stopped)?;
    drop(orders);
    receiver.await.map_err(|_| RebuildError::Stopped)?
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
    store: Arc<Store>,
    progress: Arc<Progress>,
    orders: mpsc::Sender<Order>,
    rebuilt: watch::Receiver<Option<Lsn>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Driver {
    /// Checks that log and read models fit, rebuilds what another version folded, catches up with the tail found, and
    /// goes on in a thread of its own. Blocks until it has caught up, or has come to records of a format that only a
    /// newer build knows: then what is folded can be read, and the thread stops at once.
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
        match catch_up(&mut projector, &*log, log.tail(), true, report) {
            Err(StartError::Fold(FoldError::Barrier { .. })) => {}
            caught_up => caught_up?,
        }
        let reader = Arc::new(Reader::new(Arc::clone(&store)));
        let source: Arc<dyn Source> = Arc::clone(&reader) as Arc<dyn Source>;
        let progress = Arc::new(Progress::new(source, projector.cursor().clone()));
        let (orders, inbox) = mpsc::channel(4);
        let (rebuilding, rebuilt) = watch::channel(None);
        let stopping = Arc::new(AtomicBool::new(false));
        let work = Work {
            projector,
            log,
            metrics,
            progress: Arc::clone(&progress),
            inbox,
            again: orders.downgrade(),
            rebuilding,
            stopping: Arc::clone(&stopping),
        };
        let thread = std::thread::Builder::new()
            .name("fold".into())
            .spawn(move || work.run(&runtime))
            .map_err(|error| ReadError::Backend(error.to_string()))?;
        Ok((Self { store, progress, orders, rebuilt, stopping, thread: Some(thread) }, reader))
    }

    /// Where the tables are.
    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// The way to fold models anew.
    #[must_use]
    pub fn rebuilds(&self) -> Rebuilds {
        let orders = self.orders.downgrade();
        Rebuilds::new(self.rebuilt.clone(), move |models| rebuild(orders.clone(), models).boxed())
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
    /// How far the rebuild that is under way has come.
    rebuilding: watch::Sender<Option<Lsn>>,
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
                match fold_batch(&mut self.projector, &*self.log, Lsn::MAX, true) {
                    Ok(applied) => {
                        self.metrics.applied(&applied, began.elapsed());
                        self.progress.publish(&applied);
                    }
                    Err(error) if error.may_pass() => {
                        if self.progress.hold(&error.to_string()) {
                            tracing::error!(%error, "the fold stands still, and nothing is written, until the disk works again");
                        }
                        if self.stopping.load(Ordering::SeqCst) {
                            return Ok(());
                        }
                        std::thread::sleep(RETRY_AFTER);
                    }
                    Err(error) => return Err(error),
                }
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
            Order::Rebuild(_, answer) if self.rebuilding.borrow().is_some() => {
                // Whoever asked may be gone.
                let _ = answer.send(Err(RebuildError::Busy));
            }
            Order::Rebuild(models, answer) => self.begin_rebuild(&models, answer),
            Order::Adopt(scratch, answer) => {
                let adopted = scratch.and_then(|mut scratch| {
                    // What was folded while the rebuild ran.
                    let report = |at, _| _ = self.rebuilding.send_replace(Some(at));
                    catch_up(&mut scratch, &*self.log, self.projector.cursor().lsn, false, &report)?;
                    self.projector.adopt(&scratch)?;
                    let cursor = self.projector.cursor().clone();
                    // Whoever looks at the tables from another process is to look at the new ones.
                    self.progress.publish(&Applied { cursor: cursor.clone(), ..Applied::default() });
                    Ok(cursor)
                });
                self.rebuilding.send_replace(None);
                let _ = answer.send(adopted.map_err(RebuildError::from));
            }
        }
    }

    fn begin_rebuild(&mut self, models: &[Model], answer: Answer) {
        // What the rebuild before this one replaced.
        let scratch = self.projector.drop_old_families().and_then(|()| self.projector.rebuild(models));
        let (log, again) = (Arc::clone(&self.log), self.again.clone());
        let (progress, stopping) = (Arc::clone(&self.progress), Arc::clone(&self.stopping));
        let at = self.rebuilding.clone();
        let work = move || {
            let folded = scratch.map_err(StartError::from).and_then(|mut scratch| {
                // The live tables go on meanwhile; each round leaves less, and the last is folded while they wait.
                let behind = |scratch: &Projector| progress.cursor().lsn.0.saturating_sub(scratch.cursor().lsn.0);
                while behind(&scratch) > BATCH_RECORDS as u64 && !stopping.load(Ordering::SeqCst) {
                    fold_batch(&mut scratch, &*log, progress.cursor().lsn, false)?;
                    at.send_replace(Some(scratch.cursor().lsn));
                }
                Ok(Box::new(scratch))
            });
            if let Some(orders) = again.upgrade() {
                // A closed inbox means that the process stops: the next start drops what was begun.
                let _ = orders.blocking_send(Order::Adopt(folded, answer));
            }
        };
        self.rebuilding.send_replace(Some(Lsn::ZERO));
        if let Err(error) = std::thread::Builder::new().name("rebuild".into()).spawn(work) {
            self.rebuilding.send_replace(None);
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
pub fn check_fit(log: &dyn LogReader, cursor: &Cursor) -> Result<(), StartError> {
    if cursor.lsn == Lsn::ZERO {
        return Ok(());
    }
    if cursor.lsn > log.tail() {
        return Err(StoreError::AheadOfLog { cursor: cursor.lsn, tail: log.tail() }.into());
    }
    let found = genesis(log)?.map(|genesis| genesis.log_id);
    if found.as_ref() != Some(&cursor.log_id) {
        return Err(StoreError::OtherLog {
            found: hex::encode(&cursor.log_id.0),
            expected: found.map_or_else(|| "without a Genesis".to_owned(), |id| hex::encode(id.0)),
        }
        .into());
    }
    let there = log.read(cursor.lsn, 1, 1)?;
    if let Some((fork, epoch)) = there.first().and_then(fork).filter(|(fork, _)| *fork < cursor.lsn) {
        return Err(StoreError::LostFuture { cursor: cursor.lsn, fork, epoch }.into());
    }
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

/// Where a record begins a new epoch: the last record before it, and its own position.
fn fork(entry: &Entry) -> Option<(Lsn, Lsn)> {
    let facts = Record::decode(&entry.bytes).ok()?.facts;
    facts.iter().find_map(|fact| match fact.decode() {
        Ok(Fact::Epoch(epoch)) => Some((epoch.fork, entry.lsn)),
        _ => None,
    })
}

/// Folds up to a position.
pub(super) fn catch_up(
    projector: &mut Projector,
    log: &dyn LogReader,
    until: Lsn,
    commit_cursor: bool,
    report: &dyn Fn(Lsn, Lsn),
) -> Result<(), StartError> {
    while projector.cursor().lsn < until && fold_batch(projector, log, until, commit_cursor)?.records > 0 {
        report(projector.cursor().lsn, until);
    }
    Ok(())
}

/// Folds one batch of records up to a position.
fn fold_batch(
    projector: &mut Projector,
    log: &dyn LogReader,
    until: Lsn,
    commit_cursor: bool,
) -> Result<Applied, StartError> {
    let mut entries = log.read(projector.cursor().lsn.next(), BATCH_RECORDS, BATCH_BYTES)?;
    entries.retain(|entry| entry.lsn <= until);
    let folded = projector.apply(&entries, commit_cursor).map_err(StartError::from);
    match folded.as_ref().err().and_then(StartError::record) {
        // What comes before it can be folded.
        Some(record) if entries.first().is_some_and(|first| first.lsn < record) => {
            entries.retain(|entry| entry.lsn < record);
            Ok(projector.apply(&entries, commit_cursor)?)
        }
        _ => folded,
    }
}
