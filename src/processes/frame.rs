//! Messages on a socket: the length, four bytes little-endian, and the encoded message.

use std::io;

use schemas::codec;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::mpsc,
};

/// No message is larger: what the codec takes at most.
const MAX: u32 = 4 << 20;
/// So many messages are written at once.
const TOGETHER: usize = 64;

/// Buffered: most messages are small.
pub(super) type Reader = BufReader<OwnedReadHalf>;

/// Reads one message; none at the end.
pub(super) async fn read<T: DeserializeOwned>(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let length = match reader.read_u32_le().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length as usize];
    reader.read_exact(&mut bytes).await?;
    codec::decode(&bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes one message.
pub(super) async fn write<T: Serialize>(writer: &mut OwnedWriteHalf, message: &T) -> io::Result<()> {
    let mut bytes = Vec::new();
    add(&mut bytes, message);
    writer.write_all(&bytes).await
}

/// Writes messages as they come, until no more can, or the other end is gone.
pub(super) async fn write_all<T: Serialize>(mut messages: mpsc::Receiver<T>, mut writer: OwnedWriteHalf) {
    let (mut together, mut bytes) = (Vec::with_capacity(TOGETHER), Vec::new());
    while messages.recv_many(&mut together, TOGETHER).await > 0 {
        bytes.clear();
        together.drain(..).for_each(|message| add(&mut bytes, &message));
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn add<T: Serialize>(bytes: &mut Vec<u8>, message: &T) {
    let encoded = codec::encode(message);
    // What is larger than four gigabytes is never built: records and lists are bounded.
    bytes.extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(&encoded);
}
