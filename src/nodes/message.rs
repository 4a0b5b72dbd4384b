use serde::{Deserialize, Serialize};

/// A node in one run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Node {
    /// Its number among those on one log.
    pub number: u32,
    /// The name of the run, random.
    pub boot: String,
}

/// What a node told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which.
    pub from: Node,
    /// What.
    pub message: Message,
}

/// What nodes tell each other. Nodes of two versions may be on one channel: new kinds come at the end, and who doesn't
/// know one passes over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The node lives.
    Alive {
        /// Where the other nodes reach it; none if they can't.
        url: Option<String>,
        /// The public half of its signing key, base64: all nodes of a server have the same.
        key: String,
    },
    /// The node stops.
    Leaving,
}
