//! Fields of users' profiles.

use projections::{View, models::profiles};
use ruma::api::error::ErrorKind;
use schemas::{Draft, Json, facts::ProfileFieldSet};

use super::{Commands, Decision, Error, Refusal, Sender, guards};

/// The whole profile as JSON has fewer bytes than this (client-server API, "Profiles").
const MAX_PROFILE_BYTES: usize = 64 * 1024;
/// The name of a field has at most so many bytes.
const MAX_FIELD_BYTES: usize = 255;
/// A name that is shown has at most so many characters: each of the user's rooms gets it in an event.
const MAX_DISPLAY_NAME_CHARS: usize = 256;
/// The URI of an avatar has at most so many bytes, for the same reason.
const MAX_AVATAR_URL_BYTES: usize = 1000;

/// The field of the name that others see.
pub const DISPLAY_NAME: &str = "displayname";
/// The field of the picture that others see.
pub const AVATAR_URL: &str = "avatar_url";

/// Sets a field of the sender's profile, or removes it.
///
/// # Errors
/// `M_KEY_TOO_LARGE`, `M_PROFILE_TOO_LARGE`, `M_INVALID_PARAM`, and those of [`guards::active`].
pub async fn set(commands: &Commands, sender: &Sender, field: &str, value: Option<Json>) -> Result<(), Error> {
    check_field(field)?;
    // An empty name or avatar is how clients took theirs away before fields could be deleted.
    let value = value.filter(|value| !matches!(field, DISPLAY_NAME | AVATAR_URL) || value.as_str() != r#""""#);
    if let Some(value) = &value {
        check_value(field, value)?;
    }
    let (by, name) = (sender.clone(), field.to_owned());
    commands.execute(sender, move |view| decide(view, &by, &name, value.as_ref())).await?;
    if matches!(field, DISPLAY_NAME | AVATAR_URL) {
        commands.let_rooms_follow(&sender.user).await;
    }
    Ok(())
}

fn decide(view: &View, by: &Sender, field: &str, value: Option<&Json>) -> Result<Decision<()>, Error> {
    let reads = guards::active(view, by)?;
    if profiles::field(view, by.user.as_str(), field)?.as_ref() == value {
        return Ok(Decision::Reply(()));
    }
    if let Some(value) = value {
        check_size(view, by, field, value)?;
    }
    let fact = ProfileFieldSet { user: by.user.to_string(), field: field.to_owned(), value: value.cloned() };
    Ok(Decision::append_then(Draft { reads, writes: Vec::new(), facts: vec![fact.into()] }, ()))
}

/// The names that the specification has, and those of its grammar for others (appendices, "Common Namespaced Identifier
/// Grammar").
fn check_field(field: &str) -> Result<(), Refusal> {
    if field.len() > MAX_FIELD_BYTES {
        let message = format!("the name of a profile field has at most {MAX_FIELD_BYTES} bytes");
        return Err(Refusal::new(ErrorKind::KeyTooLarge, message));
    }
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase())
            && part.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
    };
    if matches!(field, DISPLAY_NAME | AVATAR_URL) || (field.contains('.') && field.split('.').all(part)) {
        return Ok(());
    }
    Err(Refusal::invalid("a profile field is displayname, avatar_url, or named like com.example.pronouns"))
}

/// Refuses a value that is not what a field holds, or is too long.
pub(super) fn check_value(field: &str, value: &Json) -> Result<(), Refusal> {
    let text = || value.read::<String>().map_err(|_| Refusal::bad_json(format!("{field} must be a string")));
    match field {
        DISPLAY_NAME if text()?.chars().count() > MAX_DISPLAY_NAME_CHARS => {
            Err(Refusal::invalid(format!("a display name has at most {MAX_DISPLAY_NAME_CHARS} characters")))
        }
        AVATAR_URL if text()?.len() > MAX_AVATAR_URL_BYTES => {
            Err(Refusal::invalid(format!("the URI of an avatar has at most {MAX_AVATAR_URL_BYTES} bytes")))
        }
        _ => Ok(()),
    }
}

fn check_size(view: &View, by: &Sender, field: &str, value: &Json) -> Result<(), Error> {
    // Quotes, colon and comma besides the name and the value; the braces at the end.
    let bytes = |field: &str, value: &Json| field.len() + value.0.len() + 4;
    let mut size = 2 + bytes(field, value);
    for row in profiles::of_user(view, by.user.as_str()) {
        let (other, value) = row?;
        if other != field {
            size += bytes(&other, &value);
        }
    }
    if size >= MAX_PROFILE_BYTES {
        let message = format!("with this, the profile would have {MAX_PROFILE_BYTES} bytes or more");
        return Err(Refusal::new(ErrorKind::ProfileTooLarge, message).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_well_known_or_namespaced() {
        for good in ["displayname", "avatar_url", "m.tz", "com.example.pronouns_2", "a.b"] {
            assert!(check_field(good).is_ok(), "{good}");
        }
        for bad in ["", "pronouns", "com.", ".com", "com..x", "com.Example", "com.2x", "com.é", "a.b c"] {
            assert!(check_field(bad).is_err(), "{bad}");
        }
        let long = format!("a.{}", "b".repeat(254));
        assert_eq!(check_field(&long).unwrap_err().kind.errcode().as_str(), "M_KEY_TOO_LARGE");
        assert!(check_field(&long[..255]).is_ok());
    }
}
