//! A server of this process for measurements, filled through the same commands that requests use.
#![expect(clippy::expect_used, reason = "a bench that can't go on says so by panicking")]

use std::path::Path;

use everfold::{
    commands::{
        Commands, Sender,
        accounts::{self, NewAccount},
        events::By,
        sessions::{NewSession, Pair},
    },
    config::{Config, Sources},
    server::{Server, World},
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use ruma::{
    CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomVersionId,
    api::client::room::create_room::v3::{Request as CreateRoom, RoomPreset},
};
use schemas::{Origin, facts::UserKind};
use sha2::{Digest, Sha256};

/// The name of the server.
const NAME: &str = "bench.example";
/// So many requests are under way at once while a server is filled.
pub const AT_ONCE: usize = 256;

/// A server on the embedded log, its data in `folder`, with so many milliseconds added to every sync of the log.
pub async fn start(folder: &Path, sync_delay_ms: u64) -> Server {
    let flags = [
        ("server_name", NAME.to_owned()),
        ("data", folder.to_str().expect("a path of text").to_owned()),
        ("http.listen", "127.0.0.1:0".to_owned()),
        ("log.sync_delay_ms", sync_delay_ms.to_string()),
        ("rate_limits.enabled", "off".to_owned()),
    ];
    let config = Config::load(Sources { flags: &flags, ..Sources::default() }).expect("the settings are right");
    Server::start(config, World::default()).await.expect("the server starts")
}

/// Registers a user without a password, whose access token is their name.
pub async fn user(commands: &Commands, name: &str) -> Sender {
    let user: OwnedUserId = format!("@{name}:{NAME}").try_into().expect("a user id");
    let account = NewAccount {
        user: user.clone(),
        password: None,
        admin: false,
        kind: UserKind::Regular,
        registration_token: None,
        display_name: None,
        user_type: None,
        expires_at_ms: None,
    };
    let tokens = Pair { access: Sha256::digest(name).into(), access_expires_at_ms: None, refresh: None };
    let session = NewSession { device: "D".into(), display_name: None, tokens };
    accounts::register(commands, Origin::Server, account, Some(session)).await.expect("the name is free");
    Sender::new(user, "D".into())
}

/// Makes a public room.
pub async fn room(commands: &Commands, creator: &Sender) -> OwnedRoomId {
    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::PublicChat);
    commands.create_room(creator.clone(), request, RoomVersionId::V12).await.expect("the room is made")
}

/// Makes so many public rooms.
pub async fn rooms(commands: &Commands, creator: &Sender, count: usize) -> Vec<OwnedRoomId> {
    stream::iter((0..count).map(|_| room(commands, creator))).buffered(AT_ONCE).collect().await
}

/// Sends so many messages, to one room after another.
pub async fn send(commands: &Commands, by: &Sender, rooms: &[OwnedRoomId], count: usize) {
    let each = (0..count).map(|n| {
        let body = format!("message {n}, of about the length that people write in a chat room");
        let content = [("msgtype".to_owned(), "m.text".into()), ("body".to_owned(), body.into())];
        let content: CanonicalJsonObject = content.into_iter().collect();
        let room = &rooms[n % rooms.len()];
        async move { commands.send_message(By::from(by), room, "m.room.message", content).await.map(drop) }
    });
    all(stream::iter(each).buffer_unordered(AT_ONCE)).await;
}

/// Waits for all.
pub async fn all(results: impl Stream<Item = Result<(), everfold::commands::Error>>) {
    results.try_for_each(|()| async { Ok(()) }).await.expect("nothing is refused");
}
