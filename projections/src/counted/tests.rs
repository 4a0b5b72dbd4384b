use std::cell::Cell;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{Model, testing::Nothing};

const TABLE: Table = Table { model: Model::Admission, prefix: 1 };
/// Every second key is a fence, and every eighth one of the level above: a few entries are enough to have both.
const INDEX: Counted = Counted { table: TABLE, scope: 3, bits: [1, 3] };

#[derive(Clone, Debug)]
enum Op {
    Insert(Vec<u8>, u16, Vec<u8>),
    Remove(Vec<u8>),
}

type Sorted = BTreeMap<Vec<u8>, (u16, Vec<u8>)>;

impl Op {
    fn apply(&self, batch: &mut Batch<'_>, sorted: &mut Sorted) {
        match self {
            Self::Insert(key, class, value) => {
                INDEX.insert(batch, key, *class, value).unwrap();
                sorted.insert(key.clone(), (*class, value.clone()));
            }
            Self::Remove(key) => {
                INDEX.remove(batch, key).unwrap();
                sorted.remove(key);
            }
        }
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![0_u8..4, Just(0xff)], 0..4)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (key(), 0..4_u16, vec(any::<u8>(), 0..2)).prop_map(|(key, class, value)| Op::Insert(key, class, value)),
        2 => key().prop_map(Op::Remove),
    ]
}

fn rows(read: &dyn Read) -> Vec<Row> {
    read.scan(TABLE, Range::prefix([])).map(Result::unwrap).collect()
}

/// Applies chunks of operations, each in a batch of its own over those before; `check` sees the result.
fn layered(read: &dyn Read, chunks: &[&[Op]], sorted: &mut Sorted, check: &dyn Fn(&dyn Read, &Sorted)) {
    let Some((ops, rest)) = chunks.split_first() else { return check(read, sorted) };
    let mut batch = Batch::new(read);
    ops.iter().for_each(|op| op.apply(&mut batch, sorted));
    layered(&batch, rest, sorted, check);
}

fn check_queries(read: &dyn Read, sorted: &Sorted, from: &[u8], to: Option<&[u8]>, wanted: u16, skip: u64) {
    let classes = |class: u16| wanted & 1 << class != 0;
    let within = sorted.iter().filter(|(key, (class, _))| {
        key.as_slice() >= from && to.is_none_or(|to| key.as_slice() < to) && classes(*class)
    });
    let mut expected: Vec<_> =
        within.map(|(key, (class, value))| Entry { key: key.clone(), class: *class, value: value.clone() }).collect();
    assert_eq!(INDEX.count(read, from, to, &classes).unwrap(), expected.len() as u64);
    for falling in [false, true] {
        let found = INDEX.entries(read, (from, to), falling, Box::new(classes), skip).unwrap();
        let found: Vec<_> = found.map(Result::unwrap).collect();
        assert_eq!(found, expected.iter().skip(usize::try_from(skip).unwrap()).cloned().collect::<Vec<_>>());
        expected.reverse();
    }
}

proptest! {
    #[test]
    fn any_changes_in_any_batches_leave_what_a_sort_would(
        ops in vec(op(), 0..120),
        size in 1..40_usize,
        queries in vec((key(), proptest::option::of(key()), 0..16_u16, 0..30_u64), 1..8),
    ) {
        let chunks: Vec<_> = ops.chunks(size).collect();
        layered(&Nothing, &chunks, &mut Sorted::new(), &|read, sorted| {
            for (from, to, wanted, skip) in &queries {
                check_queries(read, sorted, from, to.as_deref(), *wanted, *skip);
            }
            check_queries(read, sorted, &[], None, 15, 0);
            // The rows are those of the entries that are left, however they came to be.
            let mut fresh = Batch::new(&Nothing);
            for (key, (class, value)) in sorted {
                INDEX.insert(&mut fresh, key, *class, value).unwrap();
            }
            assert_eq!(rows(read), rows(&fresh));
        });
    }
}

/// Counts the rows that are read.
struct Counting<'a>(&'a dyn Read, Cell<usize>);

impl Read for Counting<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.1.set(self.1.get() + 1);
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        Box::new(self.0.scan(table, range).inspect(|_| self.1.set(self.1.get() + 1)))
    }
}

#[test]
fn a_page_costs_some_hundred_rows_wherever_it_is() {
    const MANY: u64 = 100_000;
    let index = Counted::new(TABLE, 0);
    let mut batch = Batch::new(&Nothing);
    for n in 0..MANY {
        // One entry in ten thousand is of class 1, all in the last tenth.
        let class = u16::from(n % 1_000 == 7 && n >= MANY - MANY / 10);
        index.insert(&mut batch, &n.to_be_bytes(), class, &[]).unwrap();
    }
    let cost = |look: &dyn Fn(&dyn Read)| {
        let counting = Counting(&batch, Cell::new(0));
        look(&counting);
        counting.1.get()
    };
    let page = |read: &dyn Read, falling, class: u16, skip, expected: &[u64]| {
        let classes = |it: u16| class == 2 || it == class;
        let found = index.entries(read, (&[], None), falling, Box::new(classes), skip).unwrap().take(expected.len());
        let found: Vec<_> = found.map(|entry| u64::from_be_bytes(entry.unwrap().key.try_into().unwrap())).collect();
        assert_eq!(found, expected);
    };
    for skip in [0, 10, MANY / 2, MANY - 100] {
        for falling in [false, true] {
            let expected: Vec<_> = (skip..skip + 100).map(|n| if falling { MANY - 1 - n } else { n }).collect();
            let cost = cost(&|read| page(read, falling, 2, skip, &expected));
            assert!(cost < 1_500, "{cost} rows at {skip}, falling: {falling}");
        }
    }
    let rare = cost(&|read| page(read, false, 1, 3, &[93_007, 94_007, 95_007]));
    assert!(rare < 3_000, "{rare}");
    let count = cost(&|read| assert_eq!(index.count(read, &[], None, &|class| class == 1).unwrap(), 10));
    assert!(count < 100, "{count}");
    let half = cost(&|read| {
        let from = 33_333_u64.to_be_bytes();
        assert_eq!(index.count(read, &from, Some(&83_333_u64.to_be_bytes()), &|_| true).unwrap(), 50_000);
    });
    assert!(half < 2_000, "{half}");

    let mut batch = Batch::new(&batch);
    let before = batch.cost();
    index.insert(&mut batch, &[9; 4], 0, &[]).unwrap();
    let writes = batch.cost().writes - before.writes;
    assert_eq!(writes, 3);
}
