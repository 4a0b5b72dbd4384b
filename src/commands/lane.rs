//! A room's lane: decisions for one room are made one after another, in a task of its own; different rooms never wait
//! for each other.
//!
//! Messages are pipelined: the next is decided and appended while the former's fsync and fold are under way. Each
//! names the record before it (`after`), so that a void or lost one voids the rest, which are then decided again in
//! order. Everything that changes state is a barrier: the lane waits for the fold before and after it. Correctness
//! never depends on the lane: that is what guards are for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesOrdered};
use projections::{View, models::admission};
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use schemas::{After, Draft, Lsn, admission::Void};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use super::{
    Done, Error, PATIENCE, Parts, Reply, Request, Stamp, StateCache,
    handover::{self, Asked},
};
use crate::nodes::Member;

/// At most so many messages of a room are on their way at once.
const DEPTH: usize = 64;
/// At most so many decisions of a room wait.
const QUEUE: usize = 4_096;
/// A lane without work ends after this time.
const IDLE: Duration = Duration::from_secs(30);
/// A view that messages are decided on is renewed after this time, so that RocksDB need not keep old versions long.
const VIEW_AGE: Duration = Duration::from_millis(500);

/// What the next event of a room builds on.
pub struct Tip {
    /// The state that it is decided on; what is in flight is not in it.
    pub view: View,
    /// The message in flight that it comes after: its event id and depth. None: the view's forward extremities.
    pub before: Option<(OwnedEventId, u64)>,
    /// What the rules asked for lately.
    pub state: StateCache,
}

/// What was decided about a room.
pub enum Step<R> {
    /// A message: state stays as it is. The event id and depth are what the next one builds on.
    Message(Draft, OwnedEventId, u64, Reply<R>),
    /// Something that the next decision must see folded.
    Barrier(Draft, Reply<R>),
    /// It reads what may still be in flight: it is decided again once that is folded.
    Drain,
    /// Nothing has to change.
    Reply(R),
}

/// A decision about a room. It may be made several times; only what was folded counts.
pub trait Job: Send + 'static {
    /// What the request gets.
    type Reply: Send + 'static;

    /// Whether it can be decided while messages are in flight.
    fn pipelines(&self) -> bool {
        false
    }

    /// Decides.
    ///
    /// # Errors
    /// When it is refused.
    fn decide(&mut self, tip: &Tip) -> Result<Step<Self::Reply>, Error>;

    /// The reply to a request that was carried out before, by the record at `lsn`.
    ///
    /// # Errors
    /// When the store fails.
    fn repeated(&mut self, view: &View, lsn: Lsn) -> Result<Self::Reply, Error>;
}

/// All rooms' lanes.
pub struct Lanes {
    parts: Arc<Parts>,
    rooms: Mutex<HashMap<OwnedRoomId, mpsc::Sender<Box<dyn Work>>>>,
    tasks: TaskTracker,
}

impl Lanes {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts, rooms: Mutex::new(HashMap::new()), tasks: TaskTracker::new() }
    }

    /// Takes no more decisions, and waits for the end of those under way: then nothing of the store is held any more.
    pub async fn close(&self) {
        self.tasks.close();
        self.rooms().clear();
        self.tasks.wait().await;
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<OwnedRoomId, mpsc::Sender<Box<dyn Work>>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a decision on a room's lane and waits for its reply. It goes on if the caller doesn't wait. What a client asks
    /// for may leave for the room's home.
    ///
    /// # Errors
    /// When it is refused, or can't be made now.
    pub async fn run<J: Job>(
        self: &Arc<Self>,
        room: &RoomId,
        request: impl Into<Request>,
        mut job: J,
    ) -> Result<J::Reply, Error> {
        let (mut request, asked) = (request.into(), Asked::current());
        if let Some(asked) = &asked {
            asked.name(&mut request);
        }
        let mut stamp = Stamp::new(&self.parts, request);
        let mut courier = asked.as_ref().and_then(|asked| asked.courier());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (sender, receiver) = oneshot::channel();
            let may_leave = courier.is_some();
            let work = Pending { job, stamp, deadline, may_leave, reply: None, sender: Some(sender) };
            self.enqueue(room, Box::new(work))?;
            match receiver.await.map_err(|_| Error::Unavailable("the server is shutting down".into()))? {
                Outcome::Answer(answer) => {
                    if let (Ok(_), Some(asked)) = (&answer, &asked) {
                        asked.settle();
                    }
                    return answer;
                }
                Outcome::Leaves(home, staying, its) => {
                    if let Some(courier) = courier.take()
                        && courier.take_to(home).await
                    {
                        return Err(Error::Elsewhere);
                    }
                    // It is not to be had there: it is decided here, after all.
                    (job, stamp) = (staying, its);
                }
            }
        }
    }

    fn enqueue(self: &Arc<Self>, room: &RoomId, work: Box<dyn Work>) -> Result<(), Error> {
        let mut rooms = self.rooms();
        if self.tasks.is_closed() {
            return Err(Error::Unavailable("the server is shutting down".into()));
        }
        let work = match rooms.get(room) {
            Some(lane) => match lane.try_send(work) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => {
                    return Err(Error::Unavailable("too many requests wait for this room; try again".into()));
                }
                Err(mpsc::error::TrySendError::Closed(work)) => work,
            },
            None => work,
        };
        let (sender, receiver) = mpsc::channel(QUEUE);
        // An empty queue takes one.
        let _ = sender.try_send(work);
        rooms.insert(room.to_owned(), sender);
        drop(rooms);
        let lane = Lane {
            parts: Arc::clone(&self.parts),
            inbox: receiver,
            again: VecDeque::new(),
            flying: Flying::default(),
            state: StateCache::default(),
        };
        self.tasks.spawn(lane.run(room.to_owned(), Arc::clone(self)));
        Ok(())
    }
}

/// A job with its reply type hidden.
trait Work: Send {
    fn pipelines(&self) -> bool;
    fn deadline(&self) -> Instant;
    fn mark(&self) -> After;
    /// Decides; none means that it has been answered. It may be decided several times.
    fn decide(&mut self, tip: &Tip, after: Option<After>) -> Result<Option<Sealed>, Error>;
    fn again(&mut self);
    /// Whether it was overtaken so often that the room's home is to decide it, if that is another node.
    fn should_leave(&self) -> bool;
    fn leave(self: Box<Self>, home: Member);
    fn finish(self: Box<Self>, done: &Done);
    fn repeated(self: Box<Self>, view: Result<View, Error>, lsn: Lsn);
    fn fail(self: Box<Self>, error: Error);
}

enum Sealed {
    Message(Vec<bytes::Bytes>, OwnedEventId, u64),
    Barrier(Vec<bytes::Bytes>),
    Drain,
}

/// What a lane has to say to whoever asked.
enum Outcome<J: Job> {
    Answer(Result<J::Reply, Error>),
    /// The room's home is to decide it.
    Leaves(Member, J, Stamp),
}

struct Pending<J: Job> {
    job: J,
    stamp: Stamp,
    deadline: Instant,
    /// Whether it may go to the room's home.
    may_leave: bool,
    reply: Option<Reply<J::Reply>>,
    sender: Option<oneshot::Sender<Outcome<J>>>,
}

impl<J: Job> Pending<J> {
    fn answer(&mut self, answer: Result<J::Reply, Error>) {
        if let Some(sender) = self.sender.take() {
            // Whoever asked may be gone.
            let _ = sender.send(Outcome::Answer(answer));
        }
    }
}

impl<J: Job> Work for Pending<J> {
    fn pipelines(&self) -> bool {
        self.job.pipelines()
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn mark(&self) -> After {
        self.stamp.mark()
    }

    fn decide(&mut self, tip: &Tip, after: Option<After>) -> Result<Option<Sealed>, Error> {
        if let Some(lsn) = admission::applied(&tip.view, &self.stamp.id())? {
            let answer = self.job.repeated(&tip.view, lsn);
            self.answer(answer);
            return Ok(None);
        }
        let (sealed, reply) = match self.job.decide(tip)? {
            Step::Reply(reply) => {
                self.answer(Ok(reply));
                return Ok(None);
            }
            Step::Drain => return Ok(Some(Sealed::Drain)),
            Step::Message(draft, event, depth, reply) => {
                (Sealed::Message(self.stamp.seal_message(draft, &tip.view, after)?, event, depth), reply)
            }
            Step::Barrier(draft, reply) => (Sealed::Barrier(self.stamp.seal(draft, &tip.view)?), reply),
        };
        self.reply = Some(reply);
        Ok(Some(sealed))
    }

    fn again(&mut self) {
        self.stamp.again();
        self.reply = None;
    }

    fn should_leave(&self) -> bool {
        self.may_leave && self.stamp.attempts() >= handover::VOID
    }

    fn leave(self: Box<Self>, home: Member) {
        let Self { job, stamp, sender, .. } = *self;
        if let Some(sender) = sender {
            // Whoever asked may be gone: then nothing was done.
            let _ = sender.send(Outcome::Leaves(home, job, stamp));
        }
    }

    fn finish(mut self: Box<Self>, done: &Done) {
        self.stamp.applied(done.lsn);
        let answer = match self.reply.take() {
            Some(reply) => reply(done),
            None => Err(Error::Internal("a lane finished what it had not decided".into())),
        };
        self.answer(answer);
    }

    fn repeated(mut self: Box<Self>, view: Result<View, Error>, lsn: Lsn) {
        let answer = view.and_then(|view| self.job.repeated(&view, lsn));
        self.answer(answer);
    }

    fn fail(mut self: Box<Self>, error: Error) {
        self.answer(Err(error));
    }
}

/// How a record in flight ended.
type Landing = Result<(Lsn, Option<Void>), Error>;

#[derive(Default)]
struct Flying {
    works: VecDeque<Box<dyn Work>>,
    landings: FuturesOrdered<BoxFuture<'static, Landing>>,
}

struct Lane {
    parts: Arc<Parts>,
    inbox: mpsc::Receiver<Box<dyn Work>>,
    /// Decisions to be made again, before what is in the inbox.
    again: VecDeque<Box<dyn Work>>,
    flying: Flying,
    state: StateCache,
}

struct Base {
    tip: Tip,
    after: Option<After>,
    since: Instant,
}

impl Lane {
    async fn run(mut self, room: OwnedRoomId, lanes: Arc<Lanes>) {
        let mut base: Option<Base> = None;
        while let Some(work) = self.next(&room, &lanes, &mut base).await {
            if work.deadline() <= Instant::now() {
                work.fail(Error::Unavailable("the room is busy; try again".into()));
                continue;
            }
            if work.should_leave()
                && let Some(home) = self.parts.members.home(room.as_str())
            {
                work.leave(home);
                continue;
            }
            self.take(work, &mut base).await;
        }
    }

    /// The next decision to make. Meanwhile, what is in flight lands.
    async fn next(&mut self, room: &RoomId, lanes: &Lanes, base: &mut Option<Base>) -> Option<Box<dyn Work>> {
        loop {
            if self.flying.works.is_empty() {
                *base = None;
            }
            if self.flying.works.len() < DEPTH
                && let Some(work) = self.again.pop_front()
            {
                return Some(work);
            }
            let full = self.flying.works.len() >= DEPTH || !self.again.is_empty();
            tokio::select! {
                biased;
                Some(landing) = self.flying.landings.next() => self.land(landing, base).await,
                work = self.inbox.recv(), if !full => match work {
                    Some(work) => return Some(work),
                    None if self.flying.works.is_empty() => return None,
                    // The lanes close: what is under way comes to its end.
                    None => self.drain(base).await,
                },
                () = tokio::time::sleep(IDLE), if self.flying.works.is_empty() => {
                    let mut rooms = lanes.rooms();
                    // Nothing can be enqueued while the map is locked.
                    if self.inbox.is_empty() {
                        rooms.remove(room);
                        return None;
                    }
                }
            }
        }
    }

    /// Makes one decision and appends it.
    async fn take(&mut self, mut work: Box<dyn Work>, base: &mut Option<Base>) {
        // The reply to a request that comes again is known once the first is folded.
        let comes_again = self.flying.works.iter().any(|flying| flying.mark().id == work.mark().id);
        if !self.flying.works.is_empty() && (!work.pipelines() || comes_again) {
            // What has to be decided again goes before it.
            self.again.push_front(work);
            return self.drain(base).await;
        }
        let mut now = match self.base(base.take()) {
            Ok(now) => now,
            Err(error) => return work.fail(error),
        };
        let mut decided = work.decide(&now.tip, now.after);
        if matches!(decided, Err(Error::Refused(_)))
            && let Ok(view) = self.parts.source.view()
            && view.lsn() > now.tip.view.lsn()
        {
            // What it was refused for may have changed since, by another node.
            now = Base { tip: Tip { view, ..now.tip }, since: Instant::now(), ..now };
            decided = work.decide(&now.tip, now.after);
        }
        let sealed = match decided {
            Ok(sealed) => sealed,
            Err(error) => {
                *base = Some(now);
                return work.fail(error);
            }
        };
        match sealed {
            None => *base = Some(now),
            Some(Sealed::Message(records, event, depth)) => {
                let after = Some(work.mark());
                if !self.fly(work, records) {
                    *base = Some(now);
                    return;
                }
                *base = Some(Base { tip: Tip { before: Some((event, depth)), ..now.tip }, after, ..now });
            }
            Some(Sealed::Drain | Sealed::Barrier(_)) if !self.flying.works.is_empty() => {
                drop(now);
                self.again.push_front(work);
                self.drain(base).await;
            }
            Some(Sealed::Barrier(records)) => {
                drop(now);
                self.fly(work, records);
                self.drain(base).await;
            }
            Some(Sealed::Drain) => {
                work.fail(Error::Internal("a decision waits for what nobody has sent".into()));
            }
        }
    }

    /// The base for the next decision: the former one while messages are in flight, else a new view.
    fn base(&self, former: Option<Base>) -> Result<Base, Error> {
        let now = Instant::now();
        match former {
            Some(base) if now.duration_since(base.since) < VIEW_AGE => Ok(base),
            Some(base) => {
                let tip = Tip { view: self.parts.source.view()?, ..base.tip };
                Ok(Base { tip, after: base.after, since: now })
            }
            None => {
                let tip = Tip { view: self.parts.source.view()?, before: None, state: self.state.clone() };
                Ok(Base { tip, after: None, since: now })
            }
        }
    }

    /// Appends what was decided; says whether it could be.
    fn fly(&mut self, work: Box<dyn Work>, records: Vec<bytes::Bytes>) -> bool {
        let parts = Arc::clone(&self.parts);
        let place = match parts.admit(&records) {
            Ok(place) => place,
            Err(error) => {
                work.fail(error);
                return false;
            }
        };
        // The order of these calls is the order on the log.
        let (receipts, deadline) = (parts.log.append(records), work.deadline());
        self.flying.works.push_back(work);
        self.flying.landings.push_back(Box::pin(async move {
            let landing = parts.landed(receipts, deadline).await;
            drop(place);
            landing
        }));
        true
    }

    /// Waits until nothing is in flight.
    async fn drain(&mut self, base: &mut Option<Base>) {
        while let Some(landing) = self.flying.landings.next().await {
            self.land(landing, base).await;
        }
        *base = None;
    }

    /// Answers the oldest record in flight. If it was not applied, whatever was built on it was not either: those are
    /// decided again, in order, before anything else.
    async fn land(&mut self, landing: Landing, base: &mut Option<Base>) {
        let Some(lost) = self.answer(landing) else { return };
        *base = None;
        let mut lost: Vec<_> = lost.into_iter().collect();
        while let Some(landing) = self.flying.landings.next().await {
            lost.extend(self.answer(landing).flatten());
        }
        for work in lost.into_iter().rev() {
            self.again.push_front(work);
        }
    }

    /// Answers the oldest record in flight: none if it was applied, else what has to be decided again, if anything.
    fn answer(&mut self, landing: Landing) -> Option<Option<Box<dyn Work>>> {
        let mut work = self.flying.works.pop_front()?;
        let source = &self.parts.source;
        match landing {
            Ok((lsn, None)) => {
                work.finish(&Done { lsn, source: Arc::clone(source) });
                None
            }
            Ok((_, Some(Void::Repeated(first)))) => {
                work.repeated(source.view().map_err(Error::from), first);
                Some(None)
            }
            Ok((_, Some(_))) => {
                work.again();
                Some(Some(work))
            }
            Err(error) => {
                work.fail(error);
                Some(None)
            }
        }
    }
}
