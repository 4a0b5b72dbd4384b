//! Client-server API, "Account registration".
//!
//! `POST /_matrix/client/v3/register`, `GET /_matrix/client/v3/register/available`,
//! `GET /_matrix/client/v1/register/m.login.registration_token/validity`

use axum::Router;
use projections::models::accounts;
use ruma::{
    OwnedUserId,
    api::{
        client::{
            account::{
                check_registration_token_validity::v1 as check_token,
                get_username_availability::v3 as get_availability,
                register::{LoginType, RegistrationKind, v3 as register},
            },
            uiaa::AuthType,
        },
        error::ErrorKind,
    },
};
use schemas::{Origin, facts::UserKind};

use crate::{
    commands::accounts::{self as commands, NewAccount, check_free, new_user_id, usable},
    config::RegistrationMode,
    http::{
        App,
        client::devices::check_device,
        extract::{Matrix, Routes},
        limit::Limit,
        passwords,
        reply::ApiError,
        tokens::Tokens,
        uia,
    },
};

/// Names that the server makes up.
const NAME: (&[u8], usize) = (b"abcdefghijklmnopqrstuvwxyz0123456789", 12);

pub fn routes() -> Router<App> {
    Router::new().matrix(register).matrix(get_availability).matrix(check_token)
}

async fn register(app: App, req: Matrix<register::Request>) -> Result<register::Response, ApiError> {
    app.limits.take(Limit::Registration, req.received.address)?;
    if matches!(req.body.login_type, Some(LoginType::ApplicationService)) {
        return Err(ApiError::unknown_token(false, "there is no application service with this token"));
    }
    if req.body.kind == RegistrationKind::Guest {
        return register_guest(&app).await;
    }
    let flows: &[&[AuthType]] = match app.config.registration.mode {
        RegistrationMode::Open => &[&[AuthType::Dummy]],
        RegistrationMode::Token => &[&[AuthType::RegistrationToken]],
        RegistrationMode::Closed => return Err(ApiError::forbidden("this server doesn't take registrations")),
    };
    check_device(req.body.device_id.as_deref(), req.body.initial_device_display_name.as_deref())?;
    let user = new_name(&app, req.body.username.as_deref())?;
    if let Some(password) = &req.body.password {
        passwords::check_strength(&app, password)?;
    }
    let passed = uia::interact(&app, &req.received, None, flows, req.body.auth.as_ref()).await?;
    let password = req.body.password.clone();
    let password = password.ok_or_else(|| ApiError::new(ErrorKind::MissingParam, "a password is missing"))?;
    let account = NewAccount {
        user,
        password: Some(app.passwords.hash(password).await?),
        admin: false,
        kind: UserKind::Regular,
        registration_token: passed.registration_token,
        display_name: None,
        user_type: None,
        expires_at_ms: app.config.account_validity.end_of_new(app.clock.now_ms()),
    };
    begin(&app, account, req.body).await
}

/// A name that is free, or one of the server's making.
fn new_name(app: &App, wanted: Option<&str>) -> Result<OwnedUserId, ApiError> {
    let made_up = || app.random.text(NAME.0, NAME.1);
    let user = new_user_id(&app.config.server_name, &wanted.map_or_else(made_up, ToOwned::to_owned))?;
    check_free(&app.view()?, &user)?;
    Ok(user)
}

async fn register_guest(app: &App) -> Result<register::Response, ApiError> {
    if !app.config.registration.guests {
        return Err(ApiError::new(ErrorKind::GuestAccessForbidden, "this server takes no guests"));
    }
    let user = new_name(app, None)?;
    let account = NewAccount {
        user,
        password: None,
        admin: false,
        kind: UserKind::Guest,
        registration_token: None,
        display_name: None,
        user_type: None,
        expires_at_ms: app.config.account_validity.end_of_new(app.clock.now_ms()),
    };
    // Guests can choose neither their device nor to be without a session.
    begin(app, account, register::Request::new()).await
}

async fn begin(app: &App, account: NewAccount, req: register::Request) -> Result<register::Response, ApiError> {
    let user = account.user.clone();
    let mut reply = register::Response::new(user.clone());
    if req.inhibit_login {
        commands::register(&app.commands, Origin::User { user: user.to_string(), device: None }, account, None).await?;
        return Ok(reply);
    }
    let tokens = Tokens::first(app, req.refresh_token);
    let session = tokens.session(app, req.device_id, req.initial_device_display_name);
    reply.device_id = Some(session.device.clone());
    let origin = Origin::User { user: user.to_string(), device: Some(session.device.to_string()) };
    commands::register(&app.commands, origin, account, Some(session)).await?;
    reply.access_token = Some(tokens.access);
    reply.refresh_token = tokens.refresh;
    reply.expires_in = tokens.expires_in;
    Ok(reply)
}

async fn get_availability(
    app: App,
    req: Matrix<get_availability::Request>,
) -> Result<get_availability::Response, ApiError> {
    app.limits.take(Limit::Registration, req.received.address)?;
    let user = new_user_id(&app.config.server_name, &req.body.username)?;
    check_free(&app.view()?, &user)?;
    Ok(get_availability::Response::new(true))
}

async fn check_token(app: App, req: Matrix<check_token::Request>) -> Result<check_token::Response, ApiError> {
    app.limits.take(Limit::Registration, req.received.address)?;
    let view = app.view()?;
    let token = accounts::registration_token(&view, &req.body.token)?;
    Ok(check_token::Response::new(token.is_some_and(|token| usable(&token, &view, app.clock.now_ms()))))
}
