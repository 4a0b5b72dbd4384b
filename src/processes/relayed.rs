//! The channel of processes on one machine: what they tell each other goes through the projector.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use futures::{FutureExt, future::BoxFuture};
use schemas::{Blob, codec};

use super::link::Shared;
use crate::nodes::{self, Channel, Listener, Message, Node, Position, Silent, Told};

/// See the module. While the projector is gone, nothing is told or heard.
pub struct Relayed {
    name: String,
    shared: Arc<Shared>,
    node: Node,
    position: AtomicU64,
    listeners: RwLock<Vec<Listener>>,
}

impl Relayed {
    pub(super) fn join(shared: &Arc<Shared>, node: Node) -> Arc<dyn Channel> {
        // The same for all processes on this log, whichever runs of the projector each has seen: positions rise from one to the next.
        let name = nodes::order('p', &shared.first.log_id.0);
        let (shared, listeners) = (Arc::clone(shared), RwLock::default());
        let mut ears = shared.ears.write().unwrap_or_else(PoisonError::into_inner);
        let position = AtomicU64::new(shared.heard.load(Ordering::SeqCst));
        let relayed = Arc::new(Self { name, shared: Arc::clone(&shared), node, position, listeners });
        ears.push(Arc::downgrade(&relayed));
        drop(ears);
        relayed
    }

    /// Everything is heard by the one task that reads the connection.
    pub(super) fn hear(&self, position: Position, told: &Blob) {
        // Who begins to listen in between hears it, or sees this position.
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        match codec::decode::<Told>(&told.0) {
            Ok(told) => listeners.iter().for_each(|listener| listener(position, &told)),
            Err(error) => tracing::debug!(%error, "another process told something that this one doesn't know"),
        }
        self.position.store(position, Ordering::SeqCst);
    }
}

impl Channel for Relayed {
    fn name(&self) -> &str {
        &self.name
    }

    fn position(&self) -> Position {
        self.position.load(Ordering::SeqCst)
    }

    fn tell(&self, message: Message) {
        self.shared.tell(Blob(codec::encode(&Told { from: self.node.clone(), message })));
    }

    fn listen(&self, listener: Listener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn caught_up(&self) -> BoxFuture<'_, Result<(), Silent>> {
        self.shared.echo().boxed()
    }
}
