//! What must be done once has one owner at a time, and is done once.

use std::time::{Duration, Instant};

use everfold::{
    commands::{
        Commands, Decision, Error, Lease, Request,
        leases::{Shard, once},
    },
    nodes::Message,
};
use projections::View;
use schemas::{Draft, Lsn, Origin, Record, facts::RoomForgotten};

use crate::common::{Nodes, TestServer, until};

/// What a dead node did is another's after this time at the latest.
const BOUND: Duration = Duration::from_secs(15);

/// All shards.
fn shards() -> Vec<Shard> {
    let mut all = Vec::new();
    for shard in (0..500).map(|n: usize| Shard::of(&n.to_string())) {
        if !all.contains(&shard) {
            all.push(shard);
        }
    }
    assert_eq!(all.len(), 16);
    all
}

/// The leases that a node has or gets now.
async fn leases(node: &TestServer) -> Vec<Lease> {
    let mut leases = Vec::new();
    for shard in shards() {
        leases.extend(node.app().commands.lease(shard).await.unwrap());
    }
    leases
}

/// How many take-overs are on the log.
fn taken(node: &TestServer) -> usize {
    let entries = node.app().reader.read(Lsn::FIRST, usize::MAX, usize::MAX).unwrap();
    let facts = entries.iter().flat_map(|entry| Record::decode(&entry.bytes).unwrap().facts);
    facts.filter(|fact| fact.decode().unwrap().name() == "ShardsTaken").count()
}

/// Two nodes that have shared the shards among them.
async fn shared() -> Nodes {
    let nodes = Nodes::start().await;
    until(async || leases(&nodes.first).await.len() + leases(&nodes.second).await.len() == 16).await;
    assert!(!leases(&nodes.first).await.is_empty() && !leases(&nodes.second).await.is_empty());
    assert_eq!(taken(&nodes.first), 2, "a record each");
    nodes
}

/// Does a piece of work; false if it was done before.
async fn work(commands: &Commands, lease: Option<Lease>) -> Result<bool, Error> {
    let id = Some(once("test", &["a piece of work"], Lsn::FIRST));
    let request = Request { id, lease, ..Origin::Server.into() };
    let decide = |_: &View| {
        // A fact that changes nothing.
        let fact = RoomForgotten { user: "@nobody:test.example".into(), room: "!none".into() };
        Ok(Decision::append_then(Draft { facts: vec![fact.into()], ..Draft::default() }, true))
    };
    commands.execute_once(request, decide, |_, _| Ok(false)).await
}

#[tokio::test]
async fn one_node_takes_all_by_one_record_and_keeps_it() {
    let server = TestServer::start().await;
    assert_eq!(taken(&server), 0, "nothing is taken before there is work");
    let mut before = leases(&server).await;
    assert_eq!((before.len(), taken(&server)), (16, 1));
    let server = server.restart().await;
    let after = leases(&server).await;
    before.retain(|lease| !after.contains(lease));
    assert_eq!((before, taken(&server)), (vec![], 1));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dethroned_owner_appends_is_void_and_nothing_is_done_twice() {
    let nodes = shared().await;
    let lease = leases(&nodes.first).await[0];
    let before = nodes.tail();
    nodes.log.hold_next(1);
    let commands = nodes.first.app().commands.clone();
    let late = tokio::spawn(async move { work(&commands, Some(lease)).await });
    nodes.until_held(1).await;
    // It goes on working, but nobody hears it any more.
    nodes.first.hub().cut_off(0);
    let dead = Instant::now();
    until(async || leases(&nodes.second).await.len() == 16).await;
    assert!(dead.elapsed() < BOUND, "{:?}", dead.elapsed());
    println!("hand-over after a death took {:?}", dead.elapsed());
    nodes.log.release();
    let refused = late.await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "another node does this now");
    assert_eq!(nodes.void(before), 1);

    let lease = leases(&nodes.second).await[0];
    let commands = &nodes.second.app().commands;
    assert!(work(commands, Some(lease)).await.unwrap());
    assert!(!work(commands, Some(lease)).await.unwrap(), "by its id, it is done");
    nodes.first.hub().reconnect(0);
    until(async || !leases(&nodes.first).await.is_empty()).await;
    let lease = leases(&nodes.first).await[0];
    assert!(!work(&nodes.first.app().commands, Some(lease)).await.unwrap());
    assert_eq!(taken(&nodes.first), 4, "two at the start, one by the survivor, one by who came back");
    nodes.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_hands_over_at_once_and_who_comes_and_goes_makes_no_flood() {
    let nodes = shared().await;
    let third = nodes.first.node(nodes.log.beside()).await;
    let all = async || {
        let (first, second) = (leases(&nodes.first).await.len(), leases(&nodes.second).await.len());
        first + second
    };
    until(async || leases(&third).await.len() + all().await == 16 && !leases(&third).await.is_empty()).await;
    let relieved = taken(&nodes.first);
    assert_eq!(relieved, 3);
    let left = Instant::now();
    third.stop().await;
    until(async || all().await == 16).await;
    println!("hand-over after a clean stop took {:?}", left.elapsed());
    assert!(left.elapsed() < Duration::from_secs(5), "{:?}", left.elapsed());
    let before = taken(&nodes.first);
    assert!((4..=5).contains(&before), "{before}: a record by each who took something");

    let number = nodes.first.hub().number();
    let node = everfold::nodes::Node { number, boot: "flapping".into() };
    let flapping = nodes.first.hub().join()(node);
    let key = nodes.first.app().commands.parts().key.public().encode();
    let knows = |there: bool| {
        let members = [&nodes.first, &nodes.second].map(|node| &node.app().members);
        until(async move || members.iter().all(|members| members.roll().others.contains(&number) == there))
    };
    for _ in 0..10 {
        flapping.tell(Message::Alive { url: None, key: key.clone() });
        knows(true).await;
        assert_eq!(all().await, 16);
        flapping.tell(Message::Leaving);
        knows(false).await;
        assert_eq!(all().await, 16);
    }
    assert_eq!(taken(&nodes.first), before);
    nodes.finish().await;
}
