//! `GET /_matrix/client/v3/sync` (client-server API, "Syncing"): an answer is a function of one view, the typing and
//! presence of now, and what the client has.

mod changed;
mod devices;
mod joined;
mod left;
mod sections;

use projections::{
    StoreError, View,
    models::{keys, push_rules},
};
use ruma::{
    OwnedDeviceId, OwnedUserId, UInt,
    api::client::{
        filter::{EventFormat, FilterDefinition},
        sync::sync_events::{DeviceLists, v3::Response},
    },
    push::Ruleset,
};
use schemas::Lsn;
use serde::Deserialize;

pub use self::joined::DEFAULT_LIMIT;
use super::SyncToken;
use crate::{
    ephemeral::Ephemeral,
    reading::{Fields, Reading, RelatedBy},
};

/// Who syncs.
#[derive(Debug, Clone)]
pub struct Asker {
    /// Who.
    pub user: OwnedUserId,
    /// On which device.
    pub device: OwnedDeviceId,
    /// Milliseconds since the Unix epoch, for the age of events.
    pub now_ms: u64,
}

/// What a client has and wants.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Everything up to here, counted as this node counts; none begins anew.
    pub since: Option<SyncToken>,
    /// What it wants to see.
    pub filter: FilterDefinition,
    /// What it wants to see, as far as ruma's filter lacks it.
    pub related: Related,
    /// All state of all rooms, whatever it has.
    pub full_state: bool,
    /// State as it is after the timeline, not before it.
    pub use_state_after: bool,
    /// It comes from a future that was lost when an older log was restored, and is answered from before that: what it
    /// knows of others' devices may be nothing that ever was.
    pub lost: bool,
    /// Messages to the device up to here have arrived, whatever else it asks for again.
    pub acknowledged: Lsn,
}

/// What of a filter ruma's lacks.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Related {
    #[serde(default)]
    room: RelatedInRooms,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct RelatedInRooms {
    #[serde(default)]
    timeline: RelatedBy,
    #[serde(default)]
    state: RelatedBy,
}

/// An answer, and whether it says anything.
pub struct Answer {
    /// What goes to the client.
    pub response: Response,
    /// There is no news in it.
    pub is_empty: bool,
}

/// What every part of an answer is made from.
struct Context<'a> {
    view: &'a View,
    ephemeral: &'a Ephemeral,
    /// Typing and presence after this position are news.
    ephemeral_since: u64,
    asker: &'a Asker,
    wanted: &'a Wanted,
    fields: Fields,
    reading: Reading<'a>,
    /// The user's push rules, if they changed any, and when they did so last.
    rules: Option<(Lsn, Ruleset)>,
}

impl<'a> Context<'a> {
    fn new(view: &'a View, ephemeral: &'a Ephemeral, asker: &'a Asker, wanted: &'a Wanted) -> Result<Self, StoreError> {
        let ephemeral_since = wanted.since.as_ref().map_or(0, |since| since.ephemeral);
        let reading = Reading::new(view, &asker.user, Some(&asker.device), asker.now_ms)?;
        let reading = reading.federated(wanted.filter.event_format == EventFormat::Federation);
        let fields = Fields::read(wanted.filter.event_fields.as_deref().unwrap_or_default());
        let rules = push_rules::changed(view, asker.user.as_str())?;
        Ok(Self { view, ephemeral, ephemeral_since, asker, wanted, fields, reading, rules })
    }

    fn user(&self) -> &str {
        self.asker.user.as_str()
    }

    fn since(&self) -> Option<Lsn> {
        self.wanted.since.as_ref().map(|since| since.lsn)
    }
}

/// The answer to a sync.
///
/// # Errors
/// When the store fails.
pub fn answer(
    view: &View,
    ephemeral: &Ephemeral,
    with_presence: bool,
    asker: &Asker,
    wanted: &Wanted,
) -> Result<Answer, StoreError> {
    // Before anything of it is read, so that nothing is skipped. A client that has heard more by another node has.
    let position = ephemeral.position();
    let context = Context::new(view, ephemeral, asker, wanted)?;
    let position = position.max(context.ephemeral_since);
    let lsn = view.lsn();
    let channel = ephemeral.channel().to_owned();
    let mut token = SyncToken { lsn, channel, ephemeral: position, to_device: None };
    let mut response = Response::new(String::new());

    let account_data = sections::AccountData::of(&context)?;
    let rooms = changed::rooms(&context, lsn, &account_data)?;
    for room in &rooms.joined {
        joined::add(&context, room, &account_data, &mut response)?;
    }
    for (room, member) in &rooms.left {
        left::add(&context, *room, member, &mut response)?;
    }
    left::add_gone(&context, &mut response)?;
    for (room, member) in &rooms.pending {
        left::add_pending(&context, *room, member, &mut response)?;
    }
    sections::add_account_data(&context, &account_data, &mut response)?;
    token.to_device = sections::add_to_device(&context, &mut response)?;
    devices::add_lists(&context, lsn, &rooms, &mut response.device_lists)?;
    if with_presence {
        sections::add_presence(&context, &mut response)?;
    }
    let is_empty = response.rooms.is_empty()
        && response.presence.is_empty()
        && response.account_data.is_empty()
        && response.to_device.is_empty()
        && response.device_lists.is_empty();
    add_key_counts(view, asker, &mut response)?;
    response.next_batch = token.to_string();
    Ok(Answer { response, is_empty })
}

/// Whose devices the client had to look at anew between a token and a record, and whose no more: that part of an answer
/// alone.
///
/// # Errors
/// When the store fails.
pub fn device_lists(
    view: &View,
    ephemeral: &Ephemeral,
    asker: &Asker,
    wanted: &Wanted,
    until: Lsn,
) -> Result<DeviceLists, StoreError> {
    let context = Context::new(view, ephemeral, asker, wanted)?;
    let rooms = changed::rooms(&context, until, &sections::AccountData::of(&context)?)?;
    let mut lists = DeviceLists::default();
    devices::add_lists(&context, until, &rooms, &mut lists)?;
    Ok(lists)
}

/// The answer where nothing is new.
///
/// # Errors
/// When the store fails.
pub fn nothing(view: &View, asker: &Asker, since: &SyncToken) -> Result<Response, StoreError> {
    let mut response = Response::new(since.to_string());
    add_key_counts(view, asker, &mut response)?;
    Ok(response)
}

fn add_key_counts(view: &View, asker: &Asker, response: &mut Response) -> Result<(), StoreError> {
    let (user, device) = (asker.user.as_str(), asker.device.as_str());
    let counts = keys::counts(view, user, device)?;
    response.device_one_time_keys_count =
        counts.into_iter().map(|(algorithm, count)| (algorithm.into(), UInt::new_saturating(count))).collect();
    // Clients take its absence for no key at all.
    response.device_one_time_keys_count.entry("signed_curve25519".into()).or_default();
    let unused = keys::unused_fallback_types(view, user, device)?;
    response.device_unused_fallback_key_types = Some(unused.into_iter().map(Into::into).collect());
    Ok(())
}
