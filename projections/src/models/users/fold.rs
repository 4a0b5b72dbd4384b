use schemas::{Fact, Nid, facts::UserKind};

use super::{BY_ID, BY_NAMES, IDS, LATER_TYPE, Order, TYPES, USERS, User, get, type_number};
use crate::{
    At, Batch, FoldError, StoreError,
    keys::KeyBuf,
    models::{accounts, profiles, seen},
    read::{Range, Read, row},
};

pub(super) fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let user = match fact {
        Fact::UserRegistered(f) => {
            let key = KeyBuf::new().str(&f.user);
            if row::<Nid>(batch, IDS, &key)?.is_none() {
                batch.put(IDS, key, &at.nid());
            }
            &f.user
        }
        Fact::AccountDeactivated(f) => &f.user,
        Fact::AccountReactivated(f) => &f.user,
        Fact::AdminSet(f) => &f.user,
        Fact::AccountStatusSet(f) => &f.user,
        Fact::ShadowBanSet(f) => &f.user,
        Fact::UserTypeSet(f) => &f.user,
        Fact::ProfileFieldSet(f) if matches!(f.field.as_str(), "displayname" | "avatar_url") => &f.user,
        Fact::DevicesSeen(f) => return f.seen.iter().try_for_each(|seen| relist(&seen.user, batch)),
        _ => return Ok(()),
    };
    relist(user, batch)
}

/// Brings a user's keys to what is true of them now.
fn relist(id: &str, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(nid) = row::<Nid>(batch, IDS, KeyBuf::new().str(id))? else { return Ok(()) };
    let Some(is) = current(id, batch)? else { return Ok(()) };
    let was = get(batch, nid)?;
    if was.as_ref() == Some(&is) {
        return Ok(());
    }
    batch.put(USERS, nid.to_bytes(), &is);
    for order in Order::ALL {
        let same = |was: &User| order.value(was) == order.value(&is) && was.class() == is.class();
        if was.as_ref().is_some_and(same) {
            continue;
        }
        for falling in [false, true] {
            let to = order.place(&is, falling);
            if let Some(from) = was.as_ref().map(|was| order.place(was, falling)).filter(|from| *from != to) {
                order.index(falling).remove(batch, &from)?;
            }
            order.index(falling).insert(batch, &to, is.class().into(), &nid.to_bytes())?;
        }
    }
    BY_NAMES.change(batch, nid, was.as_ref().map(User::names), Some(is.names()))?;
    BY_ID.change(batch, nid, was.as_ref().map(User::own_id), Some(is.own_id()))?;
    Ok(())
}

/// What is true of a user now.
fn current(id: &str, batch: &mut Batch<'_>) -> Result<Option<User>, StoreError> {
    let Some(account) = accounts::get(batch, id)? else { return Ok(None) };
    let text = |field| -> Result<Option<String>, StoreError> {
        Ok(profiles::field(batch, id, field)?.and_then(|value| value.read().ok()))
    };
    let (display_name, avatar_url) = (text("displayname")?, text("avatar_url")?);
    let last_seen_ms = seen::last(batch, id)?;
    let type_number = match &account.user_type {
        Some(name) => number_type(name, batch)?,
        None => 0,
    };
    Ok(Some(User {
        id: id.to_owned(),
        guest: account.kind == UserKind::Guest,
        admin: account.admin,
        locked: account.locked,
        suspended: account.suspended,
        shadow_banned: account.shadow_banned,
        deactivated: account.deactivated,
        erased: account.erased,
        user_type: account.user_type,
        display_name,
        avatar_url,
        created_at_ms: account.created_at_ms,
        last_seen_ms,
        type_number,
    }))
}

/// The number of a type, which gets one if it is new and there are any left.
fn number_type(name: &str, batch: &mut Batch<'_>) -> Result<u8, StoreError> {
    if let Some(number) = type_number(batch, name)? {
        return Ok(number);
    }
    let used = batch.scan(TYPES, Range::prefix([])).take(usize::from(LATER_TYPE)).count();
    let number = u8::try_from(used + 1).unwrap_or(LATER_TYPE).min(LATER_TYPE);
    if number < LATER_TYPE {
        batch.put(TYPES, KeyBuf::new().str(name), &number);
    }
    Ok(number)
}
