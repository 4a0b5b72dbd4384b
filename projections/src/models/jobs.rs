//! Long pieces of work that administrators set going: what each is to do, how far it is, how it ended.
//!
//! Which job has this id? Which jobs are there of this kind, on this room or user, in this state? What is on its lists?
//!
//! Tables: 1 `id -> Job`; 2 `started | id -> ()`, all; 3 `status | started | id -> ()`; 4 `resource | started | id -> ()`; 5 `id
//! | list | position -> Item`; 6 `forgotten at | id -> ()`.
//!
//! What is over is kept for seven days of log time, and then forgotten a few at a time, whenever another job starts.

use schemas::{
    Fact, Json, LogTime, Lsn, Nid, Origin,
    facts::{JobAdvanced, JobEnded, JobStarted},
};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const JOBS: Table = Table { model: Model::Jobs, prefix: 1 };
const ALL: Table = Table { model: Model::Jobs, prefix: 2 };
const BY_STATUS: Table = Table { model: Model::Jobs, prefix: 3 };
const BY_RESOURCE: Table = Table { model: Model::Jobs, prefix: 4 };
const ITEMS: Table = Table { model: Model::Jobs, prefix: 5 };
const ENDS: Table = Table { model: Model::Jobs, prefix: 6 };

/// So long what is over is kept, by log time.
const KEPT_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// At most so many are forgotten with each new one: more than come, so that a backlog shrinks.
const FORGET: usize = 2;

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Jobs, version: 1, reads: &[], fold };

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Status {
    /// Nothing of it has been done.
    Scheduled,
    /// Some of it has been done.
    Active,
    /// All of it has been done.
    Complete,
    /// It can't be done.
    Failed,
}

impl Status {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Scheduled, Self::Active, Self::Complete, Self::Failed];

    /// As the admin API calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Active => "active",
            Self::Complete => "complete",
            Self::Failed => "failed",
        }
    }

    /// Nothing more is done.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Complete | Self::Failed)
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What kind of work, as the admin API calls it.
    pub action: String,
    /// What it works on: a room id or a user id.
    pub resource: Option<String>,
    /// What was asked for, an object.
    pub parameters: Json,
    /// Who asked for it: what it does is theirs.
    pub origin: Origin,
    /// The record by which it was.
    pub started: Lsn,
    /// Where it stands.
    pub status: Status,
    /// Log time of the last change, milliseconds since the Unix epoch.
    pub changed_ms: u64,
    /// How many steps have been done.
    pub steps: u64,
    /// What the next step goes on from; none before the first.
    pub progress: Option<Json>,
    /// Why it failed.
    pub error: Option<String>,
}

/// An entry of one of a job's lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The entry.
    pub item: String,
    /// What is said of it.
    pub note: Option<String>,
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::JobStarted(f) => start(at, f, batch)?,
        Fact::JobAdvanced(f) => advance(at, f, batch)?,
        Fact::JobEnded(f) => end(at, f, batch)?,
        _ => {}
    }
    Ok(())
}

fn start(at: &At<'_>, fact: &JobStarted, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    forget(at.log_time, batch)?;
    if get(batch, &fact.id)?.is_some() {
        return Ok(());
    }
    let job = Job {
        action: fact.action.clone(),
        resource: fact.resource.clone(),
        parameters: fact.parameters.clone(),
        origin: at.header.origin.clone(),
        started: at.lsn,
        status: Status::Scheduled,
        changed_ms: at.log_time.ms,
        steps: 0,
        progress: None,
        error: None,
    };
    batch.put(ALL, order(KeyBuf::new(), &job, &fact.id), &());
    if let Some(resource) = &job.resource {
        batch.put(BY_RESOURCE, order(KeyBuf::new().str(resource), &job, &fact.id), &());
    }
    batch.touch_jobs();
    keep(&fact.id, None, &job, batch);
    Ok(())
}

fn advance(at: &At<'_>, fact: &JobAdvanced, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let Some(before) = get(batch, &fact.id)?.filter(|job| !job.status.is_over()) else { return Ok(()) };
    for (n, item) in (0..=u16::MAX).zip(&fact.items) {
        let place = Nid { lsn: at.lsn, index: n };
        let row = Item { item: item.item.clone(), note: item.note.clone() };
        batch.put(ITEMS, KeyBuf::new().str(&fact.id).str(&item.list).nid(place), &row);
    }
    let job = Job {
        status: Status::Active,
        changed_ms: at.log_time.ms,
        steps: fact.step,
        progress: Some(fact.progress.clone()),
        ..before.clone()
    };
    keep(&fact.id, Some(&before), &job, batch);
    Ok(())
}

fn end(at: &At<'_>, fact: &JobEnded, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let Some(before) = get(batch, &fact.id)?.filter(|job| !job.status.is_over()) else { return Ok(()) };
    let status = if fact.error.is_some() { Status::Failed } else { Status::Complete };
    let job = Job { status, changed_ms: at.log_time.ms, error: fact.error.clone(), ..before.clone() };
    batch.put(ENDS, KeyBuf::new().u64(at.log_time.ms.saturating_add(KEPT_MS)).str(&fact.id), &());
    keep(&fact.id, Some(&before), &job, batch);
    Ok(())
}

fn keep(id: &str, before: Option<&Job>, job: &Job, batch: &mut Batch<'_>) {
    if before.map(|before| before.status) != Some(job.status) {
        if let Some(before) = before {
            batch.delete(BY_STATUS, order(KeyBuf::new().u8(before.status as u8), before, id));
        }
        batch.put(BY_STATUS, order(KeyBuf::new().u8(job.status as u8), job, id), &());
    }
    batch.put(JOBS, KeyBuf::new().str(id), job);
}

fn forget(now: LogTime, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let over = Range { from: Vec::new(), to: Some(KeyBuf::new().u64(now.ms).into()), reverse: false };
    let over = batch.scan(ENDS, over).take(FORGET).collect::<Result<Vec<_>, _>>()?;
    for (key, _) in over {
        let mut parts = KeyReader::new(&key);
        let id = parts.u64().and_then(|_| parts.str()).ok_or_else(|| malformed_key(ENDS))?;
        if let Some(job) = get(batch, &id)? {
            batch.delete(ALL, order(KeyBuf::new(), &job, &id));
            batch.delete(BY_STATUS, order(KeyBuf::new().u8(job.status as u8), &job, &id));
            if let Some(resource) = &job.resource {
                batch.delete(BY_RESOURCE, order(KeyBuf::new().str(resource), &job, &id));
            }
            batch.delete_prefix(ITEMS, KeyBuf::new().str(&id));
            batch.delete(JOBS, KeyBuf::new().str(&id));
        }
        batch.delete(ENDS, key);
    }
    Ok(())
}

/// A job's place in an order: that in which they were started.
fn order(prefix: KeyBuf, job: &Job, id: &str) -> KeyBuf {
    prefix.lsn(job.started).str(id)
}

/// The job with this id.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, id: &str) -> Result<Option<Job>, StoreError> {
    row(read, JOBS, KeyBuf::new().str(id))
}

/// All jobs, in the order in which they were started, with their ids.
pub fn all(read: &dyn Read) -> impl Iterator<Item = Result<(String, Job), StoreError>> + '_ {
    listed(read, ALL, KeyBuf::new())
}

/// The jobs in one state, in the order in which they were started.
pub fn with_status(read: &dyn Read, status: Status) -> impl Iterator<Item = Result<(String, Job), StoreError>> + '_ {
    listed(read, BY_STATUS, KeyBuf::new().u8(status as u8))
}

/// The jobs on a room or a user, in the order in which they were started.
pub fn on<'a>(read: &'a dyn Read, resource: &str) -> impl Iterator<Item = Result<(String, Job), StoreError>> + use<'a> {
    listed(read, BY_RESOURCE, KeyBuf::new().str(resource))
}

fn listed(
    read: &dyn Read,
    table: Table,
    prefix: KeyBuf,
) -> impl Iterator<Item = Result<(String, Job), StoreError>> + '_ {
    let prefix = Vec::from(prefix);
    let start = prefix.len();
    rows::<()>(read, table, Range::prefix(prefix)).map(move |found| {
        let (key, ()) = found?;
        let mut parts = KeyReader::new(&key[start..]);
        let id = parts.lsn().and_then(|_| parts.str()).ok_or_else(|| malformed_key(table))?;
        let job = get(read, &id)?.ok_or_else(|| malformed_key(table))?;
        Ok((id, job))
    })
}

/// One of a job's lists, in order.
pub fn items<'a>(read: &'a dyn Read, id: &str, list: &str) -> impl Iterator<Item = Result<Item, StoreError>> + use<'a> {
    rows(read, ITEMS, Range::prefix(KeyBuf::new().str(id).str(list))).map(|found| Ok(found?.1))
}

#[cfg(test)]
mod tests {
    use schemas::facts::JobItem;

    use super::*;
    use crate::testing::World;

    const ROOM: &str = "!room:example.org";

    fn started(id: &str, resource: Option<&str>) -> Fact {
        let parameters = "{}".to_owned().into();
        JobStarted { id: id.into(), action: "sweep".into(), resource: resource.map(Into::into), parameters }.into()
    }

    fn advanced(id: &str, step: u64, items: &[&str]) -> Fact {
        let item = |item: &&str| JobItem { list: "done".into(), item: (*item).into(), note: None };
        let progress = format!("{{\"at\":{step}}}").into();
        JobAdvanced { id: id.into(), step, progress, items: items.iter().map(item).collect() }.into()
    }

    fn ended(id: &str, error: Option<&str>) -> Fact {
        JobEnded { id: id.into(), error: error.map(Into::into) }.into()
    }

    fn ids(found: impl Iterator<Item = Result<(String, Job), StoreError>>) -> Vec<String> {
        found.map(|found| found.unwrap().0).collect()
    }

    fn done(world: &World, id: &str) -> Vec<String> {
        items(&world.view(), id, "done").map(|item| item.unwrap().item).collect()
    }

    #[test]
    fn a_job_goes_from_scheduled_to_its_end_and_is_found_by_each() {
        let mut world = World::new();
        assert!(world.fold([started("b", Some(ROOM))]).touched.jobs);
        world.fold([started("a", None)]);
        world.fold([started("c", Some(ROOM))]);
        assert_eq!(ids(all(&world.view())), ["b", "a", "c"]);
        assert_eq!(ids(on(&world.view(), ROOM)), ["b", "c"]);
        assert_eq!(ids(on(&world.view(), "!room:example.or")), [""; 0]);
        assert_eq!(ids(with_status(&world.view(), Status::Scheduled)), ["b", "a", "c"]);

        world.fold([advanced("a", 1, &["x", "y"])]);
        world.fold([advanced("a", 2, &["z"]), advanced("none", 1, &["x"])]);
        assert_eq!((done(&world, "a"), done(&world, "none")), (vec!["x".into(), "y".into(), "z".into()], vec![]));
        let job = get(&world.view(), "a").unwrap().unwrap();
        assert_eq!((job.status, job.steps), (Status::Active, 2));
        assert_eq!(job.progress.unwrap().as_str(), r#"{"at":2}"#);

        world.fold([ended("a", None)]);
        world.fold([ended("b", Some("no"))]);
        world.fold([ended("b", None), advanced("b", 9, &["late"])]);
        let job = get(&world.view(), "b").unwrap().unwrap();
        assert_eq!((job.status, job.error.as_deref(), job.steps), (Status::Failed, Some("no"), 0));
        assert_eq!(ids(with_status(&world.view(), Status::Complete)), ["a"]);
        assert_eq!(ids(with_status(&world.view(), Status::Scheduled)), ["c"]);
        world.check_replay();
    }

    #[test]
    fn what_is_over_is_forgotten_after_a_week_a_few_at_a_time() {
        let mut world = World::new();
        for id in ["a", "b", "c"] {
            world.apply([started(id, Some(ROOM)), advanced(id, 1, &["x"]), ended(id, None)]);
        }
        world.apply([started("long", None)]);
        // Log time follows by ten minutes a record.
        while world.log_time().ms < get(&world.view(), "c").unwrap().unwrap().changed_ms + KEPT_MS {
            world.wait_ms(600_000);
            world.apply([advanced("long", 1, &[])]);
        }
        assert_eq!(ids(all(&world.view())).len(), 4);
        world.wait_ms(600_000);
        world.apply([started("d", None)]);
        assert_eq!(ids(all(&world.view())), ["c", "long", "d"]);
        assert_eq!((done(&world, "a").len(), done(&world, "c").len()), (0, 1));
        world.apply([started("e", None)]);
        assert_eq!(ids(all(&world.view())), ["long", "d", "e"]);
        assert_eq!(ids(on(&world.view(), ROOM)), [""; 0]);
        world.check_replay();
    }
}
