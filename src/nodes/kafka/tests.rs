//! On a real broker, of which each test has a topic of its own.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::*;
use crate::{
    config::{Config, Sources},
    log::kafka::broker,
};

const LONG: Duration = Duration::from_secs(20);

/// A log's topic that nobody has used; none without a broker.
fn place() -> Option<(Kafka, Topic)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let brokers = broker::address()?;
    let name = format!("nodes-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
    Some((Config::load(Sources::default()).unwrap().log.kafka, Topic { brokers, name }))
}

/// A node, with what it has heard.
struct Ear {
    channel: KafkaChannel,
    heard: Arc<Mutex<Vec<(Position, Told)>>>,
}

impl Ear {
    fn open(place: &(Kafka, Topic), number: u32) -> Self {
        let node = Node { number, boot: format!("boot{number}") };
        let channel = KafkaChannel::open(&place.0, &place.1, b"log", node).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        channel.listen(Box::new(move |position, told| hearing.lock().unwrap().push((position, told.clone()))));
        Self { channel, heard }
    }

    fn heard(&self) -> Vec<(Position, Told)> {
        self.heard.lock().unwrap().clone()
    }

    async fn caught_up(&self) {
        tokio::time::timeout(LONG, self.channel.caught_up()).await.unwrap().unwrap();
    }
}

fn alive(text: impl Into<String>) -> Message {
    Message::Alive { url: Some(text.into()), key: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_hear_the_same_in_one_order() {
    let Some(place) = place() else { return };
    let nodes = [0, 1, 2].map(|number| Ear::open(&place, number));
    assert!(nodes.iter().all(|node| node.channel.name() == nodes[0].channel.name() && node.channel.position() == 0));
    for n in 0..100 {
        for node in &nodes {
            node.channel.tell(alive(n.to_string()));
        }
    }
    for node in &nodes {
        node.caught_up().await;
    }
    for node in &nodes {
        node.caught_up().await;
        assert_eq!(node.heard().len(), 300);
        assert_eq!(node.channel.position(), 300);
    }
    let heard = nodes[0].heard();
    assert!(nodes.iter().all(|node| node.heard() == heard));
    assert!(heard.iter().zip(1..).all(|((position, _), expected)| *position == expected));
    for number in 0..3 {
        let of_one = heard.iter().filter(|(_, told)| told.from.number == number).map(|(_, told)| &told.message);
        assert!(
            of_one.eq((0..100).map(|n: i32| alive(n.to_string())).collect::<Vec<_>>().iter()),
            "in the order in which it was told"
        );
    }
    // Who joins hears what is told from then on, and counts alike.
    let late = Ear::open(&place, 3);
    assert_eq!(late.channel.position(), 300);
    nodes[1].channel.tell(Message::Leaving);
    nodes[1].caught_up().await;
    late.caught_up().await;
    assert_eq!(late.heard(), nodes[1].heard()[300..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_passed_over() {
    let Some(place) = place() else { return };
    let node = Ear::open(&place, 0);
    for junk in ["", "{", r#"{"from":{"number":1,"boot":"b"},"message":{"Later":{"a":1}}}"#] {
        let record = BaseRecord::<(), str, ()>::to(&node.channel.shared.topic).partition(0).payload(junk);
        node.channel.shared.producer.send(record).map_err(|(error, _)| error).unwrap();
        node.channel.shared.told.fetch_add(1, Ordering::SeqCst);
    }
    node.channel.tell(alive("known"));
    node.caught_up().await;
    let heard = node.heard();
    assert_eq!((heard.len(), heard[0].0, &heard[0].1.message), (1, 4, &alive("known")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_several_orders_is_refused() {
    let Some((settings, topic)) = place() else { return };
    let client = settings::client(&settings, &topic.brokers).unwrap();
    let admin: rdkafka::admin::AdminClient<Context> = client.create_with_context(Context::default()).unwrap();
    let name = format!("{}-ephemeral", topic.name);
    let two = rdkafka::admin::NewTopic::new(&name, 2, rdkafka::admin::TopicReplication::Fixed(1));
    admin.create_topics([&two], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    let open = |settings: &Kafka, topic: &Topic| {
        let (settings, topic) = (settings.clone(), topic.clone());
        let deadline = Instant::now() + LONG;
        loop {
            let node = Node { number: 0, boot: "boot".into() };
            let error = KafkaChannel::open(&settings, &topic, b"log", node).err().unwrap();
            // The brokers may take a moment to tell of a new topic.
            if !matches!(error, OpenError::Missing { .. }) || settings.create_topic || Instant::now() > deadline {
                return error.to_string();
            }
        }
    };
    let not_made = Kafka { create_topic: false, ..settings };
    assert!(open(&not_made, &topic).contains("2 partitions"), "{}", open(&not_made, &topic));
    let missing = Topic { name: format!("{}-none", topic.name), ..topic };
    let node = Node { number: 0, boot: "boot".into() };
    let error = KafkaChannel::open(&not_made, &missing, b"log", node).err().unwrap().to_string();
    assert!(error.contains("log.kafka.create_topic = true"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_forgets_is_made_and_one_that_piles_up_is_refused() {
    let Some((settings, topic)) = place() else { return };
    let client = settings::client(&settings, &topic.brokers).unwrap();
    let admin: rdkafka::admin::AdminClient<Context> = client.create_with_context(Context::default()).unwrap();
    let options = rdkafka::admin::AdminOptions::new();
    let node = || Node { number: 0, boot: "boot".into() };
    drop(KafkaChannel::open(&settings, &topic, b"log", node()).unwrap());
    let name = topic.channel();
    let described = [&rdkafka::admin::ResourceSpecifier::Topic(&name)];
    let made = admin.describe_configs(described, &options).await.unwrap().remove(0).unwrap();
    let value = |key: &str| made.get(key).unwrap().value.clone().unwrap();
    assert_eq!(["cleanup.policy", "retention.ms", "segment.ms"].map(value), ["delete", "600000", "600000"]);
    // One that somebody else made.
    for (policy, retention, problems) in [
        ("compact", "600000", &["cleanup.policy is compact"][..]),
        ("delete", "-1", &["retention.ms is -1"]),
        ("compact,delete", "604800000", &["cleanup.policy is compact,delete", "retention.ms is 604800000"]),
        ("delete", "60000", &[]),
    ] {
        let topic = Topic { name: format!("{}-{}-{}", topic.name, policy.len(), retention), ..topic.clone() };
        let name = topic.channel();
        let new = rdkafka::admin::NewTopic::new(&name, 1, rdkafka::admin::TopicReplication::Fixed(1));
        let new = new.set("cleanup.policy", policy).set("retention.ms", retention);
        admin.create_topics([&new], &options).await.unwrap();
        let opened = KafkaChannel::open(&settings, &topic, b"log", node());
        let why = opened.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(problems.iter().all(|problem| why.contains(problem)), "{problems:?}: {why}");
        assert_eq!(
            (why.matches("- ").count(), why.contains("kafka-configs.sh")),
            match problems.len() {
                0 => (0, false),
                count => (count, true),
            }
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_and_hears_again_when_the_broker_is_back() {
    let Some(broker) = broker::Broker::start() else { return };
    let (settings, _) = place().unwrap();
    let place = (settings, Topic { brokers: broker.address(), name: "log".into() });
    let nodes = [0, 1].map(|number| Ear::open(&place, number));
    nodes[0].channel.tell(alive("before"));
    nodes[0].caught_up().await;
    broker.signal("-STOP");
    let began = Instant::now();
    for n in 0..20_000 {
        nodes[0].channel.tell(alive(n.to_string()));
    }
    assert!(began.elapsed() < Duration::from_secs(3), "telling waits for nobody: {:?}", began.elapsed());
    let silent = tokio::time::timeout(LONG, nodes[1].channel.caught_up()).await.unwrap();
    assert!(silent.is_err(), "{silent:?}");
    // However many ask, they are told soon.
    let began = Instant::now();
    let silent = futures::future::join_all((0..1_000).map(|_| nodes[1].channel.caught_up())).await;
    assert!(silent.iter().all(Result::is_err) && began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    broker.signal("-CONT");
    let deadline = Instant::now() + LONG;
    loop {
        nodes[0].channel.tell(alive("after"));
        let caught_up = tokio::time::timeout(LONG, nodes[1].channel.caught_up()).await;
        if matches!(caught_up, Ok(Ok(()))) && nodes[1].heard().iter().any(|(_, told)| told.message == alive("after")) {
            break;
        }
        assert!(Instant::now() < deadline, "it recovers by itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_anew_is_followed() {
    let Some(place) = place() else { return };
    let first = Ear::open(&place, 0);
    for n in 0..50 {
        first.channel.tell(alive(n.to_string()));
    }
    first.caught_up().await;
    let client = settings::client(&place.0, &place.1.brokers).unwrap();
    let admin: rdkafka::admin::AdminClient<Context> = client.create_with_context(Context::default()).unwrap();
    let name = first.channel.shared.topic.as_str();
    admin.delete_topics(&[name], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    let deadline = Instant::now() + LONG * 2;
    let second = loop {
        let node = Node { number: 1, boot: "boot1".into() };
        match KafkaChannel::open(&place.0, &place.1, b"log", node) {
            Ok(channel) if channel.position() == 0 => break channel,
            // The brokers may take a moment to forget it.
            _ => assert!(Instant::now() < deadline, "it can be made anew"),
        }
    };
    while !first.heard().iter().any(|(_, told)| told.message == alive("anew")) {
        second.tell(alive("anew"));
        assert!(Instant::now() < deadline, "it is followed");
        tokio::time::timeout(LONG, second.caught_up()).await.unwrap().unwrap();
    }
}
