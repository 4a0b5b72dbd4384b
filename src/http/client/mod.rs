//! The client-server API, a file a chapter.

mod account_data;
mod accounts;
mod devices;
mod discovery;
mod keys;
mod lenient;
mod presence;
mod profiles;
mod push_rules;
mod receipts;
mod registration;
mod sessions;
mod sync;
mod to_device;
mod typing;

use axum::Router;

use super::App;

/// All of it.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .merge(discovery::routes())
        .merge(registration::routes())
        .merge(sessions::routes())
        .merge(accounts::routes())
        .merge(devices::routes())
        .merge(profiles::routes())
        .merge(account_data::routes())
        .merge(keys::routes())
        .merge(push_rules::routes())
        .merge(sync::routes())
        .merge(to_device::routes())
        .merge(presence::routes())
        .merge(receipts::routes())
        .merge(typing::routes())
}
