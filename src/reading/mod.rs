//! What a user may see of rooms, and in which form: /sync and everything else that shows events ask here.
//!
//! | Module | The questions it answers |
//! |---|---|
//! | `access` | May this user look into this room, and as of when? |
//! | `sight` | May this user see this event? What were they to the room then? |
//! | `render` | What does the event look like to them, with its `unsigned`? |
//! | `relations` | What is bundled with it? |
//! | `pages` | What comes next in the room's order? |
//! | `filter` | Does a client's filter let the event through? |
//! | `fields` | Which parts of the event does the client want? |

mod access;
mod fields;
mod filter;
mod pages;
mod relations;
mod render;
mod sight;

use std::{cell::Cell, collections::BTreeSet};

use projections::{
    StoreError, View,
    models::{account_data, events::Head, state::State},
};
use ruma::{DeviceId, RoomId, UserId};
use serde::{Deserialize, de::IgnoredAny};

pub use access::Access;
pub use fields::Fields;
pub use filter::{Matcher, RelatedBy};
pub use pages::{Found, Page, Span};
use sight::Standing;

/// A view as one user reads it, or an administrator of the server, who sees everything. What it finds out about a room it keeps until it is asked about another: go room by room.
pub struct Reading<'a> {
    view: &'a View,
    /// None is who sees everything.
    user: Option<&'a UserId>,
    device: Option<&'a DeviceId>,
    now_ms: u64,
    /// The room id that events are shown with.
    room_id: Option<&'a RoomId>,
    /// Whether events are shown as servers send them to each other.
    federated: bool,
    ignored: BTreeSet<String>,
    standing: Cell<Option<Standing>>,
    /// The event whose state before was asked for last, and that.
    before: Cell<Option<(schemas::Nid, Option<State>)>>,
}

impl<'a> Reading<'a> {
    /// Reads as a user, on a device if they have one; `now_ms`, in milliseconds since the Unix epoch, gives events their
    /// age.
    ///
    /// # Errors
    /// When the store fails.
    pub fn new(
        view: &'a View,
        user: &'a UserId,
        device: Option<&'a DeviceId>,
        now_ms: u64,
    ) -> Result<Self, StoreError> {
        let ignored = ignored(view, user)?;
        Ok(Self { user: Some(user), device, ignored, ..Self::of_everything(view, now_ms) })
    }

    /// Reads as somebody to whom all is shown, whatever they are to a room.
    #[must_use]
    pub const fn of_everything(view: &'a View, now_ms: u64) -> Self {
        Self {
            view,
            user: None,
            device: None,
            now_ms,
            room_id: None,
            federated: false,
            ignored: BTreeSet::new(),
            standing: Cell::new(None),
            before: Cell::new(None),
        }
    }

    /// The view.
    #[must_use]
    pub const fn view(&self) -> &'a View {
        self.view
    }

    fn is(&self, user: &str) -> bool {
        self.user.is_some_and(|reader| reader.as_str() == user)
    }

    /// Shows events as servers send them to each other, with hashes, signatures and all (client-server API,
    /// `event_format` of a filter).
    #[must_use]
    pub fn federated(self, federated: bool) -> Self {
        Self { federated, ..self }
    }

    /// Shows events with this room's id, as everywhere but in /sync, where the section names the room.
    #[must_use]
    pub fn in_room(mut self, room: &'a RoomId) -> Self {
        self.room_id = Some(room);
        self
    }

    /// Whether the user ignores another (client-server API, "Ignoring Users").
    #[must_use]
    pub fn ignores(&self, user: &str) -> bool {
        self.ignored.contains(user)
    }

    /// Whether an event belongs into what is shown of a room's history: the user may see it, and doesn't ignore its
    /// sender. State is shown whoever sent it, and how it ended for the user whatever else they see.
    ///
    /// # Errors
    /// When the store fails.
    pub fn shows(&self, event: schemas::Nid, head: &Head) -> Result<bool, StoreError> {
        let ignored = head.state_key.is_none() && self.ignores(&head.sender);
        Ok(!ignored && (self.is_own_end(head) || self.sees(event, head)?))
    }
}

fn ignored(view: &View, user: &UserId) -> Result<BTreeSet<String>, StoreError> {
    #[derive(Deserialize)]
    struct Content {
        ignored_users: std::collections::BTreeMap<String, IgnoredAny>,
    }
    let content = account_data::get(view, user.as_str(), None, "m.ignored_user_list")?;
    // What is malformed ignores nobody.
    let content = content.and_then(|content| content.read::<Content>().ok());
    let mut ignored: BTreeSet<_> =
        content.map(|content| content.ignored_users.into_keys().collect()).unwrap_or_default();
    ignored.remove(user.as_str());
    Ok(ignored)
}
