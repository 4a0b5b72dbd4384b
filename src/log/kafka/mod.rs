//! The log in a topic of Apache Kafka.

mod error;
/// Clients of the brokers, as the settings describe them.
pub mod settings;

pub use error::OpenError;
