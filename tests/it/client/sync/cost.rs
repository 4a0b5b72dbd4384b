//! What syncs read, counted: gets and scans, whatever the machine.

use std::{
    collections::BTreeMap,
    ops::Sub,
    sync::{Arc, Mutex},
};

use everfold::sync::{
    Notifier,
    v3::{self, Asker, Wanted},
};
use projections::{
    Applied, Cost, Cursor, Frozen, Generations, Source, StoreError, Touched, View,
    models::events,
    read::{Range, Read, Rows, Table},
};
use serde_json::json;

use crate::common::{Client, TestServer};

/// How often each table was read.
#[derive(Clone, Debug, Default)]
struct Reads {
    gets: BTreeMap<String, i64>,
    scans: BTreeMap<String, i64>,
}

impl Reads {
    fn totals(&self) -> (i64, i64) {
        (self.gets.values().sum(), self.scans.values().sum())
    }
}

impl Sub for Reads {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        for (mine, theirs) in [(&mut self.gets, other.gets), (&mut self.scans, other.scans)] {
            for (table, count) in theirs {
                *mine.entry(table).or_default() -= count;
            }
            mine.retain(|_, count| *count != 0);
        }
        self
    }
}

/// A view that counts.
struct Counting {
    view: View,
    reads: Arc<Mutex<Reads>>,
}

impl Read for Counting {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        *self.reads.lock().unwrap().gets.entry(table.to_string()).or_default() += 1;
        self.view.get(table, key)
    }

    fn scan(&self, table: Table, range: Range) -> Rows<'_> {
        *self.reads.lock().unwrap().scans.entry(table.to_string()).or_default() += 1;
        self.view.scan(table, range)
    }
}

impl Frozen for Counting {
    fn cursor(&self) -> &Cursor {
        self.view.cursor()
    }

    fn generations(&self) -> &Generations {
        self.view.generations()
    }
}

/// Views that count.
struct CountingSource {
    source: Arc<dyn Source>,
    reads: Arc<Mutex<Reads>>,
}

impl Source for CountingSource {
    fn view(&self) -> Result<View, StoreError> {
        Ok(View::new(Arc::new(Counting { view: self.source.view()?, reads: Arc::clone(&self.reads) })))
    }
}

/// A sync as the server answers it, the token for the next, and what it read.
fn sync(server: &TestServer, client: &Client, since: Option<&str>) -> (String, usize, Reads) {
    let reads = Arc::new(Mutex::new(Reads::default()));
    let view = server.app().view().unwrap();
    let view = View::new(Arc::new(Counting { view, reads: Arc::clone(&reads) }));
    let asker =
        Asker { user: client.user.as_str().try_into().unwrap(), device: client.device.as_str().into(), now_ms: 0 };
    let since = since.map(|since| since.parse().unwrap());
    let wanted = Wanted { since, ..Wanted::default() };
    let answer = v3::answer(&view, &server.app().ephemeral, true, &asker, &wanted).unwrap();
    let reads = reads.lock().unwrap().clone();
    (answer.response.next_batch, answer.response.rooms.join.len(), reads)
}

/// Rooms with somebody else who said something in them, one after another.
async fn rooms(by: &Client, with: &Client, many: usize) -> Vec<String> {
    let mut rooms = Vec::new();
    for _ in 0..many {
        let room = by.room_with(&[with]).await;
        for n in 0..12 {
            by.say(&room, &n.to_string()).await;
        }
        rooms.push(room);
    }
    rooms
}

#[tokio::test]
async fn a_room_costs_a_sync_few_reads_and_one_without_news_none() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let first = rooms(&bob, &alice, 1).await;
    let (_, _, one) = sync(&server, &alice, None);
    let others = rooms(&bob, &alice, 4).await;
    let (next, joined, five) = sync(&server, &alice, None);
    assert_eq!(joined, 5);
    // For each of ten events three and for each of seven of the state two: what it is, its text, what relates to it.
    let initial = five - one;
    assert_eq!(initial.totals(), (4 * (44 + 11), 4 * 3), "{initial:#?}");

    let (_, joined, idle) = sync(&server, &alice, Some(&next));
    assert_eq!(joined, 0);
    let of_rooms = ["events", "state", "timeline table 1", "membership table 1", "membership table 2"];
    let read = |table: &&str| {
        idle.gets.keys().chain(idle.scans.keys()).any(|read| {
            let rest = read.strip_prefix(*table);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        })
    };
    assert_eq!(of_rooms.iter().find(|table| read(table)), None, "{idle:#?}");

    bob.say(&first[0], "news").await;
    let (_, joined, one) = sync(&server, &alice, Some(&next));
    assert_eq!(joined, 1);
    for room in &others {
        bob.say(room, "news").await;
    }
    let (_, joined, five) = sync(&server, &alice, Some(&next));
    assert_eq!(joined, 5);
    let incremental = five - one;
    assert_eq!(incremental.totals(), (4 * 13, 4 * 2), "{incremental:#?}");
    server.finish().await;
}

#[tokio::test]
async fn who_waits_again_has_their_rooms_looked_up_no_second_time() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let rooms = [alice.create(json!({})).await, alice.create(json!({})).await];
    let reads = Arc::new(Mutex::new(Reads::default()));
    let source: Arc<dyn Source> = Arc::clone(&server.app().source);
    let notifier = Notifier::new(Arc::new(CountingSource { source, reads: Arc::clone(&reads) }));
    let user = alice.user.as_str().try_into().unwrap();
    let touch = |touched: Touched| {
        let cursor = server.app().view().unwrap().cursor().clone();
        notifier.applied(&Applied { cursor, voids: Vec::new(), touched, records: 1, cost: Cost::default() });
    };
    let touched_user = || Touched { users: [alice.user.clone()].into(), ..Touched::default() };
    let nid = |room: &str| events::room_nid(&server.app().view().unwrap(), room).unwrap().unwrap();

    drop(notifier.watch(user).unwrap());
    let [first, second] = [nid(&rooms[0]), nid(&rooms[1])];
    alice.leave(&rooms[1]).await;
    let third = nid(&alice.create(json!({})).await);
    touch(touched_user());
    let mut watch = notifier.watch(user).unwrap();
    let scans = reads.lock().unwrap().scans.clone();
    assert_eq!(scans, [("membership table 2".to_owned(), 1), ("membership table 7".to_owned(), 1)].into());

    for (room, wakes) in [(first, true), (second, false), (third, true)] {
        // So that there is a later position to wake up with.
        alice.set(&rooms[0], "m.room.topic", "", json!({ "topic": format!("{room:?}") })).await;
        touch(Touched { rooms: [room].into(), ..Touched::default() });
        assert_eq!(futures::FutureExt::now_or_never(watch.changed()).is_some(), wakes, "{room:?}");
    }
    // They hold on to the read models.
    drop((watch, notifier));
    server.finish().await;
}
