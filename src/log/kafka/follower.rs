//! One thread fetches what is appended, by whomever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rdkafka::{ClientConfig, consumer::BaseConsumer};

use super::{
    OpenError,
    fetch::{self, Fetched},
    settings::{self, Context},
    shared::Shared,
};

/// So long it may take to see that it is to end.
const POLL: Duration = Duration::from_millis(100);

pub(super) struct Follower {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Fetches from the topic's end on.
    pub fn start(client: &ClientConfig, shared: Arc<Shared>) -> Result<Self, OpenError> {
        let consumer = settings::consumer(client, Context::default())?;
        let wrong = |why: String| OpenError::Refused { what: "the topic can't be followed".into(), why };
        let next = shared.state().next;
        fetch::assign(&consumer, &shared.topic, next).map_err(|error| wrong(error.to_string()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("kafka".into())
            .spawn(move || follow(&consumer, &shared, &stopping))
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that follows the topic panicked");
        }
    }
}

fn follow(consumer: &BaseConsumer<Context>, shared: &Shared, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        match consumer.poll(POLL) {
            Some(Ok(message)) => shared.fetched(&Fetched::of(&message)),
            Some(Err(error)) if fetch::is_out_of_range(&error) => {
                let topic = &shared.topic;
                let why = format!(
                    "the topic {topic} has lost records or was made anew while the server ran ({error}): restore it, and \
                     start the server again"
                );
                return shared.fail(why);
            }
            // The library connects again by itself.
            Some(Err(error)) => tracing::debug!(%error, "nothing can be fetched for now"),
            None => {}
        }
    }
}
