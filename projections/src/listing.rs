//! A page of rows in one of several orders, at any offset, with or without a term to search for, and how many there are.

use schemas::Nid;

use crate::{
    StoreError,
    counted::{Counted, Entries},
    keys::KeyBuf,
    read::{Read, malformed_key},
    suffixes::{Suffixes, Term},
};

/// Looking at a row costs about as much as so many steps through an index.
const LOOK: u64 = 10;
/// The rows with a term may lie far from where a page begins, as those do whose names begin with it in the order of names.
/// So many times as many rows as expected are looked at, before all that have it are gathered.
const PATIENCE: u64 = 4;

/// Texts are sorted by so many bytes of them; rows that have these in common, by their ids.
const SORTED_BYTES: usize = 255;

/// A value to sort by. Texts come in the order of their bytes, and what is not there last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(Option<&'a str>),
    Number(Option<u64>),
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(Some(number))
    }
}

/// What is not so comes first.
impl From<bool> for Value<'_> {
    fn from(is: bool) -> Self {
        u64::from(is).into()
    }
}

impl Value<'_> {
    /// Keys sort as values do, and none begins with another.
    pub(crate) fn key(self) -> Vec<u8> {
        let key = KeyBuf::new();
        match self {
            Self::Text(Some(text)) => key.u8(0).str(sorted_part(text)),
            Self::Number(Some(number)) => key.u8(0).u64(number),
            Self::Text(None) | Self::Number(None) => key.u8(1),
        }
        .into()
    }
}

/// As much of a text as is sorted by.
fn sorted_part(text: &str) -> &str {
    // One of the last four ends is between characters; a shorter text is whole.
    (SORTED_BYTES - 3..=SORTED_BYTES).rev().find_map(|end| text.get(..end)).unwrap_or(text)
}

/// Which rows to list.
#[derive(Clone, Copy)]
pub(crate) struct Listing<'a> {
    pub(crate) read: &'a dyn Read,
    /// The order: its entries have the row as their value.
    pub(crate) order: Counted,
    pub(crate) falling: bool,
    /// Which classes.
    pub(crate) classes: &'a dyn Fn(u8) -> bool,
    /// Only rows with a term.
    pub(crate) search: Option<&'a Search<'a>>,
}

/// What to search for, and how.
pub(crate) struct Search<'a> {
    pub(crate) term: &'a Term,
    pub(crate) texts: Suffixes,
    /// A row that is found by something else than its texts, and not by those.
    pub(crate) also: Option<Nid>,
    /// Whether a row is found, by its texts or that.
    pub(crate) finds: &'a dyn Fn(Nid) -> Result<bool, StoreError>,
    /// A row's key in the order.
    pub(crate) place: &'a dyn Fn(Nid) -> Result<Vec<u8>, StoreError>,
}

/// Some rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Those of the page, in order.
    pub rows: Vec<Nid>,
    /// How many there are on all pages.
    pub total: u64,
}

/// How to get at the rows of a page that have a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Look at one row after the other in the wanted order, as long as patience lasts, and else gather.
    Look { patience: u64 },
    /// Gather all of them.
    Gather,
}

/// What to do with gathered rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrange {
    /// Look at each, and sort.
    Sort,
    /// Pick them out of the wanted order.
    Pick,
}

impl Arrange {
    /// What costs less for so many, of so many; and how much, in steps.
    fn cheapest(found: u64, listed: u64) -> (Self, u64) {
        let (sort, pick) = (found.saturating_mul(LOOK), found.saturating_add(listed));
        if sort <= pick { (Self::Sort, sort) } else { (Self::Pick, pick) }
    }
}

impl Plan {
    /// The cheapest, if so many rows, of so many, have the term, and so many of them lie up to the page's end.
    fn cheapest(found: u64, listed: u64, passed: u64) -> Self {
        let looks = passed.saturating_mul(listed) / found.max(1);
        let patience = looks.saturating_mul(PATIENCE);
        if patience.saturating_mul(LOOK) < Arrange::cheapest(found, listed).1 {
            Self::Look { patience }
        } else {
            Self::Gather
        }
    }
}

impl Listing<'_> {
    /// The rows from an offset on, at most `limit` of them.
    pub(crate) fn page(&self, offset: u64, limit: usize) -> Result<Page, StoreError> {
        let listed = self.order.count(self.read, &[], None, &|class| (self.classes)(class as u8))?;
        let Some(search) = self.search else {
            let rows = self.walk(self.entries(self.falling, offset)?, 0, limit, u64::MAX, &|_| Ok(true))?;
            return Ok(Page { rows: rows.unwrap_or_default(), total: listed });
        };
        if !search.term.is_exact() {
            // It is looked up by its beginning: only the rows can tell.
            let found = self.gather(search)?;
            let wanted = Wanted::new(found.len() as u64, offset, limit);
            let (arrange, _) = Arrange::cheapest(wanted.total, listed);
            return Ok(Page { rows: self.arrange(search, arrange, found, wanted)?, total: wanted.total });
        }
        let total = search.texts.count(self.read, search.term, self.classes)? + u64::from(search.also.is_some());
        let wanted = Wanted::new(total, offset, limit);
        let passed = wanted.offset.min(wanted.behind()) + wanted.length as u64;
        Ok(Page { rows: self.search(search, Plan::cheapest(total, listed, passed), listed, wanted)?, total })
    }

    fn search(&self, search: &Search<'_>, plan: Plan, listed: u64, wanted: Wanted) -> Result<Vec<Nid>, StoreError> {
        if wanted.length == 0 {
            return Ok(Vec::new());
        }
        if let Plan::Look { patience } = plan
            && let Some(rows) = self.walk_from_nearer_end(wanted, patience, search.finds)?
        {
            return Ok(rows);
        }
        let (arrange, _) = Arrange::cheapest(wanted.total, listed);
        self.arrange(search, arrange, self.gather(search)?, wanted)
    }

    /// The wanted ones of all rows that have the term.
    fn arrange(
        &self,
        search: &Search<'_>,
        arrange: Arrange,
        mut found: Vec<Nid>,
        wanted: Wanted,
    ) -> Result<Vec<Nid>, StoreError> {
        if arrange == Arrange::Pick {
            found.sort_unstable();
            let is_found = |row| Ok(found.binary_search(&row).is_ok());
            return Ok(self.walk_from_nearer_end(wanted, u64::MAX, &is_found)?.unwrap_or_default());
        }
        let places: Result<Vec<_>, StoreError> = found.into_iter().map(|row| Ok(((search.place)(row)?, row))).collect();
        let mut places = places?;
        places.sort_unstable();
        if self.falling {
            places.reverse();
        }
        let skipped = usize::try_from(wanted.offset).unwrap_or(usize::MAX);
        Ok(places.into_iter().skip(skipped).take(wanted.length).map(|(_, row)| row).collect())
    }

    /// All rows that have the term.
    fn gather(&self, search: &Search<'_>) -> Result<Vec<Nid>, StoreError> {
        let rows = search.texts.rows(self.read, search.term, self.classes)?;
        let mut found = Vec::new();
        for row in rows {
            if search.term.is_exact() || (search.finds)(row)? {
                found.push(row);
            }
        }
        found.extend(search.also);
        Ok(found)
    }

    /// The wanted rows of those that are taken; none if patience ends before.
    fn walk_from_nearer_end(
        &self,
        wanted: Wanted,
        patience: u64,
        takes: &dyn Fn(Nid) -> Result<bool, StoreError>,
    ) -> Result<Option<Vec<Nid>>, StoreError> {
        let (offset, behind) = (wanted.offset, wanted.behind());
        if offset <= behind {
            return self.walk(self.entries(self.falling, 0)?, offset, wanted.length, patience, takes);
        }
        let rows = self.walk(self.entries(!self.falling, 0)?, behind, wanted.length, patience, takes)?;
        Ok(rows.map(|mut rows| {
            rows.reverse();
            rows
        }))
    }

    fn entries(&self, falling: bool, skip: u64) -> Result<Entries<'_>, StoreError> {
        self.order.entries(self.read, (&[], None), falling, Box::new(|class| (self.classes)(class as u8)), skip)
    }

    /// The rows that are taken, without the first of them; none if so many were not enough to find them.
    fn walk(
        &self,
        entries: Entries<'_>,
        mut passed: u64,
        length: usize,
        mut patience: u64,
        takes: &dyn Fn(Nid) -> Result<bool, StoreError>,
    ) -> Result<Option<Vec<Nid>>, StoreError> {
        let mut rows = Vec::new();
        if length == 0 {
            return Ok(Some(rows));
        }
        for entry in entries {
            if patience == 0 {
                return Ok(None);
            }
            patience -= 1;
            let row = Nid::from_slice(&entry?.value).ok_or_else(|| malformed_key(self.order.table()))?;
            if !takes(row)? {
                continue;
            }
            if passed > 0 {
                passed -= 1;
                continue;
            }
            rows.push(row);
            if rows.len() == length {
                break;
            }
        }
        Ok(Some(rows))
    }
}

/// Which rows of a search are wanted: there are all of these.
#[derive(Clone, Copy)]
struct Wanted {
    total: u64,
    offset: u64,
    length: usize,
}

impl Wanted {
    fn new(total: u64, offset: u64, limit: usize) -> Self {
        let length = usize::try_from(total.saturating_sub(offset)).unwrap_or(usize::MAX).min(limit);
        Self { total, offset: offset.min(total), length }
    }

    /// How many come after these.
    const fn behind(&self) -> u64 {
        self.total - self.offset - self.length as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use schemas::Lsn;

    use super::*;
    use crate::{Batch, Model, read::Table, suffixes::Texts, testing::Nothing};

    const TABLE: Table = Table { model: Model::Admission, prefix: 1 };
    const ORDER: Counted = Counted::new(TABLE, 1);
    const TEXTS: Suffixes = Suffixes::new(TABLE, 2);

    #[derive(Clone, Debug)]
    struct Row {
        value: u8,
        class: u8,
        text: String,
    }

    fn nid(row: usize) -> Nid {
        Nid { lsn: Lsn(row as u64), index: 0 }
    }

    fn at(row: Nid) -> usize {
        usize::try_from(row.lsn.0).unwrap()
    }

    fn place(rows: &[Row], row: Nid) -> Vec<u8> {
        [&[rows[at(row)].value], row.to_bytes().as_slice()].concat()
    }

    fn row() -> impl Strategy<Value = Row> {
        let text = vec(prop_oneof![Just('a'), Just('b')], 0..40).prop_map(|chars| chars.into_iter().collect());
        (0..9_u8, 0..3_u8, text).prop_map(|(value, class, text)| Row { value, class, text })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_plan_finds_the_page(
            rows in vec(row(), 1..60),
            terms in vec("[ab]{1,4}|a{30,36}", 1..6),
            (falling, wanted, also) in (any::<bool>(), 0..8_u8, 0..60_usize),
            (offset, limit) in (0..50_u64, 0..30_usize),
        ) {
            let mut batch = Batch::new(&Nothing);
            for (n, row) in rows.iter().enumerate() {
                let texts = Texts { texts: vec![&row.text], class: row.class };
                TEXTS.change(&mut batch, nid(n), None, Some(texts)).unwrap();
                ORDER.insert(&mut batch, &place(&rows, nid(n)), row.class.into(), &nid(n).to_bytes()).unwrap();
            }
            let classes = |class: u8| wanted & 1 << class != 0;
            for term in terms {
                let term = Term::new(&term);
                let also = Some(also).filter(|row| rows.get(*row).is_some_and(|row| classes(row.class)));
                let finds = |row: Nid| Ok(term.is_in(&rows[at(row)].text) || also == Some(at(row)));
                let also = also.filter(|row| !term.is_in(&rows[*row].text)).map(nid);
                let place = |row: Nid| Ok(place(&rows, row));
                let search = Search { term: &term, texts: TEXTS, also, finds: &finds, place: &place };
                let listing =
                    Listing { read: &batch, order: ORDER, falling, classes: &classes, search: Some(&search) };
                let taken = |row: &Nid| classes(rows[at(*row)].class) && finds(*row).unwrap();
                let mut all: Vec<Nid> = (0..rows.len()).map(nid).filter(taken).collect();
                all.sort_by_key(|row| place(*row).unwrap());
                if falling {
                    all.reverse();
                }
                let total = all.len() as u64;
                let expected: Vec<_> = all.into_iter().skip(usize::try_from(offset).unwrap()).take(limit).collect();
                prop_assert_eq!(listing.page(offset, limit).unwrap(), Page { rows: expected.clone(), total });
                let wanted = Wanted::new(total, offset, limit);
                for arrange in [Arrange::Sort, Arrange::Pick] {
                    let found = listing.arrange(&search, arrange, listing.gather(&search).unwrap(), wanted).unwrap();
                    prop_assert_eq!(&found, &expected, "{:?}", arrange);
                }
                for patience in [0, 3, u64::MAX] {
                    let plan = Plan::Look { patience };
                    // A term that is not exact has been gathered.
                    if term.is_exact() {
                        prop_assert_eq!(&listing.search(&search, plan, 60, wanted).unwrap(), &expected, "{:?}", plan);
                    }
                }
            }
            let listing = Listing { read: &batch, order: ORDER, falling, classes: &classes, search: None };
            let mut all: Vec<Nid> = (0..rows.len()).map(nid).filter(|row| classes(rows[at(*row)].class)).collect();
            all.sort_by_key(|row| place(&rows, *row));
            if falling {
                all.reverse();
            }
            let total = all.len() as u64;
            let expected: Vec<_> = all.into_iter().skip(usize::try_from(offset).unwrap()).take(limit).collect();
            prop_assert_eq!(listing.page(offset, limit).unwrap(), Page { rows: expected, total });
        }
    }

    #[test]
    fn the_plan_is_the_cheapest() {
        const MILLION: u64 = 1_000_000;
        let look = |patience| Plan::Look { patience };
        for (found, passed, plan, arrange) in [
            (0, 100, Plan::Gather, Arrange::Sort),
            (200, 100, Plan::Gather, Arrange::Sort),
            (30_000, 100, look(13_332), Arrange::Sort),
            (MILLION / 2, 100, look(800), Arrange::Pick),
            (MILLION / 2, MILLION / 4, Plan::Gather, Arrange::Pick),
        ] {
            assert_eq!(Plan::cheapest(found, MILLION, passed), plan, "{found} {passed}");
            assert_eq!(Arrange::cheapest(found, MILLION).0, arrange, "{found}");
        }
    }
}
