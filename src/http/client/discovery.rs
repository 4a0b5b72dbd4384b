//! Client-server API, "Server Discovery", "API Versions" and "Capabilities negotiation".
//!
//! `GET /.well-known/matrix/client`, `GET /.well-known/matrix/server`, `GET /.well-known/matrix/support`,
//! `GET /_matrix/client/versions`, `GET /_matrix/client/v3/capabilities`

use axum::Router;
use projections::models::accounts;
use ruma::{
    UserId,
    api::{
        client::discovery::{
            discover_homeserver::{self, HomeserverInfo, IdentityServerInfo},
            discover_support::{self, Contact, ContactRole},
            get_capabilities::v3::{
                self as get_capabilities, Capabilities, GetLoginTokenCapability, ProfileFieldsCapability,
                RoomVersionStability, RoomVersionsCapability,
            },
            get_supported_versions,
        },
        federation::discovery::discover_homeserver as discover_server,
    },
};

use crate::{
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
    rooms::versions::ADVERTISED,
};

/// The versions of the specification that clients can count on. What is served of later ones is among [`FEATURES`]:
/// from 1.13 on there are reports of rooms and users and OAuth, which are not served.
const VERSIONS: &[&str] = &[
    "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4",
    "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12",
];

/// What is served of later versions, by the names under which clients look for it.
const FEATURES: &[&str] = &[
    // Profile fields besides name and avatar (1.16), by their own paths and by those of the specification.
    "uk.tcpip.msc4133",
    "uk.tcpip.msc4133.stable",
];

pub fn routes() -> Router<App> {
    Router::new()
        .matrix(well_known_client)
        .matrix(well_known_server)
        .matrix(well_known_support)
        .matrix(versions)
        .matrix(capabilities)
}

async fn well_known_client(
    app: App,
    _: Matrix<discover_homeserver::Request>,
) -> Result<discover_homeserver::Response, ApiError> {
    let url = app.config.http.public_url.as_ref();
    let url = url.ok_or_else(|| ApiError::not_found("this server's administrator has not set http.public_url"))?;
    let mut reply = discover_homeserver::Response::new(HomeserverInfo::new(url.as_str().to_owned()));
    let identity_server = app.config.well_known.identity_server.as_ref();
    reply.identity_server = identity_server.map(|url| IdentityServerInfo::new(url.as_str().to_owned()));
    Ok(reply)
}

async fn well_known_server(
    app: App,
    _: Matrix<discover_server::Request>,
) -> Result<discover_server::Response, ApiError> {
    let server = app.config.well_known.server.as_deref().and_then(|server| server.try_into().ok());
    let server = server.ok_or_else(|| ApiError::not_found("other servers connect to port 8448"))?;
    Ok(discover_server::Response::new(server))
}

async fn well_known_support(
    app: App,
    _: Matrix<discover_support::Request>,
) -> Result<discover_support::Response, ApiError> {
    let contact = app.config.admin_contact.as_deref().map(|contact| match UserId::parse(contact) {
        Ok(user) => Contact::with_matrix_id(ContactRole::Admin, user),
        Err(_) => Contact::with_email_address(ContactRole::Admin, contact.trim_start_matches("mailto:").to_owned()),
    });
    let page = app.config.well_known.support_page.as_ref().map(|page| page.as_str().to_owned());
    if contact.is_none() && page.is_none() {
        return Err(ApiError::not_found("this server's administrator has named no contact"));
    }
    let mut reply = discover_support::Response::with_contacts(contact.into_iter().collect());
    reply.support_page = page;
    Ok(reply)
}

async fn versions(
    _: App,
    _: Matrix<get_supported_versions::Request>,
) -> Result<get_supported_versions::Response, ApiError> {
    let mut reply = get_supported_versions::Response::new(VERSIONS.iter().map(ToString::to_string).collect());
    reply.unstable_features = FEATURES.iter().map(|feature| ((*feature).to_owned(), true)).collect();
    Ok(reply)
}

async fn capabilities(
    app: App,
    req: Matrix<get_capabilities::Request>,
) -> Result<get_capabilities::Response, ApiError> {
    let versions = ADVERTISED.into_iter().map(|version| (version, RoomVersionStability::Stable)).collect();
    let mut capabilities = Capabilities::new();
    capabilities.room_versions = RoomVersionsCapability::new(app.config.rooms.default_version.clone(), versions);
    capabilities.thirdparty_id_changes.enabled = false;
    // Users show by their password that they want to let somebody in.
    let has_password = accounts::password(&app.view()?, req.who.user.as_str())?.is_some();
    capabilities.get_login_token = GetLoginTokenCapability::new(has_password);
    capabilities.profile_fields = Some(ProfileFieldsCapability::new(true));
    Ok(get_capabilities::Response::new(capabilities))
}
