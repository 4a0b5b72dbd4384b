//! The client-server API, a file a chapter.

mod account_data;
mod discovery;
mod filled;
mod keys;
mod profiles;
mod push_rules;
mod to_device;
mod accounts;
mod devices;
mod discovery;
mod registration;
mod sessions;

use axum::Router;

use super::App;

/// All of it.
pub(super) fn routes() -> Router<App> {
    discovery::routes()
        .merge(account_data::routes())
        .merge(keys::routes())
        .merge(profiles::routes())
        .merge(push_rules::routes())
        .merge(to_device::routes())
    Router::new()
        .merge(discovery::routes())
        .merge(registration::routes())
        .merge(sessions::routes())
        .merge(accounts::routes())
        .merge(devices::routes())
}
