//! Client-server API, "User Directory".
//!
//! `POST /_matrix/client/v3/user_directory/search`

use std::collections::BTreeSet;

use axum::Router;
use projections::{
    StoreError, View,
    models::{
        membership::{self, Membership},
        profiles, rooms,
    },
};
use ruma::{
    OwnedUserId,
    api::client::user_directory::search_users::v3::{self as search_users, User},
};

use crate::http::{
    App,
    extract::{Matrix, Routes},
    reply::ApiError,
};

/// So many results at the most, …
const MAX_RESULTS: usize = 50;
/// … among so many users whose names begin as asked.
const MAX_CANDIDATES: usize = 2_000;
/// So many rooms of somebody are looked at for one that is public.
const MAX_ROOMS: usize = 100;

pub fn routes() -> Router<App> {
    Router::new().matrix(search)
}

async fn search(app: App, request: Matrix<search_users::Request>) -> Result<search_users::Response, ApiError> {
    let (view, asker) = (app.view()?, request.who.user.as_str());
    let limit = usize::try_from(request.body.limit).unwrap_or(MAX_RESULTS).min(MAX_RESULTS);
    let term = request.body.search_term.to_lowercase();
    // Users are found by their names, not by their server. The longest word finds the fewest.
    let names = term.split_whitespace().map(|part| part.split(':').next().unwrap_or_default());
    let words: BTreeSet<String> = names.flat_map(profiles::words).collect();
    let mut found = search_users::Response::new(Vec::new(), false);
    let Some(word) = words.iter().max_by_key(|word| word.chars().count()) else { return Ok(found) };
    let mut seen = BTreeSet::new();
    for (looked_at, user) in profiles::named(&view, word).enumerate() {
        let user = user?;
        if looked_at == MAX_CANDIDATES {
            found.limited = true;
            break;
        }
        if user == asker || !seen.insert(user.clone()) {
            continue;
        }
        let (name, avatar) = (text(&view, &user, "displayname")?, text(&view, &user, "avatar_url")?);
        let names = format!("{user} {}", name.as_deref().unwrap_or_default()).to_lowercase();
        if !term.split_whitespace().all(|part| names.contains(part)) || !is_visible(&view, asker, &user)? {
            continue;
        }
        if found.results.len() == limit {
            found.limited = true;
            break;
        }
        let mut result = User::new(OwnedUserId::try_from(user).map_err(|error| ApiError::internal(&error))?);
        result.display_name = name;
        result.avatar_url = avatar.map(Into::into);
        found.results.push(result);
    }
    Ok(found)
}

fn text(view: &View, user: &str, field: &str) -> Result<Option<String>, StoreError> {
    Ok(profiles::field(view, user, field)?.and_then(|value| value.read().ok()))
}

/// Whoever shares a room with the asker can be found, and who is in a room that anybody can join or read.
fn is_visible(view: &View, asker: &str, user: &str) -> Result<bool, StoreError> {
    if membership::share_room(view, asker, user)? {
        return Ok(true);
    }
    for room in membership::rooms_of(view, user, Membership::Join).take(MAX_ROOMS) {
        let settings = rooms::summary(view, room?.0)?.map(|room| room.settings).unwrap_or_default();
        let is = |setting: Option<String>, open| setting.as_deref() == Some(open);
        if is(settings.join_rule, "public") || is(settings.history_visibility, "world_readable") {
            return Ok(true);
        }
    }
    Ok(false)
}
