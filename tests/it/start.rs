//! Starting on what an earlier run left.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use everfold::{fold, server::StartError};
use projections::{Generation, Generations, Model, Store, StoreError, StoreOptions, digest, models};
use schemas::{Blob, RawFact, Record, RecordId, codec};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    common::{TestServer, replay, until},
    moving::{copy, restore},
};

#[tokio::test]
async fn a_read_model_ahead_of_its_log_refuses_to_start() {
    let server = TestServer::start().await;
    server.user("alice").await;
    let folder = RefCell::new(PathBuf::new());
    let started = server.restart_after(|config| {
        std::fs::remove_dir_all(config.log_folder()).unwrap();
        folder.replace(config.log_folder());
    });
    let error = started.await.err().expect("a lost log must be refused");
    let StartError::Fold(fold::StartError::Store(StoreError::AheadOfLog { cursor, tail })) = error else {
        panic!("refused for another reason: {error}");
    };
    assert!(cursor > tail && tail == schemas::Lsn::ZERO, "{cursor} {tail}");
}

#[tokio::test]
async fn a_read_model_of_another_log_refuses_to_start() {
    let kept = tempfile::tempdir().unwrap();
    let other = TestServer::start().await;
    for name in ["one", "two", "three"] {
        other.user(name).await;
    }
    let other = other.restart_after(|config| copy(&config.log_folder(), kept.path())).await.unwrap();
    other.finish().await;
    let server = TestServer::start().await;
    server.user("alice").await;
    let started = server.restart_after(|config| {
        std::fs::remove_dir_all(config.log_folder()).unwrap();
        copy(kept.path(), &config.log_folder());
    });
    let error = started.await.err().expect("another log must be refused");
    assert!(matches!(error, StartError::Fold(fold::StartError::Store(StoreError::OtherLog { .. }))), "{error}");
}

#[tokio::test]
async fn read_models_that_are_gone_are_folded_again() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let token = alice.token().to_owned();
    let server = server.restart_after(|config| std::fs::remove_dir_all(config.read_models_folder()).unwrap()).await;
    let server = server.unwrap();
    let whoami = server.client().with_token(&token).get("/account/whoami").await.ok();
    assert_eq!(whoami["user_id"], "@alice:test.example");
    server.finish().await;
}

/// Makes it so that another version of some models was folded, and of another nothing.
fn make_older(read_models: &Path, other: &[Model], missing: Model) {
    let store = Store::open(read_models, StoreOptions::default()).unwrap();
    let mut generations = store.generations().unwrap();
    for &model in other {
        let older = Generation { version: 0, ..generations.of(model).unwrap().clone() };
        store.create_family(&older.family()).unwrap();
        generations.set(model, older);
    }
    let kept: Vec<&Generation> = generations.iter().filter(|generation| generation.model != missing.name()).collect();
    let generations: Generations = codec::decode(&codec::encode(&kept)).unwrap();
    store.commit(rocksdb::WriteBatch::default(), None, Some(&generations)).unwrap();
}

#[tokio::test]
async fn models_of_another_version_are_folded_anew_with_those_that_they_read() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.say(&room, "before").await;
    let mut before = Vec::new();
    let server = server.restart_after(|config| {
        before = replay::digest_of(&config.read_models_folder());
        make_older(&config.read_models_folder(), &[Model::Timeline, Model::Receipts], Model::Audit);
    });
    let server = server.await.unwrap();
    let view = server.app().view().unwrap();
    assert_eq!(digest::all(&view).unwrap(), before);
    let anew = models::with_reads(&[Model::Timeline, Model::Receipts, Model::Audit]);
    for projection in models::ALL {
        let generation = view.generations().of(projection.model).unwrap();
        let is_anew = anew.iter().any(|other| other.model == projection.model);
        let expected = if is_anew && projection.model != Model::Audit { 2 } else { 1 };
        assert_eq!((generation.version, generation.generation), (projection.version, expected), "{generation:?}");
    }
    drop(view);
    let bob = server.client().with_token(bob.token());
    bob.say(&room, "after").await;
    let page = bob.page(&room, "dir=b&limit=2").await;
    let said: Vec<_> = page["chunk"].as_array().unwrap().iter().map(|event| &event["content"]["body"]).collect();
    assert_eq!(said, ["after", "before"]);
    server.finish().await;
}

#[tokio::test]
async fn a_read_model_of_another_history_refuses_to_start() {
    let server = TestServer::start().await;
    server.user("alice").await;
    let tail = server.app().reader.tail();
    let started = server.restart_after(|config| {
        let store = Store::open(&config.read_models_folder(), StoreOptions::default()).unwrap();
        let mut cursor = store.cursor().unwrap();
        cursor.chain = cursor.chain_before;
        store.commit(rocksdb::WriteBatch::default(), Some(&cursor), None).unwrap();
    });
    let error = started.await.err().expect("another history must be refused");
    let StartError::Fold(fold::StartError::Store(StoreError::OtherHistory { lsn, found, expected })) = error else {
        panic!("refused for another reason: {error}");
    };
    assert_eq!(lsn, tail);
    assert_ne!(found, expected);
}

#[tokio::test]
async fn a_fact_of_a_newer_build_stops_the_fold_and_the_next_start() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let data = format!("/user/{}/account_data/org.example", alice.user);
    alice.put(&data, json!({ "n": 1 })).await.ok();
    let app = server.app();
    let last = app.reader.read(app.reader.tail(), 1, usize::MAX).unwrap().remove(0);
    let mut record = Record::decode(&last.bytes).unwrap();
    record.header.id = RecordId([9; 16]);
    record.facts = vec![RawFact { number: 9_999, version: 1, body: Blob::default() }];
    let receipt = app.commands.parts().log.append(vec![record.encode().unwrap().into()]).remove(0);
    let lsn = receipt.await.unwrap().unwrap();
    until(async || app.progress.stopped().is_some()).await;
    let unknown = "fact 9999 version 1 is unknown to this build; a newer Everfold wrote it";
    let told = format!("record {lsn} can't be folded: {unknown}");
    let ready = alice.get("/health/ready").await;
    assert_eq!((ready.status.as_u16(), &ready["ready"]), (503, &json!(false)));
    assert!(ready["stopped"].as_str().unwrap().contains(&told), "{}", ready.text);
    assert_eq!(alice.get(&data).await.ok(), json!({ "n": 1 }), "reading goes on");
    assert_eq!(alice.put(&data, json!({ "n": 2 })).await.error(), (503, "M_UNKNOWN"));

    let error = server.restart_after(|_| {}).await.err().expect("it must not start");
    assert!(error.to_string().starts_with(&told), "{error}");
    assert!(matches!(error, StartError::Fold(fold::StartError::Fold(_))), "{error:?}");
}

#[tokio::test]
async fn read_models_of_a_future_that_was_lost_are_refused() {
    let (server, older) = (TestServer::start().await, TempDir::new().unwrap());
    server.user("alice").await;
    let server = server.restart_after(|config| copy(&config.log_folder(), older.path())).await.unwrap();
    let kept = server.app().reader.tail();
    server.user("bob").await;
    let lost = server.app().reader.tail();
    let started = server.restart_after(|config| _ = restore(config, older.path())).await;
    let error = started.err().expect("it must not start");
    let StartError::Fold(fold::StartError::Store(StoreError::LostFuture { cursor, fork, epoch })) = &error else {
        panic!("refused for another reason: {error}");
    };
    assert_eq!((*cursor, *fork), (lost, kept));
    assert!(*epoch > lost && epoch.0 >> 40 == 1);
    assert!(error.to_string().contains(&format!("are at Lsn {lost}, but this log was restored up to Lsn {kept}")));
}
