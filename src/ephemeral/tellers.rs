use std::{collections::HashMap, time::Duration};

use crate::nodes::{Ending, Member, Message, Node};

/// A node that is not there for this time has nobody who types, …
const TYPING: Duration = Duration::from_secs(2);
/// … and whoever was there has had this time to come back elsewhere.
const PRESENCE: Duration = Duration::from_secs(60);
/// One node after the other sees to it, so that mostly the first does.
const TURN: Duration = Duration::from_secs(2);

/// The other nodes that told something which still holds.
#[derive(Default)]
pub(super) struct Tellers(HashMap<Node, Teller>);

#[derive(Default)]
struct Teller {
    typing: bool,
    presence: bool,
    /// Since when it is not there.
    missing: Option<Duration>,
}

impl Teller {
    fn of(&mut self, what: Ending) -> &mut bool {
        match what {
            Ending::Typing => &mut self.typing,
            Ending::Presence => &mut self.presence,
        }
    }
}

impl Tellers {
    /// A node told something.
    pub(super) fn told(&mut self, node: &Node, what: Ending) {
        *self.0.entry(node.clone()).or_default().of(what) = true;
    }

    /// What a node told holds no more.
    pub(super) fn ended(&mut self, node: &Node, what: Ending) {
        if let Some(teller) = self.0.get_mut(node) {
            *teller.of(what) = false;
        }
    }

    /// What is to be ended, with so many other nodes alive.
    pub(super) fn due(&mut self, own: &Node, alive: &[Member], at: Duration) -> Vec<Message> {
        let before = alive.iter().filter(|member| member.node.number < own.number).count();
        let turn = TURN * u32::try_from(before).unwrap_or(u32::MAX);
        let mut messages = Vec::new();
        self.0.retain(|node, teller| {
            if alive.iter().any(|member| member.node == *node) {
                teller.missing = None;
                return true;
            }
            let missing = at.saturating_sub(*teller.missing.get_or_insert(at));
            for (what, after) in [(Ending::Typing, TYPING), (Ending::Presence, PRESENCE)] {
                if *teller.of(what) && missing >= after + turn {
                    messages.push(Message::Ended { node: node.clone(), what });
                }
            }
            teller.typing || teller.presence
        });
        messages
    }
}
