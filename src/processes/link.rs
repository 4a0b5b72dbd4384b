//! The end of a process that serves: connects, and connects again.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use projections::{Beside, Cursor, Model};
use schemas::{Blob, Lsn};
use serde::Serialize;
use tokio::{
    io::BufReader,
    net::unix::OwnedWriteHalf,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    follower::{self, Wishes},
    frame::{self, Reader},
    protocol::{Ask, Now, Say, Serves, VERSION, Welcome},
    relayed::Relayed,
    remote_log::RemoteLog,
    socket,
};
use crate::{
    fold::{Progress, RebuildError, Rebuilds},
    log::{self, AppendError, Receipt},
    metrics::Metrics,
    nodes::{Channel, Join, Message, Position, Silent},
    snapshot::{self, SnapshotError, Snapshots, Wanted},
};

/// So much may be on its way to the log, as in the log's own queue.
const RECORDS: usize = 16_384;
const BYTES: usize = 64 << 20;
/// Records go in messages of about so many bytes.
const MESSAGE_BYTES: usize = 2 << 20;
/// So many messages may wait to be written.
const WAITING: usize = 32_768;
/// A projector that is gone is looked for so often.
const AGAIN: Duration = Duration::from_millis(100);
/// A projector that listens says welcome by then.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);
/// What was told comes back by then.
const ECHO_WITHIN: Duration = Duration::from_secs(5);

/// Why there is no projector to serve beside.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// None listens.
    #[error("no projector runs on {0}: start `everfold project --data {0}`")]
    Nobody(PathBuf),
    /// It says no.
    #[error("the projector refuses: {0}")]
    Refused(String),
    /// Somebody else's log.
    #[error("the projector has another log than before: start this process again")]
    OtherLog,
    /// It can't be talked to.
    #[error("the projector can't be talked to: {0}")]
    Io(#[from] io::Error),
}

/// How a projector stands.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// It has folded what is on the log, and goes on.
    pub ready: bool,
    /// Whose log it is.
    pub server_name: String,
    /// The log's last position.
    pub tail: Lsn,
    /// What is folded.
    pub folded: Lsn,
    /// Why nothing is folded any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
}

/// Asks the projector on a data folder how it stands.
///
/// # Errors
/// When none answers.
pub async fn look(folder: &Path) -> Result<Standing, LinkError> {
    let (_, _, Welcome { server_name, now, .. }) = connect(folder, None).await?;
    let ready = now.stopped.is_none() && now.cursor.lsn >= now.tail;
    Ok(Standing { ready, server_name, tail: now.tail, folded: now.cursor.lsn, stopped: now.stopped })
}

async fn connect(folder: &Path, serves: Option<Serves>) -> Result<(Reader, OwnedWriteHalf, Welcome), LinkError> {
    let welcome = async {
        let stream = socket::connect(folder).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => LinkError::Nobody(folder.to_owned()),
            _ => error.into(),
        })?;
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        frame::write(&mut writer, &Ask::Hello { version: VERSION, serves }).await?;
        match frame::read(&mut reader).await? {
            Some(Say::Welcome(welcome)) => Ok((reader, writer, welcome)),
            Some(Say::Refused(why)) => Err(LinkError::Refused(why)),
            Some(_) => Err(LinkError::Refused("it is of another version: run the same one everywhere".into())),
            None => Err(LinkError::Nobody(folder.to_owned())),
        }
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it doesn't answer");
    tokio::time::timeout(WELCOME_WITHIN, welcome).await.map_err(late)?
}

/// The connection to the projector, for as long as this process serves.
pub struct Link {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    follower: Option<std::thread::JoinHandle<()>>,
}

/// What the parts of a process that serves share.
pub(super) struct Shared {
    pub folder: PathBuf,
    /// Of the first welcome; the projector may be another later.
    pub first: Welcome,
    state: Mutex<State>,
    /// Nothing is on its way to the log any more.
    settled: Condvar,
    /// None once the log is closed.
    tail: Mutex<Option<watch::Sender<Lsn>>>,
    pub tail_seen: watch::Receiver<Lsn>,
    rebuilding: watch::Sender<Option<Lsn>>,
    pub wishes: Arc<Wishes>,
    pub ears: RwLock<Vec<Weak<Relayed>>>,
    /// The position of what was heard last.
    pub heard: AtomicU64,
}

#[derive(Default)]
struct State {
    out: Option<mpsc::Sender<Ask>>,
    /// Rises with each connection.
    era: u64,
    closed: bool,
    /// Calls whose records are on their way, in order.
    appends: VecDeque<Call>,
    records: usize,
    bytes: usize,
    last_id: u64,
    rebuilds: BTreeMap<u64, oneshot::Sender<Result<Cursor, RebuildError>>>,
    snapshots: BTreeMap<u64, oneshot::Sender<Result<snapshot::State, SnapshotError>>>,
    echoes: BTreeMap<u64, oneshot::Sender<()>>,
}

struct Call {
    receipts: Vec<oneshot::Sender<Result<Lsn, AppendError>>>,
    bytes: usize,
}

impl Link {
    /// Connects as a process of some number; zero gets one. A projector that is about to start is waited for.
    ///
    /// # Errors
    /// When there is none, or it refuses.
    pub async fn connect(folder: &Path, number: u32, patience: Duration) -> Result<Self, LinkError> {
        let deadline = Instant::now() + patience;
        let connected = loop {
            match connect(folder, Some(Serves { number })).await {
                Err(LinkError::Nobody(_) | LinkError::Refused(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                }
                connected => break connected?,
            }
        };
        let (reader, writer, first) = connected;
        let (tail, tail_seen) = watch::channel(first.now.tail);
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            tail: Mutex::new(Some(tail)),
            tail_seen,
            heard: AtomicU64::new(first.position),
            first,
            state: Mutex::default(),
            settled: Condvar::new(),
            rebuilding: watch::channel(None).0,
            wishes: Arc::default(),
            ears: RwLock::default(),
        });
        let (stop, asks) = (CancellationToken::new(), shared.begin(&shared.first.now));
        let task = tokio::spawn(run(Arc::clone(&shared), (reader, writer, asks), stop.clone()));
        Ok(Self { shared, stop, task, follower: None })
    }

    /// This process' number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.shared.first.number
    }

    /// Whose log it is.
    #[must_use]
    pub fn server_name(&self) -> &str {
        &self.shared.first.server_name
    }

    /// The log, through the projector; it is read in its folder.
    #[must_use]
    pub fn log(&self, folder: PathBuf) -> RemoteLog {
        RemoteLog::new(Arc::clone(&self.shared), folder)
    }

    /// Is called whenever a view is dropped, for [`Beside::open`].
    #[must_use]
    pub fn freed(&self) -> Arc<dyn Fn() + Send + Sync> {
        let wishes = Arc::clone(&self.shared.wishes);
        Arc::new(move || wishes.freed())
    }

    /// Moves views on with the projector, and tells who waits.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn follow(&mut self, beside: Beside, progress: Arc<Progress>, metrics: Arc<Metrics>) -> io::Result<()> {
        let wishes = Arc::clone(&self.shared.wishes);
        let follower = std::thread::Builder::new().name("views".into());
        self.follower = Some(follower.spawn(move || follower::run(&wishes, beside, &progress, &metrics))?);
        Ok(())
    }

    /// How processes hear each other.
    #[must_use]
    pub fn join(&self) -> Join {
        let shared = Arc::clone(&self.shared);
        Arc::new(move |node| Relayed::join(&shared, node))
    }

    /// The projector's rebuilds.
    #[must_use]
    pub fn rebuilds(&self) -> Rebuilds {
        let shared = Arc::clone(&self.shared);
        Rebuilds::new(self.shared.rebuilding.subscribe(), move |models| {
            let asked = shared.rebuild(&models);
            async move { asked.await.unwrap_or(Err(RebuildError::Stopped)) }.boxed()
        })
    }

    /// The projector's snapshots.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots {
        let shared = Arc::clone(&self.shared);
        Snapshots::new(move |wanted| {
            let asked = shared.snapshot(wanted);
            let gone = |_| Err(SnapshotError::Elsewhere("the projector is gone".into()));
            async move { asked.await.unwrap_or_else(gone) }.boxed()
        })
    }

    /// Ends the connection.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the connection to the projector failed");
        }
        self.shared.wishes.stop();
        let Some(follower) = self.follower.take() else { return };
        if !matches!(tokio::task::spawn_blocking(move || follower.join()).await, Ok(Ok(()))) {
            tracing::error!("the thread that moves views on panicked");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.wishes.stop();
    }
}

/// Both ends of a connection, and what is to be asked there.
type Connected = (Reader, OwnedWriteHalf, mpsc::Receiver<Ask>);

async fn run(shared: Arc<Shared>, mut connected: Connected, stop: CancellationToken) {
    loop {
        let (mut reader, writer, asks) = connected;
        let ended = tokio::select! {
            heard = shared.hear(&mut reader) => heard.err(),
            () = frame::write_all(asks, writer) => None,
            () = stop.cancelled() => {
                shared.end("this process stops");
                return;
            }
        };
        let why = ended.map_or_else(String::new, |error| format!(" ({error})"));
        let folder = shared.folder.display();
        let why = format!("the projector is gone{why}: start `everfold project --data {folder}` again");
        tracing::error!("{why}");
        shared.end(&why);
        let Some((reader, writer, welcome)) = stop.run_until_cancelled(shared.connect_again()).await else { return };
        connected = (reader, writer, shared.begin(&welcome.now));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect_again(&self) -> (Reader, OwnedWriteHalf, Welcome) {
        let mut told = String::new();
        loop {
            let connected = connect(&self.folder, Some(Serves { number: self.first.number })).await;
            let error = match connected {
                Ok((.., welcome)) if welcome.log_id != self.first.log_id => LinkError::OtherLog,
                Ok(connected) => {
                    tracing::info!("the projector is back");
                    return connected;
                }
                Err(error) => error,
            };
            let why = error.to_string();
            if !matches!(error, LinkError::Nobody(_)) && why != told {
                tracing::error!("{why}");
                self.wishes.stand(Some(why.clone()));
                told = why;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn begin(&self, now: &Now) -> mpsc::Receiver<Ask> {
        let (out, asks) = mpsc::channel(WAITING);
        let mut state = self.state();
        state.out = Some(out);
        state.era += 1;
        let era = state.era;
        drop(state);
        if era > 1 {
            // What was told in between was not heard.
            self.ears().for_each(|ear| ear.tell(Message::WhoIsThere));
        }
        self.wishes.renew();
        self.stand(now);
        asks
    }

    /// Whatever was on its way may have got there or not.
    fn end(&self, why: &str) {
        let lost = {
            let mut state = self.state();
            state.out = None;
            (state.records, state.bytes) = (0, 0);
            state.snapshots.clear();
            let rebuilds = std::mem::take(&mut state.rebuilds);
            let echoes = std::mem::take(&mut state.echoes);
            (std::mem::take(&mut state.appends), rebuilds, echoes)
        };
        let error = AppendError::Unconfirmed(why.to_owned());
        for receipt in lost.0.into_iter().flat_map(|call| call.receipts) {
            // Whoever asked may be gone.
            let _ = receipt.send(Err(error.clone()));
        }
        self.settled.notify_all();
        self.rebuilding.send_replace(None);
        self.wishes.interrupt(why);
    }

    async fn hear(&self, reader: &mut Reader) -> io::Result<()> {
        while let Some(say) = frame::read(reader).await? {
            match say {
                Say::Now(now) => self.stand(&now),
                Say::Appended(outcomes) => self.appended(outcomes.into_iter().map(|o| o.map_err(AppendError::from))),
                Say::Heard { position, told } => self.heard(position, &told),
                Say::Echoed(id) => {
                    let echo = self.state().echoes.remove(&id);
                    // Whoever waited may be gone.
                    let _ = echo.map(|echo| echo.send(()));
                }
                Say::Rebuilt { id, outcome } => {
                    let asked = self.state().rebuilds.remove(&id);
                    if let Some(asked) = asked {
                        let until = outcome.as_ref().map_or(Lsn::ZERO, |cursor| cursor.lsn);
                        // Whoever waited may be gone.
                        self.wishes.then(until, move || _ = asked.send(outcome.map_err(RebuildError::from)));
                    }
                }
                Say::Snapshot { id, outcome } => {
                    let asked = self.state().snapshots.remove(&id);
                    let state = outcome.map_err(SnapshotError::from).and_then(|state| {
                        serde_json::from_slice(&state.0).map_err(|error| SnapshotError::Elsewhere(error.to_string()))
                    });
                    if let Some(asked) = asked {
                        // Whoever asked may be gone.
                        let _ = asked.send(state);
                    }
                }
                Say::Welcome(_) | Say::Refused(_) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it said welcome twice"));
                }
            }
        }
        Ok(())
    }

    fn stand(&self, now: &Now) {
        self.advance_tail(now.tail);
        self.rebuilding.send_if_modified(|at| std::mem::replace(at, now.rebuilding) != now.rebuilding);
        self.wishes.follow(now.cursor.lsn, &now.touched);
        self.wishes.stand(now.stopped.clone());
    }

    fn advance_tail(&self, to: Lsn) {
        if let Some(tail) = &*self.tail.lock().unwrap_or_else(PoisonError::into_inner) {
            tail.send_if_modified(|tail| std::mem::replace(tail, to.max(*tail)) < to);
        }
    }

    fn heard(&self, position: Position, told: &Blob) {
        // Who joins in between hears it, or begins behind it.
        let ears = self.ears.read().unwrap_or_else(PoisonError::into_inner);
        ears.iter().filter_map(Weak::upgrade).for_each(|ear| ear.hear(position, told));
        self.heard.store(position, Ordering::SeqCst);
    }

    fn ears(&self) -> impl Iterator<Item = Arc<Relayed>> {
        let ears: Vec<_> =
            self.ears.read().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        ears.into_iter()
    }

    /// How often it was connected.
    pub fn era(&self) -> u64 {
        self.state().era
    }

    /// Sends records on their way that are to stand together.
    pub fn append(&self, records: &[Bytes]) -> Vec<Receipt> {
        if let Err(error) = log::check(records) {
            return log::refused(records.len(), &error);
        }
        if records.is_empty() {
            return Vec::new();
        }
        let bytes: usize = records.iter().map(Bytes::len).sum();
        let messages = messages(records);
        let mut state = self.state();
        let refuse = |error: AppendError| log::refused(records.len(), &error);
        if state.closed {
            return refuse(AppendError::Closed);
        }
        let Some(out) = &state.out else {
            return refuse(AppendError::Unavailable(LinkError::Nobody(self.folder.clone()).to_string()));
        };
        let fits = state.records + records.len() <= RECORDS && state.bytes + bytes <= BYTES;
        let busy = "too much is on its way to the projector; try again";
        match out.try_reserve_many(messages.len()) {
            Ok(places) if fits => places.zip(messages).for_each(|(place, message)| place.send(message)),
            _ => return refuse(AppendError::Unavailable(busy.into())),
        }
        let (senders, receipts) = records.iter().map(|_| oneshot::channel()).unzip();
        state.records += records.len();
        state.bytes += bytes;
        state.appends.push_back(Call { receipts: senders, bytes });
        receipts
    }

    fn appended(&self, outcomes: impl Iterator<Item = Result<Lsn, AppendError>>) {
        let Some(call) = self.take_call() else { return };
        let outcomes: Vec<_> = outcomes.collect();
        // A record whose receipt has resolved is at or before the tail.
        if let Some(last) = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).max() {
            self.advance_tail(*last);
        }
        for (receipt, outcome) in call.receipts.into_iter().zip(outcomes) {
            // Whoever asked may be gone.
            let _ = receipt.send(outcome);
        }
        self.settled.notify_all();
    }

    fn take_call(&self) -> Option<Call> {
        let mut state = self.state();
        let call = state.appends.pop_front()?;
        state.records -= call.receipts.len();
        state.bytes -= call.bytes;
        Some(call)
    }

    /// Sends no more records, and waits until it is known what became of those that were.
    pub fn close(&self, patience: Duration) {
        let mut state = self.state();
        state.closed = true;
        let waits = |state: &mut State| !state.appends.is_empty();
        let waited = self.settled.wait_timeout_while(state, patience, waits);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            tracing::warn!("the projector did not say what became of some records");
        }
        // Whoever follows comes to an end.
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn rebuild(&self, models: &[Model]) -> oneshot::Receiver<Result<Cursor, RebuildError>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        state.last_id += 1;
        let id = state.last_id;
        let models = models.iter().map(|model| model.name().to_owned()).collect();
        let asked = state.out.as_ref().is_some_and(|out| out.try_send(Ask::Rebuild { id, models }).is_ok());
        if asked {
            state.rebuilds.insert(id, sender);
        }
        receiver
    }

    fn snapshot(&self, wanted: Option<Wanted>) -> oneshot::Receiver<Result<snapshot::State, SnapshotError>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        state.last_id += 1;
        let id = state.last_id;
        if state.out.as_ref().is_some_and(|out| out.try_send(Ask::Snapshot { id, wanted }).is_ok()) {
            state.snapshots.insert(id, sender);
        }
        receiver
    }

    /// Lets all processes hear something, unless the projector is gone.
    pub fn tell(&self, told: Blob) {
        let told = self.state().out.as_ref().is_some_and(|out| out.try_send(Ask::Tell(told)).is_ok());
        if !told {
            tracing::debug!("nobody is told anything while the projector is gone");
        }
    }

    /// Waits until everything was heard that was told before.
    pub async fn echo(&self) -> Result<(), Silent> {
        let silent = || Silent("the projector is gone".into());
        let echoed = {
            let mut state = self.state();
            state.last_id += 1;
            let id = state.last_id;
            let out = state.out.clone().ok_or_else(silent)?;
            let (sender, receiver) = oneshot::channel();
            state.echoes.insert(id, sender);
            out.try_send(Ask::Echo(id)).map_err(|_| silent())?;
            receiver
        };
        match tokio::time::timeout(ECHO_WITHIN, echoed).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(silent()),
        }
    }
}

/// Records as messages that are not too large; there is at least one.
fn messages(records: &[Bytes]) -> Vec<Ask> {
    let mut messages: Vec<Vec<Blob>> = vec![Vec::new()];
    let mut size = 0;
    for record in records {
        if size > 0 && size + record.len() > MESSAGE_BYTES {
            messages.push(Vec::new());
            size = 0;
        }
        size += record.len();
        if let Some(message) = messages.last_mut() {
            message.push(Blob(record.to_vec()));
        }
    }
    let last = messages.len() - 1;
    messages.into_iter().enumerate().map(|(at, records)| Ask::Append { records, last: at == last }).collect()
}
