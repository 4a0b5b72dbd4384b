//! Finds the rows whose texts have a term in them, in any case, and counts them without looking at them.
//!
//! Every suffix of a row's texts stands in a [`Counted`] index, so that the rows with a term lie side by side, at the
//! suffixes that begin with it. A row may have a term more than once: a suffix' class therefore says how many characters
//! it has in common, at most, with an earlier suffix of its row. Of those that begin with a term of n characters, just
//! the first one has less than n. So each row is found, and counted, once.

use std::collections::BTreeMap;

use schemas::Nid;

use crate::{
    Batch, StoreError,
    counted::Counted,
    keys::{KeyBuf, after_prefix},
    read::{Read, Table, malformed_key},
};

/// So many characters of a suffix are kept: a longer term is looked up by these, and the rows have to be looked at.
const SUFFIX_CHARS: usize = 32;
/// A text is found by so many characters from its beginning.
const TEXT_CHARS: usize = 256;

/// What is looked for; not empty.
#[derive(Clone, Debug)]
pub(crate) struct Term {
    text: String,
    chars: usize,
}

impl Term {
    pub(crate) fn new(term: &str) -> Self {
        let text: String = lowered(term).collect();
        Self { chars: text.chars().count(), text }
    }

    /// Whether [`Suffixes`] finds just the rows that have it, and not others that have only its beginning.
    pub(crate) const fn is_exact(&self) -> bool {
        self.chars <= SUFFIX_CHARS
    }

    /// Whether it is in a text.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        lowered(text).take(TEXT_CHARS).collect::<String>().contains(&self.text)
    }
}

/// Each character for itself: a word's end has no influence, as a term may end anywhere.
fn lowered(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

/// What a row is found by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Texts<'a> {
    pub(crate) texts: Vec<&'a str>,
    /// What the row can be filtered by.
    pub(crate) class: u8,
}

impl Texts<'_> {
    /// The suffixes of a row, and their classes.
    fn suffixes(&self, row: Nid) -> BTreeMap<Vec<u8>, u16> {
        let texts: Vec<Vec<char>> = self.texts.iter().map(|text| lowered(text).take(TEXT_CHARS).collect()).collect();
        let mut earlier: Vec<&[char]> = Vec::new();
        let mut suffixes = BTreeMap::new();
        for text in &texts {
            for start in 0..text.len() {
                let suffix = &text[start..text.len().min(start + SUFFIX_CHARS)];
                let common = earlier.iter().map(|earlier| common(earlier, suffix)).max().unwrap_or(0);
                let key = KeyBuf::new().str(&suffix.iter().collect::<String>()).nid(row);
                // One that was there already has all of it in common: it is never the first.
                suffixes.entry(key.into()).or_insert((common as u16) << 8 | u16::from(self.class));
                earlier.push(suffix);
            }
        }
        suffixes
    }
}

/// How many characters two texts begin with together.
fn common(a: &[char], b: &[char]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The suffixes of many rows' texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suffixes(Counted);

impl Suffixes {
    pub(crate) const fn new(table: Table, scope: u8) -> Self {
        Self(Counted::new(table, scope))
    }

    /// Brings a row's suffixes from what they were to what they are: none of a row that is not there.
    pub(crate) fn change(
        &self,
        batch: &mut Batch<'_>,
        row: Nid,
        was: Option<Texts<'_>>,
        is: Option<Texts<'_>>,
    ) -> Result<(), StoreError> {
        if was == is {
            return Ok(());
        }
        let suffixes = |texts: Option<Texts<'_>>| texts.map(|texts| texts.suffixes(row)).unwrap_or_default();
        let (was, is) = (suffixes(was), suffixes(is));
        for key in was.keys().filter(|key| !is.contains_key(*key)) {
            self.0.remove(batch, key)?;
        }
        for (key, class) in is.iter().filter(|(key, class)| was.get(*key) != Some(class)) {
            self.0.insert(batch, key, *class, &[])?;
        }
        Ok(())
    }

    /// How many rows of some classes have a term: those that have its beginning, if it is not exact.
    pub(crate) fn count(&self, read: &dyn Read, term: &Term, classes: &dyn Fn(u8) -> bool) -> Result<u64, StoreError> {
        let Looked { from, to, chars } = Looked::of(term);
        self.0.count(read, &from, to.as_deref(), &|class| is_first(class, chars) && classes(class as u8))
    }

    /// The rows of some classes that have a term, or its beginning, in no order.
    pub(crate) fn rows(
        &self,
        read: &dyn Read,
        term: &Term,
        classes: &dyn Fn(u8) -> bool,
    ) -> Result<Vec<Nid>, StoreError> {
        let Looked { from, to, chars } = Looked::of(term);
        let wanted = Box::new(move |class| is_first(class, chars) && classes(class as u8));
        let entries = self.0.entries(read, (&from, to.as_deref()), false, wanted, 0)?;
        let row = |key: &[u8]| key.last_chunk().map(|nid| Nid::from_bytes(*nid));
        entries.map(|entry| row(&entry?.key).ok_or_else(|| malformed_key(self.0.table()))).collect()
    }
}

/// Whether a suffix of this class is the first of its row with a term of so many characters.
const fn is_first(class: u16, chars: usize) -> bool {
    ((class >> 8) as usize) < chars
}

/// Where the suffixes that begin with a term lie.
struct Looked {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    chars: usize,
}

impl Looked {
    fn of(term: &Term) -> Self {
        let text: String = term.text.chars().take(SUFFIX_CHARS).collect();
        let mut from: Vec<u8> = KeyBuf::new().str(&text).into();
        // Without what ends a text.
        from.truncate(from.len() - 2);
        Self { to: after_prefix(&from), from, chars: term.chars.min(SUFFIX_CHARS) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};
    use schemas::Lsn;

    use super::*;
    use crate::{Model, testing::Nothing};

    const INDEX: Suffixes = Suffixes::new(Table { model: Model::Admission, prefix: 1 }, 7);

    fn nid(row: u64) -> Nid {
        Nid { lsn: Lsn(row), index: 0 }
    }

    /// What stands in the index, beside it.
    type Rows = BTreeMap<u64, (Vec<String>, u8)>;

    fn set(batch: &mut Batch<'_>, rows: &mut Rows, row: u64, is: Option<&(Vec<String>, u8)>) {
        let was = match is {
            Some(is) => rows.insert(row, is.clone()),
            None => rows.remove(&row),
        };
        fn texts((texts, class): &(Vec<String>, u8)) -> Texts<'_> {
            Texts { texts: texts.iter().map(String::as_str).collect(), class: *class }
        }
        INDEX.change(batch, nid(row), was.as_ref().map(texts), is.map(texts)).unwrap();
    }

    fn check(read: &dyn Read, rows: &Rows, term: &str, wanted: u8) {
        let (term, classes) = (Term::new(term), |class: u8| wanted & 1 << class != 0);
        let looked: String = term.text.chars().take(SUFFIX_CHARS).collect();
        let looked = Term::new(&looked);
        let has = |texts: &[String]| texts.iter().any(|text| looked.is_in(text));
        let expected = rows.iter().filter(|(_, (texts, class))| has(texts) && classes(*class));
        let expected: BTreeSet<_> = expected.map(|(row, _)| nid(*row)).collect();
        let found = INDEX.rows(read, &term, &classes).unwrap();
        assert_eq!((found.len(), found.into_iter().collect::<BTreeSet<_>>()), (expected.len(), expected.clone()));
        assert_eq!(INDEX.count(read, &term, &classes).unwrap(), expected.len() as u64);
    }

    /// Few characters, so that much repeats; some change their length in lower case.
    fn text(length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
        let chars = prop_oneof![5 => Just('a'), 3 => Just('B'), 1 => Just('\0'), 1 => Just('İ'), 1 => Just('Σ')];
        vec(chars, length).prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn rows_are_found_and_counted_once_after_any_changes(
            changes in vec((0..6_u64, proptest::option::weighted(0.8, (vec(text(0..12), 0..3), 0..3_u8))), 0..25),
            at in 0..25_usize,
            terms in vec((text(1..6), 0..8_u8), 1..12),
        ) {
            let mut rows = Rows::new();
            let mut first = Batch::new(&Nothing);
            let (before, after) = changes.split_at(at.min(changes.len()));
            before.iter().for_each(|(row, is)| set(&mut first, &mut rows, *row, is.as_ref()));
            let mut second = Batch::new(&first);
            after.iter().for_each(|(row, is)| set(&mut second, &mut rows, *row, is.as_ref()));
            for (term, wanted) in terms {
                check(&second, &rows, &term, wanted);
            }
            for row in rows.clone().into_keys() {
                set(&mut second, &mut rows, row, None);
            }
            let left = second.scan(Table { model: Model::Admission, prefix: 1 }, crate::Range::prefix([])).count();
            prop_assert_eq!(left, 0);
        }
    }

    #[test]
    fn long_texts_and_terms_are_bounded() {
        let mut batch = Batch::new(&Nothing);
        let mut rows = Rows::new();
        let text = format!("{}needle", "x".repeat(TEXT_CHARS - 3));
        set(&mut batch, &mut rows, 1, Some(&(vec![text, "0123456789".repeat(4)], 0)));
        set(&mut batch, &mut rows, 2, Some(&(vec![format!("{}!", "0123456789".repeat(4))], 0)));
        for (term, exact) in [("nee", true), ("need", true), (&"x".repeat(40), false), (&"0123456789".repeat(4), false)]
        {
            assert_eq!(Term::new(term).is_exact(), exact);
            check(&batch, &rows, term, 1);
        }
        assert!(Term::new("xnee").is_in(&rows[&1].0[0]) && !Term::new("need").is_in(&rows[&1].0[0]));
    }
}
