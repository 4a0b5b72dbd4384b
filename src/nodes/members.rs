use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::{Message, Node, Told};
use crate::clock::Clock;

/// A node says so often that it lives.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node that was not heard for this time is taken for dead.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// A node that has not heard itself for this time can't judge who lives.
const DEAF: Duration = Duration::from_secs(3);

/// A node that lives, as far as this one knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: Node,
    /// Where the other nodes reach it.
    pub url: Option<String>,
}

/// Why a node and another that lives can't be of one server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Both have one number.
    #[error("another process has this node's number, {0}: give each its own (node.number)")]
    Number(u32),
    /// They sign by different keys.
    #[error("node {0} signs by another key: give all nodes a copy of one signing.key")]
    Key(u32),
}

/// Which nodes live: what this node believes. A wrong belief costs a void record, and nothing else.
pub struct Members {
    clock: Arc<dyn Clock>,
    own: Node,
    /// The public half of the signing key, base64.
    key: String,
    /// There can be no others.
    alone: bool,
    heard: Mutex<Heard>,
    left: Notify,
}

#[derive(Default)]
struct Heard {
    /// Each with the time when it was heard last.
    others: BTreeMap<u32, (Member, Duration)>,
    /// Since when, and when last, this node hears itself.
    own: Option<(Duration, Duration)>,
    /// When somebody came or left.
    changed: Duration,
    conflict: Option<(Conflict, Duration)>,
}

impl Members {
    /// Knows of no other node yet.
    #[must_use]
    pub fn new(own: Node, key: String, clock: Arc<dyn Clock>) -> Self {
        let changed = clock.elapsed();
        let heard = Mutex::new(Heard { changed, ..Heard::default() });
        Self { clock, own, key, alone: false, heard, left: Notify::new() }
    }

    /// The same where there can be no others.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Whether there can be no others.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.alone
    }

    /// This node.
    #[must_use]
    pub const fn own(&self) -> &Node {
        &self.own
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what was told.
    pub fn hear(&self, told: &Told) {
        let Node { number, boot } = &told.from;
        if *boot == self.own.boot {
            return self.hear_itself();
        }
        match &told.message {
            Message::Leaving => {
                let mut heard = self.heard();
                if heard.others.get(number).is_some_and(|(member, _)| member.node.boot == *boot) {
                    heard.others.remove(number);
                    heard.changed = self.clock.elapsed();
                    self.left.notify_waiters();
                }
            }
            Message::Alive { .. } if *number == self.own.number => self.note(Conflict::Number(*number)),
            Message::Alive { key, .. } if *key != self.key => self.note(Conflict::Key(*number)),
            Message::Alive { url, .. } => {
                let (member, now) = (Member { node: told.from.clone(), url: url.clone() }, self.clock.elapsed());
                let mut heard = self.heard();
                let before = heard.others.insert(*number, (member, now));
                if !before.is_some_and(|(member, at)| member.node.boot == *boot && self.is_recent(at)) {
                    heard.changed = now;
                }
            }
            _ => {}
        }
    }

    fn hear_itself(&self) {
        let (now, mut heard) = (self.clock.elapsed(), self.heard());
        let since = heard.own.filter(|(_, last)| now.saturating_sub(*last) < DEAF).map_or(now, |(since, _)| since);
        heard.own = Some((since, now));
    }

    fn note(&self, conflict: Conflict) {
        if self.conflict().as_ref() != Some(&conflict) {
            tracing::error!(%conflict, "this node is not ready");
        }
        self.heard().conflict = Some((conflict, self.clock.elapsed()));
    }

    /// What keeps this node and one that lives from being of one server.
    #[must_use]
    pub fn conflict(&self) -> Option<Conflict> {
        let heard = self.heard();
        let (conflict, at) = heard.conflict.as_ref()?;
        self.is_recent(*at).then(|| conflict.clone())
    }

    fn is_recent(&self, at: Duration) -> bool {
        self.clock.elapsed().saturating_sub(at) < PATIENCE
    }

    /// The other nodes that live, by number.
    #[must_use]
    pub fn others_alive(&self) -> Vec<Member> {
        self.heard().others.values().filter(|(_, at)| self.is_recent(*at)).map(|(member, _)| member.clone()).collect()
    }

    /// Who lives, as this node knows it now.
    #[must_use]
    pub fn roll(&self) -> Roll {
        let (now, heard) = (self.clock.elapsed(), self.heard());
        let lives = |at: Duration| now.saturating_sub(at) < PATIENCE;
        let hears = |(since, last)| now.saturating_sub(last) < DEAF && now.saturating_sub(since) >= PATIENCE;
        let deaths = heard.others.values().filter(|(_, at)| !lives(*at)).map(|(_, at)| *at + PATIENCE);
        let changed = deaths.fold(heard.changed, Duration::max);
        Roll {
            own: self.own.number,
            others: heard.others.iter().filter(|(_, (_, at))| lives(*at)).map(|(number, _)| *number).collect(),
            is_complete: self.alone || heard.own.is_some_and(hears),
            stable_for: if self.alone { Duration::MAX } else { now.saturating_sub(changed) },
        }
    }

    /// Whether this node can say who doesn't live ([`Roll::is_complete`]).
    #[must_use]
    pub fn can_judge(&self) -> bool {
        self.roll().is_complete
    }

    /// Waits until a node says that it stops.
    pub async fn somebody_left(&self) {
        self.left.notified().await;
    }

    /// The node that a thing belongs to, by rendezvous hashing over those that live: none if it is this one.
    #[must_use]
    pub fn home(&self, thing: &str) -> Option<Member> {
        let others = self.others_alive();
        let home = home(self.own.number, others.iter().map(|member| member.node.number), thing);
        others.into_iter().find(|member| member.node.number == home)
    }
}

/// Who lives, as a node knows it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// This node.
    pub own: u32,
    /// The others that live.
    pub others: BTreeSet<u32>,
    /// Whether this node has listened long enough to say of who is not here that they don't live. One that doesn't hear
    /// itself is deaf, and can't.
    pub is_complete: bool,
    /// How long nobody has come, left or died.
    pub stable_for: Duration,
}

impl Roll {
    /// The node that a thing belongs to, by rendezvous hashing.
    #[must_use]
    pub fn home(&self, thing: &str) -> u32 {
        home(self.own, self.others.iter().copied(), thing)
    }
}

/// Of two nodes that know the same, both find the same; where one comes or goes, only what is its moves.
fn home(own: u32, others: impl Iterator<Item = u32>, thing: &str) -> u32 {
    let weight = |number: &u32| Sha256::new().chain_update(number.to_be_bytes()).chain_update(thing).finalize();
    others.chain([own]).max_by_key(weight).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;

    fn node(number: u32) -> Node {
        Node { number, boot: format!("boot{number}") }
    }

    fn alive(number: u32) -> Told {
        let message = Message::Alive { url: Some(format!("http://node{number}")), key: "key".into() };
        Told { from: node(number), message }
    }

    fn members(own: u32, clock: &Arc<SimulatedClock>) -> Members {
        Members::new(node(own), "key".into(), Arc::clone(clock) as Arc<dyn Clock>)
    }

    #[test]
    fn a_node_lives_while_it_is_heard() {
        let clock = Arc::new(SimulatedClock::at(1));
        let members = members(1, &clock);
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
    fn a_node_judges_others_once_it_has_listened() {
        let clock = Arc::new(SimulatedClock::at(1));
        let members = members(1, &clock);
        let own = Told { from: node(1), ..alive(1) };
        for _ in 0..6 {
            assert!(!members.roll().is_complete);
            members.hear(&own);
            clock.advance(HEARTBEAT);
        }
        assert!(members.roll().is_complete);
        clock.advance(DEAF);
        assert!(!members.roll().is_complete, "it is deaf");
        members.hear(&own);
        assert!(!members.roll().is_complete, "and has missed what was told meanwhile");
        assert!(Members::new(node(1), "key".into(), clock).alone().roll().is_complete);
    }

    #[test]
    fn it_is_known_how_long_nobody_came_left_or_died() {
        let clock = Arc::new(SimulatedClock::at(1));
        let members = members(1, &clock);
        let after = |time: Duration| {
            clock.advance(time);
            members.roll().stable_for
        };
        assert_eq!(after(Duration::from_secs(2)), Duration::from_secs(2));
        members.hear(&alive(2));
        assert_eq!(after(HEARTBEAT), HEARTBEAT);
        members.hear(&alive(2));
        assert_eq!(after(HEARTBEAT), HEARTBEAT * 2, "it was there before");
        assert_eq!(after(PATIENCE), HEARTBEAT, "it died in between");
        members.hear(&alive(2));
        assert_eq!(after(HEARTBEAT), HEARTBEAT, "it is back");
        members.hear(&Told { from: Node { number: 2, boot: "next".into() }, ..alive(2) });
        assert_eq!(after(HEARTBEAT), HEARTBEAT, "it runs anew");
        members.hear(&Told { from: Node { number: 2, boot: "next".into() }, message: Message::Leaving });
        assert_eq!(after(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn nodes_that_are_not_of_one_server_are_told_so_while_both_live() {
        let clock = Arc::new(SimulatedClock::at(1));
        let members = members(1, &clock);
        members.hear(&Told { from: Node { boot: "another".into(), ..node(1) }, ..alive(1) });
        assert_eq!(members.conflict(), Some(Conflict::Number(1)));
        clock.advance(PATIENCE);
        assert_eq!(members.conflict(), None);
        let message = Message::Alive { url: None, key: "another".into() };
        members.hear(&Told { from: node(2), message });
        assert_eq!(members.conflict(), Some(Conflict::Key(2)));
        assert!(members.others_alive().is_empty(), "nothing belongs to a node that signs by another key");
    }

    #[test]
    fn nodes_that_know_the_same_agree_on_homes_and_few_things_move() {
        let clock = Arc::new(SimulatedClock::at(1));
        let all = [1, 2, 3].map(|own| {
            let members = members(own, &clock);
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
