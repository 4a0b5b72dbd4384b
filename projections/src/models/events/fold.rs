use ruma::{UserId, events::TimelineEventType};
use schemas::{
    Fact, Nid,
    facts::{EventLearned, EventPlaced, EventRestated, EventTransaction, Placement, Verdict, Visibility},
};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Class, HEADS, Head, IDS, OF_ROOMS, PENDING, Placed, RESTS, ROOM_IDS, ROOMS, Relation, Room, SKELETONS, TEXTS,
    TRANSACTIONS, Transaction, bytes, find, forget, head, nid, of_room_key, parse, pending_key, room, room_nid,
    transaction,
};
use crate::{
    At, Batch, FoldError, Halves, Pdu, Position, StoreError,
    keys::KeyReader,
    models::membership::Membership,
    pdu::{MAX_FIELD_BYTES, client, redaction_applies},
    read::{Range, Read, malformed_key},
};

pub(super) fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::EventLearned(f) => learn(at, f, batch),
        Fact::EventPlaced(f) => place(at, f, batch),
        Fact::EventRestated(f) => restate(at, f, batch),
        Fact::EventTransaction(f) => note_transaction(f, batch),
        Fact::RoomDetached(f) => Ok(forget::detach(&f.room, batch)?),
        Fact::EventsForgotten(f) => Ok(forget::events(at, f, batch)?),
        _ => Ok(()),
    }
}

fn learn(at: &At<'_>, learned: &EventLearned, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if nid(batch, &learned.id)?.is_some() {
        return Ok(());
    }
    let halves = Halves::of(learned);
    let pdu = parse(&learned.id, halves).map_err(|error| at.refuse(format!("{}: {error}", learned.id)))?;
    let event = at.nid();
    let mut head = Head {
        id: learned.id.clone(),
        room: find_or_begin_room(at, &learned.room, batch)?,
        event_type: pdu.kind().to_owned(),
        sender: pdu.sender().to_string(),
        state_key: pdu.state_key().map(ToOwned::to_owned),
        origin_server_ts: pdu.origin_server_ts().get().into(),
        depth: pdu.depth(),
        prev_events: pdu.prev_events().iter().map(ToString::to_string).collect(),
        membership: membership(&pdu),
        relation: relation(&pdu),
        redacted_copy: learned.redacted_copy,
        redaction: None,
        redacted_by: None,
        placed: None,
    };
    batch.put_raw(IDS, &head.id, event.to_bytes().to_vec());
    batch.put(OF_ROOMS, of_room_key(head.room, event), &());
    batch.put_raw(SKELETONS, event.to_bytes(), learned.skeleton.0.clone());
    let mut kept = halves;
    match take_pending(&head, batch)? {
        Some(by) => {
            head.redacted_by = Some(by);
            head.relation = None;
            kept.rest = None;
        }
        None => {
            if let Some(rest) = &learned.rest {
                batch.put(RESTS, event.to_bytes(), rest);
            }
        }
    }
    write_text(at, event, &head, kept, batch)?;
    batch.put(HEADS, event.to_bytes(), &head);
    Ok(())
}

/// The short id of a room is that of the first event of it that is learned.
fn find_or_begin_room(at: &At<'_>, id: &str, batch: &mut Batch<'_>) -> Result<Nid, StoreError> {
    if let Some(room) = room_nid(batch, id)? {
        return Ok(room);
    }
    let room = at.nid();
    batch.put_raw(ROOM_IDS, id, room.to_bytes().to_vec());
    batch.put(ROOMS, room.to_bytes(), &Room { id: id.to_owned(), version: None, create: None });
    Ok(room)
}

fn write_text(
    at: &At<'_>,
    event: Nid,
    head: &Head,
    halves: Halves<'_>,
    batch: &mut Batch<'_>,
) -> Result<(), FoldError> {
    let target = head.redaction.as_ref().map(|redaction| redaction.target.as_str());
    let text = client::event(&head.id, halves, target).map_err(|error| at.refuse(format!("{}: {error}", head.id)))?;
    batch.put_raw(TEXTS, event.to_bytes(), text.into_bytes());
    Ok(())
}

fn membership(pdu: &Pdu) -> Option<Membership> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        membership: std::borrow::Cow<'a, str>,
    }
    if *pdu.event_type() != TimelineEventType::RoomMember || pdu.state_key().is_none() {
        return None;
    }
    serde_json::from_str::<Content<'_>>(pdu.content().get()).ok().and_then(|c| Membership::named(&c.membership))
}

fn relation(pdu: &Pdu) -> Option<Relation> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: RelatesTo,
        #[serde(rename = "m.new_content")]
        new_content: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct RelatesTo {
        rel_type: String,
        event_id: String,
        key: Option<serde_json::Value>,
    }
    let Content { relates_to, new_content } = pdu.content_as()?;
    let RelatesTo { rel_type, event_id, key } = relates_to;
    // They become parts of keys; nothing that a client means is that long.
    let short = |text: &String| text.len() <= MAX_FIELD_BYTES;
    if !short(&rel_type) || !short(&event_id) {
        return None;
    }
    let key = key.and_then(|key| key.as_str().map(ToOwned::to_owned)).filter(short);
    let whole = new_content.is_some() || *pdu.event_type() == TimelineEventType::RoomEncrypted;
    let replaces = rel_type == "m.replace" && whole && pdu.state_key().is_none();
    Some(Relation { rel_type, parent: event_id, key, replaces })
}

fn place(at: &At<'_>, fact: &EventPlaced, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let (event, mut head) = known(at, &fact.id, batch)?;
    if head.placed.is_some() {
        return Ok(());
    }
    if fact.redacts.is_some() {
        head.redaction.clone_from(&fact.redacts);
        let bytes = bytes(batch, event)?.ok_or_else(|| unknown(at, &fact.id))?;
        write_text(at, event, &head, bytes.halves(), batch)?;
    }
    let to = Settled { class: &fact.class, verdict: fact.verdict, visibility: fact.visibility };
    settle(at, event, head, &to, batch)
}

fn restate(at: &At<'_>, fact: &EventRestated, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let (event, head) = known(at, &fact.id, batch)?;
    let Some(before) = head.placed else { return Ok(()) };
    let allowed = match before.class {
        Class::Outlier => true,
        class => class == class_of(&fact.class) && (!before.is_shown() || fact.verdict == Verdict::Accepted),
    };
    if !allowed {
        return Ok(());
    }
    let to = Settled { class: &fact.class, verdict: fact.verdict, visibility: fact.visibility };
    settle(at, event, head, &to, batch)
}

/// What a fact says of an event's place.
struct Settled<'a> {
    class: &'a Placement,
    verdict: Verdict,
    visibility: Visibility,
}

fn settle(at: &At<'_>, event: Nid, mut head: Head, to: &Settled<'_>, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let before = head.shown_at();
    let position = match before {
        None if to.verdict == Verdict::Accepted => position(at, &head, to.class, batch)?,
        before => before,
    };
    head.placed = Some(Placed {
        by: at.nid(),
        class: class_of(to.class),
        verdict: to.verdict,
        visibility: to.visibility,
        position,
        was_shown: before.is_some(),
    });
    batch.put(HEADS, event.to_bytes(), &head);
    let is_create = head.event_type == "m.room.create" && head.state_key.as_deref() == Some("");
    if is_create && to.verdict == Verdict::Accepted {
        note_create(at, event, &head, batch)?;
    }
    if position.is_some() && before.is_none() {
        redact_target(at, event, &head, batch)?;
    }
    Ok(())
}

fn position(at: &At<'_>, head: &Head, class: &Placement, batch: &Batch<'_>) -> Result<Option<Position>, FoldError> {
    match class {
        Placement::Outlier => Ok(None),
        Placement::Live => Ok(Some(Position::live(at.nid()))),
        Placement::History { anchor, order } => {
            let anchor = find(batch, anchor)?.filter(|(_, anchor)| anchor.room == head.room);
            let anchor = anchor.and_then(|(_, anchor)| anchor.shown_at()).filter(|position| position.is_live());
            match anchor {
                Some(anchor) if *order > 0 => Ok(Some(Position::before(anchor, *order))),
                _ => Err(at.refuse(format!("{} has no live event of its room to stand before", head.id))),
            }
        }
    }
}

/// The first accepted create event says what version the room has.
fn note_create(at: &At<'_>, event: Nid, head: &Head, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    #[derive(Deserialize)]
    struct Content {
        room_version: Option<String>,
    }
    let Some(room) = room(batch, head.room)?.filter(|room| room.create.is_none()) else { return Ok(()) };
    let bytes = bytes(batch, event)?.ok_or_else(|| unknown(at, &head.id))?;
    let content: Option<Content> = parse(&head.id, bytes.halves()).ok().and_then(|pdu| pdu.content_as());
    let version = content.and_then(|content| content.room_version).unwrap_or_else(|| "1".to_owned());
    batch.put(ROOMS, head.room.to_bytes(), &Room { version: Some(version), create: Some(event), ..room });
    Ok(())
}

/// A redaction takes effect on an event that is there, or waits for it.
fn redact_target(at: &At<'_>, by: Nid, redaction: &Head, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(target) = redaction.redaction.as_ref().map(|redaction| &redaction.target) else { return Ok(()) };
    let Some((event, mut head)) = find(batch, target)? else {
        batch.put(PENDING, pending_key(target), &());
        batch.put(PENDING, pending_key(target).nid(by), &());
        return Ok(());
    };
    if head.redacted_by.is_some() || !may_redact(redaction, &head) {
        return Ok(());
    }
    head.redacted_by = Some(by);
    head.relation = None;
    batch.delete(RESTS, event.to_bytes());
    let bytes = bytes(batch, event)?.ok_or_else(|| unknown(at, target))?;
    write_text(at, event, &head, bytes.halves(), batch)?;
    batch.put(HEADS, event.to_bytes(), &head);
    Ok(())
}

/// The first redaction that waited for this event and may redact it. None waits any longer.
fn take_pending(target: &Head, batch: &mut Batch<'_>) -> Result<Option<Nid>, FoldError> {
    let prefix = pending_key(&target.id);
    // Most events have none waiting: to see that costs a look at one key.
    if batch.get(PENDING, prefix.as_ref())?.is_none() {
        return Ok(None);
    }
    let mut first = None;
    for row in batch.scan(PENDING, Range::prefix_from(prefix.as_ref(), &Nid::default().to_bytes())) {
        let (key, _) = row?;
        let mut parts = KeyReader::new(&key);
        let by = parts.str().and_then(|_| parts.nid()).ok_or_else(|| malformed_key(PENDING))?;
        let redaction = head(batch, by)?.ok_or_else(|| malformed_key(PENDING))?;
        if may_redact(&redaction, target) {
            first = Some(by);
            break;
        }
    }
    batch.delete_prefix(PENDING, prefix);
    Ok(first)
}

fn may_redact(redaction: &Head, target: &Head) -> bool {
    let any = redaction.redaction.as_ref().is_some_and(|redaction| redaction.may_redact_any);
    let users = <&UserId>::try_from(redaction.sender.as_str()).ok().zip(target.sender.as_str().try_into().ok());
    redaction.room == target.room && users.is_some_and(|(sender, author)| redaction_applies(any, sender, author))
}

fn note_transaction(fact: &EventTransaction, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(event) = nid(batch, &fact.event)? else { return Ok(()) };
    if transaction(batch, event)?.is_none() {
        let row = Transaction { device: fact.device.clone(), id: fact.transaction.clone() };
        batch.put(TRANSACTIONS, event.to_bytes(), &row);
    }
    Ok(())
}

const fn class_of(class: &Placement) -> Class {
    match class {
        Placement::Live => Class::Live,
        Placement::History { .. } => Class::History,
        Placement::Outlier => Class::Outlier,
    }
}

fn known(at: &At<'_>, id: &str, batch: &Batch<'_>) -> Result<(Nid, Head), FoldError> {
    find(batch, id)?.ok_or_else(|| unknown(at, id))
}

fn unknown(at: &At<'_>, id: &str) -> FoldError {
    at.refuse(format!("it is about the event {id}, which is not known"))
}
