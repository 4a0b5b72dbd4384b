//! A page of rows in one of several orders, at any offset, with or without a term to search for, and how many there are.

use std::collections::HashSet;

use schemas::Nid;

use crate::{
    StoreError,
    counted::{Counted, Entries},
    keys::KeyBuf,
    read::{Read, malformed_key},
    suffixes::{Suffixes, Term},
};

/// Looking at a row costs about as much as so many steps through an index.
const LOOK: u64 = 16;

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
    /// Sort all of them.
    Sort,
    /// Look at one row after the other in the wanted order.
    Look,
    /// Gather all of them, and pick them out of the wanted order.
    Pick,
}

impl Plan {
    /// The cheapest, if that many rows, of so many, have the term, and at least so many of them must be passed.
    fn cheapest(found: u64, listed: u64, passed: u64, is_exact: bool) -> Self {
        let steps = passed.saturating_mul(listed) / found.max(1);
        let pick = found.saturating_add(steps) / LOOK;
        if found <= pick && found <= steps {
            Self::Sort
        } else if is_exact && steps <= pick {
            Self::Look
        } else {
            Self::Pick
        }
    }
}

impl Listing<'_> {
    /// The rows from an offset on, at most `limit` of them.
    pub(crate) fn page(&self, offset: u64, limit: usize) -> Result<Page, StoreError> {
        let listed = self.order.count(self.read, &[], None, &|class| (self.classes)(class as u8))?;
        let Some(search) = self.search else {
            let entries = self.entries(self.falling, offset)?;
            return Ok(Page { rows: self.walk(entries, 0, limit, &|_| Ok(true))?, total: listed });
        };
        // A term that is not exact is looked up by its beginning: only the rows can tell.
        let found = if search.term.is_exact() { None } else { Some(self.gather(search)?) };
        let total = match &found {
            Some(found) => found.len() as u64,
            None => search.texts.count(self.read, search.term, self.classes)? + u64::from(search.also.is_some()),
        };
        let passed = offset.min(total.saturating_sub(offset)).saturating_add(limit as u64);
        let plan = Plan::cheapest(total, listed, passed, found.is_none());
        Ok(Page { rows: self.search(search, plan, found, total, offset, limit)?, total })
    }

    fn search(
        &self,
        search: &Search<'_>,
        plan: Plan,
        found: Option<Vec<Nid>>,
        total: u64,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<Nid>, StoreError> {
        let length = usize::try_from(total.saturating_sub(offset)).unwrap_or(usize::MAX).min(limit);
        if length == 0 {
            return Ok(Vec::new());
        }
        let found = match (plan, found) {
            (Plan::Look, _) => return self.from_nearer_end(total, offset, length, search.finds),
            (_, Some(found)) => found,
            (_, None) => self.gather(search)?,
        };
        if plan == Plan::Pick {
            let found: HashSet<Nid> = found.into_iter().collect();
            return self.from_nearer_end(total, offset, length, &|row| Ok(found.contains(&row)));
        }
        let places: Result<Vec<_>, StoreError> = found.into_iter().map(|row| Ok(((search.place)(row)?, row))).collect();
        let mut places = places?;
        places.sort_unstable();
        if self.falling {
            places.reverse();
        }
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(places.into_iter().skip(skipped).take(length).map(|(_, row)| row).collect())
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

    /// Rows from an offset on, of so many that are taken.
    fn from_nearer_end(
        &self,
        total: u64,
        offset: u64,
        length: usize,
        takes: &dyn Fn(Nid) -> Result<bool, StoreError>,
    ) -> Result<Vec<Nid>, StoreError> {
        let behind = total.saturating_sub(offset).saturating_sub(length as u64);
        if offset <= behind {
            return self.walk(self.entries(self.falling, 0)?, offset, length, takes);
        }
        let mut rows = self.walk(self.entries(!self.falling, 0)?, behind, length, takes)?;
        rows.reverse();
        Ok(rows)
    }

    fn entries(&self, falling: bool, skip: u64) -> Result<Entries<'_>, StoreError> {
        self.order.entries(self.read, (&[], None), falling, Box::new(|class| (self.classes)(class as u8)), skip)
    }

    /// The rows that are taken, without the first of them.
    fn walk(
        &self,
        entries: Entries<'_>,
        mut passed: u64,
        length: usize,
        takes: &dyn Fn(Nid) -> Result<bool, StoreError>,
    ) -> Result<Vec<Nid>, StoreError> {
        let mut rows = Vec::new();
        if length == 0 {
            return Ok(rows);
        }
        for entry in entries {
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
        Ok(rows)
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
                for plan in [Plan::Sort, Plan::Look, Plan::Pick] {
                    let found = listing.search(&search, plan, None, total, offset, limit).unwrap();
                    prop_assert_eq!(&found, &expected, "{:?}", plan);
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
        for (found, passed, is_exact, plan) in [
            (0, 100, true, Plan::Sort),
            (200, 100, true, Plan::Sort),
            (MILLION / 2, 100, true, Plan::Look),
            (MILLION / 2, MILLION / 4, true, Plan::Pick),
            (MILLION / 2, 100, false, Plan::Pick),
        ] {
            assert_eq!(Plan::cheapest(found, MILLION, passed, is_exact), plan, "{found} {passed}");
        }
    }
}
