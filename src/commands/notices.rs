//! Notices: what the server itself tells one of its users, in a room that it makes for that (client-server API, "Server
//! Notices").
//!
//! Whoever made a user's room wrote a key of the user's: so its record, and with that the room, can be found by the key,
//! and of two who would make one at once, one does.

use projections::{
    View,
    models::{
        accounts, admission, events,
        membership::{self, Membership},
        rooms,
    },
};
use ruma::{
    CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    api::{
        client::room::create_room::v3::{self as create_room, RoomPreset},
        error::ErrorKind,
    },
    serde::Raw,
};
use schemas::{
    Draft, Json, Key, RecordId, Tag,
    facts::{TagSet, UserKind},
};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    Commands, Error, Refusal, Request, Sender,
    accounts::{NewAccount, register},
    events::{By, sent_by},
    membership::Move,
    profiles::{self, AVATAR_URL, DISPLAY_NAME},
    rooms::Along,
    unchanged,
};
use crate::config::ServerNotices;

/// How the room is tagged for the user.
const TAG: &str = "m.server_notice";

/// What is to be told, and to whom.
#[derive(Clone, Debug)]
pub struct Notice {
    /// A user of this server.
    pub to: OwnedUserId,
    /// The event's type.
    pub event_type: String,
    /// There is one if it is to be a state event.
    pub state_key: Option<String>,
    /// The event's content.
    pub content: CanonicalJsonObject,
}

/// Notices as an administrator sends them.
#[derive(Clone, Copy)]
pub struct Notices<'a> {
    /// What records them.
    pub commands: &'a Commands,
    /// Who sends them, and what their rooms are like.
    pub settings: &'a ServerNotices,
    /// The version of new rooms.
    pub version: &'a RoomVersionId,
    /// Whose wish it is, as the log names them.
    pub administrator: &'a str,
}

impl Notices<'_> {
    /// Sends a notice, and makes what it needs: the account that it comes from, the user's room, the invitation. The
    /// record of the notice has an id if the request may be repeated.
    ///
    /// # Errors
    /// `M_UNKNOWN` where there are no notices, the user is another server's, or the account that notices come from is a
    /// person's; `M_NOT_FOUND` where there is no such user; what the rules of rooms refuse.
    pub async fn send(self, notice: Notice, id: Option<RecordId>) -> Result<OwnedEventId, Error> {
        let from = self.sender(&notice.to)?;
        let view = self.commands.parts().source.view()?;
        if let Some(lsn) = id.map(|id| admission::applied(&view, &id)).transpose()?.flatten() {
            return sent_by(&view, lsn);
        }
        drop(view);
        self.open_account(&from).await?;
        let room = self.room(&from, &notice.to).await?;
        let request = Request { id, ..(&from).into() };
        let by = By { sender: from, request, transaction: None };
        let Notice { event_type, state_key, content, .. } = notice;
        match state_key {
            Some(state_key) => self.commands.send_state(by, &room, &event_type, &state_key, content).await,
            None => self.commands.send_message(by, &room, &event_type, content).await,
        }
    }

    /// Whom notices come from, if this user can get any.
    fn sender(self, to: &UserId) -> Result<Sender, Error> {
        let server = &self.commands.parts().server_name;
        let refused = |why: &str| Err(Refusal::new(ErrorKind::Unknown, why).into());
        let Some(localpart) = &self.settings.localpart else {
            return refused("Server notices are not enabled on this server");
        };
        if to.server_name() != server {
            return refused("Server notices can only be sent to local users");
        }
        if accounts::get(&self.commands.parts().source.view()?, to.as_str())?.is_none() {
            return Err(Refusal::not_found("User not found").into());
        }
        let from = UserId::parse_with_server_name(localpart.as_str(), server)
            .map_err(|error| Error::Internal(format!("server_notices.localpart makes no user id: {error}")))?;
        Ok(Sender::in_stead_of(from, self.administrator))
    }

    /// Makes the account, if it isn't there, and gives it its name and picture.
    async fn open_account(self, from: &Sender) -> Result<(), Error> {
        let view = self.commands.parts().source.view()?;
        let user = &from.user;
        match accounts::get(&view, user.as_str())? {
            None => self.begin_account(from).await?,
            Some(account) if !account.deactivated && accounts::password(&view, user.as_str())?.is_none() => {}
            Some(_) => {
                let why = format!("{user} is somebody's account, or has ended: set another server_notices.localpart");
                return Err(Refusal::new(ErrorKind::Unknown, why).into());
            }
        }
        drop(view);
        for (field, value) in [(DISPLAY_NAME, &self.settings.display_name), (AVATAR_URL, &self.settings.avatar_url)] {
            let value = value.as_ref().map(|value| Json::from(json!(value).to_string()));
            profiles::set(self.commands, from, field, value).await?;
        }
        Ok(())
    }

    async fn begin_account(self, from: &Sender) -> Result<(), Error> {
        let account = NewAccount {
            user: from.user.clone(),
            password: None,
            admin: false,
            kind: UserKind::Regular,
            registration_token: None,
            display_name: None,
            user_type: None,
            expires_at_ms: None,
        };
        match register(self.commands, from.origin(), account, None).await {
            // Somebody else has just sent the first notice, too.
            Err(Error::Refused(refusal)) if refusal.kind == ErrorKind::UserInUse => Ok(()),
            begun => begun,
        }
    }

    /// The user's room, as it is to be.
    async fn room(self, from: &Sender, to: &UserId) -> Result<OwnedRoomId, Error> {
        let view = self.commands.parts().source.view()?;
        let room = match usable_room(&view, &from.user, to)? {
            Some(room) => room,
            None => self.new_room(from, to).await?,
        };
        let view = self.commands.parts().source.view()?;
        let Some(nid) = events::room_nid(&view, room.as_str())? else { return Ok(room) };
        let now = rooms::settings(&view, nid)?;
        let member = membership::member(&view, nid, to.as_str())?;
        drop(view);
        for (event_type, field, now, wanted) in [
            ("m.room.name", "name", now.name, &self.settings.room_name),
            ("m.room.avatar", "url", now.avatar, &self.settings.room_avatar_url),
            ("m.room.topic", "topic", now.topic, &self.settings.room_topic),
        ] {
            if now.as_ref().filter(|now| !now.is_empty()) != wanted.as_ref() {
                let value = wanted.clone().unwrap_or_default();
                let content = CanonicalJsonObject::from([(field.to_owned(), value.into())]);
                self.commands.send_state(By::from(from), &room, event_type, "", content).await?;
            }
        }
        if self.settings.auto_join && member.is_some_and(|member| member.membership == Membership::Invite) {
            let guest = Sender::in_stead_of(to.to_owned(), self.administrator);
            self.commands.change_membership(guest, &room, to.to_owned(), Move::Join, None).await?;
        }
        Ok(room)
    }

    async fn new_room(self, from: &Sender, to: &UserId) -> Result<OwnedRoomId, Error> {
        let raw = |value: Value| to_raw_value(&value).map_err(|error| Error::Internal(error.to_string()));
        let mut request = create_room::Request::new();
        request.preset = Some(RoomPreset::PrivateChat);
        request.invite = vec![to.to_owned()];
        request.name = self.settings.room_name.clone();
        request.topic = self.settings.room_topic.clone();
        // The user only reads.
        request.power_level_content_override = Some(Raw::from_json(raw(json!({ "users_default": -10 }))?));
        if let Some(url) = &self.settings.room_avatar_url {
            let avatar = json!({ "type": "m.room.avatar", "state_key": "", "content": { "url": url } });
            request.initial_state = vec![Raw::from_json(raw(avatar)?)];
        }
        let along = NoticeRoom { from: from.user.clone(), to: to.to_owned() };
        self.commands.create_room_by(from.into(), from.clone(), request, self.version.clone(), along).await
    }
}

/// What makes a new room a user's room for notices.
struct NoticeRoom {
    from: OwnedUserId,
    to: OwnedUserId,
}

impl Along for NoticeRoom {
    fn instead(&self, view: &View) -> Result<Option<OwnedRoomId>, Error> {
        usable_room(view, &self.from, &self.to)
    }

    fn add(&self, view: &View, room: &RoomId, draft: &mut Draft) -> Result<(), Error> {
        let (user, room, tag) = (self.to.to_string(), room.to_string(), TAG.to_owned());
        draft.reads.push(unchanged(view, key(&self.to))?);
        draft.writes.push(key(&self.to));
        draft.facts.push(TagSet { user, room, tag, content: Some("{}".to_owned().into()) }.into());
        Ok(())
    }
}

fn key(user: &UserId) -> Key {
    Key::new(Tag::NoticeRoom, user.as_str())
}

/// The room that was made last for notices to a user, if it is there still.
fn room_of(view: &View, user: &UserId) -> Result<Option<(schemas::Nid, OwnedRoomId)>, Error> {
    let Some((lsn, _)) = admission::written(view, &key(user))? else { return Ok(None) };
    let Some(first) = events::learned_by(view, lsn).next().transpose()? else { return Ok(None) };
    let room = events::room(view, first.room)?.and_then(|room| OwnedRoomId::try_from(room.id).ok());
    Ok(room.map(|room| (first.room, room)))
}

/// The user's room, if both are in it, or the user may come in.
fn usable_room(view: &View, from: &UserId, to: &UserId) -> Result<Option<OwnedRoomId>, Error> {
    let Some((nid, room)) = room_of(view, to)? else { return Ok(None) };
    let member = |user: &UserId| membership::member(view, nid, user.as_str());
    let is_in = member(from)?.is_some_and(|member| member.membership == Membership::Join);
    let reached = member(to)?.is_some_and(|m| matches!(m.membership, Membership::Join | Membership::Invite));
    Ok((is_in && reached).then_some(room))
}

/// Nobody refuses to be told.
///
/// # Errors
/// `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM` where the room is the user's for notices.
pub(super) fn may_refuse(view: &View, user: &UserId, room: &RoomId) -> Result<(), Error> {
    if room_of(view, user)?.is_some_and(|(_, notices)| notices == room) {
        let message = "this is how the server tells you something: come in; you can leave the room then";
        return Err(Refusal::new(ErrorKind::CannotLeaveServerNoticeRoom, message).into());
    }
    Ok(())
}
