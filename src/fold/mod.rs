//! The fold at work: a thread that folds the log as it grows, and those who wait for it.

mod driver;
mod progress;

pub use driver::{Driver, Start, StartError, check_fit};
pub use progress::{Progress, Stopped};
