//! A server in this process, and clients that talk to it.

mod chance;
mod client;
pub mod endpoints;
mod held;
mod nodes;
pub mod remote;
pub mod replay;
pub mod rooms;
mod server;
mod signing;
mod views;

pub use chance::Chance;
pub use client::{Client, Reply};
pub use held::HeldLog;
pub use nodes::{Nodes, Sent};
pub use server::TestServer;
pub use signing::SigningKey;
pub use views::Shifting;
