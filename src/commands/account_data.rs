//! Account data, tags and filters.

use projections::models::account_data::{self, TAGS};
use ruma::RoomId;
use schemas::{
    Draft, Fact, Json,
    facts::{AccountDataSet, FilterStored, TagSet},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Commands, Decision, Error, Sender, content::check_name, guards};

/// Sets a piece of the sender's account data, global or of a room.
///
/// # Errors
/// `M_INVALID_PARAM` for an overlong type, and those of [`guards::standing`].
pub async fn set(
    commands: &Commands,
    sender: &Sender,
    room: Option<&RoomId>,
    event_type: &str,
    content: Json,
) -> Result<(), Error> {
    check_name("type", event_type)?;
    let room = room.map(ToString::to_string);
    let fact = AccountDataSet { user: sender.user.to_string(), room, event_type: event_type.to_owned(), content };
    let by = sender.clone();
    commands
        .execute(sender, move |view| {
            let reads = guards::standing(view, &by)?;
            let before = account_data::get(view, &fact.user, fact.room.as_deref(), &fact.event_type)?;
            if before.as_ref() == Some(&fact.content) {
                return Ok(Decision::Reply(()));
            }
            Ok(appended(reads, fact.clone().into(), ()))
        })
        .await
}

/// Tags a room of the sender's, or takes the tag away.
///
/// # Errors
/// `M_INVALID_PARAM` for an overlong tag, and those of [`guards::standing`].
pub async fn tag(
    commands: &Commands,
    sender: &Sender,
    room: &RoomId,
    tag: &str,
    content: Option<Json>,
) -> Result<(), Error> {
    check_name("tag", tag)?;
    let fact = TagSet { user: sender.user.to_string(), room: room.to_string(), tag: tag.to_owned(), content };
    let by = sender.clone();
    commands
        .execute(sender, move |view| {
            let reads = guards::standing(view, &by)?;
            let before = account_data::get(view, &fact.user, Some(&fact.room), TAGS)?;
            let before = before.and_then(|content| content.read::<Map<String, Value>>().ok()).unwrap_or_default();
            let before = before.get("tags").and_then(|tags| tags.get(&fact.tag)).cloned();
            let after = fact.content.as_ref().and_then(|content| content.read::<Value>().ok());
            if before == after {
                return Ok(Decision::Reply(()));
            }
            Ok(appended(reads, fact.clone().into(), ()))
        })
        .await
}

/// Keeps a filter of the sender's, and gives its id, which derives from its content.
///
/// # Errors
/// Those of [`guards::standing`].
pub async fn store_filter(commands: &Commands, sender: &Sender, filter: Json) -> Result<String, Error> {
    let id = hex::encode(&Sha256::digest(&filter.0)[..16]);
    let fact = FilterStored { user: sender.user.to_string(), id, filter };
    let by = sender.clone();
    commands
        .execute(sender, move |view| {
            let reads = guards::standing(view, &by)?;
            if account_data::filter(view, &fact.user, &fact.id)?.is_some() {
                return Ok(Decision::Reply(fact.id.clone()));
            }
            Ok(appended(reads, fact.clone().into(), fact.id.clone()))
        })
        .await
}

fn appended<R: Send + 'static>(reads: Vec<schemas::Read>, fact: Fact, reply: R) -> Decision<R> {
    Decision::append_then(Draft { reads, writes: Vec::new(), facts: vec![fact] }, reply)
}
