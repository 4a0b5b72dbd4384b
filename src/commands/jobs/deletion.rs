//! Deleting a room (`DELETE /_synapse/admin/v2/rooms/{room_id}`): it is blocked, its local users are brought into another
//! room or nowhere, its aliases move, and then it is taken out of the read models.

use futures::{FutureExt, StreamExt};
use projections::{
    View,
    models::{
        directory, events, jobs,
        membership::{self, Membership, in_turn},
    },
};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::client::room::create_room::v3::{self as create_room, RoomPreset},
    serde::Raw,
};
use schemas::{
    Draft, Key, Nid, Tag,
    facts::{AliasRemoved, AliasSet, JobItem, RoomBlocked, RoomDetached, RoomForgotten},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Change, Error, Refusal, Run, Step, Work, go_to, purge::Removal, unchanged};
use crate::commands::{Sender, events::By, membership::Move, room::canonical};

/// As the admin API calls it.
pub const DELETE_ROOM: &str = "shutdown_and_purge_room";

/// So many users are brought out of the room with one step, as many at once.
const USERS: usize = 64;
/// At most so many members are looked at for them.
const LOOK_AT: usize = 1_024;
/// So many aliases move with one step.
const ALIASES: usize = 64;

const KICKED: &str = "kicked_users";
const FAILED: &str = "failed_to_kick_users";
const LOCAL_ALIASES: &str = "local_aliases";

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deletion {
    /// Nobody is to come into it again.
    pub block: bool,
    /// It is to be taken out of the read models.
    pub purge: bool,
    /// Even if somebody could not be brought out of it.
    pub force_purge: bool,
    /// Who makes the room into which its users come; none brings them nowhere.
    pub new_room_user_id: Option<OwnedUserId>,
    /// That room's name.
    pub room_name: String,
    /// What is said in it.
    pub message: String,
    /// Its version.
    pub room_version: RoomVersionId,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    #[default]
    Begin,
    Replace,
    Empty,
    Move,
    Detach,
    Purge,
    Done,
}

/// How far a deletion is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    stage: Stage,
    new_room: Option<OwnedRoomId>,
    /// The users who are brought out next, and whether they were in the room.
    users: Vec<(OwnedUserId, bool)>,
    /// The member after whom it goes on.
    after: Option<(Membership, Nid, String)>,
    removal: Removal,
}

impl Work for Deletion {
    type Progress = Progress;

    async fn step(&self, run: &Run, progress: Progress) -> Result<Option<Step<Progress>>, Error> {
        let room: OwnedRoomId = run.resource()?;
        let wanted = self.clone();
        Ok(Some(match progress.stage {
            Stage::Begin => Box::new(move |view| wanted.begin(view, &room)),
            Stage::Replace => {
                let new_room = self.replace(run).await?;
                go_to(Progress { stage: Stage::Empty, new_room: Some(new_room), ..progress })
            }
            Stage::Empty => {
                let outcomes = bring_out(run, &room, &progress).await?;
                let server = run.commands.parts().server_name.clone();
                Box::new(move |view| wanted.pick(view, &room, server.as_str(), &outcomes, progress.clone()))
            }
            Stage::Move => {
                self.say(run, &progress).await?;
                let server = run.commands.parts().server_name.to_string();
                Box::new(move |view| wanted.move_aliases(view, &room, &server, progress.clone()))
            }
            Stage::Detach => Box::new(move |view| wanted.detach(view, &room, progress.clone())),
            Stage::Purge => Box::new(move |view| {
                let mut progress = progress.clone();
                let draft = progress.removal.next(view, &room)?;
                if draft.facts.is_empty() {
                    progress.stage = Stage::Done;
                }
                Ok(Change { draft, progress, items: Vec::new() })
            }),
            Stage::Done => return Ok(None),
        }))
    }
}

impl Deletion {
    /// Blocks the room, known or not, and looks what there is to do.
    fn begin(&self, view: &View, room: &OwnedRoomId) -> Result<Change<Progress>, Error> {
        let mut change = Change::to(Progress::default());
        if self.block {
            let key = Key::new(Tag::RoomAdmin, room.as_str());
            change.draft.reads.push(unchanged(view, key)?);
            change.draft.writes.push(key);
            change.draft.facts.push(RoomBlocked { room: room.to_string(), blocked: true, reason: None }.into());
        }
        change.progress.stage = if events::room_nid(view, room.as_str())?.is_some() {
            if self.new_room_user_id.is_some() { Stage::Replace } else { Stage::Empty }
        } else if self.purge && events::detached(view, room.as_str())?.is_some() {
            // What an earlier deletion has begun is brought to its end.
            Stage::Purge
        } else {
            Stage::Done
        };
        Ok(change)
    }

    /// The room into which the users come.
    async fn replace(&self, run: &Run) -> Result<OwnedRoomId, Error> {
        let sender = self.maker(run)?;
        let mut request = create_room::Request::new();
        request.preset = Some(RoomPreset::PublicChat);
        request.name = Some(self.room_name.clone());
        let quiet = Raw::new(&json!({ "users_default": -10 })).map_err(|error| Error::Internal(error.to_string()))?;
        request.power_level_content_override = Some(quiet.cast_unchecked());
        let version = self.room_version.clone();
        run.commands.create_room_by(run.request(&["room"]), sender, request, version, ()).await
    }

    fn maker(&self, run: &Run) -> Result<Sender, Error> {
        let maker = self.new_room_user_id.clone().ok_or_else(|| Error::Internal("nobody makes the new room".into()))?;
        Ok(Sender::in_stead_of(maker, run.administrator()))
    }

    /// Notes what became of the users who were brought out, lets them forget the room, and names the next ones.
    fn pick(
        &self,
        view: &View,
        room: &OwnedRoomId,
        server: &str,
        outcomes: &[(OwnedUserId, Option<String>)],
        mut progress: Progress,
    ) -> Result<Change<Progress>, Error> {
        let mut draft = Draft::default();
        let mut items = Vec::new();
        for (user, failed) in outcomes {
            draft.facts.push(RoomForgotten { user: user.to_string(), room: room.to_string() }.into());
            let list = if failed.is_some() { FAILED } else { KICKED };
            items.push(JobItem { list: list.into(), item: user.to_string(), note: failed.clone() });
        }
        progress.users.clear();
        let mut looked = 0;
        if let Some(nid) = events::room_nid(view, room.as_str())? {
            let after = progress.after.take();
            let after = after.as_ref().map(|(membership, since, user)| (*membership, *since, user.as_str()));
            for member in in_turn(view, nid, after).take(LOOK_AT) {
                let (membership, since, user) = member?;
                looked += 1;
                progress.after = Some((membership, since, user.clone()));
                if let (true, Ok(user)) = (membership::server_of(&user) == server, OwnedUserId::try_from(user.as_str()))
                {
                    progress.users.push((user, membership == Membership::Join));
                }
                if progress.users.len() == USERS {
                    break;
                }
            }
        }
        if looked == 0 {
            progress.stage = if progress.new_room.is_some() { Stage::Move } else { self.at_last() };
        }
        Ok(Change { draft, progress, items })
    }

    const fn at_last(&self) -> Stage {
        if self.purge { Stage::Detach } else { Stage::Done }
    }

    /// Says in the new room why everybody is there.
    async fn say(&self, run: &Run, progress: &Progress) -> Result<(), Error> {
        let Some(new_room) = &progress.new_room else { return Ok(()) };
        let content = canonical(&json!({ "msgtype": "m.text", "body": self.message }).to_string())?;
        let by = By { sender: self.maker(run)?, request: run.request(&["message"]), transaction: None };
        run.commands.send_message(by, new_room, "m.room.message", content).await?;
        Ok(())
    }

    /// Points some of the room's aliases to the new one.
    fn move_aliases(
        &self,
        view: &View,
        room: &OwnedRoomId,
        server: &str,
        mut progress: Progress,
    ) -> Result<Change<Progress>, Error> {
        let (mut draft, mut items) = (Draft::default(), Vec::new());
        for alias in directory::aliases_of(view, room.as_str()).take(ALIASES) {
            let alias = alias?;
            take(view, &alias, &mut draft)?;
            items.push(JobItem { list: LOCAL_ALIASES.into(), item: alias.clone(), note: None });
            let room = progress.new_room.as_ref().map(ToString::to_string).unwrap_or_default();
            let creator = self.new_room_user_id.as_ref().map(ToString::to_string).unwrap_or_default();
            draft.facts.push(AliasSet { alias, room, creator, servers: vec![server.to_owned()] }.into());
        }
        if items.is_empty() {
            progress.stage = self.at_last();
        }
        Ok(Change { draft, progress, items })
    }

    /// Makes the room unknown, once it has no aliases any more.
    fn detach(&self, view: &View, room: &OwnedRoomId, mut progress: Progress) -> Result<Change<Progress>, Error> {
        let id = room.as_str();
        let Some(nid) = events::room_nid(view, id)? else {
            progress.stage = Stage::Purge;
            return Ok(Change::to(progress));
        };
        if !self.force_purge && membership::counts(view, nid)?.joined_local > 0 {
            let message = "Users are still joined to this room";
            return Err(Refusal::new(ruma::api::error::ErrorKind::Unknown, message).into());
        }
        let mut draft = Draft::default();
        for alias in directory::aliases_of(view, id).take(ALIASES) {
            let alias = alias?;
            take(view, &alias, &mut draft)?;
            draft.facts.push(AliasRemoved { alias }.into());
        }
        if draft.facts.is_empty() {
            for tag in [Tag::RoomState, Tag::RoomAdmin, Tag::Published] {
                draft.reads.push(unchanged(view, Key::new(tag, id))?);
                draft.writes.push(Key::new(tag, id));
            }
            draft.facts.push(RoomDetached { room: id.to_owned() }.into());
            progress.stage = Stage::Purge;
        }
        progress.removal.note(view, &draft.facts)?;
        Ok(Change { draft, progress, items: Vec::new() })
    }
}

/// An alias that nobody else takes meanwhile.
fn take(view: &View, alias: &str, draft: &mut Draft) -> Result<(), Error> {
    let key = Key::new(Tag::Alias, alias);
    draft.reads.push(unchanged(view, key)?);
    draft.writes.push(key);
    Ok(())
}

/// Brings the users out who are named; says of each whether, and why not.
async fn bring_out(
    run: &Run,
    room: &OwnedRoomId,
    progress: &Progress,
) -> Result<Vec<(OwnedUserId, Option<String>)>, Error> {
    let each: Vec<_> = progress
        .users
        .iter()
        .map(|(user, joined)| {
            let new_room = progress.new_room.as_deref().filter(|_| *joined);
            bring(run, user, room, new_room).boxed()
        })
        .collect();
    let outcomes: Vec<Result<_, Error>> = futures::stream::iter(each).buffered(USERS).collect().await;
    outcomes.into_iter().collect()
}

async fn bring(
    run: &Run,
    user: &OwnedUserId,
    room: &RoomId,
    new_room: Option<&RoomId>,
) -> Result<(OwnedUserId, Option<String>), Error> {
    let leaves = go(run, user, room, Move::Leave).await;
    let went = match new_room {
        Some(new_room) if leaves.is_ok() => go(run, user, new_room, Move::Join).await,
        _ => leaves,
    };
    match went {
        Ok(()) => Ok((user.clone(), None)),
        Err(Error::Refused(refusal)) => Ok((user.clone(), Some(refusal.message))),
        Err(error) => Err(error),
    }
}

async fn go(run: &Run, user: &UserId, room: &RoomId, way: Move) -> Result<(), Error> {
    let sender = Sender::in_stead_of(user.to_owned(), run.administrator());
    let name = if way == Move::Leave { "leave" } else { "join" };
    let request = run.request(&[name, user.as_str()]);
    run.commands.change_own_membership(request, sender, room, way).await
}

/// What a deletion has come to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Deleted {
    /// Users who were brought out of the room.
    pub kicked_users: Vec<String>,
    /// Users with whom that, or what follows from it, failed.
    pub failed_to_kick_users: Vec<String>,
    /// Aliases that point to the new room now.
    pub local_aliases: Vec<String>,
    /// The room into which they came.
    pub new_room_id: Option<OwnedRoomId>,
    /// What was removed from the read models.
    #[serde(skip)]
    pub purged: Value,
}

impl Deleted {
    /// As far as a job has come; none before its first step.
    ///
    /// # Errors
    /// When the store fails.
    pub fn of(view: &View, id: &str, job: &jobs::Job) -> Result<Option<Self>, Error> {
        let Some(progress) = &job.progress else { return Ok(None) };
        let progress: Progress = progress.read().map_err(|error| Error::Internal(error.to_string()))?;
        let list = |name| jobs::items(view, id, name).map(|item| Ok(item?.item)).collect::<Result<Vec<_>, Error>>();
        Ok(Some(Self {
            kicked_users: list(KICKED)?,
            failed_to_kick_users: list(FAILED)?,
            local_aliases: list(LOCAL_ALIASES)?,
            new_room_id: progress.new_room,
            purged: json!({ "keys": progress.removal.keys, "bytes": progress.removal.bytes }),
        }))
    }
}
