//! Client-server API, "User-Interactive Authentication API", "Fallback": a stage in a web browser, for clients that can't
//! show it themselves.
//!
//! `GET` and `POST /_matrix/client/v3/auth/{stage}/fallback/web`

use std::collections::HashMap;

use axum::{
    Router,
    extract::{Form, State, rejection::FormRejection},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use ruma::api::client::uiaa::AuthType;
use serde::Deserialize;

use crate::http::{
    App,
    extract::{Path, Query},
    reply::ApiError,
    uia::{self, Answer},
};

/// Nothing from elsewhere, and nobody else's frame around it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'self'; \
     frame-ancestors 'none'";

pub fn routes() -> Router<App> {
    let stage = || get(show).post(submit);
    Router::new()
        .route("/_matrix/client/v3/auth/{stage}/fallback/web", stage())
        .route("/_matrix/client/r0/auth/{stage}/fallback/web", stage())
}

#[derive(Deserialize)]
struct Of {
    session: String,
}

async fn show(State(app): State<App>, Path(stage): Path<String>, Query(of): Query<Of>) -> Result<Response, ApiError> {
    let stage = AuthType::from(stage);
    Ok(match uia::is_completed(&app, &of.session, &stage).await? {
        true => page(StatusCode::OK, DONE),
        false => ask(StatusCode::OK, &stage, ""),
    })
}

async fn submit(
    State(app): State<App>,
    Path(stage): Path<String>,
    Query(of): Query<Of>,
    form: Result<Form<HashMap<String, String>>, FormRejection>,
) -> Result<Response, ApiError> {
    let stage = AuthType::from(stage);
    let Form(mut fields) = form.map_err(|error| ApiError::invalid(error.body_text()))?;
    let mut field = |name| fields.remove(name).unwrap_or_default();
    let answer = match stage {
        AuthType::Password => Answer::Password(field("password")),
        AuthType::RegistrationToken => Answer::RegistrationToken(field("token")),
        _ => Answer::Dummy,
    };
    Ok(match uia::answer(&app, &of.session, &stage, answer).await? {
        Ok(()) => page(StatusCode::OK, DONE),
        Err(why) => ask(StatusCode::FORBIDDEN, &stage, why),
    })
}

/// What a stage asks for. It is sent to where it came from, so that nothing that the request says stands in the page.
fn ask(status: StatusCode, stage: &AuthType, why_again: &str) -> Response {
    let fields = match stage {
        AuthType::Password => {
            r#"<label>Your password <input name="password" type="password" autocomplete="current-password" required autofocus></label>"#
        }
        AuthType::RegistrationToken => {
            r#"<label>Your registration token <input name="token" autocomplete="off" required autofocus></label>"#
        }
        _ => "",
    };
    let form =
        format!(r#"<p role="alert">{why_again}</p><form method="post">{fields} <button>Continue</button></form>"#);
    page(status, &form)
}

/// Tells the client that opened the page (client-server API, "Fallback").
const DONE: &str = r#"<p>Thank you. You can close this window.</p>
<script>
if (window.onAuthDone) { window.onAuthDone(); }
else if (window.opener && window.opener.postMessage) { window.opener.postMessage("authDone", "*"); }
</script>"#;

fn page(status: StatusCode, contents: &str) -> Response {
    let html = format!(
        r#"<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Authentication</title><style>body {{ font: 1em sans-serif; margin: 2em auto; max-width: 24em }}</style></head>
<body><h1>Authentication</h1>
{contents}
</body></html>
"#
    );
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Html(html)).into_response()
}
