//! Other homeservers, as far as a room goes: they sign their own events, and know the room by the algorithms to the
//! letter, with whole states and whole auth chains.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use everfold::{
    commands::{Error, inbound::Received},
    keys::OwnKey,
    rooms::{
        Builder, Built, Halves, Pdu, Position, Prototype, StateMap,
        auth::{allowed_by_auth_events, allowed_by_state},
        check::Unverified,
        versions,
    },
};
use projections::{
    View,
    models::{events, state, timeline},
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, UInt,
    UserId,
    events::StateEventType,
    room_version_rules::RoomVersionRules,
    state_res::{self, utils::event_id_set::EventIdSet},
};
use schemas::facts::Verdict;
use serde_json::{Value, json};

use super::TestServer;

/// Another server, and what it knows of one room.
#[derive(Clone)]
pub struct Remote {
    name: OwnedServerName,
    key: Arc<OwnKey>,
    /// The room, as the server sees it.
    pub room: Replica,
    /// When its next event is sent, milliseconds since the Unix epoch; each takes one.
    pub clock: u64,
}

impl Remote {
    /// A server that knows what another one shows of a room. The same name has always the same key.
    pub fn beside(server: &TestServer, room: &str, name: &str) -> Self {
        let mut seed = [7; 32];
        seed.iter_mut().zip(name.bytes()).for_each(|(byte, letter)| *byte = letter);
        let name = OwnedServerName::try_from(name).unwrap();
        let key = Arc::new(OwnKey::from_seed(&seed, "a_test", &name).unwrap());
        Self { name, key, room: Replica::of(server, room), clock: server.app().clock.now_ms() }
    }

    /// A server one of whose users has just joined.
    pub async fn joined(server: &TestServer, room: &str, user: &str) -> Self {
        let mut remote = Self::beside(server, room, user.split_once(':').unwrap().1);
        remote.join(server, user).await;
        remote
    }

    /// Lets a user join.
    pub async fn join(&mut self, server: &TestServer, user: &str) -> Built {
        self.room.catch_up(server);
        let join = self.send(user, member(user, "join"));
        assert_eq!(self.deliver(server, &join).await, Received::Placed(Verdict::Accepted));
        join
    }

    /// Signs an event that comes after all that the server knows, which takes it in itself.
    pub fn send(&mut self, sender: &str, what: Prototype) -> Built {
        let ends: Vec<_> = self.room.ends.iter().take(20).cloned().collect();
        let built = self.build(&ends, sender, what);
        self.room.see(built.pdu.clone());
        built
    }

    /// Signs an event that comes after all that the server knows, which goes on as if it had not.
    pub fn send_aside(&mut self, sender: &str, what: Prototype) -> Built {
        let ends: Vec<_> = self.room.ends.iter().cloned().collect();
        self.build(&ends, sender, what)
    }

    /// Signs an event that comes after some others, without asking whether it is allowed.
    pub fn build(&mut self, prev_events: &[OwnedEventId], sender: &str, what: Prototype) -> Built {
        let state = self.room.before(prev_events);
        self.sign(prev_events, &state, sender, what)
    }

    /// Signs an event that comes after some others, with auth events out of a state that need not be the one after those.
    pub fn sign(&mut self, prev_events: &[OwnedEventId], state: &StateMap, sender: &str, what: Prototype) -> Built {
        let auth_events = |event_type: &StateEventType, key: &str| self.room.look(state, event_type, key);
        let depths = prev_events.iter().filter_map(|id| self.room.pdu(id)).map(|pdu| pdu.depth());
        let depth = depths.max().unwrap_or(0) + 1;
        let at = MilliSecondsSinceUnixEpoch(UInt::new(self.clock).unwrap());
        self.clock += 1;
        let builder = Builder { rules: self.room.rules, key: &self.key };
        let position = Position { room_id: Some(&self.room.id), prev_events, depth };
        builder.build(what, <&UserId>::try_from(sender).unwrap(), at, position, auth_events).unwrap()
    }

    /// Hands an event over, as bytes.
    pub async fn deliver(&self, server: &TestServer, event: &Built) -> Received {
        self.try_deliver(server, event).await.unwrap()
    }

    /// Hands an event over that may be refused.
    pub async fn try_deliver(&self, server: &TestServer, event: &Built) -> Result<Received, Error> {
        server.app().commands.receive(&self.name, self.checked(event)).await
    }

    /// Hands events over that others refer to; what is needed first.
    pub async fn deliver_outliers(&self, server: &TestServer, events: &[&Built]) -> BTreeSet<OwnedEventId> {
        let events = events.iter().map(|event| self.checked(event)).collect();
        server.app().commands.keep_outliers(&self.name, &self.room.id, events).await.unwrap()
    }

    fn checked(&self, event: &Built) -> Built {
        let json = serde_json::from_str::<Box<_>>(&Halves::of(&event.learned).join().unwrap()).unwrap();
        let unverified = Unverified::read(&json, self.room.rules).unwrap();
        assert!(unverified.signers().unwrap().contains(&self.name));
        unverified.verify(&self.key.public_map()).unwrap()
    }
}

/// A room by the algorithms to the letter.
#[derive(Clone)]
pub struct Replica {
    id: OwnedRoomId,
    rules: &'static RoomVersionRules,
    events: BTreeMap<OwnedEventId, Seen>,
    /// The events that are not rejected, and that no other such event follows.
    pub ends: BTreeSet<OwnedEventId>,
}

#[derive(Clone)]
struct Seen {
    pdu: Pdu,
    before: StateMap,
    after: StateMap,
}

impl Replica {
    /// What a server shows of a room.
    pub fn of(server: &TestServer, room: &str) -> Self {
        let view = server.app().view().unwrap();
        let nid = events::room_nid(&view, room).unwrap().unwrap();
        let version = RoomVersionId::try_from(events::room(&view, nid).unwrap().unwrap().version.unwrap()).unwrap();
        let rules = versions::rules(&version).unwrap();
        let id = RoomId::parse(room).unwrap();
        let mut replica = Self { id, rules, events: BTreeMap::new(), ends: BTreeSet::new() };
        replica.catch_up(server);
        replica
    }

    /// Sees what a server shows by now, and what that follows.
    pub fn catch_up(&mut self, server: &TestServer) {
        let view = server.app().view().unwrap();
        let nid = events::room_nid(&view, self.id.as_str()).unwrap().unwrap();
        for item in timeline::forward(&view, nid, projections::Position::START) {
            let id = events::head(&view, item.unwrap().1.event).unwrap().unwrap().id;
            self.see_from(&view, &EventId::parse(id).unwrap());
        }
    }

    fn see_from(&mut self, view: &View, id: &EventId) {
        let mut path = vec![id.to_owned()];
        while let Some(id) = path.last() {
            let pdu = events::pdu_by_id(view, id).unwrap().unwrap();
            match pdu.prev_events().iter().find(|id| !self.knows(id)) {
                Some(before) => path.push(before.clone()),
                None => {
                    self.see(pdu);
                    path.pop();
                }
            }
        }
    }

    /// The events that it has seen.
    pub fn ids(&self) -> impl Iterator<Item = &OwnedEventId> {
        self.events.keys()
    }

    /// Whether it has seen an event.
    pub fn knows(&self, id: &EventId) -> bool {
        self.events.contains_key(id)
    }

    /// Sees an event whose previous events it has seen.
    pub fn see(&mut self, pdu: Pdu) {
        if self.knows(pdu.id()) {
            return;
        }
        let before = self.before(pdu.prev_events());
        let by_auth_events = allowed_by_auth_events(&pdu, self.rules, |id| self.pdu(id));
        let by_state =
            allowed_by_state(&pdu, self.rules, |kind: &StateEventType, key: &str| self.look(&before, kind, key));
        let rejected = by_auth_events.is_err() || by_state.is_err();
        let mut after = before.clone();
        if let Some(key) = pdu.state_key().filter(|_| !rejected) {
            after.insert((pdu.kind().to_owned(), key.to_owned()), pdu.id().to_owned());
        }
        let id = pdu.id().to_owned();
        if !rejected {
            let mut behind = pdu.prev_events().to_vec();
            while let Some(id) = behind.pop() {
                self.ends.remove(&id);
                if self.is_rejected(&id) {
                    behind.extend_from_slice(self.events[&id].pdu.prev_events());
                }
            }
            self.ends.insert(id.clone());
        }
        self.events.insert(id, Seen { pdu: pdu.rejected(rejected), before, after });
    }

    fn pdu(&self, id: &EventId) -> Option<Pdu> {
        self.events.get(id).map(|seen| seen.pdu.clone())
    }

    /// Whether an event is not allowed by its auth events or by the state before it.
    pub fn is_rejected(&self, id: &EventId) -> bool {
        state_res::Event::rejected(&self.events[id].pdu)
    }

    fn look(&self, state: &StateMap, event_type: &StateEventType, key: &str) -> Option<Pdu> {
        state.get(&(event_type.to_string(), key.to_owned())).and_then(|id| self.pdu(id))
    }

    /// The state before an event that comes after these.
    pub fn before(&self, prev_events: &[OwnedEventId]) -> StateMap {
        let states: Vec<_> = prev_events.iter().map(|id| &self.events[id].after).collect();
        self.resolve(&states)
    }

    /// State resolution to the letter: whole states, whole auth chains.
    fn resolve(&self, states: &[&StateMap]) -> StateMap {
        let maps: Vec<state_res::StateMap<OwnedEventId>> = states.iter().map(|state| typed(state)).collect();
        let chains = states.iter().map(|state| self.chain(state.values()).into_iter().collect()).collect();
        let subgraph = |conflicted: &state_res::StateMap<Vec<OwnedEventId>>| {
            let ends: BTreeSet<_> = conflicted.values().flatten().cloned().collect();
            let on_path = |id: &OwnedEventId| self.chain([id]).iter().any(|id| ends.contains(id));
            Some(self.chain(&ends).into_iter().filter(on_path).collect::<EventIdSet<_>>())
        };
        let algorithm = self.rules.state_res.v2_rules().unwrap();
        let fetch = |id: &EventId| self.pdu(id);
        let resolved =
            state_res::resolve(&self.rules.authorization, algorithm, &maps, chains, fetch, subgraph).unwrap();
        resolved.into_iter().map(|((kind, key), id)| ((kind.to_string(), key), id)).collect()
    }

    fn chain<'a>(&self, ids: impl IntoIterator<Item = &'a OwnedEventId>) -> HashSet<OwnedEventId> {
        let mut seen = HashSet::new();
        let mut todo: Vec<_> = ids.into_iter().cloned().collect();
        while let Some(id) = todo.pop() {
            if seen.insert(id.clone()) {
                todo.extend_from_slice(self.events[&id].pdu.auth_events());
            }
        }
        seen
    }

    /// Compares with what a server made of the same events: verdicts, the states before all events, and the current
    /// state, which resolves those after its forward extremities.
    pub fn check(&self, server: &TestServer) {
        let view = server.app().view().unwrap();
        let nid = events::room_nid(&view, self.id.as_str()).unwrap().unwrap();
        for (id, seen) in &self.events {
            let Some((event, head)) = events::find(&view, id.as_str()).unwrap() else { continue };
            let Some(before) = state::before(&view, event).unwrap() else { continue };
            assert_eq!(head.is_rejected(), self.is_rejected(id), "{seen:?}");
            assert_eq!(whole(&view, &before), seen.before, "the state before {:?}", seen.pdu);
        }
        let extremities = timeline::extremities(&view, nid).unwrap();
        let ends: Vec<_> = extremities.iter().map(|end| EventId::parse(end.id.as_str()).unwrap()).collect();
        assert_eq!(current(server, self.id.as_str()), self.before(&ends), "the current state after {ends:?}");
    }
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pdu.fmt(f)
    }
}

fn typed(state: &StateMap) -> state_res::StateMap<OwnedEventId> {
    state.iter().map(|((kind, key), id)| ((kind.as_str().into(), key.clone()), id.clone())).collect()
}

fn whole(view: &View, state: &state::State) -> StateMap {
    let entry = |entry: state::Entry| {
        let id = events::head(view, entry.event).unwrap().unwrap().id;
        ((entry.event_type, entry.state_key), EventId::parse(id).unwrap())
    };
    state::all(view, state).map(|found| entry(found.unwrap())).collect()
}

/// The current state of a room, as a server has it.
pub fn current(server: &TestServer, room: &str) -> StateMap {
    let view = server.app().view().unwrap();
    let nid = events::room_nid(&view, room).unwrap().unwrap();
    whole(&view, &state::current(&view, nid).unwrap())
}

/// The event at a place of a room's current state.
pub fn at(server: &TestServer, room: &str, kind: &str, key: &str) -> Option<OwnedEventId> {
    current(server, room).remove(&(kind.to_owned(), key.to_owned()))
}

/// A room's forward extremities.
pub fn ends(server: &TestServer, room: &str) -> Vec<String> {
    let view = server.app().view().unwrap();
    let nid = events::room_nid(&view, room).unwrap().unwrap();
    timeline::extremities(&view, nid).unwrap().into_iter().map(|end| end.id).collect()
}

/// State, to be sent.
pub fn set(kind: &str, key: &str, content: Value) -> Prototype {
    Prototype::state(kind, key, serde_json::from_value(content).unwrap())
}

/// A membership, to be sent.
pub fn member(user: &str, membership: &str) -> Prototype {
    set("m.room.member", user, json!({ "membership": membership }))
}

/// A topic, to be sent.
pub fn topic(text: &str) -> Prototype {
    set("m.room.topic", "", json!({ "topic": text }))
}

/// A message, to be sent.
pub fn message(body: &str) -> Prototype {
    let content = json!({ "body": body, "msgtype": "m.text" });
    Prototype::message("m.room.message", serde_json::from_value(content).unwrap())
}

/// A redaction, to be sent.
pub fn redaction(target: &EventId) -> Prototype {
    let redaction = Prototype::message("m.room.redaction", serde_json::from_value(json!({})).unwrap());
    Prototype { redacts: Some(target.to_owned()), ..redaction }
}
