//! Which rooms have news for a user: found by the cheaper of reading what happened everywhere and asking each of the
//! user's rooms.

use std::collections::BTreeSet;

use projections::{
    StoreError,
    models::{
        events,
        membership::{self, Member, Membership},
        receipts, timeline,
    },
};
use schemas::{Lsn, Nid};

use super::{Context, sections::AccountData};

/// Up to so many records, what happened everywhere is read; after more, each of the user's rooms is asked.
const READ_EVERYTHING: u64 = 512;

/// Rooms to look at.
#[derive(Default)]
pub(super) struct Rooms {
    pub(super) joined: Vec<(Nid, Member)>,
    /// Left or banned.
    pub(super) left: Vec<(Nid, Member)>,
    /// Invited or knocking.
    pub(super) pending: Vec<(Nid, Member)>,
}

pub(super) fn rooms(context: &Context<'_>, account_data: &AccountData) -> Result<Rooms, StoreError> {
    let mut rooms = match context.since() {
        Some(since) if !context.wanted.full_state => incremental(context, since, account_data)?,
        since => all(context, since)?,
    };
    let wanted = &context.wanted.filter.room;
    let keep = |room: &(Nid, Member)| -> Result<bool, StoreError> {
        if wanted.rooms.is_none() && wanted.not_rooms.is_empty() {
            return Ok(true);
        }
        let id = events::room(context.view, room.0)?.map(|room| room.id).unwrap_or_default();
        let named = |list: &[ruma::OwnedRoomId]| list.iter().any(|room| room.as_str() == id);
        Ok(wanted.rooms.as_deref().is_none_or(named) && !named(&wanted.not_rooms))
    };
    for list in [&mut rooms.joined, &mut rooms.left, &mut rooms.pending] {
        let mut kept = Vec::with_capacity(list.len());
        for room in list.drain(..) {
            if keep(&room)? {
                kept.push(room);
            }
        }
        *list = kept;
    }
    Ok(rooms)
}

fn all(context: &Context<'_>, since: Option<Lsn>) -> Result<Rooms, StoreError> {
    let mut rooms = Rooms::default();
    for room in membership::all_rooms_of(context.view, context.user()) {
        let (room, member) = room?;
        let left_since = since.is_some_and(|since| member.since.lsn > since);
        match member.membership {
            Membership::Join => rooms.joined.push((room, member)),
            Membership::Invite | Membership::Knock => rooms.pending.push((room, member)),
            Membership::Leave | Membership::Ban if context.wanted.filter.room.include_leave || left_since => {
                rooms.left.push((room, member));
            }
            Membership::Leave | Membership::Ban => {}
        }
    }
    Ok(rooms)
}

fn incremental(context: &Context<'_>, since: Lsn, account_data: &AccountData) -> Result<Rooms, StoreError> {
    let mut candidates: BTreeSet<Nid> = BTreeSet::new();
    if context.view.lsn().0 - since.0.min(context.view.lsn().0) <= READ_EVERYTHING {
        for news in timeline::activity(context.view, since, context.view.lsn()) {
            candidates.insert(news?.1);
        }
        for news in receipts::rooms_after(context.view, since) {
            candidates.insert(news?.1);
        }
    } else {
        candidates = rooms_with_news(context, since)?;
    }
    let named = account_data.rooms().map(str::to_owned);
    let typing = context.ephemeral.rooms_since(context.ephemeral_since);
    for room in named.chain(typing.iter().map(ToString::to_string)) {
        candidates.extend(events::room_nid(context.view, &room)?);
    }
    let mut changed: BTreeSet<Nid> = BTreeSet::new();
    for change in membership::changes_since(context.view, context.user(), since) {
        let (_, room, change) = change?;
        // Whoever is invited once more is told again; another profile or reason is no news.
        if change.from != change.to || change.to == Some(Membership::Invite) {
            changed.insert(room);
        }
    }
    let mut rooms = Rooms::default();
    candidates.extend(&changed);
    for room in candidates {
        let Some(member) = membership::member(context.view, room, context.user())? else { continue };
        match (member.membership, changed.contains(&room)) {
            (Membership::Join, _) => rooms.joined.push((room, member)),
            (Membership::Invite | Membership::Knock, true) => rooms.pending.push((room, member)),
            (Membership::Leave | Membership::Ban, true) if !member.forgotten => rooms.left.push((room, member)),
            _ => {}
        }
    }
    Ok(rooms)
}

fn rooms_with_news(context: &Context<'_>, since: Lsn) -> Result<BTreeSet<Nid>, StoreError> {
    let mut rooms = BTreeSet::new();
    for room in membership::rooms_of(context.view, context.user(), Membership::Join) {
        let (room, _) = room?;
        let sent = timeline::last(context.view, room)?.activity > since;
        if sent || receipts::last_in_room(context.view, room)?.is_some_and(|last| last > since) {
            rooms.insert(room);
        }
    }
    Ok(rooms)
}
