//! What users may do: suspension, shadow bans, how often they may send, until when their account lasts, and what they may do
//! besides.
//!
//! `GET` and `PUT /_synapse/admin/v1/suspend/{userId}`, `POST` and `DELETE /_synapse/admin/v1/users/{userId}/shadow_ban`,
//! `GET`, `POST` and `DELETE /_synapse/admin/v1/users/{userId}/override_ratelimit`,
//! `POST /_synapse/admin/v1/account_validity/validity`,
//! `POST /_synapse/admin/v1/users/{userId}/_allow_cross_signing_replacement_without_uia`,
//! `GET` and `PUT /_synapse/admin/v1/experimental_features/{userId}`

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use projections::models::{accounts::Account, keys};
use ruma::{OwnedUserId, api::error::ErrorKind};
use schemas::{
    Fact,
    facts::{
        AccountStatusSet, AccountValiditySet, ExperimentalFeatureSet, KeyReplacementAllowed, RateLimit, RateLimitSet,
        ShadowBanSet,
    },
};
use serde_json::{Map, Value, json};

use super::{
    Admin, existing, local,
    params::{Body, MaybeBody, quoted, unknown},
};
use crate::{
    commands::users,
    http::{App, extract::Path, reply::ApiError},
};

/// So long somebody may replace their cross-signing keys without showing that it is they, in milliseconds.
const REPLACEMENT_MS: u64 = 10 * 60 * 1_000;
/// The features that Synapse knows users to have or not.
const FEATURES: &[&str] = &["msc3881", "msc3575", "msc4222"];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_synapse/admin/v1/suspend/{user_id}", get(is_suspended).put(suspend))
        .route("/_synapse/admin/v1/users/{user_id}/shadow_ban", post(ban).delete(unban))
        .route("/_synapse/admin/v1/users/{user_id}/override_ratelimit", get(rate).post(set_rate).delete(usual_rate))
        .route("/_synapse/admin/v1/account_validity/validity", post(renew))
        .route(
            "/_synapse/admin/v1/users/{user_id}/_allow_cross_signing_replacement_without_uia",
            post(allow_replacement),
        )
        .route("/_synapse/admin/v1/experimental_features/{user_id}", get(features).put(set_features))
}

type Reply = Result<axum::Json<Value>, ApiError>;

/// Records a fact of a user's account where it is not so yet.
async fn record<F>(app: &App, by: Admin, user: OwnedUserId, fact: F) -> Result<(), ApiError>
where
    F: Fn(&Account) -> Option<Fact> + Send + 'static,
{
    let facts = move |account: &Account| fact(account).into_iter().collect();
    Ok(users::change(&app.commands, by.origin(), user, facts).await?)
}

async fn is_suspended(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Reply {
    let user = local(&app, &user, "Can only look up local users")?;
    let suspended = existing(&app.view()?, &user)?.suspended;
    Ok(axum::Json(json!({ (format!("user_{user}_suspended")): suspended })))
}

async fn suspend(State(app): State<App>, by: Admin, Path(user): Path<String>, body: Body) -> Reply {
    let user = local(&app, &user, "Can only suspend local users")?;
    existing(&app.view()?, &user)?;
    let suspended = body.required_boolean("suspend")?;
    let id = user.to_string();
    let fact = move |account: &Account| {
        let fact = AccountStatusSet { user: id.clone(), locked: account.locked, suspended };
        (account.suspended != suspended).then(|| fact.into())
    };
    record(&app, by, user.clone(), fact).await?;
    Ok(axum::Json(json!({ (format!("user_{user}_suspended")): suspended })))
}

async fn ban(State(app): State<App>, by: Admin, Path(user): Path<String>) -> Reply {
    set_ban(&app, by, &user, true).await
}

async fn unban(State(app): State<App>, by: Admin, Path(user): Path<String>) -> Reply {
    set_ban(&app, by, &user, false).await
}

async fn set_ban(app: &App, by: Admin, user: &str, banned: bool) -> Reply {
    let user = local(app, user, "Only local users can be shadow-banned")?;
    let id = user.to_string();
    let fact = move |account: &Account| {
        (account.shadow_banned != banned).then(|| ShadowBanSet { user: id.clone(), banned }.into())
    };
    record(app, by, user, fact).await?;
    Ok(axum::Json(json!({})))
}

fn shown(limit: RateLimit) -> Value {
    json!({ "messages_per_second": limit.per_second, "burst_count": limit.burst })
}

async fn rate(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Reply {
    let user = local(&app, &user, "Can only look up local users")?;
    Ok(axum::Json(existing(&app.view()?, &user)?.rate_limit.map_or_else(|| json!({}), shown)))
}

async fn set_rate(State(app): State<App>, by: Admin, Path(user): Path<String>, MaybeBody(body): MaybeBody) -> Reply {
    let user = local(&app, &user, "Only local users can be ratelimited")?;
    existing(&app.view()?, &user)?;
    let number = |name: &str| -> Result<u32, ApiError> {
        let given = body.get(name).map_or_else(String::new, Value::to_string);
        let wrong = format!("{given} parameter must be a positive int");
        Ok(body.field(name, ErrorKind::InvalidParam, &wrong)?.unwrap_or(0))
    };
    let limit = RateLimit { per_second: number("messages_per_second")?, burst: number("burst_count")? };
    set_limit(&app, by, user, Some(limit)).await?;
    Ok(axum::Json(shown(limit)))
}

async fn usual_rate(State(app): State<App>, by: Admin, Path(user): Path<String>) -> Reply {
    let user = local(&app, &user, "Only local users can be ratelimited")?;
    set_limit(&app, by, user, None).await?;
    Ok(axum::Json(json!({})))
}

async fn set_limit(app: &App, by: Admin, user: OwnedUserId, limit: Option<RateLimit>) -> Result<(), ApiError> {
    let id = user.to_string();
    let fact =
        move |account: &Account| (account.rate_limit != limit).then(|| RateLimitSet { user: id.clone(), limit }.into());
    record(app, by, user, fact).await
}

/// Renews an account until a time, or for as long as the settings say.
async fn renew(State(app): State<App>, by: Admin, body: Body) -> Reply {
    if body.get("user_id").is_none() {
        return Err(unknown("Missing property 'user_id' in the request body"));
    }
    let user = local(&app, &body.required_text("user_id")?, "Can only renew local users")?;
    let wrong = "'expiration_ts' must be a time in milliseconds, if given";
    let until = body.field::<Option<u64>>("expiration_ts", ErrorKind::InvalidParam, wrong)?.flatten();
    let end = until.unwrap_or_else(|| app.config.account_validity.end_of_renewed(app.clock.now_ms()));
    let id = user.to_string();
    let fact = move |account: &Account| {
        let fact = AccountValiditySet { user: id.clone(), expires_at_ms: Some(end) };
        (account.expires_at_ms != Some(end)).then(|| fact.into())
    };
    record(&app, by, user, fact).await?;
    Ok(axum::Json(json!({ "expiration_ts": end })))
}

async fn allow_replacement(State(app): State<App>, by: Admin, Path(user): Path<String>) -> Reply {
    let user = local(&app, &user, "Only local users have keys here")?;
    let view = app.view()?;
    let has_key = keys::cross_signing(&view, user.as_str(), user.as_str())?.master.is_some();
    drop(view);
    if !has_key {
        return Err(ApiError::not_found("User has no master cross-signing key"));
    }
    let (id, until_ms) = (user.to_string(), app.clock.now_ms() + REPLACEMENT_MS);
    record(&app, by, user, move |_| Some(KeyReplacementAllowed { user: id.clone(), until_ms }.into())).await?;
    Ok(axum::Json(json!({ "updatable_without_uia_before_ms": until_ms })))
}

async fn features(State(app): State<App>, _: Admin, Path(user): Path<String>) -> Reply {
    let user = local(&app, &user, "User must be local to check what experimental features are enabled.")?;
    let account = existing(&app.view()?, &user)?;
    let has = |name: &&str| ((*name).to_owned(), Value::Bool(account.features.contains(*name)));
    Ok(axum::Json(json!({ "features": FEATURES.iter().map(has).collect::<Map<_, _>>() })))
}

async fn set_features(State(app): State<App>, by: Admin, Path(user): Path<String>, body: Body) -> Reply {
    let user = local(&app, &user, "User must be local to enable experimental features.")?;
    let wanted = match body.get("features") {
        Some(Value::Object(wanted)) if !wanted.is_empty() => wanted.clone(),
        _ => return Err(unknown("You must provide features to set.")),
    };
    let mut sets = Vec::new();
    for (feature, enabled) in wanted {
        if !FEATURES.contains(&feature.as_str()) {
            return Err(unknown(format!("{} is not recognised as a valid experimental feature.", quoted(&feature))));
        }
        let Value::Bool(enabled) = enabled else {
            return Err(ApiError::new(ErrorKind::BadJson, format!("{} must be true or false", quoted(&feature))));
        };
        sets.push(ExperimentalFeatureSet { user: user.to_string(), feature, enabled });
    }
    let facts = move |account: &Account| {
        let new = sets.iter().filter(|set| account.features.contains(&set.feature) != set.enabled);
        new.cloned().map(Fact::from).collect()
    };
    users::change(&app.commands, by.origin(), user, facts).await?;
    Ok(axum::Json(json!({})))
}
