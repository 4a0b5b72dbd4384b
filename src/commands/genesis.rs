use ruma::{OwnedServerName, ServerName};
use schemas::{
    Blob, Expect, FORMAT, Fact, Header, Key, Lsn, Origin, RawFact, Read, Record, Tag, facts::Genesis as GenesisFact,
};

use super::Error;
use crate::{
    clock::{Clock, Random},
    log::{self, AppendError, Log, LogReader, ReadError},
};

/// Why a log can't be this server's.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// Another server's.
    #[error(
        "this log belongs to the server {0}, and a server can't change its name: set server_name to that, or choose another data folder"
    )]
    OtherServer(OwnedServerName),
    /// Its first record is no `Genesis`.
    #[error("the log does not begin with a Genesis record: it is not a log of Everfold's")]
    NoGenesis,
    /// It can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It can't be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The first record can't be made.
    #[error(transparent)]
    Command(#[from] Error),
}

/// Writes the first record of an empty log, and checks that a log is this server's.
///
/// # Errors
/// When it is another server's, or can't be read or written.
pub async fn found(
    log: &dyn Log,
    server_name: &ServerName,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<(), FoundingError> {
    if log.tail() == Lsn::ZERO {
        let record = genesis(server_name, clock, random)?;
        for receipt in log.append(vec![record.into()]) {
            receipt.await.map_err(|_| AppendError::Closed)??;
        }
    }
    // On a log with several nodes, another one's may have come first.
    let found = server_of(log)?.ok_or(FoundingError::NoGenesis)?;
    if found == server_name { Ok(()) } else { Err(FoundingError::OtherServer(found)) }
}

/// Whose log it is; none for an empty one, or one that doesn't begin as it must.
///
/// # Errors
/// When it can't be read.
pub fn server_of(log: &(impl LogReader + ?Sized)) -> Result<Option<OwnedServerName>, ReadError> {
    Ok(log::genesis(log)?.and_then(|genesis| OwnedServerName::try_from(genesis.server_name).ok()))
}

fn genesis(server_name: &ServerName, clock: &dyn Clock, random: &dyn Random) -> Result<Vec<u8>, Error> {
    let key = Key::new(Tag::Genesis, "");
    let fact = GenesisFact {
        log_id: Blob(random.bytes::<16>().to_vec()),
        server_name: server_name.to_string(),
        format: FORMAT,
    };
    let header = Header {
        reads: vec![Read { key, expect: Expect::Absent }],
        writes: vec![key],
        ..Header::plain(random.mark(), clock.now_ms(), Origin::Server)
    };
    let record = Record { header, facts: vec![RawFact::from(&Fact::from(fact))] };
    record.encode().map_err(|error| Error::Internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::{
        clock::{SimulatedClock, SimulatedRandom},
        log::memory::MemoryLog,
    };

    #[tokio::test]
    async fn a_log_is_founded_once_and_keeps_its_name() {
        let (log, clock, random) = (MemoryLog::new(), SimulatedClock::at(1), SimulatedRandom::seeded(1));
        assert_eq!(server_of(&log).unwrap(), None);
        found(&log, server_name!("a.example"), &clock, &random).await.unwrap();
        found(&log, server_name!("a.example"), &clock, &random).await.unwrap();
        assert_eq!(log.tail(), Lsn::FIRST);
        let error = found(&log, server_name!("b.example"), &clock, &random).await.unwrap_err();
        assert!(error.to_string().contains("a.example"), "{error}");
    }
}
