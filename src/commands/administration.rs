//! What administrators of the server do to rooms.

use std::{collections::BTreeMap, sync::Arc};

use projections::{
    Pdu, View,
    models::{events, membership::Membership, rooms, timeline},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::error::ErrorKind,
    events::{StateEventType, room::power_levels::UserPowerLevel},
    int,
};
use schemas::{
    Draft, Fact, Key, Lsn, Origin, Tag,
    facts::{EventRestated, ExtremitiesRemoved, Placement, RoomBlocked, Verdict},
};

use super::{
    Commands, Decision, Error, Parts, Refusal, Sender,
    forks::Outcome,
    guards::active,
    lane::{Job, Step, Tip},
    membership::Move,
    room::{NewEvent, Room, compose, guards, now},
    unchanged,
};
use crate::rooms::{Power, Prototype};

impl Commands {
    /// Blocks a room, which need not be known, or lets it be again: nobody does anything in a blocked room but leave it.
    ///
    /// # Errors
    /// When it can't be done now.
    pub async fn block_room(
        &self,
        by: Origin,
        room: OwnedRoomId,
        blocked: bool,
        reason: Option<String>,
    ) -> Result<(), Error> {
        self.execute(by, move |view| {
            let mut draft = Draft::default();
            if !block(view, &room, blocked, reason.clone(), &mut draft)? {
                return Ok(Decision::Reply(()));
            }
            Ok(Decision::append_then(draft, ()))
        })
        .await
    }

    /// Takes all forward extremities of a room away but the one that stands last, and says how many those are.
    ///
    /// # Errors
    /// `M_UNKNOWN` where it has none.
    pub async fn remove_extremities(&self, by: Origin, room: &RoomId) -> Result<usize, Error> {
        self.lanes().run(room, by, RemoveExtremities { room: room.to_owned() }).await
    }

    /// Gives a user as much power in a room as the most powerful member of this server has, who grants it, and invites the
    /// user where the room is not public and they are not in it.
    ///
    /// # Errors
    /// `M_UNKNOWN` where this server is not in the room, or nobody of it has the power.
    pub async fn make_room_admin(&self, by: &str, room: &RoomId, user: OwnedUserId) -> Result<(), Error> {
        let parts = Arc::clone(self.parts());
        let at = now(&parts);
        let job = GrantPower { parts, room: room.to_owned(), by: by.to_owned(), user: user.clone(), at };
        let origin = Origin::Admin { user: by.to_owned() };
        let Granted { by: inviter, invites } = self.lanes().run(room, origin, job).await?;
        if invites {
            let inviter = Sender::in_stead_of(inviter, by);
            self.change_membership(inviter, room, user, Move::Invite, None).await?;
        }
        Ok(())
    }
}

/// Adds to a draft that a room is blocked from here on, or is not any more; says whether that is new.
pub(super) fn block(
    view: &View,
    room: &RoomId,
    blocked: bool,
    reason: Option<String>,
    draft: &mut Draft,
) -> Result<bool, Error> {
    if rooms::block(view, room.as_str())?.is_some() == blocked {
        return Ok(false);
    }
    let key = Key::new(Tag::RoomAdmin, room.as_str());
    draft.reads.push(unchanged(view, key)?);
    draft.writes.push(key);
    draft.facts.push(RoomBlocked { room: room.to_string(), blocked, reason }.into());
    Ok(true)
}

struct RemoveExtremities {
    room: OwnedRoomId,
}

impl Job for RemoveExtremities {
    type Reply = usize;

    fn decide(&mut self, tip: &Tip) -> Result<Step<usize>, Error> {
        let none =
            || Refusal::new(ErrorKind::Unknown, format!("No forward extremity event found for room {}", self.room));
        let room = Room::find(&tip.view, &self.room)?.ok_or_else(none)?;
        let mut placed = Vec::new();
        for extremity in timeline::extremities(&tip.view, room.nid)? {
            let head = events::head(&tip.view, extremity.event)?;
            placed.push((
                head.and_then(|head| head.placed).map(|placed| (placed.position, placed.visibility)),
                extremity,
            ));
        }
        let last = placed.iter().enumerate().max_by_key(|(_, (place, _))| place.and_then(|(position, _)| position));
        let Some((last, (place, kept))) = last else { return Err(none().into()) };
        if placed.len() == 1 {
            return Ok(Step::Reply(0));
        }
        let mut draft = guards(&room, Vec::new())?;
        let outcome = Outcome::of_one_end(&room, kept)?;
        let others = placed.iter().enumerate().filter(|(n, _)| *n != last);
        let events: Vec<_> = others.map(|(_, (_, extremity))| extremity.id.clone()).collect();
        let removed = events.len();
        draft.facts.push(ExtremitiesRemoved { room: self.room.to_string(), events }.into());
        draft.facts.extend(outcome.restated.into_iter().map(Fact::from));
        if let (Some((_, visibility)), false) = (place, outcome.current.is_empty()) {
            // The state of the room is another one: the event that stays says so.
            draft.facts.push(
                EventRestated {
                    id: kept.id.clone(),
                    class: Placement::Live,
                    verdict: Verdict::Accepted,
                    state_before: None,
                    current: outcome.current,
                    visibility: *visibility,
                }
                .into(),
            );
        }
        draft.writes = outcome.writes;
        Ok(Step::Barrier(draft, Box::new(move |_| Ok(removed))))
    }

    fn repeated(&mut self, _: &View, _: Lsn) -> Result<usize, Error> {
        Err(Error::Internal("a random record id was used twice".into()))
    }
}

/// An administrator gives a user power by the hand of somebody who has it.
struct GrantPower {
    parts: Arc<Parts>,
    room: OwnedRoomId,
    /// The administrator.
    by: String,
    user: OwnedUserId,
    at: MilliSecondsSinceUnixEpoch,
}

/// By whom power was given, and whether they are to invite the user, too.
struct Granted {
    by: OwnedUserId,
    invites: bool,
}

impl Job for GrantPower {
    type Reply = Granted;

    fn decide(&mut self, tip: &Tip) -> Result<Step<Granted>, Error> {
        let unknown = |message: &str| Refusal::new(ErrorKind::Unknown, message);
        let room = Room::find(&tip.view, &self.room)?.ok_or_else(|| unknown("Server not in room"))?;
        let levels = room.state(&StateEventType::RoomPowerLevels, "")?;
        let by = self.most_powerful(&room, levels.as_ref())?;
        let by = by.ok_or_else(|| unknown("No local admin user in room"))?;
        let let_in = matches!(room.membership(&self.user)?, Membership::Join | Membership::Invite);
        let is_public = rooms::settings(&tip.view, room.nid)?.join_rule.as_deref() == Some("public");
        let granted = Granted { by: by.clone(), invites: !let_in && !is_public };
        let before = levels.as_ref().and_then(content);
        let after = self.granted(before.clone().unwrap_or_default(), &by);
        if before.as_ref() == Some(&after) {
            return Ok(Step::Reply(granted));
        }
        let sender_reads = active(&tip.view, &Sender::in_stead_of(by.clone(), &*self.by))?;
        let prototype = Prototype::state("m.room.power_levels", "", after);
        let event = NewEvent { prototype, transaction: None, sender_reads, at: self.at };
        let composed = compose(&self.parts, &room, tip, &by, event).map_err(|error| match error {
            Error::Refused(refusal) if matches!(refusal.kind, ErrorKind::Forbidden) => {
                unknown("No local admin user in room with power to update power levels.").into()
            }
            error => error,
        })?;
        Ok(Step::Barrier(composed.draft, Box::new(move |_| Ok(granted))))
    }

    fn repeated(&mut self, _: &View, _: Lsn) -> Result<Granted, Error> {
        Err(Error::Internal("a random record id was used twice".into()))
    }
}

impl GrantPower {
    /// Who of this server's members has the most power; without power levels, who made the room.
    fn most_powerful(&self, room: &Room<'_>, levels: Option<&Pdu>) -> Result<Option<OwnedUserId>, Error> {
        let local = |user: &UserId| user.server_name() == self.parts.server_name;
        let power = room.with_state(|state| Power::of(state, room.rules))??;
        let mut candidates = BTreeMap::new();
        let named = levels.and_then(content).and_then(|content| {
            let users = content.get("users")?.as_object()?;
            Some(users.keys().filter_map(|user| OwnedUserId::try_from(user.as_str()).ok()).collect::<Vec<_>>())
        });
        let creators = power.creators().iter().cloned();
        let creators = creators.filter(|user| levels.is_none() || power.level(user) == UserPowerLevel::Infinite);
        for user in creators.chain(named.unwrap_or_default()).filter(|user| local(user)) {
            candidates.insert((power.level(&user), user.clone()), user);
        }
        for user in candidates.into_values().rev() {
            if room.membership(&user)? == Membership::Join {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// Power levels in which the user has the level of who grants it.
    fn granted(&self, mut content: CanonicalJsonObject, by: &UserId) -> CanonicalJsonObject {
        let users = content.entry("users".to_owned()).or_insert_with(|| CanonicalJsonValue::Object(BTreeMap::new()));
        if let CanonicalJsonValue::Object(users) = users {
            // Who has all power without being named: who made the room.
            let all = || CanonicalJsonValue::Integer(int!(100));
            let level = users.get(by.as_str()).cloned().unwrap_or_else(all);
            users.insert(self.user.to_string(), level);
        }
        content
    }
}

fn content(event: &Pdu) -> Option<CanonicalJsonObject> {
    serde_json::from_str(event.content().get()).ok()
}
