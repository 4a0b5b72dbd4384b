//! Client-server API, "Profiles".
//!
//! `GET /_matrix/client/v3/profile/{userId}`, `GET`, `PUT` and `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`

use axum::Router;
use projections::{
    View,
    models::{accounts, profiles},
};
use ruma::{
    UserId,
    api::client::profile::{
        delete_profile_field::v3 as delete_profile_field, get_profile::v3 as get_profile,
        get_profile_field::v3 as get_profile_field, set_profile_field::v3 as set_profile_field,
    },
    profile::{ProfileFieldName, ProfileFieldValue},
};
use serde_json::Value;

use super::lenient::Lenient;
use crate::{
    commands::{
        content,
        profiles::{DISPLAY_NAME, set as set_field},
    },
    http::{
        App,
        auth::Session,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
};

pub fn routes() -> Router<App> {
    Router::new().matrix(whole).matrix(field).matrix(set).matrix(delete)
}

async fn whole(app: App, request: Matrix<get_profile::Request>) -> Result<get_profile::Response, ApiError> {
    let (view, user) = (app.view()?, request.body.user_id);
    check_account(&view, &user)?;
    let fields = profiles::of_user(&view, user.as_str());
    fields
        .map(|field| {
            let (name, value) = field?;
            Ok((name, value.read::<Value>().map_err(|error| ApiError::internal(&error))?))
        })
        .collect()
}

async fn field(app: App, request: Matrix<get_profile_field::Request>) -> Result<get_profile_field::Response, ApiError> {
    let (view, user, field) = (app.view()?, request.body.user_id, request.body.field);
    check_account(&view, &user)?;
    let value = profiles::field(&view, user.as_str(), field.as_str())?;
    let value = value.ok_or_else(|| ApiError::not_found(format!("{user} has no {field}")))?;
    let value = value.read().and_then(|value| ProfileFieldValue::new(field.as_str(), value));
    Ok(get_profile_field::Response::new(value.map_err(|error| ApiError::internal(&error))?))
}

async fn set(
    app: App,
    request: Matrix<Lenient<set_profile_field::Request>>,
) -> Result<set_profile_field::Response, ApiError> {
    let (who, Lenient(set_profile_field::Request { user_id, value, .. })) = (&request.who, &request.body);
    let field = value.field_name();
    check_may_change(who, user_id, &field)?;
    set_field(&app.commands, who, field.as_str(), Some(content::written(&*value.value())?)).await?;
    Ok(set_profile_field::Response::new())
}

async fn delete(
    app: App,
    request: Matrix<delete_profile_field::Request>,
) -> Result<delete_profile_field::Response, ApiError> {
    let (who, field) = (&request.who, &request.body.field);
    check_may_change(who, &request.body.user_id, field)?;
    set_field(&app.commands, who, field.as_str(), None).await?;
    Ok(delete_profile_field::Response::new())
}

fn check_account(view: &View, user: &UserId) -> Result<(), ApiError> {
    match accounts::get(view, user.as_str())? {
        Some(account) if !account.erased => Ok(()),
        _ => Err(ApiError::not_found(format!("{user} is not known here"))),
    }
}

fn check_may_change(who: &Session, user: &UserId, field: &ProfileFieldName) -> Result<(), ApiError> {
    who.must_be(user)?;
    if who.guest && field.as_str() != DISPLAY_NAME {
        return Err(ApiError::forbidden("guests can change their display name alone"));
    }
    Ok(())
}
