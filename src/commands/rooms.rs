//! Creating rooms: one record with all their first events.

use std::sync::Arc;

use projections::{
    Pdu, View,
    models::{accounts, events, profiles},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedRoomAliasId, OwnedRoomId, RoomId, RoomVersionId, UInt, UserId,
    api::{
        client::room::{Visibility as ListVisibility, create_room::v3 as create_room},
        error::ErrorKind,
    },
    events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};
use schemas::{
    Draft, Fact, Key, Lsn, Read, Tag,
    facts::{EventPlaced, Placement, StateBase, StateBefore, StateChange, Verdict, Visibility},
};

use super::{
    Commands, Decision, Error, Parts, Refusal, Request, Sender,
    directory::{claim_alias, publish},
    guards::{active, user_status},
    room::now,
    unchanged,
};
use crate::{
    clock::Random,
    rooms::{
        Builder,
        create::{self, Begun, CreateError, Founding, Profile},
        versions, visibility,
    },
};

/// With more invitations and initial state than this, no room's record can be folded cheaply enough: such a request is
/// refused before its events are signed.
const MAX_FIRST_EVENTS: usize = 512;

/// What is decided together with a new room.
pub(super) trait Along: Send + 'static {
    /// A room that makes the new one needless.
    fn instead(&self, _: &View) -> Result<Option<OwnedRoomId>, Error> {
        Ok(None)
    }

    /// Adds to the room's record.
    fn add(&self, _: &View, _: &RoomId, _: &mut Draft) -> Result<(), Error> {
        Ok(())
    }
}

/// Nothing.
impl Along for () {}

impl Commands {
    /// Creates a room, of a version if the request names none; the reply is its id.
    ///
    /// # Errors
    /// When the request makes no sense, its alias is taken, or the account may not create rooms.
    pub async fn create_room(
        &self,
        sender: Sender,
        request: create_room::Request,
        default_version: RoomVersionId,
    ) -> Result<OwnedRoomId, Error> {
        self.create_room_by(Request::from(&sender), sender, request, default_version, ()).await
    }

    /// Like [`Commands::create_room`], with something else that is decided along with it; of what is done once, a repeat
    /// gives the room of the first time.
    pub(super) async fn create_room_by(
        &self,
        by: Request,
        sender: Sender,
        request: create_room::Request,
        default_version: RoomVersionId,
        along: impl Along,
    ) -> Result<OwnedRoomId, Error> {
        if request.invite.len() + request.initial_state.len() > MAX_FIRST_EVENTS {
            return Err(Refusal::too_large("so many events can't be recorded at once: invite some people later").into());
        }
        let parts = Arc::clone(self.parts());
        let localpart = parts.random.alphanumeric(18);
        let random_id = RoomId::parse(format!("!{localpart}:{}", parts.server_name))
            .map_err(|error| Error::Internal(format!("a room id of this server can't be made: {error}")))?;
        let version = request.room_version.clone().unwrap_or(default_version);
        let mut at = now(&parts);
        let decide = move |view: &View| {
            if let Some(room) = along.instead(view)? {
                return Ok(Decision::Reply(room));
            }
            let mut reads = active(view, &sender)?;
            for invited in &request.invite {
                reads.extend(check_invitee(&parts, view, invited)?);
            }
            let alias = alias_of(&parts, &request)?;
            let rules = rules_of_new(&version)?;
            let founding = Founding { creator: &sender.user, version: &version, rules, alias: alias.as_deref() };
            let (id, begun) = loop {
                let begun = begin(&parts, view, &request, founding, (&random_id, at))?;
                let id = begun.events.first().map(|event| event.pdu.room_id().to_owned());
                let id = id.ok_or_else(|| Error::Internal("a room without events".into()))?;
                if events::room_nid(view, id.as_str())?.is_none() {
                    break (id, begun);
                }
                // The id may be a hash of who creates what and when: somebody has asked for the same in the same millisecond.
                at = soon_after(at, &*parts.random);
            };
            let mut draft = draft(view, &id, begun, reads)?;
            if let Some(alias) = &alias {
                claim_alias(&parts, view, alias, &id, &sender, &mut draft)?;
            }
            if request.visibility == ListVisibility::Public {
                publish(view, &id, true, &mut draft)?;
            }
            along.add(view, &id, &mut draft)?;
            Ok(Decision::append_then(draft, id))
        };
        self.execute_once(by, decide, made_by).await
    }
}

/// The room that a record began.
fn made_by(view: &View, lsn: Lsn) -> Result<OwnedRoomId, Error> {
    let first = events::learned_by(view, lsn).next().transpose()?;
    let room = first.map(|event| events::room(view, event.room)).transpose()?.flatten();
    let room = room.and_then(|room| OwnedRoomId::try_from(room.id).ok());
    room.ok_or_else(|| Refusal::not_found("the room that was made has been taken away since").into())
}

/// The rules of a room that begins now.
fn rules_of_new(version: &RoomVersionId) -> Result<&'static RoomVersionRules, Refusal> {
    let unsupported = |why: String| Refusal::new(ErrorKind::UnsupportedRoomVersion, why);
    let rules = versions::rules(version).map_err(|error| unsupported(error.to_string()))?;
    if versions::ADVERTISED.contains(version) {
        return Ok(rules);
    }
    Err(unsupported(format!("no rooms of version {version} are created here: it is too old")))
}

fn begin(
    parts: &Parts,
    view: &View,
    request: &create_room::Request,
    founding: Founding<'_>,
    (random_id, at): (&RoomId, MilliSecondsSinceUnixEpoch),
) -> Result<Begun, Error> {
    let (creator, rules) = (founding.creator, founding.rules);
    let members = request.invite.iter().map(|user| &**user).chain([creator]);
    let profiles = members.map(|user| Ok((user, profile(view, user)?))).collect::<Result<Vec<_>, Error>>()?;
    let of = |user: &UserId| {
        let found = profiles.iter().find(|(member, _)| *member == user);
        found.map_or_else(Profile::default, |(_, profile)| profile.clone())
    };
    let prototypes = create::prototypes(request, founding, of)?;
    let builder = Builder { rules, key: &parts.key };
    let room_id = (!rules.authorization.room_create_event_id_as_room_id).then_some(random_id);
    Ok(create::begin(builder, prototypes, creator, room_id, at)?)
}

/// Some moment of the next second.
fn soon_after(at: MilliSecondsSinceUnixEpoch, random: &dyn Random) -> MilliSecondsSinceUnixEpoch {
    let later = 1 + u16::from_le_bytes(random.bytes()) % 1_000;
    MilliSecondsSinceUnixEpoch(at.0.saturating_add(UInt::from(later)))
}

fn profile(view: &View, user: &UserId) -> Result<Profile, Error> {
    let field = |name| profiles::field(view, user.as_str(), name);
    Ok(Profile {
        display_name: field("displayname")?.and_then(|value| value.read().ok()),
        avatar: field("avatar_url")?.and_then(|value| value.read().ok()),
    })
}

impl From<CreateError> for Error {
    fn from(error: CreateError) -> Self {
        let kind = match error {
            CreateError::Malformed(_) => ErrorKind::BadJson,
            CreateError::InvalidState(_) => ErrorKind::InvalidRoomState,
            CreateError::TooLarge(_) => ErrorKind::TooLarge,
            CreateError::ThirdPartyInvite => ErrorKind::ThreepidDenied,
        };
        Refusal::new(kind, error.to_string()).into()
    }
}

/// Only users of this server who are there can be invited. Says on what that rests.
pub(super) fn check_invitee(parts: &Parts, view: &View, invited: &UserId) -> Result<[Read; 2], Error> {
    if invited.server_name() != parts.server_name {
        let message = format!("{invited} can't be invited: this server does not federate");
        return Err(Refusal::forbidden(message).into());
    }
    match accounts::get(view, invited.as_str())? {
        Some(account) if !account.deactivated => Ok([
            unchanged(view, user_status(invited.as_str()))?,
            unchanged(view, Key::new(Tag::InviteRules, invited.as_str()))?,
        ]),
        _ => Err(Refusal::not_found(format!("there is no user {invited} on this server")).into()),
    }
}

fn alias_of(parts: &Parts, request: &create_room::Request) -> Result<Option<OwnedRoomAliasId>, Error> {
    let Some(name) = &request.room_alias_name else { return Ok(None) };
    let valid = !name.is_empty() && !name.contains([':', '\0']) && !name.chars().any(char::is_whitespace);
    match OwnedRoomAliasId::try_from(format!("#{name}:{}", parts.server_name)) {
        Ok(alias) if valid => Ok(Some(alias)),
        _ => Err(Refusal::invalid("room_alias_name is not the local part of a room alias").into()),
    }
}

/// The record that begins a room: all bytes, then all places, each on the state after the one before.
fn draft(view: &View, id: &RoomId, begun: Begun, sender_reads: Vec<Read>) -> Result<Draft, Error> {
    let room = Key::new(Tag::RoomState, id.as_str());
    let mut draft = Draft { reads: sender_reads, writes: vec![room], facts: Vec::new() };
    draft.reads.push(unchanged(view, room)?);
    let (mut places, mut seen, mut last): (Vec<Fact>, _, Option<Pdu>) = (Vec::new(), Visibility::Shared, None);
    for built in begun.events {
        let base = last.map_or(StateBase::Empty, |last| StateBase::After(last.id().to_string()));
        places.push(placed(&built.pdu, base, seen).into());
        if let (TimelineEventType::RoomMember, Some(user)) = (built.pdu.event_type(), built.pdu.state_key()) {
            draft.writes.push(Key::pair(Tag::Membership, id.as_str(), user));
        }
        if *built.pdu.event_type() == TimelineEventType::RoomHistoryVisibility {
            seen = visibility::set_by(&built.pdu);
        }
        draft.facts.push(built.learned.into());
        last = Some(built.pdu);
    }
    draft.facts.extend(places);
    Ok(draft)
}

fn placed(pdu: &Pdu, base: StateBase, visibility: Visibility) -> EventPlaced {
    let change = pdu.state_key().map(|state_key| StateChange {
        event_type: pdu.kind().to_owned(),
        state_key: state_key.to_owned(),
        event: Some(pdu.id().to_string()),
    });
    EventPlaced {
        id: pdu.id().to_string(),
        class: Placement::Live,
        verdict: Verdict::Accepted,
        state_before: Some(StateBefore { base, delta: Vec::new() }),
        current: change.into_iter().collect(),
        visibility,
        servers: Vec::new(),
        redacts: None,
    }
}
