//! A thread that moves this process' views on with the projector: first the views, then whoever waits is woken.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use projections::{Beside, StoreError, Touched};
use schemas::Lsn;

use crate::{fold::Progress, metrics::Metrics};

/// What is touched is told by name up to here, and beyond as everything.
const NAMES: usize = 10_000;
/// Instances that nobody needs are closed about so often.
const CLOSE_IDLE: Duration = Duration::from_secs(30);
/// When views can't be moved on, it is tried again after so long.
const AGAIN: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_millis(10);
/// When views pin all instances for so long, that is worth a line.
const PINNED_LONG: Duration = Duration::from_secs(5);

/// What the thread is to do; what comes while it works gathers as one.
#[derive(Default)]
pub(super) struct Wishes {
    wish: Mutex<Wish>,
    changed: Condvar,
}

#[derive(Default)]
struct Wish {
    /// Views are to be at least here.
    until: Lsn,
    touched: Option<Touched>,
    /// The projector is another.
    renew: bool,
    /// Why nothing is folded; outer none is: as before.
    standing: Option<Option<String>>,
    /// The projector went in between.
    interrupted: Option<String>,
    /// A view was dropped.
    freed: bool,
    stop: bool,
    /// To be done once views have moved on.
    then: Vec<Box<dyn FnOnce() + Send>>,
}

impl Wish {
    fn is_due(&self) -> bool {
        self.touched.is_some() || self.standing.is_some() || self.interrupted.is_some() || self.stop
    }
}

impl Wishes {
    fn change(&self, change: impl FnOnce(&mut Wish)) {
        change(&mut self.wish());
        self.changed.notify_all();
    }

    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn follow(&self, until: Lsn, touched: &Touched) {
        if until == Lsn::ZERO {
            // Nothing was committed since the last news.
            return;
        }
        self.change(|wish| {
            wish.until = until;
            wish.touched.get_or_insert_default().add(touched, NAMES);
        });
    }

    /// Does something once views are at least at a position, and show what was committed before this call.
    pub fn then(&self, until: Lsn, then: impl FnOnce() + Send + 'static) {
        self.change(|wish| {
            wish.until = wish.until.max(until);
            wish.touched.get_or_insert_default();
            wish.then.push(Box::new(then));
        });
    }

    pub fn renew(&self) {
        self.change(|wish| wish.renew = true);
    }

    pub fn stand(&self, stopped: Option<String>) {
        self.change(|wish| wish.standing = Some(stopped));
    }

    pub fn interrupt(&self, why: &str) {
        self.change(|wish| {
            wish.interrupted = Some(why.to_owned());
            wish.standing = Some(Some(why.to_owned()));
        });
    }

    pub fn freed(&self) {
        self.change(|wish| wish.freed = true);
    }

    pub fn stop(&self) {
        self.change(|wish| wish.stop = true);
    }

    /// Waits until something is to be done, at most for some time.
    fn next(&self, patience: Duration) -> Wish {
        let waited = self.changed.wait_timeout_while(self.wish(), patience, |wish| !wish.is_due());
        let mut wish = waited.unwrap_or_else(PoisonError::into_inner).0;
        let next = std::mem::take(&mut *wish);
        wish.until = next.until;
        next
    }

    /// Waits until a view was dropped, at most for some time. Says whether it goes on.
    fn until_freed(&self, patience: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.wish(), patience, |wish| !wish.freed && !wish.stop);
        let mut wish = waited.unwrap_or_else(PoisonError::into_inner).0;
        wish.freed = false;
        !wish.stop
    }

    /// Waits for some time. Says whether it goes on.
    fn pause(&self, time: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.wish(), time, |wish| !wish.stop);
        !waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }
}

/// Does what is wished until it is to stop.
pub(super) fn run(wishes: &Wishes, mut beside: Beside, progress: &Progress, metrics: &Metrics) {
    let mut closed_idle = Instant::now();
    loop {
        let wish = wishes.next(CLOSE_IDLE);
        if wish.stop {
            progress.stop("it was shut down");
            return;
        }
        if let Some(why) = &wish.interrupted {
            progress.interrupt(why);
        }
        if wish.renew {
            beside.renew();
        }
        if let Some(touched) = wish.touched {
            let began = Instant::now();
            if !move_on(wishes, &mut beside, wish.until, progress) {
                continue;
            }
            metrics.views_seconds.observe(began.elapsed().as_secs_f64());
            match beside.source().view() {
                Ok(view) => progress.publish_seen(&view, touched),
                Err(error) => tracing::error!(%error, "views are not moved on"),
            }
            wish.then.into_iter().for_each(|then| then());
        }
        match wish.standing {
            Some(Some(why)) => _ = progress.hold(&why),
            Some(None) => progress.go_on(),
            None => {}
        }
        if closed_idle.elapsed() >= CLOSE_IDLE {
            beside.close_idle();
            closed_idle = Instant::now();
        }
        metrics.views_instances.set(i64::try_from(beside.instances()).unwrap_or(i64::MAX));
    }
}

/// Lets views be at least at a position. False when this process stops.
fn move_on(wishes: &Wishes, beside: &mut Beside, until: Lsn, progress: &Progress) -> bool {
    let mut pinned_since = None;
    loop {
        let why = match beside.advance() {
            Ok(true) => match beside.source().view().map(|view| view.lsn()) {
                Ok(lsn) if lsn >= until.max(progress.cursor().lsn) => return true,
                Ok(lsn) => {
                    format!("the read models are at {lsn}, and were at {} before", progress.cursor().lsn.max(until))
                }
                Err(error) => error.to_string(),
            },
            Ok(false) => {
                let since = *pinned_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= PINNED_LONG {
                    tracing::warn!("requests hold on to all views; those that wait for something new wait for them");
                    pinned_since = Some(Instant::now());
                }
                if !wishes.until_freed(PINNED_LONG) {
                    return false;
                }
                continue;
            }
            // The projector makes new tables quicker than they can be opened.
            Err(StoreError::Restless) if wishes.pause(SOON) => continue,
            Err(error) => error.to_string(),
        };
        if progress.hold(&why) {
            tracing::error!("views can't be moved on: {why}");
        }
        beside.renew();
        if !wishes.pause(AGAIN) {
            return false;
        }
    }
}
