//! A broker that goes away, stands still or refuses, in the midst of a load: requests are told to come back in time,
//! reading goes on, nothing that was acknowledged is lost, nothing is there twice, and the server recovers alone.

use std::time::Duration;

use tokio::sync::Mutex;

use crate::{
    broker::{self, Broker},
    crowd::Crowd,
    served::Place,
};

/// One at a time: they are about time. So the crowd has a thread of its own, which nothing stops.
static TURN: Mutex<()> = Mutex::const_new(());

impl Broker {
    fn stop(&self) {
        assert!(broker::script(&["stop", self.folder.to_str().unwrap()]).status.success());
    }

    /// Larger messages are refused.
    fn limit(&self, topic: &str, bytes: u32) {
        let (address, change) = (self.address(), format!("max.message.bytes={bytes}"));
        let common = ["tool", "configs", "--bootstrap-server", &address, "--alter", "--entity-type", "topics"];
        let changed = broker::script(&[&common[..], &["--entity-name", topic, "--add-config", &change]].concat());
        assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    }
}

/// Lets something be wrong for a while, twice.
async fn survives(begin: impl Fn(&Broker, &Place), end: impl Fn(&Broker, &Place)) {
    let _turn = TURN.lock().await;
    let Some(broker) = Broker::start() else { return };
    let place = Place::on(&broker.address());
    let served = place.start();
    let mut crowd = Crowd::gather(&served).await;
    for _ in 0..2 {
        let working = crowd.work(&served.url);
        working.until(60).await;
        begin(&broker, &place);
        for _ in 0..2 {
            working.until_refused().await;
            working.read().await;
            working.be_refused().await;
        }
        end(&broker, &place);
        working.until(60).await;
        working.read().await;
        crowd = working.stop().await;
    }
    crowd.settle(&served.url).await;
    served.stop();
    crowd.check(&place.check());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broker_that_stops() {
    survives(|broker, _| broker.stop(), |broker, _| broker.begin()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broker_that_is_killed() {
    let kill = |broker: &Broker, _: &Place| {
        broker.signal("-KILL");
        // Its process id may not be gone yet.
        broker.stop();
    };
    survives(kill, |broker, _| broker.begin()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broker_that_stands_still() {
    survives(|broker, _| broker.signal("-STOP"), |broker, _| broker.signal("-CONT")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broker_that_refuses_writes() {
    survives(|broker, place| broker.limit(place.topic(), 10), |broker, place| broker.limit(place.topic(), 2 << 20))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broker_that_is_slow() {
    let _turn = TURN.lock().await;
    let Some(broker) = Broker::start() else { return };
    let place = Place::on(&broker.address());
    let served = place.start();
    let working = Crowd::gather(&served).await.work(&served.url);
    // Shorter than what is given up: all that is seen of it is the time that it takes.
    for _ in 0..10 {
        broker.signal("-STOP");
        tokio::time::sleep(Duration::from_millis(400)).await;
        working.read().await;
        broker.signal("-CONT");
        working.until(10).await;
    }
    let mut crowd = working.stop().await;
    crowd.settle(&served.url).await;
    served.stop();
    crowd.check(&place.check());
}
