//! Redacting what a user wrote (`POST /_synapse/admin/v1/user/{user_id}/redact`): in each room the newest events of theirs,
//! page by page, each by an event that the user or the administrator sends.

use futures::{FutureExt, StreamExt};
use projections::{
    Position, View,
    models::{
        events::{self, Head},
        jobs,
        membership::Membership,
        timeline,
    },
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use schemas::facts::JobItem;
use serde::{Deserialize, Serialize};

use super::{Change, Error, Run, Step, Work};
use crate::commands::{Sender, events::By};

/// As the admin API calls it.
pub const REDACT_USER: &str = "redact_all_events";

/// So many events are looked at with one step …
const LOOK_AT: usize = 1_000;
/// … and so many redacted.
const EVENTS: usize = 64;

const FAILED: &str = "failed_redactions";

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RedactUser {
    /// In which rooms.
    pub rooms: Vec<OwnedRoomId>,
    /// What the redactions say.
    pub reason: Option<String>,
    /// How many events in each room, the newest first.
    pub limit: u64,
    /// Who sends the redactions: the user themselves, or the administrator.
    pub by: OwnedUserId,
    /// Only what was sent before, milliseconds since the Unix epoch.
    pub before_ts: Option<u64>,
    /// Only what was sent after.
    pub after_ts: Option<u64>,
}

/// How far it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// In which of the rooms.
    room: usize,
    /// Before which position of it.
    before: Option<Position>,
    /// How many of the user's events were found there.
    found: u64,
}

/// A page of a room.
struct Page {
    targets: Vec<OwnedEventId>,
    next: Progress,
}

impl Work for RedactUser {
    type Progress = Progress;

    async fn step(&self, run: &Run, progress: Progress) -> Result<Option<Step<Progress>>, Error> {
        let Some(room) = self.rooms.get(progress.room) else { return Ok(None) };
        let user: OwnedUserId = run.resource()?;
        let Page { targets, next } = self.page(&run.view()?, room, user.as_str(), &progress)?;
        let each: Vec<_> = targets.into_iter().map(|target| self.redact(run, room, target).boxed()).collect();
        let outcomes: Vec<Result<_, Error>> = futures::stream::iter(each).buffered(EVENTS).collect().await;
        let mut items = Vec::new();
        for outcome in outcomes {
            items.extend(outcome?);
        }
        Ok(Some(Box::new(move |_| Ok(Change { items: items.clone(), ..Change::to(next.clone()) }))))
    }
}

impl RedactUser {
    /// Redacts one event; says if that fails.
    async fn redact(&self, run: &Run, room: &RoomId, target: OwnedEventId) -> Result<Option<JobItem>, Error> {
        let sender = Sender::in_stead_of(self.by.clone(), run.administrator());
        let by = By { sender, request: run.request(&["redact", target.as_str()]), transaction: None };
        let failed = |why| JobItem { list: FAILED.into(), item: target.to_string(), note: Some(why) };
        match run.commands.redact(by, room, target.clone(), self.reason.clone()).await {
            Ok(_) => Ok(None),
            Err(Error::Refused(refusal)) => Ok(Some(failed(refusal.message))),
            Err(error) => Err(error),
        }
    }

    /// What is to be redacted next. What is redacted already counts, so that a step that is done again finds the same.
    fn page(&self, view: &View, room: &OwnedRoomId, user: &str, progress: &Progress) -> Result<Page, Error> {
        let mut page = Page { targets: Vec::new(), next: Progress { room: progress.room + 1, ..Progress::default() } };
        let Some(nid) = events::room_nid(view, room.as_str())? else { return Ok(page) };
        let (mut found, mut looked) = (progress.found, 0);
        let before = progress.before.unwrap_or_else(|| Position::after_record(view.lsn()));
        for item in timeline::backward(view, nid, before) {
            let (position, item) = item?;
            looked += 1;
            let head = events::head(view, item.event)?;
            if let Some(head) = head.filter(|head| head.sender == user && self.is_meant(head)) {
                found += 1;
                if let (None, Ok(id)) = (head.redacted_by, OwnedEventId::try_from(head.id)) {
                    page.targets.push(id);
                }
            }
            if found >= self.limit {
                return Ok(page);
            }
            if looked == LOOK_AT || page.targets.len() == EVENTS {
                page.next = Progress { room: progress.room, before: Some(position), found };
                return Ok(page);
            }
        }
        Ok(page)
    }

    fn is_meant(&self, head: &Head) -> bool {
        let kind = match head.event_type.as_str() {
            "m.room.message" | "m.room.encrypted" => true,
            "m.room.member" => head.membership == Some(Membership::Join),
            _ => false,
        };
        kind && self.before_ts.is_none_or(|ts| head.origin_server_ts < ts)
            && self.after_ts.is_none_or(|ts| head.origin_server_ts > ts)
    }

    /// What could not be redacted, and why not.
    pub fn failed<'a>(view: &'a View, id: &str) -> impl Iterator<Item = Result<(String, String), Error>> + use<'a> {
        jobs::items(view, id, FAILED)
            .map(|item| item.map(|item| (item.item, item.note.unwrap_or_default())).map_err(Error::from))
    }
}
