//! Reading a room: its history, its state, its members.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::{Account, CallResult};
use crate::measure::{Limits, Outcome, Tally, closed_loop, to_float};
use crate::setup::{Env, each};

/// Events of one page.
const PAGE: usize = 100;
/// Bound of calls for the whole state, whose answers are large.
const STATE_CALLS: usize = 2000;

/// Pages backwards through a room's history, again and again.
pub async fn messages(env: &Env) -> Result<Vec<Outcome>> {
    let history = env.sizes.history;
    let owner = env.account("historian").await?;
    let room = env.open_room(&owner).await?;
    eprintln!("  sending {history} messages");
    each((0..history).map(|number| {
        let (owner, room) = (&owner, &room);
        async move {
            let sent = owner
                .send(room, &format!("h{number}"), &format!("message number {number} of a room with a past"))
                .await;
            sent.map(drop).context("send a message")
        }
    }))
    .await?;

    let events = Cell::new(0);
    let reading = async {
        let mut tally = Tally::new()?;
        let start = Instant::now();
        loop {
            match read_back(&owner, &room, &mut tally).await {
                Ok(read) => {
                    ensure!(read >= history, "a room of {history} messages shows only {read} events");
                    events.set(events.get() + read as u64);
                }
                Err(error) => tally.record(Duration::ZERO, Err(error)),
            }
            if start.elapsed() >= env.sizes.limits.time {
                return Ok(tally);
            }
        }
    };
    let outcome = env.meter.measure(&format!("messages-of-{history}"), reading).await?;
    let events = to_float(events.get());
    let per_second = events / outcome.seconds;
    let cpu = outcome.cpu_ms().map(|cpu| cpu / events * 1000.0);
    let outcome = outcome.with("events_per_second", per_second);
    Ok(vec![match cpu {
        Some(cpu) => outcome.with("cpu_ms_per_1000_events", cpu),
        None => outcome,
    }])
}

/// Reads the room to its beginning and gives the number of events.
async fn read_back(reader: &Account, room: &str, tally: &mut Tally) -> CallResult<usize> {
    let (mut from, mut events) = (None, 0);
    loop {
        let start = Instant::now();
        let page = reader.messages(room, from.as_deref(), PAGE).await?;
        tally.record(start.elapsed(), Ok(()));
        events += page.chunk.len();
        match page.end {
            Some(end) if !page.chunk.is_empty() => from = Some(end),
            _ => return Ok(events),
        }
    }
}

/// The current state of a large room, and its members.
pub async fn state(env: &Env) -> Result<Vec<Outcome>> {
    let room = env.large_room().await?;
    let limits = Limits { calls: env.sizes.limits.calls.min(STATE_CALLS), ..env.sizes.limits };
    let bytes = Cell::new(0);
    let state = closed_loop(&[()], limits, async |(), _| {
        bytes.set(room.owner.state(&room.id).await?);
        Ok(())
    });
    let state = env.meter.measure(&format!("state-of-{}", env.sizes.members), state).await?;
    let state = state.with("answer_kb", to_float(bytes.get() as u64) / 1000.0);
    let members = closed_loop(&[()], limits, async |(), _| {
        bytes.set(room.owner.members(&room.id).await?);
        Ok(())
    });
    let members = env.meter.measure(&format!("members-of-{}", env.sizes.members), members).await?;
    Ok(vec![state, members.with("answer_kb", to_float(bytes.get() as u64) / 1000.0)])
}

/// Many readers at once, each of whom looks at the latest page of a room again and again: what nodes are added for.
pub async fn latest(env: &Env) -> Result<Vec<Outcome>> {
    let readers = env.accounts("reader", env.sizes.senders).await?;
    let mut rooms = Vec::new();
    for reader in readers {
        let room = env.private_room(&reader).await?;
        rooms.push((reader, room));
    }
    each(rooms.iter().map(async |(reader, room)| {
        for number in 0..PAGE {
            reader.send(room, &format!("r{number}"), "something to read").await.context("send a message")?;
        }
        Ok(())
    }))
    .await?;
    let calls = closed_loop(&rooms, env.sizes.limits, async |(reader, room), _| {
        reader.messages(room, None, PAGE).await?;
        Ok(())
    });
    Ok(vec![env.meter.measure(&format!("reads-{}", rooms.len()), calls).await?])
}
