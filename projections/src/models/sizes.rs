//! How large rooms are.
//!
//! Which rooms take the most bytes?
//!
//! Tables: 1 `room id | event id -> bytes`, of the events that count; 2 `room id -> bytes`, their sum; 3 `bytes | room id ->
//! ()`, the order.
//!
//! The size of a room is estimated, so that a message costs next to nothing: state events count for themselves, and of all
//! others one in sixteen, which its id's hash chooses, for sixteen. An event counts for the bytes that it had when it came.

use schemas::{
    Fact,
    facts::{EventLearned, EventsForgotten},
};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

use crate::{
    At, Batch, FoldError, Halves, Model, Projection, StoreError,
    keys::{KeyBuf, KeyReader},
    read::{Range, Read, Table, malformed_key, row},
};

const EVENTS: Table = Table { model: Model::Sizes, prefix: 1 };
const SUMS: Table = Table { model: Model::Sizes, prefix: 2 };
const ORDER: Table = Table { model: Model::Sizes, prefix: 3 };

/// One in so many messages counts.
const SAMPLED: u8 = 16;
/// An event is kept twice: as servers send it to each other, and as clients get it.
const COPIES: u64 = 2;

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Sizes, version: 1, reads: &[Model::Staging], fold };

fn fold(_: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::EventLearned(learned) => {
            let weight = weight(learned);
            if weight > 0 {
                count(learned, weight, batch)?;
            }
        }
        Fact::EventsForgotten(gone) => forget(gone, batch)?,
        _ => {}
    }
    Ok(())
}

/// For how many events an event counts.
fn weight(learned: &EventLearned) -> u64 {
    #[derive(Deserialize)]
    struct Event {
        state_key: Option<IgnoredAny>,
    }
    let is_state = || serde_json::from_slice(&learned.skeleton.0).is_ok_and(|event: Event| event.state_key.is_some());
    if Sha256::digest(learned.id.as_bytes())[0] % SAMPLED == 0 {
        if is_state() { 1 } else { SAMPLED.into() }
    } else {
        u64::from(is_state())
    }
}

fn count(learned: &EventLearned, weight: u64, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let key = KeyBuf::new().str(&learned.room).raw(learned.id.as_bytes());
    // The first bytes of an event are those that are kept.
    if batch.get(EVENTS, key.as_ref())?.is_some() {
        return Ok(());
    }
    let halves = Halves::of(learned);
    let bytes = halves.skeleton.len() + halves.rest.map_or(0, <[u8]>::len);
    let bytes = bytes as u64 * weight * COPIES;
    batch.put(EVENTS, key, &bytes);
    resize(&learned.room, batch, |sum| sum.saturating_add(bytes))?;
    Ok(())
}

fn forget(gone: &EventsForgotten, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    for id in &gone.forgotten {
        let key = KeyBuf::new().str(&gone.room).raw(id.as_bytes());
        if let Some(bytes) = row::<u64>(batch, EVENTS, &key)? {
            batch.delete(EVENTS, key);
            resize(&gone.room, batch, |sum| sum.saturating_sub(bytes))?;
        }
    }
    Ok(())
}

fn resize(room: &str, batch: &mut Batch<'_>, change: impl FnOnce(u64) -> u64) -> Result<(), StoreError> {
    let before: Option<u64> = row(batch, SUMS, room)?;
    if let Some(before) = before {
        batch.delete(ORDER, order(before, room));
    }
    let after = change(before.unwrap_or_default());
    if after == 0 {
        batch.delete(SUMS, room);
    } else {
        batch.put(SUMS, room, &after);
        batch.put(ORDER, order(after, room), &());
    }
    Ok(())
}

fn order(bytes: u64, room: &str) -> KeyBuf {
    KeyBuf::new().u64(bytes).raw(room.as_bytes())
}

/// The largest rooms, each with its bytes; of those of one size, those with the greater id first.
pub fn largest(read: &dyn Read) -> impl Iterator<Item = Result<(String, u64), StoreError>> + '_ {
    read.scan(ORDER, Range::prefix([]).rev()).map(|row| {
        let (key, _) = row?;
        let mut key = KeyReader::new(&key);
        let bytes = key.u64().ok_or_else(|| malformed_key(ORDER))?;
        let room = String::from_utf8(key.rest().to_vec()).map_err(|_| malformed_key(ORDER))?;
        Ok((room, bytes))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{World, live};

    fn sizes(world: &World) -> Vec<(String, u64)> {
        largest(&world.view()).map(Result::unwrap).collect()
    }

    /// Bytes that an event counts for, if it counts.
    fn bytes(facts: &[Fact; 2]) -> u64 {
        let Fact::EventLearned(learned) = &facts[0] else { panic!("an event") };
        let halves = Halves::of(learned);
        2 * (halves.skeleton.len() + halves.rest.map_or(0, <[u8]>::len)) as u64
    }

    #[test]
    fn state_counts_whole_and_messages_by_some_of_them() {
        let mut world = World::new();
        let create = live("$create", &json!({ "type": "m.room.create", "state_key": "", "room_id": "!a:x" }));
        let mut expected = bytes(&create);
        world.apply(create.clone());
        world.apply(create);
        assert_eq!(sizes(&world), [("!a:x".to_owned(), expected)], "it counts once");

        let mut truth = expected;
        for n in 0..400 {
            let message = live(&format!("$message{n}"), &json!({ "room_id": "!a:x" }));
            truth += bytes(&message);
            let Fact::EventLearned(learned) = &message[0] else { panic!("an event") };
            expected += weight(learned) * bytes(&message);
            world.apply(message);
        }
        assert_eq!(sizes(&world), [("!a:x".to_owned(), expected)]);
        assert!(expected.abs_diff(truth) < truth / 2, "{expected} is nowhere near {truth}");
        world.check_replay();
    }

    #[test]
    fn the_largest_come_first() {
        let mut world = World::new();
        for (room, topics) in [("!a:x", 1), ("!b:x", 3), ("!c:x", 2)] {
            for n in 0..topics {
                let fields = json!({ "type": "m.room.topic", "state_key": "", "room_id": room });
                world.apply(live(&format!("${room}{n}"), &fields));
            }
        }
        let rooms: Vec<_> = sizes(&world).into_iter().map(|(room, _)| room).collect();
        assert_eq!(rooms, ["!b:x", "!c:x", "!a:x"]);
        world.check_replay();
    }
}
