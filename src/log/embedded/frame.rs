//! How a record lies in the database: `crc32c (u32, little endian) ‖ chain value (32 bytes) ‖ log time ‖ record`.
//!
//! The checksum covers the key too, so that a value under another key is found. Chain value and log time are those
//! after the record: looking either up is one read, and an altered record is found at its own position.

use schemas::{Chain, Lsn, codec};

use crate::log::Note;

const CRC: usize = 4;
const CHAIN: usize = 32;

/// A record with what the log says of it.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub note: Note,
    pub record: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Writes the frame over what is in `buffer`.
    pub fn encode(&self, lsn: Lsn, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&[0; CRC]);
        buffer.extend_from_slice(&self.note.chain.0);
        buffer.extend_from_slice(&codec::encode(&self.note.time));
        buffer.extend_from_slice(self.record);
        let crc = checksum(lsn, &buffer[CRC..]);
        buffer[..CRC].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the frame that was written for a position, or says why it isn't one.
    pub fn decode(lsn: Lsn, bytes: &'a [u8]) -> Result<Self, String> {
        let short = || "it is cut off".to_owned();
        let (crc, body) = bytes.split_first_chunk::<CRC>().ok_or_else(short)?;
        if checksum(lsn, body) != u32::from_le_bytes(*crc) {
            return Err("its checksum doesn't match".to_owned());
        }
        let (chain, rest) = body.split_first_chunk::<CHAIN>().ok_or_else(short)?;
        let (time, used) = codec::decode_prefix(rest).map_err(|error| format!("its log time: {error}"))?;
        Ok(Self { note: Note { chain: Chain(*chain), time }, record: &rest[used..] })
    }
}

fn checksum(lsn: Lsn, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&lsn.to_bytes()), body)
}
