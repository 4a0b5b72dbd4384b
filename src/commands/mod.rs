//! The only way to write: decide on a view, append one record, wait until it is folded, reply.
//!
//! A decision is a function of a [`View`]; it gives a [`Draft`] whose guards name what it rested on. Where the log got
//! something else in between, the record is void and the decision is made again. [`Commands::execute`] does this for
//! everything that is not a room's; rooms have their [`lane`]s.

pub mod account_data;
pub mod accounts;
mod administration;
mod backlog;
pub mod content;
pub mod devices;
mod directory;
mod error;
pub mod events;
mod following;
mod forks;
mod genesis;
pub mod guards;
pub mod handover;
pub mod inbound;
pub mod jobs;
pub mod keys;
pub mod lane;
pub mod leases;
pub mod membership;
pub mod notices;
pub mod profiles;
pub mod push_rules;
pub mod pushers;
pub mod receipts;
pub mod reports;
pub mod room;
pub mod rooms;
pub mod sessions;
mod stamp;
mod state_cache;
pub mod to_device;
pub mod users;

use std::{sync::Arc, time::Duration};

use projections::{Source, View, models::admission};
use ruma::OwnedServerName;
use schemas::{Draft, Expect, Key, Lsn, Origin, Read, RecordId, admission::Void};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use backlog::Backlog;
pub use error::{Error, Refusal};
pub use genesis::{FoundingError, found, server_of};
pub use guards::Sender;
use handover::Asked;
pub use leases::Lease;
pub use stamp::Stamp;
pub use state_cache::StateCache;

use crate::{
    clock::{Clock, Random},
    fold::{Progress, Stopped},
    keys::OwnKey,
    latest::Latest,
    log::{Log, Receipt},
    metrics::Metrics,
    nodes::Members,
};

/// So long it is waited for what is on the log already.
const CATCH_UP: Duration = Duration::from_secs(5);
/// So long a request waits until its decision stands, however often it is made, before it is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// What commands are made of.
pub struct Parts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where views come from.
    pub source: Arc<dyn Source>,
    /// How far the fold has come.
    pub progress: Arc<Progress>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Signs events.
    pub key: Arc<OwnKey>,
    /// This server.
    pub server_name: OwnedServerName,
    /// This node.
    pub node: u32,
    /// Which nodes live.
    pub members: Arc<Members>,
    /// What is appended and not folded yet.
    pub backlog: Backlog,
    /// Figures.
    pub metrics: Arc<Metrics>,
}

/// The only caller of [`Log::append`].
#[derive(Clone)]
pub struct Commands {
    parts: Arc<Parts>,
    latest: Arc<Latest<Lsn>>,
    lanes: Arc<lane::Lanes>,
    tasks: TaskTracker,
}

/// Makes the reply once the record is folded.
pub type Reply<R> = Box<dyn FnOnce(&Done) -> Result<R, Error> + Send>;

/// A decision.
pub enum Decision<R> {
    /// Something is to be recorded; the reply is made once it is folded.
    Append(Draft, Reply<R>),
    /// Nothing has to change.
    Reply(R),
}

impl<R> Decision<R> {
    /// Appends, with a reply made from the folded record.
    pub fn append(draft: Draft, reply: impl FnOnce(&Done) -> Result<R, Error> + Send + 'static) -> Self {
        Self::Append(draft, Box::new(reply))
    }
}

impl<R: Send + 'static> Decision<R> {
    /// Appends, with a reply that is known already.
    pub fn append_then(draft: Draft, reply: R) -> Self {
        Self::append(draft, move |_| Ok(reply))
    }
}

/// A record that was applied.
pub struct Done {
    /// Where.
    pub lsn: Lsn,
    source: Arc<dyn Source>,
}

impl Done {
    /// A view that has the record in it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn view(&self) -> Result<View, Error> {
        Ok(self.source.view()?)
    }
}

/// Who asks, and which request it is.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who.
    pub origin: Origin,
    /// The id of a request that may be repeated (one with a transaction id); otherwise random.
    pub id: Option<RecordId>,
    /// The record that it follows from, where nobody asked for it anew.
    pub cause: Option<Lsn>,
    /// The lease under which it is done, for work that is done once.
    pub lease: Option<Lease>,
}

impl From<Origin> for Request {
    fn from(origin: Origin) -> Self {
        Self { origin, id: None, cause: None, lease: None }
    }
}

impl Commands {
    /// Commands over a log and its fold.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (parts, tasks) = (Arc::new(parts), TaskTracker::new());
        Self { lanes: Arc::new(lane::Lanes::new(Arc::clone(&parts))), parts, latest: Arc::default(), tasks }
    }

    /// Ends what was begun, and gives everything up that commands hold. Nothing may be asked of them any more.
    pub async fn close(&self) {
        self.lanes.close().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The clock, randomness, key and names that decisions use.
    #[must_use]
    pub fn parts(&self) -> &Arc<Parts> {
        &self.parts
    }

    /// Waits until all is folded that is on the log now, whichever node appended it; says up to where that is. Alone, a node
    /// has folded whatever it has answered for.
    ///
    /// # Errors
    /// When the log can't be asked, which shows soon, or the fold stands still or takes too long.
    pub async fn catch_up(&self) -> Result<Lsn, Error> {
        let parts = &self.parts;
        if parts.members.is_alone() {
            return Ok(parts.progress.cursor().lsn);
        }
        let log = Arc::clone(&parts.log);
        let latest = self.latest.ask(move || log.refresh().map_err(|error| error.to_string())).await;
        let end = latest.map_err(Error::Unavailable)?;
        if let Some(stopped) = parts.progress.stopped().filter(|_| parts.progress.cursor().lsn < end) {
            return Err(stopped.into());
        }
        if !parts.progress.reached(end, CATCH_UP).await {
            return Err(Error::Unavailable("this node is behind with what is on the log; try again".into()));
        }
        Ok(end)
    }

    /// The rooms' lanes.
    #[must_use]
    pub fn lanes(&self) -> &Arc<lane::Lanes> {
        &self.lanes
    }

    /// Decides, appends and waits, in a task of its own: a dropped connection leaves nothing half done.
    ///
    /// # Errors
    /// When it is refused, or can't be done now.
    pub async fn execute<R, F>(&self, request: impl Into<Request>, decide: F) -> Result<R, Error>
    where
        R: Send + 'static,
        F: FnMut(&View) -> Result<Decision<R>, Error> + Send + 'static,
    {
        self.execute_once(request, decide, |_, _| Err(Error::Internal("a random record id was used twice".into())))
            .await
    }

    /// Like [`Commands::execute`], for a request that may be repeated: `repeated` makes the reply from the record of
    /// the first time.
    ///
    /// # Errors
    /// When it is refused, or can't be done now.
    pub async fn execute_once<R, F, G>(&self, request: impl Into<Request>, decide: F, repeated: G) -> Result<R, Error>
    where
        R: Send + 'static,
        F: FnMut(&View) -> Result<Decision<R>, Error> + Send + 'static,
        G: Fn(&View, Lsn) -> Result<R, Error> + Send + 'static,
    {
        let parts = Arc::clone(&self.parts);
        let stamp = Stamp::new(&parts, request.into());
        let done = self
            .tasks
            .spawn(async move { run(&parts, stamp, decide, repeated).await })
            .await
            .map_err(|error| Error::Internal(format!("a command failed: {error}")))?;
        if let (Ok(_), Some(asked)) = (&done, Asked::current()) {
            asked.settle();
        }
        done
    }
}

async fn run<R, F, G>(parts: &Arc<Parts>, mut stamp: Stamp, mut decide: F, repeated: G) -> Result<R, Error>
where
    R: Send + 'static,
    F: FnMut(&View) -> Result<Decision<R>, Error> + Send + 'static,
    G: Fn(&View, Lsn) -> Result<R, Error> + Send + 'static,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let view = parts.source.view()?;
        if let Some(lsn) = admission::applied(&view, &stamp.id())? {
            return repeated(&view, lsn);
        }
        let (draft, reply) = match decide(&view)? {
            Decision::Reply(reply) => return Ok(reply),
            Decision::Append(draft, reply) => (draft, reply),
        };
        let records = stamp.seal(draft, &view)?;
        drop(view);
        let place = parts.admit(&records)?;
        let (lsn, outcome) = parts.landed(parts.log.append(records), deadline).await?;
        drop(place);
        match outcome {
            None => {
                stamp.applied(lsn);
                return reply(&Done { lsn, source: Arc::clone(&parts.source) });
            }
            Some(Void::Repeated(first)) => return repeated(&parts.source.view()?, first),
            Some(void) if Instant::now() >= deadline => {
                tracing::warn!(%lsn, reason = void.reason(), "a decision was overtaken again and again");
                return Err(Error::Unavailable("the server is busy with what this rests on; try again".into()));
            }
            Some(_) => stamp.again(),
        }
    }
}

impl Parts {
    /// A place in the backlog for records that are to be appended.
    ///
    /// # Errors
    /// When the fold stands still or is too far behind. Nothing is on the log then.
    pub(crate) fn admit(&self, records: &[bytes::Bytes]) -> Result<backlog::Place, Error> {
        match self.progress.stopped() {
            Some(stopped) => Err(stopped.into()),
            None => self.backlog.admit(records),
        }
    }

    /// Waits until records that stand together are appended, and the last of them is folded: where it stands, and why it is
    /// void if it is. But not for ever: brokers that are away say nothing, and don't give back what they have taken.
    pub(crate) async fn landed(&self, receipts: Vec<Receipt>, until: Instant) -> Result<(Lsn, Option<Void>), Error> {
        let landing = async {
            let mut last = Err(Error::Internal("nothing to append".into()));
            for receipt in receipts {
                last = match receipt.await {
                    Ok(appended) => Ok(appended?),
                    Err(_) => return Err(Error::Unavailable("the log is closed".into())),
                };
            }
            let last = last?;
            Ok((last, self.progress.outcome(last).await?))
        };
        let late = |_| Error::Unavailable("this takes long, and may still take effect, once; ask again".into());
        tokio::time::timeout_at(until, landing).await.map_err(late)?
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}

impl From<crate::log::AppendError> for Error {
    fn from(error: crate::log::AppendError) -> Self {
        match error {
            crate::log::AppendError::TooLarge(_) => Refusal::too_large("the request is too large").into(),
            read_only @ crate::log::AppendError::ReadOnly(_) => Refusal::forbidden(read_only.to_string()).into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        Self::Unavailable(stopped.to_string())
    }
}

/// A guard: the key must still be as this view shows it.
///
/// # Errors
/// When the store fails.
pub fn unchanged(view: &View, key: Key) -> Result<Read, Error> {
    let expect = admission::written(view, &key)?.map_or(Expect::Absent, |(lsn, _)| Expect::At(lsn));
    Ok(Read { key, expect })
}
