//! A room that the user is in: timeline, state, summary, counts, account data, receipts, typing.

use std::collections::{BTreeMap, BTreeSet};

use projections::{
    Position, StoreError,
    models::{
        events::{self, Head},
        membership::{self, Counts, Membership},
        push,
        receipts::{self, Receipt},
        rooms,
        state::{self, Difference, State},
        timeline,
    },
};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UInt,
    api::client::{
        filter::LazyLoadOptions,
        sync::sync_events::{
            UnreadNotificationsCount,
            v3::{Ephemeral, JoinedRoom, Response, RoomSummary, State as StateSection, Timeline},
        },
    },
    events::AnySyncStateEvent,
    serde::Raw,
};
use schemas::{Lsn, Nid};

use super::{
    Context,
    changed::Joined,
    sections::{AccountData, receipt_event, typing_event},
};
use crate::reading::Matcher;

/// Events in a timeline if the client doesn't say.
pub const DEFAULT_LIMIT: usize = 10;
/// Events that are looked at for each that is shown, at most, where a filter lets few through.
const SEARCH: usize = 20;
/// Heroes of a room without a name.
const HEROES: usize = 5;

/// What a timeline shows, and from where on.
pub(super) struct Shown {
    pub(super) section: Timeline,
    /// The state before the first event of the timeline, or at its end if it is empty.
    pub(super) start: State,
    /// Its events.
    events: Vec<Nid>,
    /// Whose memberships belong to it: its senders', and the heroes' of the summary.
    members: BTreeSet<String>,
}

/// A span of a room's history.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) room: Nid,
    /// What the client has; none is nothing.
    pub(super) after: Option<Lsn>,
    /// Up to here.
    pub(super) until: Position,
    /// The state at the end.
    pub(super) end: State,
}

pub(super) fn add(
    context: &Context<'_>,
    room: &Joined,
    account_data: &AccountData,
    response: &mut Response,
) -> Result<(), StoreError> {
    let Joined { room, ref member, before, now } = *room;
    let Some(id) = room_id(context, room)? else { return Ok(()) };
    context.reading.knows(room, member);
    let since = context.since().filter(|_| before.is_some());
    let span = Span { room, after: since, until: Position::after_record(context.view.lsn()), end: now };
    let mut shown = timeline_of(context, &id, span)?;
    // Whoever was in the room before has events of it that this timeline doesn't join on to.
    let newly = since.is_none() && context.since().is_some();
    shown.section.limited |= newly;
    let mut joined = JoinedRoom::new();
    let summary_changed = match before {
        Some(before) if !context.wanted.full_state => differs_in_summary(context, &before, &now)?,
        _ => true,
    };
    if summary_changed {
        joined.summary = summary(context, room)?;
        shown.members.extend(joined.summary.heroes.iter().map(ToString::to_string));
    }
    joined.state = state_of(context, &id, span, before, &shown)?;
    joined.timeline = shown.section;
    let receipts = Receipts::read(context, room, since)?;
    add_ephemeral(context, &id, since, &receipts.new, &mut joined.ephemeral);
    joined.account_data.events =
        if newly { AccountData::all_in_room(context, &id)? } else { account_data.in_room(context, &id) };
    let news = since.is_none()
        || !joined.timeline.events.is_empty()
        || joined.timeline.limited
        || !joined.state.is_empty()
        || !joined.account_data.events.is_empty()
        || !joined.ephemeral.events.is_empty()
        || summary_changed
        // The counts are other ones then.
        || receipts.new.iter().any(|receipt| receipt.user == context.user());
    if !news {
        return Ok(());
    }
    if joined.timeline.events.is_empty() && !joined.timeline.limited {
        // Nothing to page back from.
        joined.timeline.prev_batch = None;
    }
    let own = receipts.own(context, room)?;
    let rules = context.rules.as_ref().map(|(_, rules)| rules);
    let reader = push::Reader { user: &context.asker.user, rules, member, receipts: &own };
    let unread = push::unread(context.view, room, &id, &reader)?;
    add_counts(context, &unread, &mut joined);
    response.rooms.join.insert(id, joined);
    Ok(())
}

pub(super) fn room_id(context: &Context<'_>, room: Nid) -> Result<Option<OwnedRoomId>, StoreError> {
    Ok(events::room(context.view, room)?.and_then(|room| OwnedRoomId::try_from(room.id).ok()))
}

/// The last events of a span, with no gap between them and what the client has unless the timeline says that it is
/// limited.
pub(super) fn timeline_of(context: &Context<'_>, id: &RoomId, span: Span) -> Result<Shown, StoreError> {
    let filter = &context.wanted.filter.room.timeline;
    let matcher = Matcher::from(filter).related_by(&context.wanted.related.room.timeline);
    let limit = filter.limit.map_or(DEFAULT_LIMIT, |limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX));
    let limit = if matcher.room(id.as_str()) { limit } else { 0 };
    let mut shown: Vec<(Nid, Head, String)> = Vec::new();
    let (mut start, mut limited, mut looked_at) = (span.until, false, 0);
    for item in timeline::backward(context.view, span.room, span.until) {
        let (position, item) = item?;
        if span.after.is_some_and(|after| position < Position::after_record(after)) {
            break;
        }
        looked_at += 1;
        if shown.len() >= limit || looked_at > limit.saturating_add(1).saturating_mul(SEARCH) {
            limited = true;
            break;
        }
        start = position;
        if let Some((event, text)) = context.reading.fitting(item.event, &matcher)? {
            shown.push((item.event, event, text));
        }
        if item.after_gap {
            limited = true;
            break;
        }
    }
    let start_state = match shown.last() {
        Some((first, ..)) => context.reading.state_before(*first)?.unwrap_or(span.end),
        None => span.end,
    };
    let mut section = Timeline::new();
    section.limited = limited;
    section.prev_batch = Some(start.to_string());
    let (mut events, mut members) = (Vec::with_capacity(shown.len()), BTreeSet::new());
    for (nid, event, text) in shown.into_iter().rev() {
        section.events.push(context.fields.of(context.reading.finish(nid, &event, text)?));
        events.push(nid);
        members.insert(event.sender);
    }
    Ok(Shown { section, start: start_state, events, members })
}

/// The state section: what the client lacks before the timeline, or after it if it wants that.
pub(super) fn state_of(
    context: &Context<'_>,
    id: &RoomId,
    span: Span,
    before: Option<State>,
    shown: &Shown,
) -> Result<StateSection, StoreError> {
    let filter = &context.wanted.filter.room.state;
    let matcher = Matcher::from(filter).related_by(&context.wanted.related.room.state);
    let target = if context.wanted.use_state_after { span.end } else { shown.start };
    let mut picked: BTreeMap<(String, String), Nid> = BTreeMap::new();
    if matcher.room(id.as_str()) {
        let lazy = matches!(filter.lazy_load_options, LazyLoadOptions::Enabled { .. });
        let needed = |event_type: &str, user: &str| {
            !lazy || event_type != "m.room.member" || shown.members.contains(user) || user == context.user()
        };
        let pick = |picked: &mut BTreeMap<_, _>, from: &State, to: &State, unless: &[Nid]| -> Result<(), StoreError> {
            for difference in state::diff(context.view, from, to) {
                let Difference { event_type, state_key, after, .. } = difference?;
                if let Some(event) = after.filter(|event| !unless.contains(event))
                    && needed(&event_type, &state_key)
                {
                    picked.insert((event_type, state_key), event);
                }
            }
            Ok(())
        };
        match before.filter(|_| !context.wanted.full_state) {
            Some(before) => pick(&mut picked, &before, &target, &[])?,
            None if lazy => pick_lazily(context, &target, &mut picked)?,
            None => {
                for entry in state::all(context.view, &target) {
                    let entry = entry?;
                    picked.insert((entry.event_type, entry.state_key), entry.event);
                }
            }
        }
        if lazy {
            for user in &shown.members {
                if let Some(event) = state::get(context.view, &target, "m.room.member", user)? {
                    picked.insert(("m.room.member".to_owned(), user.clone()), event);
                }
            }
        }
        // What changed within the timeline and is not shown there: a filter leaves it out, or the user may not see it.
        pick(&mut picked, &target, &span.end, &shown.events)?;
    }
    let mut section: Vec<Raw<AnySyncStateEvent>> = Vec::with_capacity(picked.len());
    for ((event_type, _), nid) in picked {
        if matcher.event_type(&event_type)
            && let Some((event, text)) = context.reading.fitting_state(nid, &matcher)?
        {
            section.push(context.fields.of(context.reading.finish_state(&event, text)?));
        }
    }
    Ok(if context.wanted.use_state_after {
        StateSection::After(section.into())
    } else {
        StateSection::Before(section.into())
    })
}

/// All state but the members, and the user's own membership; it costs nothing more in a larger room.
fn pick_lazily(
    context: &Context<'_>,
    target: &State,
    picked: &mut BTreeMap<(String, String), Nid>,
) -> Result<(), StoreError> {
    for entry in state::except_type(context.view, target, "m.room.member") {
        let entry = entry?;
        picked.insert((entry.event_type, entry.state_key), entry.event);
    }
    if let Some(own) = state::get(context.view, target, "m.room.member", context.user())? {
        picked.insert(("m.room.member".to_owned(), context.user().to_owned()), own);
    }
    Ok(())
}

/// Whether anything changed that the summary is made from.
fn differs_in_summary(context: &Context<'_>, before: &State, after: &State) -> Result<bool, StoreError> {
    for difference in state::diff(context.view, before, after) {
        if matches!(difference?.event_type.as_str(), "m.room.member" | "m.room.name" | "m.room.canonical_alias") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn summary(context: &Context<'_>, room: Nid) -> Result<RoomSummary, StoreError> {
    let counts = membership::counts(context.view, room)?;
    let mut summary = RoomSummary::new();
    summary.joined_member_count = Some(UInt::new_saturating(counts.joined));
    summary.invited_member_count = Some(UInt::new_saturating(counts.invited));
    let settings = rooms::settings(context.view, room)?;
    if settings.name.is_none() && settings.canonical_alias.is_none() {
        summary.heroes = heroes(context, room, &counts)?;
    }
    Ok(summary)
}

/// The first members but the user: those who are in or invited, else those who have left.
fn heroes(context: &Context<'_>, room: Nid, counts: &Counts) -> Result<Vec<OwnedUserId>, StoreError> {
    // The user is one of them.
    let (first, last) = match counts.joined + counts.invited {
        2.. => (Membership::Join, Membership::Invite),
        _ => (Membership::Leave, Membership::Ban),
    };
    let mut heroes = Vec::new();
    for user in membership::users_from(context.view, room, first) {
        let (membership, _, user) = user?;
        if membership > last || heroes.len() == HEROES {
            break;
        }
        if user != context.user() {
            heroes.extend(OwnedUserId::try_from(user));
        }
    }
    Ok(heroes)
}

/// The receipts of a room that the user may see.
struct Receipts {
    new: Vec<Receipt>,
    /// There are some, new or not.
    any: bool,
    /// The new ones are all there are.
    all: bool,
}

impl Receipts {
    /// Those that moved since a record, or all. To see that there are none costs a look at one key.
    fn read(context: &Context<'_>, room: Nid, since: Option<Lsn>) -> Result<Self, StoreError> {
        let last = receipts::last_in_room(context.view, room)?;
        let new = match (last, since) {
            (Some(_), None) => receipts::in_room(context.view, room, context.user())?,
            (Some(last), Some(since)) if last > since => {
                receipts::changed_after(context.view, room, context.user(), since)?
            }
            _ => Vec::new(),
        };
        Ok(Self { new, any: last.is_some(), all: since.is_none() })
    }

    /// The user's own, all of them.
    fn own(self, context: &Context<'_>, room: Nid) -> Result<Vec<Receipt>, StoreError> {
        match (self.any, self.all) {
            (false, _) => Ok(Vec::new()),
            (true, true) => Ok(self.new.into_iter().filter(|receipt| receipt.user == context.user()).collect()),
            (true, false) => receipts::of_user(context.view, room, context.user()),
        }
    }
}

fn add_ephemeral(
    context: &Context<'_>,
    id: &RoomId,
    since: Option<Lsn>,
    receipts: &[Receipt],
    ephemeral: &mut Ephemeral,
) {
    let matcher = Matcher::from(&context.wanted.filter.room.ephemeral);
    if !matcher.room(id.as_str()) {
        return;
    }
    if matcher.event_type("m.receipt") {
        ephemeral.events.extend(receipt_event(receipts));
    }
    if matcher.event_type("m.typing")
        && let Some(users) = context.ephemeral.typing_since(id, since.map_or(0, |_| context.ephemeral_since))
        && !(since.is_none() && users.is_empty())
    {
        ephemeral.events.extend(typing_event(&users));
    }
}

fn add_counts(context: &Context<'_>, unread: &push::Unread, joined: &mut JoinedRoom) {
    let by_thread = context.wanted.filter.room.timeline.unread_thread_notifications;
    let count = |counts: &push::Counts| {
        let mut section = UnreadNotificationsCount::new();
        section.notification_count = Some(UInt::new_saturating(counts.notifications));
        section.highlight_count = Some(UInt::new_saturating(counts.highlights));
        section
    };
    if by_thread {
        joined.unread_notifications = count(&unread.main);
        for (root, counts) in &unread.threads {
            if let Ok(root) = root.as_str().try_into() {
                joined.unread_thread_notifications.insert(root, count(counts));
            }
        }
    } else {
        joined.unread_notifications = count(&unread.total());
    }
}
