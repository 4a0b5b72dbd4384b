//! What administrators list users by, and the order of all of them by every such value.
//!
//! Which users come where, by that value? Which have a name like this, are guests, administrators, of some type? How many?
//!
//! Tables: 1 `user -> its short id`; 2 `short id -> User`; 3 for each order, and again for its reverse, an index `value |
//! user -> short id` that counts; 4 the suffixes of localparts and display names, scope 1, and of user ids, scope 2; 5
//! `type of user -> its number`.
//!
//! Where a value is the same, users come in the order of their ids, in both directions: so each direction has an index.

mod fold;
#[cfg(test)]
mod tests;

use schemas::Nid;
use serde::{Deserialize, Serialize};

use super::membership;
use crate::{
    Model, Projection, StoreError,
    counted::Counted,
    keys::KeyBuf,
    listing::{Listing, Page, Search, Value},
    read::{Read, Table, malformed_key, row},
    suffixes::{Suffixes, Term, Texts},
};

const IDS: Table = Table { model: Model::Users, prefix: 1 };
const USERS: Table = Table { model: Model::Users, prefix: 2 };
const ORDERS: Table = Table { model: Model::Users, prefix: 3 };
const TEXTS: Table = Table { model: Model::Users, prefix: 4 };
const TYPES: Table = Table { model: Model::Users, prefix: 5 };

const BY_NAMES: Suffixes = Suffixes::new(TEXTS, 1);
const BY_ID: Suffixes = Suffixes::new(TEXTS, 2);

/// This model's fold.
pub const PROJECTION: Projection = Projection {
    model: Model::Users,
    version: 1,
    reads: &[Model::Accounts, Model::Seen, Model::Profiles],
    fold: fold::fold,
};

/// A user of this server as lists show them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Full user id.
    pub id: String,
    /// A guest.
    pub guest: bool,
    /// Administers the server.
    pub admin: bool,
    /// Can't use its tokens.
    pub locked: bool,
    /// Can read and leave, but not send or join.
    pub suspended: bool,
    /// What they send gets to nobody else.
    pub shadow_banned: bool,
    /// Has ended.
    pub deactivated: bool,
    /// Has ended, and asked to be forgotten.
    pub erased: bool,
    /// What sort of user administrators take this one for.
    pub user_type: Option<String>,
    /// Of the profile.
    pub display_name: Option<String>,
    /// Of the profile.
    pub avatar_url: Option<String>,
    /// Log time at which it was registered, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// When one of its devices was last seen, as far as the log has it, milliseconds since the Unix epoch.
    pub last_seen_ms: Option<u64>,
    /// The number of its type.
    type_number: u8,
}

/// By which value users are listed, as the admin API names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// [`User::id`].
    Name = 1,
    /// [`User::display_name`].
    DisplayName,
    /// [`User::guest`]: those that are not come first, as with everything that is so or not.
    Guest,
    /// [`User::admin`].
    Admin,
    /// [`User::deactivated`].
    Deactivated,
    /// [`User::user_type`].
    UserType,
    /// [`User::avatar_url`].
    AvatarUrl,
    /// [`User::shadow_banned`].
    ShadowBanned,
    /// [`User::created_at_ms`].
    Created,
    /// [`User::last_seen_ms`].
    LastSeen,
    /// [`User::locked`].
    Locked,
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Name,
        Self::DisplayName,
        Self::Guest,
        Self::Admin,
        Self::Deactivated,
        Self::UserType,
        Self::AvatarUrl,
        Self::ShadowBanned,
        Self::Created,
        Self::LastSeen,
        Self::Locked,
    ];

    fn value(self, user: &User) -> Value<'_> {
        match self {
            Self::Name => Value::Text(Some(&user.id)),
            Self::DisplayName => Value::Text(user.display_name.as_deref()),
            Self::UserType => Value::Text(user.user_type.as_deref()),
            Self::AvatarUrl => Value::Text(user.avatar_url.as_deref()),
            Self::Guest => user.guest.into(),
            Self::Admin => user.admin.into(),
            Self::Deactivated => user.deactivated.into(),
            Self::ShadowBanned => user.shadow_banned.into(),
            Self::Locked => user.locked.into(),
            Self::Created => Value::Number(Some(user.created_at_ms)),
            Self::LastSeen => Value::Number(user.last_seen_ms),
        }
    }

    /// The index of a direction.
    const fn index(self, falling: bool) -> Counted {
        Counted::new(ORDERS, 2 * self as u8 + falling as u8)
    }

    /// Where a user stands in it.
    fn place(self, user: &User, falling: bool) -> Vec<u8> {
        let mut key = self.value(user).key();
        if falling {
            key.iter_mut().for_each(|byte| *byte = !*byte);
        }
        key.extend_from_slice(user.id.as_bytes());
        key
    }
}

/// A class of users: guests …
const GUEST: u8 = 1;
/// … those whose accounts have ended …
const DEACTIVATED: u8 = 2;
/// … administrators …
const ADMIN: u8 = 4;
/// … and those who are locked.
const LOCKED: u8 = 8;
/// Above these bits is the number of the user's type: none, one of the first that there were, or a later one.
const TYPE_SHIFT: u32 = 4;
const LATER_TYPE: u8 = 15;

/// Which users to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only users whose localpart or display name has this, in any case.
    pub name: Option<String>,
    /// Only users whose id has this, in any case; `name` goes before it.
    pub user_id: Option<String>,
    /// Only guests, or only others.
    pub guests: Option<bool>,
    /// Only users whose accounts have ended, or only others.
    pub deactivated: Option<bool>,
    /// Only administrators, or only others.
    pub admins: Option<bool>,
    /// Only users who are locked, or only others.
    pub locked: Option<bool>,
    /// Not users of these types; the empty text is for those who have none. After the first 14 types that this server had,
    /// users of others can't be told apart, and are listed.
    pub not_types: Vec<String>,
}

/// A [`Filter`] with its types' numbers.
struct Wanted<'a> {
    filter: &'a Filter,
    not_types: Vec<u8>,
}

impl Wanted<'_> {
    fn takes(&self, class: u8) -> bool {
        let fits = |wanted: Option<bool>, bit: u8| wanted.is_none_or(|wanted| wanted == (class & bit != 0));
        fits(self.filter.guests, GUEST)
            && fits(self.filter.deactivated, DEACTIVATED)
            && fits(self.filter.admins, ADMIN)
            && fits(self.filter.locked, LOCKED)
            && !self.not_types.contains(&(class >> TYPE_SHIFT))
    }
}

impl User {
    fn class(&self) -> u8 {
        let bit = |bit, is| if is { bit } else { 0 };
        bit(GUEST, self.guest)
            | bit(DEACTIVATED, self.deactivated)
            | bit(ADMIN, self.admin)
            | bit(LOCKED, self.locked)
            | self.type_number << TYPE_SHIFT
    }

    fn localpart(&self) -> &str {
        self.id.split_once(':').map_or(&*self.id, |(localpart, _)| localpart).trim_start_matches('@')
    }

    /// What [`Filter::name`] looks at.
    fn names(&self) -> Texts<'_> {
        Texts { texts: vec![self.localpart(), self.display_name.as_deref().unwrap_or_default()], class: self.class() }
    }

    /// What [`Filter::user_id`] looks at: all users have the rest of their ids in common.
    fn own_id(&self) -> Texts<'_> {
        let end = self.id.find(':').map_or(self.id.len(), |colon| colon + 1);
        Texts { texts: vec![&self.id[..end]], class: self.class() }
    }
}

/// A user by short id.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, user: Nid) -> Result<Option<User>, StoreError> {
    row(read, USERS, user.to_bytes())
}

/// The users that a filter takes, by one value, from the highest down if `falling`, and where that is the same, by id from
/// the lowest up; without the first `offset`, and at most `limit`. A page costs its users, and some hundred keys.
///
/// # Errors
/// When the store fails.
pub fn page(
    read: &dyn Read,
    order: Order,
    falling: bool,
    filter: &Filter,
    offset: u64,
    limit: usize,
) -> Result<Page, StoreError> {
    let mut not_types = Vec::new();
    for name in &filter.not_types {
        not_types.extend(type_number(read, name)?.filter(|number| *number != LATER_TYPE));
    }
    let wanted = Wanted { filter, not_types };
    let classes = |class| wanted.takes(class);
    // Each index stands in the order of its direction.
    let listing = Listing { read, order: order.index(falling), falling: false, classes: &classes, search: None };
    let (term, texts, looks_at): (_, _, fn(&User) -> Texts<'_>) = match (&filter.name, &filter.user_id) {
        (Some(name), _) => (Term::new(name), BY_NAMES, User::names),
        (None, Some(id)) => match own_part(id, &membership::server(read)?) {
            OwnPart::Any => return listing.page(offset, limit),
            OwnPart::Nobodys => return Ok(Page { rows: Vec::new(), total: 0 }),
            OwnPart::With(part) => (Term::new(part), BY_ID, User::own_id),
        },
        (None, None) => return listing.page(offset, limit),
    };
    let finds =
        |user| Ok(get(read, user)?.is_some_and(|user| looks_at(&user).texts.iter().any(|text| term.is_in(text))));
    let place = |user| get(read, user)?.map(|user| order.place(&user, falling)).ok_or_else(|| malformed_key(ORDERS));
    let search = Search { term: &term, texts, also: None, finds: &finds, place: &place };
    Listing { search: Some(&search), ..listing }.page(offset, limit)
}

/// What a part of a user id says of the part that users don't have in common.
enum OwnPart<'a> {
    /// Everybody's id has it.
    Any,
    /// Nobody's id has it.
    Nobodys,
    /// The ids that have this before the server.
    With(&'a str),
}

fn own_part<'a>(part: &'a str, server: &str) -> OwnPart<'a> {
    let lower = part.to_lowercase();
    if format!(":{server}").contains(&lower) {
        return OwnPart::Any;
    }
    match part.split_once(':') {
        None => OwnPart::With(part),
        Some((own, rest)) if server.starts_with(&rest.to_lowercase()) => OwnPart::With(&part[..=own.len()]),
        Some(_) => OwnPart::Nobodys,
    }
}

/// The number of a type: 0 for none, [`LATER_TYPE`] for one that came too late to have its own.
fn type_number(read: &dyn Read, name: &str) -> Result<Option<u8>, StoreError> {
    if name.is_empty() { Ok(Some(0)) } else { row(read, TYPES, KeyBuf::new().str(name)) }
}
