//! What syncs read, counted: gets and scans, whatever the machine.

use std::{
    collections::BTreeMap,
    ops::Sub,
    sync::{Arc, Mutex},
};

use everfold::sync::v3::{self, Asker, Wanted};
use projections::{
    Cursor, Frozen, Generations, StoreError, View,
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

/// A sync as the server answers it, the token for the next, and what it read.
fn sync(
    server: &TestServer,
    client: &Client,
    since: Option<&str>,
    filter: serde_json::Value,
) -> (String, usize, Reads) {
    let reads = Arc::new(Mutex::new(Reads::default()));
    let view = server.app().view().unwrap();
    let view = View::new(Arc::new(Counting { view, reads: Arc::clone(&reads) }));
    let asker =
        Asker { user: client.user.as_str().try_into().unwrap(), device: client.device.as_str().into(), now_ms: 0 };
    let since = since.map(|since| since.parse().unwrap());
    let wanted = Wanted { since, filter: serde_json::from_value(filter).unwrap(), ..Wanted::default() };
    let answer = v3::answer(&view, &server.app().ephemeral, true, &asker, &wanted).unwrap();
    let reads = reads.lock().unwrap().clone();
    (answer.response.next_batch, answer.response.rooms.join.len(), reads)
}

#[tokio::test]
async fn a_room_costs_a_sync_few_reads_and_one_without_news_none() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut rooms = Vec::new();
    let mut make = async |many: usize| {
        for _ in 0..many {
            let room = bob.room_with(&[&alice]).await;
            for n in 0..12 {
                bob.say(&room, &n.to_string()).await;
            }
            rooms.push(room);
        }
        rooms.clone()
    };
    make(1).await;
    let (_, _, one) = sync(&server, &alice, None, json!({}));
    let rooms = make(4).await;
    let (next, joined, five) = sync(&server, &alice, None, json!({}));
    assert_eq!(joined, 5);
    let initial = five - one;
    println!("initial, four rooms: {:?} {initial:#?}", initial.totals());

    let (_, joined, idle) = sync(&server, &alice, Some(&next), json!({}));
    assert_eq!(joined, 0);
    println!("idle: {:?} {idle:#?}", idle.totals());
    for room in &rooms[..1] {
        bob.say(room, "news").await;
    }
    let (_, joined, first) = sync(&server, &alice, Some(&next), json!({}));
    assert_eq!(joined, 1);
    for room in &rooms[1..] {
        bob.say(room, "news").await;
    }
    let (_, joined, all) = sync(&server, &alice, Some(&next), json!({}));
    assert_eq!(joined, 5);
    let incremental = all - first;
    println!("incremental, four rooms: {:?} {incremental:#?}", incremental.totals());
    server.finish().await;
}
