//! The room's home decides what is overtaken again and again elsewhere.
//!
//! A client's request about a room is decided where it came to, and the log says whether that stands. Where a room is
//! written on several nodes at once, all but one decision are void each time; whose appends take longest could lose
//! for ever. So after [`VOID`] void records the request goes to the room's home among the nodes that live, where all
//! decisions about the room stand in one lane. Nothing rests on it: where the home is, is a belief of each node, and a
//! wrong one costs void records alone.
//!
//! The record ids of such a request are the same here and there: whatever becomes of it on the way, it has one effect.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use futures::future::BoxFuture;
use schemas::{Origin, RecordId};

use super::Request;
use crate::nodes::Member;

/// After so many void records a request goes to the room's home.
pub(super) const VOID: u16 = 2;

/// Takes a request to another node.
pub trait Courier: Send + Sync {
    /// Says whether the request was answered there.
    fn take_to(&self, home: Member) -> BoxFuture<'_, bool>;
}

/// A client's request, as its decisions see it.
pub struct Asked {
    nonce: String,
    courier: Option<Arc<dyn Courier>>,
    is_counted: bool,
    decisions: AtomicU32,
    settled: AtomicBool,
}

tokio::task_local! {
    static ASKED: Arc<Asked>;
}

impl Asked {
    /// A request with a name that no other has, and a way to the room's home; none lets it stay.
    #[must_use]
    pub fn new(nonce: String, courier: Option<Arc<dyn Courier>>) -> Arc<Self> {
        Arc::new(Self::build(nonce, courier, false))
    }

    /// A request that counted against its sender's rate limits before: it came from another node, or is carried out
    /// again. It stays.
    #[must_use]
    pub fn again(nonce: String) -> Arc<Self> {
        Arc::new(Self::build(nonce, None, true))
    }

    fn build(nonce: String, courier: Option<Arc<dyn Courier>>, is_counted: bool) -> Self {
        Self { nonce, courier, is_counted, decisions: AtomicU32::new(0), settled: AtomicBool::new(false) }
    }

    /// Carries it out: `handler` and what that awaits knows which request it is.
    pub async fn carry_out<F: Future>(self: Arc<Self>, handler: F) -> F::Output {
        ASKED.scope(self, handler).await
    }

    /// The request that is being carried out.
    pub(super) fn current() -> Option<Arc<Self>> {
        ASKED.try_with(Arc::clone).ok()
    }

    /// Whether something that it asked for is done.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::SeqCst)
    }

    /// Notes that something that it asked for is done: the rest is done here, too.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::SeqCst);
    }

    /// The way to the room's home, if it may go there.
    pub(super) fn courier(&self) -> Option<Arc<dyn Courier>> {
        self.courier.clone().filter(|_| !self.is_settled())
    }

    /// Gives its next decision a record id that is the same on each node.
    pub(super) fn name(&self, request: &mut Request) {
        if let (None, Origin::User { user, device: Some(device) }) = (request.id, &request.origin) {
            let n = self.decisions.fetch_add(1, Ordering::SeqCst).to_string();
            request.id = Some(RecordId::of_request(user, device, "", &self.nonce, &n));
        }
    }
}

/// Whether the request that is being carried out counted against rate limits before.
#[must_use]
pub fn is_counted() -> bool {
    ASKED.try_with(|asked| asked.is_counted).unwrap_or(false)
}
