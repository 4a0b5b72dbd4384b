//! Passwords: hashed and checked with Argon2id, away from the threads that answer requests, a few at a time.

use std::sync::{Arc, OnceLock};

use argon2::{
    Argon2,
    password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use projections::models::accounts;
use ruma::{
    OwnedUserId, ServerName, UserId,
    api::{client::uiaa::UserIdentifier, error::ErrorKind},
};

use super::{App, limit::Limit, reply::ApiError};
use crate::clock::Random;

/// The longest password, bytes: hashing time must not depend on what is sent.
pub const MAX_BYTES: usize = 512;
/// At most so many hashes wait for their turn.
const QUEUE: usize = 512;

/// Hashes and checks passwords.
pub struct Passwords {
    random: Arc<dyn Random>,
    /// One for each processor, and each uses 19 MiB.
    turns: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

impl Passwords {
    /// As many at a time as there are processors.
    #[must_use]
    pub fn new(random: Arc<dyn Random>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { random, turns: Arc::new(Semaphore::new(processors)), queue: Arc::new(Semaphore::new(QUEUE)) }
    }

    /// The Argon2id string of a password, in PHC format, with a salt of its own.
    ///
    /// # Errors
    /// 503 when too many wait.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        let salt: [u8; 16] = self.random.bytes();
        let hashed = self.turn(move || hash(&password, &salt)).await?;
        hashed.map(|hash| hash.to_string()).map_err(|error| ApiError::internal(&error))
    }

    /// Whether a password is the one that was hashed. Without a hash it takes as long, so that nobody learns who has an
    /// account here.
    ///
    /// # Errors
    /// 503 when too many wait.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, ApiError> {
        if password.len() > MAX_BYTES {
            return Ok(false);
        }
        let verified = self.turn(move || verify(&password, hash.as_deref())).await?;
        verified.map_err(|error| ApiError::internal(&error))
    }

    async fn turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
        let busy = || ApiError::unavailable("too many passwords are being checked; try again");
        let _place = self.queue.try_acquire().map_err(|_| busy())?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(|error| ApiError::internal(&error))
    }
}

/// Refuses a password that is too weak or too long.
///
/// # Errors
/// 400 `M_WEAK_PASSWORD`, `M_INVALID_PARAM`
pub fn check_strength(app: &App, password: &str) -> Result<(), ApiError> {
    let least = app.config.registration.min_password_length;
    if password.chars().count() < least {
        return Err(ApiError::new(ErrorKind::WeakPassword, format!("a password has at least {least} characters")));
    }
    if password.len() > MAX_BYTES {
        return Err(ApiError::invalid(format!("a password has at most {MAX_BYTES} bytes")));
    }
    Ok(())
}

/// Whether this is an account's password. Failures count against the account, whoever makes them.
///
/// # Errors
/// 429 after too many failures, 503 when too many wait.
pub async fn confirm(app: &App, user: &UserId, password: &str) -> Result<bool, ApiError> {
    app.limits.check(Limit::FailedLogin, user)?;
    let stored = accounts::password(&app.view()?, user.as_str())?;
    let hash = stored.and_then(|part| part.open().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()));
    let confirmed = app.passwords.verify(password.to_owned(), hash).await?;
    if !confirmed {
        app.limits.take(Limit::FailedLogin, user)?;
    }
    Ok(confirmed)
}

/// The user of this server that an identifier names, whether or not there is one: `m.id.user` with a localpart or a
/// full id. Other identifiers name nobody.
#[must_use]
pub fn named(server: &ServerName, identifier: &UserIdentifier) -> Option<OwnedUserId> {
    match identifier {
        UserIdentifier::Matrix(id) => user_id(server, &id.user),
        _ => None,
    }
}

/// The user of this server with a localpart or a full id.
#[must_use]
pub fn user_id(server: &ServerName, name: &str) -> Option<OwnedUserId> {
    let user = UserId::parse_with_server_name(name, server).ok()?;
    (user.server_name() == server).then_some(user)
}

fn hash(password: &str, salt: &[u8]) -> password_hash::Result<PasswordHash> {
    Argon2::default().hash_password_with_salt(password.as_bytes(), salt)
}

fn verify(password: &str, stored: Option<&str>) -> password_hash::Result<bool> {
    static DECOY: OnceLock<String> = OnceLock::new();
    let decoy = DECOY.get_or_init(|| hash("", &[0; 16]).map(|hash| hash.to_string()).unwrap_or_default());
    let parsed = PasswordHash::new(stored.unwrap_or(decoy))?;
    match Argon2::default().verify_password(password.as_bytes(), &parsed) {
        Ok(()) => Ok(stored.is_some()),
        Err(password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedRandom;

    #[tokio::test]
    async fn passwords_verify_and_nobody_has_the_decoy() {
        let passwords = Passwords::new(Arc::new(SimulatedRandom::seeded(1)));
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("battery staple".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("x".repeat(MAX_BYTES + 1), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(String::new(), None).await.unwrap());
        assert_ne!(passwords.hash("correct horse".into()).await.unwrap(), hash);
    }
}
