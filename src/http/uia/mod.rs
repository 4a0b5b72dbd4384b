//! User-interactive authentication (client-server API, "User-Interactive Authentication API"): what is too weighty for
//! an access token alone. Sessions live in memory, for a time, bound to one request; one that begins on one node goes on
//! on any other.

mod sessions;

use std::time::Duration;

use projections::models::accounts;
use ruma::{
    UserId,
    api::{
        client::uiaa::{AuthData, AuthFlow, AuthType, UiaaInfo, UserIdentifier},
        error::{ErrorKind, StandardErrorBody},
    },
};
use sha2::{Digest, Sha256};

pub use self::sessions::Interactions;
use self::sessions::{Session, State};
use super::{App, extract::Received, passwords, reply::ApiError};
use crate::commands::accounts::usable;

/// So long this node waits for what others have to tell.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What a complete authentication leaves to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The registration token, where one was asked for.
    pub registration_token: Option<String>,
}

/// What somebody gives to complete a stage.
pub enum Answer {
    /// Nothing is asked.
    Dummy,
    /// Their password.
    Password(String),
    /// A registration token.
    RegistrationToken(String),
}

/// How one stage ended.
type Checked = Result<(AuthType, Passed), (ErrorKind, &'static str)>;

/// Has the sender of a request authenticate by one of `flows`. `user` is whose password counts, none before there is
/// an account. A request that has passed passes again, for as long as its session is kept.
///
/// # Errors
/// 401 with what is left to do.
pub async fn interact(
    app: &App,
    request: &Received,
    user: Option<&UserId>,
    flows: &[&[AuthType]],
    auth: Option<&AuthData>,
) -> Result<Passed, ApiError> {
    let fingerprint = fingerprint(user, request.uri.path(), &request.raw);
    let named = auth.and_then(AuthData::session);
    let known = find(app, named).await.filter(|session| session.is_for(&fingerprint));
    let goes_on = known.is_some();
    let begin = || {
        let state = State::new(fingerprint, user, flows.concat());
        app.interactions.begin(app.random.alphanumeric(24), state)
    };
    let session = known.unwrap_or_else(begin);
    let checked = match auth {
        Some(auth) if auth.auth_type().is_some_and(|stage| !flows.iter().any(|flow| flow.contains(&stage))) => {
            Some(Err(NOT_OFFERED))
        }
        Some(auth) => attempt(app, user, auth).await?,
        None => None,
    };
    let completes = matches!(checked, Some(Ok(_)));
    let mut failure = None;
    match checked {
        Some(Ok((stage, passed))) => session.complete(stage, passed),
        Some(Err((kind, message))) => failure = Some(StandardErrorBody::new(kind, message.to_owned())),
        None => {}
    }
    if failure.is_none() {
        let mut passed = session.passed(flows, &app.view()?)?;
        if passed.is_none() && goes_on {
            // The rest may have come to another node.
            catch_up(app).await;
            passed = session.passed(flows, &app.view()?)?;
        }
        if let Some(passed) = passed {
            return Ok(passed);
        }
    }
    if completes || !goes_on {
        tell(app, &session).await;
    }
    let mut info = UiaaInfo::new(flows.iter().map(|flow| AuthFlow::new(flow.to_vec())).collect());
    info.completed = session.completed();
    info.session = Some(session.id);
    // Clients expect the object, though none of the stages has parameters.
    info.params = serde_json::value::to_raw_value(&serde_json::Map::new()).ok();
    info.auth_error = failure.map(Box::new);
    Err(ApiError::interactive(info))
}

/// Completes a stage of a session apart from the request that it is for; the client then repeats that with the session
/// alone. Says why if the answer is not right.
///
/// # Errors
/// `M_NOT_FOUND` for a session that is not there or does not ask for this stage.
pub async fn answer(
    app: &App,
    session: &str,
    stage: &AuthType,
    answer: Answer,
) -> Result<Result<(), &'static str>, ApiError> {
    let session = asking(app, session, stage).await?;
    let checked = check(app, session.user().as_deref(), answer).await?;
    Ok(match checked {
        Ok((stage, passed)) => {
            session.complete(stage, passed);
            tell(app, &session).await;
            Ok(())
        }
        Err((_, why)) => Err(why),
    })
}

/// Whether a stage of a session is completed.
///
/// # Errors
/// `M_NOT_FOUND` for a session that is not there or does not ask for it.
pub async fn is_completed(app: &App, session: &str, stage: &AuthType) -> Result<bool, ApiError> {
    Ok(asking(app, session, stage).await?.has_completed(stage))
}

/// A session that asks for a stage.
async fn asking(app: &App, session: &str, stage: &AuthType) -> Result<Session, ApiError> {
    let asking = find(app, Some(session)).await.filter(|session| session.asks_for(stage));
    asking.ok_or_else(|| ApiError::not_found("this authentication is over, or does not ask for this stage"))
}

/// A session by its id, whichever node it began on.
async fn find(app: &App, id: Option<&str>) -> Option<Session> {
    let id = id?;
    if let Some(session) = app.interactions.get(id) {
        return Some(session);
    }
    catch_up(app).await;
    app.interactions.get(id)
}

/// Tells the other nodes how a session stands, before its client can be there with it.
async fn tell(app: &App, session: &Session) {
    app.channel.tell(session.message());
    catch_up(app).await;
}

/// Waits a moment for what all nodes have told. Who can't be heard is done without: the client begins anew.
async fn catch_up(app: &App) {
    let _heard = tokio::time::timeout(CATCH_UP, app.channel.caught_up()).await;
}

const NOT_OFFERED: (ErrorKind, &str) = (ErrorKind::Unrecognized, "this stage is not among those offered");

/// How the stage that a request names ended; none where it names none.
async fn attempt(app: &App, user: Option<&UserId>, auth: &AuthData) -> Result<Option<Checked>, ApiError> {
    let answer = match auth {
        AuthData::Dummy(_) => Answer::Dummy,
        AuthData::Password(given) => {
            let own = is_unnamed(&given.identifier)
                || user.is_some() && passwords::named(&app.config.server_name, &given.identifier).as_deref() == user;
            if !own {
                return Err(ApiError::forbidden("the identifier is not that of the access token's user"));
            }
            Answer::Password(given.password.clone())
        }
        AuthData::RegistrationToken(given) => Answer::RegistrationToken(given.token.clone()),
        AuthData::FallbackAcknowledgement(_) => return Ok(None),
        _ => return Ok(Some(Err(NOT_OFFERED))),
    };
    check(app, user, answer).await.map(Some)
}

/// An empty name stands for that of the access token's user.
fn is_unnamed(identifier: &UserIdentifier) -> bool {
    matches!(identifier, UserIdentifier::Matrix(id) if id.user.is_empty())
}

async fn check(app: &App, user: Option<&UserId>, answer: Answer) -> Result<Checked, ApiError> {
    Ok(match answer {
        Answer::Dummy => Ok((AuthType::Dummy, Passed::default())),
        Answer::Password(password) => {
            let user = user.ok_or_else(|| ApiError::forbidden("nobody has a password yet"))?;
            if passwords::confirm(app, user, &password).await? {
                Ok((AuthType::Password, Passed::default()))
            } else {
                Err((ErrorKind::Forbidden, "the password is wrong"))
            }
        }
        Answer::RegistrationToken(token) => {
            let view = app.view()?;
            let found = accounts::registration_token(&view, &token)?;
            if found.is_some_and(|found| usable(&found, &view, app.clock.now_ms())) {
                Ok((AuthType::RegistrationToken, Passed { registration_token: Some(token) }))
            } else {
                Err((ErrorKind::Unauthorized, "the registration token is unknown, used up or over"))
            }
        }
    })
}

/// Tells one request from another: its user, its path and its body without `auth`.
fn fingerprint(user: Option<&UserId>, path: &str, body: &[u8]) -> [u8; 32] {
    let mut json: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).unwrap_or_default();
    json.remove("auth");
    let body = serde_json::Value::Object(json).to_string();
    let mut hash = Sha256::new();
    for part in [user.map_or("", UserId::as_str), path, &body] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_ignores_auth_alone() {
        let of = |body: &str| fingerprint(None, "/x", body.as_bytes());
        assert_eq!(of(r#"{"a":1,"auth":{"type":"x"}}"#), of(r#"{"auth":{}, "a":1}"#));
        assert_eq!(of(""), of("{}"));
        assert_ne!(of(r#"{"a":1}"#), of(r#"{"a":2}"#));
        assert_ne!(of("{}"), fingerprint(None, "/y", b"{}"));
    }
}
