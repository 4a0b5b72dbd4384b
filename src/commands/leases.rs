//! Work that must be done once has one owner at a time. It is divided into shards; a node takes shards by a record, and
//! what it then does under this lease rests on that record: what a dethroned owner appends is void.
//!
//! Who lives is known from the channel; only take-overs are on the log, and only when there is work. A shard belongs to
//! its home among the nodes that live. The home takes it from a node that is dead at once, and from one that lives when
//! for some seconds nobody has come or gone: nodes that come and go make no flood of records.
//!
//! Ids of records of such work derive from what it is ([`once`]), so that what one owner did and the next does again has
//! no second effect.

use std::time::Duration;

use projections::{
    View,
    models::{admission, leases},
};
use schemas::{Draft, Expect, Key, Lsn, Origin, Read, RecordId, Tag, facts::ShardsTaken};
use sha2::{Digest, Sha256};

use super::{Commands, Decision, Error, unchanged};
use crate::nodes::Roll;

/// For ever: it is part of what a shard's number means.
const SHARDS: u8 = 16;
/// A living owner is relieved when for this time nobody has come or gone.
const SETTLED: Duration = Duration::from_secs(3);

/// A shard of the work that is done once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard(u8);

impl Shard {
    /// The shard that a thing belongs to: a user, a destination, a job.
    #[must_use]
    pub fn of(thing: &str) -> Self {
        Self(Sha256::digest(thing.as_bytes())[0] % SHARDS)
    }

    fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// The key that every take-over of it writes.
    #[must_use]
    pub fn key(self) -> Key {
        Key::new(Tag::Shard, &self.0.to_string())
    }

    /// Whether this node is to take the shard from its owner, by what it knows of who lives.
    fn is_due(self, owner: Option<u32>, roll: &Roll) -> bool {
        if roll.home(&format!("shard {}", self.0)) != roll.own {
            return false;
        }
        let settled = roll.stable_for >= SETTLED;
        match owner {
            None => roll.is_complete && settled,
            Some(owner) if owner == roll.own => false,
            Some(owner) if roll.others.contains(&owner) => settled,
            Some(_) => roll.is_complete,
        }
    }
}

/// A shard of this node's, until another takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    shard: Shard,
    /// The record that took it.
    since: Lsn,
}

impl Lease {
    fn held(view: &View, shard: Shard, node: u32) -> Result<Option<Self>, Error> {
        if leases::owner(view, shard.0)? != Some(node) {
            return Ok(None);
        }
        Ok(admission::written(view, &shard.key())?.map(|(since, _)| Self { shard, since }))
    }

    /// What everything rests on that is done under this lease.
    ///
    /// # Errors
    /// When another node has taken the shard: the work is its now.
    pub fn guard(&self, view: &View) -> Result<Read, Error> {
        match admission::written(view, &self.shard.key())? {
            Some((lsn, _)) if lsn == self.since => Ok(Read { key: self.shard.key(), expect: Expect::At(self.since) }),
            _ => Err(Error::Unavailable("another node does this now".into())),
        }
    }
}

/// The id of the record that does a piece of work, wherever it is done: what it is for, and what it follows from.
#[must_use]
pub fn once(work: &str, about: &[&str], cause: Lsn) -> RecordId {
    RecordId::of_request("", work, &about.join("\0"), "", &cause.0.to_string())
}

impl Commands {
    /// This node's lease of a shard, for work that is due. Where it should have the shard and hasn't, it takes it, with all
    /// others that it should have, by one record. None while it is another node's.
    ///
    /// # Errors
    /// When the store fails, or the log can't be written.
    pub async fn lease(&self, shard: Shard) -> Result<Option<Lease>, Error> {
        let parts = self.parts();
        let held = Lease::held(&parts.source.view()?, shard, parts.node)?;
        if held.is_some() {
            return Ok(held);
        }
        let members = std::sync::Arc::clone(&parts.members);
        let decide = move |view: &View| {
            let mut draft = Draft::default();
            let (roll, mut taken) = (members.roll(), Vec::new());
            for shard in Shard::all() {
                if shard.is_due(leases::owner(view, shard.0)?, &roll) {
                    draft.reads.push(unchanged(view, shard.key())?);
                    draft.writes.push(shard.key());
                    taken.push(shard);
                }
            }
            if !taken.contains(&shard) {
                return Ok(Decision::Reply(()));
            }
            let shards = taken.iter().map(|shard| shard.0).collect();
            draft.facts.push(ShardsTaken { shards, node: roll.own }.into());
            Ok(Decision::append_then(draft, ()))
        };
        self.execute(Origin::Server, decide).await?;
        Lease::held(&parts.source.view()?, shard, parts.node)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        clock::{Clock, SimulatedClock},
        nodes::{HEARTBEAT, Members, Message, Node, PATIENCE, Told},
    };

    /// What node 1 knows.
    struct Known {
        clock: Arc<SimulatedClock>,
        members: Members,
    }

    impl Known {
        fn new() -> Self {
            let clock = Arc::new(SimulatedClock::at(1));
            let members = Members::new(node(1), String::new(), Arc::clone(&clock) as Arc<dyn Clock>);
            Self { clock, members }
        }

        fn hear(&self, number: u32) {
            self.members.hear(&Told { from: node(number), message: Message::Alive { url: None, key: String::new() } });
        }

        /// Seconds in which these nodes are heard.
        fn seconds(&self, seconds: usize, nodes: &[u32]) {
            for _ in 0..seconds {
                nodes.iter().for_each(|number| self.hear(*number));
                self.clock.advance(HEARTBEAT);
            }
        }

        fn due(&self, owner: Option<u32>) -> usize {
            let roll = self.members.roll();
            Shard::all().filter(|shard| shard.is_due(owner, &roll)).count()
        }
    }

    fn node(number: u32) -> Node {
        Node { number, boot: format!("boot{number}") }
    }

    #[test]
    fn who_is_alone_takes_everything_at_once_and_what_is_its_own_never_again() {
        let clock = Arc::new(SimulatedClock::at(1));
        let roll = Members::new(node(1), String::new(), clock).alone().roll();
        let due = |owner| Shard::all().filter(|shard| shard.is_due(owner, &roll)).count();
        assert_eq!((due(None), due(Some(2)), due(Some(1))), (16, 16, 0));
    }

    #[test]
    fn nothing_is_taken_before_it_is_known_who_lives() {
        let known = Known::new();
        assert_eq!((known.due(None), known.due(Some(2))), (0, 0));
        known.seconds(5, &[1]);
        assert_eq!((known.due(None), known.due(Some(2))), (0, 0));
        known.seconds(1, &[1]);
        assert_eq!((known.due(None), known.due(Some(2)), known.due(Some(1))), (16, 16, 0));
        known.seconds(3, &[]);
        assert_eq!(known.due(Some(2)), 0, "who is deaf takes nothing");
    }

    #[test]
    fn each_of_two_takes_its_own_shards() {
        let known = Known::new();
        known.seconds(6, &[1, 2]);
        let own = known.due(None);
        assert!((3..=13).contains(&own), "{own} of 16");
        assert_eq!(known.due(Some(2)), own, "its own from the other, too");
        // The other dies: all are this node's, within the bound.
        let mut waited = Duration::ZERO;
        while known.due(Some(2)) < 16 {
            known.seconds(1, &[1]);
            waited += HEARTBEAT;
        }
        assert!(waited <= PATIENCE + HEARTBEAT, "{waited:?}");
        // It comes back, and gets its own again, but not at once.
        known.seconds(1, &[1, 2]);
        assert_eq!(known.due(Some(3)), own);
        assert_eq!(known.due(Some(2)), 0);
        known.seconds(3, &[1, 2]);
        assert_eq!(known.due(Some(2)), own);
    }

    #[test]
    fn what_a_node_leaves_is_taken_at_once() {
        let known = Known::new();
        known.seconds(8, &[1, 2]);
        known.members.hear(&Told { from: node(2), message: Message::Leaving });
        assert_eq!(known.due(Some(2)), 16);
    }

    #[test]
    fn who_comes_and_goes_is_relieved_of_nothing() {
        let known = Known::new();
        known.seconds(6, &[1, 2]);
        for _ in 0..20 {
            // It runs anew every two seconds.
            known.members.hear(&Told { from: node(2), message: Message::Leaving });
            known.seconds(2, &[1, 2]);
            assert_eq!(known.due(Some(2)), 0);
        }
    }
}
