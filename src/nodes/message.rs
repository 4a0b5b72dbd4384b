use ruma::{OwnedRoomId, OwnedUserId, presence::PresenceState};
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
    /// The node has heard nothing before, or has missed something: the others tell what holds with them.
    WhoIsThere,
    /// Somebody types in a room, or no more. The node ends it in time.
    Typing {
        /// Where.
        room: OwnedRoomId,
        /// Who.
        user: OwnedUserId,
        /// Whether they do.
        types: bool,
    },
    /// How users are there, as far as the node knows by itself.
    Presence(Vec<Presence>),
    /// Something that a node told holds no more, since that node is gone.
    Ended {
        /// Which.
        node: Node,
        /// What of it.
        what: Ending,
    },
    /// A user-interactive authentication began, or a stage of it is completed.
    Authentication(Authentication),
}

/// A user-interactive authentication as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    /// A hash of the session's id: whoever has that can go on with it.
    pub session: String,
    /// A hash of the request that it is for.
    pub request: [u8; 32],
    /// Whose password counts.
    pub user: Option<OwnedUserId>,
    /// What is asked for in one flow or another.
    pub stages: Vec<String>,
    /// What of it is completed.
    pub completed: Vec<String>,
    /// A hash of the registration token that was given, under the session's id.
    pub registration_token: Option<Vec<u8>>,
}

/// How a user is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Who.
    pub user: OwnedUserId,
    /// Online, unavailable, offline.
    pub state: PresenceState,
    /// When they last did something, in milliseconds since the Unix epoch.
    pub active_ms: u64,
    /// Their own words; none says nothing about them.
    pub words: Option<Words>,
}

/// A user's own words about how they are there. The last count, whichever node they came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// None takes them back.
    pub text: Option<String>,
    /// When they were said, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What ends with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Typing there, soon.
    Typing,
    /// Being there, when whoever was has had the time to come back elsewhere.
    Presence,
}
