use projections::{
    Position, StoreError,
    models::{
        events::{self, Class, Head},
        membership::{self, Member, Membership},
        state::{self, State},
    },
};
use ruma::events::room::member::MembershipState;
use schemas::{Lsn, Nid, facts::Visibility};

use super::Reading;
use crate::rooms::visibility::{self, Sight};

/// Behind a user who is not in a room, so many of their memberships are looked through for the time when they were.
const STEPS: usize = 64;

/// What a user is and was to a room, as far as it has been looked up.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    room: Nid,
    member: Option<Member>,
    last_stay: Option<Option<Stay>>,
    /// The last state that was asked about, and the user's membership there: between two messages it stays the same.
    membership_in: Option<(State, Membership)>,
}

/// A user was in a room, and is not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    /// The fact that ended it.
    pub(super) ended_by: Nid,
    /// Where the event stands that ended it.
    pub(super) until: Position,
}

impl Reading<'_> {
    /// May the user see an event (client-server API, "Room history visibility")? Nobody sees what is not in the order
    /// of its room.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sees(&self, event: Nid, head: &Head) -> Result<bool, StoreError> {
        let Some(placed) = head.placed else { return Ok(false) };
        let Some(position) = placed.position else { return Ok(false) };
        if self.user.is_none() {
            return Ok(true);
        }
        let joined = self.standing(head.room)?.is_joined();
        match placed.visibility {
            Visibility::WorldReadable => return Ok(true),
            // Who is in the room now was in it then, or has joined since.
            Visibility::Shared if joined => return Ok(true),
            _ => {}
        }
        let joined_later = joined || self.last_stay(head.room)?.is_some_and(|stay| position < stay.until);
        let own = self.is_own_membership(head);
        let sight = Sight {
            visibility: placed.visibility,
            visibility_after: self.visibility_set_by(event, head)?,
            membership: state_of(self.membership_before(event, head)?),
            membership_after: head.membership.filter(|_| own).map(state_of),
            joined_later,
        };
        Ok(sight.allows())
    }

    /// What the user is to a room now.
    ///
    /// # Errors
    /// When the store fails.
    pub fn member(&self, room: Nid) -> Result<Option<Member>, StoreError> {
        Ok(self.standing(room)?.member)
    }

    /// What the user is to a room, where the asker knows: it is not looked up again.
    pub fn knows(&self, room: Nid, member: &Member) {
        self.standing.set(Some(Standing { room, member: Some(*member), last_stay: None, membership_in: None }));
    }

    /// The state before an event; that of the last event that was asked about is still known.
    ///
    /// # Errors
    /// When the store fails.
    pub fn state_before(&self, event: Nid) -> Result<Option<State>, StoreError> {
        if let Some((_, state)) = self.before.get().filter(|(known, _)| *known == event) {
            return Ok(state);
        }
        let state = state::before(self.view, event)?;
        self.before.set(Some((event, state)));
        Ok(state)
    }

    /// The user's membership at an event, which the event itself may have changed.
    pub(super) fn membership_at(&self, event: Nid, head: &Head) -> Result<Membership, StoreError> {
        if self.is_own_membership(head) {
            return Ok(head.membership.unwrap_or(Membership::Leave));
        }
        let Some(member) = self.standing(head.room)?.member else { return Ok(Membership::Leave) };
        let placed = head.placed.filter(|placed| placed.class == Class::Live);
        let position = placed.and_then(|placed| placed.position);
        if position.is_some_and(|position| position > Position::live(member.since)) {
            return Ok(member.membership);
        }
        self.membership_before(event, head)
    }

    /// Whether an event is the user's own leaving, or what kept them out.
    pub(super) fn is_own_end(&self, head: &Head) -> bool {
        self.is_own_membership(head) && head.membership.is_some_and(Membership::is_out)
    }

    /// The record by which the user left a room, the last time; none if they are in it, or never were.
    ///
    /// # Errors
    /// When the store fails.
    pub fn left_by(&self, room: Nid) -> Result<Option<Lsn>, StoreError> {
        Ok(self.last_stay(room)?.map(|stay| stay.ended_by.lsn))
    }

    /// When the user was last in a room, if they are not in it now.
    pub(super) fn last_stay(&self, room: Nid) -> Result<Option<Stay>, StoreError> {
        let standing = self.standing(room)?;
        if let Some(known) = standing.last_stay {
            return Ok(known);
        }
        let found = match standing.member {
            Some(member) if member.membership != Membership::Join => self.find_last_stay(&member)?,
            _ => None,
        };
        self.standing.set(Some(Standing { last_stay: Some(found), ..standing }));
        Ok(found)
    }

    fn find_last_stay(&self, member: &Member) -> Result<Option<Stay>, StoreError> {
        let Some(user) = self.user else { return Ok(None) };
        if member.previous == Some(Membership::Join) {
            return Ok(Some(Stay { ended_by: member.since, until: Position::live(member.since) }));
        }
        let mut event = member.event;
        for _ in 0..STEPS {
            let Some(state) = state::before(self.view, event)? else { return Ok(None) };
            let Some(before) = state::get(self.view, &state, "m.room.member", user.as_str())? else {
                return Ok(None);
            };
            if self.membership_of(before)? == Membership::Join {
                let placed = events::head(self.view, event)?.and_then(|head| head.placed);
                return Ok(placed.and_then(|placed| Some(Stay { ended_by: placed.by, until: placed.position? })));
            }
            event = before;
        }
        Ok(None)
    }

    fn standing(&self, room: Nid) -> Result<Standing, StoreError> {
        if let Some(standing) = self.standing.get().filter(|standing| standing.room == room) {
            return Ok(standing);
        }
        let member = self.user.map(|user| membership::member(self.view, room, user.as_str())).transpose()?.flatten();
        let standing = Standing { room, member, last_stay: None, membership_in: None };
        self.standing.set(Some(standing));
        Ok(standing)
    }

    fn is_own_membership(&self, head: &Head) -> bool {
        head.event_type == "m.room.member" && head.state_key.as_deref().is_some_and(|user| self.is(user))
    }

    fn membership_before(&self, event: Nid, head: &Head) -> Result<Membership, StoreError> {
        let Some(user) = self.user else { return Ok(Membership::Leave) };
        let Some(state) = self.state_before(event)? else { return Ok(Membership::Leave) };
        let standing = self.standing(head.room)?;
        if let Some((_, membership)) = standing.membership_in.filter(|(known, _)| *known == state) {
            return Ok(membership);
        }
        let membership = match state::get(self.view, &state, "m.room.member", user.as_str())? {
            Some(event) => self.membership_of(event)?,
            None => Membership::Leave,
        };
        self.standing.set(Some(Standing { membership_in: Some((state, membership)), ..standing }));
        Ok(membership)
    }

    fn membership_of(&self, event: Nid) -> Result<Membership, StoreError> {
        let head = events::head(self.view, event)?;
        Ok(head.and_then(|head| head.membership).unwrap_or(Membership::Leave))
    }

    fn visibility_set_by(&self, event: Nid, head: &Head) -> Result<Option<Visibility>, StoreError> {
        if head.event_type != "m.room.history_visibility" || head.state_key.as_deref() != Some("") {
            return Ok(None);
        }
        Ok(events::pdu(self.view, event)?.map(|pdu| visibility::set_by(&pdu)))
    }
}

impl Standing {
    fn is_joined(&self) -> bool {
        self.member.is_some_and(|member| member.membership == Membership::Join)
    }
}

fn state_of(membership: Membership) -> MembershipState {
    membership.name().into()
}
