use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
};

use schemas::{Fact, Json, Lsn, facts::ProfileFieldSet};
use tempfile::TempDir;

use super::*;
use crate::{
    Model, Projector, Reader, Source,
    digest::{self, Digest},
    models::profiles,
    testing::{World, empty_store},
};

fn name(n: u64) -> ProfileFieldSet {
    let value = Some(Json::from(format!("\"{n} {}\"", "x".repeat(30_000))));
    ProfileFieldSet { user: "@alice:example.org".into(), field: "displayname".into(), value }
}

#[test]
fn there_may_be_nothing() {
    let folder = TempDir::new().unwrap();
    assert!(View::beside(folder.path()).unwrap().is_none());
    assert!(View::beside(&folder.path().join("none")).unwrap().is_none());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "looking leaves nothing behind");
    let empty = View::empty();
    assert_eq!((empty.lsn(), profiles::field(&empty, "@alice:example.org", "displayname").unwrap()), (Lsn::ZERO, None));
}

#[test]
fn a_view_beside_is_the_writers_and_stands_still() {
    let mut world = World::new();
    world.apply([name(0).into()]);
    let beside = View::beside(world.folder()).unwrap().unwrap();
    let expected = digest::all(&world.view()).unwrap();
    assert_eq!((beside.cursor(), digest::all(&beside).unwrap()), (world.view().cursor(), expected.clone()));
    world.apply([name(1).into()]);
    assert_eq!(digest::all(&beside).unwrap(), expected);
    let later = View::beside(world.folder()).unwrap().unwrap();
    assert_eq!((later.lsn(), digest::all(&later).unwrap()), (world.view().lsn(), digest::all(&world.view()).unwrap()));
}

#[test]
fn looking_leaves_nothing_behind() {
    let mut world = World::new();
    world.apply([name(0).into()]);
    // No writer any more that would make and delete files itself.
    let folder = world.close();
    let files = || fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect::<BTreeSet<_>>();
    let before = files();
    drop(View::beside(folder.path()).unwrap().unwrap());
    assert_eq!(files(), before);
}

/// The rows are large, so that the writer makes tables and deletes files meanwhile.
#[test]
fn a_view_beside_a_busy_writer_is_whole() {
    let mut world = World::new();
    let folder = world.folder().to_owned();
    let last = Lsn(1_500);
    std::thread::scope(|scope| {
        scope.spawn(|| (2..=last.0).for_each(|n| drop(world.fold([name(n).into()]))));
        loop {
            let view = match View::beside(&folder) {
                Ok(view) => view.unwrap(),
                // The writer was quicker every time.
                Err(StoreError::Restless) => continue,
                Err(error) => panic!("{error}"),
            };
            let field = profiles::field(&view, "@alice:example.org", "displayname").unwrap();
            match field {
                Some(field) => assert!(field.as_str().starts_with(&format!("\"{} ", view.lsn())), "{}", view.lsn()),
                None => assert!(view.lsn() <= Lsn::FIRST),
            }
            if view.lsn() == last {
                break;
            }
        }
    });
}

fn pool(world: &World) -> Beside {
    Beside::open(world.folder(), MEMORY, Arc::new(|| {})).unwrap().unwrap()
}

#[test]
fn a_view_stays_as_it_is_while_others_go_on() {
    let mut world = World::new();
    let mut pool = pool(&world);
    let source = pool.source();
    let mut views = vec![];
    for n in 0..20 {
        world.apply([name(n).into()]);
        if n % 5 == 0 {
            world.compact();
        }
        assert!(pool.advance().unwrap(), "a view of every third is dropped again");
        let view = source.view().unwrap();
        assert_eq!(view.cursor(), world.view().cursor());
        views.push((view, digest::all(&world.view()).unwrap()));
        if n % 3 > 0 {
            views.remove(0);
        }
    }
    for (view, expected) in &views {
        assert_eq!(digest::all(view).unwrap(), *expected, "at {}", view.lsn());
    }
}

#[test]
fn there_are_only_so_many_instances_and_a_dropped_view_gives_its_one_back() {
    let mut world = World::new();
    let freed = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&freed);
    let tell = Arc::new(move || _ = told.fetch_add(1, Ordering::SeqCst));
    let mut pool = Beside::open(world.folder(), MEMORY, tell).unwrap().unwrap();
    let source = pool.source();
    let mut views = vec![source.view().unwrap()];
    while pool.advance().unwrap() {
        views.push(source.view().unwrap());
        world.apply([name(views.len() as u64).into()]);
    }
    assert_eq!((pool.instances(), views.len()), (8, 8));
    let (last, before) = (world.view().lsn(), freed.load(Ordering::SeqCst));
    assert!(source.view().unwrap().lsn() < last);
    views.remove(3);
    assert_eq!(freed.load(Ordering::SeqCst), before + 1);
    assert!(pool.advance().unwrap());
    assert_eq!((pool.instances(), source.view().unwrap().lsn()), (8, last));
    drop(views);
    pool.close_idle();
    pool.close_idle();
    assert_eq!(pool.instances(), 2, "the one that is shown, and one that can be moved");
    assert!(pool.advance().unwrap());
}

#[test]
fn new_column_families_and_a_new_writer_are_seen() {
    let mut world = World::new();
    let mut pool = pool(&world);
    let source = pool.source();
    world.apply([name(1).into()]);
    world.rebuild(&[Model::Profiles]);
    let before = source.view().unwrap();
    assert!(pool.advance().unwrap());
    let view = source.view().unwrap();
    assert_eq!(view.generations().of(Model::Profiles).unwrap().generation, 2);
    assert_eq!(digest::all(&view).unwrap(), digest::all(&world.view()).unwrap());
    pool.renew();
    assert!(pool.advance().unwrap());
    assert_eq!(digest::all(&source.view().unwrap()).unwrap(), digest::all(&view).unwrap());
    assert_eq!(before.lsn(), Lsn::FIRST);
}

/// What an instance has in memory of a write-ahead log that went while it stood still may have been deleted since.
#[test]
fn an_instance_that_missed_a_write_ahead_log_is_not_moved() {
    let mut world = World::new();
    let set = |n: u64, value: Option<&str>| {
        Fact::from(ProfileFieldSet {
            user: format!("@user{n}:example.org"),
            field: "note".into(),
            value: value.map(|value| Json::from(value.to_owned())),
        })
    };
    world.apply((0..50).map(|n| set(n, Some("1"))));
    let mut pool = pool(&world);
    world.apply((0..50).map(|n| set(n, None)));
    world.compact();
    world.compact();
    assert!(pool.advance().unwrap());
    let view = pool.source().view().unwrap();
    assert_eq!(digest::all(&view).unwrap(), digest::all(&world.view()).unwrap());
}

/// What one record writes: rows of several models, some of which say where it stands.
fn facts(n: u64) -> Vec<Fact> {
    let field = |user: u64, size: usize| {
        let value = Some(Json::from(format!("\"{n} {}\"", "x".repeat(size))));
        Fact::from(ProfileFieldSet { user: format!("@user{user}:example.org"), field: "note".into(), value })
    };
    // Deleted again and again, so that what is missed shows.
    let gone = ProfileFieldSet { user: format!("@gone{}:example.org", n % 50), field: "note".into(), value: None };
    let there = ProfileFieldSet { value: Some(Json::from("1".to_owned())), ..gone.clone() };
    let toggled = if (n / 50).is_multiple_of(2) { there } else { gone };
    vec![field(0, 3_000), field(1, 10), field(n % 100 + 2, 300), toggled.into()]
}

fn says(view: &View, user: u64) -> Option<u64> {
    let field = profiles::field(view, &format!("@user{user}:example.org"), "note").unwrap()?;
    field.as_str().trim_matches('"').split(' ').next()?.parse().ok()
}

/// The writer makes tables, merges them, and swaps column families meanwhile, and many readers hold views.
#[test]
fn no_view_of_a_busy_writer_has_a_hole() {
    const LAST: u64 = 3_000;
    let mut world = World::new();
    let mut pool = pool(&world);
    let (source, committed, over) = (pool.source(), AtomicU64::new(1), AtomicBool::new(false));
    let samples: Mutex<BTreeMap<Lsn, Vec<Digest>>> = Mutex::default();
    let looks = AtomicUsize::new(0);
    // The writer may be so much ahead.
    let (commits, moves) = mpsc::sync_channel(16);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let commits = commits;
            for n in 2..=LAST {
                world.apply(facts(n));
                committed.store(n, Ordering::SeqCst);
                commits.send(n).unwrap();
                if n % 700 == 0 {
                    world.compact();
                }
                if n % 450 == 0 {
                    world.rebuild(&[[Model::Profiles, Model::Audit, Model::Admission][n as usize / 450 % 3]]);
                }
            }
        });
        scope.spawn(|| {
            let moves = moves;
            while let Ok(mut pushed) = moves.recv() {
                pushed = moves.try_iter().last().unwrap_or(pushed);
                while !pool.advance().unwrap() {
                    std::thread::yield_now();
                }
                assert!(pool.source().view().unwrap().lsn() >= Lsn(pushed));
            }
            over.store(true, Ordering::SeqCst);
        });
        for seed in 0..6_u64 {
            let (source, over, samples, looks) = (&source, &over, &samples, &looks);
            scope.spawn(move || {
                let mut random = seed;
                while !over.load(Ordering::SeqCst) {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let view = source.view().unwrap();
                    let lsn = view.lsn().0;
                    for _ in 0..(random >> 33) % 50 {
                        std::thread::yield_now();
                        let expected = Some(lsn).filter(|lsn| *lsn > 1);
                        assert_eq!((says(&view, 0), says(&view, 1)), (expected, expected));
                    }
                    if lsn > 110 {
                        let others = (2..102).map(|user| says(&view, user).unwrap()).collect::<BTreeSet<_>>();
                        assert_eq!(others, (lsn - 99..=lsn).collect(), "the last hundred records, at {lsn}");
                    }
                    looks.fetch_add(1, Ordering::SeqCst);
                    if seed < 2 {
                        let digest = digest::all(&view).unwrap();
                        samples.lock().unwrap().insert(view.lsn(), digest);
                    }
                }
            });
        }
    });
    assert_eq!(source.view().unwrap().lsn(), Lsn(LAST));
    let mut samples = samples.into_inner().unwrap();
    samples.insert(Lsn(LAST), digest::all(&source.view().unwrap()).unwrap());
    assert!(looks.into_inner() > 100 && samples.len() >= 3, "{}", samples.len());
    check_digests(&world, samples);
}

/// Digests are those of a fold up to the same records.
fn check_digests(world: &World, samples: BTreeMap<Lsn, Vec<Digest>>) {
    let (store, _folder) = empty_store();
    let mut again = Projector::open(Arc::clone(&store)).unwrap();
    let reader = Reader::new(store);
    for (lsn, digest) in samples {
        let rest: Vec<_> =
            world.entries().iter().filter(|e| e.lsn > again.cursor().lsn && e.lsn <= lsn).cloned().collect();
        again.apply(&rest, true).unwrap();
        assert_eq!(digest::all(&reader.view().unwrap()).unwrap(), digest, "at {lsn}");
    }
}

#[test]
fn tables_of_another_version_are_refused() {
    let mut world = World::new();
    let mut pool = pool(&world);
    world.pretend_version(Model::Profiles, 0);
    assert!(matches!(pool.advance(), Err(StoreError::OtherVersion("profiles"))));
    assert_eq!(pool.source().view().unwrap().lsn(), Lsn::FIRST, "what was seen before");
}
