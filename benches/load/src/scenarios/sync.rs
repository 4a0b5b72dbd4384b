//! /sync of a user in many rooms.

use std::cell::{Cell, RefCell};

use anyhow::{Context, Result, ensure};

use crate::client::{Account, next_batch};
use crate::measure::{Limits, Outcome, closed_loop, to_float};
use crate::setup::{Env, each};

/// Users who make the rooms, the other member of each.
const OWNERS: usize = 8;
/// Messages in each room.
const MESSAGES_EACH: usize = 3;
/// Rooms with something new for an incremental sync.
const NEW_IN: usize = 10;
/// Bounds of calls: an initial sync is heavy, an idle one light.
const INITIAL_CALLS: usize = 40;
const IDLE_CALLS: usize = 5000;

/// Initial, incremental and idle sync, for every number of rooms asked for.
pub async fn all_kinds(env: &Env) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for rooms in &env.sizes.rooms {
        outcomes.extend(with_rooms(env, *rooms).await.with_context(|| format!("with {rooms} rooms"))?);
    }
    Ok(outcomes)
}

async fn with_rooms(env: &Env, count: usize) -> Result<Vec<Outcome>> {
    eprintln!("  making {count} rooms with two members and {MESSAGES_EACH} messages each");
    let user = env.account(&format!("sync-{count}")).await?;
    let owners = env.accounts(&format!("sync-{count}-owner"), OWNERS).await?;
    let mut rooms = vec![String::new(); count];
    each(rooms.iter_mut().enumerate().map(|(number, room)| {
        let (user, owner) = (&user, &owners[number % OWNERS]);
        async move {
            *room = make_room(env, owner, user, number).await?;
            Ok(())
        }
    }))
    .await?;

    Ok(vec![
        initial(env, &user, count).await?,
        incremental(env, &user, &owners, &rooms).await?,
        idle(env, &user, count).await?,
    ])
}

async fn make_room(env: &Env, owner: &Account, user: &Account, number: usize) -> Result<String> {
    let mut options = env.room_options("public_chat", Some(&format!("Room {number}")));
    options["topic"] = "A room among many".into();
    let room = owner.create_room(&options).await.context("create a room")?;
    user.join(&room).await.context("join a room")?;
    for message in 0..MESSAGES_EACH {
        owner.send(&room, &format!("m{number}-{message}"), "something said here").await.context("send a message")?;
    }
    Ok(room)
}

async fn initial(env: &Env, user: &Account, count: usize) -> Result<Outcome> {
    let limits = Limits { calls: INITIAL_CALLS, ..env.sizes.limits };
    let bytes = Cell::new(0);
    let calls = closed_loop(&[()], limits, async |(), number| {
        bytes.set(user.sync(None, 0, Some(&unlike_filter("initial", number))).await?.len());
        Ok(())
    });
    let outcome = env.meter.measure(&format!("sync-initial-{count}"), calls).await?;
    Ok(outcome.with("answer_kb", to_float(bytes.get() as u64) / 1000.0))
}

async fn incremental(env: &Env, user: &Account, owners: &[Account], rooms: &[String]) -> Result<Outcome> {
    let since = user.position().await.context("sync")?;
    for (number, room) in rooms.iter().enumerate().take(NEW_IN) {
        owners[number % OWNERS].send(room, &format!("n{number}"), "something new").await.context("send a message")?;
    }
    let limits = Limits { calls: IDLE_CALLS, ..env.sizes.limits };
    let bytes = Cell::new(0);
    let calls = closed_loop(&[()], limits, async |(), number| {
        bytes.set(user.sync(Some(&since), 0, Some(&unlike_filter("incremental", number))).await?.len());
        Ok(())
    });
    let outcome = env.meter.measure(&format!("sync-incremental-{}", rooms.len()), calls).await?;
    Ok(outcome.with("answer_kb", to_float(bytes.get() as u64) / 1000.0))
}

async fn idle(env: &Env, user: &Account, count: usize) -> Result<Outcome> {
    // As a client does, each call goes on from the last one's answer.
    let since = RefCell::new(user.position().await.context("sync")?);
    let limits = Limits { calls: IDLE_CALLS, ..env.sizes.limits };
    let calls = closed_loop(&[()], limits, async |(), _| {
        let last = since.borrow().clone();
        *since.borrow_mut() = next_batch(&user.sync(Some(&last), 0, None).await?)?;
        Ok(())
    });
    let outcome = env.meter.measure(&format!("sync-idle-{count}"), calls).await?;
    ensure!(outcome.calls > 0, "no idle sync succeeded: {}", outcome.first_error.unwrap_or_default());
    Ok(outcome)
}

/// A filter that filters nothing out, unlike those of the other calls: a server that keeps the answers of equal syncs
/// (Synapse does, for two minutes) has to work each out.
fn unlike_filter(kind: &str, number: usize) -> String {
    format!(r#"{{"presence":{{"not_types":["load.{kind}.{number}"]}}}}"#)
}
