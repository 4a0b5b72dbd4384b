//! What can be measured. A scenario sets up what it needs, then measures one phase or several.

mod mixed;
mod read;
mod rooms;
mod send;
mod sync;

use anyhow::Result;
use clap::ValueEnum;

use crate::measure::Outcome;
use crate::setup::Env;

/// A scenario, as named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// All of them
    All,
    /// From the sending of a message to another member's waiting /sync. It comes before what leaves servers with work of
    /// their own
    Delivery,
    /// Messages by many senders, each to rooms of their own
    SendMany,
    /// Messages by many senders to one room, and by one alone
    SendHot,
    /// createRoom
    CreateRoom,
    /// Many joins to one new room
    JoinMany,
    /// The state and the members of a large room
    State,
    /// Joins to a large room
    JoinLarge,
    /// Initial, incremental and idle /sync of a user in many rooms
    Sync,
    /// Paging backwards through a room's history
    Messages,
    /// Many readers who look at the latest page of a room each
    Reads,
    /// Many who set the topic of one room
    Contended,
    /// Many users who send, sync, read and type
    Mixed,
}

impl Scenario {
    /// The scenarios chosen, in the order in which they run, each once.
    pub fn chosen(given: &[Self]) -> Vec<Self> {
        let all = given.contains(&Self::All);
        let each = Self::value_variants().iter().copied().filter(|scenario| *scenario != Self::All);
        each.filter(|scenario| all || given.contains(scenario)).collect()
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Sets it up and measures it.
    pub async fn run(self, env: &Env) -> Result<Vec<Outcome>> {
        match self {
            Self::All => Ok(Vec::new()),
            Self::SendMany => send::to_many_rooms(env).await,
            Self::SendHot => send::to_one_room(env).await,
            Self::Delivery => send::delivery(env).await,
            Self::CreateRoom => rooms::create(env).await,
            Self::JoinMany => rooms::join_many(env).await,
            Self::State => read::state(env).await,
            Self::JoinLarge => rooms::join_large(env).await,
            Self::Sync => sync::all_kinds(env).await,
            Self::Messages => read::messages(env).await,
            Self::Reads => read::latest(env).await,
            Self::Contended => rooms::contended(env).await,
            Self::Mixed => mixed::mixed(env).await,
        }
    }
}
