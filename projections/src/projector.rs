use std::sync::Arc;

use schemas::{DecodeError, FORMAT, Fact, Lsn, Record, admission::Void};

use crate::{
    At, Batch, Cost, Cursor, FoldError, Generations, Model, Projection, Read, Store, StoreError, Touched, View,
    models::{self, admission, audit, staging},
    purge,
    store::Generation,
};

/// A record as the log gives it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its position.
    pub lsn: Lsn,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
    /// Taken out of effect by hand, because it can't be folded. That is noted beside the log, and part of it.
    pub amended: bool,
}

/// What one commit did.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The read models are at this position now.
    pub cursor: Cursor,
    /// Records of the batch that are void.
    pub voids: Vec<(Lsn, Void)>,
    /// What to wake up.
    pub touched: Touched,
    /// Records folded.
    pub records: usize,
    /// Keys read and written.
    pub cost: Cost,
}

/// The one writer of the read models.
pub struct Projector {
    store: Arc<Store>,
    generations: Generations,
    cursor: Cursor,
    /// What it folds: all models, or those that a rebuild needs.
    models: Vec<&'static Projection>,
}

impl Projector {
    /// Takes up a store where it is. Models that are missing, or of another version, are listed by
    /// [`Projector::stale`]: they must be rebuilt before anything is folded, unless the store is empty.
    ///
    /// # Errors
    /// When the store fails.
    pub fn open(store: Arc<Store>) -> Result<Self, StoreError> {
        let cursor = store.cursor()?;
        let mut generations = store.generations()?;
        if cursor.lsn == Lsn::ZERO {
            for projection in models::ALL {
                let generation = Generation::new(projection, 1);
                store.create_family(&generation.family())?;
                generations.set(projection.model, generation);
            }
            store.commit(rocksdb::WriteBatch::default(), None, Some(&generations))?;
        }
        store.drop_unnamed_families(&generations)?;
        Ok(Self { store, generations, cursor, models: models::ALL.to_vec() })
    }

    /// Where it is.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The store that it writes.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Models whose tables another version of their fold made, or none.
    #[must_use]
    pub fn stale(&self) -> Vec<Model> {
        let fits = |p: &&&'static Projection| self.generations.of(p.model).is_some_and(|g| g.version == p.version);
        models::ALL.iter().filter(|p| !fits(p)).map(|p| p.model).collect()
    }

    /// A projector that folds some models, and whatever they read, from zero into tables of their own.
    /// [`Projector::adopt`] takes those over once it has come as far as this one.
    ///
    /// # Errors
    /// When the store fails.
    pub fn rebuild(&self, wanted: &[Model]) -> Result<Self, StoreError> {
        let models = models::with_reads(wanted);
        let mut generations = self.generations.clone();
        for projection in &models {
            let before = self.generations.of(projection.model).map_or(0, |g| g.generation);
            let generation = Generation::new(projection, before + 1);
            self.store.create_family(&generation.family())?;
            generations.set(projection.model, generation);
        }
        Ok(Self { store: Arc::clone(&self.store), generations, cursor: Cursor::default(), models })
    }

    /// Takes over the tables of a rebuild that has come exactly as far. The old column families stay until
    /// [`Projector::drop_old_families`].
    ///
    /// # Errors
    /// When the store fails, or the rebuild stands elsewhere.
    pub fn adopt(&mut self, rebuild: &Self) -> Result<(), FoldError> {
        if rebuild.cursor.lsn != self.cursor.lsn || rebuild.cursor.chain != self.cursor.chain {
            return Err(StoreError::OtherHistory {
                lsn: rebuild.cursor.lsn,
                found: self.cursor.chain.to_string(),
                expected: rebuild.cursor.chain.to_string(),
            }
            .into());
        }
        for projection in &rebuild.models {
            if let Some(generation) = rebuild.generations.of(projection.model) {
                self.generations.set(projection.model, generation.clone());
            }
        }
        self.store.commit(rocksdb::WriteBatch::default(), None, Some(&self.generations))?;
        Ok(())
    }

    /// Drops column families that are in no use any more; views that still read one keep it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn drop_old_families(&self) -> Result<(), StoreError> {
        self.store.drop_unnamed_families(&self.generations)
    }

    /// Folds records that follow the cursor, and commits tables and cursor together. `commit_cursor` is false for a
    /// rebuild beside the live tables.
    ///
    /// # Errors
    /// When a record can't be folded or the store fails: nothing of the batch is then committed.
    pub fn apply(&mut self, entries: &[Entry], commit_cursor: bool) -> Result<Applied, FoldError> {
        let live = self.store.live(&self.generations)?;
        let mut batch = Batch::new(&live);
        let mut cursor = self.cursor.clone();
        let mut voids = Vec::new();
        for entry in entries {
            if let Some(void) = fold_record(&mut cursor, entry, &self.models, &mut batch)? {
                voids.push((entry.lsn, void));
            }
        }
        let cost = batch.cost();
        let (changes, touched) = batch.finish(&live.families)?;
        self.store.commit(changes, commit_cursor.then_some(&cursor), None)?;
        self.cursor = cursor.clone();
        Ok(Applied { cursor, voids, touched, records: entries.len(), cost })
    }
}

impl Generation {
    fn new(projection: &Projection, generation: u32) -> Self {
        Self { model: projection.model.name().to_owned(), version: projection.version, generation }
    }
}

/// Folds records that are to stand together over a view and throws the result away, so that none that can't be folded
/// gets on the log. Says what it would cost.
///
/// # Errors
/// When one can't be folded.
pub fn dry_fold(read: &dyn Read, cursor: &Cursor, records: &[Arc<[u8]>]) -> Result<Cost, FoldError> {
    let mut cursor = cursor.clone();
    let mut batch = Batch::new(read);
    for bytes in records {
        let entry = Entry { lsn: cursor.lsn.next(), bytes: Arc::clone(bytes), amended: false };
        fold_record(&mut cursor, &entry, models::ALL, &mut batch)?;
    }
    Ok(batch.cost())
}

/// Judges records beside the fold, for tools that read a log further than the read models are, or without any. What it
/// learns stays in memory.
pub struct Judge<'a> {
    cursor: Cursor,
    batch: Batch<'a>,
    models: Vec<&'static Projection>,
}

impl<'a> Judge<'a> {
    /// Goes on from where a view is.
    #[must_use]
    pub fn new(view: &'a View) -> Self {
        Self { cursor: view.cursor().clone(), batch: Batch::new(view), models: models::with_reads(&[]) }
    }

    /// Says why the next record of the log is void; none if it counts.
    ///
    /// # Errors
    /// When it can't be decoded, or the view can't be read.
    pub fn next(&mut self, entry: &Entry) -> Result<Option<Void>, FoldError> {
        fold_record(&mut self.cursor, entry, &self.models, &mut self.batch)
    }

    /// After the last record that was judged.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }
}

fn fold_record(
    cursor: &mut Cursor,
    entry: &Entry,
    models: &[&'static Projection],
    batch: &mut Batch<'_>,
) -> Result<Option<Void>, FoldError> {
    let lsn = entry.lsn;
    let refuse = |source: DecodeError| FoldError::Record { lsn, source };
    let record = Record::decode(&entry.bytes).map_err(refuse)?;
    cursor.chain_before = cursor.chain;
    cursor.chain = cursor.chain.extend(lsn, &entry.bytes);
    cursor.log_time = cursor.log_time.advance(&record);
    cursor.lsn = lsn;
    cursor.records += 1;
    if entry.amended {
        return Ok(Some(admission::amend(lsn, batch)));
    }
    let mut at = At { lsn, index: 0, header: &record.header, log_time: cursor.log_time };
    let void = admission::fold(&at, cursor.records, batch)?;
    let facts = record.facts.iter().map(|fact| fact.decode().map_err(refuse)).collect::<Result<Vec<_>, _>>()?;
    if models.iter().any(|p| p.model == Model::Audit) {
        audit::fold_record(&at, &facts, void, batch);
    }
    if void.is_some() {
        return Ok(void);
    }
    for fact in &facts {
        match fact {
            Fact::Genesis(genesis) => cursor.log_id = genesis.log_id.clone(),
            Fact::FormatBarrier(barrier) if barrier.format > FORMAT => {
                return Err(FoldError::Barrier { lsn, format: barrier.format });
            }
            Fact::StagedEvents(staged) => {
                for learned in staging::events(&at, staged, batch)? {
                    fold_fact(&mut at, &Fact::EventLearned(learned), models, batch)?;
                }
            }
            _ => {}
        }
        fold_fact(&mut at, fact, models, batch)?;
        if let Fact::StateSet(set) = fact {
            staging::forget_state(set, batch);
        }
    }
    Ok(None)
}

pub(crate) fn fold_fact(
    at: &mut At<'_>,
    fact: &Fact,
    models: &[&'static Projection],
    batch: &mut Batch<'_>,
) -> Result<(), FoldError> {
    for projection in models {
        (projection.fold)(at, fact, batch)?;
        purge::fold(projection.model, fact, batch)?;
    }
    at.index = at.index.checked_add(1).ok_or_else(|| at.refuse("it has more than 65,535 facts"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::{After, Blob, CopyId, Expect, Header, Key, Origin, Read, RecordId, Tag, facts::Genesis};

    use super::*;
    use crate::{Reader, Source, digest, testing::empty_store};

    fn entry(lsn: u64, id: u8, reads: Vec<Read>, after: Option<u8>) -> Entry {
        let key = Key::new(Tag::Alias, "#a:b");
        let header = Header {
            format: FORMAT,
            id: RecordId([id; 16]),
            attempt: 0,
            copy: CopyId::default(),
            at_ms: lsn,
            node: 0,
            origin: Origin::Server,
            cause: None,
            writes: reads.iter().map(|_| key).collect(),
            reads,
            after: after.map(|id| After { id: RecordId([id; 16]), copy: CopyId::default() }),
        };
        let genesis = Genesis { log_id: Blob(vec![7; 16]), server_name: "b".into(), format: FORMAT };
        let facts = if lsn == 1 { vec![Fact::from(genesis).encode()] } else { Vec::new() };
        Entry { lsn: Lsn(lsn), bytes: Record { header, facts }.encode().unwrap().into(), amended: false }
    }

    #[test]
    fn a_judge_says_what_the_fold_says() {
        let absent = || vec![Read { key: Key::new(Tag::Alias, "#a:b"), expect: Expect::Absent }];
        let log = [
            entry(1, 1, vec![], None),
            entry(2, 2, vec![], None),
            entry(3, 2, vec![], None),
            entry(4, 4, absent(), None),
            entry(5, 5, absent(), None),
            entry(6, 6, vec![], Some(5)),
            entry(7, 7, vec![], Some(4)),
        ];
        let expected =
            vec![(Lsn(3), Void::Repeated(Lsn(2))), (Lsn(5), Void::StaleRead(0)), (Lsn(6), Void::LostPredecessor)];
        let (store, _folder) = empty_store();
        let mut projector = Projector::open(Arc::clone(&store)).unwrap();
        let reader = Reader::new(store);
        let mut views = vec![View::empty()];
        let mut voids = Vec::new();
        for entry in &log {
            voids.extend(projector.apply(std::slice::from_ref(entry), true).unwrap().voids);
            views.push(reader.view().unwrap());
        }
        assert_eq!(voids, expected);
        for view in views {
            let mut judge = Judge::new(&view);
            let rest = log.iter().filter(|entry| entry.lsn > view.lsn());
            let judged: Vec<_> = rest.filter_map(|entry| Some((entry.lsn, judge.next(entry).unwrap()?))).collect();
            let expected: Vec<_> = expected.iter().filter(|(lsn, _)| *lsn > view.lsn()).copied().collect();
            assert_eq!((judged, judge.cursor()), (expected, projector.cursor()), "from {}", view.lsn());
        }
    }

    #[test]
    fn a_view_outlives_the_column_families_that_it_reads() {
        let (store, _folder) = empty_store();
        let mut projector = Projector::open(Arc::clone(&store)).unwrap();
        let log = [entry(1, 1, vec![], None), entry(2, 2, vec![], None)];
        projector.apply(&log, true).unwrap();
        let reader = Reader::new(Arc::clone(&store));
        let before = reader.view().unwrap();
        let expected = digest::all(&before).unwrap();
        let everything: Vec<Model> = models::ALL.iter().map(|p| p.model).collect();
        let mut rebuild = projector.rebuild(&everything).unwrap();
        rebuild.apply(&log, false).unwrap();
        projector.adopt(&rebuild).unwrap();
        projector.drop_old_families().unwrap();
        assert_eq!(digest::all(&before).unwrap(), expected, "a view of before");
        assert_eq!(digest::all(&reader.view().unwrap()).unwrap(), expected, "a view of after");
    }

    /// What folding a log says that goes on with something which this build doesn't know.
    fn refusal(bytes: Vec<u8>) -> String {
        let (store, _folder) = empty_store();
        let mut projector = Projector::open(Arc::clone(&store)).unwrap();
        projector.apply(&[entry(1, 1, vec![], None)], true).unwrap();
        let before = digest::all(&Reader::new(Arc::clone(&store)).view().unwrap()).unwrap();
        let unknown = Entry { lsn: Lsn(3), bytes: bytes.into(), amended: false };
        let error = projector.apply(&[entry(2, 2, vec![], None), unknown], true).unwrap_err();
        // Nothing of the batch is there, and it can be folded again.
        assert_eq!((projector.cursor().lsn, store.cursor().unwrap().lsn), (Lsn(1), Lsn(1)));
        assert_eq!(digest::all(&Reader::new(store).view().unwrap()).unwrap(), before);
        projector.apply(&[entry(2, 2, vec![], None)], true).unwrap();
        error.to_string()
    }

    #[test]
    fn what_this_build_does_not_know_stops_the_fold_with_its_position() {
        let plain = Record::decode(&entry(3, 3, vec![], None).bytes).unwrap();
        let with = |number, version, body: &[u8]| {
            let facts = vec![schemas::RawFact { number, version, body: Blob(body.to_vec()) }];
            Record { facts, ..plain.clone() }.encode().unwrap()
        };
        let help = "; see `everfold log amend --help`";
        let unknown = format!("is unknown to this build; a newer Everfold wrote it{help}");
        assert_eq!(refusal(with(9_999, 1, b"")), format!("record 3 can't be folded: fact 9999 version 1 {unknown}"));
        assert_eq!(refusal(with(1, 200, b"")), format!("record 3 can't be folded: fact 1 version 200 {unknown}"));
        assert_eq!(refusal(with(20, 1, b"\x09")), format!("record 3 can't be folded: the bytes are truncated{help}"));
        let mut newer = plain.encode().unwrap();
        newer[4] = FORMAT + 1;
        assert_eq!(refusal(newer), format!("record 3 can't be folded: record format 2 {unknown}"));
        let barrier = schemas::facts::FormatBarrier { format: FORMAT + 1 };
        let barrier = Record { facts: vec![Fact::from(barrier).encode()], ..plain }.encode().unwrap();
        let newer = "record 3 raises the log's format to 2, which this build doesn't know; run a newer Everfold";
        assert_eq!(refusal(barrier), newer);
    }

    #[test]
    fn models_of_another_version_are_stale_and_rebuilt_with_what_they_read() {
        let (store, _folder) = empty_store();
        let log = [entry(1, 1, vec![], None), entry(2, 2, vec![], None)];
        let mut projector = Projector::open(Arc::clone(&store)).unwrap();
        projector.apply(&log, true).unwrap();
        assert_eq!(projector.stale(), []);
        let expected = digest::all(&Reader::new(Arc::clone(&store)).view().unwrap()).unwrap();

        let mut generations = store.generations().unwrap();
        let older = Generation { version: 0, ..generations.of(Model::Timeline).unwrap().clone() };
        store.create_family(&older.family()).unwrap();
        generations.set(Model::Timeline, older);
        store.commit(rocksdb::WriteBatch::default(), None, Some(&generations)).unwrap();
        let mut projector = Projector::open(Arc::clone(&store)).unwrap();
        assert_eq!(projector.stale(), [Model::Timeline]);
        let mut rebuild = projector.rebuild(&projector.stale()).unwrap();
        rebuild.apply(&log[..1], false).unwrap();
        assert!(matches!(projector.adopt(&rebuild), Err(FoldError::Store(StoreError::OtherHistory { .. }))));
        rebuild.apply(&log[1..], false).unwrap();
        projector.adopt(&rebuild).unwrap();
        let generation = |model: Model| store.generations().unwrap().of(model).unwrap().generation;
        for model in models::with_reads(&[Model::Timeline]) {
            assert_eq!(generation(model.model), 2, "{:?}", model.model);
        }
        assert_eq!(generation(Model::Push), 1, "what it doesn't read stays");
        assert_eq!(digest::all(&Reader::new(Arc::clone(&store)).view().unwrap()).unwrap(), expected);
        assert_eq!(Projector::open(store).unwrap().stale(), []);
    }
}
