//! The fold at work: a thread that folds the log as it grows, and those who wait for it. A replay folds a log up to some
//! moment and leaves it at that.

mod driver;
mod progress;
mod replay;

pub use driver::{Driver, RebuildError, Rebuilds, Rebuilt, Start, StartError, check_fit};
pub use progress::{Progress, Stopped};
pub use replay::{ReplayError, Replayed, open_replay, replay};
