//! Accounts and rooms made before a phase is measured.

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::cli::Sizes;
use crate::client::{Account, Server};
use crate::measure::Meter;

/// Calls at once during set-up.
const SET_UP_AT_ONCE: usize = 8;

/// What every scenario works with.
#[derive(Debug)]
pub struct Env {
    server: Server,
    /// Sizes in force.
    pub sizes: Sizes,
    /// Measures phases.
    pub meter: Meter,
    crowd: OnceCell<Vec<Account>>,
    large_room: OnceCell<LargeRoom>,
}

/// A room with as many members as `--members` says.
#[derive(Debug)]
pub struct LargeRoom {
    /// Room id.
    pub id: String,
    /// Its creator.
    pub owner: Account,
}

impl Env {
    /// An environment in which nothing is set up yet.
    pub fn new(server: Server, sizes: Sizes, meter: Meter) -> Self {
        Self { server, sizes, meter, crowd: OnceCell::new(), large_room: OnceCell::new() }
    }

    /// `count` new accounts; `label` is unique within the run.
    pub async fn accounts(&self, label: &str, count: usize) -> Result<Vec<Account>> {
        if count >= 100 {
            eprintln!("  registering {count} users");
        }
        let registrations =
            (0..count).map(|number| async move { self.server.register(&format!("{label}-{number}")).await });
        stream::iter(registrations).buffered(SET_UP_AT_ONCE).try_collect().await
    }

    /// One new account.
    pub async fn account(&self, label: &str) -> Result<Account> {
        self.server.register(label).await
    }

    /// A new room that anyone may join.
    pub async fn open_room(&self, owner: &Account) -> Result<String> {
        owner.create_room(&self.room_options("public_chat", None)).await.context("create a room")
    }

    /// A new room with a name, to which its creator alone belongs.
    pub async fn private_room(&self, owner: &Account) -> Result<String> {
        owner.create_room(&self.room_options("private_chat", Some("Load"))).await.context("create a room")
    }

    /// The body of a createRoom call.
    pub fn room_options(&self, preset: &str, name: Option<&str>) -> serde_json::Value {
        let mut options = json!({ "preset": preset });
        if let Some(name) = name {
            options["name"] = json!(name);
        }
        if let Some(version) = &self.sizes.room_version {
            options["room_version"] = json!(version);
        }
        options
    }

    /// Lets all `members` join a room.
    pub async fn join_all(&self, room: &str, members: &[Account]) -> Result<()> {
        each(members.iter().map(|member| async move { member.join(room).await.context("join a room") })).await
    }

    /// Users with no purpose but to be members of large rooms; the same for all scenarios.
    pub async fn crowd(&self) -> Result<&[Account]> {
        let count = self.sizes.joins.max(self.sizes.members.saturating_sub(1));
        Ok(self.crowd.get_or_try_init(|| self.accounts("crowd", count)).await?)
    }

    /// The large room, made when first asked for.
    pub async fn large_room(&self) -> Result<&LargeRoom> {
        self.large_room.get_or_try_init(|| self.make_large_room()).await
    }

    async fn make_large_room(&self) -> Result<LargeRoom> {
        let others = self.sizes.members.saturating_sub(1);
        let crowd = self.crowd().await?;
        eprintln!("  letting {others} users join a room");
        let owner = self.account("large-owner").await?;
        let id = self.open_room(&owner).await?;
        self.join_all(&id, crowd.get(..others).context("the crowd is too small")?).await?;
        Ok(LargeRoom { id, owner })
    }
}

/// Runs the steps of a set-up, some at once.
pub async fn each(steps: impl Iterator<Item = impl Future<Output = Result<()>>>) -> Result<()> {
    stream::iter(steps).buffer_unordered(SET_UP_AT_ONCE).try_collect().await
}
