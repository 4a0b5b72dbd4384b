//! What rooms make of a change of one of their members: a new name or picture is written into the user's memberships,
//! and whoever's account has ended leaves, refuses invitations and takes back knocks.
//!
//! The change itself is one record; it is on the log before anything follows from it. Whose rooms are behind is a read
//! model ([`following`]): what a crash, or a log without room, kept from following is looked at again at the start and
//! every few seconds, by the one node that has the lease of the user's shard.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use projections::{
    View,
    models::{accounts, events, following, membership, membership::Membership},
};
use ruma::{
    CanonicalJsonObject, MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, UserId,
    canonical_json::CanonicalJsonValue, events::StateEventType,
};
use schemas::{Draft, Lsn, Origin, facts::RoomsFollowed};

use super::{
    Commands, Decision, Error, Parts, Request,
    guards::user_status,
    lane::{Job, Step, Tip},
    leases::{Lease, Shard, once},
    membership::{AUTHORISED, add_profile},
    room::{NewEvent, Room, compose, now},
    unchanged,
};
use crate::rooms::Prototype;

/// So many rooms follow at a time: their records share the log's syncs.
const ROOMS_AT_ONCE: usize = 32;
/// Whoever makes a change waits so long for their rooms.
const PATIENCE: Duration = Duration::from_secs(5);

impl Commands {
    /// Lets the rooms of a user follow a change that is on the log, and waits a moment for them. What takes longer goes
    /// on by itself.
    pub(super) async fn let_rooms_follow(&self, user: &UserId) {
        let (commands, user) = (self.clone(), user.to_owned());
        let following = self.tasks.spawn(async move {
            if let Err(error) = commands.follow(&user, None).await {
                tracing::debug!(%user, %error, "some rooms follow later");
            }
        });
        // The change itself is made, whatever becomes of the rooms.
        tokio::time::timeout(PATIENCE, following).await.ok();
    }

    /// Lets all rooms follow that have not yet followed changes up to a position, as far as that is this node's to do.
    ///
    /// # Errors
    /// When the store fails, or the log can't be written.
    pub async fn let_all_rooms_follow(&self, up_to: Lsn) -> Result<(), Error> {
        let view = self.parts().source.view()?;
        let behind = following::all(&view).collect::<Result<Vec<_>, _>>()?;
        drop(view);
        let mut all = Ok(());
        for (user, change) in &behind {
            if let (Ok(user), true) = (<&UserId>::try_from(user.as_str()), *change <= up_to) {
                // What keeps the rooms of one user from following need not keep those of others.
                all = all.and(self.follow_once(user).await);
            }
        }
        all
    }

    async fn follow_once(&self, user: &UserId) -> Result<(), Error> {
        match self.lease(Shard::of(user.as_str())).await? {
            Some(lease) => self.follow(user, Some(lease)).await,
            None => Ok(()),
        }
    }

    /// Whoever made the change does this without a lease: another node may do it too, and nothing is done twice.
    async fn follow(&self, user: &UserId, lease: Option<Lease>) -> Result<(), Error> {
        let view = self.parts().source.view()?;
        let Some(change) = following::behind(&view, user.as_str())? else { return Ok(()) };
        let rooms = concerned(&view, user)?;
        drop(view);
        let origin = Origin::User { user: user.to_string(), device: None };
        let request = Request { cause: Some(change), lease, ..origin.into() };
        let once = |room: &str| Some(once("follow", &[user.as_str(), room], change));
        let at = now(self.parts());
        let follow = async |room: OwnedRoomId| {
            let job = Follow { parts: Arc::clone(self.parts()), room: room.clone(), user: user.to_owned(), at };
            let request = Request { id: once(room.as_str()), ..request.clone() };
            match self.lanes().run(&room, request, job).await {
                // The rules of a room have the last word.
                Err(Error::Refused(why)) => tracing::debug!(%room, %user, why = why.message, "a room does not follow"),
                followed => return followed,
            }
            Ok(())
        };
        let mut following = futures::stream::iter(rooms).map(follow).buffer_unordered(ROOMS_AT_ONCE);
        let mut all = Ok(());
        while let Some(followed) = following.next().await {
            all = all.and(followed);
        }
        all?;
        let (user, request) = (user.to_string(), Request { id: once(""), ..request.clone() });
        let decide = move |view: &View| {
            // Another node may have said so, or there may be another change.
            if following::behind(view, &user)? != Some(change) {
                return Ok(Decision::Reply(()));
            }
            let fact = RoomsFollowed { user: user.clone(), up_to: change };
            Ok(Decision::append_then(Draft { facts: vec![fact.into()], ..Draft::default() }, ()))
        };
        self.execute_once(request, decide, |_, _| Ok(())).await
    }
}

/// The rooms in which something may have to follow.
fn concerned(view: &View, user: &UserId) -> Result<Vec<OwnedRoomId>, Error> {
    let mut rooms = Vec::new();
    for membership in following::LEFT_AT_THE_END {
        for row in membership::rooms_of(view, user.as_str(), *membership) {
            let room = events::room(view, row?.0)?.and_then(|room| OwnedRoomId::try_from(room.id).ok());
            rooms.extend(room);
        }
    }
    Ok(rooms)
}

/// One room, in which a user's membership is to be what their account and profile say now.
struct Follow {
    parts: Arc<Parts>,
    room: OwnedRoomId,
    user: OwnedUserId,
    at: MilliSecondsSinceUnixEpoch,
}

impl Job for Follow {
    type Reply = ();

    fn decide(&mut self, tip: &Tip) -> Result<Step<()>, Error> {
        let Some(room) = Room::find(&tip.view, &self.room)? else { return Ok(Step::Reply(())) };
        let account = accounts::get(&tip.view, self.user.as_str())?;
        let ended = account.as_ref().is_none_or(|account| account.deactivated);
        let hidden = account.is_some_and(|account| account.shadow_banned);
        let content = match room.membership(&self.user)? {
            current if ended && following::LEFT_AT_THE_END.contains(&current) => Some(left()),
            // Others go on seeing what they saw before the ban.
            Membership::Join if !hidden => shown(&room, &self.user)?,
            _ => None,
        };
        let Some(content) = content else { return Ok(Step::Reply(())) };
        let event = NewEvent {
            prototype: Prototype::state("m.room.member", self.user.as_str(), content),
            transaction: None,
            sender_reads: vec![unchanged(&tip.view, user_status(self.user.as_str()))?],
            at: self.at,
        };
        let composed = compose(&self.parts, &room, tip, &self.user, event)?;
        Ok(Step::Barrier(composed.draft, Box::new(|_| Ok(()))))
    }

    fn repeated(&mut self, _: &View, _: Lsn) -> Result<(), Error> {
        Ok(())
    }
}

fn left() -> CanonicalJsonObject {
    CanonicalJsonObject::from([("membership".to_owned(), CanonicalJsonValue::String("leave".to_owned()))])
}

/// The content of a membership with the user's present name and picture; none where it has them already.
fn shown(room: &Room<'_>, user: &UserId) -> Result<Option<CanonicalJsonObject>, Error> {
    let Some(member) = room.state(&StateEventType::RoomMember, user.as_str())? else { return Ok(None) };
    let before: CanonicalJsonObject = serde_json::from_str(member.content().get())
        .map_err(|error| Error::Internal(format!("a membership is not canonical JSON: {error}")))?;
    let mut content = before.clone();
    // A join is authorised once.
    content.remove(AUTHORISED);
    content.remove("reason");
    for field in ["displayname", "avatar_url"] {
        content.remove(field);
    }
    add_profile(room.view, user, &mut content)?;
    Ok((content != before).then_some(content))
}
