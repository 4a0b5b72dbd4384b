//! On a real broker, of which each test has topics of its own: `EVERFOLD_TEST_KAFKA` names one, else it is started.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{
    config::{Config, Sources},
    log::conformance::{Backend, conformance},
};

/// A topic that is not there yet.
struct Place {
    settings: Kafka,
    topic: Topic,
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
        let settings = Config::load(Sources::default()).unwrap().log.kafka;
        Self { settings, topic: Topic { brokers, name } }
    }

    fn open(&self) -> Arc<dyn Log> {
        Arc::new(KafkaLog::open(&self.settings, &self.topic, Arc::new(())).unwrap())
    }
}

conformance!(conforms, super::Place);
