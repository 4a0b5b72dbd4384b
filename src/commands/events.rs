//! Sending: messages, state and redactions.

use std::sync::Arc;

use projections::{
    View,
    models::{directory, events, membership::Membership, relations, state},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, RoomId, UserId, api::error::ErrorKind, events::StateEventType,
};
use schemas::{Lsn, Read};

use super::{
    Commands, Error, Parts, Refusal, Request, Sender,
    guards::{active, standing},
    lane::{Job, Step, Tip},
    membership, notices,
    room::{NewEvent, Room, compose, not_blocked, now},
};
use crate::rooms::{Prototype, redaction};

/// Who sends, and by which request.
#[derive(Debug, Clone)]
pub struct By {
    /// Who.
    pub sender: Sender,
    /// The request: one with a transaction id is carried out once.
    pub request: Request,
    /// The transaction id, which the sender's device sees again.
    pub transaction: Option<String>,
}

impl From<&Sender> for By {
    fn from(sender: &Sender) -> Self {
        Self { sender: sender.clone(), request: sender.into(), transaction: None }
    }
}

impl Commands {
    /// Sends a message event; the reply is its id. A redaction among them names its target in the content.
    ///
    /// # Errors
    /// When the rules forbid it.
    pub async fn send_message(
        &self,
        by: By,
        room: &RoomId,
        event_type: &str,
        mut content: CanonicalJsonObject,
    ) -> Result<OwnedEventId, Error> {
        let redacts = if event_type == "m.room.redaction" {
            let target = content.remove("redacts").and_then(|target| OwnedEventId::try_from(target.as_str()?).ok());
            Some(target.ok_or_else(|| Refusal::bad_json("`redacts` must be the id of the event to be redacted"))?)
        } else {
            None
        };
        self.send(by, room, Prototype { redacts, ..Prototype::message(event_type, content) }).await
    }

    /// Sets a state event; the reply is the id of the event that says so, an earlier one if it says the same.
    ///
    /// # Errors
    /// When the rules forbid it.
    pub async fn send_state(
        &self,
        by: By,
        room: &RoomId,
        event_type: &str,
        state_key: &str,
        content: CanonicalJsonObject,
    ) -> Result<OwnedEventId, Error> {
        self.send(by, room, Prototype::state(event_type, state_key, content)).await
    }

    /// Redacts an event; the reply is the id of the redaction.
    ///
    /// # Errors
    /// When the rules forbid it, or the event is not there.
    pub async fn redact(
        &self,
        by: By,
        room: &RoomId,
        target: OwnedEventId,
        reason: Option<String>,
    ) -> Result<OwnedEventId, Error> {
        let reason = reason.map(|reason| ("reason".to_owned(), CanonicalJsonValue::String(reason)));
        let content = reason.into_iter().collect();
        let redaction = Prototype { redacts: Some(target), ..Prototype::message("m.room.redaction", content) };
        self.send(by, room, redaction).await
    }

    async fn send(&self, by: By, room: &RoomId, prototype: Prototype) -> Result<OwnedEventId, Error> {
        let By { sender, request, transaction } = by;
        let parts = Arc::clone(self.parts());
        let at = now(&parts);
        let job = Send { parts, room: room.to_owned(), sender, prototype, transaction, at };
        self.lanes().run(room, request, job).await
    }
}

/// One event of a local user.
struct Send {
    parts: Arc<Parts>,
    room: OwnedRoomId,
    sender: Sender,
    prototype: Prototype,
    transaction: Option<String>,
    at: MilliSecondsSinceUnixEpoch,
}

impl Send {
    fn is_message(&self) -> bool {
        self.prototype.state_key.is_none()
    }
}

impl Job for Send {
    type Reply = OwnedEventId;

    fn pipelines(&self) -> bool {
        self.is_message()
    }

    fn decide(&mut self, tip: &Tip) -> Result<Step<OwnedEventId>, Error> {
        let room = Room::of_members(&tip.view, &self.room)?;
        // Whoever is suspended may still take back what they said.
        let sender_reads = if self.redacts_own(&tip.view)? {
            standing(&tip.view, &self.sender)?
        } else {
            active(&tip.view, &self.sender)?
        };
        not_blocked(&room)?;
        if let Some(wait) = self.check_target(&room, tip)? {
            return Ok(wait);
        }
        if let Some(same) = self.same_state(&room)? {
            return Ok(Step::Reply(same));
        }
        self.check_aliases(&room)?;
        let mut prototype = self.prototype.clone();
        let reads = self.check_member(&room, &mut prototype.content)?;
        let device = Some(&self.sender.device).filter(|device| !device.as_str().is_empty());
        let transaction = device.cloned().zip(self.transaction.clone());
        let event = NewEvent { prototype, transaction, sender_reads, at: self.at };
        let mut composed = compose(&self.parts, &room, tip, &self.sender.user, event)?;
        composed.draft.reads.extend(reads);
        let id = composed.id.clone();
        if composed.changes_state {
            return Ok(Step::Barrier(composed.draft, Box::new(move |_| Ok(id))));
        }
        Ok(Step::Message(composed.draft, composed.id, composed.depth, Box::new(move |_| Ok(id))))
    }

    fn repeated(&mut self, view: &View, lsn: Lsn) -> Result<OwnedEventId, Error> {
        sent_by(view, lsn)
    }
}

impl Send {
    fn redacts_own(&self, view: &View) -> Result<bool, Error> {
        let Some(target) = &self.prototype.redacts else { return Ok(false) };
        let found = events::find(view, target.as_str())?;
        Ok(found.is_some_and(|(_, target)| target.sender == *self.sender.user))
    }

    /// A redaction's or an annotation's target must be seen: what is in flight is waited for.
    fn check_target(&self, room: &Room<'_>, tip: &Tip) -> Result<Option<Step<OwnedEventId>>, Error> {
        let relation = self.prototype.content.get("m.relates_to").and_then(CanonicalJsonValue::as_object);
        let related = relation.and_then(|relation| relation.get("event_id")).and_then(CanonicalJsonValue::as_str);
        let Some(target) = self.prototype.redacts.as_deref().map(EventId::as_str).or(related) else { return Ok(None) };
        // The rules say so too, but only after what follows has told strangers what is in the room.
        if room.membership(&self.sender.user)? != Membership::Join {
            return Err(Refusal::forbidden("you are not in this room").into());
        }
        let Some(event) = events::nid(&tip.view, target)? else {
            if tip.before.is_some() {
                return Ok(Some(Step::Drain));
            }
            if self.prototype.redacts.is_some() {
                return Err(Refusal::not_found("the event to be redacted is not known").into());
            }
            return Ok(None);
        };
        if self.prototype.redacts.is_none() {
            return self.check_annotation(tip, relation, event);
        }
        let found = events::head(&tip.view, event)?.filter(|found| found.room == room.nid);
        let author = found.and_then(|found| OwnedUserId::try_from(found.sender).ok());
        let Some(author) = author else {
            return Err(Refusal::not_found("the event to be redacted is in another room").into());
        };
        room.with_state(|state| redaction::may_ask(&self.sender.user, &author, state, room.rules))??;
        Ok(None)
    }

    fn check_annotation(
        &self,
        tip: &Tip,
        relation: Option<&CanonicalJsonObject>,
        target: schemas::Nid,
    ) -> Result<Option<Step<OwnedEventId>>, Error> {
        let field = |name| relation.and_then(|relation| relation.get(name)).and_then(CanonicalJsonValue::as_str);
        let (Some("m.annotation"), Some(key)) = (field("rel_type"), field("key")) else { return Ok(None) };
        if tip.before.is_some() {
            return Ok(Some(Step::Drain));
        }
        let Some(parent) = events::head(&tip.view, target)? else { return Ok(None) };
        if relations::has_annotated(&tip.view, &parent, &self.prototype.kind, key, self.sender.user.as_str())? {
            let message = "you have annotated this event with this key before";
            return Err(Refusal::new(ErrorKind::DuplicateAnnotation, message).into());
        }
        Ok(None)
    }

    /// State that says what is said already is not said again.
    fn same_state(&self, room: &Room<'_>) -> Result<Option<OwnedEventId>, Error> {
        let Some(state_key) = &self.prototype.state_key else { return Ok(None) };
        let event = state::get(room.view, &room.current, &self.prototype.kind, state_key)?;
        let Some(current) = event.map(|event| events::pdu(room.view, event)).transpose()?.flatten() else {
            return Ok(None);
        };
        let content = serde_json::from_str::<CanonicalJsonObject>(current.content().get()).ok();
        let same = *current.sender() == self.sender.user && content.as_ref() == Some(&self.prototype.content);
        Ok(same.then(|| current.id().to_owned()))
    }

    /// A membership may be sent as state, and then rests on what it does when it is asked for by name.
    fn check_member(&self, room: &Room<'_>, content: &mut CanonicalJsonObject) -> Result<Vec<Read>, Error> {
        let ("m.room.member", Some(user)) = (self.prototype.kind.as_str(), &self.prototype.state_key) else {
            return Ok(Vec::new());
        };
        let user = UserId::parse(user.as_str()).map_err(|_| Refusal::invalid(format!("`{user}` is not a user id")))?;
        let leaves = content.get("membership").and_then(CanonicalJsonValue::as_str) == Some("leave");
        if leaves && user == self.sender.user && room.membership(&user)? == Membership::Invite {
            notices::may_refuse(room.view, &user, &room.id)?;
        }
        membership::check(&self.parts, room, &self.sender.user, &user, content)
    }

    /// New aliases of an `m.room.canonical_alias` must point to the room.
    fn check_aliases(&self, room: &Room<'_>) -> Result<(), Error> {
        if self.prototype.kind != "m.room.canonical_alias" {
            return Ok(());
        }
        let current = room.state(&StateEventType::RoomCanonicalAlias, "")?;
        let before = current.and_then(|pdu| serde_json::from_str::<CanonicalJsonObject>(pdu.content().get()).ok());
        let before = before.as_ref().map(aliases_of).unwrap_or_default();
        for alias in aliases_of(&self.prototype.content) {
            if before.contains(&alias) {
                continue;
            }
            if <&ruma::RoomAliasId>::try_from(alias.as_str()).is_err() {
                return Err(Refusal::invalid(format!("`{alias}` is not a room alias")).into());
            }
            let there = directory::alias(room.view, &alias)?;
            if there.is_none_or(|target| target.room != room.id.as_str()) {
                let message = format!("`{alias}` does not point to this room");
                return Err(Refusal::new(ErrorKind::BadAlias, message).into());
            }
        }
        Ok(())
    }
}

fn aliases_of(content: &CanonicalJsonObject) -> Vec<String> {
    let main = content.get("alias").and_then(CanonicalJsonValue::as_str).filter(|alias| !alias.is_empty());
    let others = content.get("alt_aliases").and_then(CanonicalJsonValue::as_array).into_iter().flatten();
    main.into_iter().chain(others.filter_map(CanonicalJsonValue::as_str)).map(str::to_owned).collect()
}

/// The event that a repeated request sent the first time.
pub(super) fn sent_by(view: &View, lsn: Lsn) -> Result<OwnedEventId, Error> {
    match events::learned_by(view, lsn).next().transpose()?.map(|event| OwnedEventId::try_from(event.id)) {
        Some(Ok(id)) => Ok(id),
        _ => Err(Error::Internal("the first record of a repeated request holds no event".into())),
    }
}
