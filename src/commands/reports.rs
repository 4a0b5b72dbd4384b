//! Reports to the server's administrators.

use projections::{
    View,
    models::{accounts, events, reports},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use schemas::{
    Draft, Fact, Origin,
    facts::{EventReported, ReportKind, ReportRemoved, RoomReported, UserReported},
};

use super::{Commands, Decision, Error, Refusal, Sender, guards};

/// The words of a report have at most so many characters.
const MAX_REASON_CHARS: usize = 1_000;

/// Reports an event, which the sender must be able to see: that is for who asks to find out.
///
/// # Errors
/// `M_BAD_JSON` for too many words, `M_NOT_FOUND` for an event that is not there, and those of [`guards::standing`].
pub async fn event(
    commands: &Commands,
    sender: &Sender,
    (room, event): (OwnedRoomId, OwnedEventId),
    reason: Option<String>,
    score: Option<i64>,
) -> Result<(), Error> {
    check_reason(reason.as_deref().unwrap_or_default())?;
    let user = sender.user.to_string();
    let decide = move |view: &View| {
        let found = events::find(view, event.as_str())?;
        let (_, head) = found.ok_or_else(|| Refusal::not_found("there is no such event"))?;
        let (user, room, event, reason) = (user.clone(), room.to_string(), event.to_string(), reason.clone());
        Ok(Some(EventReported { user, room, event, sender: head.sender, reason, score }.into()))
    };
    file(commands, sender, decide).await
}

/// Reports a room of which the server knows something; the sender need not be in it.
///
/// # Errors
/// `M_BAD_JSON` for too many words, `M_NOT_FOUND` for a room that is not known, and those of [`guards::standing`].
pub async fn room(commands: &Commands, sender: &Sender, room: OwnedRoomId, reason: String) -> Result<(), Error> {
    check_reason(&reason)?;
    let fact = RoomReported { user: sender.user.to_string(), room: room.to_string(), reason };
    let decide = move |view: &View| {
        events::room_nid(view, &fact.room)?.ok_or_else(|| Refusal::not_found("the server knows no such room"))?;
        Ok(Some(fact.clone().into()))
    };
    file(commands, sender, decide).await
}

/// Reports a user. Of one who isn't this server's, or isn't there, nothing is kept; the sender doesn't learn which.
///
/// # Errors
/// `M_BAD_JSON` for too many words, and those of [`guards::standing`].
pub async fn user(commands: &Commands, sender: &Sender, target: OwnedUserId, reason: String) -> Result<(), Error> {
    check_reason(&reason)?;
    let fact = UserReported { user: sender.user.to_string(), target: target.to_string(), reason };
    let decide = move |view: &View| Ok(accounts::get(view, &fact.target)?.map(|_| fact.clone().into()));
    file(commands, sender, decide).await
}

/// Records a report, if there is one to record.
async fn file<F>(commands: &Commands, sender: &Sender, mut report: F) -> Result<(), Error>
where
    F: FnMut(&View) -> Result<Option<Fact>, Error> + Send + 'static,
{
    let by = sender.clone();
    let decide = move |view: &View| {
        let reads = guards::standing(view, &by)?;
        Ok(match report(view)? {
            Some(fact) => Decision::append_then(Draft { reads, facts: vec![fact], ..Draft::default() }, ()),
            None => Decision::Reply(()),
        })
    };
    commands.execute(sender, decide).await
}

/// Removes a report; says whether it was there.
///
/// # Errors
/// When the log can't be written.
pub async fn remove(commands: &Commands, origin: Origin, kind: ReportKind, number: u64) -> Result<bool, Error> {
    let decide = move |view: &View| {
        if reports::get(view, kind, number)?.is_none() {
            return Ok(Decision::Reply(false));
        }
        let facts = vec![ReportRemoved { kind, number }.into()];
        Ok(Decision::append_then(Draft { facts, ..Draft::default() }, true))
    };
    commands.execute(origin, decide).await
}

fn check_reason(reason: &str) -> Result<(), Refusal> {
    if reason.chars().count() > MAX_REASON_CHARS {
        return Err(Refusal::bad_json(format!("a reason has at most {MAX_REASON_CHARS} characters")));
    }
    Ok(())
}
