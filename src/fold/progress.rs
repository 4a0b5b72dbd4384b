use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use projections::{Applied, Cursor, Source, StoreError, Touched, View, models::admission};
use schemas::{Lsn, admission::Void};
use tokio::sync::{oneshot, watch};

/// The fold has stopped: the process is going down, or a record could not be folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the read models are not being folded: {0}")]
pub struct Stopped(pub String);

type Listener = Box<dyn Fn(&Applied) + Send + Sync>;

/// How far the fold has come, for those who wait for a position.
pub struct Progress {
    source: Arc<dyn Source>,
    cursor: watch::Sender<Cursor>,
    waiting: Mutex<Waiting>,
    listeners: RwLock<Vec<Listener>>,
    stopped: watch::Sender<Option<Stopped>>,
}

#[derive(Default)]
struct Waiting {
    folded: Lsn,
    stopped: Option<Stopped>,
    /// Why it stands still, though it is being tried again.
    held: Option<Stopped>,
    by_lsn: BTreeMap<Lsn, Vec<oneshot::Sender<Option<Void>>>>,
}

impl Progress {
    /// Begins where the read models are.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, cursor: Cursor) -> Self {
        let waiting = Waiting { folded: cursor.lsn, ..Waiting::default() };
        let (cursor, _) = watch::channel(cursor);
        let (waiting, (stopped, _)) = (Mutex::new(waiting), watch::channel(None));
        Self { source, cursor, waiting, listeners: RwLock::new(Vec::new()), stopped }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `listener` after each commit, before those who wait for its records are woken. It must be quick.
    pub fn listen(&self, listener: impl Fn(&Applied) + Send + Sync + 'static) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// The last commit.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor.borrow().clone()
    }

    /// Changes with each commit.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Cursor> {
        self.cursor.subscribe()
    }

    /// Why the fold has stopped, or stands still until a disk has room again, if it does. Nothing should be appended
    /// meanwhile.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        let waiting = self.waiting();
        waiting.stopped.clone().or_else(|| waiting.held.clone())
    }

    /// Changes with what [`Progress::stopped`] says.
    #[must_use]
    pub fn watch_stopped(&self) -> watch::Receiver<Option<Stopped>> {
        self.stopped.subscribe()
    }

    fn tell_stopped(&self) {
        let now = self.stopped();
        self.stopped.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
    }

    /// Waits until a record is folded: none if it was applied, else why it is void.
    ///
    /// # Errors
    /// When the fold stops before.
    pub async fn outcome(&self, lsn: Lsn) -> Result<Option<Void>, Stopped> {
        let receiver = {
            let mut waiting = self.waiting();
            if waiting.folded >= lsn {
                None
            } else if let Some(stopped) = &waiting.stopped {
                return Err(stopped.clone());
            } else {
                let (sender, receiver) = oneshot::channel();
                waiting.by_lsn.entry(lsn).or_default().push(sender);
                Some(receiver)
            }
        };
        match receiver {
            Some(receiver) => match receiver.await {
                Ok(outcome) => Ok(outcome),
                Err(_) => Err(self.stopped().unwrap_or_else(|| Stopped("it was shut down".into()))),
            },
            None => {
                let view = self.source.view().map_err(|error| Stopped(error.to_string()))?;
                admission::void(&view, lsn).map_err(|error| Stopped(error.to_string()))
            }
        }
    }

    /// Waits until the fold has come to a position, or the time is over; says whether it has.
    pub async fn reached(&self, lsn: Lsn, timeout: Duration) -> bool {
        let mut cursor = self.cursor.subscribe();
        let reached = cursor.wait_for(|cursor| cursor.lsn >= lsn);
        matches!(tokio::time::timeout(timeout, reached).await, Ok(Ok(_)))
    }

    /// Tells of a commit.
    pub(super) fn publish(&self, applied: &Applied) {
        let void = |lsn| applied.voids.iter().find(|(at, _)| *at == lsn).map(|(_, void)| *void);
        self.commit(applied, |lsn| Ok(void(lsn)));
    }

    /// Tells what another process has folded, as a view shows it.
    pub(crate) fn publish_seen(&self, view: &View, touched: Touched) {
        let applied = Applied { cursor: view.cursor().clone(), touched, ..Applied::default() };
        self.commit(&applied, |lsn| admission::void(view, lsn));
    }

    fn commit(&self, applied: &Applied, outcome: impl Fn(Lsn) -> Result<Option<Void>, StoreError>) {
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(applied);
        }
        let woken = {
            let mut waiting = self.waiting();
            waiting.folded = applied.cursor.lsn;
            waiting.held = None;
            let later = waiting.by_lsn.split_off(&applied.cursor.lsn.next());
            std::mem::replace(&mut waiting.by_lsn, later)
        };
        self.tell_stopped();
        self.cursor.send_replace(applied.cursor.clone());
        for (lsn, senders) in woken {
            // Where it can't be looked up, nobody is told that it is known.
            let Ok(void) = outcome(lsn) else { continue };
            for sender in senders {
                // Whoever waited may be gone.
                let _ = sender.send(void);
            }
        }
    }

    /// Says whether it went on until now.
    pub(crate) fn hold(&self, why: &str) -> bool {
        let went_on = self.waiting().held.replace(Stopped(why.to_owned())).is_none();
        self.tell_stopped();
        went_on
    }

    /// It stands still no more.
    pub(crate) fn go_on(&self) {
        self.waiting().held = None;
        self.tell_stopped();
    }

    /// It stands still, and who waits is told so: nobody knows how long.
    pub(crate) fn interrupt(&self, why: &str) {
        let mut waiting = self.waiting();
        waiting.held = Some(Stopped(why.to_owned()));
        let waited = std::mem::take(&mut waiting.by_lsn);
        drop(waiting);
        drop(waited);
        self.tell_stopped();
    }

    pub(crate) fn stop(&self, why: &str) {
        let mut waiting = self.waiting();
        waiting.stopped = Some(Stopped(why.to_owned()));
        waiting.by_lsn.clear();
        drop(waiting);
        self.tell_stopped();
    }
}
