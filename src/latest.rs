//! What changes elsewhere, such as where the log ends: asked once for all who want to know.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

/// Who could not be asked is not asked again for so long.
const AWAY: Duration = Duration::from_secs(1);

/// Shares each answer among all who came before it was asked for: so that it costs one thread, however many wait.
pub(crate) struct Latest<T>(Arc<Mutex<Option<Round<T>>>>);

struct Round<T> {
    began: Instant,
    ended: Instant,
    answer: Result<T, String>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Round<T> {
    /// Whether it answers who came at some time.
    fn serves(&self, came: Instant) -> bool {
        self.began >= came || self.answer.is_err() && self.ended.elapsed() < AWAY
    }
}

impl<T: Clone + Send + 'static> Latest<T> {
    /// How it was at some time after this call. `ask` asks, and may block.
    ///
    /// # Errors
    /// Why nobody answers, or did not a moment ago.
    pub async fn ask(&self, ask: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
        let came = Instant::now();
        let mut last = Arc::clone(&self.0).lock_owned().await;
        if let Some(round) = last.as_ref().filter(|round| round.serves(came)) {
            return round.answer.clone();
        }
        // It keeps its turn to the end, whether or not anybody waits for it.
        let asking = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let answer = ask();
            *last = Some(Round { began, ended: Instant::now(), answer: answer.clone() });
            answer
        });
        asking.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    };

    use futures::future::join_all;

    use super::*;

    /// Answers with how often it was asked.
    #[derive(Clone, Default)]
    struct Asked(Arc<AtomicU64>);

    impl Asked {
        fn answer(&self) -> Result<u64, String> {
            Ok(self.0.fetch_add(1, Ordering::SeqCst) + 1)
        }
    }

    #[tokio::test]
    async fn who_waits_shares_one_answer_that_was_asked_for_later() {
        let (latest, asked) = (Arc::new(Latest::default()), Asked::default());
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (go, goes) = mpsc::channel();
        let first = {
            let (latest, asked) = (Arc::clone(&latest), asked.clone());
            tokio::spawn(async move {
                let ask = move || {
                    begun.send(()).unwrap();
                    goes.recv().unwrap();
                    asked.answer()
                };
                latest.ask(ask).await
            })
        };
        begins.await.unwrap();
        // Whoever gives up leaves its turn to nobody before the end.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let waiting = (0..100).map(|_| {
            let asked = asked.clone();
            latest.ask(move || asked.answer())
        });
        let waiting = join_all(waiting);
        let let_go = async {
            tokio::task::yield_now().await;
            go.send(()).unwrap();
        };
        let (answers, ()) = futures::join!(waiting, let_go);
        for answer in answers {
            assert_eq!(answer, Ok(2), "what was asked before they came is not for them");
        }
        let again = asked.clone();
        assert_eq!(latest.ask(move || again.answer()).await, Ok(3));
    }

    #[tokio::test]
    async fn who_is_away_is_not_asked_by_everybody() {
        let (latest, asked) = (Latest::default(), Asked::default());
        let began = Instant::now();
        let mut failed = 0;
        while began.elapsed() < 2 * AWAY {
            let asked = asked.clone();
            let answer = latest.ask(move || {
                asked.answer()?;
                Err("away".into())
            });
            assert_eq!(answer.await, Err("away".to_owned()));
            failed += 1;
        }
        let times = asked.0.load(Ordering::SeqCst);
        assert!((1..=3).contains(&times) && failed > 10, "{failed} failed, of which {times} asked");
        // Once it is back, that is known in time.
        while latest.ask(|| Ok(7)).await.is_err() {
            assert!(began.elapsed() < 5 * AWAY);
            tokio::task::yield_now().await;
        }
    }
}
