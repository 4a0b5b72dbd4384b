//! Rooms for the models' tests: events that look like events, placed as a server would place them, without rules.

use ruma::{CanonicalJsonObject, EventId, RoomId, room_version_rules::RoomVersionRules};
use schemas::{
    Fact, Nid,
    facts::{
        EventLearned, EventPlaced, Placement, Redaction, StateBase, StateBefore, StateChange, Verdict, Visibility,
    },
};
use serde_json::{Value, json};

use crate::{models::events, pdu};

use super::World;

/// A room that grows event by event, each built on the one before.
#[derive(Clone)]
pub(crate) struct Room {
    pub(crate) id: String,
    last: Option<String>,
    depth: u64,
}

/// An event and its place.
#[derive(Clone)]
pub(crate) struct Event {
    pub(crate) learned: EventLearned,
    pub(crate) placed: EventPlaced,
}

impl IntoIterator for Event {
    type Item = Fact;
    type IntoIter = std::array::IntoIter<Fact, 2>;

    fn into_iter(self) -> Self::IntoIter {
        [Fact::EventLearned(self.learned), Fact::EventPlaced(self.placed)].into_iter()
    }
}

impl Event {
    pub(crate) fn verdict(mut self, verdict: Verdict) -> Self {
        self.placed.verdict = verdict;
        self
    }

    pub(crate) fn class(mut self, class: Placement) -> Self {
        self.placed.class = class;
        self
    }

    pub(crate) fn redacts(mut self, target: &str, may_redact_any: bool) -> Self {
        self.placed.redacts = Some(Redaction { target: target.into(), may_redact_any });
        self
    }

    pub(crate) fn without_state(mut self) -> Self {
        self.placed.state_before = None;
        self
    }

    pub(crate) fn keep_current(mut self) -> Self {
        self.placed.current.clear();
        self
    }
}

pub(crate) fn change(event_type: &str, state_key: &str, event: Option<&str>) -> StateChange {
    StateChange { event_type: event_type.into(), state_key: state_key.into(), event: event.map(ToOwned::to_owned) }
}

impl Room {
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.into(), last: None, depth: 0 }
    }

    /// A room of version 11 that is made, and joined by its creator, with one record: `$create`, `$creator`.
    pub(crate) fn created(world: &mut World, id: &str, creator: &str) -> Self {
        Self::new(id).create(world, creator, ["$create", "$creator"])
    }

    /// Another such room: `$create2`, `$creator2`.
    pub(crate) fn other(world: &mut World, creator: &str) -> Self {
        Self::new("!other:example.org").create(world, creator, ["$create2", "$creator2"])
    }

    /// One of several such rooms.
    pub(crate) fn made(world: &mut World, id: &str, creator: &str) -> Self {
        Self::new(id).create(world, creator, [&format!("$create-{id}"), &format!("$creator-{id}")])
    }

    fn create(mut self, world: &mut World, creator: &str, [create, join]: [&str; 2]) -> Self {
        let create = self.state(create, creator, "m.room.create", "", json!({"room_version": "11"}));
        let join = self.member(join, creator, "join");
        world.fold(create.into_iter().chain(join));
        self
    }

    /// An event's bytes; `fields` go over what every event has.
    pub(crate) fn learn(&self, id: &str, fields: &Value) -> EventLearned {
        let mut event = json!({
            "auth_events": [], "content": {}, "depth": self.depth + 1, "hashes": {"sha256": "x"},
            "origin_server_ts": 1000 + self.depth, "prev_events": self.last.as_slice(), "room_id": self.id,
            "sender": "@alice:example.org", "signatures": {}, "type": "m.room.message",
        });
        for (key, value) in fields.as_object().unwrap() {
            event[key] = value.clone();
        }
        let event: CanonicalJsonObject = serde_json::from_value(event).unwrap();
        let id = <&EventId>::try_from(id).unwrap();
        let room = <&RoomId>::try_from(self.id.as_str()).unwrap();
        pdu::learn(id, room, &event, &RoomVersionRules::V11.redaction, false).unwrap()
    }

    /// An accepted live event on top of the room; its state event, if it is one, is in the current state from then on.
    pub(crate) fn live(&mut self, id: &str, fields: &Value) -> Event {
        let learned = self.learn(id, fields);
        let base = self.last.replace(id.into()).map_or(StateBase::Empty, StateBase::After);
        self.depth += 1;
        let state_key = fields["state_key"].as_str();
        let own = state_key.map(|key| change(fields["type"].as_str().unwrap(), key, Some(id)));
        let placed = EventPlaced {
            id: id.into(),
            class: Placement::Live,
            verdict: Verdict::Accepted,
            state_before: Some(StateBefore { base, delta: Vec::new() }),
            current: own.into_iter().collect(),
            visibility: Visibility::Shared,
            servers: Vec::new(),
            redacts: None,
        };
        Event { learned, placed }
    }

    pub(crate) fn message(&mut self, id: &str, sender: &str, body: &str) -> Event {
        self.live(id, &json!({"sender": sender, "content": {"body": body, "msgtype": "m.text"}}))
    }

    pub(crate) fn state(&mut self, id: &str, sender: &str, event_type: &str, key: &str, content: Value) -> Event {
        let mut fields = json!({"sender": sender, "type": event_type, "state_key": key});
        fields["content"] = content;
        self.live(id, &fields)
    }

    pub(crate) fn member(&mut self, id: &str, user: &str, membership: &str) -> Event {
        self.state(id, user, "m.room.member", user, json!({"membership": membership}))
    }

    /// An event that redacts another.
    pub(crate) fn redaction(&mut self, id: &str, sender: &str, target: &str, may_redact_any: bool) -> Event {
        let fields = json!({"sender": sender, "type": "m.room.redaction", "content": {"redacts": target}});
        self.live(id, &fields).redacts(target, may_redact_any)
    }

    /// An event that relates to another.
    pub(crate) fn relating(&mut self, id: &str, sender: &str, relates_to: Value, content: Value) -> Event {
        let mut content = content;
        content["m.relates_to"] = relates_to;
        self.live(id, &json!({"sender": sender, "content": content}))
    }
}

impl World {
    /// An event's short id.
    pub(crate) fn event(&self, id: &str) -> Nid {
        events::nid(&self.view(), id).unwrap().unwrap()
    }

    /// What is known of an event.
    pub(crate) fn head(&self, id: &str) -> events::Head {
        events::find(&self.view(), id).unwrap().unwrap().1
    }

    /// A room's short id.
    pub(crate) fn room(&self, id: &str) -> Nid {
        events::room_nid(&self.view(), id).unwrap().unwrap()
    }
}
