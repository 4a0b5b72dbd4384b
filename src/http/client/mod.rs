//! The client-server API, a file a chapter.

mod account_data;
pub(in crate::http) mod accounts;
pub(in crate::http) mod devices;
mod directory;
mod discovery;
pub(super) mod events_read;
mod events_send;
mod fallback;
mod keys;
mod lenient;
mod membership;
mod presence;
mod profiles;
mod push_rules;
pub(in crate::http) mod pushers;
mod receipts;
mod registration;
mod relations;
mod reports;
mod room_state;
pub(super) mod rooms;
mod sessions;
mod sync;
mod to_device;
mod typing;
mod user_directory;

use axum::Router;

use super::App;

/// All of it.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .merge(discovery::routes())
        .merge(registration::routes())
        .merge(sessions::routes())
        .merge(accounts::routes())
        .merge(fallback::routes())
        .merge(devices::routes())
        .merge(profiles::routes())
        .merge(account_data::routes())
        .merge(keys::routes())
        .merge(push_rules::routes())
        .merge(pushers::routes())
        .merge(sync::routes())
        .merge(to_device::routes())
        .merge(presence::routes())
        .merge(receipts::routes())
        .merge(directory::routes())
        .merge(events_send::routes())
        .merge(membership::routes())
        .merge(rooms::routes())
        .merge(events_read::routes())
        .merge(room_state::routes())
        .merge(relations::routes())
        .merge(reports::routes())
        .merge(typing::routes())
        .merge(user_directory::routes())
}
