//! A room to try rules on: its events, the state after each, and as many forks as a test wants.

use std::collections::HashMap;

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, UInt,
    UserId, events::StateEventType, room_version_rules::RoomVersionRules,
};
use serde_json::Value;

use super::{
    Builder, Built, Forbidden, Pdu, Position, Prototype, StateMap,
    auth::{allowed_by_auth_events, authorise},
    resolve::resolve,
    versions,
};
use crate::keys::OwnKey;

/// A key for a server, always the same.
pub fn key(server: &str) -> OwnKey {
    let mut seed = [7; 32];
    for (byte, letter) in seed.iter_mut().zip(server.bytes()) {
        *byte = letter;
    }
    OwnKey::from_seed(&seed, "a_test", &OwnedServerName::try_from(server).unwrap()).unwrap()
}

/// Rules by number.
pub fn rules(version: u8) -> &'static RoomVersionRules {
    versions::rules(&RoomVersionId::try_from(version.to_string()).unwrap()).unwrap()
}

/// A prototype of a state event.
pub fn state(kind: &str, state_key: &str, content: Value) -> Prototype {
    Prototype::state(kind, state_key, serde_json::from_value(content).unwrap())
}

/// A prototype of a text message.
pub fn message(body: &str) -> Prototype {
    let content = serde_json::json!({ "body": body, "msgtype": "m.text" });
    Prototype::message("m.room.message", serde_json::from_value(content).unwrap())
}

/// A user id.
pub fn user(id: &str) -> &UserId {
    <&UserId>::try_from(id).unwrap()
}

/// A room.
pub struct Room {
    pub rules: &'static RoomVersionRules,
    pub id: Option<OwnedRoomId>,
    pub events: HashMap<OwnedEventId, Pdu>,
    /// The state after each event.
    pub after: HashMap<OwnedEventId, StateMap>,
    /// What the next event is stamped with.
    pub time: u32,
    keys: HashMap<OwnedServerName, OwnKey>,
}

impl Room {
    /// No event yet.
    pub fn empty(version: u8) -> Self {
        let id = (version < 12).then(|| RoomId::parse("!room:a").unwrap());
        Self { rules: rules(version), id, events: HashMap::new(), after: HashMap::new(), keys: HashMap::new(), time: 0 }
    }

    /// A public room of `@alice:a`, who has all power in it, and the last of its first events.
    pub fn begin(version: u8, mut power_levels: Value) -> (Self, OwnedEventId) {
        let mut room = Self::empty(version);
        let mut create = serde_json::json!({ "room_version": version.to_string() });
        if version < 11 {
            create["creator"] = "@alice:a".into();
        }
        if version < 12 {
            power_levels["users"]["@alice:a"] = 100.into();
        }
        let mut last: Option<OwnedEventId> = None;
        for what in [
            state("m.room.create", "", create),
            state("m.room.member", "@alice:a", serde_json::json!({ "membership": "join" })),
            state("m.room.power_levels", "", power_levels),
            state("m.room.join_rules", "", serde_json::json!({ "join_rule": "public" })),
        ] {
            let prev: Vec<_> = last.iter().collect();
            last = Some(room.send(&prev, "@alice:a", what).unwrap());
        }
        (room, last.unwrap())
    }

    /// The state before an event that comes after these.
    pub fn before(&self, prev: &[&OwnedEventId]) -> StateMap {
        let states: Vec<_> = prev.iter().map(|&id| &self.after[id]).collect();
        resolve(self.rules, &states, |id| self.events.get(id).cloned()).unwrap()
    }

    /// Looks into a state.
    pub fn look<'a>(&'a self, state: &'a StateMap) -> impl Fn(&StateEventType, &str) -> Option<Pdu> + 'a {
        |event_type, key| state.get(&(event_type.to_string(), key.to_owned())).map(|id| self.events[id].clone())
    }

    /// Builds an event after these, without asking whether it is allowed.
    pub fn build(&mut self, prev: &[&OwnedEventId], sender: &str, what: Prototype) -> Built {
        let sender = user(sender);
        let before = self.before(prev);
        let at = MilliSecondsSinceUnixEpoch(UInt::from(self.time));
        self.time += 1;
        let depth = prev.iter().map(|&id| self.events[id].depth()).max().unwrap_or(0) + 1;
        let server = sender.server_name();
        if !self.keys.contains_key(server) {
            self.keys.insert(server.to_owned(), key(server.as_str()));
        }
        let builder = Builder { rules: self.rules, key: &self.keys[server] };
        let prev_events: Vec<_> = prev.iter().map(|&id| id.clone()).collect();
        let position = Position { room_id: self.id.as_deref(), prev_events: &prev_events, depth };
        builder.build(what, sender, at, position, self.look(&before)).unwrap()
    }

    /// Builds an event after these, and keeps it if it is allowed.
    pub fn send(&mut self, prev: &[&OwnedEventId], sender: &str, what: Prototype) -> Result<OwnedEventId, Forbidden> {
        let pdu = self.build(prev, sender, what).pdu;
        let before = self.before(prev);
        authorise(&pdu, self.rules, self.look(&before))?;
        allowed_by_auth_events(&pdu, self.rules, |id| self.events.get(id).cloned())?;
        Ok(self.keep(pdu, before))
    }

    fn keep(&mut self, pdu: Pdu, mut state: StateMap) -> OwnedEventId {
        let id = pdu.id().to_owned();
        if let Some(key) = pdu.state_key() {
            state.insert((pdu.kind().to_owned(), key.to_owned()), id.clone());
        }
        self.id.get_or_insert_with(|| pdu.room_id().to_owned());
        self.events.insert(id.clone(), pdu);
        self.after.insert(id.clone(), state);
        id
    }

    /// A membership event of `user` by `sender`.
    pub fn member(
        &mut self,
        prev: &[&OwnedEventId],
        sender: &str,
        user: &str,
        membership: &str,
    ) -> Result<OwnedEventId, Forbidden> {
        self.send(prev, sender, state("m.room.member", user, serde_json::json!({ "membership": membership })))
    }

    /// The event at a place of a state.
    pub fn at<'a>(&self, state: &'a StateMap, kind: &str, key: &str) -> Option<&'a EventId> {
        state.get(&(kind.to_owned(), key.to_owned())).map(AsRef::as_ref)
    }
}
