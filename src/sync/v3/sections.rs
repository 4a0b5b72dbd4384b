//! What is not a room's: account data, messages to the device, presence.

use std::{borrow::Cow, collections::BTreeMap};

use projections::{
    StoreError,
    models::{account_data, membership::share_room, push_rules, receipts::Receipt, to_device},
};
use ruma::{
    OwnedUserId, RoomId,
    api::client::sync::sync_events::v3::Response,
    events::{AnyRoomAccountDataEvent, AnySyncEphemeralRoomEvent},
    presence::PresenceState,
    serde::Raw,
};
use schemas::{Json, Lsn, facts::ReceiptKind};
use serde_json::{json, value::RawValue};

use super::Context;
use crate::reading::Matcher;

/// Messages to the device in one answer; the rest comes with the next.
const MAX_TO_DEVICE: usize = 100;
const PUSH_RULES: &str = "m.push_rules";

/// The user's account data that is news, or all of it in an initial sync; for all rooms at once.
pub(super) struct AccountData {
    global: Vec<account_data::AccountData>,
    rooms: BTreeMap<String, Vec<account_data::AccountData>>,
}

impl AccountData {
    pub(super) fn of(context: &Context<'_>) -> Result<Self, StoreError> {
        let news = match context.since() {
            Some(since) => account_data::changed_after(context.view, context.user(), since)?,
            None => account_data::everything(context.view, context.user()).collect::<Result<_, _>>()?,
        };
        let mut this = Self { global: Vec::new(), rooms: BTreeMap::new() };
        for data in news {
            match &data.room {
                Some(room) => this.rooms.entry(room.clone()).or_default().push(data),
                None => this.global.push(data),
            }
        }
        Ok(this)
    }

    /// Rooms with news.
    pub(super) fn rooms(&self) -> impl Iterator<Item = &str> {
        self.rooms.keys().map(String::as_str)
    }

    /// What is new in a room.
    pub(super) fn in_room(&self, context: &Context<'_>, room: &RoomId) -> Vec<Raw<AnyRoomAccountDataEvent>> {
        show(context, room, self.rooms.get(room.as_str()).map_or(&[], Vec::as_slice))
    }

    /// All there is in a room.
    pub(super) fn all_in_room(
        context: &Context<'_>,
        room: &RoomId,
    ) -> Result<Vec<Raw<AnyRoomAccountDataEvent>>, StoreError> {
        let all = account_data::all(context.view, context.user(), Some(room.as_str()))?;
        Ok(show(context, room, &all))
    }
}

fn show(context: &Context<'_>, room: &RoomId, data: &[account_data::AccountData]) -> Vec<Raw<AnyRoomAccountDataEvent>> {
    let matcher = Matcher::from(&context.wanted.filter.room.account_data);
    let wanted = data.iter().filter(|data| matcher.room(room.as_str()) && matcher.event_type(&data.event_type));
    wanted.filter_map(|data| event(&data.event_type, &data.content)).collect()
}

/// An event of a type and a content.
fn event<T>(event_type: &str, content: &Json) -> Option<Raw<T>> {
    let content: &RawValue = content.read().ok()?;
    raw(&json!({ "type": event_type, "content": content }))
}

fn raw<T>(value: &serde_json::Value) -> Option<Raw<T>> {
    serde_json::value::to_raw_value(value).ok().map(Raw::from_json)
}

pub(super) fn add_account_data(
    context: &Context<'_>,
    data: &AccountData,
    response: &mut Response,
) -> Result<(), StoreError> {
    let matcher = Matcher::from(&context.wanted.filter.account_data);
    let wanted = data.global.iter().filter(|data| matcher.event_type(&data.event_type));
    response.account_data.events = wanted.filter_map(|data| event(&data.event_type, &data.content)).collect();
    if matcher.event_type(PUSH_RULES) {
        let rules = match (context.since(), &context.rules) {
            (None, Some((_, rules))) => Some(Cow::Borrowed(rules)),
            (None, None) => Some(Cow::Owned(push_rules::defaults(context.user()))),
            (Some(since), Some((at, rules))) if *at > since => Some(Cow::Borrowed(rules)),
            _ => None,
        };
        if let Some(rules) = rules {
            response.account_data.events.extend(raw(&json!({ "type": PUSH_RULES, "content": { "global": rules } })));
        }
    }
    Ok(())
}

/// Adds messages to the device, and says how far they go if there are more.
pub(super) fn add_to_device(context: &Context<'_>, response: &mut Response) -> Result<Option<Lsn>, StoreError> {
    let since = context.wanted.since.as_ref();
    let after = since.map_or(context.wanted.acknowledged, |since| since.to_device.unwrap_or(since.lsn));
    let device = context.asker.device.as_str();
    let waiting = to_device::after(context.view, context.user(), device, after, MAX_TO_DEVICE)?;
    for message in &waiting.messages {
        let content: Option<&RawValue> = message.content.open().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let Some(content) = content else { continue };
        let event = json!({ "type": message.event_type, "sender": message.sender, "content": content });
        response.to_device.events.extend(raw(&event));
    }
    Ok(waiting.until)
}

/// One event for all receipts of a room.
pub(super) fn receipt_event(receipts: &[Receipt]) -> Option<Raw<AnySyncEphemeralRoomEvent>> {
    if receipts.is_empty() {
        return None;
    }
    let mut content = serde_json::Map::new();
    for receipt in receipts {
        let kind = match receipt.kind {
            ReceiptKind::Public => "m.read",
            ReceiptKind::Private => "m.read.private",
        };
        let mut data = json!({ "ts": receipt.at_ms });
        if let Some(thread) = &receipt.thread {
            data["thread_id"] = json!(thread);
        }
        let event = content.entry(receipt.event.clone()).or_insert_with(|| json!({}));
        event[kind][&receipt.user] = data;
    }
    raw(&json!({ "type": "m.receipt", "content": content }))
}

/// Who types in a room.
pub(super) fn typing_event(users: &[OwnedUserId]) -> Option<Raw<AnySyncEphemeralRoomEvent>> {
    raw(&json!({ "type": "m.typing", "content": { "user_ids": users } }))
}

/// The presence of those who share a room with the user.
pub(super) fn add_presence(context: &Context<'_>, response: &mut Response) -> Result<(), StoreError> {
    let matcher = Matcher::from(&context.wanted.filter.presence);
    if !matcher.event_type("m.presence") {
        return Ok(());
    }
    for (user, presence) in context.ephemeral.presence_since(context.ephemeral_since) {
        let own = user == context.asker.user;
        if !matcher.sender(user.as_str()) || !(own || share_room(context.view, context.user(), user.as_str())?) {
            continue;
        }
        let mut content = json!({
            "presence": presence.state,
            "last_active_ago": presence.last_active_ago_ms,
            "currently_active": presence.state == PresenceState::Online,
        });
        if let Some(message) = &presence.message {
            content["status_msg"] = json!(message);
        }
        let event = json!({ "type": "m.presence", "sender": user, "content": content });
        response.presence.events.extend(raw(&event));
    }
    Ok(())
}
