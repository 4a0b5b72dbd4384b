//! Which rooms have news for a user: found by the cheaper of reading what happened everywhere and asking each of the
//! user's rooms.

use std::collections::BTreeSet;

use projections::{
    StoreError,
    models::{
        events,
        membership::{self, Member, Membership},
        receipts,
        state::{self, State},
        timeline,
    },
};
use schemas::{Lsn, Nid};

use super::{Context, sections::AccountData};

/// Up to so many records, what happened everywhere is read; after more, each of the user's rooms is asked.
const READ_EVERYTHING: u64 = 512;

/// A room that the user is in.
pub(super) struct Joined {
    pub(super) room: Nid,
    pub(super) member: Member,
    /// The state that the client has; none for who has come in since: they get the whole room, as in an initial sync.
    pub(super) before: Option<State>,
    /// The state that it is to have.
    pub(super) now: State,
}

impl Joined {
    fn of(context: &Context<'_>, until: Lsn, room: Nid, member: Member) -> Result<Self, StoreError> {
        let came_after = |since| member.since.lsn > since && member.previous != Some(Membership::Join);
        let since = context.since().filter(|since| !came_after(*since));
        let before = since.map(|since| state::as_of(context.view, room, since)).transpose()?;
        Ok(Self { room, member, before, now: state::as_of(context.view, room, until)? })
    }
}

/// Rooms to look at.
#[derive(Default)]
pub(super) struct Rooms {
    pub(super) joined: Vec<Joined>,
    /// Left or banned.
    pub(super) left: Vec<(Nid, Member)>,
    /// Invited or knocking.
    pub(super) pending: Vec<(Nid, Member)>,
}

/// The rooms that have news up to a record.
pub(super) fn rooms(context: &Context<'_>, until: Lsn, account_data: &AccountData) -> Result<Rooms, StoreError> {
    let members = match context.since() {
        Some(since) if !context.wanted.full_state => with_news(context, since, account_data)?,
        since => all(context, since)?,
    };
    let mut rooms = Rooms::default();
    for (room, member) in members {
        if !is_wanted(context, room)? {
            continue;
        }
        match member.membership {
            Membership::Join => rooms.joined.push(Joined::of(context, until, room, member)?),
            Membership::Invite | Membership::Knock => rooms.pending.push((room, member)),
            Membership::Leave | Membership::Ban => rooms.left.push((room, member)),
        }
    }
    Ok(rooms)
}

fn is_wanted(context: &Context<'_>, room: Nid) -> Result<bool, StoreError> {
    let wanted = &context.wanted.filter.room;
    if wanted.rooms.is_none() && wanted.not_rooms.is_empty() {
        return Ok(true);
    }
    let id = events::room(context.view, room)?.map(|room| room.id).unwrap_or_default();
    let named = |list: &[ruma::OwnedRoomId]| list.iter().any(|room| room.as_str() == id);
    Ok(wanted.rooms.as_deref().is_none_or(named) && !named(&wanted.not_rooms))
}

fn all(context: &Context<'_>, since: Option<Lsn>) -> Result<Vec<(Nid, Member)>, StoreError> {
    let with_left = context.wanted.filter.room.include_leave;
    let left_since = |member: &Member| since.is_some_and(|since| member.since.lsn > since);
    let rooms = membership::all_rooms_of(context.view, context.user());
    rooms
        .filter(|room| match room {
            Ok((_, member)) => !member.membership.is_out() || with_left || left_since(member),
            Err(_) => true,
        })
        .collect()
}

fn with_news(context: &Context<'_>, since: Lsn, account_data: &AccountData) -> Result<Vec<(Nid, Member)>, StoreError> {
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
    candidates.extend(&changed);
    let mut rooms = Vec::with_capacity(candidates.len());
    for room in candidates {
        let Some(member) = membership::member(context.view, room, context.user())? else { continue };
        let is_news = match member.membership {
            Membership::Join => true,
            Membership::Invite | Membership::Knock => changed.contains(&room),
            // By another device it may be forgotten, too; this one is yet to hear that it was left.
            Membership::Leave | Membership::Ban => changed.contains(&room),
        };
        if is_news {
            rooms.push((room, member));
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
