use std::sync::Arc;

use everfold::commands::{Error, Sender, events::By};
use futures::future::join_all;
use projections::{
    Position, View,
    models::{admission, events, timeline},
};
use ruma::{OwnedEventId, RoomId};
use schemas::Lsn;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Client, HeldLog, PATIENCE, TestServer, until};

/// What became of messages.
pub type Sent = Vec<Result<OwnedEventId, Error>>;

/// A server of two nodes: what the first appends can be held back.
pub struct Nodes {
    pub first: TestServer,
    pub second: TestServer,
    pub log: Arc<HeldLog>,
    pub alice: Client,
    pub room: String,
}

impl Nodes {
    pub async fn start() -> Self {
        let (first, log) = TestServer::with_log(HeldLog::over).await;
        let second = first.node(log.beside()).await;
        let alice = first.user("alice").await;
        let room = alice.room_with(&[]).await;
        Self { first, second, log, alice, room }
    }

    /// A user as a client of the second node, which has folded all there is.
    pub async fn on_second(&self, user: &Client) -> Client {
        let progress = &self.second.app().progress;
        assert!(progress.reached(self.first.app().reader.tail(), PATIENCE).await);
        user.at(self.second.url())
    }

    /// Lets a user send so many messages at once, in order, by the first node.
    pub fn send(&self, user: &Client, messages: usize) -> JoinHandle<Sent> {
        let sender = Sender::new(user.user.as_str().try_into().unwrap(), user.device.as_str().into());
        let (commands, room) = (self.first.app().commands.clone(), RoomId::parse(&self.room).unwrap());
        tokio::spawn(async move {
            let send = |n: usize| {
                let content = serde_json::from_value(json!({ "body": n.to_string(), "msgtype": "m.text" })).unwrap();
                let (commands, room, by) = (&commands, &room, By::from(&sender));
                async move { commands.send_message(by, room, "m.room.message", content).await }
            };
            join_all((0..messages).map(send)).await
        })
    }

    /// Waits until so many appends of the first node are held back.
    pub async fn until_held(&self, appends: usize) {
        for _ in 0..appends {
            self.log.held().await;
        }
    }

    pub fn tail(&self) -> Lsn {
        self.first.app().reader.tail()
    }

    pub fn view(&self) -> View {
        self.first.app().view().unwrap()
    }

    /// How many records after one are void.
    pub fn void(&self, after: Lsn) -> usize {
        let view = self.view();
        (after.0 + 1..=view.lsn().0).filter(|lsn| admission::void(&view, Lsn(*lsn)).unwrap().is_some()).count()
    }

    /// The room's events that came after a record, in order.
    pub fn shown(&self, after: Lsn) -> Vec<events::Head> {
        let view = self.view();
        let room = events::room_nid(&view, &self.room).unwrap().unwrap();
        let items = timeline::forward(&view, room, Position::after_record(after));
        items.map(|item| events::head(&view, item.unwrap().1.event).unwrap().unwrap()).collect()
    }

    /// The ids of messages that were all acknowledged: they are shown, each once and in order.
    pub fn check_order(&self, sent: Sent, after: Lsn) -> Vec<String> {
        let sent: Vec<_> = sent.into_iter().map(|id| id.unwrap().to_string()).collect();
        let shown = self.shown(after);
        let messages = shown.iter().filter(|head| head.event_type == "m.room.message" && sent.contains(&head.id));
        assert_eq!(messages.map(|head| head.id.as_str()).collect::<Vec<_>>(), sent);
        sent
    }

    /// Lets the first node decide on a request, and something else get on the log before that: the record is void, and it
    /// is decided again.
    pub async fn overtake<T>(&self, request: impl Future<Output = T>, other: impl Future<Output = ()>) -> T {
        let before = self.tail();
        assert!(self.first.app().progress.reached(before, PATIENCE).await);
        self.log.hold_next(1);
        let (reply, ()) = tokio::join!(request, async {
            self.until_held(1).await;
            other.await;
            self.log.release();
        });
        assert_eq!(self.void(before), 1, "it was to be void, once");
        reply
    }

    /// Both nodes have made the same of the log, and so does a replay.
    pub async fn finish(self) {
        self.on_second(&self.alice).await;
        assert!(self.first.app().progress.reached(self.tail(), PATIENCE).await);
        // What a request did not wait for may land yet.
        until(async || {
            let [first, second] =
                [&self.first, &self.second].map(|node| projections::digest::all(&node.app().view().unwrap()).unwrap());
            first == second
        })
        .await;
        self.second.stop().await;
        self.first.finish().await;
    }
}
