use std::{fmt, str::FromStr};

use schemas::Lsn;

/// A sync token: `s<lsn>_<channel>_<ephemeral position>`, with `_<lsn>` where messages to the device are still owed from an
/// earlier position. It outlives restarts and rebuilds: the Lsn means the same on every node, and so does a
/// position in the channel that they share; another channel only means that typing and presence are sent in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncToken {
    /// Everything up to here was sent.
    pub lsn: Lsn,
    /// The channel that counts the ephemeral position.
    pub channel: String,
    /// Typing and presence up to here were sent.
    pub ephemeral: u64,
    /// Messages to the device were sent only up to here, since there were too many for one answer.
    pub to_device: Option<Lsn>,
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}_{}_{}", self.lsn, self.channel, self.ephemeral)?;
        self.to_device.map_or(Ok(()), |lsn| write!(f, "_{lsn}"))
    }
}

/// The text is not a sync token of this server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a sync token of this server")]
pub struct BadToken(String);

impl FromStr for SyncToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let bad = || BadToken(text.chars().take(64).collect());
        let mut parts = text.strip_prefix('s').ok_or_else(bad)?.splitn(4, '_');
        let (lsn, channel, ephemeral, to_device) = (parts.next(), parts.next(), parts.next(), parts.next());
        let read = |lsn: &str| lsn.parse().ok().map(Lsn).filter(|lsn| *lsn <= Lsn::MAX).ok_or_else(bad);
        let lsn = read(lsn.ok_or_else(bad)?)?;
        let to_device = to_device.map(read).transpose()?;
        let channel =
            channel.filter(|c| c.len() <= 32 && c.bytes().all(|c| c.is_ascii_alphanumeric())).ok_or_else(bad)?;
        let ephemeral = ephemeral.and_then(|position| position.parse().ok()).ok_or_else(bad)?;
        Ok(Self { lsn, channel: channel.to_owned(), ephemeral, to_device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_junk_is_refused() {
        let token = SyncToken { lsn: Lsn(812), channel: "b1".into(), ephemeral: 7, to_device: None };
        let behind = SyncToken { to_device: Some(Lsn(90)), ..token.clone() };
        assert_eq!((token.to_string(), behind.to_string()), ("s812_b1_7".into(), "s812_b1_7_90".into()));
        assert_eq!(("s812_b1_7".parse(), "s812_b1_7_90".parse()), (Ok(token), Ok(behind)));
        for junk in ["", "s", "812_b1_7", "s812", "s812_b1", "s-1_b_0", "s99999999999999999_b_0", "s1_é_0", "s1_b_x"] {
            assert!(junk.parse::<SyncToken>().is_err(), "{junk}");
        }
    }
}
