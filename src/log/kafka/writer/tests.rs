//! On brokers that can be told to fail, and none at all.

use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use super::*;
use crate::{
    config::{Compression, Config, Sources},
    log::{
        amendments::Amendments,
        conformance::record,
        kafka::{follower::Follower, segments::Segments, settings},
    },
};

const LONG: Duration = Duration::from_secs(20);

fn settings() -> Kafka {
    Config::load(Sources::default()).unwrap().log.kafka
}

#[test]
fn what_promises_rest_on_reaches_the_producer() {
    let settings =
        Kafka { linger: Duration::from_millis(7), batch_bytes: 54_321, compression: Compression::Zstd, ..settings() };
    let client = settings::client(&settings, "127.0.0.1:1").unwrap();
    let shared = Shared::new("log".into(), Amendments::default(), Segments::default(), 0, None);
    let writer = Writer::open(&client, &settings, Arc::new(shared), Arc::new(())).unwrap();
    for (name, value) in [
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("max.in.flight.requests.per.connection", "5"),
        ("message.timeout.ms", "8000"),
        ("allow.auto.create.topics", "false"),
        ("linger.ms", "7"),
        ("batch.size", "54321"),
        ("compression.type", "zstd"),
    ] {
        assert_eq!(writer.config.get(name), Some(value), "{name}");
    }
    // The library knows each by that name, and none is overruled by another.
    let native = writer.config.create_native_config().unwrap();
    for (name, value) in [("acks", "-1"), ("linger.ms", "7"), ("compression.type", "zstd"), ("batch.size", "54321")] {
        assert_eq!(native.get(name).unwrap().trim_end_matches('\0'), value, "{name}");
    }
}

/// A writer on brokers that can be told to fail, and who follows it.
struct Mocked {
    brokers: MockCluster<'static, DefaultProducerContext>,
    writer: Writer,
    _follower: Follower,
}

impl Mocked {
    fn open() -> Self {
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("log", 1, 1).unwrap();
        let settings = Kafka { timeout: Duration::from_secs(3), ..settings() };
        let client = settings::client(&settings, &brokers.bootstrap_servers()).unwrap();
        let shared = Shared::new("log".into(), Amendments::default(), Segments::default(), 0, None);
        let shared = Arc::new(shared);
        let follower = Follower::start(&client, Arc::clone(&shared)).unwrap();
        let writer = Writer::open(&client, &settings, shared, Arc::new(())).unwrap();
        Self { brokers, writer, _follower: follower }
    }

    fn append(&self, n: u64) -> Result<Lsn, AppendError> {
        self.writer.append(vec![record(n, 1, 1)]).remove(0).blocking_recv().unwrap()
    }

    fn fail<const TIMES: usize>(&self, error: RDKafkaRespErr) {
        self.brokers.request_errors(RDKafkaApiKey::Produce, &[error; TIMES]);
    }

    fn can_go_on(&self) -> bool {
        let producer = self.writer.producer();
        producer.as_ref().unwrap().producer.client().fatal_error().is_none()
    }
}

/// What a producer can't go on from is rare with real brokers.
#[test]
fn after_a_fatal_error_a_new_producer_goes_on() {
    let log = Mocked::open();
    assert_eq!(log.append(1).unwrap(), Lsn(1));
    log.fail::<3>(RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    let failed = log.append(2).unwrap_err();
    assert!(matches!(failed, AppendError::Unconfirmed(_)), "{failed}");
    assert!(!log.can_go_on(), "the error was not fatal");
    log.brokers.clear_request_errors(RDKafkaApiKey::Produce);
    let began = Instant::now();
    let appended = std::iter::repeat_with(|| log.append(3)).find(|appended| appended.is_ok() || began.elapsed() > LONG);
    let appended = appended.unwrap().unwrap();
    assert!(appended > Lsn(1) && log.can_go_on(), "{appended}");
    // None that is closed takes more.
    log.writer.close();
    assert!(matches!(log.append(4), Err(AppendError::Closed)));
}

#[test]
fn while_a_fatal_error_lasts_producers_are_not_made_again_and_again() {
    let log = Mocked::open();
    log.fail::<1_000>(RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER);
    let (began, mut failed, mut refused) = (Instant::now(), 0_u32, 0);
    while began.elapsed() < 3 * AGAIN {
        match log.append(1).unwrap_err() {
            AppendError::Unconfirmed(_) => failed += 1,
            AppendError::Unavailable(_) => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!((1..=4).contains(&failed) && refused > 10, "{failed} producers failed, {refused} appends were refused");
    log.brokers.clear_request_errors(RDKafkaApiKey::Produce);
    while log.append(2).is_err() {
        assert!(began.elapsed() < LONG, "it goes on by itself");
    }
}

#[test]
fn what_the_brokers_have_but_do_not_say_where_is_not_acknowledged_anywhere() {
    let log = Mocked::open();
    assert_eq!(log.append(1).unwrap(), Lsn(1));
    // So they answer to one that comes again and of which they know only the number.
    log.fail::<1>(RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER);
    let failed = log.append(2);
    assert!(matches!(failed, Err(AppendError::Unconfirmed(_))), "{failed:?}");
    assert_eq!(log.append(3).unwrap(), Lsn(2));
}
