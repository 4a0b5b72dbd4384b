//! Many users who do what users do.

use std::cell::RefCell;

use anyhow::{Context, Result};

use crate::client::{Account, CallResult, next_batch};
use crate::measure::{Outcome, closed_loop};
use crate::setup::{Env, each};

/// Users for each room that is made.
const USERS_PER_ROOM: usize = 5;
/// Rooms of each user.
const ROOMS_EACH: usize = 3;

#[derive(Clone, Copy)]
enum Act {
    Send,
    Sync,
    Messages,
    Receipt,
    Typing,
    Members,
}

/// What a user does in twenty acts: every user goes round, each from another beginning.
const ROUND: [Act; 20] = [
    Act::Send,
    Act::Sync,
    Act::Receipt,
    Act::Send,
    Act::Sync,
    Act::Messages,
    Act::Send,
    Act::Sync,
    Act::Typing,
    Act::Send,
    Act::Sync,
    Act::Receipt,
    Act::Send,
    Act::Sync,
    Act::Members,
    Act::Send,
    Act::Sync,
    Act::Messages,
    Act::Send,
    Act::Send,
];

struct User {
    account: Account,
    rooms: Vec<String>,
    done: RefCell<Progress>,
}

/// Where a user is in its round and in the rooms.
struct Progress {
    acts: usize,
    since: Option<String>,
    /// The user's latest message and its room.
    sent: Option<(String, String)>,
}

impl User {
    async fn act(&self) -> CallResult<()> {
        let acts = {
            let mut done = self.done.borrow_mut();
            done.acts += 1;
            done.acts
        };
        let room = &self.rooms[acts % self.rooms.len()];
        match ROUND[acts % ROUND.len()] {
            Act::Send => self.send(room, acts).await,
            Act::Sync => self.sync().await,
            Act::Messages => self.account.messages(room, None, 20).await.map(drop),
            Act::Receipt => {
                let sent = self.done.borrow().sent.clone();
                match sent {
                    Some((room, event)) => self.account.read_receipt(&room, &event).await,
                    None => self.send(room, acts).await,
                }
            }
            Act::Typing => self.account.typing(room).await,
            Act::Members => self.account.members(room).await.map(drop),
        }
    }

    async fn send(&self, room: &str, acts: usize) -> CallResult<()> {
        let event = self.account.send(room, &format!("x{acts}"), "what people say").await?;
        self.done.borrow_mut().sent = Some((room.to_owned(), event));
        Ok(())
    }

    async fn sync(&self) -> CallResult<()> {
        let since = self.done.borrow().since.clone();
        let reply = self.account.sync(since.as_deref(), 0, None).await?;
        self.done.borrow_mut().since = Some(next_batch(&reply)?);
        Ok(())
    }
}

/// Users in shared rooms who send, sync, read, mark as read, type and look at the members.
pub async fn mixed(env: &Env) -> Result<Vec<Outcome>> {
    let accounts = env.accounts("mixed", env.sizes.mixed_users).await?;
    let mut rooms = Vec::new();
    for owner in accounts.iter().step_by(USERS_PER_ROOM) {
        rooms.push(env.open_room(owner).await?);
    }
    let mut users = Vec::new();
    for (number, account) in accounts.into_iter().enumerate() {
        let mut own: Vec<String> =
            (0..ROOMS_EACH).map(|step| rooms[(number / USERS_PER_ROOM + step) % rooms.len()].clone()).collect();
        own.dedup();
        let done = RefCell::new(Progress { acts: number * 7, since: None, sent: None });
        users.push(User { account, rooms: own, done });
    }
    each(users.iter().map(|user| async move {
        for room in &user.rooms {
            user.account.join(room).await.context("join a room")?;
        }
        user.sync().await.context("sync")
    }))
    .await?;
    let calls = closed_loop(&users, env.sizes.limits, async |user: &User, _| user.act().await);
    Ok(vec![env.meter.measure(&format!("mixed-{}", users.len()), calls).await?])
}
