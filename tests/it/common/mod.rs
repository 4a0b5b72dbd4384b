//! A server in this process, and clients that talk to it.

mod beside;
#[path = "../../kafka/broker.rs"]
pub mod broker;
mod chance;
mod client;
mod contention;
pub mod endpoints;
mod forward;
mod held;
mod hub;
mod nodes;
pub mod remote;
pub mod replay;
pub mod rooms;
mod server;
mod signing;
mod views;

pub use beside::Beside;
pub use chance::Chance;
pub use client::{Client, Reply};
pub use contention::Contention;
pub(crate) use forward::forward_reads;
pub use held::HeldLog;
pub use hub::Hub;
pub use nodes::{Nodes, Sent};
pub use server::TestServer;
pub use signing::SigningKey;
pub use views::Shifting;

use std::time::Duration;

/// How long something may take that must happen: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something holds.
pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !holds().await {
            // Others need the processor, too.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, holds).await.expect("it holds in time");
}
