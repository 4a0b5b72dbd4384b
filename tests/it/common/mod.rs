//! A server in this process, and clients that talk to it.

mod chance;
mod client;
pub mod endpoints;
mod held;
pub mod remote;
pub mod replay;
pub mod rooms;
mod server;
mod signing;

pub use chance::Chance;
pub use client::{Client, Reply};
pub use held::HeldLog;
pub use server::TestServer;
pub use signing::SigningKey;
