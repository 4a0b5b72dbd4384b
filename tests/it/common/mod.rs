//! A server in this process, and clients that talk to it.

mod beside;
#[path = "../../kafka/broker.rs"]
pub mod broker;
mod chance;
mod client;
mod contention;
pub mod endpoints;
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
pub use held::HeldLog;
pub use hub::Hub;
pub use nodes::{Nodes, Sent};
pub use server::TestServer;
pub use signing::SigningKey;
pub use views::Shifting;

/// Waits until something holds.
pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), holds).await.expect("it holds within 30 seconds");
}
