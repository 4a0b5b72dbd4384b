//! Whose rooms are behind: memberships that don't show a new name or picture yet, or rooms that are still to be left
//! because an account has ended. The change is one record; what follows from it is one more for each room, until
//! `RoomsFollowed` says that all have.
//!
//! Have all rooms of this user followed? Whose have not, and which change is it?
//!
//! Tables: 1 `user -> Lsn` of the user's last change that has not been followed.

use schemas::{Fact, Lsn};

use super::membership::{self, Membership};
use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row, rows},
};

const BEHIND: Table = Table { model: Model::Following, prefix: 1 };

/// This model's fold.
pub const PROJECTION: Projection =
    Projection { model: Model::Following, version: 1, reads: &[Model::Membership], fold };

/// The rooms that follow the end of an account.
pub const LEFT_AT_THE_END: &[Membership] = &[Membership::Join, Membership::Invite, Membership::Knock];

/// The rooms that follow a new name or picture.
pub const SHOWN_IN: &[Membership] = &[Membership::Join];

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::ProfileFieldSet(f) if matches!(&*f.field, "displayname" | "avatar_url") => {
            changed(at, &f.user, SHOWN_IN, batch)?;
        }
        Fact::AccountDeactivated(f) => changed(at, &f.user, LEFT_AT_THE_END, batch)?,
        Fact::RoomsFollowed(f) if behind(batch, &f.user)?.is_some_and(|change| change <= f.up_to) => {
            batch.delete(BEHIND, KeyBuf::new().str(&f.user));
        }
        _ => {}
    }
    Ok(())
}

fn changed(at: &At<'_>, user: &str, concerned: &[Membership], batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let room = concerned.iter().find_map(|&membership| membership::rooms_of(batch, user, membership).next());
    if room.transpose()?.is_some() {
        batch.put(BEHIND, KeyBuf::new().str(user), &at.lsn);
    }
    Ok(())
}

/// The last change of a user that not all of their rooms have followed; none if all have.
///
/// # Errors
/// When the store fails.
pub fn behind(read: &dyn Read, user: &str) -> Result<Option<Lsn>, StoreError> {
    row(read, BEHIND, KeyBuf::new().str(user))
}

/// The users whose rooms have not all followed, by user id, with the last change that they have not.
pub fn all(read: &dyn Read) -> impl Iterator<Item = Result<(String, Lsn), StoreError>> + '_ {
    rows::<Lsn>(read, BEHIND, Range::prefix([])).map(|row| {
        let (key, change) = row?;
        let user = KeyReader::new(&key).str();
        user.map(|user| (user, change)).ok_or_else(|| malformed_key(BEHIND))
    })
}

#[cfg(test)]
mod tests {
    use schemas::facts::{AccountDeactivated, ProfileFieldSet, RoomsFollowed};

    use super::*;
    use crate::testing::{ALICE, BOB, World, rooms::Room};

    fn set(user: &str, field: &str) -> Fact {
        ProfileFieldSet { user: user.into(), field: field.into(), value: None }.into()
    }

    fn followed(user: &str, up_to: Lsn) -> Fact {
        RoomsFollowed { user: user.into(), up_to }.into()
    }

    #[test]
    fn rooms_are_behind_until_they_have_followed_the_last_change() {
        let mut world = World::new();
        world.apply([set(ALICE, "displayname")]);
        assert_eq!(all(&world.view()).count(), 0, "who is in no room has nobody to follow");
        let mut room = Room::created(&mut world, "!r:example.org", ALICE);
        world.apply([set(ALICE, "m.tz"), set(BOB, "displayname")]);
        assert_eq!(all(&world.view()).count(), 0);

        let first = world.apply([set(ALICE, "displayname")]);
        let second = world.apply([set(ALICE, "avatar_url")]);
        world.apply([followed(ALICE, first)]);
        assert_eq!(behind(&world.view(), ALICE).unwrap(), Some(second));
        world.apply([followed(BOB, second), followed(ALICE, second)]);
        assert_eq!(behind(&world.view(), ALICE).unwrap(), None);

        world.fold(room.member("$invited", BOB, "invite"));
        world.apply([set(BOB, "displayname")]);
        assert_eq!(behind(&world.view(), BOB).unwrap(), None, "an invitation does not show it");
        let end = world.apply([AccountDeactivated { user: BOB.into(), erase: false }.into()]);
        assert_eq!(all(&world.view()).map(Result::unwrap).collect::<Vec<_>>(), [(BOB.to_owned(), end)]);
        world.apply([followed(BOB, end)]);
        assert_eq!(all(&world.view()).count(), 0);
        world.check_replay();
    }
}
