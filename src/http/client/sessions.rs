//! Client-server API, "Login", "Token-authenticated User login", "Refreshing access tokens", "Logout".
//!
//! `GET /_matrix/client/v3/login`, `POST /_matrix/client/v3/login`, `POST /_matrix/client/v1/login/get_token`,
//! `POST /_matrix/client/v3/refresh`, `POST /_matrix/client/v3/logout`, `POST /_matrix/client/v3/logout/all`

use axum::{Router, http};
use projections::models::accounts;
use ruma::{
    OwnedUserId,
    api::{
        IncomingRequest, Metadata,
        client::{
            session::{
                get_login_token::v1 as get_login_token,
                get_login_types::v3::{self as get_login_types, LoginType, PasswordLoginType, TokenLoginType},
                login::v3::{self as login, DiscoveryInfo, HomeserverInfo, LoginInfo},
                logout::v3 as logout,
                logout_all::v3 as logout_all,
                refresh_token::v3 as refresh_token,
            },
            uiaa::{AuthData, AuthType},
        },
        error::{DeserializationError, ErrorKind},
    },
};

use crate::{
    commands::{devices, sessions},
    http::{
        App,
        auth::sha256,
        client::{devices::check_device, lenient::Lenient},
        extract::{Matrix, Routes},
        limit::Limit,
        passwords,
        reply::ApiError,
        tokens::{LoginToken, Tokens},
        uia,
    },
};

pub fn routes() -> Router<App> {
    Router::new()
        .matrix(get_login_types)
        .matrix(login)
        .matrix(get_login_token)
        .matrix(refresh_token)
        .matrix(logout)
        .matrix(logout_all)
}

async fn get_login_types(_: App, _: Matrix<get_login_types::Request>) -> Result<get_login_types::Response, ApiError> {
    let mut by_token = TokenLoginType::new();
    by_token.get_login_token = true;
    Ok(get_login_types::Response::new(vec![LoginType::Password(PasswordLoginType::new()), LoginType::Token(by_token)]))
}

/// ruma's request, whose own reading panics where the body is an object without a `type`.
struct Login(login::Request);

impl Metadata for Login {
    const METHOD: http::Method = login::Request::METHOD;
    const RATE_LIMITED: bool = login::Request::RATE_LIMITED;
    type Authentication = <login::Request as Metadata>::Authentication;
    type PathBuilder = <login::Request as Metadata>::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = login::Request::PATH_BUILDER;
}

impl IncomingRequest for Login {
    type EndpointError = <login::Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = login::Response;

    fn try_from_http_request_inner(request: http::Request<&[u8]>, args: &[&str]) -> Result<Self, DeserializationError> {
        #[derive(serde::Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            _type: String,
        }
        let body = if request.body().is_empty() { b"{}" } else { *request.body() };
        serde_json::from_slice::<Typed>(body)?;
        login::Request::try_from_http_request_inner(request, args).map(Self)
    }
}

async fn login(app: App, req: Matrix<Login>) -> Result<login::Response, ApiError> {
    app.limits.take(Limit::Login, req.received.address)?;
    let login::Request { login_info, device_id, initial_device_display_name, refresh_token, .. } = req.body.0;
    check_device(device_id.as_deref(), initial_device_display_name.as_deref())?;
    let tokens = Tokens::first(&app, refresh_token);
    let session = tokens.session(&app, device_id, initial_device_display_name);
    let device = session.device.clone();
    let user = match login_info {
        LoginInfo::Password(given) => {
            let user = by_password(&app, given).await?;
            sessions::log_in(&app.commands, user.clone(), session).await?;
            user
        }
        LoginInfo::Token(given) => sessions::log_in_by_token(&app.commands, sha256(&given.token), session).await?,
        other => {
            let message = format!("nobody can log in here by {}", other.login_type());
            return Err(ApiError::with_status(http::StatusCode::BAD_REQUEST, ErrorKind::Unknown, message));
        }
    };
    let mut reply = login::Response::new(user, tokens.access, device);
    reply.refresh_token = tokens.refresh;
    reply.expires_in = tokens.expires_in;
    let url = app.config.http.public_url.as_ref();
    reply.well_known = url.map(|url| DiscoveryInfo::new(HomeserverInfo::new(url.as_str().to_owned())));
    Ok(reply)
}

async fn by_password(app: &App, given: login::Password) -> Result<OwnedUserId, ApiError> {
    #[expect(deprecated, reason = "clients older than r0.4.0 name the user beside the identifier")]
    let name = given.user.as_deref();
    let server = &app.config.server_name;
    let named = match &given.identifier {
        Some(identifier) => passwords::named(server, identifier),
        None => {
            let name = name.ok_or_else(|| ApiError::new(ErrorKind::MissingParam, "an identifier is missing"))?;
            passwords::user_id(server, name)
        }
    };
    let refused = || ApiError::forbidden("the user name or the password is wrong");
    let Some(named) = named else { return Err(refused()) };
    let view = app.view()?;
    // A name in other letters is the same name, unless two accounts differ by that alone.
    let user = match accounts::get(&view, named.as_str())? {
        Some(_) => named,
        None => accounts::named(&view, named.as_str())?.and_then(|user| user.try_into().ok()).unwrap_or(named),
    };
    let confirmed = passwords::confirm(app, &user, &given.password).await?;
    if accounts::get(&view, user.as_str())?.is_some_and(|account| account.deactivated) {
        return Err(ApiError::new(ErrorKind::UserDeactivated, "this account has ended"));
    }
    if confirmed { Ok(user) } else { Err(refused()) }
}

async fn get_login_token(
    app: App,
    req: Matrix<Lenient<get_login_token::Request>>,
) -> Result<get_login_token::Response, ApiError> {
    let (who, auth) = (&req.who, req.body.0.auth.as_ref());
    if accounts::password(&app.view()?, who.user.as_str())?.is_none() {
        let message = "this account has no password, by which its user could show that they want this";
        return Err(ApiError::with_status(http::StatusCode::BAD_REQUEST, ErrorKind::Unknown, message));
    }
    let authenticate = |auth| uia::interact(&app, &req.received, Some(&who.user), &[&[AuthType::Password]], auth);
    authenticate(auth).await?;
    app.throttle(Limit::LoginToken, who)?;
    // Each token is to be wanted: an authentication is good for one, on whichever node.
    let session = auth.and_then(AuthData::session);
    let request = session.map_or_else(|| (&who.sender).into(), |session| req.once(session.into()));
    let token = LoginToken::new(&app);
    let issued =
        sessions::issue_login_token(&app.commands, request, who, sha256(&token.text), token.ends_at_ms).await?;
    if !issued {
        authenticate(None).await?;
    }
    Ok(get_login_token::Response::new(token.lasts, token.text))
}

async fn refresh_token(app: App, req: Matrix<refresh_token::Request>) -> Result<refresh_token::Response, ApiError> {
    let tokens = Tokens::next(&app);
    sessions::refresh(&app.commands, sha256(&req.body.refresh_token), tokens.pair(&app)).await?;
    let mut reply = refresh_token::Response::new(tokens.access);
    reply.refresh_token = Some(tokens.refresh);
    reply.expires_in_ms = tokens.expires_in;
    Ok(reply)
}

async fn logout(app: App, req: Matrix<logout::Request>) -> Result<logout::Response, ApiError> {
    match req.who.administrator() {
        None => devices::remove(&app.commands, &req.who, [req.who.device.clone()]).await?,
        Some(_) => sessions::end_stand_in(&app.commands, &req.who, req.who.token).await?,
    }
    Ok(logout::Response::new())
}

async fn logout_all(app: App, req: Matrix<logout_all::Request>) -> Result<logout_all::Response, ApiError> {
    match req.who.administrator() {
        None => {
            sessions::end_stand_ins(&app.commands, &req.who).await?;
            devices::remove_all(&app.commands, &req.who).await?;
        }
        Some(_) => sessions::end_stand_in(&app.commands, &req.who, req.who.token).await?,
    }
    Ok(logout_all::Response::new())
}
