//! Rooms, as administrators see and change them: all of every room is shown to them.

mod list;

use axum::Router;
use projections::models::rooms::Summary;
use serde::Serialize;

use crate::http::App;

pub fn routes() -> Router<App> {
    Router::new().merge(list::routes())
}

/// What lists and details say of a room. All keys are there; what is not known is null.
#[derive(Serialize)]
pub(super) struct Row {
    room_id: String,
    name: Option<String>,
    canonical_alias: Option<String>,
    joined_members: u64,
    joined_local_members: u64,
    version: Option<String>,
    creator: Option<String>,
    encryption: Option<String>,
    federatable: bool,
    public: bool,
    join_rules: Option<String>,
    guest_access: Option<String>,
    history_visibility: Option<String>,
    state_events: u64,
    room_type: Option<String>,
}

impl From<Summary> for Row {
    fn from(Summary { id, settings, figures }: Summary) -> Self {
        Self {
            room_id: id,
            name: settings.name,
            canonical_alias: settings.canonical_alias,
            joined_members: figures.joined,
            joined_local_members: figures.joined_local,
            version: settings.version,
            creator: settings.creator,
            encryption: settings.encryption,
            federatable: settings.federatable,
            public: figures.public,
            join_rules: settings.join_rule,
            guest_access: settings.guest_access,
            history_visibility: settings.history_visibility,
            state_events: figures.state_events,
            room_type: settings.room_type,
        }
    }
}
