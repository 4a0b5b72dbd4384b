//! Starting on what an earlier run left.

use std::{cell::RefCell, path::PathBuf};

use everfold::{fold, server::StartError};
use projections::StoreError;

use crate::common::TestServer;

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

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}
