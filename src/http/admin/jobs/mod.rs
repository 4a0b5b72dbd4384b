//! Long pieces of work, and what is known of them.

mod background;
mod deletion;
mod history;
mod redaction;
mod tasks;

use axum::Router;

use crate::http::App;

pub fn routes() -> Router<App> {
    Router::new()
        .merge(background::routes())
        .merge(deletion::routes())
        .merge(history::routes())
        .merge(redaction::routes())
        .merge(tasks::routes())
}
