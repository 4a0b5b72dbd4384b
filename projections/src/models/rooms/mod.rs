//! What administrators and directories ask of a room as a whole, and the order of all rooms by every such value.
//!
//! What is this room called, how large is it, who can join? Which rooms come after this one by that value? Which have a
//! name like this? How many are there? Is this room blocked?
//!
//! Tables: 3 for each order of the listed rooms an index `value | room id -> room` that counts; 5 `room id -> Block`; 6 the
//! suffixes of the listed rooms' names and aliases; 7 `room -> Known`. Both indexes know of each room whether it is public and
//! whether it is empty.
//!
//! A room is listed once the create event is in its current state: not if this server knows no more than an invitation to
//! it. A message changes nothing here, and a change of the state rewrites the keys of those orders whose value changed.

mod fold;
#[cfg(test)]
mod tests;

use schemas::Nid;
use serde::{Deserialize, Serialize};

use super::events;
use crate::{
    Model, Projection, StoreError,
    counted::Counted,
    listing::{Listing, Page, Search, Value},
    read::{Read, Table, malformed_key, row},
    suffixes::{Suffixes, Term, Texts},
};

const ORDERS: Table = Table { model: Model::Rooms, prefix: 3 };
const BLOCKS: Table = Table { model: Model::Rooms, prefix: 5 };
const ROOMS: Table = Table { model: Model::Rooms, prefix: 7 };
const TEXTS: Suffixes = Suffixes::new(Table { model: Model::Rooms, prefix: 6 }, 0);

/// This model's fold.
pub const PROJECTION: Projection = Projection {
    model: Model::Rooms,
    version: 3,
    reads: &[Model::Staging, Model::Events, Model::State, Model::Membership, Model::Directory],
    fold: fold::fold,
};

/// What the current state says of a room. What is missing there, or has another type than it should, is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `m.room.name`; an empty one is none.
    pub name: Option<String>,
    /// `m.room.topic`.
    pub topic: Option<String>,
    /// `m.room.avatar`.
    pub avatar: Option<String>,
    /// `m.room.canonical_alias`.
    pub canonical_alias: Option<String>,
    /// `m.room.join_rules`.
    pub join_rule: Option<String>,
    /// `m.room.guest_access`.
    pub guest_access: Option<String>,
    /// `m.room.history_visibility`.
    pub history_visibility: Option<String>,
    /// The algorithm of `m.room.encryption`.
    pub encryption: Option<String>,
    /// Who made the room; the first of them where there are several.
    pub creator: Option<String>,
    /// Room version.
    pub version: Option<String>,
    /// The type in `m.room.create`, such as `m.space`.
    pub room_type: Option<String>,
    /// Users of other servers can join.
    pub federatable: bool,
    /// There is an `m.room.tombstone`.
    pub tombstoned: bool,
    /// The room that it names instead.
    pub replacement: Option<String>,
}

/// What is counted of a listed room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// It stands in the public list.
    pub public: bool,
    /// How many events the current state has.
    pub state_events: u64,
    /// How many members are joined.
    pub joined: u64,
    /// How many of them are of this server.
    pub joined_local: u64,
}

/// A listed room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Room id.
    pub id: String,
    /// What its state says.
    pub settings: Settings,
    /// What is counted.
    pub figures: Figures,
}

/// What is kept of a room, listed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    id: String,
    settings: Settings,
    /// None if it isn't listed.
    figures: Option<Figures>,
}

impl Known {
    fn listed(self) -> Option<Summary> {
        let Self { id, settings, figures } = self;
        figures.map(|figures| Summary { id, settings, figures })
    }
}

/// By which value rooms are listed, as the admin API names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Order {
    /// [`Settings::name`].
    Name = 1,
    /// [`Settings::canonical_alias`].
    CanonicalAlias,
    /// [`Figures::joined`].
    JoinedMembers,
    /// [`Figures::joined_local`].
    JoinedLocalMembers,
    /// [`Settings::version`], as text.
    Version,
    /// [`Settings::creator`].
    Creator,
    /// [`Settings::encryption`].
    Encryption,
    /// [`Settings::federatable`]: those that are not come first.
    Federatable,
    /// [`Figures::public`]: those that are not come first.
    Public,
    /// [`Settings::join_rule`].
    JoinRules,
    /// [`Settings::guest_access`].
    GuestAccess,
    /// [`Settings::history_visibility`].
    HistoryVisibility,
    /// [`Figures::state_events`].
    StateEvents,
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Name,
        Self::CanonicalAlias,
        Self::JoinedMembers,
        Self::JoinedLocalMembers,
        Self::Version,
        Self::Creator,
        Self::Encryption,
        Self::Federatable,
        Self::Public,
        Self::JoinRules,
        Self::GuestAccess,
        Self::HistoryVisibility,
        Self::StateEvents,
    ];

    /// Whether the greatest value comes first where the admin API lists forward.
    #[must_use]
    pub const fn falls(self) -> bool {
        matches!(self, Self::JoinedMembers | Self::JoinedLocalMembers | Self::Version | Self::StateEvents)
    }

    fn value(self, room: &Summary) -> Value<'_> {
        let Summary { settings, figures, .. } = room;
        let text = match self {
            Self::JoinedMembers => return figures.joined.into(),
            Self::JoinedLocalMembers => return figures.joined_local.into(),
            Self::StateEvents => return figures.state_events.into(),
            Self::Public => return figures.public.into(),
            Self::Federatable => return settings.federatable.into(),
            Self::Name => &settings.name,
            Self::CanonicalAlias => &settings.canonical_alias,
            Self::Version => &settings.version,
            Self::Creator => &settings.creator,
            Self::Encryption => &settings.encryption,
            Self::JoinRules => &settings.join_rule,
            Self::GuestAccess => &settings.guest_access,
            Self::HistoryVisibility => &settings.history_visibility,
        };
        Value::Text(text.as_deref())
    }

    const fn index(self) -> Counted {
        Counted::new(ORDERS, self as u8)
    }

    /// Where a room stands.
    fn place(self, room: &Summary) -> Vec<u8> {
        [self.value(room).key().as_slice(), room.id.as_bytes()].concat()
    }
}

/// Which rooms to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only rooms whose name or whose alias before the server has this, in any case, or whose id is this.
    pub term: Option<String>,
    /// Only rooms that stand in the public list, or only others.
    pub public: Option<bool>,
    /// Only rooms without a joined member, or only others.
    pub empty: Option<bool>,
}

impl Filter {
    /// Whether it lets rooms of a class through.
    fn takes(&self, class: u8) -> bool {
        let fits = |wanted: Option<bool>, bit: u8| wanted.is_none_or(|wanted| wanted == (class & bit != 0));
        fits(self.public, PUBLIC) && fits(self.empty, EMPTY)
    }
}

/// A class of rooms: those in the public list …
const PUBLIC: u8 = 1;
/// … and those without a joined member.
const EMPTY: u8 = 2;

impl Summary {
    fn class(&self) -> u8 {
        let bit = |bit, is| if is { bit } else { 0 };
        bit(PUBLIC, self.figures.public) | bit(EMPTY, self.figures.joined == 0)
    }

    /// Its name, and its alias before the server.
    fn found_by(&self) -> Texts<'_> {
        let alias = self.settings.canonical_alias.as_deref().unwrap_or_default();
        let localpart = alias.split_once(':').map_or(alias, |(localpart, _)| localpart).trim_start_matches('#');
        Texts { texts: vec![self.settings.name.as_deref().unwrap_or_default(), localpart], class: self.class() }
    }

    fn is_named(&self, term: &Term) -> bool {
        self.found_by().texts.iter().any(|text| term.is_in(text))
    }
}

/// An administrator's block of a room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Full user id, or the name of the tool; empty where the server itself did it.
    pub by: String,
    /// The administrator's words.
    pub reason: Option<String>,
    /// Log time then, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A listed room.
///
/// # Errors
/// When the store fails.
pub fn summary(read: &dyn Read, room: Nid) -> Result<Option<Summary>, StoreError> {
    Ok(known(read, room)?.listed())
}

/// What the current state of a room says; nothing of a room that is not known.
///
/// # Errors
/// When the store fails.
pub fn settings(read: &dyn Read, room: Nid) -> Result<Settings, StoreError> {
    Ok(known(read, room)?.settings)
}

fn known(read: &dyn Read, room: Nid) -> Result<Known, StoreError> {
    Ok(row(read, ROOMS, room.to_bytes())?.unwrap_or_default())
}

/// The rooms that a filter takes, by one value and, where that is the same, by id; without the first `offset`, and at most
/// `limit`. `falling` gives both from the highest down.
///
/// A page costs its rooms, and some hundred keys wherever it is. One of a search costs less than all the rooms that are
/// found, or than those in front of it.
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
    let classes = |class| filter.takes(class);
    let listing = Listing { read, order: order.index(), falling, classes: &classes, search: None };
    let Some(id) = &filter.term else { return listing.page(offset, limit) };
    let term = &Term::new(id);
    let called =
        events::room_nid(read, id)?.map(|room| Ok::<_, StoreError>((room, summary(read, room)?))).transpose()?;
    let also = called
        .and_then(|(nid, room)| room.filter(|room| filter.takes(room.class()) && !room.is_named(term)).map(|_| nid));
    let finds = |room| Ok(summary(read, room)?.is_some_and(|room| room.id == *id || room.is_named(term)));
    let place = |room| summary(read, room)?.map(|room| order.place(&room)).ok_or_else(|| malformed_key(ORDERS));
    let search = Search { term, texts: TEXTS, also, finds: &finds, place: &place };
    Listing { search: Some(&search), ..listing }.page(offset, limit)
}

/// The block of the room with this id, if it is blocked. The room need not be known.
///
/// # Errors
/// When the store fails.
pub fn block(read: &dyn Read, room: &str) -> Result<Option<Block>, StoreError> {
    row(read, BLOCKS, room)
}
