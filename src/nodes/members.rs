use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{Message, Node, Told};
use crate::clock::Clock;

/// A node says so often that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node that was not heard for this time is taken for dead.
pub const PATIENCE: Duration = Duration::from_secs(6);

/// A node that lives, as far as this one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: Node,
    /// Where the other nodes reach it.
    pub url: Option<String>,
}

/// Which nodes live: what this node believes. A wrong belief costs a void record, and nothing else.
pub struct Members {
    clock: Arc<dyn Clock>,
    own: Node,
    others: Mutex<BTreeMap<u32, (Member, Duration)>>,
}

impl Members {
    /// Knows of no other node yet.
    #[must_use]
    pub fn new(own: Node, clock: Arc<dyn Clock>) -> Self {
        Self { clock, own, others: Mutex::default() }
    }

    /// This node.
    #[must_use]
    pub const fn own(&self) -> &Node {
        &self.own
    }

    fn others(&self) -> MutexGuard<'_, BTreeMap<u32, (Member, Duration)>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what was told.
    pub fn hear(&self, told: &Told) {
        if told.from.number == self.own.number {
            return;
        }
        let mut others = self.others();
        match &told.message {
            Message::Leaving => {
                others.remove(&told.from.number);
            }
            Message::Alive { url, .. } => {
                let member = Member { node: told.from.clone(), url: url.clone() };
                others.insert(told.from.number, (member, self.clock.elapsed()));
            }
        }
    }

    /// The other nodes that live, by number.
    #[must_use]
    pub fn others_alive(&self) -> Vec<Member> {
        let now = self.clock.elapsed();
        let lives = |heard: &Duration| now.saturating_sub(*heard) < PATIENCE;
        self.others().values().filter(|(_, heard)| lives(heard)).map(|(member, _)| member.clone()).collect()
    }

    /// The node that a thing belongs to, by rendezvous hashing over those that live: none if it is this one.
    #[must_use]
    pub fn home(&self, thing: &str) -> Option<Member> {
        let weight = |number: u32| Sha256::new().chain_update(number.to_be_bytes()).chain_update(thing).finalize();
        let other = self.others_alive().into_iter().max_by_key(|member| weight(member.node.number))?;
        (weight(other.node.number) > weight(self.own.number)).then_some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;

    fn node(number: u32) -> Node {
        Node { number, boot: format!("boot{number}") }
    }

    fn alive(number: u32) -> Told {
        let message = Message::Alive { url: Some(format!("http://node{number}")), key: String::new() };
        Told { from: node(number), message }
    }

    #[test]
    fn a_node_lives_while_it_is_heard() {
        let clock = Arc::new(SimulatedClock::at(1));
        let members = Members::new(node(1), Arc::clone(&clock) as Arc<dyn Clock>);
        let numbers = || members.others_alive().iter().map(|member| member.node.number).collect::<Vec<_>>();
        [1, 2, 3].iter().for_each(|number| members.hear(&alive(*number)));
        assert_eq!(numbers(), [2, 3]);
        clock.advance(PATIENCE / 2);
        members.hear(&alive(3));
        clock.advance(PATIENCE / 2);
        assert_eq!(numbers(), [3]);
        members.hear(&Told { from: node(3), message: Message::Leaving });
        assert!(numbers().is_empty());
    }

    #[test]
    fn nodes_that_know_the_same_agree_on_homes_and_few_things_move() {
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::at(1));
        let all = [1, 2, 3].map(|own| {
            let members = Members::new(node(own), Arc::clone(&clock));
            [1, 2, 3].iter().for_each(|number| members.hear(&alive(*number)));
            members
        });
        let home = |members: &Members, thing: &str| members.home(thing).map_or(members.own.number, |m| m.node.number);
        let things: Vec<String> = (0..300).map(|n| format!("!room{n}:a")).collect();
        let before: Vec<u32> = things.iter().map(|thing| home(&all[0], thing)).collect();
        for members in &all {
            assert!(things.iter().zip(&before).all(|(thing, before)| home(members, thing) == *before));
        }
        for number in [1, 2, 3] {
            assert!(before.iter().filter(|home| **home == number).count() > 60, "{number} has its share");
        }
        all[0].hear(&Told { from: node(3), message: Message::Leaving });
        for (thing, before) in things.iter().zip(&before) {
            let now = home(&all[0], thing);
            assert!(if *before == 3 { now != 3 } else { now == *before }, "only what was the third's moves");
        }
    }
}
