//! Whose device lists the client has to ask for again, and whose it need not follow any more (client-server API,
//! "Extensions to /sync", `device_lists`).

use std::collections::BTreeSet;

use projections::{
    StoreError,
    models::{
        keys,
        membership::{self, Membership},
        state,
    },
};
use ruma::{OwnedUserId, api::client::sync::sync_events::DeviceLists};
use schemas::{Lsn, Nid};

use super::{Context, changed::Rooms};

pub(super) fn add_lists(context: &Context<'_>, rooms: &Rooms, lists: &mut DeviceLists) -> Result<(), StoreError> {
    // Whoever begins anew asks for what they need.
    let Some(since) = context.since() else { return Ok(()) };
    let (mut changed, mut left) = (BTreeSet::new(), BTreeSet::new());
    for change in keys::changed_after(context.view, since) {
        let (_, user) = change?;
        if !changed.contains(&user)
            && (user == context.user() || membership::share_room(context.view, context.user(), &user)?)
        {
            changed.insert(user);
        }
    }
    for change in keys::changed_for_after(context.view, context.user(), since) {
        changed.insert(change?.1);
    }
    for (room, member) in &rooms.joined {
        let newly = member.since.lsn > since && member.previous != Some(Membership::Join);
        if newly {
            add_members(context, *room, &mut changed)?;
        } else {
            add_comings_and_goings(context, *room, since, &mut changed, &mut left)?;
        }
    }
    for (room, _) in &rooms.left {
        // Who was never in it has not followed anybody there, and is not told who is.
        if context.reading.left_by(*room)?.is_some_and(|left_by| left_by > since) {
            add_members(context, *room, &mut left)?;
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

fn is_encrypted(context: &Context<'_>, room: Nid) -> Result<bool, StoreError> {
    let current = state::current(context.view, room)?;
    Ok(state::get(context.view, &current, "m.room.encryption", "")?.is_some())
}

/// Everybody in an encrypted room.
fn add_members(context: &Context<'_>, room: Nid, users: &mut BTreeSet<String>) -> Result<(), StoreError> {
    if is_encrypted(context, room)? {
        for user in membership::users_in(context.view, room, Membership::Join) {
            let user = user?;
            if user != context.user() {
                users.insert(user);
            }
        }
    }
    Ok(())
}

/// Who has come into an encrypted room since, and who has left it.
fn add_comings_and_goings(
    context: &Context<'_>,
    room: Nid,
    since: Lsn,
    changed: &mut BTreeSet<String>,
    left: &mut BTreeSet<String>,
) -> Result<(), StoreError> {
    let (before, after) = (state::as_of(context.view, room, since)?, state::current(context.view, room)?);
    if before == after || !is_encrypted(context, room)? {
        return Ok(());
    }
    for difference in state::diff(context.view, &before, &after) {
        let difference = difference?;
        if difference.event_type != "m.room.member" {
            continue;
        }
        let Some(member) = membership::member(context.view, room, &difference.state_key)? else { continue };
        if member.since.lsn <= since {
            continue;
        }
        match (member.membership, member.previous) {
            (Membership::Join, _) => changed.insert(difference.state_key),
            (Membership::Leave | Membership::Ban, _) => left.insert(difference.state_key),
            _ => false,
        };
    }
    Ok(())
}
