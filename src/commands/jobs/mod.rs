//! Long pieces of work that administrators set going: deleting a room, purging its history, redacting what somebody wrote.
//!
//! A job is a fact; each of its steps is a record whose id derives from the job and the step, and which says all that the
//! next step goes on from. So a job outlives whoever does it: the node that has the lease of its shard goes on with the step
//! after the last one on the log, and what its predecessor was about to append is void. What a step sets going in rooms
//! before its own record (events have records of their own) is brought to what it is to be, so that a step which is done
//! again does nothing twice.

mod deletion;
mod executor;
mod history;
mod purge;
mod redaction;

use std::str::FromStr;

use projections::{
    View,
    models::jobs::{self, Job},
};
use schemas::{
    Draft, Json, Key, Origin, Tag,
    facts::{JobAdvanced, JobEnded, JobItem, JobStarted},
};
use serde::{Serialize, de::DeserializeOwned};

pub use deletion::{DELETE_ROOM, Deleted, Deletion};
pub use executor::Executor;
pub use history::{PURGE_HISTORY, PurgeHistory};
pub use redaction::{REDACT_USER, RedactUser};

use super::{Commands, Decision, Error, Lease, Refusal, Request, leases::once, unchanged};

/// So long are the ids of jobs.
const ID_LETTERS: usize = 16;

/// A job to be.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What kind of work.
    pub action: &'static str,
    /// What it works on: a room id or a user id.
    pub resource: String,
    /// What is asked for, an object.
    pub parameters: Json,
    /// The words with which it is refused while there is another of its kind on the same resource; none lets it wait.
    pub alone: Option<String>,
}

impl Commands {
    /// Sets a job going; says its id.
    ///
    /// # Errors
    /// `M_UNKNOWN` while there is another of its kind on the same resource, if it is to be alone.
    pub async fn start_job(&self, origin: Origin, job: NewJob) -> Result<String, Error> {
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let id = self.parts().random.text(letters, ID_LETTERS);
        let decide = move |view: &View| {
            let NewJob { action, resource, parameters, alone } = job.clone();
            if let Some(refusal) = alone
                && is_under_way(view, action, &resource)?
            {
                return Err(Refusal::new(ruma::api::error::ErrorKind::Unknown, refusal).into());
            }
            let key = Key::pair(Tag::Job, action, &resource);
            let (action, resource) = (action.to_owned(), Some(resource));
            let fact = JobStarted { id: id.clone(), action, resource, parameters };
            let draft = Draft { reads: vec![unchanged(view, key)?], writes: vec![key], facts: vec![fact.into()] };
            Ok(Decision::append_then(draft, id.clone()))
        };
        self.execute(origin, decide).await
    }

    /// Waits until a job is over.
    ///
    /// # Errors
    /// When there is no such job, the store fails, or this node folds no more.
    pub async fn job_over(&self, id: &str) -> Result<Job, Error> {
        let mut progress = self.parts().progress.watch();
        loop {
            progress.mark_unchanged();
            let job = jobs::get(&self.parts().source.view()?, id)?;
            let job = job.ok_or_else(|| Error::Internal("a job is gone before it is over".into()))?;
            if job.status.is_over() {
                return Ok(job);
            }
            if progress.changed().await.is_err() {
                return Err(Error::Unavailable("the server is shutting down; the job goes on".into()));
            }
        }
    }
}

/// Whether there is an unfinished job of this kind on a resource.
fn is_under_way(view: &View, action: &str, resource: &str) -> Result<bool, Error> {
    for found in jobs::on(view, resource) {
        let (_, job) = found?;
        if job.action == action && !job.status.is_over() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A kind of work: what was asked for, as the job's parameters have it.
trait Work: DeserializeOwned + Send + Sync {
    /// What one step leaves to the next.
    type Progress: Serialize + DeserializeOwned + Default + Send + 'static;

    /// Does what comes before the next step's record, and says what that is to be; none when all is done.
    ///
    /// # Errors
    /// A refusal ends the job with its reason; what is unavailable is tried again later.
    fn step(
        &self,
        run: &Run,
        progress: Self::Progress,
    ) -> impl Future<Output = Result<Option<Step<Self::Progress>>, Error>> + Send;
}

/// Decides a step's record, once or again.
type Step<P> = Box<dyn FnMut(&View) -> Result<Change<P>, Error> + Send>;

/// What a step changes.
struct Change<P> {
    /// What it does, with its guards.
    draft: Draft,
    /// What the next step goes on from.
    progress: P,
    /// What comes to the job's lists.
    items: Vec<JobItem>,
}

impl<P> Change<P> {
    /// Nothing but progress.
    fn to(progress: P) -> Self {
        Self { draft: Draft::default(), progress, items: Vec::new() }
    }
}

/// A step whose record says nothing but progress.
fn go_to<P: Clone + Send + 'static>(progress: P) -> Step<P> {
    Box::new(move |_| Ok(Change::to(progress.clone())))
}

/// A job that this node does.
struct Run {
    commands: Commands,
    id: String,
    job: Job,
    lease: Lease,
}

impl Run {
    /// A request of this job, for a piece of its work: what it puts on the log, it does so once.
    fn request(&self, work: &[&str]) -> Request {
        let about: Vec<&str> = std::iter::once(self.id.as_str()).chain(work.iter().copied()).collect();
        let id = once("job", &about, self.job.started);
        let (origin, cause) = (self.job.origin.clone(), Some(self.job.started));
        Request { origin, id: Some(id), cause, lease: Some(self.lease) }
    }

    /// Who set it going, as the log names them.
    fn administrator(&self) -> &str {
        match &self.job.origin {
            Origin::Admin { user } | Origin::User { user, .. } => user,
            Origin::Remote { .. } | Origin::AppService { .. } | Origin::Server => "",
        }
    }

    /// What it works on.
    fn resource<T: FromStr>(&self) -> Result<T, Error> {
        let resource = self.job.resource.as_deref().and_then(|resource| resource.parse().ok());
        resource.ok_or_else(|| Error::Internal("a job on nothing".into()))
    }

    fn view(&self) -> Result<View, Error> {
        Ok(self.commands.parts().source.view()?)
    }

    /// Does step after step, until all is done or something stands in the way.
    async fn drive<W: Work>(&self) -> Result<(), Error> {
        let work: W = match self.job.parameters.read() {
            Ok(work) => work,
            Err(error) => return self.end(Some(format!("its parameters can't be read: {error}"))).await,
        };
        loop {
            let job = jobs::get(&self.view()?, &self.id)?.filter(|job| !job.status.is_over());
            let Some(job) = job else { return Ok(()) };
            let progress = job.progress.as_ref().map(Json::read).transpose();
            let progress = progress.map_err(|error| Error::Internal(format!("a job's progress: {error}")))?;
            let stepped = match work.step(self, progress.unwrap_or_default()).await {
                Ok(Some(step)) => self.advance(job.steps, step).await,
                Ok(None) => return self.end(None).await,
                Err(error) => Err(error),
            };
            match stepped {
                Ok(()) => {}
                Err(Error::Refused(refusal)) => return self.end(Some(refusal.message)).await,
                Err(Error::Internal(why)) => {
                    tracing::error!(job = self.id, why, "a job failed");
                    return self.end(Some(format!("the server failed: {why}"))).await;
                }
                Err(later) => return Err(later),
            }
        }
    }

    /// Puts a step on the log, unless it is there.
    async fn advance<P: Serialize + Send + 'static>(&self, done: u64, mut step: Step<P>) -> Result<(), Error> {
        let (id, key) = (self.id.clone(), self.key());
        let decide = move |view: &View| {
            if jobs::get(view, &id)?.is_none_or(|job| job.steps != done || job.status.is_over()) {
                return Ok(Decision::Reply(()));
            }
            let Change { mut draft, progress, items } = step(view)?;
            let progress = Json::of(&progress).map_err(|error| Error::Internal(error.to_string()))?;
            draft.reads.push(unchanged(view, key)?);
            draft.writes.push(key);
            draft.facts.push(JobAdvanced { id: id.clone(), step: done + 1, progress, items }.into());
            Ok(Decision::append_then(draft, ()))
        };
        let request = self.request(&["step", &done.to_string()]);
        self.commands.execute_once(request, decide, |_, _| Ok(())).await
    }

    async fn end(&self, error: Option<String>) -> Result<(), Error> {
        let (id, key) = (self.id.clone(), self.key());
        let decide = move |view: &View| {
            let fact = JobEnded { id: id.clone(), error: error.clone() };
            let draft = Draft { reads: vec![unchanged(view, key)?], writes: vec![key], facts: vec![fact.into()] };
            Ok(Decision::append_then(draft, ()))
        };
        self.commands.execute_once(self.request(&["end"]), decide, |_, _| Ok(())).await
    }

    /// The key that each step writes.
    fn key(&self) -> Key {
        Key::new(Tag::Job, &self.id)
    }
}
