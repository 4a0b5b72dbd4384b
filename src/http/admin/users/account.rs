//! A user's account: shown, made, changed, ended.
//!
//! `GET` and `PUT /_synapse/admin/v2/users/{userId}`, `GET` and `PUT /_synapse/admin/v1/users/{userId}/admin`,
//! `POST /_synapse/admin/v1/deactivate/{userId}`, `POST /_synapse/admin/v1/reset_password/{userId}`

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use projections::{
    View,
    models::{accounts, identities},
};
use ruma::{OwnedUserId, UserId, api::error::ErrorKind, thirdparty::ThirdPartyIdentifier};
use schemas::facts::{AdminSet, UserKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Admin, USER_TYPES, existing, field, local,
    params::{Body, MaybeBody, unknown},
};
use crate::{
    commands::{
        accounts::{self as commands, NewAccount, new_user_id},
        users::{self, Change, Outcome},
    },
    http::{
        App,
        client::{accounts::third_party, devices::opened},
        extract::Path,
        passwords,
        reply::ApiError,
    },
};

/// The longest password.
const MAX_PASSWORD_CHARS: usize = 512;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v2/users/{user_id}", get(show).put(put))
        .route("/_synapse/admin/v1/users/{user_id}/admin", get(is_admin).put(set_admin))
        .route("/_synapse/admin/v1/deactivate/{user_id}", post(deactivate))
        .route("/_synapse/admin/v1/reset_password/{user_id}", post(reset_password))
}

#[derive(Serialize)]
struct Shown {
    name: OwnedUserId,
    displayname: Option<String>,
    avatar_url: Option<String>,
    threepids: Vec<ThirdPartyIdentifier>,
    external_ids: Vec<ExternalId>,
    is_guest: bool,
    admin: bool,
    deactivated: bool,
    erased: bool,
    shadow_banned: bool,
    locked: bool,
    suspended: bool,
    user_type: Option<String>,
    /// In seconds, as Synapse has it here alone.
    creation_ts: u64,
    last_seen_ts: Option<u64>,
    // There is nothing here that these could say.
    appservice_id: Option<String>,
    consent_server_notice_sent: Option<String>,
    consent_version: Option<String>,
    consent_ts: Option<u64>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct ExternalId {
    auth_provider: String,
    external_id: String,
}

impl Shown {
    fn new(app: &App, user: OwnedUserId) -> Result<Self, ApiError> {
        let view = app.view()?;
        let account = existing(&view, &user)?;
        Ok(Self {
            displayname: field(&view, user.as_str(), "displayname")?,
            avatar_url: field(&view, user.as_str(), "avatar_url")?,
            threepids: third_party(&view, &user)?,
            external_ids: external(&view, &user)?,
            last_seen_ts: app.seen.of_user(&view, &user)?,
            name: user,
            is_guest: account.kind == UserKind::Guest,
            admin: account.admin,
            deactivated: account.deactivated,
            erased: account.erased,
            shadow_banned: account.shadow_banned,
            locked: account.locked,
            suspended: account.suspended,
            user_type: account.user_type,
            creation_ts: account.created_at_ms / 1_000,
            appservice_id: None,
            consent_server_notice_sent: None,
            consent_version: None,
            consent_ts: None,
        })
    }
}

fn external(view: &View, user: &UserId) -> Result<Vec<ExternalId>, ApiError> {
    let mut ids = Vec::new();
    for row in identities::external(view, user.as_str()) {
        let (_, found) = row?;
        let id = opened(Some(&found.id));
        ids.extend(id.map(|external_id| ExternalId { auth_provider: found.provider, external_id }));
    }
    ids.sort();
    Ok(ids)
}

async fn show(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Result<axum::Json<Shown>, ApiError> {
    let user = local(&app, &user, "Can only look up local users")?;
    Shown::new(&app, user).map(axum::Json)
}

async fn put(
    State(app): State<App>,
    admin: Admin,
    Path(user): Path<String>,
    body: Body,
) -> Result<(StatusCode, axum::Json<Shown>), ApiError> {
    let user = local(&app, &user, "This endpoint can only be used with local users")?;
    let (mut change, password) = read(&body)?;
    let there = accounts::get(&app.view()?, user.as_str())?;
    let demotes = change.admin == Some(false) && there.as_ref().is_some_and(|account| account.admin);
    if demotes && admin.name() == user {
        return Err(unknown("You may not demote yourself."));
    }
    if there.is_none() && new_user_id(&app.config.server_name, user.as_str())? != user {
        return Err(ApiError::new(ErrorKind::InvalidUsername, "a new user name has small letters"));
    }
    if let Some(password) = password {
        passwords::check_strength(&app, &password)?;
        change.password = Some(app.passwords.hash(password).await?);
    }
    let new = NewAccount {
        user: user.clone(),
        password: change.password.clone(),
        admin: change.admin.unwrap_or(false),
        kind: UserKind::Regular,
        registration_token: None,
        // Where a name is given, the change has it.
        display_name: change.display_name.is_none().then(|| user.localpart().to_owned()),
        user_type: None,
        expires_at_ms: app.config.account_validity.end_of_new(app.clock.now_ms()),
    };
    let status = match users::put(&app.commands, admin.origin(), new, change).await? {
        Outcome::Made => StatusCode::CREATED,
        Outcome::Changed => StatusCode::OK,
        Outcome::IdInUse => {
            let message = "External id is already in use.";
            return Err(ApiError::with_status(StatusCode::CONFLICT, ErrorKind::Unknown, message));
        }
    };
    Ok((status, axum::Json(Shown::new(&app, user)?)))
}

/// What is wanted, and the new password.
fn read(body: &Body) -> Result<(Change, Option<String>), ApiError> {
    #[derive(Deserialize)]
    struct ThirdPartyId {
        medium: String,
        address: String,
    }
    let flag = |name: &str| -> Result<Option<bool>, ApiError> {
        body.field(name, ErrorKind::Unknown, &format!("'{name}' parameter is not of type boolean"))
    };
    let third_party = entries::<ThirdPartyId>(body, "threepids", ["medium", "address"])?;
    let third_party: Option<Result<Vec<_>, _>> =
        third_party.map(|ids| ids.into_iter().map(|id| medium(id.medium, &id.address)).collect());
    let external = entries::<ExternalIdGiven>(body, "external_ids", ["auth_provider", "external_id"])?;
    let user_type = body.field::<Option<String>>("user_type", ErrorKind::Unknown, "Invalid user type")?;
    if user_type.iter().flatten().any(|given| !USER_TYPES.contains(&given.as_str())) {
        return Err(unknown("Invalid user type"));
    }
    let admin = body.boolean("admin")?;
    let password = body.field::<Option<String>>("password", ErrorKind::Unknown, "Invalid password")?.flatten();
    if password.as_ref().is_some_and(|password| password.chars().count() > MAX_PASSWORD_CHARS) {
        return Err(unknown("Invalid password"));
    }
    let log_out = flag("logout_devices")?.unwrap_or(true);
    let (deactivated, locked, suspended) = (flag("deactivated")?, flag("locked")?, flag("suspended")?);
    if deactivated == Some(true) && locked == Some(true) {
        return Err(unknown("An user can't be deactivated and locked"));
    }
    let text = |name: &str| -> Result<Option<String>, ApiError> {
        body.field(name, ErrorKind::InvalidParam, &format!("'{name}' must be a string"))
    };
    let change = Change {
        password: None,
        log_out,
        display_name: text("displayname")?,
        avatar_url: text("avatar_url")?,
        third_party: third_party.transpose()?,
        external: external.map(|ids| ids.into_iter().map(|id| (id.auth_provider, id.external_id)).collect()),
        admin,
        deactivated,
        locked,
        suspended,
        user_type,
    };
    Ok((change, password))
}

#[derive(Deserialize)]
struct ExternalIdGiven {
    auth_provider: String,
    external_id: String,
}

/// A list of objects that have two texts each, if there is one.
fn entries<T: DeserializeOwned>(body: &Body, name: &str, fields: [&str; 2]) -> Result<Option<Vec<T>>, ApiError> {
    let message = format!("Param '{name}' must be a list of objects, if given");
    let list = body.field::<Option<Vec<Body>>>(name, ErrorKind::BadJson, &message)?.flatten();
    for entry in list.iter().flatten() {
        entry.require(&fields)?;
    }
    let message = format!("'{}' and '{}' must be strings", fields[0], fields[1]);
    Ok(body.field::<Option<Vec<T>>>(name, ErrorKind::BadJson, &message)?.flatten())
}

/// A third-party id that there can be, as it is looked up.
fn medium(medium: String, address: &str) -> Result<(String, String), ApiError> {
    if !matches!(medium.as_str(), "email" | "msisdn") {
        return Err(ApiError::invalid(format!("'{medium}' is not a valid value for 'medium'")));
    }
    let address = users::canonical(&medium, address);
    let sound = match medium.as_str() {
        "email" => address.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty()),
        _ => !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_digit()),
    };
    if !sound || address.len() > 255 {
        return Err(ApiError::invalid(format!("'{address}' is no address of the medium '{medium}'")));
    }
    Ok((medium, address))
}

async fn deactivate(
    State(app): State<App>,
    admin: Admin,
    Path(user): Path<String>,
    MaybeBody(body): MaybeBody,
) -> Result<axum::Json<Value>, ApiError> {
    let user = local(&app, &user, "Can only deactivate local users")?;
    existing(&app.view()?, &user)?;
    let erase = body.boolean("erase")?.unwrap_or(false);
    users::deactivate(&app.commands, admin.origin(), user, erase).await?;
    // No identity server is told of third-party ids, so none has to forget one.
    Ok(axum::Json(json!({ "id_server_unbind_result": "success" })))
}

const ADMINS_ELSEWHERE: &str = "Only local users can be admins of this homeserver";

async fn is_admin(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Result<axum::Json<Value>, ApiError> {
    let user = local(&app, &user, ADMINS_ELSEWHERE)?;
    let account = existing(&app.view()?, &user)?;
    Ok(axum::Json(json!({ "admin": account.admin })))
}

async fn set_admin(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    body: Body,
) -> Result<axum::Json<Value>, ApiError> {
    let admin = body.required_boolean("admin")?;
    let user = local(&app, &user, ADMINS_ELSEWHERE)?;
    if !admin && by.name() == user {
        return Err(unknown("You may not demote yourself."));
    }
    let id = user.to_string();
    let facts = move |account: &accounts::Account| match account.admin == admin {
        true => Vec::new(),
        false => vec![AdminSet { user: id.clone(), admin }.into()],
    };
    users::change(&app.commands, by.origin(), user, facts).await?;
    Ok(axum::Json(json!({})))
}

async fn reset_password(
    State(app): State<App>,
    by: Admin,
    Path(user): Path<String>,
    body: Body,
) -> Result<axum::Json<Value>, ApiError> {
    let user = local(&app, &user, "Can only reset the passwords of local users")?;
    let password = body.required_text("new_password")?;
    let log_out = body.boolean("logout_devices")?.unwrap_or(true);
    passwords::check_strength(&app, &password)?;
    let password = app.passwords.hash(password).await?;
    commands::reset_password(&app.commands, by.origin(), user, password, log_out).await?;
    Ok(axum::Json(json!({})))
}
