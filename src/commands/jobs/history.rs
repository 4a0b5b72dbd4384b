//! Purging the history of a room (`POST /_synapse/admin/v1/purge_history/{room_id}`): what stands before an event is taken
//! out of the room's order. State stays known, and so do this server's own events unless they are to go, too; the rest is
//! forgotten. Forward extremities stay, as the next event is built on them.

use std::collections::BTreeSet;

use projections::{
    Position, View,
    models::{events, jobs, membership, timeline},
};
use ruma::{OwnedRoomId, RoomId};
use schemas::Draft;
use serde::{Deserialize, Serialize};

use super::{
    Change, Error, Refusal, Run, Step, Work,
    purge::{EVENTS, Removal, forgetting},
};

/// As the admin API calls it.
pub const PURGE_HISTORY: &str = "purge_history";

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PurgeHistory {
    /// Event id of the first event that stays.
    pub before: String,
    /// Whether events of this server's users are forgotten, too.
    pub delete_local_events: bool,
}

/// How far a purge is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    removal: Removal,
    is_done: bool,
}

impl Work for PurgeHistory {
    type Progress = Progress;

    async fn step(&self, run: &Run, progress: Progress) -> Result<Option<Step<Progress>>, Error> {
        if progress.is_done {
            return Ok(None);
        }
        let (room, wanted): (OwnedRoomId, _) = (run.resource()?, self.clone());
        Ok(Some(Box::new(move |view| wanted.next(view, &room, progress.clone()))))
    }
}

impl PurgeHistory {
    fn next(&self, view: &View, room: &RoomId, mut progress: Progress) -> Result<Change<Progress>, Error> {
        let gone = || Refusal::not_found("the room, or the event up to which it is purged, is gone");
        let nid = events::room_nid(view, room.as_str())?.ok_or_else(gone)?;
        let end = events::find(view, &self.before)?.filter(|(_, head)| head.room == nid);
        let end = end.and_then(|(_, head)| head.shown_at()).ok_or_else(gone)?;
        let tips: BTreeSet<_> = timeline::extremities(view, nid)?.into_iter().map(|tip| tip.event).collect();
        let server = membership::server(view)?;
        let (mut forgotten, mut kept) = (Vec::new(), Vec::new());
        for item in timeline::forward(view, nid, Position::START) {
            let (position, item) = item?;
            if position >= end || forgotten.len() + kept.len() == EVENTS {
                break;
            }
            let Some(head) = events::head(view, item.event)?.filter(|_| !tips.contains(&item.event)) else { continue };
            let is_local = membership::server_of(&head.sender) == server;
            let stays = head.state_key.is_some() || is_local && !self.delete_local_events;
            if stays { kept.push(head.id) } else { forgotten.push(head.id) }
        }
        if forgotten.is_empty() && kept.is_empty() {
            progress.is_done = true;
            return Ok(Change::to(progress));
        }
        let facts = forgetting(room, forgotten, kept);
        progress.removal.note(view, &facts)?;
        Ok(Change { draft: Draft { facts, ..Draft::default() }, progress, items: Vec::new() })
    }

    /// How many keys and bytes a job has removed.
    ///
    /// # Errors
    /// When its progress can't be read.
    pub fn removed(job: &jobs::Job) -> Result<(u64, u64), Error> {
        let progress = job.progress.as_ref().map(schemas::Json::read::<Progress>).transpose();
        let progress = progress.map_err(|error| Error::Internal(error.to_string()))?.unwrap_or_default();
        Ok((progress.removal.keys, progress.removal.bytes))
    }
}
