//! What users have reported to the server's administrators.
//!
//! Which reports of events, rooms or users are there, the newest or the oldest first, by whom, in which room, about
//! whom, and how many?
//!
//! Tables: 1 `kind | number -> Report`; 2 `kind -> number of the last`; 3 a counted index a kind (`crate::counted`), with an
//! entry `filter | number` for each filter that takes the report.
//!
//! A report doesn't depend on what it is about: it stays where an event is redacted or a room is purged.

use schemas::{
    Fact,
    facts::{ReportKind, ReportRemoved},
};
use serde::{Deserialize, Serialize};

use crate::{
    At, Batch, FoldError, Model, Projection, StoreError,
    counted::Counted,
    keys::{KeyBuf, KeyReader, after_prefix},
    read::{Read, Table, malformed_key, row},
};

const REPORTS: Table = Table { model: Model::Reports, prefix: 1 };
const LAST: Table = Table { model: Model::Reports, prefix: 2 };
const FILTERED: Table = Table { model: Model::Reports, prefix: 3 };

/// This model's fold.
pub const PROJECTION: Projection = Projection { model: Model::Reports, version: 1, reads: &[], fold };

/// A report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Full id of the user who reports.
    pub by: String,
    /// Log time then, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub about: About,
    /// The reporter's words.
    pub reason: Option<String>,
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum About {
    /// An event.
    Event {
        /// The room's id.
        room: String,
        /// The event's id.
        event: String,
        /// Full id of its sender.
        sender: String,
        /// How bad, from -100 to 0, by the reporter's word.
        score: Option<i64>,
    },
    /// A room.
    Room {
        /// Its id.
        room: String,
    },
    /// A user.
    User {
        /// Full user id.
        user: String,
    },
}

impl Report {
    const fn kind(&self) -> ReportKind {
        match self.about {
            About::Event { .. } => ReportKind::Event,
            About::Room { .. } => ReportKind::Room,
            About::User { .. } => ReportKind::User,
        }
    }

    /// The room that it is about, or whose event.
    #[must_use]
    pub fn room(&self) -> Option<&str> {
        match &self.about {
            About::Event { room, .. } | About::Room { room } => Some(room),
            About::User { .. } => None,
        }
    }

    /// The user whom it is about, or whose event.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.about {
            About::Event { sender: user, .. } | About::User { user } => Some(user),
            About::Room { .. } => None,
        }
    }

    /// The values that filters go by, in the order of [`Filter`].
    fn values(&self) -> [Option<&str>; 3] {
        [Some(&self.by), self.room(), self.user()]
    }
}

/// Which reports to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// By whom.
    pub by: Option<Match>,
    /// [`Report::room`].
    pub room: Option<Match>,
    /// [`Report::user`].
    pub user: Option<Match>,
}

/// What an id must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// This one: it is looked up.
    Is(String),
    /// This is in it: one report after another is looked at.
    Has(String),
}

impl Filter {
    const fn matches(&self) -> [Option<&Match>; 3] {
        [self.by.as_ref(), self.room.as_ref(), self.user.as_ref()]
    }

    /// What is looked up.
    fn key(&self) -> KeyBuf {
        filter_key(self.matches().map(|wanted| match wanted {
            Some(Match::Is(id)) => Some(id.as_str()),
            _ => None,
        }))
    }

    fn is_looked_up(&self) -> bool {
        !self.matches().iter().any(|wanted| matches!(wanted, Some(Match::Has(_))))
    }

    /// What is not looked up.
    fn takes(&self, report: &Report) -> bool {
        self.matches().into_iter().zip(report.values()).all(|(wanted, value)| match wanted {
            Some(Match::Has(part)) => value.is_some_and(|value| value.contains(part.as_str())),
            _ => true,
        })
    }
}

/// Some reports, each with its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order wanted.
    pub reports: Vec<(u64, Report)>,
    /// How many the filter takes in all.
    pub total: u64,
}

fn fold(at: &At<'_>, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let (by, about, reason) = match fact {
        Fact::EventReported(f) => {
            let (room, event, sender) = (f.room.clone(), f.event.clone(), f.sender.clone());
            (&f.user, About::Event { room, event, sender, score: f.score }, f.reason.clone())
        }
        Fact::RoomReported(f) => (&f.user, About::Room { room: f.room.clone() }, Some(f.reason.clone())),
        Fact::UserReported(f) => (&f.user, About::User { user: f.target.clone() }, Some(f.reason.clone())),
        Fact::ReportRemoved(f) => return remove(f, batch),
        _ => return Ok(()),
    };
    add(&Report { by: by.clone(), at_ms: at.log_time.ms, about, reason }, batch)
}

fn add(report: &Report, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let kind = report.kind();
    let last: Option<u64> = row(batch, LAST, [code(kind)])?;
    let number = last.map_or(1, |last| last + 1);
    batch.put(LAST, [code(kind)], &number);
    batch.put(REPORTS, key(kind, number), report);
    for filter in filters(report) {
        index(kind).insert(batch, filter.u64(number).as_ref(), 0, &[])?;
    }
    Ok(())
}

fn remove(fact: &ReportRemoved, batch: &mut Batch<'_>) -> Result<(), FoldError> {
    let Some(report) = get(batch, fact.kind, fact.number)? else { return Ok(()) };
    batch.delete(REPORTS, key(fact.kind, fact.number));
    for filter in filters(&report) {
        index(fact.kind).remove(batch, filter.u64(fact.number).as_ref())?;
    }
    Ok(())
}

const fn code(kind: ReportKind) -> u8 {
    match kind {
        ReportKind::Event => 1,
        ReportKind::Room => 2,
        ReportKind::User => 3,
    }
}

const fn index(kind: ReportKind) -> Counted {
    Counted::new(FILTERED, code(kind))
}

fn key(kind: ReportKind, number: u64) -> KeyBuf {
    KeyBuf::new().u8(code(kind)).u64(number)
}

/// Each value is there, or not, which makes a filter of every combination of them a prefix of its own.
fn filter_key(values: [Option<&str>; 3]) -> KeyBuf {
    values.into_iter().fold(KeyBuf::new(), |key, value| match value {
        Some(value) => key.u8(1).str(value),
        None => key.u8(0),
    })
}

/// All filters that take a report.
fn filters(report: &Report) -> Vec<KeyBuf> {
    let values = report.values();
    let chosen = |mask: usize| std::array::from_fn(|n| values[n].filter(|_| mask & (1 << n) != 0));
    // One that asks for a value which the report hasn't is another's key.
    let fits = |mask: &usize| (0..values.len()).all(|n| mask & (1 << n) == 0 || values[n].is_some());
    (0..1 << values.len()).filter(fits).map(|mask| filter_key(chosen(mask))).collect()
}

/// A report by its number.
///
/// # Errors
/// When the store fails.
pub fn get(read: &dyn Read, kind: ReportKind, number: u64) -> Result<Option<Report>, StoreError> {
    row(read, REPORTS, key(kind, number))
}

/// The reports of a kind that a filter takes, by number, without the first `skip`, at most `limit`.
///
/// # Errors
/// When the store fails.
pub fn page(
    read: &dyn Read,
    kind: ReportKind,
    filter: &Filter,
    newest_first: bool,
    (skip, limit): (usize, usize),
) -> Result<Page, StoreError> {
    let prefix = Vec::from(filter.key());
    let (from, to) = (prefix.as_slice(), after_prefix(&prefix));
    let (index, looked_up) = (index(kind), filter.is_looked_up());
    let mut page = Page { reports: Vec::new(), total: 0 };
    let any = |_: u16| true;
    let skipped = if looked_up { skip as u64 } else { 0 };
    let entries = index.entries(read, (from, to.as_deref()), newest_first, Box::new(any), skipped)?;
    for entry in entries.take(if looked_up { limit } else { usize::MAX }) {
        let number = KeyReader::new(&entry?.key[prefix.len()..]).u64().ok_or_else(|| malformed_key(FILTERED))?;
        let report = get(read, kind, number)?.ok_or_else(|| malformed_key(FILTERED))?;
        if looked_up {
            page.reports.push((number, report));
        } else if filter.takes(&report) {
            if page.total >= skip as u64 && page.reports.len() < limit {
                page.reports.push((number, report));
            }
            page.total += 1;
        }
    }
    if looked_up {
        page.total = index.count(read, from, to.as_deref(), &any)?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::facts::{EventReported, RoomReported, UserReported};

    use super::*;
    use crate::testing::{ALICE, BOB, ROOM, World};

    fn is(id: &str) -> Option<Match> {
        Some(Match::Is(id.into()))
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.reports.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn each_kind_has_numbers_of_its_own_which_never_come_again() {
        let mut world = World::new();
        let of_user = || UserReported { user: ALICE.into(), target: BOB.into(), reason: "rude".into() }.into();
        let of_room = || RoomReported { user: ALICE.into(), room: ROOM.into(), reason: "spam".into() }.into();
        world.apply([of_user(), of_room(), of_user()]);
        let all = |world: &World, kind| numbers(&page(&world.view(), kind, &Filter::default(), true, (0, 9)).unwrap());
        assert_eq!((all(&world, ReportKind::User), all(&world, ReportKind::Room)), (vec![2, 1], vec![1]));
        let found = get(&world.view(), ReportKind::User, 2).unwrap().unwrap();
        assert_eq!((found.by.as_str(), found.at_ms), (ALICE, world.log_time().ms));
        let remove = |number| ReportRemoved { kind: ReportKind::User, number }.into();
        world.apply([remove(2)]);
        world.apply([remove(2), remove(7)]);
        world.apply([of_user()]);
        assert_eq!((all(&world, ReportKind::User), all(&world, ReportKind::Room)), (vec![3, 1], vec![1]));
        world.check_replay();
    }

    /// A report of an event, of one of two in each respect.
    fn report() -> impl Strategy<Value = Fact> {
        let one_of = |what: &'static str| (0..2_u8).prop_map(move |n| format!("{what}{n}:example.org"));
        (one_of("@by"), one_of("!room"), one_of("@sender")).prop_map(|(user, room, sender)| {
            EventReported { user, room, event: "$e".into(), sender, reason: None, score: Some(-1) }.into()
        })
    }

    fn change() -> impl Strategy<Value = Fact> {
        let removed = |number| ReportRemoved { kind: ReportKind::Event, number }.into();
        prop_oneof![3 => report(), 1 => (1..30_u64).prop_map(removed)]
    }

    fn wanted(what: &'static str) -> impl Strategy<Value = Option<Match>> {
        prop_oneof![
            2 => Just(None),
            2 => (0..2_u8).prop_map(move |n| Some(Match::Is(format!("{what}{n}:example.org")))),
            1 => (0..2_u8).prop_map(move |n| Some(Match::Has(format!("{n}:exa")))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

        #[test]
        fn a_page_is_what_sorting_and_counting_all_gives(
            changes in prop::collection::vec(change(), 0..40),
            (by, room, user) in (wanted("@by"), wanted("!room"), wanted("@sender")),
            (newest_first, skip, limit) in (any::<bool>(), 0..6_usize, 0..8_usize),
        ) {
            let mut world = World::new();
            world.apply(changes);
            let view = world.view();
            let filter = Filter { by, room, user };
            let fits = |wanted: Option<&Match>, value: Option<&str>| match wanted {
                None => true,
                Some(Match::Is(id)) => value == Some(id),
                Some(Match::Has(part)) => value.is_some_and(|value| value.contains(part.as_str())),
            };
            let mut all: Vec<u64> = (1..50_u64)
                .filter(|number| {
                    let report = get(&view, ReportKind::Event, *number).unwrap();
                    report.is_some_and(|r| filter.matches().into_iter().zip(r.values()).all(|(m, v)| fits(m, v)))
                })
                .collect();
            if newest_first {
                all.reverse();
            }
            let found = page(&view, ReportKind::Event, &filter, newest_first, (skip, limit)).unwrap();
            prop_assert_eq!(found.total, all.len() as u64);
            prop_assert_eq!(numbers(&found), all.into_iter().skip(skip).take(limit).collect::<Vec<_>>());
            world.check_replay();
        }
    }

    #[test]
    fn filters_are_looked_up_whole() {
        let mut world = World::new();
        for room in ["!a", "!ab"] {
            world.apply([RoomReported { user: ALICE.into(), room: room.into(), reason: String::new() }.into()]);
        }
        let filter = Filter { by: is(ALICE), room: is("!a"), user: None };
        let found = page(&world.view(), ReportKind::Room, &filter, true, (0, 9)).unwrap();
        assert_eq!((numbers(&found), found.total), (vec![1], 1));
        let nobody = Filter { by: is(BOB), ..Filter::default() };
        assert_eq!(page(&world.view(), ReportKind::Room, &nobody, true, (0, 9)).unwrap(), Page::default());
    }
}
