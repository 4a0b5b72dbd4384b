use std::{fmt, str::FromStr};

use schemas::{Lsn, Nid};
use serde::{Deserialize, Serialize};

/// Where an event stands in its room's one order, for /sync, /messages, /context and their tokens. As a token it is the
/// point just before what stands there.
///
/// A live event stands at the place of its fact on the log; history stands before its anchor, so that no later live event
/// ever comes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    anchor: Nid,
    back: u32,
}

impl Position {
    /// Before everything.
    pub const START: Self = Self { anchor: Nid { lsn: Lsn::ZERO, index: 0 }, back: u32::MAX };
    /// The length of [`Position::to_bytes`].
    pub const LEN: usize = Nid::LEN + 4;

    /// Of a live event.
    #[must_use]
    pub const fn live(nid: Nid) -> Self {
        Self { anchor: nid, back: 0 }
    }

    /// Of history, `order` places before its anchor, from 1.
    #[must_use]
    pub const fn before(anchor: Self, order: u32) -> Self {
        Self { anchor: anchor.anchor, back: anchor.back.saturating_add(order) }
    }

    /// The point after everything up to a record, as a sync token names it.
    #[must_use]
    pub const fn after_record(lsn: Lsn) -> Self {
        Self { anchor: Nid { lsn: lsn.next(), index: 0 }, back: u32::MAX }
    }

    /// The next point: just after what stands here.
    #[must_use]
    pub const fn next(self) -> Self {
        let Nid { lsn, index } = self.anchor;
        match (self.back.checked_sub(1), index.checked_add(1)) {
            (Some(back), _) => Self { anchor: self.anchor, back },
            (None, Some(index)) => Self { anchor: Nid { lsn, index }, back: u32::MAX },
            (None, None) => Self::after_record(lsn),
        }
    }

    /// The record of the live event, or of the anchor.
    #[must_use]
    pub const fn lsn(self) -> Lsn {
        self.anchor.lsn
    }

    /// Whether a live event stands here.
    #[must_use]
    pub const fn is_live(self) -> bool {
        self.back == 0
    }

    /// Bytes whose order is the room's order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..Nid::LEN].copy_from_slice(&self.anchor.to_bytes());
        bytes[Nid::LEN..].copy_from_slice(&(u32::MAX - self.back).to_be_bytes());
        bytes
    }

    /// The inverse of [`Position::to_bytes`], from the front of `bytes`.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let anchor = Nid::from_slice(bytes)?;
        let back = bytes.get(Nid::LEN..Self::LEN)?.try_into().ok().map(u32::from_be_bytes)?;
        Some(Self { anchor, back: u32::MAX - back })
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.anchor.cmp(&other.anchor).then(other.back.cmp(&self.back))
    }
}

/// `t<lsn>.<index>`, with `-<k>` for history.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}.{}", self.anchor.lsn, self.anchor.index)?;
        if self.back > 0 { write!(f, "-{}", self.back) } else { Ok(()) }
    }
}

/// The text is not a position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a position in a room")]
pub struct BadPosition;

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let text = text.strip_prefix('t').ok_or(BadPosition)?;
        let (anchor, back) = match text.split_once('-') {
            Some((anchor, back)) => (anchor, back.parse().map_err(|_| BadPosition)?),
            None => (text, 0),
        };
        let (lsn, index) = anchor.split_once('.').ok_or(BadPosition)?;
        let lsn = Lsn(lsn.parse().map_err(|_| BadPosition)?);
        let index = index.parse().map_err(|_| BadPosition)?;
        if lsn > Lsn::MAX { Err(BadPosition) } else { Ok(Self { anchor: Nid { lsn, index }, back }) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_and_text_round_trip_and_keep_order(a in any_position(), b in any_position()) {
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert_eq!(Position::from_slice(&a.to_bytes()), Some(a));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
            prop_assert!(a < a.next() && (b <= a || a.next() <= b));
        }

        #[test]
        fn junk_never_panics(text: String, bytes: Vec<u8>) {
            let _ = text.parse::<Position>();
            let _ = Position::from_slice(&bytes);
        }
    }

    fn any_position() -> impl Strategy<Value = Position> {
        let index = prop_oneof![0..3_u16, Just(u16::MAX)];
        let back = prop_oneof![0..3_u32, Just(u32::MAX)];
        (0..4_u64, index, back).prop_map(|(lsn, index, back)| Position { anchor: Nid { lsn: Lsn(lsn), index }, back })
    }

    #[test]
    fn history_stands_before_its_anchor_and_after_what_was_before() {
        let anchor = Position::live(Nid { lsn: Lsn(7), index: 1 });
        let earlier = Position::live(Nid { lsn: Lsn(7), index: 0 });
        assert!(Position::before(anchor, 2) < Position::before(anchor, 1));
        assert!(Position::before(anchor, 1) < anchor && earlier < Position::before(anchor, 9));
        assert!(anchor < Position::after_record(Lsn(7)));
    }
}
