//! What a user has not read yet, counted from the tables.

use std::collections::BTreeMap;

use ruma::{
    RoomId, UserId,
    push::{FlattenedJson, Ruleset},
};
use schemas::{Lsn, Nid};
use serde::de::DeserializeOwned;

use super::{
    Class, HEADS, Head, LAST_MENTION, LAST_THREAD, MAIN, MENTIONS, OWN, REDACTED, THREADS, TOTALS, Totals, lane_key,
    lane_of,
    rules::{Judge, Verdict, flatten},
    user_key,
};
use crate::{
    Position, Range, StoreError,
    keys::{KeyBuf, KeyReader},
    models::{
        events,
        membership::{Member, Membership},
        receipts::Receipt,
        timeline,
    },
    read::{Read, Table, decode, malformed_key, row, rows},
};

/// At most so many threads are counted, the ones with the latest events.
const MAX_THREADS: usize = 200;
/// For a user with rules for words, senders and the like, so many events are judged one by one, from the latest back;
/// those before them count by their class.
const MAX_JUDGED: usize = 200;
/// At most so many mentions, and so many redacted events, are counted in a lane.
const MAX_EXCEPTIONS: usize = 1_000;

/// Unread events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that notify.
    pub notifications: u64,
    /// Those of them that are highlighted.
    pub highlights: u64,
}

impl Counts {
    fn add(&mut self, verdict: Verdict, times: u64) {
        self.notifications += if verdict.notify { times } else { 0 };
        self.highlights += if verdict.highlight { times } else { 0 };
    }
}

/// What a user has not read in a room (client-server API, "Receiving notifications", "Threading").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// In no thread.
    pub main: Counts,
    /// In threads, by the event ids of their roots; only those with anything.
    pub threads: BTreeMap<String, Counts>,
}

impl Unread {
    /// For clients that don't know threads.
    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = self.main;
        for counts in self.threads.values() {
            total.notifications += counts.notifications;
            total.highlights += counts.highlights;
        }
        total
    }
}

/// A user in a room, and what was read of them there already.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// Who.
    pub user: &'a UserId,
    /// Their push rules, if they changed any.
    pub rules: Option<&'a Ruleset>,
    /// What they are to the room.
    pub member: &'a Member,
    /// Their receipts there, all of them.
    pub receipts: &'a [Receipt],
}

/// How far a user has read.
struct Reading<'a> {
    read: &'a dyn Read,
    room: Nid,
    user: &'a str,
    /// By receipts that are for no thread, and by joining.
    all: Position,
    /// By receipts for threads.
    threads: BTreeMap<String, Position>,
}

impl<'a> Reading<'a> {
    fn of(read: &'a dyn Read, room: Nid, reader: &Reader<'a>) -> Self {
        let all = Position::live(reader.member.since);
        let mut reading = Self { read, room, user: reader.user.as_str(), all, threads: BTreeMap::new() };
        for receipt in reader.receipts {
            let furthest = match &receipt.thread {
                None => &mut reading.all,
                Some(thread) if thread == "main" => reading.threads.entry(MAIN.to_owned()).or_default(),
                Some(thread) => reading.threads.entry(thread.clone()).or_default(),
            };
            *furthest = receipt.position.max(*furthest);
        }
        reading
    }

    /// How far in a lane; the user's own events count as read, with what is before them.
    fn in_lane(&self, lane: &str) -> Result<Position, StoreError> {
        let own: Option<Position> = row(self.read, OWN, user_key(self.room, self.user, lane))?;
        let receipt = self.threads.get(lane).copied().unwrap_or_default();
        Ok(self.all.max(receipt).max(own.unwrap_or_default()))
    }

    /// Threads with events that were not read by what counts for all of them.
    fn threads(&self) -> Result<Vec<String>, StoreError> {
        let mut threads = Vec::new();
        if row::<Position>(self.read, LAST_THREAD, self.room.to_bytes())?.is_none_or(|last| last <= self.all) {
            return Ok(threads);
        }
        let after = Range::prefix_from(&self.room.to_bytes(), &just_after(self.all));
        for row in self.read.scan(THREADS, after.rev()).take(MAX_THREADS) {
            let (key, _) = row?;
            let thread = key.get(Nid::LEN + Position::LEN..).and_then(|rest| KeyReader::new(rest).str());
            threads.push(thread.ok_or_else(|| malformed_key(THREADS))?);
        }
        Ok(threads)
    }
}

/// The first key after that of a position, where nothing or only more follows it.
fn just_after(position: Position) -> Vec<u8> {
    let mut key = position.to_bytes().to_vec();
    key.push(0xff);
    key
}

/// What a user has not read in a room; nothing for who is not in it.
///
/// # Errors
/// When the store fails.
pub fn unread(read: &dyn Read, room: Nid, id: &RoomId, reader: &Reader<'_>) -> Result<Unread, StoreError> {
    if reader.member.membership != Membership::Join {
        return Ok(Unread::default());
    }
    let reading = Reading::of(read, room, reader);
    let mut lanes = reading.threads()?;
    lanes.push(MAIN.to_owned());
    let mut spans = Vec::with_capacity(lanes.len());
    for lane in lanes {
        let after = reading.in_lane(&lane)?;
        let head = row::<Head>(read, HEADS, lane_key(room, &lane))?.unwrap_or_default();
        if head.last > after {
            spans.push(Span { lane, head, after, until: None });
        }
    }
    let mut by_lane = BTreeMap::new();
    if !spans.is_empty() {
        let mut judge = Judge::new(reader.rules, id.to_owned(), reader.user.to_owned());
        if judge.is_particular() {
            judge.prepare(read, room)?;
            by_lane = judge_latest(&reading, &judge, &mut spans)?;
        }
        for span in spans {
            count(&reading, &judge, &span, by_lane.entry(span.lane.clone()).or_default())?;
        }
    }
    let main = by_lane.remove(MAIN).unwrap_or_default();
    by_lane.retain(|_, counts| *counts != Counts::default());
    Ok(Unread { main, threads: by_lane })
}

/// Events of a lane after what was read, and before a position.
struct Span {
    lane: String,
    head: Head,
    after: Position,
    until: Option<Position>,
}

impl Span {
    /// The rows of a table with these events.
    fn range(&self, key: KeyBuf) -> Range {
        let prefix = Vec::from(key);
        let mut range = Range::prefix_from(&prefix, &just_after(self.after));
        if let Some(until) = self.until {
            range.to = Some([&prefix[..], &until.to_bytes()].concat());
        }
        range
    }
}

/// Judges the latest unread events one by one, and leaves to the spans what is before them.
fn judge_latest(
    reading: &Reading<'_>,
    judge: &Judge<'_>,
    spans: &mut [Span],
) -> Result<BTreeMap<String, Counts>, StoreError> {
    let mut by_lane: BTreeMap<String, Counts> = BTreeMap::new();
    let oldest = spans.iter().map(|span| span.after).min().unwrap_or_default();
    let mut judged_from = oldest;
    let end = Position::after_record(Lsn::MAX);
    for (number, row) in timeline::backward(reading.read, reading.room, end).enumerate() {
        let (position, item) = row?;
        if number == MAX_JUDGED || position <= oldest {
            break;
        }
        judged_from = position;
        let Some(flat) = text(reading.read, item.event)? else { continue };
        let Some(span) = spans.iter().find(|span| span.lane == lane_of(&flat) && position > span.after) else {
            continue;
        };
        by_lane.entry(span.lane.clone()).or_default().add(judge.event(&flat), 1);
    }
    for span in spans {
        span.until = Some(judged_from);
    }
    Ok(by_lane)
}

fn text(read: &dyn Read, event: Nid) -> Result<Option<FlattenedJson>, StoreError> {
    Ok(events::client(read, event)?.and_then(|text| flatten(&text)))
}

/// Counts the events of a span by their classes, and then the exceptions.
fn count(reading: &Reading<'_>, judge: &Judge<'_>, span: &Span, counts: &mut Counts) -> Result<(), StoreError> {
    let Reading { read, room, user, .. } = *reading;
    let lane = lane_key(room, &span.lane);
    let mut totals = match span.until {
        None => span.head.totals,
        Some(until) => totals_before(read, &lane, &until.to_bytes())?,
    };
    totals -= totals_before(read, &lane, &just_after(span.after))?;
    if span.head.redacted > span.after {
        for class in exceptions::<Class>(read, REDACTED, span.range(lane)) {
            totals -= class?;
        }
    }
    let own = user_key(room, user, &span.lane);
    let mut mentions = 0;
    if row::<Position>(read, LAST_MENTION, &own)?.is_some_and(|last| last > span.after) {
        for class in exceptions::<Option<Class>>(read, MENTIONS, span.range(own)) {
            if let Some(class) = class? {
                totals -= class;
            }
            mentions += 1;
        }
    }
    for class in Class::ALL.into_iter().filter(|class| totals[*class] > 0) {
        counts.add(judge.class(class), totals[class]);
    }
    if mentions > 0 {
        counts.add(judge.mention(), mentions);
    }
    Ok(())
}

fn exceptions<T: DeserializeOwned>(
    read: &dyn Read,
    table: Table,
    range: Range,
) -> impl Iterator<Item = Result<T, StoreError>> + '_ {
    rows(read, table, range).take(MAX_EXCEPTIONS).map(|row| Ok(row?.1))
}

/// How many events stand in a lane before a place.
fn totals_before(read: &dyn Read, lane: &KeyBuf, place: &[u8]) -> Result<Totals, StoreError> {
    let before = read.scan(TOTALS, Range::prefix_until(lane.as_ref(), place).rev()).next().transpose()?;
    before.map_or_else(|| Ok(Totals::default()), |(_, totals)| decode(TOTALS, &totals))
}
