//! User-interactive authentication (client-server API, "User-Interactive Authentication API"): what is too weighty for
//! an access token alone. Sessions live in memory, for a time, bound to one request.

use std::sync::{Arc, Mutex, PoisonError};

use moka::sync::Cache;
use projections::models::accounts;
use ruma::{
    UserId,
    api::{
        client::uiaa::{AuthData, AuthFlow, AuthType, UiaaInfo},
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
    passed: Passed,
    completed: Vec<AuthType>,
}

/// What a complete authentication leaves to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The registration token, where one was asked for.
    pub registration_token: Option<String>,
}

/// How one stage ended.
enum Stage {
    Completed(AuthType, Passed),
    Failed(ErrorKind, &'static str),
    Nothing,
}

impl Interactions {
    /// None yet.
    #[must_use]
    pub fn new(config: &Sessions) -> Self {
        Self(Cache::builder().max_capacity(SESSIONS).time_to_live(config.authentication).build())
    }

    /// The named session if it is for this request, else a new one.
    fn resume(
        &self,
        named: Option<&str>,
        request: [u8; 32],
        new_id: impl Fn() -> String,
    ) -> (String, Arc<Mutex<State>>) {
        if let Some(id) = named
            && let Some(state) = self.0.get(id)
            && state.lock().unwrap_or_else(PoisonError::into_inner).request == request
        {
            return (id.to_owned(), state);
        }
        let (id, state) = (new_id(), State { request, passed: Passed::default(), completed: Vec::new() });
        let state = Arc::new(Mutex::new(state));
        self.0.insert(id.clone(), Arc::clone(&state));
        (id, state)
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
    let (id, session) = app.interactions.resume(auth.and_then(AuthData::session), fingerprint, new_id);
    let stage = match auth {
        Some(auth) if auth.auth_type().is_some_and(|stage| !flows.iter().any(|flow| flow.contains(&stage))) => {
            Stage::Failed(ErrorKind::Unrecognized, "this stage is not among those offered")
        }
        Some(auth) => attempt(app, user, auth).await?,
        None => Stage::Nothing,
    };
    let mut state = session.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failure = None;
    match stage {
        Stage::Completed(stage, passed) => {
            if !state.completed.contains(&stage) {
                state.completed.push(stage);
            }
            state.passed.registration_token = passed.registration_token.or(state.passed.registration_token.take());
        }
        Stage::Failed(kind, message) => failure = Some(StandardErrorBody::new(kind, message.to_owned())),
        Stage::Nothing => {}
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

async fn attempt(app: &App, user: Option<&UserId>, auth: &AuthData) -> Result<Stage, ApiError> {
    Ok(match auth {
        AuthData::Dummy(_) => Stage::Completed(AuthType::Dummy, Passed::default()),
        AuthData::Password(given) => {
            let named = passwords::named(&app.config.server_name, &given.identifier);
            match user.filter(|user| named.as_deref() == Some(user)) {
                Some(user) if passwords::confirm(app, user, &given.password).await? => {
                    Stage::Completed(AuthType::Password, Passed::default())
                }
                Some(_) => Stage::Failed(ErrorKind::Forbidden, "the password is wrong"),
                None => return Err(ApiError::forbidden("the identifier is not that of the access token's user")),
            }
        }
        AuthData::RegistrationToken(given) => {
            let view = app.view()?;
            let token = accounts::registration_token(&view, &given.token)?;
            if token.is_some_and(|token| usable(&token, &view, app.clock.now_ms())) {
                let passed = Passed { registration_token: Some(given.token.clone()) };
                Stage::Completed(AuthType::RegistrationToken, passed)
            } else {
                Stage::Failed(ErrorKind::Unauthorized, "the registration token is unknown, used up or over")
            }
        }
        AuthData::FallbackAcknowledgement(_) => Stage::Nothing,
        _ => Stage::Failed(ErrorKind::Unrecognized, "this stage is not among those offered"),
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
