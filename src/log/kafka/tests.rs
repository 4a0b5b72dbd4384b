//! On a real broker, of which each test has topics of its own; see [`broker`].

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Instant,
};

use futures::executor::block_on;
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    consumer::Consumer,
};

use super::*;
use crate::{
    config::{Config, Sources},
    log::{
        AppendError,
        conformance::{Backend, all, append, conformance, number, record},
        copy::Importer,
    },
};

/// A topic that is not there yet.
struct Place {
    settings: Kafka,
    topic: Topic,
}

fn settings() -> Kafka {
    Config::load(Sources::default()).unwrap().log.kafka
}

impl Backend for Place {
    const REOPENS: bool = true;
    const SEVERAL_HANDLES: bool = true;
    const CASES: u32 = 8;

    fn is_there() -> bool {
        broker::address().is_some()
    }

    fn fresh() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let brokers = broker::address().unwrap();
        let name = format!("log-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        Self { settings: settings(), topic: Topic { brokers, name } }
    }

    fn open(&self) -> Arc<dyn Log> {
        Arc::new(self.try_open().unwrap())
    }
}

impl Place {
    fn try_open(&self) -> Result<KafkaLog, OpenError> {
        KafkaLog::open(&self.settings, &self.topic, Arc::new(()))
    }

    fn why_not(&self) -> String {
        self.try_open().err().unwrap().to_string()
    }

    fn create(&self, partitions: i32, config: &[(&str, &str)]) {
        let client = settings::client(&self.settings, &self.topic.brokers).unwrap();
        let admin: AdminClient<_> = client.create().unwrap();
        let topic = NewTopic::new(&self.topic.name, partitions, TopicReplication::Fixed(1));
        let topic = config.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap().remove(0).unwrap();
    }

    /// Somebody else's message, with a base or none.
    fn intrude(&self, base: Option<u64>) {
        let client = settings::client(&self.settings, &self.topic.brokers).unwrap();
        let producer = confirm::Confirming::open(&client, &self.topic.name).unwrap();
        let headers = base.map_or_else(Default::default, fetch::headers);
        producer.send(b"not of the log", headers).unwrap().blocking_recv().unwrap().unwrap();
    }
}

conformance!(conforms, super::Place);

#[test]
fn a_topic_that_would_lose_records_is_refused_with_all_that_is_wrong() {
    if !Place::is_there() {
        return;
    }
    let mut place = Place::fresh();
    place.settings.create_topic = false;
    assert!(place.why_not().contains("log.kafka.create_topic = true"), "{}", place.why_not());
    let (brokers, name) = (place.topic.brokers.clone(), place.topic.name.clone());
    place.create(
        2,
        &[
            ("cleanup.policy", "compact"),
            ("retention.ms", "1000000"),
            ("retention.bytes", "1000000"),
            ("max.message.bytes", "1000000"),
            ("unclean.leader.election.enable", "true"),
        ],
    );
    let why = place.why_not();
    for problem in [
        "cleanup.policy is compact",
        "retention.ms is 1000000",
        "retention.bytes is 1000000",
        "max.message.bytes is 1000000",
        "unclean.leader.election.enable is true",
        "message.timestamp.type is CreateTime",
        "it has 2 partitions",
        "log.kafka.accept_power_loss = true",
    ] {
        assert!(why.contains(problem), "{problem:?} is not in {why}");
    }
    let command = format!(
        "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {name} --add-config \
         cleanup.policy=delete,retention.ms=-1,retention.bytes=-1,unclean.leader.election.enable=false,\
         message.timestamp.type=LogAppendTime,max.message.bytes=2097152,flush.messages=1"
    );
    assert!(why.contains(&command), "{command} is not in {why}");

    let mut place = Place::fresh();
    let kept = [("retention.ms", "-1"), ("max.message.bytes", "3000000"), ("message.timestamp.type", "LogAppendTime")];
    place.create(1, &kept);
    assert!(place.why_not().contains("flush.messages is 9223372036854775807"), "{}", place.why_not());
    place.settings.accept_power_loss = true;
    append(&place.try_open().unwrap(), vec![record(1, 1, 1)]);
    // More copies than there are brokers.
    let mut place = Place::fresh();
    place.settings.replication_factor = 2;
    assert!(place.why_not().contains("can't be made on 2 brokers of 1"), "{}", place.why_not());
}

#[test]
fn brokers_that_do_not_answer_are_named_in_time() {
    let mut settings = settings();
    settings.timeout = Duration::from_secs(1);
    let topic = Topic { brokers: "127.0.0.1:1".into(), name: "log".into() };
    let began = Instant::now();
    let why = KafkaLog::open(&settings, &topic, Arc::new(())).err().unwrap().to_string();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for part in ["no Kafka broker of 127.0.0.1:1 answered within 1 s", "Connection refused"] {
        assert!(why.contains(part), "{part:?} is not in {why}");
    }
    settings.properties = vec!["no.such.property=1".parse().unwrap()];
    let why = KafkaLog::open(&settings, &topic, Arc::new(())).err().unwrap().to_string();
    assert!(why.contains("no.such.property"), "{why}");
    // What was mistyped may be a secret.
    settings.properties = vec!["sasl.pasword=hunter2".parse().unwrap()];
    let why = KafkaLog::open(&settings, &topic, Arc::new(())).err().unwrap().to_string();
    assert!(why.contains("sasl.pasword") && !why.contains("hunter2"), "{why}");
}

#[test]
fn properties_are_read_from_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "# secrets\nsasl.username = me\n\nsasl.password=a=b\n").unwrap();
    let settings = Kafka { properties_file: Some(file.path().to_owned()), ..settings() };
    let client = settings::client(&settings, "a:1").unwrap();
    assert_eq!((client.get("sasl.username"), client.get("sasl.password")), (Some("me"), Some("a=b")));
    for (text, problem) in [
        ("# secrets\n\nacks=0", "line 3: acks is set by Everfold"),
        ("enable.partition.eof=true", "line 1: enable.partition.eof is set by Everfold"),
        ("sasl.username=me\nsasl.password hunter2", "line 2: a property is no name=value"),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let why = settings::client(&settings, "a:1").unwrap_err().to_string();
        assert!(why.contains(problem), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
}

#[test]
fn what_is_not_of_the_log_is_passed_over_by_all_alike() {
    if !Place::is_there() {
        return;
    }
    let place = Place::fresh();
    let log = Arc::new(place.try_open().unwrap());
    let seen = |messages| {
        while log.reader.shared.state().next < messages {
            std::thread::yield_now();
        }
    };
    let mut expected: Vec<_> = append(&*log, vec![record(1, 1, 1)]);
    place.intrude(None);
    expected.extend(append(&*log, vec![record(2, 1, 1)]));
    // Positions go on from higher ones, and whoever still has the lower ones is not of the log.
    place.intrude(Some(1_000));
    seen(4);
    let late = append(&*log, vec![record(3, 1, 1)]).remove(0);
    place.intrude(Some(5));
    seen(6);
    expected.extend(append(&*log, vec![record(4, 1, 1)]));
    assert_eq!(expected, [Lsn(1), Lsn(3), Lsn(1_006)]);
    assert_eq!(late, Lsn(1_004));
    for log in [log as Arc<dyn Log>, place.open()] {
        let lsns: Vec<_> = log.read(Lsn(1), 3, usize::MAX).unwrap().iter().map(|entry| entry.lsn).collect();
        assert_eq!(lsns[..2], expected[..2]);
        assert_eq!(log.tail(), expected[2]);
        let last = log.read(late, 10, usize::MAX).unwrap();
        assert_eq!(last.iter().map(|entry| number(&entry.bytes)).collect::<Vec<_>>(), [3, 4]);
    }
}

#[test]
fn a_copy_keeps_positions_and_gaps_and_goes_on_where_it_ended() {
    if !Place::is_there() {
        return;
    }
    let place = Place::fresh();
    let lsns = [1, 2, 3, 10, 11, 1 << 40, (1 << 40) + 1, (1 << 40) + 9].map(Lsn);
    let records: Vec<_> = (0..).zip(lsns).map(|(n, lsn)| (lsn, record(n, 1, 10))).collect();
    for part in [&records[..2], &records[2..5], &records[5..]] {
        let importer = KafkaImporter::open(&place.settings, &place.topic).unwrap();
        importer.import(part.to_vec()).unwrap();
        assert_eq!(importer.tail(), part.last().unwrap().0);
        assert!(importer.import(part.to_vec()).is_err(), "it is there already");
    }
    let log = place.open();
    assert_eq!(all(&*log), records);
    for from in [Lsn(4), Lsn(10), Lsn(12), Lsn((1 << 40) + 2)] {
        let expected = lsns.iter().find(|lsn| **lsn >= from);
        assert_eq!(log.read(from, 1, 1).unwrap().first().map(|entry| &entry.lsn), expected);
    }
    let next = append(&*log, vec![record(100, 1, 10)]);
    assert_eq!(next, [Lsn((1 << 40) + 10)]);
}

#[test]
fn a_topic_that_a_server_runs_on_is_left_alone() {
    if !Place::is_there() {
        return;
    }
    let place = Place::fresh();
    append(&*place.open(), vec![record(1, 1, 1), record(2, 1, 1)]);
    let name = place.topic.channel();
    let channel = Place { settings: place.settings.clone(), topic: Topic { name, ..place.topic.clone() } };
    channel.create(1, &[]);
    channel.intrude(None);
    let import = || KafkaImporter::open(&place.settings, &place.topic).map(drop);
    let amend = || {
        let amendment = Amendment { void: Lsn(2), reason: "a test".into(), at_ms: 5 };
        KafkaLog::amend(&place.settings, &place.topic, &amendment)
    };
    let stopped = AtomicBool::new(false);
    let refused = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(Ordering::SeqCst) {
                channel.intrude(None);
            }
        });
        let refused = [import(), amend()];
        stopped.store(true, Ordering::SeqCst);
        refused
    });
    for refused in refused {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains(&format!("a server runs on the Kafka topic {}", place.topic.name)), "{why}");
    }
    // That one ran once is no harm.
    import().unwrap();
    amend().unwrap();
}

#[test]
fn amendments_lie_beside_the_log() {
    if !Place::is_there() {
        return;
    }
    let place = Place::fresh();
    append(&*place.open(), vec![record(1, 1, 1), record(2, 1, 1), record(3, 1, 1)]);
    let amendment = |lsn| Amendment { void: Lsn(lsn), reason: "a test".into(), at_ms: 5 };
    for lsn in [2, 3] {
        KafkaLog::amend(&place.settings, &place.topic, &amendment(lsn)).unwrap();
    }
    let error = KafkaLog::amend(&place.settings, &place.topic, &amendment(4)).unwrap_err();
    assert_eq!(error.to_string(), "there is no record 4 on this log: it ends at 3");
    let log = place.open();
    let amended = |log: &dyn LogReader| log.read(Lsn(1), 9, usize::MAX).unwrap().iter().map(|it| it.amended).collect();
    let found: Vec<bool> = amended(&*log);
    assert_eq!(found, [false, true, true]);
    assert_eq!(log.amendments().iter().count(), 2);
}

#[test]
fn a_record_whose_place_is_taken_away_meanwhile_is_not_acknowledged() {
    if !Place::is_there() {
        return;
    }
    let place = Place::fresh();
    let log = Arc::new(place.try_open().unwrap());
    append(&*log, vec![record(1, 1, 1)]);
    // It has yet to hear that positions go on from higher ones.
    drop(log.reader.follower.lock().unwrap().take());
    place.intrude(Some(1_000));
    let receipt = log.append(vec![record(2, 1, 1)]).remove(0);
    let client = settings::client(&place.settings, &place.topic.brokers).unwrap();
    let follower = Follower::start(&client, Arc::clone(&log.reader.shared)).unwrap();
    *log.reader.follower.lock().unwrap() = Some(follower);
    let refused = receipt.blocking_recv().unwrap().unwrap_err();
    assert!(matches!(refused, AppendError::Unavailable(_)), "{refused}");
    assert_eq!(append(&*log, vec![record(3, 1, 1)]), [Lsn(1_003)], "it goes on");
    for log in [log as Arc<dyn Log>, place.open()] {
        let lsns: Vec<_> = log.read(Lsn(1), 9, usize::MAX).unwrap().iter().map(|entry| entry.lsn).collect();
        assert_eq!(lsns, [Lsn(1), Lsn(1_001), Lsn(1_003)]);
    }
}

#[test]
fn no_group_is_joined_and_no_position_kept_on_the_brokers() {
    if !Place::is_there() {
        return;
    }
    let place = Place::fresh();
    let log = place.open();
    append(&*log, (0..100).map(|n| record(n, 1, 1)).collect());
    assert_eq!(all(&*log).len(), 100);
    let reader = KafkaLog::open_read_only(&place.settings, &place.topic).unwrap();
    assert_eq!(reader.read(Lsn(1), 100, usize::MAX).unwrap().len(), 100);
    reader.refresh().unwrap();
    let client = settings::client(&place.settings, &place.topic.brokers).unwrap();
    let consumer = settings::consumer(&client, settings::Context::default()).unwrap();
    let groups = consumer.fetch_group_list(None, Duration::from_secs(20)).unwrap();
    let groups: Vec<_> = groups.groups().iter().map(|group| group.name().to_owned()).collect();
    assert_eq!(groups, [""; 0]);
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition(&place.topic.name, 0);
    let kept = consumer.committed_offsets(partitions, Duration::from_secs(20)).unwrap();
    assert_eq!(kept.elements()[0].offset(), Offset::Invalid);
}
