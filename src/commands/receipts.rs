//! How far users have read: receipts and the fully-read marker.

use projections::{
    Position, View,
    models::{
        account_data, events,
        membership::{self, Membership},
        receipts::{self, Receipt},
    },
};
use ruma::{OwnedEventId, OwnedRoomId};
use schemas::{
    Draft, Fact, Nid,
    facts::{AccountDataSet, ReceiptKind, ReceiptSet},
};
use serde::Deserialize;
use serde_json::json;

use super::{Commands, Decision, Error, Refusal, Sender, content, guards};

/// The account data of a room that says how far all of it was read.
pub const FULLY_READ: &str = "m.fully_read";

/// The thread of what is in no thread.
const MAIN: &str = "main";

/// An event may relate to a thread through so many others.
const MAX_RELATIONS: usize = 3;

/// What is said of an event by who has read it.
#[derive(Clone, Debug)]
pub enum Mark {
    /// It was read, in the whole room or in one thread.
    Receipt {
        /// Public or private.
        kind: ReceiptKind,
        /// None is unthreaded; `main` or the event id of a thread's root.
        thread: Option<String>,
    },
    /// All of the room up to it was read.
    FullyRead,
}

/// Moves the sender's marks in a room they are in to events of it. A mark never moves back.
///
/// # Errors
/// `M_FORBIDDEN` for a room the sender is not in, `M_NOT_FOUND` for an event that nobody sees there, `M_INVALID_PARAM`
/// for one that is not of the thread, and those of [`guards::standing`].
pub async fn mark(
    commands: &Commands,
    sender: &Sender,
    room: OwnedRoomId,
    marks: Vec<(Mark, OwnedEventId)>,
) -> Result<(), Error> {
    let (by, at_ms) = (sender.clone(), commands.parts().now_ms());
    commands
        .execute(sender, move |view| {
            let reads = guards::standing(view, &by)?;
            let reader = Reader { view, user: by.user.as_str(), room: room.as_str(), nid: joined(view, &by, &room)? };
            let mut draft = Draft { reads, ..Draft::default() };
            for (mark, event) in &marks {
                draft.facts.extend(reader.fact(mark, event.as_str(), at_ms)?);
            }
            if draft.facts.is_empty() { Ok(Decision::Reply(())) } else { Ok(Decision::append_then(draft, ())) }
        })
        .await
}

/// The short id of a room that a user is in.
///
/// # Errors
/// `M_FORBIDDEN` for a room they are not in.
pub fn joined(view: &View, who: &Sender, room: &ruma::RoomId) -> Result<Nid, Error> {
    if let Some(room) = events::room_nid(view, room.as_str())?
        && membership::member(view, room, who.user.as_str())?.is_some_and(|m| m.membership == Membership::Join)
    {
        return Ok(room);
    }
    Err(Refusal::forbidden("you are not in this room").into())
}

struct Reader<'a> {
    view: &'a View,
    user: &'a str,
    room: &'a str,
    nid: Nid,
}

impl Reader<'_> {
    /// What is to be recorded; nothing where the mark is there already, or further on.
    fn fact(&self, mark: &Mark, event: &str, at_ms: u64) -> Result<Option<Fact>, Error> {
        let unknown = || Refusal::not_found("there is no such event in this room");
        let position = self.position(event)?.ok_or_else(unknown)?;
        match mark {
            Mark::Receipt { kind, thread } => {
                if let Some(thread) = thread {
                    self.check_thread(event, thread)?;
                }
                let is_it = |before: &Receipt| before.kind == *kind && before.thread == *thread;
                let before = receipts::of_user(self.view, self.nid, self.user)?;
                if before.iter().any(|before| is_it(before) && before.position >= position) {
                    return Ok(None);
                }
                let (user, room) = (self.user.to_owned(), self.room.to_owned());
                let fact =
                    ReceiptSet { user, room, kind: *kind, thread: thread.clone(), event: event.to_owned(), at_ms };
                Ok(Some(fact.into()))
            }
            Mark::FullyRead if self.fully_read()?.is_some_and(|before| before >= position) => Ok(None),
            Mark::FullyRead => {
                let content = content::written(&json!({ "event_id": event }))?;
                let (user, room) = (self.user.to_owned(), Some(self.room.to_owned()));
                Ok(Some(AccountDataSet { user, room, event_type: FULLY_READ.to_owned(), content }.into()))
            }
        }
    }

    /// Where an event stands in the room, if clients see it there.
    fn position(&self, event: &str) -> Result<Option<Position>, Error> {
        let head = events::find(self.view, event)?.map(|(_, head)| head).filter(|head| head.room == self.nid);
        Ok(head.and_then(|head| head.shown_at()))
    }

    fn fully_read(&self) -> Result<Option<Position>, Error> {
        #[derive(Deserialize)]
        struct Content {
            event_id: String,
        }
        let content = account_data::get(self.view, self.user, Some(self.room), FULLY_READ)?;
        match content.and_then(|content| content.read::<Content>().ok()) {
            Some(content) => self.position(&content.event_id),
            None => Ok(None),
        }
    }

    /// The root of a thread may be marked in its thread and in the main timeline (client-server API, "Threaded read
    /// receipts").
    fn check_thread(&self, event: &str, thread: &str) -> Result<(), Error> {
        if event == thread {
            return Ok(());
        }
        let of_event = self.thread_of(event)?;
        if of_event.as_deref().unwrap_or(MAIN) == thread {
            return Ok(());
        }
        Err(Refusal::invalid(format!("the event is not related to the thread {thread}")).into())
    }

    /// The root of the thread that an event is in, by itself or by what it relates to.
    fn thread_of(&self, event: &str) -> Result<Option<String>, Error> {
        let mut event = event.to_owned();
        for _ in 0..MAX_RELATIONS {
            let Some((nid, _)) = events::find(self.view, &event)?.filter(|(_, head)| head.room == self.nid) else {
                break;
            };
            let content = events::pdu(self.view, nid)?.and_then(|pdu| pdu.content_as::<Related>());
            match content.and_then(|content| content.relates_to) {
                Some(Relation { rel_type: Some(kind), event_id: Some(root) }) if kind == "m.thread" => {
                    return Ok(Some(root));
                }
                Some(Relation { rel_type: Some(_), event_id: Some(other) }) => event = other,
                _ => break,
            }
        }
        Ok(None)
    }
}

#[derive(Deserialize)]
struct Related {
    #[serde(rename = "m.relates_to")]
    relates_to: Option<Relation>,
}

#[derive(Deserialize)]
struct Relation {
    rel_type: Option<String>,
    event_id: Option<String>,
}
