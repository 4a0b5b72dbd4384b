//! The projector's end: takes appends, tells positions, and passes on what processes tell each other.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use projections::{Applied, Cursor, Model, Touched};
use schemas::Blob;
use tokio::{
    io::BufReader,
    net::{UnixListener, UnixStream, unix::OwnedWriteHalf},
    sync::{Notify, mpsc},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    frame::{self, Reader},
    protocol::{Ask, NotAppended, NotMade, NotRebuilt, Now, Say, Serves, VERSION, Welcome},
    socket,
};
use crate::{
    clock::{Clock, Random},
    fold::{Progress, RebuildError, Rebuilds},
    log::{AppendError, Log, Receipt},
    nodes::Position,
    snapshot::Snapshots,
};

/// So many messages may wait for a process; one that is slower than that is cut off, and comes again.
const WAITING: usize = 16_384;
/// So much of one call may come in parts.
const CALL_BYTES: usize = 64 << 20;
/// What was said last has so long to get to a process.
const FAREWELL: Duration = Duration::from_secs(2);
/// What commits touched is told by name up to here, and beyond as everything.
const NAMES: usize = 10_000;
/// Numbers for processes that want one are of these. On other machines other projectors give numbers to processes on the same
/// log: there are so many that no two processes of any one server ever get the same.
const NUMBERS: std::ops::Range<u32> = 1_000..1 << 31;

/// What a hub is of.
pub struct Projecting {
    /// The data folder.
    pub folder: PathBuf,
    /// Takes what the others append.
    pub log: Arc<dyn Log>,
    /// How far the fold has come.
    pub progress: Arc<Progress>,
    /// The way to fold models anew.
    pub rebuilds: Rebuilds,
    /// The way to make snapshots.
    pub snapshots: Snapshots,
    /// Whose log it is.
    pub server_name: String,
    /// Time, at which the order begins in which processes hear each other.
    pub clock: Arc<dyn Clock>,
    /// Numbers processes.
    pub random: Arc<dyn Random>,
}

/// The projector's end of the socket. One that is dropped takes no more processes.
pub struct Hub {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct Shared {
    of: Projecting,
    processes: Mutex<Processes>,
}

struct Processes {
    position: Position,
    last: u64,
    connected: BTreeMap<u64, Process>,
}

/// A process that serves.
struct Process {
    number: u32,
    says: mpsc::Sender<Say>,
    news: Arc<News>,
    cut: CancellationToken,
}

/// What a process has yet to be told of commits.
struct News {
    told_next: Mutex<(Cursor, Touched)>,
    changed: Notify,
}

impl Hub {
    /// Listens in the data folder.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn start(of: Projecting) -> io::Result<Self> {
        let listener = socket::listen(&of.folder)?;
        // Positions rise from one projector to the next, and are whole numbers to every reader of JSON.
        let position = of.clock.now_ms() << 10;
        let processes = Mutex::new(Processes { position, last: 0, connected: BTreeMap::new() });
        let shared = Arc::new(Shared { of, processes });
        let telling = Arc::downgrade(&shared);
        shared.of.progress.listen(move |applied| {
            if let Some(shared) = telling.upgrade() {
                shared.applied(applied);
            }
        });
        let hub = Self { shared: Arc::clone(&shared), stop: CancellationToken::new(), tasks: TaskTracker::new() };
        hub.tasks.spawn(accept(listener, shared, hub.stop.clone(), hub.tasks.clone()));
        Ok(hub)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        socket::path(&self.shared.of.folder)
    }

    /// Takes no more, and tells what became of what was taken.
    pub async fn stop(self) {
        socket::remove(&self.shared.of.folder);
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>, stop: CancellationToken, tasks: TaskTracker) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let (shared, stop) = (Arc::clone(&shared), stop.child_token());
                tasks.spawn(async move {
                    if let Err(error) = serve(shared, stream, stop).await {
                        tracing::warn!(%error, "a process beside the projector is not served any more");
                    }
                });
            }
            Err(error) => {
                // Most likely too many open files.
                tracing::warn!(%error, "a process could not connect");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one process for as long as it is connected.
async fn serve(shared: Arc<Shared>, stream: UnixStream, stop: CancellationToken) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let hello = stop.run_until_cancelled(frame::read(&mut reader)).await;
    let serves = match hello.transpose()?.flatten() {
        Some(Ask::Hello { version: VERSION, serves }) => serves,
        Some(_) => return refuse(writer, "the projector is of another version: run the same one everywhere").await,
        None => return Ok(()),
    };
    let Some(serves) = serves else {
        return frame::write(&mut writer, &Say::Welcome(shared.welcome(0, 0))).await;
    };
    let (says, said) = mpsc::channel(WAITING);
    let news = Arc::new(News { told_next: Mutex::default(), changed: Notify::new() });
    let entered = shared.enter(&serves, says.clone(), &news, stop.clone());
    let (id, welcome) = match entered {
        Ok(entered) => entered,
        Err(why) => return refuse(writer, &why).await,
    };
    tracing::info!(number = welcome.number, "a process serves beside the projector");
    let number = welcome.number;
    let writing = async {
        frame::write(&mut writer, &Say::Welcome(welcome)).await?;
        tokio::select! {
            () = frame::write_all(said, writer) => {}
            () = async { stop.cancelled().await; tokio::time::sleep(FAREWELL).await } => {}
        }
        stop.cancel();
        io::Result::Ok(())
    };
    let (receipts, taken) = mpsc::unbounded_channel();
    let (shared, stop) = (&shared, &stop);
    let (acknowledging, telling) = (acknowledge(taken, says.clone()), shared.tell_news(&news, says.clone()));
    // What is written ends once nobody has anything to say.
    let taking = async move {
        let asks = Asks { shared, says: &says, receipts, parts: Vec::new(), bytes: 0 };
        let taken = stop.run_until_cancelled(asks.take(&mut reader)).await;
        shared.leave(id);
        stop.cancel();
        taken.unwrap_or(Ok(()))
    };
    let (written, taken, ..) = tokio::join!(writing, taking, stop.run_until_cancelled(telling), acknowledging);
    tracing::info!(number, "a process beside the projector has left");
    written.and(taken)
}

async fn refuse(mut writer: OwnedWriteHalf, why: &str) -> io::Result<()> {
    frame::write(&mut writer, &Say::Refused(why.to_owned())).await
}

/// Tells of each call what became of its records, in order.
async fn acknowledge(mut taken: mpsc::UnboundedReceiver<Vec<Receipt>>, says: mpsc::Sender<Say>) {
    while let Some(receipts) = taken.recv().await {
        let mut outcomes = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let outcome = receipt.await.unwrap_or(Err(AppendError::Closed));
            outcomes.push(outcome.map_err(NotAppended::from));
        }
        if says.send(Say::Appended(outcomes)).await.is_err() {
            return;
        }
    }
}

/// What one process asks for.
struct Asks<'a> {
    shared: &'a Arc<Shared>,
    says: &'a mpsc::Sender<Say>,
    receipts: mpsc::UnboundedSender<Vec<Receipt>>,
    /// Of a call whose records have not all come.
    parts: Vec<Bytes>,
    bytes: usize,
}

impl Asks<'_> {
    async fn take(mut self, reader: &mut Reader) -> io::Result<()> {
        while let Some(ask) = frame::read(reader).await? {
            self.obey(ask)?;
        }
        Ok(())
    }

    fn obey(&mut self, ask: Ask) -> io::Result<()> {
        let wrong = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidData, why.to_owned()));
        match ask {
            Ask::Hello { .. } => return wrong("it said hello twice"),
            Ask::Append { records, last } => {
                self.bytes += records.iter().map(|record| record.0.len()).sum::<usize>();
                if self.bytes > CALL_BYTES {
                    return wrong("it appends more at once than any call may");
                }
                self.parts.extend(records.into_iter().map(|record| Bytes::from(record.0)));
                if last {
                    self.bytes = 0;
                    let receipts = self.shared.of.log.append(std::mem::take(&mut self.parts));
                    // The other end is gone only when nobody is to be told any more.
                    let _ = self.receipts.send(receipts);
                }
            }
            Ask::Rebuild { id, models } => {
                let (rebuilds, says) = (self.shared.of.rebuilds.clone(), self.says.downgrade());
                tokio::spawn(async move {
                    let known = models.iter().map(|name| Model::named(name)).collect::<Option<Vec<_>>>();
                    let outcome = match known {
                        Some(models) => rebuilds.run(models).await,
                        None => Err(RebuildError::Elsewhere("the projector knows no such read model".into())),
                    };
                    let Some(says) = says.upgrade() else { return };
                    // The process may have left.
                    let _ = says.send(Say::Rebuilt { id, outcome: outcome.map_err(NotRebuilt::from) }).await;
                });
            }
            Ask::Snapshot { id, wanted } => {
                let (snapshots, says) = (self.shared.of.snapshots.clone(), self.says.downgrade());
                tokio::spawn(async move {
                    let asked = match wanted {
                        Some(wanted) => snapshots.begin(wanted).await,
                        None => snapshots.state().await,
                    };
                    let told = asked.map(|state| Blob(serde_json::to_vec(&state).unwrap_or_default()));
                    let Some(says) = says.upgrade() else { return };
                    // The process may have left.
                    let _ = says.send(Say::Snapshot { id, outcome: told.map_err(NotMade::from) }).await;
                });
            }
            Ask::Tell(told) => self.shared.tell(&told),
            Ask::Echo(id) => {
                if self.says.try_send(Say::Echoed(id)).is_err() {
                    return wrong("it doesn't listen");
                }
            }
        }
        Ok(())
    }
}

/// A number that is not taken.
pub(super) fn number(random: &dyn Random, taken: impl Fn(u32) -> bool) -> Option<u32> {
    let drawn = std::iter::repeat_with(|| u32::from_le_bytes(random.bytes::<4>())).take(1_000);
    drawn.map(|drawn| NUMBERS.start + drawn % (NUMBERS.end - NUMBERS.start)).find(|number| !taken(*number))
}

impl Shared {
    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self, cursor: Cursor, touched: Touched) -> Now {
        Now {
            cursor,
            tail: self.of.log.tail(),
            stopped: self.of.progress.stopped().map(|stopped| stopped.0),
            rebuilding: self.of.rebuilds.at(),
            touched,
        }
    }

    fn welcome(&self, number: u32, position: Position) -> Welcome {
        let cursor = self.of.progress.cursor();
        Welcome {
            server_name: self.of.server_name.clone(),
            log_id: cursor.log_id.clone(),
            number,
            position,
            now: self.now(cursor, Touched::everything()),
        }
    }

    /// Notes a process, which misses nothing from here on.
    fn enter(
        &self,
        serves: &Serves,
        says: mpsc::Sender<Say>,
        news: &Arc<News>,
        cut: CancellationToken,
    ) -> Result<(u64, Welcome), String> {
        let mut processes = self.processes();
        let taken = |number| processes.connected.values().any(|process| process.number == number);
        let number = match serves.number {
            0 => number(&*self.of.random, taken).ok_or("no number is free")?,
            number if taken(number) => {
                return Err(format!("another process has the number {number}: give each its own (node.number)"));
            }
            number => number,
        };
        processes.last += 1;
        let id = processes.last;
        processes.connected.insert(id, Process { number, says, news: Arc::clone(news), cut });
        let position = processes.position;
        drop(processes);
        Ok((id, self.welcome(number, position)))
    }

    fn leave(&self, id: u64) {
        self.processes().connected.remove(&id);
    }

    /// Lets all processes hear something.
    fn tell(&self, told: &Blob) {
        let mut processes = self.processes();
        processes.position += 1;
        let position = processes.position;
        for process in processes.connected.values() {
            if process.says.try_send(Say::Heard { position, told: told.clone() }).is_err() {
                process.cut.cancel();
            }
        }
    }

    fn applied(&self, applied: &Applied) {
        for process in self.processes().connected.values() {
            let mut told_next = process.news.told_next.lock().unwrap_or_else(PoisonError::into_inner);
            told_next.0 = applied.cursor.clone();
            told_next.1.add(&applied.touched, NAMES);
            drop(told_next);
            process.news.changed.notify_one();
        }
    }

    /// Tells a process how the projector stands whenever that changes. While it is slow to listen, news gather as one.
    async fn tell_news(&self, news: &News, says: mpsc::Sender<Say>) {
        let (mut standing, mut rebuilding) = (self.of.progress.watch_stopped(), self.of.rebuilds.watch());
        let mut tail = self.of.log.watch_tail();
        // What came after the welcome.
        news.changed.notify_one();
        loop {
            let goes_on = tokio::select! {
                () = news.changed.notified() => true,
                changed = standing.changed() => changed.is_ok(),
                changed = rebuilding.changed() => changed.is_ok(),
                changed = tail.changed() => changed.is_ok(),
            };
            let Ok(place) = says.reserve().await else { return };
            let (cursor, touched) = std::mem::take(&mut *news.told_next.lock().unwrap_or_else(PoisonError::into_inner));
            // What is touched must not come with a position before it.
            place.send(Say::Now(self.now(cursor, touched)));
            if !goes_on {
                return;
            }
        }
    }
}
