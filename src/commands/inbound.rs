//! Events of other servers: judged, given their place, put on the log.
//!
//! What comes here has the right format, signatures and hashes ([`crate::rooms::check`]). The rest of the checks on
//! receipt (server-server API, "Checks performed on receipt of a PDU", 4 to 6) is made here, on one view:
//!
//! | Allowed by | else it is |
//! |---|---|
//! | its auth events | rejected |
//! | the state before it, which resolves those after its previous events | rejected |
//! | the room's current state | soft-failed |
//!
//! Nothing is fetched: what is missing is named, and whoever asks comes again with it. An event's bytes are fixed: after
//! a void record it is judged again.

use std::collections::{BTreeMap, BTreeSet};

use projections::{
    Pdu, View,
    models::{
        events::{self, Class, Head},
        membership,
    },
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName,
    events::{StateEventType, TimelineEventType},
};
use schemas::{
    Draft, Fact, Lsn, Origin,
    facts::{EventPlaced, EventRestated, Placement, Redaction, Verdict, Visibility},
};

use super::{
    Commands, Error, Refusal,
    forks::{Before, Outcome},
    lane::{Job, Step, Tip},
    room::{Room, guards},
};
use crate::rooms::{Built, State, auth, over, redaction, versions, visibility};

/// So many outliers go into one record, so that folding it stays cheap.
const OUTLIERS: usize = 256;

/// What became of an event of another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// It has its place, perhaps for long.
    Placed(Verdict),
    /// It can't be judged without these: previous events without a place, or auth events that are not known.
    Need(BTreeSet<OwnedEventId>),
}

impl Commands {
    /// Takes an event of another server that passed [`crate::rooms::check`].
    ///
    /// # Errors
    /// When the room is not known, or nobody of this server is in it; and when it can't be placed now.
    pub async fn receive(&self, from: &ServerName, event: Built) -> Result<Received, Error> {
        let room = event.pdu.room_id().to_owned();
        // Nobody else's rooms get lanes.
        Room::get(&self.parts().source.view()?, &room)?;
        let job = Receive { room: room.clone(), event };
        self.lanes().run(&room, Origin::Remote { server: from.to_string() }, job).await
    }

    /// Keeps events that others refer to, as outliers: without a place in the room's order. They too have passed
    /// [`crate::rooms::check`]. Says what is needed first: auth events that are neither known nor among them; then nothing
    /// more is kept.
    ///
    /// # Errors
    /// When the room is not known, or they can't be recorded now.
    pub async fn keep_outliers(
        &self,
        from: &ServerName,
        room: &RoomId,
        events: Vec<Built>,
    ) -> Result<BTreeSet<OwnedEventId>, Error> {
        Room::get(&self.parts().source.view()?, room)?;
        let mut events = in_order(events).into_iter();
        loop {
            let events: Vec<_> = events.by_ref().take(OUTLIERS).collect();
            if events.is_empty() {
                return Ok(BTreeSet::new());
            }
            let job = Keep { room: room.to_owned(), events };
            let need = self.lanes().run(room, Origin::Remote { server: from.to_string() }, job).await?;
            if !need.is_empty() {
                return Ok(need);
            }
        }
    }
}

/// The same events, each after its auth events.
fn in_order(events: Vec<Built>) -> Vec<Built> {
    let mut waiting: BTreeMap<OwnedEventId, Built> =
        events.into_iter().map(|event| (event.pdu.id().to_owned(), event)).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(first) = waiting.keys().next().cloned() {
        let mut path = vec![first];
        while let Some(id) = path.last() {
            let auth_events = waiting.get(id).map_or(&[][..], |event| event.pdu.auth_events());
            // An id is a hash over what it refers to, so that the path never comes back to itself.
            match auth_events.iter().find(|id| waiting.contains_key(*id)) {
                Some(before) => path.push(before.clone()),
                None => order.extend(path.pop().and_then(|id| waiting.remove(&id))),
            }
        }
    }
    order
}

/// One event, to be placed.
struct Receive {
    room: OwnedRoomId,
    event: Built,
}

impl Job for Receive {
    type Reply = Received;

    fn decide(&mut self, tip: &Tip) -> Result<Step<Received>, Error> {
        let room = Room::get(&tip.view, &self.room)?;
        let known = events::find(&tip.view, self.event.pdu.id().as_str())?.map(|(_, head)| head);
        if let Some(verdict) = known.as_ref().and_then(verdict_in_place) {
            return Ok(Step::Reply(Received::Placed(verdict)));
        }
        if membership::counts(&tip.view, room.nid)?.joined_local == 0 {
            return Err(Refusal::forbidden("nobody of this server is in the room").into());
        }
        let need = self.missing(&room)?;
        if !need.is_empty() {
            return Ok(Step::Reply(Received::Need(need)));
        }
        let (draft, verdict) = self.place(&room, known.as_ref())?;
        Ok(Step::Barrier(draft, Box::new(move |_| Ok(Received::Placed(verdict)))))
    }

    fn repeated(&mut self, view: &View, _: Lsn) -> Result<Received, Error> {
        let found = events::find(view, self.event.pdu.id().as_str())?;
        let verdict = found.and_then(|(_, head)| verdict_in_place(&head));
        verdict.map(Received::Placed).ok_or_else(|| Error::Internal("an event that was placed has no place".into()))
    }
}

/// What was decided about an event that has a place in its room.
fn verdict_in_place(head: &Head) -> Option<Verdict> {
    head.placed.filter(|placed| placed.class != Class::Outlier).map(|placed| placed.verdict)
}

impl Receive {
    /// What must be there before it can be judged.
    fn missing(&self, room: &Room<'_>) -> Result<BTreeSet<OwnedEventId>, Error> {
        let pdu = &self.event.pdu;
        let mut missing = BTreeSet::new();
        for id in pdu.prev_events() {
            match events::find(room.view, id.as_str())? {
                Some((_, head)) if head.room != room.nid => {
                    return Err(Refusal::bad_json(format!("{id}, before it, is an event of another room")).into());
                }
                Some((_, head)) if verdict_in_place(&head).is_some() => {}
                _ => {
                    missing.insert(id.clone());
                }
            }
        }
        for id in pdu.auth_events() {
            if !is_judged(room.view, id)? {
                missing.insert(id.clone());
            }
        }
        Ok(missing)
    }

    fn place(&self, room: &Room<'_>, known: Option<&Head>) -> Result<(Draft, Verdict), Error> {
        let pdu = &self.event.pdu;
        let before = Before::resolve(room, pdu.prev_events())?;
        let verdict = judge(room, pdu, &before)?;
        let outcome = match verdict {
            Verdict::Accepted => Outcome::of(room, pdu, &before.state)?,
            Verdict::SoftFailed | Verdict::Rejected => Outcome::default(),
        };
        let look = |event_type: &StateEventType, state_key: &str| before.state.pdu(room.view, event_type, state_key);
        let (visibility, redacts) = over(look, |state| (visibility::of(state), redacts(pdu, room, state)))?;
        let mut draft = guards(room, Vec::new())?;
        draft.writes = outcome.writes;
        if known.is_none() {
            draft.facts.push(self.event.learned.clone().into());
        }
        draft.facts.extend(outcome.restated.into_iter().map(Fact::from));
        let (id, class, state_before, current) =
            (pdu.id().to_string(), Placement::Live, Some(before.stated), outcome.current);
        // An outlier was placed as such.
        draft.facts.push(match known.and_then(|head| head.placed) {
            Some(_) => EventRestated { id, class, verdict, state_before, current, visibility }.into(),
            None => {
                let servers = Vec::new();
                EventPlaced { id, class, verdict, state_before, current, visibility, servers, redacts }.into()
            }
        });
        Ok((draft, verdict))
    }
}

/// Whether an event is known and was judged: then the rules may look at it.
fn is_judged(view: &View, id: &EventId) -> Result<bool, Error> {
    Ok(events::find(view, id.as_str())?.is_some_and(|(_, head)| head.placed.is_some()))
}

fn judge(room: &Room<'_>, pdu: &Pdu, before: &Before) -> Result<Verdict, Error> {
    if !is_allowed_by_auth_events(room, pdu, &[])? {
        return Ok(Verdict::Rejected);
    }
    let look = |event_type: &StateEventType, state_key: &str| before.state.pdu(room.view, event_type, state_key);
    if let Err(forbidden) = over(look, |state| auth::allowed_by_state(pdu, room.rules, state))? {
        tracing::debug!(event = %pdu.id(), %forbidden, "rejected by the state before it");
        return Ok(Verdict::Rejected);
    }
    if before.state.as_stored() == Some(&room.current) {
        return Ok(Verdict::Accepted);
    }
    match room.with_state(|state| auth::allowed_by_state(pdu, room.rules, state))? {
        Ok(()) => Ok(Verdict::Accepted),
        Err(forbidden) => {
            tracing::debug!(event = %pdu.id(), %forbidden, "soft-failed by the current state");
            Ok(Verdict::SoftFailed)
        }
    }
}

/// Whether its auth events, which are stored or among `more`, allow an event.
fn is_allowed_by_auth_events(room: &Room<'_>, pdu: &Pdu, more: &[Pdu]) -> Result<bool, Error> {
    if *pdu.event_type() == TimelineEventType::RoomCreate {
        tracing::debug!(event = %pdu.id(), "rejected: the room was created by another event");
        return Ok(false);
    }
    let events = auth_events(room, pdu, more)?;
    let fetch = |id: &EventId| events.iter().find(|event| event.id() == id).cloned();
    match auth::allowed_by_auth_events(pdu, room.rules, fetch) {
        Ok(()) => Ok(true),
        Err(forbidden) => {
            tracing::debug!(event = %pdu.id(), %forbidden, "rejected by its auth events");
            Ok(false)
        }
    }
}

fn auth_events(room: &Room<'_>, pdu: &Pdu, more: &[Pdu]) -> Result<Vec<Pdu>, Error> {
    let create = versions::create_event_id(&room.id, room.rules);
    let mut found = Vec::new();
    for id in pdu.auth_events().iter().chain(&create) {
        match more.iter().find(|event| event.id() == id) {
            Some(event) => found.push(event.clone()),
            None => found.extend(events::pdu_by_id(room.view, id)?),
        }
    }
    Ok(found)
}

/// The effect of a redaction on this state; where the state is no room's, it has none.
fn redacts(pdu: &Pdu, room: &Room<'_>, state: impl State) -> Option<Redaction> {
    redaction::effect(pdu, state, room.rules).ok().flatten()
}

/// Events to be kept as outliers, each after its auth events.
struct Keep {
    room: OwnedRoomId,
    events: Vec<Built>,
}

impl Job for Keep {
    type Reply = BTreeSet<OwnedEventId>;

    fn decide(&mut self, tip: &Tip) -> Result<Step<Self::Reply>, Error> {
        let room = Room::get(&tip.view, &self.room)?;
        let (mut judged, mut need) = (Vec::<Pdu>::new(), BTreeSet::new());
        let (mut learned, mut places): (Vec<Fact>, Vec<Fact>) = Default::default();
        for Built { pdu, learned: bytes } in &self.events {
            if is_judged(&tip.view, pdu.id())? {
                continue;
            }
            for id in pdu.auth_events() {
                if !judged.iter().any(|event| event.id() == id) && !is_judged(&tip.view, id)? {
                    need.insert(id.clone());
                }
            }
            let allowed = is_allowed_by_auth_events(&room, pdu, &judged)?;
            learned.push(bytes.clone().into());
            places.push(outlier(&room, pdu, allowed, &judged)?.into());
            judged.push(pdu.clone().rejected(!allowed));
        }
        if !need.is_empty() || learned.is_empty() {
            return Ok(Step::Reply(need));
        }
        let mut draft = guards(&room, Vec::new())?;
        draft.facts = learned;
        draft.facts.extend(places);
        Ok(Step::Barrier(draft, Box::new(|_| Ok(BTreeSet::new()))))
    }

    fn repeated(&mut self, _: &View, _: Lsn) -> Result<Self::Reply, Error> {
        Ok(BTreeSet::new())
    }
}

/// An outlier has no state before it. What depends on that is taken from its auth events.
fn outlier(room: &Room<'_>, pdu: &Pdu, allowed: bool, more: &[Pdu]) -> Result<EventPlaced, Error> {
    let events = auth_events(room, pdu, more)?;
    let state = |event_type: &StateEventType, state_key: &str| {
        let wanted =
            |event: &&Pdu| event.state_key() == Some(state_key) && StateEventType::from(event.kind()) == *event_type;
        events.iter().find(wanted).cloned()
    };
    Ok(EventPlaced {
        id: pdu.id().to_string(),
        class: Placement::Outlier,
        verdict: if allowed { Verdict::Accepted } else { Verdict::Rejected },
        state_before: None,
        current: Vec::new(),
        visibility: Visibility::Shared,
        servers: Vec::new(),
        redacts: redacts(pdu, room, state),
    })
}
