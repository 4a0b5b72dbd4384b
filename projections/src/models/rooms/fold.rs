use ruma::RoomVersionId;
use schemas::{
    Fact, Nid, Origin,
    facts::{RoomBlocked, StateChange},
};
use serde_json::Value as Content;

use super::{BLOCKS, Block, Figures, Order, ROOMS, Settings, Summary, TEXTS, block, known};
use crate::{
    At, Batch, FoldError, StoreError,
    models::{directory, events, membership, state},
};

pub(super) fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    match fact {
        Fact::RoomBlocked(f) => set_block(at, f, batch)?,
        Fact::RoomDetached(f) => unlist(&f.room, batch)?,
        Fact::RoomPublished(f) => {
            if let Some(room) = events::room_nid(batch, &f.room)? {
                relist(room, Vec::new(), batch)?;
            }
        }
        _ => {
            let Some(effect) = events::state_effect(at, fact, batch)? else { return Ok(()) };
            let mut changed: Vec<_> = effect.current.iter().filter_map(Changed::of).collect();
            if let Some((nid, target)) = effect.redacted(batch)? {
                changed.extend(redacted(nid, &target, batch)?);
            }
            relist(effect.head.room, changed, batch)?;
        }
    }
    Ok(())
}

/// The first block counts until it is lifted.
fn set_block(at: &At<'_>, fact: &RoomBlocked, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    if !fact.blocked {
        batch.delete(BLOCKS, &fact.room);
    } else if block(batch, &fact.room)?.is_none() {
        let by = match &at.header.origin {
            Origin::User { user, .. } | Origin::Admin { user } => user.as_str(),
            Origin::Remote { .. } | Origin::AppService { .. } | Origin::Server => "",
        };
        let row = Block { by: by.to_owned(), reason: fact.reason.clone(), at_ms: at.log_time.ms };
        batch.put(BLOCKS, &fact.room, &row);
    }
    Ok(())
}

/// A type whose event makes settings, and that event; none where the state has none any more.
struct Changed {
    event_type: String,
    event: Option<Event>,
}

enum Event {
    Named(String),
    Known(Nid),
}

impl Changed {
    fn of(change: &StateChange) -> Option<Self> {
        let event_type = change.event_type.clone();
        let event = change.event.clone().map(Event::Named);
        makes_settings(&event_type, &change.state_key).then_some(Self { event_type, event })
    }
}

fn makes_settings(event_type: &str, state_key: &str) -> bool {
    state_key.is_empty()
        && matches!(
            event_type,
            "m.room.create"
                | "m.room.name"
                | "m.room.topic"
                | "m.room.avatar"
                | "m.room.canonical_alias"
                | "m.room.join_rules"
                | "m.room.guest_access"
                | "m.room.history_visibility"
                | "m.room.encryption"
                | "m.room.tombstone"
        )
}

/// A redaction takes away what its target said, if that stands in the current state.
fn redacted(nid: Nid, target: &events::Head, batch: &Batch<'_>) -> Result<Option<Changed>, StoreError> {
    if !target.state_key.as_deref().is_some_and(|key| makes_settings(&target.event_type, key)) {
        return Ok(None);
    }
    let current = state::current(batch, target.room)?;
    let stands = state::get(batch, &current, &target.event_type, "")? == Some(nid);
    Ok(stands.then(|| Changed { event_type: target.event_type.clone(), event: Some(Event::Known(nid)) }))
}

fn resettle(settings: &mut Settings, changed: Vec<Changed>, batch: &Batch<'_>) -> Result<(), StoreError> {
    for Changed { event_type, event } in changed {
        let event = match event {
            Some(Event::Named(id)) => events::nid(batch, &id)?,
            Some(Event::Known(nid)) => Some(nid),
            None => None,
        };
        let text = event.map(|event| events::client(batch, event)).transpose()?.flatten();
        // An object without a field reads like one that is not there.
        let event = text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Content::Null);
        set(settings, &event_type, &event);
    }
    Ok(())
}

fn set(settings: &mut Settings, event_type: &str, event: &Content) {
    let content = &event["content"];
    let text = |field: &str| content[field].as_str().map(ToOwned::to_owned).filter(|text| !text.is_empty());
    match event_type {
        "m.room.create" => {
            settings.version = event.is_object().then(|| text("room_version").unwrap_or_else(|| "1".to_owned()));
            let sender = event["sender"].as_str().map(ToOwned::to_owned);
            let by_sender = settings.version.as_deref().is_some_and(is_made_by_sender);
            settings.creator = if by_sender { sender } else { text("creator").or(sender) };
            settings.room_type = text("type");
            settings.federatable = event.is_object() && content["m.federate"].as_bool().unwrap_or(true);
        }
        "m.room.name" => settings.name = text("name"),
        "m.room.topic" => settings.topic = text("topic"),
        "m.room.avatar" => settings.avatar = text("url"),
        "m.room.canonical_alias" => settings.canonical_alias = text("alias"),
        "m.room.join_rules" => settings.join_rule = text("join_rule"),
        "m.room.guest_access" => settings.guest_access = text("guest_access"),
        "m.room.history_visibility" => settings.history_visibility = text("history_visibility"),
        "m.room.encryption" => settings.encryption = text("algorithm"),
        "m.room.tombstone" => {
            settings.tombstoned = event.is_object();
            settings.replacement = text("replacement_room");
        }
        _ => {}
    }
}

/// From room version 11 on, the create event's content doesn't name the creator.
fn is_made_by_sender(version: &str) -> bool {
    let rules = RoomVersionId::try_from(version).ok().and_then(|version| version.rules());
    rules.is_none_or(|rules| rules.authorization.use_room_create_sender)
}

/// Brings a room's keys to what is true of it now.
fn relist(room: Nid, changed: Vec<Changed>, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let before = known(batch, room)?;
    let mut after = before.clone();
    resettle(&mut after.settings, changed, batch)?;
    if before.figures.is_some() || after.settings.version.is_some() {
        after.figures = Some(figures(room, batch)?);
    }
    if after == before {
        return Ok(());
    }
    if after.id.is_empty() {
        let Some(named) = events::room(batch, room)? else { return Ok(()) };
        after.id = named.id;
    }
    batch.put(ROOMS, room.to_bytes(), &after);
    Ok(place(room, before.listed().as_ref(), after.listed().as_ref(), batch)?)
}

/// A room that is taken away is not listed any more.
fn unlist(id: &str, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(room) = events::detached(batch, id)? else { return Ok(()) };
    let before = known(batch, room)?;
    batch.delete(ROOMS, room.to_bytes());
    Ok(place(room, before.listed().as_ref(), None, batch)?)
}

fn figures(room: Nid, batch: &Batch<'_>) -> Result<Figures, StoreError> {
    let counts = membership::counts(batch, room)?;
    Ok(Figures {
        public: directory::is_published(batch, room)?,
        state_events: state::current(batch, room)?.len().into(),
        joined: counts.joined,
        joined_local: counts.joined_local,
    })
}

/// Moves a room in the indexes from where it was to where it is: nowhere, if it isn't listed.
fn place(room: Nid, was: Option<&Summary>, is: Option<&Summary>, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    for order in Order::ALL {
        let same = |was: &Summary, is: &Summary| order.value(was) == order.value(is) && was.class() == is.class();
        if was.zip(is).is_some_and(|(was, is)| same(was, is)) {
            continue;
        }
        let (from, to) = (was.map(|room| order.place(room)), is.map(|room| order.place(room)));
        if let Some(from) = from.filter(|from| Some(from) != to.as_ref()) {
            order.index().remove(batch, &from)?;
        }
        if let (Some(to), Some(is)) = (to, is) {
            order.index().insert(batch, &to, is.class().into(), &room.to_bytes())?;
        }
    }
    TEXTS.change(batch, room, was.map(Summary::found_by), is.map(Summary::found_by))
}
