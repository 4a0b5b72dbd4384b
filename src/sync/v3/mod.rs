//! `GET /_matrix/client/v3/sync` (client-server API, "Syncing"): an answer is a function of one view, the typing and
//! presence of this run, and what the client has.

mod changed;
mod devices;
mod joined;
mod left;
mod sections;

use projections::{StoreError, View, models::keys};
use ruma::{
    OwnedDeviceId, OwnedUserId, UInt,
    api::client::{
        filter::FilterDefinition,
        sync::sync_events::{DeviceLists, v3::Response},
    },
};
use schemas::Lsn;

pub use self::joined::DEFAULT_LIMIT;
use super::SyncToken;
use crate::{ephemeral::Ephemeral, reading::Reading};

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
    /// Everything up to here; none begins anew.
    pub since: Option<SyncToken>,
    /// What it wants to see.
    pub filter: FilterDefinition,
    /// All state of all rooms, whatever it has.
    pub full_state: bool,
    /// State as it is after the timeline, not before it.
    pub use_state_after: bool,
    /// Messages to the device up to here have arrived, whatever else it asks for again.
    pub acknowledged: Lsn,
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
    reading: Reading<'a>,
}

impl<'a> Context<'a> {
    fn new(view: &'a View, ephemeral: &'a Ephemeral, asker: &'a Asker, wanted: &'a Wanted) -> Result<Self, StoreError> {
        let ephemeral_since = wanted.since.as_ref().map_or(0, |since| since.ephemeral_in(ephemeral.boot()));
        let reading = Reading::new(view, &asker.user, Some(&asker.device), asker.now_ms)?;
        Ok(Self { view, ephemeral, ephemeral_since, asker, wanted, reading })
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
    // Before anything of it is read, so that nothing is skipped.
    let position = ephemeral.position();
    let context = Context::new(view, ephemeral, asker, wanted)?;
    let lsn = view.lsn();
    let boot = ephemeral.boot().to_owned();
    let mut token = SyncToken { lsn, boot, ephemeral: position, to_device: None };
    let mut response = Response::new(String::new());

    let account_data = sections::AccountData::of(&context)?;
    let rooms = changed::rooms(&context, &account_data)?;
    for (room, member) in &rooms.joined {
        joined::add(&context, *room, member, &account_data, &mut response)?;
    }
    for (room, member) in &rooms.left {
        left::add(&context, *room, member, &mut response)?;
    }
    for (room, member) in &rooms.pending {
        left::add_pending(&context, *room, member, &mut response)?;
    }
    sections::add_account_data(&context, &account_data, &mut response)?;
    token.to_device = sections::add_to_device(&context, &mut response)?;
    devices::add_lists(&context, &rooms, &mut response.device_lists)?;
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

/// Whose devices the client has to look at anew since a token, and whose no more: that part of an answer alone.
///
/// # Errors
/// When the store fails.
pub fn device_lists(
    view: &View,
    ephemeral: &Ephemeral,
    asker: &Asker,
    since: SyncToken,
) -> Result<DeviceLists, StoreError> {
    let wanted = Wanted { since: Some(since), ..Wanted::default() };
    let context = Context::new(view, ephemeral, asker, &wanted)?;
    let rooms = changed::rooms(&context, &sections::AccountData::of(&context)?)?;
    let mut lists = DeviceLists::default();
    devices::add_lists(&context, &rooms, &mut lists)?;
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
