//! The client-server API, a file a chapter.

mod discovery;

use axum::Router;

use super::App;

/// All of it.
pub(super) fn routes() -> Router<App> {
    discovery::routes()
}
