//! User-interactive authentication (client-server API, "User-Interactive Authentication API"): what is too weighty for
//! an access token alone. Sessions live in memory, for a time, bound to one request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use moka::sync::Cache;
use projections::models::accounts;
use ruma::{
    OwnedUserId, UserId,
    api::{
        client::uiaa::{AuthData, AuthFlow, AuthType, UiaaInfo, UserIdentifier},
        error::{ErrorKind, StandardErrorBody},
    },
};
use sha2::{Digest, Sha256};

use super::{App, extract::Received, passwords, reply::ApiError};
use crate::{commands::accounts::usable, config::Sessions};

/// At most so many sessions; the least used are forgotten first.
const SESSIONS: u64 = 50_000;

/// Authentications under way.
pub struct Interactions(Cache<String, Arc<Mutex<State>>>);

struct State {
    /// Which request it is for.
    request: [u8; 32],
    /// Whose password counts.
    user: Option<OwnedUserId>,
    /// What is asked for in one flow or another.
    stages: Vec<AuthType>,
    passed: Passed,
    completed: Vec<AuthType>,
}

impl State {
    fn complete(&mut self, stage: AuthType, passed: Passed) {
        if !self.completed.contains(&stage) {
            self.completed.push(stage);
        }
        self.passed.registration_token = passed.registration_token.or(self.passed.registration_token.take());
    }
}

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

impl Interactions {
    /// None yet.
    #[must_use]
    pub fn new(config: &Sessions) -> Self {
        Self(Cache::builder().max_capacity(SESSIONS).time_to_live(config.authentication).build())
    }

    /// The named session if it is for the same request as a new one, else the new one.
    fn resume(&self, named: Option<&str>, new: State, new_id: impl Fn() -> String) -> (String, Arc<Mutex<State>>) {
        if let Some(id) = named
            && let Some(state) = self.0.get(id)
            && lock(&state).request == new.request
        {
            return (id.to_owned(), state);
        }
        let (id, state) = (new_id(), Arc::new(Mutex::new(new)));
        self.0.insert(id.clone(), Arc::clone(&state));
        (id, state)
    }

    /// A session that asks for a stage.
    fn asking(&self, session: &str, stage: &AuthType) -> Result<Arc<Mutex<State>>, ApiError> {
        let asking = self.0.get(session).filter(|state| lock(state).stages.contains(stage));
        asking.ok_or_else(|| ApiError::not_found("this authentication is over, or does not ask for this stage"))
    }

    /// Whether a stage of a session is completed.
    ///
    /// # Errors
    /// `M_NOT_FOUND` for a session that is not there or does not ask for it.
    pub fn is_completed(&self, session: &str, stage: &AuthType) -> Result<bool, ApiError> {
        Ok(lock(&*self.asking(session, stage)?).completed.contains(stage))
    }
}

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
    let new_id = || app.random.alphanumeric(24);
    let new = State {
        request: fingerprint,
        user: user.map(ToOwned::to_owned),
        stages: flows.concat(),
        passed: Passed::default(),
        completed: Vec::new(),
    };
    let (id, session) = app.interactions.resume(auth.and_then(AuthData::session), new, new_id);
    let checked = match auth {
        Some(auth) if auth.auth_type().is_some_and(|stage| !flows.iter().any(|flow| flow.contains(&stage))) => {
            Some(Err(NOT_OFFERED))
        }
        Some(auth) => attempt(app, user, auth).await?,
        None => None,
    };
    let mut state = lock(&session);
    let mut failure = None;
    match checked {
        Some(Ok((stage, passed))) => state.complete(stage, passed),
        Some(Err((kind, message))) => failure = Some(StandardErrorBody::new(kind, message.to_owned())),
        None => {}
    }
    if failure.is_none() && flows.iter().any(|flow| flow.iter().all(|stage| state.completed.contains(stage))) {
        return Ok(state.passed.clone());
    }
    let mut info = UiaaInfo::new(flows.iter().map(|flow| AuthFlow::new(flow.to_vec())).collect());
    info.completed.clone_from(&state.completed);
    info.session = Some(id);
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
    let session = app.interactions.asking(session, stage)?;
    let user = lock(&session).user.clone();
    let checked = check(app, user.as_deref(), answer).await?;
    Ok(checked.map(|(stage, passed)| lock(&session).complete(stage, passed)).map_err(|(_, why)| why))
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

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
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
