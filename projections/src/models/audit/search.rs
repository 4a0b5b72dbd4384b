use schemas::{Key, Lsn, Tag};

use super::{BY_ADMINISTRATORS, BY_FACT, BY_ROOM, BY_TARGET, BY_USER, ENTRIES, Entry, FREQUENT, entry};
use crate::{
    StoreError,
    keys::KeyBuf,
    read::{Range, Read, Table, malformed_key, rows},
};

/// Filters that nothing fits together look so many times for the next record that does, and then say from where to go on.
const MAX_STEPS: usize = 5_000;

/// Which records of the trail are wanted; all of it is asked for together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What this user caused.
    pub actor: Option<String>,
    /// What was done to this user, alias, registration token or event.
    pub target: Option<String>,
    /// What says something about the room with this id.
    pub room: Option<String>,
    /// What has a fact of this number.
    pub fact: Option<u16>,
    /// What administrators did as such.
    pub by_administrators: bool,
    /// Void records, too.
    pub void: bool,
    /// From this one on.
    pub from: Lsn,
    /// Up to this one, inclusive.
    pub until: Lsn,
    /// The latest first.
    pub falling: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            actor: None,
            target: None,
            room: None,
            fact: None,
            by_administrators: false,
            void: false,
            from: Lsn::ZERO,
            until: Lsn(u64::MAX - 1),
            falling: false,
        }
    }
}

/// Records in the order that was asked for, and where there may be more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub entries: Vec<(Lsn, Entry)>,
    /// To go on, the next page begins (falling: ends) with this one. There may be nothing.
    pub next: Option<Lsn>,
}

/// The next records that are wanted, at most so many. Where filters have little in common there may be fewer, and more behind
/// them: the cost of a page is bounded.
///
/// # Errors
/// When the store fails.
pub fn page(read: &dyn Read, wanted: &Wanted, limit: usize) -> Result<Page, StoreError> {
    let mut search = Search { read, lists: wanted.lists(), falling: wanted.falling, steps: MAX_STEPS };
    let mut page = Page::default();
    let mut at = if wanted.falling { wanted.until } else { wanted.from };
    loop {
        let found = match search.next(at)? {
            Next::None => break,
            Next::At(found) if wanted.is_past(found) => break,
            Next::At(found) => found,
            Next::Later(from) => {
                page.next = Some(from).filter(|from| !wanted.is_past(*from));
                break;
            }
        };
        if page.entries.len() == limit {
            page.next = Some(found);
            break;
        }
        if let Some(entry) = entry(read, found)?.filter(|entry| wanted.takes(entry)) {
            page.entries.push((found, entry));
        }
        let Some(further) = beyond(found, wanted.falling) else { break };
        at = further;
    }
    Ok(page)
}

impl Wanted {
    /// What has to be in all of these lists.
    fn lists(&self) -> Vec<List> {
        let indexed = self.fact.filter(|number| !FREQUENT.contains(number));
        let named = |table, name: &String| List { table, prefix: KeyBuf::new().str(name).into() };
        let room = |room: &String| KeyBuf::new().raw(&Key::new(Tag::RoomState, room).0).into();
        let mut lists: Vec<List> = Vec::new();
        lists.extend(self.target.as_ref().map(|target| named(BY_TARGET, target)));
        lists.extend(self.room.as_ref().map(|id| List { table: BY_ROOM, prefix: room(id) }));
        lists.extend(indexed.map(|number| List { table: BY_FACT, prefix: number.to_be_bytes().into() }));
        lists.extend(self.by_administrators.then(|| List { table: BY_ADMINISTRATORS, prefix: Vec::new() }));
        lists.extend(self.actor.as_ref().map(|actor| named(BY_USER, actor)));
        if lists.is_empty() {
            lists.push(List { table: ENTRIES, prefix: Vec::new() });
        }
        lists
    }

    /// What the lists don't tell.
    fn takes(&self, entry: &Entry) -> bool {
        (self.void || entry.void.is_none()) && self.fact.is_none_or(|number| entry.facts.contains(&number))
    }

    const fn is_past(&self, lsn: Lsn) -> bool {
        if self.falling { lsn.0 < self.from.0 } else { lsn.0 > self.until.0 }
    }
}

/// The positions that begin with a prefix in some table.
struct List {
    table: Table,
    prefix: Vec<u8>,
}

impl List {
    /// The first position from one on, in one direction, inclusive.
    fn next(&self, read: &dyn Read, at: Lsn, falling: bool) -> Result<Option<Lsn>, StoreError> {
        let range = if falling {
            Range::prefix_until(&self.prefix, &at.next().to_bytes()).rev()
        } else {
            Range { to: Range::prefix(&*self.prefix).to, ..Range::prefix_from(&self.prefix, &at.to_bytes()) }
        };
        let Some(row) = read.scan(self.table, range).next() else { return Ok(None) };
        let (key, _) = row?;
        let lsn = key.get(self.prefix.len()..).and_then(|rest| rest.try_into().ok()).map(Lsn::from_bytes);
        lsn.map(Some).ok_or_else(|| malformed_key(self.table))
    }
}

/// Goes through several lists at once, and stops at what is in all of them: each leads the others past what it lacks.
struct Search<'a> {
    read: &'a dyn Read,
    lists: Vec<List>,
    falling: bool,
    steps: usize,
}

enum Next {
    At(Lsn),
    None,
    /// It was looked for long enough; from here on.
    Later(Lsn),
}

impl Search<'_> {
    fn next(&mut self, from: Lsn) -> Result<Next, StoreError> {
        let (mut at, mut agreeing) = (from, 0);
        for list in self.lists.iter().cycle() {
            let Some(steps) = self.steps.checked_sub(1) else { return Ok(Next::Later(at)) };
            self.steps = steps;
            let Some(found) = list.next(self.read, at, self.falling)? else { return Ok(Next::None) };
            agreeing = if found == at { agreeing + 1 } else { 1 };
            at = found;
            if agreeing == self.lists.len() {
                return Ok(Next::At(at));
            }
        }
        Ok(Next::None)
    }
}

const fn beyond(lsn: Lsn, falling: bool) -> Option<Lsn> {
    if !falling {
        return Some(lsn.next());
    }
    match lsn.0.checked_sub(1) {
        Some(before) => Some(Lsn(before)),
        None => None,
    }
}

/// The last record up to `tail` at or before a time, milliseconds since the Unix epoch: log time never goes back. Zero where
/// all came later.
///
/// # Errors
/// When the store fails.
pub fn at_time(read: &dyn Read, tail: Lsn, ms: u64) -> Result<Lsn, StoreError> {
    let (mut low, mut high) = (0, tail.0);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let range =
            Range { from: Lsn(middle).to_bytes().into(), to: Some(Lsn(high).next().to_bytes().into()), reverse: false };
        match rows::<Entry>(read, ENTRIES, range).next().transpose()? {
            Some((key, entry)) if entry.log_time_ms <= ms => {
                let lsn = key.as_slice().try_into().map(Lsn::from_bytes).map_err(|_| malformed_key(ENTRIES))?;
                low = lsn.0;
            }
            _ => high = middle - 1,
        }
    }
    Ok(Lsn(low))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::{
        Fact, Header, Origin,
        facts::{AdminSet, RoomBlocked, TagSet},
    };

    use super::*;
    use crate::testing::World;

    const USERS: [&str; 3] = ["@a:x", "@b:x", "@c:x"];
    const ROOMS: [&str; 2] = ["!a:x", "!b:x"];

    /// By whom, as an administrator or not; what it is; about which user and room.
    type Deed = (usize, bool, u8, usize, usize);

    fn fact(&(_, _, kind, user, room): &Deed) -> Fact {
        let (user, room) = (USERS[user].to_owned(), ROOMS[room].to_owned());
        match kind {
            0 => AdminSet { user, admin: true }.into(),
            1 => RoomBlocked { room, blocked: true, reason: Some("so".into()) }.into(),
            _ => TagSet { user, room, tag: "u.t".into(), content: None }.into(),
        }
    }

    fn by(&(actor, admin, ..): &Deed) -> Origin {
        let user = USERS[actor].to_owned();
        if admin { Origin::Admin { user } } else { Origin::User { user, device: None } }
    }

    fn wanted() -> impl Strategy<Value = Wanted> {
        let index = |n: usize| prop::option::of(0..n);
        let kind = prop::option::of(prop_oneof![Just(33_u16), Just(21), Just(81)]);
        (index(3), index(3), index(2), kind, any::<bool>(), any::<bool>(), 0..40_u64, 0..40_u64).prop_map(
            |(actor, target, room, fact, by_administrators, falling, from, until)| Wanted {
                actor: actor.map(|n| USERS[n].to_owned()),
                target: target.map(|n| USERS[n].to_owned()),
                room: room.map(|n| ROOMS[n].to_owned()),
                fact,
                by_administrators,
                void: false,
                from: Lsn(from),
                until: Lsn(until),
                falling,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn pages_are_what_a_look_at_every_record_finds(
            deeds in prop::collection::vec((0..3_usize, any::<bool>(), 0..3_u8, 0..3_usize, 0..2_usize), 1..30),
            asked in prop::collection::vec((wanted(), 1..5_usize), 20),
        ) {
            let mut world = World::new();
            let mut trail = Vec::new();
            for deed in &deeds {
                let origin = by(deed);
                trail.push((world.apply_as(|header: &mut Header| header.origin = origin, [fact(deed)]), deed));
            }
            let view = world.view();
            for (mut wanted, limit) in asked {
                let fits = |(lsn, deed): &&(Lsn, &Deed)| {
                    let (actor, admin, kind, user, room) = **deed;
                    let (fact, targets) = (fact(deed), admin && kind != 1 && user != actor);
                    *lsn >= wanted.from
                        && *lsn <= wanted.until
                        && wanted.actor.as_deref().is_none_or(|wanted| wanted == USERS[actor])
                        && wanted.target.as_deref().is_none_or(|wanted| targets && wanted == USERS[user])
                        && wanted.room.as_deref().is_none_or(|wanted| kind != 0 && wanted == ROOMS[room])
                        && wanted.fact.is_none_or(|number| number == fact.number())
                        && (!wanted.by_administrators || admin)
                };
                let mut expected: Vec<Lsn> = trail.iter().filter(fits).map(|(lsn, _)| *lsn).collect();
                // The record that begins the log is nobody's.
                let all = Wanted { from: wanted.from, until: wanted.until, falling: wanted.falling, ..Wanted::default() };
                if all == wanted && wanted.from <= Lsn::FIRST && Lsn::FIRST <= wanted.until {
                    expected.insert(0, Lsn::FIRST);
                }
                if wanted.falling {
                    expected.reverse();
                }
                let mut found = Vec::new();
                loop {
                    let page = page(&view, &wanted, limit).unwrap();
                    prop_assert!(page.entries.len() <= limit);
                    found.extend(page.entries.into_iter().map(|(lsn, _)| lsn));
                    let Some(next) = page.next else { break };
                    if wanted.falling { wanted.until = next } else { wanted.from = next }
                }
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_time_is_found_in_the_trail() {
        let mut world = World::new();
        let lsns: Vec<Lsn> = (0..9).map(|_| world.apply([])).collect();
        let view = world.view();
        let tail = *lsns.last().unwrap();
        let time = |lsn: Lsn| entry(&view, lsn).unwrap().unwrap().log_time_ms;
        assert_eq!(at_time(&view, tail, time(Lsn::FIRST) - 1).unwrap(), Lsn::ZERO);
        for lsn in &lsns {
            assert_eq!(at_time(&view, tail, time(*lsn)).unwrap(), *lsn);
            assert_eq!(at_time(&view, tail, time(*lsn) + 999).unwrap(), *lsn);
        }
        assert_eq!(at_time(&view, lsns[3], u64::MAX).unwrap(), lsns[3]);
    }
}
