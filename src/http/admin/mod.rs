//! What administrators of the server do, with the paths and shapes of Synapse's admin API, so that its tools work. What
//! has no counterpart there lies under `/_everfold/admin/v1/`.

mod audit;
mod jobs;
mod notices;
pub mod params;
mod projections;
pub mod register;
mod registration_tokens;
mod reports;
mod rooms;
mod server;
mod snapshot;
mod users;

use axum::{
    Router,
    extract::{FromRequestParts, MatchedPath},
    http::{self, request},
};
use ruma::{
    OwnedUserId,
    api::auth_scheme::{AccessToken, AuthScheme},
};
use schemas::Origin;

use super::{
    App,
    auth::{self, Caller, Identify},
    reply::ApiError,
};

/// All of it.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .merge(audit::routes())
        .merge(jobs::routes())
        .merge(notices::routes())
        .merge(projections::routes())
        .merge(register::routes())
        .merge(registration_tokens::routes())
        .merge(reports::routes())
        .merge(rooms::routes())
        .merge(server::routes())
        .merge(snapshot::routes())
        .merge(users::routes())
}

/// An administrator of the server, or whoever holds the shared secret, who could make one. Goes before everything else
/// that a handler takes: who is none learns nothing more.
pub struct Admin(Origin);

impl Admin {
    /// The origin of what they do as such.
    #[must_use]
    pub fn origin(self) -> Origin {
        self.0
    }

    /// Who they are, as the log names them.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            Origin::Admin { user } => user,
            _ => "",
        }
    }

    /// The user they are; none where somebody holds the shared secret.
    #[must_use]
    pub fn user(&self) -> Option<OwnedUserId> {
        OwnedUserId::try_from(self.name()).ok()
    }
}

impl FromRequestParts<App> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, app: &App) -> Result<Self, ApiError> {
        let address = auth::address(app, parts);
        let mut head = http::Request::new(());
        *head.uri_mut() = parts.uri.clone();
        *head.headers_mut() = parts.headers.clone();
        let token =
            AccessToken::extract_authentication(&head).map_err(|error| auth::missing_token(error.to_string()))?;
        if app.shared_secret.is(&token) {
            return Ok(Self(register::origin()));
        }
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let session = AccessToken::identify(app, token, route, Caller::new(address, head.headers()))?;
        if session.admin {
            Ok(Self(Origin::Admin { user: session.administrator().unwrap_or(session.user.as_str()).to_owned() }))
        } else {
            Err(ApiError::forbidden("You are not a server admin"))
        }
    }
}
