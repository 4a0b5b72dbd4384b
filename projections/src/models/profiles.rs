//! The fields of users' profiles, as they show them everywhere; what stands in a room is the room's state.
//!
//! What is this field of this user? Which fields has a user? Which users of this server have a name with this in it?
//!
//! Tables: 1 `user | field -> JSON`; 2 `word | user -> ()`, for each word of a local user's display name and localpart.

use std::collections::BTreeSet;

use schemas::{Fact, Json};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const FIELDS: Table = Table { model: Model::Profiles, prefix: 1 };
const WORDS: Table = Table { model: Model::Profiles, prefix: 2 };

const DISPLAY_NAME: &str = "displayname";

/// Somebody is found by so many words of their name …
const MAX_WORDS: usize = 16;
/// … and so many characters of each.
const MAX_WORD_CHARS: usize = 32;

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Profiles, version: 3, reads: &[], fold };

fn fold(_: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::UserRegistered(f) => add_words(&f.user, words_of(batch, &f.user)?, batch),
        Fact::AccountReactivated(f) => add_words(&f.user, words_of(batch, &f.user)?, batch),
        Fact::ProfileFieldSet(f) => {
            let before = words_of(batch, &f.user)?;
            let key = KeyBuf::new().str(&f.user).str(&f.field);
            match &f.value {
                Some(value) => batch.put(FIELDS, key, value),
                None => batch.delete(FIELDS, key),
            }
            if f.field == DISPLAY_NAME {
                let after = words_of(batch, &f.user)?;
                remove_words(&f.user, before.difference(&after), batch);
                add_words(&f.user, after.difference(&before).cloned(), batch);
            }
            batch.touch_user(&f.user);
        }
        Fact::AccountDeactivated(f) => {
            remove_words(&f.user, &words_of(batch, &f.user)?, batch);
            if f.erase {
                batch.delete_prefix(FIELDS, KeyBuf::new().str(&f.user));
            }
        }
        _ => {}
    }
    Ok(())
}

fn add_words(user: &str, words: impl IntoIterator<Item = String>, batch: &mut Batch<'_>) {
    for word in words {
        batch.put(WORDS, KeyBuf::new().str(&word).str(user), &());
    }
}

fn remove_words<'a>(user: &str, words: impl IntoIterator<Item = &'a String>, batch: &mut Batch<'_>) {
    for word in words {
        batch.delete(WORDS, KeyBuf::new().str(word).str(user));
    }
}

/// The words by which somebody is found now.
fn words_of(read: &dyn Read, user: &str) -> Result<BTreeSet<String>, StoreError> {
    let localpart = user.trim_start_matches('@').split(':').next().unwrap_or_default();
    let mut words = words(localpart);
    let name = field(read, user, DISPLAY_NAME)?.and_then(|name| name.read::<String>().ok());
    words.extend(name.map(|name| self::words(&name)).unwrap_or_default());
    Ok(words)
}

/// The words of a name as they are looked up: letters and digits, in lower case.
#[must_use]
pub fn words(name: &str) -> BTreeSet<String> {
    let name = name.to_lowercase();
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.take(MAX_WORDS).map(|word| word.chars().take(MAX_WORD_CHARS).collect()).collect()
}

/// Local users with a word in their display name or localpart that begins thus ([`words`]); some may come twice.
pub fn named<'a>(read: &'a dyn Read, beginning: &str) -> impl Iterator<Item = Result<String, StoreError>> + 'a {
    read.scan(WORDS, Range::prefix(beginning.as_bytes())).map(|row| {
        let (key, _) = row?;
        let mut key = KeyReader::new(&key);
        key.str().and_then(|_| key.str()).ok_or_else(|| malformed_key(WORDS))
    })
}

/// One field of a user's profile.
///
/// # Errors
/// When the store fails.
pub fn field(read: &dyn Read, user: &str, field: &str) -> Result<Option<Json>, StoreError> {
    row(read, FIELDS, KeyBuf::new().str(user).str(field))
}

/// All fields of a user's profile, in the order of their names.
pub fn of_user<'a>(read: &'a dyn Read, user: &str) -> impl Iterator<Item = Result<(String, Json), StoreError>> + 'a {
    rows(read, FIELDS, Range::prefix(KeyBuf::new().str(user))).map(|row| {
        let (key, value) = row?;
        let mut key = KeyReader::new(&key);
        let field = key.str().and_then(|_| key.str()).ok_or_else(|| malformed_key(FIELDS))?;
        Ok((field, value))
    })
}

#[cfg(test)]
mod tests {
    use schemas::facts::{AccountDeactivated, ProfileFieldSet, UserKind, UserRegistered};

    use super::*;
    use crate::testing::World;

    const ALICE: &str = "@alice:example.org";

    fn set(field: &str, value: Option<&str>) -> Fact {
        let value = value.map(|text| Json::of(text).unwrap());
        ProfileFieldSet { user: ALICE.into(), field: field.into(), value }.into()
    }

    fn registered(user: &str) -> Fact {
        let kind = UserKind::Regular;
        UserRegistered { user: user.into(), password: None, admin: false, kind, registration_token: None }.into()
    }

    fn fields(world: &World) -> Vec<(String, Json)> {
        of_user(&world.view(), ALICE).map(Result::unwrap).collect()
    }

    #[test]
    fn users_are_found_by_the_words_of_their_names() {
        let mut world = World::new();
        world.apply([registered(ALICE), registered("@bob_k:example.org")]);
        let found = |world: &World, word: &str| named(&world.view(), word).map(Result::unwrap).collect::<Vec<_>>();
        assert_eq!(found(&world, "al"), [ALICE]);
        assert_eq!(found(&world, "k"), ["@bob_k:example.org"]);
        world.apply([set("displayname", Some("Ada, ALICE of Élan"))]);
        for word in ["ada", "a", "alice", "of", "éla"] {
            assert!(found(&world, word).contains(&ALICE.to_owned()), "{word}");
        }
        assert_eq!(found(&world, "al").len(), 1);
        world.apply([set("displayname", Some("Ada")), set("m.tz", Some("Elsewhere"))]);
        assert_eq!((found(&world, "éla").len(), found(&world, "else").len(), found(&world, "alice").len()), (0, 0, 1));
        world.apply([set("displayname", None)]);
        assert_eq!(found(&world, "ada"), [""; 0]);
        world.apply([AccountDeactivated { user: ALICE.into(), erase: false }.into()]);
        assert_eq!(found(&world, ""), ["@bob_k:example.org"; 2]);
        world.check_replay();
    }

    #[test]
    fn the_last_value_wins_and_erasure_leaves_nothing() {
        let mut world = World::new();
        world.apply([set("displayname", Some("Alice")), set("m.tz", Some("Europe/London"))]);
        world.apply([set("displayname", Some("Ally")), set("m.tz", None)]);
        assert_eq!(fields(&world), [("displayname".into(), Json::of("Ally").unwrap())]);
        assert_eq!(field(&world.view(), ALICE, "displayname").unwrap(), Some(Json::of("Ally").unwrap()));
        world.apply([AccountDeactivated { user: ALICE.into(), erase: false }.into()]);
        assert_eq!(fields(&world).len(), 1);
        world.apply([AccountDeactivated { user: ALICE.into(), erase: true }.into()]);
        assert_eq!(fields(&world), []);
        world.check_replay();
    }
}
