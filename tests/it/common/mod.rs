//! A server in this process, and clients that talk to it.

mod client;
mod server;

pub use client::{Client, Reply};
pub use server::TestServer;
