//! A request's body that can be read again.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream::Fuse};

/// Keeps what is read of a body, and no more than that: what nobody reads stays with the client.
#[derive(Clone)]
pub(super) struct Kept(Arc<Mutex<State>>);

struct State {
    read: Vec<Bytes>,
    rest: Fuse<BodyDataStream>,
}

impl Kept {
    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(State { read: Vec::new(), rest: body.into_data_stream().fuse() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body from its beginning. It is read once at a time.
    pub(super) fn read(&self) -> Body {
        Body::from_stream(Again { kept: self.clone(), next: 0 })
    }

    /// What was read so far: all of it, once a handler has its request.
    pub(super) fn whole(&self) -> Bytes {
        let state = self.state();
        match &state.read[..] {
            [one] => one.clone(),
            parts => parts
                .iter()
                .fold(BytesMut::new(), |mut all, part| {
                    all.extend_from_slice(part);
                    all
                })
                .freeze(),
        }
    }
}

struct Again {
    kept: Kept,
    next: usize,
}

impl Stream for Again {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let kept = self.kept.clone();
        let mut state = kept.state();
        if let Some(part) = state.read.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(part.clone())));
        }
        let part = ready!(state.rest.poll_next_unpin(cx));
        if let Some(Ok(part)) = &part {
            state.read.push(part.clone());
            self.next += 1;
        }
        Poll::Ready(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_again_from_where_nobody_read_it() {
        let parts = ["one ", "two ", "three"].map(|part| Ok::<_, axum::Error>(Bytes::from(part)));
        let kept = Kept::new(Body::from_stream(futures::stream::iter(parts)));
        let mut first = kept.read().into_data_stream();
        assert_eq!(first.next().await.unwrap().unwrap(), "one ");
        drop(first);
        assert_eq!(kept.whole(), "one ");
        assert_eq!(axum::body::to_bytes(kept.read(), 100).await.unwrap(), "one two three");
        assert_eq!(axum::body::to_bytes(kept.read(), 100).await.unwrap(), "one two three");
        assert_eq!(kept.whole(), "one two three");
    }
}
