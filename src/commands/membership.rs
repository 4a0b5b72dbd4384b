//! Joining, inviting, knocking, leaving, kicking, banning, forgetting.

use std::sync::Arc;

use projections::{
    StoreError, View,
    models::{accounts, membership, membership::Membership, profiles},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::error::ErrorKind, events::StateEventType,
};
use schemas::{
    Draft, Key, Lsn, Read, Tag,
    facts::{RoomForgotten, UserKind},
};
use serde::Deserialize;

use super::{
    Commands, Decision, Error, Parts, Refusal, Request, Sender,
    guards::{active, standing},
    lane::{Job, Step, Tip},
    notices,
    room::{NewEvent, Room, compose, not_blocked, now},
    rooms::check_invitee,
    unchanged,
};
use crate::rooms::{
    Power, Prototype,
    join_rules::{self, WayIn},
};

/// So many members are asked whether they may let somebody in, besides those who are named in the power levels.
const SOME_MEMBERS: usize = 16;

/// In the content of a join to a restricted room: who lets the user in.
pub(super) const AUTHORISED: &str = "join_authorised_via_users_server";

/// What is to become of a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// The sender joins.
    Join,
    /// The sender asks to be let in.
    Knock,
    /// The sender leaves, refuses an invitation or takes back a knock.
    Leave,
    /// The target is invited.
    Invite,
    /// The target is made to leave, or their invitation or knock is turned down.
    Kick,
    /// The target is banned.
    Ban,
    /// The target is not banned any more.
    Unban,
}

impl Move {
    const fn membership(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Knock => "knock",
            Self::Invite => "invite",
            Self::Ban => "ban",
            Self::Leave | Self::Kick | Self::Unban => "leave",
        }
    }
}

impl Commands {
    /// Changes a membership; nothing happens where it is so already.
    ///
    /// # Errors
    /// When the rules forbid it, or the room is not known.
    pub async fn change_membership(
        &self,
        sender: Sender,
        room: &RoomId,
        target: OwnedUserId,
        change: Move,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let parts = Arc::clone(self.parts());
        let (request, at) = (Request::from(&sender), now(&parts));
        let job = Change { parts, room: room.to_owned(), sender, target, change, reason, at };
        self.lanes().run(room, request, job).await
    }

    /// Changes a membership of the sender's own, as a part of work that is done once.
    pub(super) async fn change_own_membership(
        &self,
        request: Request,
        sender: Sender,
        room: &RoomId,
        change: Move,
    ) -> Result<(), Error> {
        let parts = Arc::clone(self.parts());
        let (target, at) = (sender.user.clone(), now(&parts));
        let job = Change { parts, room: room.to_owned(), sender, target, change, reason: None, at };
        self.lanes().run(room, request, job).await
    }

    /// Forgets a room that the user has left.
    ///
    /// # Errors
    /// When the user is still in it, or never was.
    pub async fn forget(&self, sender: Sender, room: OwnedRoomId) -> Result<(), Error> {
        self.execute(&sender.clone(), move |view| {
            let reads = standing(view, &sender)?;
            let found = Room::get(view, &room)?;
            let member = membership::member(view, found.nid, sender.user.as_str())?;
            let Some(member) = member else { return Err(Refusal::not_found("you were never in this room").into()) };
            if !matches!(member.membership, Membership::Leave | Membership::Ban) {
                return Err(Refusal::new(ErrorKind::Unknown, "leave the room before you forget it").into());
            }
            let fact = RoomForgotten { user: sender.user.to_string(), room: room.to_string() };
            let draft = Draft { reads, facts: vec![fact.into()], ..Draft::default() };
            Ok(Decision::append_then(draft, ()))
        })
        .await
    }
}

struct Change {
    parts: Arc<Parts>,
    room: OwnedRoomId,
    sender: Sender,
    target: OwnedUserId,
    change: Move,
    reason: Option<String>,
    at: MilliSecondsSinceUnixEpoch,
}

impl Job for Change {
    type Reply = ();

    fn decide(&mut self, tip: &Tip) -> Result<Step<()>, Error> {
        let room = match self.change {
            Move::Join | Move::Knock | Move::Leave => Room::get(&tip.view, &self.room)?,
            Move::Invite | Move::Kick | Move::Ban | Move::Unban => Room::of_members(&tip.view, &self.room)?,
        };
        // Whoever is suspended, or in a blocked room, may still leave.
        let sender_reads = if self.change == Move::Leave {
            standing(&tip.view, &self.sender)?
        } else {
            not_blocked(&room)?;
            active(&tip.view, &self.sender)?
        };
        let for_members = matches!(self.change, Move::Invite | Move::Kick | Move::Ban | Move::Unban);
        if for_members && room.membership(&self.sender.user)? != Membership::Join {
            return Err(Refusal::forbidden("you are not in this room").into());
        }
        let current = room.membership(&self.target)?;
        if self.is_so(&room, current)? {
            return Ok(Step::Reply(()));
        }
        let (content, reads) = self.content(&room)?;
        let prototype = Prototype::state("m.room.member", self.target.as_str(), content);
        let event = NewEvent { prototype, transaction: None, sender_reads, at: self.at };
        let mut composed = compose(&self.parts, &room, tip, &self.sender.user, event)?;
        composed.draft.reads.extend(reads);
        Ok(Step::Barrier(composed.draft, Box::new(|_| Ok(()))))
    }

    fn repeated(&mut self, _: &View, _: Lsn) -> Result<(), Error> {
        Ok(())
    }
}

impl Change {
    /// Whether there is nothing to do; refuses what makes no sense.
    fn is_so(&self, room: &Room<'_>, current: Membership) -> Result<bool, Error> {
        use Membership as M;
        let forbidden = |message: &str| Err(Refusal::forbidden(message).into());
        match (self.change, current) {
            (Move::Join, M::Join) | (Move::Knock, M::Knock) | (Move::Ban, M::Ban) => Ok(true),
            (Move::Leave, M::Leave) => {
                let known = membership::member(room.view, room.nid, self.target.as_str())?.is_some();
                if known { Ok(true) } else { forbidden("you are not in this room") }
            }
            (Move::Leave, M::Invite) if !self.sender.is_administrator() => {
                notices::may_refuse(room.view, &self.target, &room.id)?;
                Ok(false)
            }
            (Move::Kick, M::Leave | M::Ban) => forbidden("the user is not in the room"),
            (Move::Unban, M::Ban) => Ok(false),
            (Move::Unban, _) => Err(Refusal::new(ErrorKind::BadState, "the user is not banned from the room").into()),
            (Move::Invite, M::Join) => forbidden("the user is in the room already"),
            (Move::Invite, M::Ban) => forbidden("the user is banned from the room"),
            (Move::Knock, M::Join | M::Invite) => forbidden("you are invited to the room, or in it, already"),
            _ => Ok(false),
        }
    }

    fn content(&self, room: &Room<'_>) -> Result<(CanonicalJsonObject, Vec<Read>), Error> {
        let mut content = CanonicalJsonObject::from([("membership".to_owned(), self.change.membership().into())]);
        if let Some(reason) = &self.reason {
            content.insert("reason".into(), reason.as_str().into());
        }
        if matches!(self.change, Move::Join | Move::Knock | Move::Invite) {
            add_profile(room.view, &self.target, &mut content)?;
        }
        let reads = check(&self.parts, room, &self.sender.user, &self.target, &mut content)?;
        Ok((content, reads))
    }
}

/// What a membership needs besides the rules of rooms: guests join where they may, a restricted room is entered through
/// somebody who is named in the content, and only who is there can be invited. Says on what that rests.
pub(super) fn check(
    parts: &Parts,
    room: &Room<'_>,
    sender: &UserId,
    target: &UserId,
    content: &mut CanonicalJsonObject,
) -> Result<Vec<Read>, Error> {
    // Who lets somebody in is not for them to say: the rules would believe it.
    content.remove(AUTHORISED);
    match content.get("membership").and_then(CanonicalJsonValue::as_str) {
        Some("invite") => Ok(check_invitee(parts, room.view, target)?.into()),
        Some("join") if sender == target => {
            let current = room.membership(sender)?;
            if current == Membership::Join {
                return Ok(Vec::new());
            }
            check_guest(room, sender)?;
            if current == Membership::Invite {
                return Ok(Vec::new());
            }
            let Some((authoriser, read)) = restricted(parts, room, sender)? else { return Ok(Vec::new()) };
            content.insert(AUTHORISED.into(), authoriser.as_str().into());
            Ok(vec![read])
        }
        _ => Ok(Vec::new()),
    }
}

/// Guests join where guests may (client-server API, "Guest access").
fn check_guest(room: &Room<'_>, user: &UserId) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Content {
        guest_access: String,
    }
    let account = accounts::get(room.view, user.as_str())?;
    if account.is_none_or(|account| account.kind != UserKind::Guest) {
        return Ok(());
    }
    let access = room.state(&StateEventType::RoomGuestAccess, "")?.and_then(|event| event.content_as::<Content>());
    if access.is_some_and(|content| content.guest_access == "can_join") {
        return Ok(());
    }
    Err(Refusal::new(ErrorKind::GuestAccessForbidden, "guests can't join this room; register an account").into())
}

/// Who of this server lets a user into a restricted room, and the membership on which that rests.
fn restricted(parts: &Parts, room: &Room<'_>, user: &UserId) -> Result<Option<(OwnedUserId, Read)>, Error> {
    let way = room.with_state(|state| join_rules::way_in(user, state, room.rules))?;
    let WayIn::Through(allowing) = way else { return Ok(None) };
    for id in &allowing {
        let Some(other) = Room::find(room.view, id)? else { continue };
        if other.membership(user)? != Membership::Join {
            continue;
        }
        let Some(authoriser) = authoriser(parts, room)? else {
            let message = "nobody of this server who is in the room may let you in";
            return Err(Refusal::new(ErrorKind::UnableToGrantJoin, message).into());
        };
        let key = Key::pair(Tag::Membership, id.as_str(), user.as_str());
        return Ok(Some((authoriser, unchanged(room.view, key)?)));
    }
    Err(Refusal::forbidden("you are in none of the rooms whose members may join").into())
}

/// A user of this server in the room who may invite. The creators and those named in the power levels come first; then
/// some others, since mostly everybody may.
fn authoriser(parts: &Parts, room: &Room<'_>) -> Result<Option<OwnedUserId>, Error> {
    let power = room.with_state(|state| Power::of(state, room.rules))??;
    let mut candidates: Vec<OwnedUserId> = power.creators().iter().cloned().collect();
    candidates.sort();
    candidates.retain(|user| user.server_name() == parts.server_name);
    for user in membership::local_users_in(room.view, room.nid).take(SOME_MEMBERS) {
        candidates.extend(OwnedUserId::try_from(user?).ok());
    }
    for user in candidates {
        if power.may_invite(&user) && room.membership(&user)? == Membership::Join {
            return Ok(Some(user));
        }
    }
    Ok(None)
}

/// Adds a local user's display name and avatar to the content of a membership.
pub(super) fn add_profile(view: &View, user: &UserId, content: &mut CanonicalJsonObject) -> Result<(), StoreError> {
    for field in ["displayname", "avatar_url"] {
        let value = profiles::field(view, user.as_str(), field)?;
        let value = value.and_then(|value| value.read::<String>().ok());
        if let Some(value) = value {
            content.insert(field.to_owned(), CanonicalJsonValue::String(value));
        }
    }
    Ok(())
}
