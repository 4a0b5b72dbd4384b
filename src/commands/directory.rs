//! Aliases and the public list.

use projections::models::{accounts, directory, membership::Membership};
use ruma::{OwnedRoomAliasId, OwnedRoomId, RoomAliasId, api::error::ErrorKind};
use schemas::{
    Draft, Key, Tag,
    facts::{AliasRemoved, AliasSet, RoomPublished},
};

use super::{
    Commands, Decision, Error, Parts, Refusal, Sender,
    guards::active,
    room::{Room, guards, not_blocked},
    unchanged,
};
use crate::rooms::Power;

impl Commands {
    /// Points a new alias of this server to a room that the sender is in.
    ///
    /// # Errors
    /// When it is taken, or not this server's.
    pub async fn set_alias(&self, sender: Sender, alias: OwnedRoomAliasId, room: OwnedRoomId) -> Result<(), Error> {
        let parts = std::sync::Arc::clone(self.parts());
        self.execute(&sender.clone(), move |view| {
            let found = Room::of_members(view, &room)?;
            let reads = active(view, &sender)?;
            not_blocked(&found)?;
            if found.membership(&sender.user)? != Membership::Join {
                return Err(Refusal::forbidden("you are not in this room").into());
            }
            let mut draft = guards(&found, reads)?;
            claim_alias(&parts, view, &alias, &room, &sender, &mut draft)?;
            Ok(Decision::append_then(draft, ()))
        })
        .await
    }

    /// Removes an alias: who made it may, and who may change the room's canonical alias, and administrators.
    ///
    /// # Errors
    /// When it is not there, or the sender may not.
    pub async fn remove_alias(&self, sender: Sender, alias: OwnedRoomAliasId) -> Result<(), Error> {
        self.execute(&sender.clone(), move |view| {
            let reads = active(view, &sender)?;
            let Some(target) = directory::alias(view, alias.as_str())? else {
                return Err(Refusal::not_found("there is no such alias").into());
            };
            let room = OwnedRoomId::try_from(target.room.as_str())
                .map_err(|error| Error::Internal(format!("an alias points to no room id: {error}")))?;
            let found = Room::find(view, &room)?;
            let admin = accounts::get(view, sender.user.as_str())?.is_some_and(|account| account.admin);
            let mut may = admin || target.creator == sender.user.as_str();
            if let (false, Some(found)) = (may, &found) {
                may = may_set_alias(found, &sender)?;
            }
            if !may {
                return Err(Refusal::forbidden("you may not remove this alias").into());
            }
            let key = Key::new(Tag::Alias, alias.as_str());
            let mut draft = match &found {
                Some(found) => guards(found, reads)?,
                None => Draft { reads, ..Draft::default() },
            };
            draft.reads.push(unchanged(view, key)?);
            draft.writes.push(key);
            draft.facts.push(AliasRemoved { alias: alias.to_string() }.into());
            Ok(Decision::append_then(draft, ()))
        })
        .await
    }

    /// Puts a room into the public list or takes it out: administrators may, and who may change the room's canonical
    /// alias.
    ///
    /// # Errors
    /// When the sender may not.
    pub async fn publish(&self, sender: Sender, room: OwnedRoomId, published: bool) -> Result<(), Error> {
        self.execute(&sender.clone(), move |view| {
            let found = Room::of_members(view, &room)?;
            let reads = active(view, &sender)?;
            not_blocked(&found)?;
            let admin = accounts::get(view, sender.user.as_str())?.is_some_and(|account| account.admin);
            let joined = found.membership(&sender.user)? == Membership::Join;
            let may = admin || joined && may_set_alias(&found, &sender)?;
            if !may {
                return Err(Refusal::forbidden("you may not change whether this room is in the public list").into());
            }
            if directory::is_published(view, found.nid)? == published {
                return Ok(Decision::Reply(()));
            }
            let mut draft = guards(&found, reads)?;
            publish(view, &room, published, &mut draft)?;
            Ok(Decision::append_then(draft, ()))
        })
        .await
    }
}

fn may_set_alias(room: &Room<'_>, sender: &Sender) -> Result<bool, Error> {
    let power = room.with_state(|state| Power::of(state, room.rules))??;
    Ok(power.may_set(&sender.user, "m.room.canonical_alias"))
}

/// Adds to a draft that an alias points to a room from here on.
pub(super) fn claim_alias(
    parts: &Parts,
    view: &projections::View,
    alias: &RoomAliasId,
    room: &ruma::RoomId,
    sender: &Sender,
    draft: &mut Draft,
) -> Result<(), Error> {
    if alias.server_name() != parts.server_name {
        return Err(
            Refusal::invalid(format!("only aliases that end in `:{}` can be made here", parts.server_name)).into()
        );
    }
    if directory::alias(view, alias.as_str())?.is_some() {
        return Err(Refusal::new(ErrorKind::RoomInUse, format!("the alias {alias} is taken")).into());
    }
    let key = Key::new(Tag::Alias, alias.as_str());
    draft.reads.push(unchanged(view, key)?);
    draft.writes.push(key);
    draft.facts.push(
        AliasSet {
            alias: alias.to_string(),
            room: room.to_string(),
            creator: sender.user.to_string(),
            servers: vec![parts.server_name.to_string()],
        }
        .into(),
    );
    Ok(())
}

/// Adds to a draft that a room is in the public list, or is not any more.
pub(super) fn publish(
    view: &projections::View,
    room: &ruma::RoomId,
    published: bool,
    draft: &mut Draft,
) -> Result<(), Error> {
    let key = Key::new(Tag::Published, room.as_str());
    draft.reads.push(unchanged(view, key)?);
    draft.writes.push(key);
    draft.facts.push(RoomPublished { room: room.to_string(), published }.into());
    Ok(())
}
