//! The fields of users' profiles, as they show them everywhere; what stands in a room is the room's state.
//!
//! What is this field of this user? Which fields has a user?
//!
//! Tables: 1 `user | field -> JSON`.

use schemas::{Fact, Json};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const FIELDS: Table = Table { model: Model::Profiles, prefix: 1 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Profiles, version: 1, reads: &[], fold };

fn fold(_: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::ProfileFieldSet(f) => {
            let key = KeyBuf::new().str(&f.user).str(&f.field);
            match &f.value {
                Some(value) => batch.put(FIELDS, key, value),
                None => batch.delete(FIELDS, key),
            }
            batch.touch_user(&f.user);
        }
        Fact::AccountDeactivated(f) if f.erase => batch.delete_prefix(FIELDS, KeyBuf::new().str(&f.user)),
        _ => {}
    }
    Ok(())
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
    use schemas::facts::{AccountDeactivated, ProfileFieldSet};

    use super::*;
    use crate::testing::World;

    const ALICE: &str = "@alice:example.org";

    fn set(field: &str, value: Option<&str>) -> Fact {
        let value = value.map(|text| Json::of(text).unwrap());
        ProfileFieldSet { user: ALICE.into(), field: field.into(), value }.into()
    }

    fn fields(world: &World) -> Vec<(String, Json)> {
        of_user(&world.view(), ALICE).map(Result::unwrap).collect()
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
