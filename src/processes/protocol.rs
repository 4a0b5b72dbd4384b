//! What a projector and the processes beside it say to each other. Both ends are of one version: a process that speaks
//! another is refused.

use projections::{Cursor, Touched};
use schemas::{Blob, Lsn};
use serde::{Deserialize, Serialize};

use crate::{
    fold::RebuildError,
    log::AppendError,
    nodes::Position,
    snapshot::{SnapshotError, Wanted},
};

/// Rises with every change of what is said.
pub(super) const VERSION: u32 = 3;

/// What a process says to the projector. The first is a [`Ask::Hello`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    Hello {
        version: u32,
        /// None only looks, and is told nothing after the welcome.
        serves: Option<Serves>,
    },
    /// Records that are to stand together; more of them follow unless these are the last. One [`Say::Appended`] answers
    /// all, in the order of asking.
    Append {
        records: Vec<Blob>,
        last: bool,
    },
    Rebuild {
        id: u64,
        models: Vec<String>,
    },
    /// A snapshot, if one is wanted, and how the last one stands.
    Snapshot {
        id: u64,
        wanted: Option<Wanted>,
    },
    /// All processes are to hear this: a `nodes::Told`.
    Tell(Blob),
    /// Comes back as [`Say::Echoed`], behind everything that was told before.
    Echo(u64),
}

/// A process that serves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Serves {
    /// Its number; zero wants one.
    pub number: u32,
}

/// What the projector says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Say {
    Refused(String),
    Welcome(Welcome),
    Appended(Vec<Result<Lsn, NotAppended>>),
    /// How it stands; what came in between is in it.
    Now(Now),
    Rebuilt {
        id: u64,
        outcome: Result<Cursor, NotRebuilt>,
    },
    Snapshot {
        id: u64,
        /// A `snapshot::State`, as JSON.
        outcome: Result<Blob, NotMade>,
    },
    Heard {
        position: Position,
        told: Blob,
    },
    Echoed(u64),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub server_name: String,
    pub log_id: Blob,
    /// The number of the process that is welcomed.
    pub number: u32,
    /// Where the order is in which processes hear each other. Its name follows from the log's id.
    pub position: Position,
    pub now: Now,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Now {
    pub cursor: Cursor,
    pub tail: Lsn,
    /// Why nothing is folded, if nothing is.
    pub stopped: Option<String>,
    pub rebuilding: Option<Lsn>,
    /// What commits touched that were not told of before.
    pub touched: Touched,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum NotAppended {
    TooLarge(usize),
    Unavailable(String),
    Unconfirmed(String),
    ReadOnly(Lsn),
    Closed,
}

impl From<AppendError> for NotAppended {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::TooLarge(size) => Self::TooLarge(size),
            AppendError::ReadOnly(lsn) => Self::ReadOnly(lsn),
            AppendError::Closed => Self::Closed,
            AppendError::Unavailable(why) => Self::Unavailable(why),
            AppendError::Unconfirmed(why) => Self::Unconfirmed(why),
            malformed @ AppendError::Malformed(_) => Self::Unavailable(malformed.to_string()),
        }
    }
}

impl From<NotAppended> for AppendError {
    fn from(error: NotAppended) -> Self {
        match error {
            NotAppended::TooLarge(size) => Self::TooLarge(size),
            NotAppended::ReadOnly(lsn) => Self::ReadOnly(lsn),
            NotAppended::Closed => Self::Unavailable("the projector is stopping".into()),
            NotAppended::Unavailable(why) => Self::Unavailable(why),
            NotAppended::Unconfirmed(why) => Self::Unconfirmed(why),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum NotRebuilt {
    Busy,
    Stopped,
    Failed(String),
}

impl From<RebuildError> for NotRebuilt {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Busy => Self::Busy,
            RebuildError::Stopped => Self::Stopped,
            failed => Self::Failed(failed.to_string()),
        }
    }
}

impl From<NotRebuilt> for RebuildError {
    fn from(error: NotRebuilt) -> Self {
        match error {
            NotRebuilt::Busy => Self::Busy,
            NotRebuilt::Stopped => Self::Stopped,
            NotRebuilt::Failed(why) => Self::Elsewhere(why),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum NotMade {
    Busy,
    Refused(String),
    Failed(String),
}

impl From<SnapshotError> for NotMade {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Busy => Self::Busy,
            SnapshotError::NotEmpty(_) | SnapshotError::NotAbsolute(_) | SnapshotError::Io { .. } => {
                Self::Refused(error.to_string())
            }
            failed => Self::Failed(failed.to_string()),
        }
    }
}

impl From<NotMade> for SnapshotError {
    fn from(error: NotMade) -> Self {
        match error {
            NotMade::Busy => Self::Busy,
            NotMade::Refused(why) => Self::Refused(why),
            NotMade::Failed(why) => Self::Elsewhere(why),
        }
    }
}
