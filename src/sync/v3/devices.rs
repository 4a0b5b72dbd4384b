//! Whose device lists the client has to ask for again, and whose it need not follow any more (client-server API,
//! "Extensions to /sync", `device_lists`).

use std::collections::BTreeSet;

use projections::{
    StoreError,
    models::{
        events, keys,
        membership::{self, Membership},
        state::{self, State},
    },
};
use ruma::{OwnedUserId, api::client::sync::sync_events::DeviceLists};
use schemas::{Lsn, Nid};

use super::{
    Context,
    changed::{Joined, Rooms},
};

/// After one record, up to another.
#[derive(Clone, Copy)]
struct Span {
    since: Lsn,
    until: Lsn,
}

impl Span {
    fn has(self, lsn: Lsn) -> bool {
        lsn > self.since && lsn <= self.until
    }
}

/// Adds what changed up to a record.
pub(super) fn add_lists(
    context: &Context<'_>,
    until: Lsn,
    rooms: &Rooms,
    lists: &mut DeviceLists,
) -> Result<(), StoreError> {
    // Whoever begins anew asks for what they need.
    let Some(since) = context.since() else { return Ok(()) };
    let span = Span { since, until };
    let mut changed = users_with_changes(context, span)?;
    let mut left = BTreeSet::new();
    for joined in &rooms.joined {
        match &joined.before {
            Some(before) if !context.wanted.lost => {
                add_comings_and_goings(context, joined, before, span, &mut changed, &mut left)?;
            }
            _ => add_members(context, &joined.now, joined.room, until, &mut changed)?,
        }
    }
    if context.wanted.lost {
        changed.insert(context.user().to_owned());
    }
    for (room, _) in &rooms.left {
        // Who was never in it has not followed anybody there, and is not told who is.
        if let Some(left_by) = context.reading.left_by(*room)?.filter(|left_by| span.has(*left_by)) {
            add_members(context, &state::as_of(context.view, *room, left_by)?, *room, left_by, &mut left)?;
        }
    }
    for user in left {
        if user != context.user() && !membership::share_room(context.view, context.user(), &user)? {
            changed.remove(&user);
            lists.left.extend(OwnedUserId::try_from(user));
        }
    }
    lists.changed.extend(changed.into_iter().filter_map(|user| OwnedUserId::try_from(user).ok()));
    Ok(())
}

/// Those whose own doing it was, as far as they share a room with the user, encrypted or not.
fn users_with_changes(context: &Context<'_>, span: Span) -> Result<BTreeSet<String>, StoreError> {
    let mut users = BTreeSet::new();
    for change in keys::changed_after(context.view, span.since) {
        let (last, user) = change?;
        let in_time = span.has(last) || keys::has_changed(context.view, &user, span.since, span.until)?;
        if in_time && (user == context.user() || membership::share_room(context.view, context.user(), &user)?) {
            users.insert(user);
        }
    }
    for change in keys::changed_for_after(context.view, context.user(), span.since) {
        let (lsn, user) = change?;
        if span.has(lsn) {
            users.insert(user);
        }
    }
    Ok(users)
}

fn is_encrypted(context: &Context<'_>, state: &State) -> Result<bool, StoreError> {
    Ok(state::get(context.view, state, "m.room.encryption", "")?.is_some())
}

/// Everybody who had come into a room by then and still is in it, if it is encrypted.
fn add_members(
    context: &Context<'_>,
    state: &State,
    room: Nid,
    until: Lsn,
    users: &mut BTreeSet<String>,
) -> Result<(), StoreError> {
    if !is_encrypted(context, state)? {
        return Ok(());
    }
    for user in membership::users_from(context.view, room, Membership::Join) {
        let (membership, since, user) = user?;
        if membership != Membership::Join || since.lsn > until {
            break;
        }
        if user != context.user() {
            users.insert(user);
        }
    }
    Ok(())
}

/// Who has come into an encrypted room since, and who has left it; everybody, if it has become encrypted since.
fn add_comings_and_goings(
    context: &Context<'_>,
    joined: &Joined,
    before: &State,
    span: Span,
    changed: &mut BTreeSet<String>,
    left: &mut BTreeSet<String>,
) -> Result<(), StoreError> {
    if *before == joined.now || !is_encrypted(context, &joined.now)? {
        return Ok(());
    }
    if !is_encrypted(context, before)? {
        return add_members(context, &joined.now, joined.room, span.until, changed);
    }
    for difference in state::diff(context.view, before, &joined.now) {
        let difference = difference?;
        if difference.event_type != "m.room.member" {
            continue;
        }
        let user = difference.state_key;
        match (is_join(context, difference.before)?, is_join(context, difference.after)?) {
            (false, true) => changed.insert(user),
            (true, false) => left.insert(user),
            // They may have been away in between.
            (true, true) => {
                let member = membership::member(context.view, joined.room, &user)?;
                member.is_some_and(|member| member.since.lsn > span.since) && changed.insert(user)
            }
            (false, false) => false,
        };
    }
    Ok(())
}

fn is_join(context: &Context<'_>, event: Option<Nid>) -> Result<bool, StoreError> {
    let head = event.map(|event| events::head(context.view, event)).transpose()?.flatten();
    Ok(head.is_some_and(|head| head.membership == Some(Membership::Join)))
}
