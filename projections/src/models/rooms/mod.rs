//! What administrators and directories ask of a room as a whole, and the order of all rooms by every such value.
//!
//! What is this room called, how large is it, who can join? Which rooms come after this one by that value? Which have a
//! name like this? How many are there? Is this room blocked?
//!
//! Tables: 1 `room -> Settings`, from the current state; 2 `room -> Figures`, of the rooms that are listed; 3 `order | value
//! | room id -> room`, one key for each order of each listed room; 4 `class -> number of listed rooms`; 5 `room id -> Block`.
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
    keys::{KeyBuf, after_prefix},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const SETTINGS: Table = Table { model: Model::Rooms, prefix: 1 };
const FIGURES: Table = Table { model: Model::Rooms, prefix: 2 };
const ORDERS: Table = Table { model: Model::Rooms, prefix: 3 };
const TOTALS: Table = Table { model: Model::Rooms, prefix: 4 };
const BLOCKS: Table = Table { model: Model::Rooms, prefix: 5 };

/// Texts are sorted by so many bytes of them; rooms that have these in common, by their ids.
const SORTED_BYTES: usize = 255;

/// This model's fold.
pub const PROJECTION: Projection = Projection {
    model: Model::Rooms,
    version: 1,
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

/// A value to sort by. Texts come in the order of their bytes, and those that are not there last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Text(Option<&'a str>),
    Number(u64),
}

impl Order {
    const ALL: [Self; 13] = [
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

    /// The value, if it is one of the settings.
    fn setting(self, settings: &Settings) -> Option<Value<'_>> {
        let text = match self {
            Self::Name => &settings.name,
            Self::CanonicalAlias => &settings.canonical_alias,
            Self::Version => &settings.version,
            Self::Creator => &settings.creator,
            Self::Encryption => &settings.encryption,
            Self::JoinRules => &settings.join_rule,
            Self::GuestAccess => &settings.guest_access,
            Self::HistoryVisibility => &settings.history_visibility,
            Self::Federatable => return Some(Value::Number(settings.federatable.into())),
            Self::Public | Self::JoinedMembers | Self::JoinedLocalMembers | Self::StateEvents => return None,
        };
        Some(Value::Text(text.as_deref()))
    }

    /// The value, if it is one of the figures.
    fn figure(self, figures: &Figures) -> Option<Value<'static>> {
        let number = match self {
            Self::JoinedMembers => figures.joined,
            Self::JoinedLocalMembers => figures.joined_local,
            Self::StateEvents => figures.state_events,
            Self::Public => figures.public.into(),
            _ => return None,
        };
        Some(Value::Number(number))
    }

    fn key(self, value: Value<'_>, room: &str) -> KeyBuf {
        let key = KeyBuf::new().u8(self as u8);
        let key = match value {
            Value::Text(Some(text)) => key.u8(0).str(sorted_part(text)),
            Value::Text(None) => key.u8(1),
            Value::Number(number) => key.u64(number),
        };
        key.raw(room.as_bytes())
    }
}

/// As much of a text as is sorted by.
fn sorted_part(text: &str) -> &str {
    // One of the last four ends is between characters; a shorter text is whole.
    (SORTED_BYTES - 3..=SORTED_BYTES).rev().find_map(|end| text.get(..end)).unwrap_or(text)
}

/// Where a room stands in one of the orders, to go on from: bytes without a meaning of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub Vec<u8>);

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
    /// Whether it lets all rooms through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    fn takes_figures(&self, figures: &Figures) -> bool {
        self.public.is_none_or(|public| public == figures.public)
            && self.empty.is_none_or(|empty| empty == (figures.joined == 0))
    }

    fn takes(&self, read: &dyn Read, room: Nid) -> Result<bool, StoreError> {
        if self.is_open() {
            return Ok(true);
        }
        Ok(summary(read, room)?.is_some_and(|room| {
            self.takes_figures(&room.figures) && self.term.as_ref().is_none_or(|term| room.is_named_like(term))
        }))
    }
}

impl Summary {
    /// Whether the name or the alias before the server has this in any case, or the id is this.
    #[must_use]
    pub fn is_named_like(&self, term: &str) -> bool {
        let term_in = |text: &str| text.to_lowercase().contains(&term.to_lowercase());
        let alias = self.settings.canonical_alias.as_deref().unwrap_or_default();
        let localpart = alias.split_once(':').map_or(alias, |(localpart, _)| localpart).trim_start_matches('#');
        self.settings.name.as_deref().is_some_and(term_in) || term_in(localpart) || self.id == term
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
    let Some(figures) = row(read, FIGURES, room.to_bytes())? else { return Ok(None) };
    let settings = settings(read, room)?;
    Ok(events::room(read, room)?.map(|room| Summary { id: room.id, settings, figures }))
}

/// What the current state of a room says; nothing of a room that is not known.
///
/// # Errors
/// When the store fails.
pub fn settings(read: &dyn Read, room: Nid) -> Result<Settings, StoreError> {
    Ok(row(read, SETTINGS, room.to_bytes())?.unwrap_or_default())
}

/// The rooms that a filter takes, by one value and, where that is the same, by id; from one place on (exclusive) or all.
///
/// `falling` gives both from the highest down. Without a filter a room costs one key.
pub fn list<'a>(
    read: &'a dyn Read,
    order: Order,
    falling: bool,
    after: Option<&Place>,
    filter: &'a Filter,
) -> impl Iterator<Item = Result<(Place, Nid), StoreError>> + 'a {
    let prefix = [order as u8];
    let at = |place: &Place| [&prefix, place.0.as_slice()].concat();
    let range = match after {
        Some(place) if falling => Range { from: prefix.to_vec(), to: Some(at(place)), reverse: true },
        // A key with one more byte is the first one after it.
        Some(place) => Range { from: [at(place), vec![0]].concat(), to: after_prefix(&prefix), reverse: false },
        None => Range { reverse: falling, ..Range::prefix(prefix) },
    };
    let places = read.scan(ORDERS, range).map(|row| {
        let (key, room) = row?;
        let place = key.get(1..).map(|place| Place(place.to_vec()));
        place.zip(Nid::from_slice(&room)).ok_or_else(|| malformed_key(ORDERS))
    });
    places.filter_map(move |row| {
        let taken = row.and_then(|(place, room)| Ok(filter.takes(read, room)?.then_some((place, room))));
        taken.transpose()
    })
}

/// How many rooms a filter takes. With a term it looks at each room.
///
/// # Errors
/// When the store fails.
pub fn count(read: &dyn Read, filter: &Filter) -> Result<u64, StoreError> {
    if filter.term.is_some() {
        return list(read, Order::Name, false, None, filter).try_fold(0, |count, row| row.map(|_| count + 1));
    }
    rows::<u64>(read, TOTALS, Range::prefix([])).try_fold(0, |sum, row| {
        let (class, count) = row?;
        let [public, empty] = *class.as_slice() else { return Err(malformed_key(TOTALS)) };
        let fits = |wanted: Option<bool>, is: u8| wanted.is_none_or(|wanted| u8::from(wanted) == is);
        Ok(if fits(filter.public, public) && fits(filter.empty, empty) { sum + count } else { sum })
    })
}

/// The block of the room with this id, if it is blocked. The room need not be known.
///
/// # Errors
/// When the store fails.
pub fn block(read: &dyn Read, room: &str) -> Result<Option<Block>, StoreError> {
    row(read, BLOCKS, room)
}
