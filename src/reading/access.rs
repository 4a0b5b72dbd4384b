use projections::{
    Position, View,
    models::{
        events,
        membership::{Member, Membership},
        state::{self, State},
    },
};
use ruma::RoomId;
use schemas::{Lsn, Nid, facts::Visibility};

use super::Reading;
use crate::{
    commands::{Error, Refusal},
    rooms::visibility,
};

/// What a user may look at in a room.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The room.
    pub room: Nid,
    /// What the user is to it.
    pub member: Option<Member>,
    /// The record by which the user left: the state to look at is that of then. None is the current state.
    pub left: Option<Lsn>,
    /// The room's history to look at goes up to this record.
    pub until: Lsn,
}

impl Access {
    /// Whether the user is in the room.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.member.is_some_and(|member| member.membership == Membership::Join)
    }

    /// The state to look at: the current one, or that of the user's leaving.
    ///
    /// # Errors
    /// When the store fails.
    pub fn state(&self, view: &View) -> Result<State, Error> {
        Ok(match self.left {
            Some(lsn) => state::as_of(view, self.room, lsn)?,
            None => state::current(view, self.room)?,
        })
    }

    /// The state to look at as of a record, or of the user's leaving if that was earlier.
    ///
    /// # Errors
    /// When the store fails.
    pub fn state_as_of(&self, view: &View, lsn: Lsn) -> Result<State, Error> {
        Ok(state::as_of(view, self.room, self.left.map_or(lsn, |left| lsn.min(left)))?)
    }

    /// The end of the history to look at.
    #[must_use]
    pub const fn end(&self) -> Position {
        Position::after_record(self.until)
    }
}

impl Reading<'_> {
    /// What the user may look at in a room: members everything, those who have left what was before, everybody everything
    /// where it is world-readable.
    ///
    /// # Errors
    /// `M_FORBIDDEN` if nothing; that there is no such room is not told either.
    pub fn access(&self, room: &RoomId) -> Result<Access, Error> {
        let nothing = || Refusal::forbidden("you are not in this room");
        let nid = events::room_nid(self.view, room.as_str())?.ok_or_else(nothing)?;
        if self.user.is_none() {
            return Ok(Access { room: nid, member: None, left: None, until: self.view.lsn() });
        }
        let member = self.member(nid)?;
        let access = Access { room: nid, member, left: None, until: self.view.lsn() };
        if access.is_joined() {
            return Ok(access);
        }
        let forgotten = member.is_some_and(|member| member.forgotten);
        let left = self.last_stay(nid)?.filter(|_| !forgotten).map(|stay| stay.ended_by.lsn);
        match (left, self.is_world_readable(nid)?) {
            (left, true) => Ok(Access { left, ..access }),
            (Some(lsn), false) => Ok(Access { left, until: lsn, ..access }),
            (None, false) => Err(nothing().into()),
        }
    }

    /// What the user may look at in a room that they are in.
    ///
    /// # Errors
    /// `M_FORBIDDEN` if they are not in it.
    pub fn joined(&self, room: &RoomId) -> Result<Access, Error> {
        let access = self.access(room)?;
        if access.is_joined() { Ok(access) } else { Err(Refusal::forbidden("you are not in this room").into()) }
    }

    fn is_world_readable(&self, room: Nid) -> Result<bool, Error> {
        let state = state::current(self.view, room)?;
        let Some(event) = state::get(self.view, &state, "m.room.history_visibility", "")? else { return Ok(false) };
        let event = events::pdu(self.view, event)?;
        Ok(event.is_some_and(|event| visibility::set_by(&event) == Visibility::WorldReadable))
    }
}
