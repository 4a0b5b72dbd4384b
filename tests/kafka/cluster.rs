//! Three brokers, of which one is lost: the long suite.

use std::{path::PathBuf, process::Child, time::Duration};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::{broker, crowd::Crowd, served::Place};

struct Cluster {
    folder: PathBuf,
    address: String,
    guard: Child,
}

impl Cluster {
    fn start() -> Option<Self> {
        if !broker::is_to_be_had() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("everfold-cluster-").tempdir().unwrap().keep();
        let guard = broker::guard(&format!("scripts/kafka cluster stop {0}; rm -rf {0}", folder.display()));
        let port = broker::free_ports(6).to_string();
        let started = broker::script(&["cluster", "start", folder.to_str().unwrap(), &port]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let address = String::from_utf8(started.stdout).unwrap().trim().to_owned();
        Some(Self { folder, address, guard })
    }

    /// Kills the broker that leads a topic, and says which it was.
    fn kill_leader(&self, topic: &str) -> String {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &self.address).create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        let leader = metadata.topics()[0].partitions()[0].leader().to_string();
        let pid = std::fs::read_to_string(self.folder.join(&leader).join("pid")).unwrap();
        let killed = std::process::Command::new("kill").args(["-s", "KILL", pid.trim()]).status().unwrap();
        assert!(killed.success());
        leader
    }

    fn begin(&self, node: &str) {
        let started = broker::script(&["node", "start", self.folder.to_str().unwrap(), node]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

#[test]
fn a_topic_that_acknowledges_with_one_copy_of_three_is_refused() {
    if std::env::var_os("EVERFOLD_TEST_CLUSTER").is_none() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let place = Place::on(&cluster.address);
    let topics = |command: &[&str]| {
        let common = ["tool", "topics", "--bootstrap-server", &cluster.address, "--topic", place.topic()];
        let done = broker::script(&[&common[..], command].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let made = ["--create", "--partitions", "1", "--replication-factor", "3"];
    let kept = ["retention.ms=-1", "max.message.bytes=2097152", "message.timestamp.type=LogAppendTime"];
    let kept = kept.iter().flat_map(|setting| ["--config", setting]);
    topics(&made.into_iter().chain(kept).chain(["--config", "min.insync.replicas=1"]).collect::<Vec<_>>());
    let why = place.refusal(&["serve", "--server-name", "test.example", "--listen", "127.0.0.1:0"]);
    assert!(why.contains("min.insync.replicas is 1: a record could be acknowledged with one copy"), "{why}");
    assert!(why.ends_with("--add-config min.insync.replicas=2\n"), "{why}");
    // It is that alone.
    let common = ["tool", "configs", "--bootstrap-server", &cluster.address, "--alter", "--entity-type", "topics"];
    let change = ["--entity-name", place.topic(), "--add-config", "min.insync.replicas=2"];
    assert!(broker::script(&[&common[..], &change].concat()).status.success());
    place.start().stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_loss_of_one_broker_of_three_loses_nothing() {
    if std::env::var_os("EVERFOLD_TEST_CLUSTER").is_none() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let place = Place::on(&cluster.address);
    let served = place.start();
    let mut crowd = Crowd::gather(&served).await;
    for _ in 0..3 {
        let working = crowd.work(&served.url);
        working.until(200).await;
        let lost = cluster.kill_leader(place.topic());
        // With two of three, writing goes on.
        working.until(200).await;
        working.read().await;
        cluster.begin(&lost);
        working.until(200).await;
        crowd = working.stop().await;
    }
    crowd.settle(&served.url).await;
    served.stop();
    crowd.check(&place.check());
}
