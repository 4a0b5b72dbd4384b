use std::sync::{
    Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use futures::{FutureExt, future::BoxFuture};

use super::{Channel, Listener, Message, Node, Position, Silent, Told};

/// The channel of a node that has no others: it hears itself at once.
pub struct Alone {
    node: Node,
    position: AtomicU64,
    /// Only one message is heard at a time, in the order of positions.
    order: Mutex<()>,
    listeners: RwLock<Vec<Listener>>,
}

impl Alone {
    /// Nothing was told yet.
    #[must_use]
    pub fn new(node: Node) -> Self {
        Self { node, position: AtomicU64::new(0), order: Mutex::new(()), listeners: RwLock::default() }
    }
}

impl Channel for Alone {
    fn name(&self) -> &str {
        &self.node.boot
    }

    fn position(&self) -> Position {
        self.position.load(Ordering::SeqCst)
    }

    fn tell(&self, message: Message) {
        let told = Told { from: self.node.clone(), message };
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let position = self.position.load(Ordering::SeqCst) + 1;
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.iter() {
            listener(position, &told);
        }
        self.position.store(position, Ordering::SeqCst);
    }

    fn listen(&self, listener: Listener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    fn caught_up(&self) -> BoxFuture<'_, Result<(), Silent>> {
        futures::future::ready(Ok(())).boxed()
    }
}
