//! Accounts: begin, change, end.

use projections::{View, models::accounts};
use ruma::{OwnedUserId, ServerName, UserId, api::error::ErrorKind};
use schemas::{
    Draft, Json, Key, Origin, Part, Tag,
    facts::{
        AccountDeactivated, AccountValiditySet, PasswordSet, ProfileFieldSet, RegistrationTokenRemoved,
        RegistrationTokenSet, UserKind, UserRegistered, UserTypeSet,
    },
};

use super::{
    Commands, Decision, Error, Refusal, Sender, devices,
    guards::{standing, user_status},
    sessions::NewSession,
    unchanged,
};

/// An account that is to begin.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// Its full user id, from [`new_user_id`].
    pub user: OwnedUserId,
    /// Argon2id string in PHC format; none where there is no password.
    pub password: Option<String>,
    /// Administers the server.
    pub admin: bool,
    /// What sort.
    pub kind: UserKind,
    /// The registration token that lets it in.
    pub registration_token: Option<String>,
    /// What others see it called.
    pub display_name: Option<String>,
    /// What sort of user administrators take this one for.
    pub user_type: Option<String>,
    /// When it expires, milliseconds since the Unix epoch, if it does.
    pub expires_at_ms: Option<u64>,
}

/// The id of a user who may be registered, from a localpart or a full id. Capitals become small letters.
///
/// # Errors
/// `M_INVALID_USERNAME` for a name that the specification's grammar doesn't allow, that is another server's, or that
/// begins with the underscore of application services.
pub fn new_user_id(server: &ServerName, name: &str) -> Result<OwnedUserId, Refusal> {
    let invalid = |why: &str| Refusal::new(ErrorKind::InvalidUsername, why);
    let user = UserId::parse_with_server_name(name.to_lowercase(), server)
        .map_err(|error| invalid(&format!("this is not a user name: {error}")))?;
    if user.server_name() != server {
        return Err(invalid("this is the name of another server's user"));
    }
    if user.localpart().is_empty() || user.validate_strict().is_err() {
        return Err(invalid(
            "a user name is made of a-z, 0-9 and . _ = - / +, at most 255 bytes with the server's name",
        ));
    }
    if user.localpart().starts_with('_') {
        return Err(invalid("names that begin with _ are for application services"));
    }
    Ok(user)
}

/// The key that a registration writes.
fn user_name(user: &str) -> Key {
    Key::new(Tag::UserName, &accounts::folded(user))
}

fn registration_token(token: &str) -> Key {
    Key::new(Tag::RegistrationToken, token)
}

/// Refuses a name that is taken, in whatever case.
///
/// # Errors
/// `M_USER_IN_USE`, or when the store fails.
pub fn check_free(view: &View, user: &UserId) -> Result<(), Error> {
    match accounts::named(view, user.as_str())? {
        Some(_) => Err(Refusal::new(ErrorKind::UserInUse, "this user name is taken").into()),
        None => Ok(()),
    }
}

/// Begins an account, with a session on a first device if one is given.
///
/// # Errors
/// `M_USER_IN_USE`, and `M_FORBIDDEN` for a registration token that can't be used any more.
pub async fn register(
    commands: &Commands,
    origin: Origin,
    account: NewAccount,
    session: Option<NewSession>,
) -> Result<(), Error> {
    let now_ms = commands.parts().now_ms();
    let decide = move |view: &View| {
        let mut draft = begin(view, &account, now_ms)?;
        let user = account.user.as_str();
        if let Some(session) = &session {
            session.add_to(&mut draft, view, user)?;
        }
        Ok(Decision::append_then(draft, ()))
    };
    commands.execute(origin, decide).await
}

/// The record that begins an account.
pub(super) fn begin(view: &View, account: &NewAccount, now_ms: u64) -> Result<Draft, Error> {
    check_free(view, &account.user)?;
    let user = account.user.as_str();
    let mut draft = Draft {
        reads: vec![unchanged(view, user_name(user))?],
        writes: vec![user_name(user), user_status(user)],
        facts: vec![registered(account).into()],
    };
    if let Some(token) = &account.registration_token {
        let found = accounts::registration_token(view, token)?;
        if !found.is_some_and(|found| usable(&found, view, now_ms)) {
            return Err(Refusal::forbidden("the registration token is unknown, used up or over").into());
        }
        draft.reads.push(unchanged(view, registration_token(token))?);
        draft.writes.push(registration_token(token));
    }
    if let Some(name) = &account.display_name {
        let value = Some(Json::from(serde_json::json!(name).to_string()));
        draft.facts.push(ProfileFieldSet { user: user.into(), field: "displayname".into(), value }.into());
    }
    if let Some(user_type) = &account.user_type {
        draft.facts.push(UserTypeSet { user: user.into(), user_type: Some(user_type.clone()) }.into());
    }
    if let Some(end) = account.expires_at_ms {
        draft.facts.push(AccountValiditySet { user: user.into(), expires_at_ms: Some(end) }.into());
    }
    Ok(draft)
}

/// Changes the sender's password, and logs out all their devices but the one they use, if they want.
///
/// # Errors
/// Those of [`standing`].
pub async fn set_password(commands: &Commands, sender: &Sender, password: String, log_out: bool) -> Result<(), Error> {
    let by = sender.clone();
    let decide = move |view: &View| {
        let user = by.user.to_string();
        let mut draft = Draft {
            reads: standing(view, &by)?,
            writes: vec![user_status(&user)],
            facts: vec![PasswordSet { user, password: Some(Part::clear(password.as_str())) }.into()],
        };
        let others = if log_out { devices::others(view, &by)? } else { Vec::new() };
        let rest = devices::add_removals(&mut draft, view, &by, &others)?.to_vec();
        Ok(Decision::append_then(draft, rest))
    };
    let rest = commands.execute(sender, decide).await?;
    devices::remove(commands, sender, rest).await
}

/// Ends the sender's account. They leave all rooms.
///
/// # Errors
/// Those of [`standing`].
pub async fn deactivate(commands: &Commands, sender: &Sender, erase: bool) -> Result<(), Error> {
    let by = sender.clone();
    let decide = move |view: &View| {
        let user = by.user.to_string();
        let (reads, writes) = (standing(view, &by)?, vec![user_status(&user)]);
        let facts = vec![AccountDeactivated { user, erase }.into()];
        Ok(Decision::append_then(Draft { reads, writes, facts }, ()))
    };
    commands.execute(sender, decide).await?;
    commands.let_rooms_follow(&sender.user).await;
    Ok(())
}

/// Changes a user's password in their stead, and logs out all their devices, if that is wanted.
///
/// # Errors
/// `M_NOT_FOUND` for an account that isn't there, or has ended.
pub async fn reset_password(
    commands: &Commands,
    origin: Origin,
    user: OwnedUserId,
    password: String,
    log_out: bool,
) -> Result<(), Error> {
    loop {
        let (user, password) = (user.clone(), password.clone());
        let decide = move |view: &View| {
            let mut draft = draft_for(view, &user)?;
            draft
                .facts
                .push(PasswordSet { user: user.to_string(), password: Some(Part::clear(password.as_str())) }.into());
            let more = log_out && devices::add_all_removals(&mut draft, view, &user)?;
            Ok(Decision::append_then(draft, more))
        };
        if !commands.execute(origin.clone(), decide).await? {
            return Ok(());
        }
    }
}

/// The beginning of a decision about an account that has not ended.
fn draft_for(view: &View, user: &UserId) -> Result<Draft, Error> {
    if accounts::get(view, user.as_str())?.is_none_or(|account| account.deactivated) {
        return Err(Refusal::not_found("User not found").into());
    }
    let key = user_status(user.as_str());
    Ok(Draft { reads: vec![unchanged(view, key)?], writes: vec![key], facts: Vec::new() })
}

/// Makes a registration token.
///
/// # Errors
/// `M_INVALID_PARAM` if there is such a token.
pub async fn add_registration_token(
    commands: &Commands,
    origin: Origin,
    token: RegistrationTokenSet,
) -> Result<(), Error> {
    let decide = move |view: &View| {
        if accounts::registration_token(view, &token.token)?.is_some() {
            return Err(Refusal::invalid(format!("Token already exists: {}", token.token)).into());
        }
        set_token(view, token.clone())
    };
    commands.execute(origin, decide).await
}

/// Changes a registration token.
///
/// # Errors
/// `M_NOT_FOUND`
pub async fn change_registration_token<F>(
    commands: &Commands,
    origin: Origin,
    token: String,
    mut change: F,
) -> Result<(), Error>
where
    F: FnMut(&mut RegistrationTokenSet) + Send + 'static,
{
    let decide = move |view: &View| {
        let found = accounts::registration_token(view, &token)?.ok_or_else(|| no_such_token(&token))?;
        let accounts::RegistrationToken { uses_allowed, expires_at_ms, .. } = found;
        let mut set = RegistrationTokenSet { token: token.clone(), uses_allowed, expires_at_ms };
        change(&mut set);
        set_token(view, set)
    };
    commands.execute(origin, decide).await
}

/// Ends a registration token.
///
/// # Errors
/// `M_NOT_FOUND`
pub async fn remove_registration_token(commands: &Commands, origin: Origin, token: String) -> Result<(), Error> {
    let decide = move |view: &View| {
        accounts::registration_token(view, &token)?.ok_or_else(|| no_such_token(&token))?;
        let key = registration_token(&token);
        let facts = vec![RegistrationTokenRemoved { token: token.clone() }.into()];
        let draft = Draft { reads: vec![unchanged(view, key)?], writes: vec![key], facts };
        Ok(Decision::append_then(draft, ()))
    };
    commands.execute(origin, decide).await
}

/// `M_NOT_FOUND`
#[must_use]
pub fn no_such_token(token: &str) -> Refusal {
    Refusal::not_found(format!("No such registration token: {token}"))
}

fn set_token(view: &View, token: RegistrationTokenSet) -> Result<Decision<()>, Error> {
    let key = registration_token(&token.token);
    let draft = Draft { reads: vec![unchanged(view, key)?], writes: vec![key], facts: vec![token.into()] };
    Ok(Decision::append_then(draft, ()))
}

fn registered(account: &NewAccount) -> UserRegistered {
    UserRegistered {
        user: account.user.to_string(),
        password: account.password.as_deref().map(Part::clear),
        admin: account.admin,
        kind: account.kind,
        registration_token: account.registration_token.clone(),
    }
}

/// Whether one more account can be made with a token, by log time and by the clock, whichever is later.
#[must_use]
pub fn usable(token: &accounts::RegistrationToken, view: &View, now_ms: u64) -> bool {
    token.is_usable(view.log_time().at_least(now_ms))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;

    #[test]
    fn user_names_follow_the_grammar() {
        let server = server_name!("a.example");
        for (name, user) in [
            ("alice", "@alice:a.example"),
            ("AliCe", "@alice:a.example"),
            ("@alice:a.example", "@alice:a.example"),
            ("a.b_c=d-e/f+0", "@a.b_c=d-e/f+0:a.example"),
        ] {
            assert_eq!(new_user_id(server, name).unwrap(), user, "{name}");
        }
        let long = "a".repeat(250);
        for name in ["", "@:a.example", "a b", "a!b", "é", "_bridge", "@alice:b.example", "a:b", &long] {
            assert!(new_user_id(server, name).is_err(), "{name}");
        }
    }
}
