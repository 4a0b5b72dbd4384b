//! A server in this process, and clients that talk to it.

mod client;
pub mod endpoints;
pub mod remote;
pub mod replay;
pub mod rooms;
mod server;
mod signing;

pub use client::{Client, Reply};
pub use server::TestServer;
pub use signing::SigningKey;
