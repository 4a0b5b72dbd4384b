//! Authentications under way: in memory, for a time, on all nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use projections::{StoreError, View, models::accounts};
use ruma::{OwnedUserId, UserId, api::client::uiaa::AuthType};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Passed;
use crate::{
    config::Sessions,
    nodes::{Authentication, Channel, Message, Told},
};

/// At most so many sessions; the least used are forgotten first.
const SESSIONS: u64 = 50_000;

/// Authentications under way. What happens to one is told to the other nodes, without any secret: a session's id and a
/// registration token are the client's to know, and stand for themselves only as hashes.
#[derive(Clone)]
pub struct Interactions(Cache<String, Arc<Mutex<State>>>);

/// One authentication.
pub(super) struct Session {
    /// What the client calls it.
    pub(super) id: String,
    state: Arc<Mutex<State>>,
}

pub(super) struct State {
    /// Which request it is for.
    request: [u8; 32],
    /// Whose password counts.
    user: Option<OwnedUserId>,
    /// What is asked for in one flow or another.
    stages: Vec<AuthType>,
    completed: Vec<AuthType>,
    token: Option<Token>,
}

/// A registration token that somebody has given.
enum Token {
    Here(String),
    /// To another node, which told this of it.
    Elsewhere(Vec<u8>),
}

impl State {
    /// Nothing is completed yet.
    pub(super) fn new(request: [u8; 32], user: Option<&UserId>, stages: Vec<AuthType>) -> Self {
        Self { request, user: user.map(ToOwned::to_owned), stages, completed: Vec::new(), token: None }
    }

    fn complete(&mut self, stage: AuthType, token: Option<Token>) {
        if !self.completed.contains(&stage) {
            self.completed.push(stage);
        }
        self.token = self.token.take().or(token);
    }
}

impl Interactions {
    fn new(config: &Sessions) -> Self {
        Self(Cache::builder().max_capacity(SESSIONS).time_to_live(config.authentication).build())
    }

    /// None yet; what the other nodes tell is heard.
    #[must_use]
    pub fn hearing(config: &Sessions, channel: &dyn Channel) -> Self {
        let this = Self::new(config);
        let hearing = this.clone();
        channel.listen(Box::new(move |_, told| hearing.hear(told)));
        this
    }

    /// A session that this node knows.
    pub(super) fn get(&self, id: &str) -> Option<Session> {
        Some(Session { id: id.to_owned(), state: self.0.get(&name(id))? })
    }

    /// Begins one.
    pub(super) fn begin(&self, id: String, state: State) -> Session {
        let state = Arc::new(Mutex::new(state));
        self.0.insert(name(&id), Arc::clone(&state));
        Session { id, state }
    }

    /// Takes over what another node told.
    fn hear(&self, told: &Told) {
        let Message::Authentication(told) = &told.message else { return };
        let stages = |names: &[String]| names.iter().map(|name| AuthType::from(name.as_str())).collect::<Vec<_>>();
        let begin = || Arc::new(Mutex::new(State::new(told.request, told.user.as_deref(), stages(&told.stages))));
        let state = self.0.get_with(told.session.clone(), begin);
        let mut state = lock(&state);
        for stage in stages(&told.completed) {
            state.complete(stage, told.registration_token.clone().map(Token::Elsewhere));
        }
    }
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn is_for(&self, request: &[u8; 32]) -> bool {
        self.state().request == *request
    }

    pub(super) fn asks_for(&self, stage: &AuthType) -> bool {
        self.state().stages.contains(stage)
    }

    pub(super) fn has_completed(&self, stage: &AuthType) -> bool {
        self.state().completed.contains(stage)
    }

    pub(super) fn completed(&self) -> Vec<AuthType> {
        self.state().completed.clone()
    }

    pub(super) fn user(&self) -> Option<OwnedUserId> {
        self.state().user.clone()
    }

    pub(super) fn complete(&self, stage: AuthType, passed: Passed) {
        self.state().complete(stage, passed.registration_token.map(Token::Here));
    }

    /// What it leaves to know if one of the flows is completed.
    pub(super) fn passed(&self, flows: &[&[AuthType]], view: &View) -> Result<Option<Passed>, StoreError> {
        let mut state = self.state();
        if !flows.iter().any(|flow| flow.iter().all(|stage| state.completed.contains(stage))) {
            return Ok(None);
        }
        if let Some(Token::Elsewhere(hash)) = &state.token {
            let Some(token) = self.recognise(hash, view)? else {
                // It was withdrawn meanwhile.
                state.completed.retain(|stage| *stage != AuthType::RegistrationToken);
                state.token = None;
                return Ok(None);
            };
            state.token = Some(Token::Here(token));
        }
        let registration_token = match &state.token {
            Some(Token::Here(token)) => Some(token.clone()),
            _ => None,
        };
        Ok(Some(Passed { registration_token }))
    }

    /// The registration token with a hash.
    fn recognise(&self, hash: &[u8], view: &View) -> Result<Option<String>, StoreError> {
        for token in accounts::registration_tokens(view, None) {
            let (token, _) = token?;
            if bool::from(self.hash(&token).as_slice().ct_eq(hash)) {
                return Ok(Some(token));
            }
        }
        Ok(None)
    }

    /// Who doesn't know the session's id learns nothing from it.
    fn hash(&self, token: &str) -> Vec<u8> {
        Hmac::<Sha256>::new_from_slice(self.id.as_bytes())
            .map(|hmac| hmac.chain_update(token).finalize().into_bytes().to_vec())
            .unwrap_or_default()
    }

    /// How the other nodes are told of it.
    pub(super) fn message(&self) -> Message {
        let state = self.state();
        let names = |stages: &[AuthType]| stages.iter().map(|stage| stage.as_str().to_owned()).collect();
        Message::Authentication(Authentication {
            session: name(&self.id),
            request: state.request,
            user: state.user.clone(),
            stages: names(&state.stages),
            completed: names(&state.completed),
            registration_token: state.token.as_ref().map(|token| match token {
                Token::Here(token) => self.hash(token),
                Token::Elsewhere(hash) => hash.clone(),
            }),
        })
    }
}

/// What nodes call a session: whoever hears it can't go on with it.
fn name(id: &str) -> String {
    hex::encode(Sha256::digest(id))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Sources},
        nodes::Node,
    };

    #[test]
    fn other_nodes_are_told_no_secret() {
        let lasting = Config::load(Sources::default()).unwrap().sessions;
        let [here, elsewhere] = [0, 1].map(|_| Interactions::new(&lasting));
        let stages = vec![AuthType::RegistrationToken];
        let session = here.begin("the session's id".into(), State::new([7; 32], None, stages));
        session.complete(AuthType::RegistrationToken, Passed { registration_token: Some("come-in".into()) });
        let message = session.message();
        let text = serde_json::to_string(&message).unwrap();
        assert!(!text.contains("the session's id") && !text.contains("come-in"), "{text}");
        elsewhere.hear(&Told { from: Node { number: 0, boot: "boot".into() }, message });
        let there = elsewhere.get("the session's id").unwrap();
        assert!(there.is_for(&[7; 32]) && there.has_completed(&AuthType::RegistrationToken));
        assert_eq!(there.message(), session.message());
        assert!(elsewhere.get("another id").is_none());
    }
}
