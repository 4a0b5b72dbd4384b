//! Rooms that the user is not in: left ones up to their leaving, and invitations and knocks with stripped state.

use projections::{
    Position, StoreError,
    models::{
        events,
        membership::{self, Member, Membership},
        state::{self, State},
    },
    pdu::client,
};
use ruma::{
    OwnedRoomId,
    api::client::sync::sync_events::v3::{InviteState, InvitedRoom, KnockState, KnockedRoom, LeftRoom, Response},
    events::AnyStrippedStateEvent,
    serde::Raw,
};
use schemas::{Lsn, Nid};

use super::{
    Context,
    joined::{Span, room_id, state_of, timeline_of},
};
use crate::rooms::invite_state;

pub(super) fn add(
    context: &Context<'_>,
    room: Nid,
    member: &Member,
    response: &mut Response,
) -> Result<(), StoreError> {
    let Some(id) = room_id(context, room)? else { return Ok(()) };
    context.reading.knows(room, member);
    let placed = events::head(context.view, member.event)?.and_then(|event| event.placed);
    let until =
        placed.and_then(|placed| placed.position).map_or(Position::after_record(member.since.lsn), Position::next);
    let left_by = context.reading.left_by(room)?;
    // Who never was in the room is not told its state.
    let end = state::as_of(context.view, room, left_by.unwrap_or(Lsn::ZERO))?;
    let mut span = Span { room, after: context.since(), until, end };
    let mut before = None;
    if let (Some(since), Some(left_by)) = (context.since(), left_by) {
        let then = state::as_of(context.view, room, since.min(left_by))?;
        if since >= left_by || was_in(context, &then)? {
            before = Some(then);
        } else {
            // They have come and gone since.
            span.after = None;
        }
    }
    let mut shown = timeline_of(context, &id, span)?;
    shown.section.limited |= span.after != context.since();
    if member.previous != Some(Membership::Join) {
        // What they see of the time after they were last in the room begins with a state that they don't see.
        shown.start = end;
    }
    let mut left = LeftRoom::new();
    left.state = state_of(context, &id, span, before, &shown)?;
    left.timeline = shown.section;
    response.rooms.leave.insert(id, left);
    Ok(())
}

/// Rooms out of which an administrator has brought the user since, and that are gone altogether: there is nothing to tell but
/// that.
pub(super) fn add_gone(context: &Context<'_>, response: &mut Response) -> Result<(), StoreError> {
    let Some(since) = context.since() else { return Ok(()) };
    for room in membership::departures(context.view, context.user(), since) {
        let room = room?;
        if events::room_nid(context.view, &room)?.is_none()
            && let Ok(room) = OwnedRoomId::try_from(room)
        {
            response.rooms.leave.entry(room).or_default();
        }
    }
    Ok(())
}

fn was_in(context: &Context<'_>, state: &State) -> Result<bool, StoreError> {
    let Some(event) = state::get(context.view, state, "m.room.member", context.user())? else { return Ok(false) };
    Ok(events::head(context.view, event)?.is_some_and(|event| event.membership == Some(Membership::Join)))
}

pub(super) fn add_pending(
    context: &Context<'_>,
    room: Nid,
    member: &Member,
    response: &mut Response,
) -> Result<(), StoreError> {
    let Some(id) = room_id(context, room)? else { return Ok(()) };
    let sender = events::head(context.view, member.event)?.map(|event| event.sender);
    // Nobody is told of the invitations of those whom they ignore.
    if sender.as_deref().is_some_and(|sender| context.reading.ignores(sender)) {
        return Ok(());
    }
    let events = stripped(context, member, sender.as_deref())?;
    if member.membership == Membership::Knock {
        let mut knock_state = KnockState::new();
        knock_state.events = events;
        response.rooms.knock.insert(id, KnockedRoom::from(knock_state));
    } else {
        let mut invite_state = InviteState::new();
        invite_state.events = events;
        response.rooms.invite.insert(id, InvitedRoom::from(invite_state));
    }
    Ok(())
}

/// The state that tells what a room is, the membership itself and who invited.
fn stripped(
    context: &Context<'_>,
    member: &Member,
    sender: Option<&str>,
) -> Result<Vec<Raw<AnyStrippedStateEvent>>, StoreError> {
    let Some(state) = state::after(context.view, member.event)? else { return Ok(Vec::new()) };
    let mut shown = Vec::new();
    for event_type in &invite_state::TYPES {
        shown.extend(state::get(context.view, &state, &event_type.to_string(), "")?);
    }
    if let Some(inviter) = sender.filter(|sender| *sender != context.user()) {
        shown.extend(state::get(context.view, &state, "m.room.member", inviter)?);
    }
    shown.push(member.event);
    let mut events = Vec::with_capacity(shown.len());
    for event in shown {
        let Some(bytes) = events::bytes(context.view, event)? else { continue };
        let raw =
            client::stripped(bytes.halves()).ok().and_then(|text| serde_json::value::RawValue::from_string(text).ok());
        events.extend(raw.map(Raw::from_json));
    }
    Ok(events)
}
