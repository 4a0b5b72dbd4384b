use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Lsn, RecordId};

/// What kind of resource a key names. The numbers are part of the format and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// The set of states after a room's forward extremities; name: room id.
    RoomState = 1,
    /// A room's block or deletion; name: room id.
    RoomAdmin = 2,
    /// Suspended, locked, deactivated, password; name: user id.
    UserStatus = 3,
    /// One device and its session; name: user id, NUL, device id.
    Device = 4,
    /// A user name; name: the user id with its localpart folded to lower case.
    UserName = 5,
    /// A room alias; name: the alias.
    Alias = 6,
    /// Uses of a registration token; name: the token.
    RegistrationToken = 7,
    /// A third-party id, or who somebody is at an identity provider; name: its hash, hexadecimal.
    ThirdPartyId = 8,
    /// A long-running job; name: its key.
    Job = 9,
    /// A version of a key backup; name: user id.
    BackupVersion = 10,
    /// A user's cross-signing keys; name: user id.
    CrossSigning = 11,
    /// A user's membership of a room; name: room id, NUL, user id.
    Membership = 12,
    /// The rules by which a user takes invites; name: user id.
    InviteRules = 13,
    /// The log itself: written by `Genesis` alone; name: empty.
    Genesis = 14,
    /// A room's entry in the public list; name: room id.
    Published = 15,
    /// A login token; name: its SHA-256 in hexadecimal.
    LoginToken = 16,
    /// A shard of the work that is done once; name: its number, decimal.
    Shard = 17,
    /// A user's room for the server's notices, written by the record that makes it; name: user id.
    NoticeRoom = 18,
}

/// A resource on which decisions rest: its tag and the first 16 bytes of SHA-256 of its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Key(
    #[serde(with = "crate::json::hex_array")]
    #[schemars(with = "String")]
    pub [u8; 17],
);

impl Key {
    /// The key of a named resource.
    #[must_use]
    pub fn new(tag: Tag, name: &str) -> Self {
        let hash = Sha256::digest(name.as_bytes());
        let mut bytes = [0; 17];
        bytes[0] = tag as u8;
        bytes[1..].copy_from_slice(&hash[..16]);
        Self(bytes)
    }

    /// The key of a resource with a name in two parts.
    #[must_use]
    pub fn pair(tag: Tag, first: &str, second: &str) -> Self {
        Self::new(tag, &format!("{first}\0{second}"))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a decision saw at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// No applied record has written it.
    Absent,
    /// The record at this Lsn wrote it last.
    At(Lsn),
    /// The record with this id wrote it last.
    By(RecordId),
}

/// One guard: the record applies only if the key is still as its decision saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Read {
    /// The resource.
    pub key: Key,
    /// What the decision saw.
    pub expect: Expect,
}
