//! Several nodes on one channel.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use ruma::{RoomId, UserId, presence::PresenceState, room_id, user_id};

use super::{Ephemeral, node, on};
use crate::{
    clock::SimulatedClock,
    nodes::{Channel, Listener, Members, Message, Node, Position, Silent, Told},
};

/// A channel that all nodes hear at once, except who is deaf.
#[derive(Default)]
struct Bus {
    ends: Mutex<Vec<(u32, Listener)>>,
    told: Mutex<Vec<Told>>,
    deaf: Mutex<BTreeSet<u32>>,
}

struct End(Node, Arc<Bus>);

impl Channel for End {
    fn name(&self) -> &'static str {
        "bus"
    }

    fn position(&self) -> Position {
        self.1.told.lock().unwrap().len() as Position
    }

    fn tell(&self, message: Message) {
        let (told, bus) = (Told { from: self.0.clone(), message }, &self.1);
        bus.told.lock().unwrap().push(told.clone());
        let position = self.position();
        for (number, listener) in bus.ends.lock().unwrap().iter() {
            if !bus.deaf.lock().unwrap().contains(number) {
                listener(position, &told);
            }
        }
    }

    fn listen(&self, listener: Listener) {
        self.1.ends.lock().unwrap().push((self.0.number, listener));
    }

    fn caught_up(&self) -> BoxFuture<'_, Result<(), Silent>> {
        futures::future::ready(Ok(())).boxed()
    }
}

struct Town {
    clock: Arc<SimulatedClock>,
    bus: Arc<Bus>,
    nodes: Vec<(Arc<Ephemeral>, Arc<Members>)>,
    dead: BTreeSet<usize>,
}

fn room() -> &'static RoomId {
    room_id!("!r:x")
}

fn user() -> &'static UserId {
    user_id!("@a:x")
}

impl Town {
    fn of(nodes: u32) -> Self {
        let clock = Arc::new(SimulatedClock::at(1_000_000));
        let mut town = Self { clock, bus: Arc::default(), nodes: Vec::new(), dead: BTreeSet::new() };
        (0..nodes).for_each(|_| town.join());
        town
    }

    fn join(&mut self) {
        let own = node(u32::try_from(self.nodes.len()).unwrap());
        let end = Arc::new(End(own.clone(), Arc::clone(&self.bus)));
        let (ephemeral, members) = on(own.number, Arc::clone(&end) as Arc<dyn Channel>, &self.clock);
        let hearing = Arc::clone(&members);
        end.listen(Box::new(move |_, told| hearing.hear(told)));
        self.nodes.push((ephemeral, members));
        self.tell(own.number as usize, Message::WhoIsThere);
        self.pass(1);
    }

    fn tell(&self, from: usize, message: Message) {
        End(node(u32::try_from(from).unwrap()), Arc::clone(&self.bus)).tell(message);
    }

    /// Nothing of what a node tells or hears gets through any more.
    fn kill(&mut self, number: usize) {
        self.dead.insert(number);
        self.bus.deaf.lock().unwrap().insert(u32::try_from(number).unwrap());
    }

    /// So many seconds go by on all nodes that live.
    fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            for (number, (ephemeral, _)) in self.nodes.iter().enumerate().filter(|(n, _)| !self.dead.contains(n)) {
                self.tell(number, Message::Alive { url: None, key: "key".into() });
                ephemeral.expire();
            }
        }
    }

    fn on(&self, number: usize) -> &Ephemeral {
        &self.nodes[number].0
    }

    fn types(&self, number: usize) -> bool {
        self.on(number).typing_since(room(), 0).is_some_and(|users| users == [user()])
    }

    fn state(&self, number: usize) -> PresenceState {
        self.on(number).presence_of(user()).map_or(PresenceState::Offline, |presence| presence.state)
    }

    /// How often something was told that is not about nodes.
    fn told(&self) -> usize {
        let about_users = |told: &&Told| matches!(told.message, Message::Typing { .. } | Message::Presence(_));
        self.bus.told.lock().unwrap().iter().filter(about_users).count()
    }
}

#[test]
fn who_goes_on_typing_by_another_node_types_until_that_ends_it() {
    let town = Town::of(2);
    town.on(0).set_typing(room(), user(), 30_000);
    assert!(town.types(0) && town.types(1));
    town.pass(20);
    town.on(1).set_typing(room(), user(), 30_000);
    let (told, at) = (town.told(), town.on(0).position());
    town.pass(29);
    assert!(town.types(0) && town.types(1), "the first node's time is over, and counts no more");
    assert_eq!((town.told(), town.on(1).typing_since(room(), at)), (told, None), "nothing was told meanwhile");
    town.pass(1);
    assert!(!town.types(0) && !town.types(1));
    assert_eq!(town.told(), told + 1);

    town.on(0).set_typing(room(), user(), 30_000);
    town.on(1).set_typing(room(), user(), 0);
    assert!(!town.types(0) && !town.types(1), "whichever node hears of the end");
}

#[test]
fn a_node_that_goes_takes_along_who_types_there() {
    let mut town = Town::of(3);
    town.on(2).set_typing(room(), user(), 120_000);
    town.tell(2, Message::Leaving);
    assert!(!town.types(0) && !town.types(1), "at once when it says so");
    town.on(2).set_typing(room(), user(), 120_000);
    town.pass(1);
    assert!(town.types(0));
    town.kill(2);
    town.pass(5);
    assert!(town.types(0));
    town.pass(6);
    assert!(!town.types(0) && !town.types(1), "soon when it doesn't");
    let ended = |told: &&Told| matches!(&told.message, Message::Ended { node, .. } if *node == super::node(2));
    let told = town.bus.told.lock().unwrap();
    let ended: Vec<u32> = told.iter().filter(ended).map(|told| told.from.number).collect();
    assert_eq!(ended, [0], "one says so for all");
}

#[test]
fn who_is_there_by_one_node_is_there() {
    let town = Town::of(2);
    let by_both = |on: [PresenceState; 2]| {
        let [first, second] = on.map(|state| (state.clone(), state));
        drop((town.on(0).present(user(), first.0), town.on(1).present(user(), second.0)));
        assert_eq!(town.state(0), town.state(1));
        town.state(0)
    };
    let (online, unavailable) = (PresenceState::Online, PresenceState::Unavailable);
    assert_eq!(by_both([online.clone(), unavailable.clone()]), online);
    assert_eq!(by_both([unavailable.clone(), online.clone()]), online);
    assert_eq!(by_both([unavailable.clone(), unavailable.clone()]), unavailable);
    // Requests that change nothing tell nothing, however many.
    let told = town.told();
    for _ in 0..50 {
        by_both([unavailable.clone(), unavailable.clone()]);
        town.pass(1);
    }
    assert_eq!(town.told(), told);
    // A minute after the last one by each.
    let stays = town.on(1).present(user(), online.clone());
    town.pass(70);
    assert_eq!((town.state(0), town.state(1)), (online.clone(), online));
    drop(stays);
    town.pass(62);
    assert_eq!((town.state(0), town.state(1)), (PresenceState::Offline, PresenceState::Offline));
    assert!(town.nodes.iter().all(|(ephemeral, _)| ephemeral.presence().is_nobody_here()));
}

#[test]
fn the_last_words_count_whichever_node_they_came_to() {
    let town = Town::of(2);
    let words = |number| town.on(number).presence_of(user()).unwrap().message;
    let say = |number, text: &str| town.on(number).set_presence(user(), PresenceState::Online, Some(Some(text.into())));
    say(0, "first");
    say(1, "second");
    drop(town.on(0).present(user(), PresenceState::Online));
    assert_eq!((words(0).as_deref(), words(1).as_deref()), (Some("second"), Some("second")));
    say(0, "third");
    assert_eq!((words(0).as_deref(), words(1).as_deref()), (Some("third"), Some("third")));
    town.on(1).set_presence(user(), PresenceState::Online, Some(None));
    assert_eq!((words(0), words(1)), (None, None));
}

#[test]
fn who_comes_back_by_another_node_was_never_gone() {
    let mut town = Town::of(3);
    let other = user_id!("@b:x");
    drop((town.on(2).present(user(), PresenceState::Online), town.on(2).present(other, PresenceState::Online)));
    town.pass(1);
    let at = town.on(0).position();
    town.kill(2);
    town.pass(20);
    let back = town.on(1).present(user(), PresenceState::Online);
    town.pass(80);
    let changed: Vec<_> = town.on(0).presence_since(at);
    let [(who, presence)] = &changed[..] else { panic!("{changed:?}") };
    assert_eq!((&**who, &presence.state), (other, &PresenceState::Offline));
    assert_eq!((town.state(0), town.state(1)), (PresenceState::Online, PresenceState::Online));
    drop(back);
}

#[test]
fn a_new_node_learns_who_is_there_and_who_types() {
    let mut town = Town::of(1);
    town.on(0).set_presence(user(), PresenceState::Online, Some(Some("here".into())));
    town.on(0).set_typing(room(), user(), 120_000);
    town.pass(5);
    let at = town.on(0).position();
    town.join();
    assert_eq!((town.types(1), town.state(1)), (true, PresenceState::Online));
    assert_eq!(town.on(1).presence_of(user()).unwrap().message.as_deref(), Some("here"));
    assert!(town.on(0).presence_since(at).is_empty() && town.on(0).rooms_since(at).is_empty(), "no news to the first");
}

#[tokio::test]
async fn an_order_that_begins_anew_is_followed() {
    let town = Town::of(1);
    town.on(0).set_typing(room(), user(), 120_000);
    town.pass(20);
    let at = town.on(0).position();
    // Its topic was deleted, and is made anew.
    town.bus.told.lock().unwrap().clear();
    town.on(0).set_presence(user(), PresenceState::Online, None);
    let now = town.on(0).position();
    assert!(now < at);
    let after = async |position| town.on(0).news_after("bus", position).await;
    assert_eq!(
        (after(at).await, after(now).await),
        (0, now),
        "who has heard more than there is gets all that is current"
    );
    assert_eq!(town.on(0).rooms_since(0), [room()]);
    assert!(town.on(0).rooms_since(now).is_empty() && town.on(0).presence_since(now).is_empty());
    town.on(0).set_typing(room(), user(), 0);
    assert_eq!(town.on(0).rooms_since(now), [room()]);
}

#[test]
fn what_got_lost_is_made_good() {
    let town = Town::of(2);
    let lose = |numbers: &[u32]| *town.bus.deaf.lock().unwrap() = numbers.iter().copied().collect();
    // Told, and heard by nobody.
    lose(&[0, 1]);
    drop(town.on(0).present(user(), PresenceState::Online));
    town.on(0).set_typing(room(), user(), 30_000);
    lose(&[]);
    assert_eq!((town.types(1), town.state(1)), (false, PresenceState::Offline));
    town.on(0).set_typing(room(), user(), 120_000);
    town.pass(2);
    assert_eq!((town.types(1), town.state(1)), (true, PresenceState::Online));
    // The end, heard by all but one.
    lose(&[1]);
    town.on(0).set_typing(room(), user(), 0);
    lose(&[]);
    assert!(town.types(1));
    town.pass(160);
    assert!(!town.types(1));
    // Not heard by who told it.
    lose(&[0]);
    town.on(0).set_typing(room(), user(), 30_000);
    town.pass(5);
    lose(&[]);
    town.pass(40);
    assert!(!town.types(1), "others end what nobody renews");
}
