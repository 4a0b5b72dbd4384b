//! Several nodes on one log, and people who use them at random and want the same things at once.
//!
//! `EVERFOLD_TEST_SEED` repeats a run, `EVERFOLD_TEST_STEPS` makes it longer.

use projections::digest;

use crate::common::{Chance, Contention, HeldLog, PATIENCE, TestServer};

async fn contend(nodes: usize) {
    let rounds = std::env::var("EVERFOLD_TEST_STEPS").map_or(20, |text| text.parse().unwrap());
    for seed in Chance::seeds(1) {
        println!("EVERFOLD_TEST_SEED={seed}");
        let (first, log) = TestServer::with_log(HeldLog::over).await;
        let mut others = Vec::new();
        for _ in 1..nodes {
            others.push(first.node(log.beside()).await);
        }
        let all = || [&first].into_iter().chain(&others);
        let mut crowd = Contention::gather(all().map(TestServer::client).collect(), seed).await;
        crowd.contend(rounds).await;
        crowd.check().await;
        let tail = first.app().reader.tail();
        let mut digests = Vec::new();
        for node in all() {
            assert!(node.app().progress.reached(tail, PATIENCE).await);
            digests.push(digest::all(&node.app().view().unwrap()).unwrap());
        }
        assert!(digests.iter().all(|digest| *digest == digests[0]), "the nodes have folded different things");
        for other in others {
            other.stop().await;
        }
        first.finish().await;
    }
}

#[tokio::test]
async fn of_what_many_want_on_two_nodes_there_is_one_winner_each() {
    contend(2).await;
}

#[tokio::test]
async fn of_what_many_want_on_three_nodes_there_is_one_winner_each() {
    contend(3).await;
}
