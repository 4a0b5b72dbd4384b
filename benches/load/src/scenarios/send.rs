//! Sending messages, and their way to the other member.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::try_join;

use crate::client::{Account, CallResult, next_batch};
use crate::measure::{Outcome, Tally, closed_loop};
use crate::setup::{Env, each};

/// Rooms of each sender.
const ROOMS_EACH: usize = 2;
/// Pause before each delivery, in which the receiver's /sync begins to wait.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the receiver's /sync waits for something new.
const WAIT_MS: u32 = 30_000;

struct Sender {
    account: Account,
    rooms: Vec<String>,
}

impl Sender {
    async fn send(&self, number: usize) -> CallResult<()> {
        let room = &self.rooms[number % self.rooms.len()];
        self.account.send(room, &format!("t{number}"), &format!("message number {number}")).await?;
        Ok(())
    }

    async fn warm_up(&self) -> Result<()> {
        for (number, room) in self.rooms.iter().enumerate() {
            self.account.send(room, &format!("w{number}"), "warm-up").await.context("send a first message")?;
        }
        Ok(())
    }
}

/// Every sender writes to rooms that nobody else is in.
pub async fn to_many_rooms(env: &Env) -> Result<Vec<Outcome>> {
    let accounts = env.accounts("many", env.sizes.senders).await?;
    let mut senders: Vec<Sender> = accounts.into_iter().map(|account| Sender { account, rooms: Vec::new() }).collect();
    each(senders.iter_mut().map(|sender| async move {
        for _ in 0..ROOMS_EACH {
            sender.rooms.push(env.private_room(&sender.account).await?);
        }
        sender.warm_up().await
    }))
    .await?;
    let calls = closed_loop(&senders, env.sizes.limits, Sender::send);
    let name = format!("send-many-rooms-{}", senders.len());
    Ok(vec![env.meter.measure(&name, calls).await?])
}

/// All senders write to one room; then one of them alone.
pub async fn to_one_room(env: &Env) -> Result<Vec<Outcome>> {
    let accounts = env.accounts("hot", env.sizes.senders).await?;
    let owner = accounts.first().context("at least one sender")?;
    let room = env.open_room(owner).await?;
    env.join_all(&room, &accounts[1..]).await?;
    let senders: Vec<Sender> =
        accounts.into_iter().map(|account| Sender { account, rooms: vec![room.clone()] }).collect();
    each(senders.iter().map(Sender::warm_up)).await?;

    let name = format!("send-hot-room-{}", senders.len());
    let together = env.meter.measure(&name, closed_loop(&senders, env.sizes.limits, Sender::send)).await?;
    let alone = closed_loop(&senders[..1], env.sizes.limits, async |sender: &Sender, number| {
        sender.account.send(&room, &format!("a{number}"), &format!("message number {number}")).await?;
        Ok(())
    });
    let alone = env.meter.measure("send-hot-room-1", alone).await?;
    let gain = together.per_second.zip(alone.per_second).map(|(together, alone)| together / alone);
    Ok(vec![together.with("times_one_sender", gain.unwrap_or(f64::NAN)), alone])
}

/// One user sends, the other waits in /sync; the time is from the start of the sending to the end of the /sync.
pub async fn delivery(env: &Env) -> Result<Vec<Outcome>> {
    let (sender, receiver) = (env.account("sender").await?, env.account("receiver").await?);
    let room = env.open_room(&sender).await?;
    receiver.join(&room).await.context("join a room")?;
    let mut since = receiver.position().await.context("sync")?;
    // The first exchange warms up and is not counted.
    (_, since) = deliver(&sender, &receiver, &room, &since, 0).await.context("deliver a first message")?;

    let deliveries = async {
        let mut tally = Tally::new()?;
        for number in 1..=env.sizes.deliveries {
            match deliver(&sender, &receiver, &room, &since, number).await {
                Ok((took, next)) => {
                    tally.record(took, Ok(()));
                    since = next;
                }
                Err(error) => tally.record(Duration::ZERO, Err(error)),
            }
        }
        Ok(tally)
    };
    Ok(vec![env.meter.measure("send-to-sync", deliveries).await?.paced()])
}

async fn deliver(
    sender: &Account,
    receiver: &Account,
    room: &str,
    since: &str,
    number: usize,
) -> CallResult<(Duration, String)> {
    let text = format!("delivery-{number}-end");
    let sending = async {
        tokio::time::sleep(PAUSE).await;
        let start = Instant::now();
        sender.send(room, &format!("d{number}"), &text).await?;
        Ok(start)
    };
    let (start, (arrived, next)) = try_join(sending, receive(receiver, since.to_owned(), &text)).await?;
    Ok((arrived - start, next))
}

/// Syncs until an answer holds `text`; gives the moment of its arrival and the position after it.
async fn receive(receiver: &Account, mut since: String, text: &str) -> CallResult<(Instant, String)> {
    loop {
        let reply = receiver.sync(Some(&since), WAIT_MS, None).await?;
        let arrived = Instant::now();
        since = next_batch(&reply)?;
        if reply.windows(text.len()).any(|part| part == text.as_bytes()) {
            return Ok((arrived, since));
        }
    }
}
