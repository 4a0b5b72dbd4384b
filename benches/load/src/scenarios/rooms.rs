//! Creating rooms, joining them, and changing their state.

use anyhow::{Context, Result};
use serde_json::json;

use crate::client::Account;
use crate::measure::{Limits, Outcome, closed_loop};
use crate::setup::Env;

/// createRoom with a name and a preset, by several users at once.
pub async fn create(env: &Env) -> Result<Vec<Outcome>> {
    let accounts = env.accounts("creator", env.sizes.at_once).await?;
    for account in &accounts {
        env.private_room(account).await?;
    }
    let options = env.room_options("private_chat", Some("Load"));
    let calls = closed_loop(&accounts, env.sizes.limits, async |account: &Account, _| {
        account.create_room(&options).await?;
        Ok(())
    });
    Ok(vec![env.meter.measure("create-room", calls).await?])
}

/// Joins to a room that is new.
pub async fn join_many(env: &Env) -> Result<Vec<Outcome>> {
    let crowd = env.crowd().await?;
    let joiners = crowd.get(..env.sizes.joins).context("the crowd is too small")?;
    let owner = env.account("join-owner").await?;
    let room = env.open_room(&owner).await?;
    Ok(vec![join_each(env, &format!("joins-to-one-room-{}", joiners.len()), &room, joiners).await?])
}

/// Joins to a room that has many members.
pub async fn join_large(env: &Env) -> Result<Vec<Outcome>> {
    let room = &env.large_room().await?.id;
    let joiners = env.accounts("joiner", env.sizes.joiners).await?;
    Ok(vec![join_each(env, &format!("join-room-of-{}", env.sizes.members), room, &joiners).await?])
}

async fn join_each(env: &Env, name: &str, room: &str, joiners: &[Account]) -> Result<Outcome> {
    let lanes = vec![(); env.sizes.at_once];
    let calls =
        closed_loop(&lanes, Limits::exactly(joiners.len()), async |(), number| joiners[number].join(room).await);
    env.meter.measure(name, calls).await
}

/// Many who set the topic of one room at once: each change rests on the one before it.
pub async fn contended(env: &Env) -> Result<Vec<Outcome>> {
    let accounts = env.accounts("contender", env.sizes.at_once).await?;
    let owner = accounts.first().context("at least one contender")?;
    let mut options = env.room_options("public_chat", None);
    options["power_level_content_override"] = json!({ "state_default": 0 });
    let room = owner.create_room(&options).await.context("create a room")?;
    env.join_all(&room, &accounts[1..]).await?;
    let calls = closed_loop(&accounts, env.sizes.limits, async |account: &Account, number| {
        account.topic(&room, &format!("topic number {number}")).await
    });
    Ok(vec![env.meter.measure(&format!("contended-{}", accounts.len()), calls).await?])
}
