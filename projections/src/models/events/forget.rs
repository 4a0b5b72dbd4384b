//! Forgetting events and rooms.

use schemas::{
    Nid,
    facts::{EventsForgotten, Verdict},
};

use super::{
    Class, DETACHED, HEADS, Head, IDS, OF_ROOMS, PENDING, Placed, RESTS, ROOM_IDS, ROOMS, SKELETONS, TEXTS,
    TRANSACTIONS, find, of_room_key, pending_key, room_nid,
};
use crate::{
    At, Batch, StoreError,
    purge::Sweep,
    read::{Range, Read},
};

/// From here on nobody finds the room.
pub(super) fn detach(id: &str, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    if let Some(room) = room_nid(batch, id)? {
        batch.delete(ROOM_IDS, id);
        batch.delete(ROOMS, room.to_bytes());
        batch.put_raw(DETACHED, id, room.to_bytes().to_vec());
    }
    Ok(())
}

/// Events that are known no more, or from here on as outliers.
pub(super) fn events(at: &At<'_>, fact: &EventsForgotten, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    for id in &fact.forgotten {
        if let Some((event, head)) = find(batch, id)? {
            forget(event, &head, batch)?;
        }
    }
    for id in &fact.kept {
        let Some((event, mut head)) = find(batch, id)? else { continue };
        let Some(before) = head.placed else { continue };
        let (position, was_shown) = (None, before.is_shown());
        head.placed = Some(Placed {
            by: at.nid(),
            class: Class::Outlier,
            verdict: Verdict::Accepted,
            position,
            was_shown,
            ..before
        });
        batch.put(HEADS, event.to_bytes(), &head);
    }
    Ok(())
}

fn forget(event: Nid, head: &Head, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    batch.delete(IDS, &head.id);
    for table in [HEADS, SKELETONS, RESTS, TEXTS, TRANSACTIONS] {
        batch.delete(table, event.to_bytes());
    }
    batch.delete(OF_ROOMS, of_room_key(head.room, event));
    if let Some(redaction) = &head.redaction {
        let waiting = pending_key(&redaction.target);
        batch.delete(PENDING, waiting.clone().nid(event));
        let others = Range::prefix_from(waiting.as_ref(), &Nid::default().to_bytes());
        if batch.scan(PENDING, others).next().transpose()?.is_none() {
            batch.delete(PENDING, waiting);
        }
    }
    Ok(())
}

/// The last that is left of a room whose events are forgotten.
pub(crate) fn purge(id: &str, room: Nid, sweep: &mut Sweep<'_, '_>) -> Result<(), StoreError> {
    sweep.prefix(OF_ROOMS, room.to_bytes())?;
    if sweep.is_full() { Ok(()) } else { sweep.delete(DETACHED, id) }
}
