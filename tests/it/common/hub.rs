use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use everfold::nodes::{Channel, Join, Listener, Message, Node, Position, Silent, Told};
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

/// What nodes of one process tell each other: channels with one order, which a test may hold back, and whose messages it
/// may lose.
pub struct Hub {
    name: String,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    numbers: AtomicU32,
}

/// Whether a message is lost.
type Lost = Box<dyn Fn(&Told) -> bool + Send>;

#[derive(Default)]
struct State {
    told: Vec<Told>,
    /// These nodes hear nothing for now.
    held: BTreeSet<u32>,
    /// These nodes neither tell nor hear, and know it.
    cut_off: BTreeSet<u32>,
    /// What these nodes tell is on its way for so long.
    late: BTreeMap<u32, Duration>,
    /// What it picks is heard by nobody.
    lose: Option<Lost>,
}

impl Hub {
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            numbers: AtomicU32::new(0),
        })
    }

    /// How a node joins.
    pub fn join(self: &Arc<Self>) -> Join {
        let hub = Arc::clone(self);
        Arc::new(move |node| {
            let state = hub.state();
            let end = Arc::new(End {
                hub: Arc::clone(&hub),
                position: watch::Sender::new(state.told.len() as Position),
                node,
                telling: watch::Sender::new(0),
                listeners: Mutex::default(),
            });
            drop(state);
            tokio::spawn(hear(Arc::downgrade(&end), hub.changed.subscribe()));
            end
        })
    }

    /// A number that no node had before, from 0.
    pub fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.send_replace(());
    }

    /// Everything that was told so far and not lost, in order.
    pub fn told(&self) -> Vec<Told> {
        self.state().told.clone()
    }

    /// A node hears nothing until it is released.
    pub fn hold(&self, node: u32) {
        self.change(|state| _ = state.held.insert(node));
    }

    /// A node hears what was held back, and goes on.
    pub fn release(&self, node: u32) {
        self.change(|state| _ = state.held.remove(&node));
    }

    /// What a node tells is lost, it hears nothing, and knows that it doesn't.
    pub fn cut_off(&self, node: u32) {
        self.change(|state| _ = state.cut_off.insert(node));
    }

    /// A node that was cut off hears what it missed, and goes on.
    pub fn reconnect(&self, node: u32) {
        self.change(|state| _ = state.cut_off.remove(&node));
    }

    /// What a node tells takes so long from now on.
    pub fn delay(&self, node: u32, time: Duration) {
        self.change(|state| _ = state.late.insert(node, time));
    }

    fn push(&self, told: Told) {
        self.change(|state| {
            if !state.cut_off.contains(&told.from.number) && !state.lose.as_ref().is_some_and(|lost| lost(&told)) {
                state.told.push(told);
            }
        });
    }

    /// Loses what `lost` picks, from now on.
    pub fn lose(&self, lost: impl Fn(&Told) -> bool + Send + 'static) {
        self.change(|state| state.lose = Some(Box::new(lost)));
    }

    /// Loses nothing more.
    pub fn lose_nothing(&self) {
        self.change(|state| state.lose = None);
    }
}

/// What one node has of it.
struct End {
    hub: Arc<Hub>,
    node: Node,
    position: watch::Sender<Position>,
    /// So much that it has told is on its way.
    telling: watch::Sender<usize>,
    listeners: Mutex<Vec<Listener>>,
}

impl End {
    fn next(&self) -> Option<Told> {
        let state = self.hub.state();
        let is_deaf = state.held.contains(&self.node.number) || state.cut_off.contains(&self.node.number);
        if is_deaf { None } else { state.told.get(*self.position.borrow() as usize).cloned() }
    }
}

/// Lets a node hear, until it is gone.
async fn hear(end: Weak<End>, mut changed: watch::Receiver<()>) {
    loop {
        let Some(end) = end.upgrade() else { return };
        while let Some(told) = end.next() {
            let position = *end.position.borrow() + 1;
            let listeners = end.listeners.lock().unwrap();
            for listener in listeners.iter() {
                listener(position, &told);
            }
            // While nobody new begins to listen.
            end.position.send_replace(position);
        }
        drop(end);
        if changed.changed().await.is_err() {
            return;
        }
    }
}

impl Channel for End {
    fn name(&self) -> &str {
        &self.hub.name
    }

    fn position(&self) -> Position {
        *self.position.borrow()
    }

    fn tell(&self, message: Message) {
        let told = Told { from: self.node.clone(), message };
        let late = self.hub.state().late.get(&self.node.number).copied();
        let Some(time) = late else { return self.hub.push(told) };
        let (hub, telling) = (Arc::clone(&self.hub), self.telling.clone());
        telling.send_modify(|telling| *telling += 1);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            hub.push(told);
            telling.send_modify(|telling| *telling -= 1);
        });
    }

    fn listen(&self, listener: Listener) {
        self.listeners.lock().unwrap().push(listener);
    }

    fn caught_up(&self) -> BoxFuture<'_, Result<(), Silent>> {
        async {
            let told = self.telling.subscribe().wait_for(|telling| *telling == 0).await.is_ok();
            let end = {
                let state = self.hub.state();
                if state.cut_off.contains(&self.node.number) {
                    return Err(Silent("cut off".into()));
                }
                state.told.len() as Position
            };
            let reached = self.position.subscribe().wait_for(|position| *position >= end).await.is_ok();
            (told && reached).then_some(()).ok_or_else(|| Silent("gone".into()))
        }
        .boxed()
    }
}
