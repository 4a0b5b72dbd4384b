//! Several processes that are one server: what they tell each other that is not history, and which of them live.
//!
//! What nodes tell each other stands in one order, too: that of a [`Channel`]. It is neither on the log nor replayed, and
//! may be lost.

mod alone;
mod heartbeat;
mod kafka;
mod members;
mod message;

use std::sync::Arc;

use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

pub use alone::Alone;
pub use heartbeat::beat;
pub use kafka::KafkaChannel;
pub use members::{Conflict, HEARTBEAT, Member, Members, PATIENCE, Roll};
pub use message::{Authentication, Ending, Message, Node, Presence, Told, Words};

/// A place in the order of what was told, from 1; zero is before everything.
pub type Position = u64;

/// Is called with what was told, in order. It must be quick, and must not tell anything itself.
pub type Listener = Box<dyn Fn(Position, &Told) + Send + Sync>;

/// The other nodes can't be heard now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the other nodes can't be heard now: {0}")]
pub struct Silent(pub String);

/// The name of the one order on a log, the same on all its nodes and on those of no other log; `of` says in what.
#[must_use]
pub fn order(of: char, log_id: &[u8]) -> String {
    format!("{of}{}", hex::encode(&Sha256::digest(log_id)[..6]))
}

/// How a node joins the others.
pub type Join = Arc<dyn Fn(Node) -> Arc<dyn Channel> + Send + Sync>;

/// What all nodes hear in one order.
pub trait Channel: Send + Sync + 'static {
    /// The name of this order, a few letters and digits: positions of another one mean nothing here.
    fn name(&self) -> &str;

    /// Up to where this node has heard.
    fn position(&self) -> Position;

    /// Tells all nodes, this one too, without waiting. What one node tells is heard in the order in which it is told.
    fn tell(&self, message: Message);

    /// Calls `listener` with everything that is heard from now on, the node's own messages too. What it was called with is
    /// before [`Self::position`] afterwards, and nothing after the position of now is missed.
    fn listen(&self, listener: Listener);

    /// Waits until everything is heard here that any node told before, and was heard anywhere.
    fn caught_up(&self) -> BoxFuture<'_, Result<(), Silent>>;
}
