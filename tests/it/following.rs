//! What rooms make of a change of one of their members comes after the change: a crash in between leaves nothing undone.

use std::sync::Arc;

use everfold::log::LogReader;
use projections::models::{admission, events, following, membership, membership::Membership};
use schemas::{Lsn, Record};
use serde_json::{Value, json};

use crate::common::{Client, HeldLog, PATIENCE, TestServer, until};

const ROOMS: usize = 40;

/// A server of whose next records only the first gets on the log.
struct Town {
    server: TestServer,
    log: Arc<HeldLog>,
    alice: Client,
    bob: Client,
    rooms: Vec<String>,
}

impl Town {
    async fn start() -> Self {
        let (server, log) = TestServer::with_log(HeldLog::over).await;
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let mut rooms = Vec::new();
        for n in 0..ROOMS {
            rooms.push(match n % 4 {
                0 => bob.create(json!({ "invite": [alice.user] })).await,
                1 => alice.room_with(&[&bob]).await,
                _ => bob.room_with(&[&alice]).await,
            });
        }
        Self { server, log, alice, bob, rooms }
    }

    /// Does something of which one record gets on the log and the next are lost with the node; another starts.
    async fn crash_in(&self, change: impl Future<Output = Value> + Send + 'static) -> TestServer {
        self.log.hold_after(1, usize::MAX);
        let change = tokio::spawn(change);
        self.log.held().await;
        // Nobody hears it any more.
        self.server.hub().cut_off(0);
        let before = self.memberships(&self.server);
        let next = self.server.node(self.log.beside()).await;
        let source = Arc::clone(&next.app().source);
        let mut progress = next.app().progress.watch();
        let followed =
            progress.wait_for(|_| following::behind(&source.view().unwrap(), &self.alice.user).unwrap().is_none());
        tokio::time::timeout(PATIENCE, followed).await.expect("the rooms follow").unwrap();
        assert_ne!(before, self.memberships(&next));
        // What the first node wanted to record was overtaken, and there is nothing left to do.
        self.log.hold_after(0, 0);
        self.log.release();
        change.await.unwrap();
        // It may have stopped waiting for what it records.
        let tail = self.log.tail();
        assert!(self.server.app().progress.reached(tail, PATIENCE).await);
        next
    }

    /// Alice's membership of each room, with her name there.
    fn memberships(&self, node: &TestServer) -> Vec<(Membership, Value)> {
        let view = node.app().view().unwrap();
        let of = |room: &String| {
            let room = events::room_nid(&view, room).unwrap().unwrap();
            let member = membership::member(&view, room, &self.alice.user).unwrap().unwrap();
            let event = events::client(&view, member.event).unwrap().unwrap();
            (member.membership, serde_json::from_str::<Value>(&event).unwrap()["content"]["displayname"].clone())
        };
        self.rooms.iter().map(of).collect()
    }

    /// The records after one that were applied and have a cause.
    fn caused(&self, after: Lsn) -> Vec<Lsn> {
        let view = self.server.app().view().unwrap();
        let entries = self.log.read(after.next(), usize::MAX, usize::MAX).unwrap();
        // On a slow machine the first node may still be recording what is void; that is known once it is folded.
        let folded = entries.iter().take_while(|entry| entry.lsn <= view.lsn());
        let applied = folded.filter(|entry| admission::void(&view, entry.lsn).unwrap().is_none());
        applied.filter_map(|entry| Record::decode(&entry.bytes).unwrap().header.cause).collect()
    }

    async fn finish(self, next: TestServer) {
        let tail = self.log.tail();
        for node in [&self.server, &next] {
            assert!(node.app().progress.reached(tail, PATIENCE).await);
        }
        assert_eq!(self.memberships(&self.server), self.memberships(&next));
        next.stop().await;
        self.server.finish().await;
    }
}

#[tokio::test]
async fn rooms_are_left_after_a_crash_in_a_deactivation() {
    let town = Town::start().await;
    let before = town.log.tail();
    let alice = town.alice.clone();
    let body = json!({ "auth": alice.password_auth("password of alice") });
    let next = town.crash_in(async move { alice.post("/account/deactivate", body).await.ok() }).await;
    assert!(town.memberships(&next).iter().all(|(membership, _)| *membership == Membership::Leave));
    assert_eq!(town.caused(before), vec![before.next(); ROOMS + 1], "each room once, and that all have followed");
    assert_eq!(
        town.bob.get(&format!("/rooms/{}/joined_members", town.rooms[1])).await.ok()["joined"]
            .as_object()
            .unwrap()
            .len(),
        1
    );
    town.finish(next).await;
}

#[tokio::test]
async fn rooms_learn_of_a_new_name_after_a_crash() {
    let town = Town::start().await;
    // What she is called in one room, by her own choice, lasts until the next change.
    let own = json!({ "membership": "join", "displayname": "A." });
    town.alice.set(&town.rooms[1], "m.room.member", &town.alice.user, own).await;
    let before = town.log.tail();
    let alice = town.alice.clone();
    let path = format!("/profile/{}/displayname", alice.user);
    let next = town.crash_in(async move { alice.put(&path, json!({ "displayname": "Alice" })).await.ok() }).await;
    for (membership, name) in town.memberships(&next) {
        match membership {
            Membership::Join => assert_eq!(name, "Alice"),
            _ => assert_eq!((membership, name), (Membership::Invite, Value::Null)),
        }
    }
    assert_eq!(town.caused(before), vec![before.next(); ROOMS * 3 / 4 + 1]);

    // Once all have followed, a start changes nothing any more.
    let own = json!({ "membership": "join", "displayname": "A." });
    let own = town.alice.set(&town.rooms[1], "m.room.member", &town.alice.user, own).await;
    let tail = town.log.tail();
    let third = town.server.node(town.log.beside()).await;
    third.app().commands.let_all_rooms_follow(tail).await.unwrap();
    assert!(town.server.app().progress.reached(town.log.tail(), PATIENCE).await);
    assert_eq!(town.caused(tail), []);
    assert_eq!(crate::common::remote::at(&third, &town.rooms[1], "m.room.member", &town.alice.user).unwrap(), own);
    third.stop().await;
    town.finish(next).await;
}

#[tokio::test]
async fn rooms_follow_once_the_log_can_be_written_again() {
    let town = Town::start().await;
    let (alice, path) = (town.alice.clone(), format!("/profile/{}/displayname", town.alice.user));
    town.log.hold_after(1, usize::MAX);
    let change = tokio::spawn(async move { alice.put(&path, json!({ "displayname": "Alice" })).await.ok() });
    town.log.held().await;
    // What comes now finds no room on the disk.
    town.log.set_full(true);
    town.log.hold_after(0, 0);
    town.log.release();
    change.await.unwrap();
    town.log.set_full(false);
    until(async || following::all(&town.server.app().view().unwrap()).count() == 0).await;
    let names = town.memberships(&town.server).into_iter().filter(|(membership, _)| *membership == Membership::Join);
    assert!(names.map(|(_, name)| name).eq(vec![json!("Alice"); ROOMS * 3 / 4]));
    town.server.finish().await;
}
