//! Does what is due: a few jobs at once, those on one room or user one after another, each by the one node that has the
//! lease of its shard. It is woken when a job starts, and looks by itself for what a node that died has left.

use std::{collections::HashMap, sync::Arc, time::Duration};

use projections::{
    View,
    models::jobs::{self, Job, Status},
};
use tokio::{
    sync::Notify,
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{Commands, DELETE_ROOM, Deletion, Error, PURGE_HISTORY, PurgeHistory, REDACT_USER, RedactUser, Run};
use crate::commands::leases::Shard;

/// At most so many jobs are done at once.
const AT_ONCE: usize = 5;
/// At most so many are looked at: those behind them wait.
const LOOK_AT: usize = 256;
/// How often it is looked for what others have left, or what could not be done.
const TICK: Duration = Duration::from_secs(1);

/// Does jobs.
pub struct Executor {
    commands: Commands,
    woken: Arc<Notify>,
    /// The jobs that are being done, by their tasks: each one's id and what it works on.
    doing: HashMap<Id, (String, String)>,
    tasks: JoinSet<Result<(), Error>>,
}

impl Executor {
    /// Does nothing yet.
    #[must_use]
    pub fn new(commands: Commands) -> Self {
        let woken = Arc::new(Notify::new());
        let waker = Arc::clone(&woken);
        commands.parts().progress.listen(move |applied| {
            if applied.touched.jobs || applied.touched.everything {
                waker.notify_one();
            }
        });
        Self { commands, woken, doing: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Does what is due until the server stops. What is under way then stands still after the step that it is at.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let woken = Arc::clone(&self.woken);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
                () = woken.notified() => {}
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    if !self.ended(ended) {
                        // It is tried again with the next tick.
                        continue;
                    }
                }
            }
            if let Some(Err(error)) = stop.run_until_cancelled(self.begin(&stop)).await {
                tracing::warn!(%error, "some jobs of administrators begin later");
            }
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Notes that a task has ended; says whether its job is over.
    fn ended(&mut self, ended: Result<(Id, Result<(), Error>), tokio::task::JoinError>) -> bool {
        let (task, result) = match ended {
            Ok((task, result)) => (task, result),
            Err(error) => (error.id(), Err(Error::Internal(error.to_string()))),
        };
        let job = self.doing.remove(&task).map(|(id, _)| id).unwrap_or_default();
        if let Err(error) = &result {
            tracing::warn!(job, %error, "a job of an administrator goes on later");
        }
        result.is_ok()
    }

    /// Begins, or goes on with, what is due and this node's to do.
    async fn begin(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        if self.tasks.len() >= AT_ONCE {
            return Ok(());
        }
        let due = due(&self.commands.parts().source.view()?)?;
        for (id, job) in due {
            let resource = job.resource.clone().unwrap_or_else(|| id.clone());
            let waits = self.doing.values().any(|(doing, on)| *doing == id || *on == resource);
            if waits || self.tasks.len() >= AT_ONCE {
                continue;
            }
            let Some(lease) = self.commands.lease(Shard::of(&resource)).await? else { continue };
            let run = Run { commands: self.commands.clone(), id: id.clone(), job, lease };
            let stop = stop.clone();
            let task = self.tasks.spawn(async move { stop.run_until_cancelled(run.all()).await.unwrap_or(Ok(())) });
            self.doing.insert(task.id(), (id, resource));
        }
        Ok(())
    }
}

/// Unfinished jobs, first those that were begun.
fn due(view: &View) -> Result<Vec<(String, Job)>, Error> {
    let begun = jobs::with_status(view, Status::Active).take(LOOK_AT);
    let waiting = jobs::with_status(view, Status::Scheduled).take(LOOK_AT);
    Ok(begun.chain(waiting).collect::<Result<_, _>>()?)
}

impl Run {
    /// All that is left of the job.
    async fn all(&self) -> Result<(), Error> {
        match self.job.action.as_str() {
            DELETE_ROOM => self.drive::<Deletion>().await,
            PURGE_HISTORY => self.drive::<PurgeHistory>().await,
            REDACT_USER => self.drive::<RedactUser>().await,
            action => self.end(Some(format!("this build knows no work called {action}"))).await,
        }
    }
}
