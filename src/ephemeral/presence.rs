use std::collections::{HashMap, VecDeque};

use ruma::{OwnedUserId, UserId, presence::PresenceState};

use super::Position;
use crate::nodes::{self, Node, Words};

/// Who has not done anything for this time is unavailable, and offline after …
const IDLE_MS: u64 = 5 * 60 * 1000;
/// … no request for this time.
pub(super) const GONE_MS: u64 = 60 * 1000;
/// What was told and not heard is told again after this time.
const AGAIN_MS: u64 = 1000;
/// Other nodes are told so often that somebody goes on doing something.
const ACTIVE_MS: u64 = 4 * 60 * 1000;
/// At a time so many are told of to who asks who is there.
const AT_ONCE: usize = 2000;

/// What others see of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Online, unavailable, offline.
    pub state: PresenceState,
    /// The user's own words.
    pub message: Option<String>,
    /// Milliseconds since the user last did something.
    pub last_active_ago_ms: u64,
}

pub(super) struct Presences {
    own: Node,
    /// What was heard.
    users: HashMap<OwnedUserId, Heard>,
    /// Who is there by this node.
    here: HashMap<OwnedUserId, Here>,
    /// Who is still to be told of, to who asked who is there.
    asked: VecDeque<OwnedUserId>,
}

#[derive(Default)]
struct Heard {
    changed: Position,
    words: Option<Words>,
    active_ms: u64,
    /// How the user is there, by each node where they are.
    nodes: Vec<(Node, PresenceState, u64)>,
}

/// How a user is there by this node.
struct Here {
    state: PresenceState,
    /// Words that were not heard yet.
    words: Option<Words>,
    last_active_ms: u64,
    last_seen_ms: u64,
    /// How many requests of theirs are waiting.
    staying: usize,
    /// What was told last, and when.
    told: Option<(nodes::Presence, u64)>,
}

/// Who is there on one device is there.
const fn rank(state: &PresenceState) -> u8 {
    match state {
        PresenceState::Offline => 0,
        PresenceState::Unavailable => 1,
        PresenceState::Online => 3,
        _ => 2,
    }
}

impl Heard {
    fn by(&self, node: &Node) -> Option<&(Node, PresenceState, u64)> {
        self.nodes.iter().find(|(by, ..)| by == node)
    }

    /// How the user is there, by all nodes or all but one.
    fn state(&self, but: Option<&Node>) -> PresenceState {
        let states = self.nodes.iter().filter(|(by, ..)| Some(by) != but).map(|(_, state, _)| state);
        states.max_by_key(|state| rank(state)).cloned().unwrap_or(PresenceState::Offline)
    }

    fn text(&self) -> Option<&str> {
        self.words.as_ref()?.text.as_deref()
    }

    /// Changes something. Says whether others see a difference.
    fn change(&mut self, position: Position, change: impl FnOnce(&mut Self)) -> bool {
        let before = (self.state(None), self.words.clone().and_then(|words| words.text));
        change(self);
        let differs = before.0 != self.state(None) || before.1.as_deref() != self.text();
        if differs {
            self.changed = position;
        }
        differs
    }
}

impl Here {
    /// How it is to be told, if that was not heard yet.
    fn unheard(&self, own: &Node, user: &UserId, heard: Option<&Heard>) -> Option<nodes::Presence> {
        let state = heard.and_then(|heard| heard.by(own)).map_or(&PresenceState::Offline, |(_, state, _)| state);
        (*state != self.state || self.words.is_some()).then(|| self.tell(user, self.words.clone()))
    }

    fn tell(&self, user: &UserId, words: Option<Words>) -> nodes::Presence {
        let state = self.state.clone();
        nodes::Presence { user: user.to_owned(), state, active_ms: self.last_active_ms, words }
    }

    /// Notes that it is told, unless the same was a moment ago.
    fn tell_once(&mut self, presence: nodes::Presence, now_ms: u64) -> Option<nodes::Presence> {
        let is_same = |told: &nodes::Presence| told.state == presence.state && told.words == presence.words;
        if self.told.as_ref().is_some_and(|(told, at)| is_same(told) && now_ms.saturating_sub(*at) < AGAIN_MS) {
            return None;
        }
        self.told = Some((presence.clone(), now_ms));
        Some(presence)
    }

    fn is_over(&self) -> bool {
        self.state == PresenceState::Offline && self.staying == 0 && self.words.is_none()
    }

    /// Lets time go by.
    fn expire(&mut self, now_ms: u64) {
        if self.staying > 0 {
            return;
        }
        if now_ms.saturating_sub(self.last_seen_ms) > GONE_MS {
            self.state = PresenceState::Offline;
        } else if now_ms.saturating_sub(self.last_active_ms) > IDLE_MS && self.state == PresenceState::Online {
            self.state = PresenceState::Unavailable;
        }
    }
}

impl Presences {
    pub(super) fn new(own: Node) -> Self {
        Self { own, users: HashMap::new(), here: HashMap::new(), asked: VecDeque::new() }
    }

    #[cfg(test)]
    pub(super) fn is_nobody_here(&self) -> bool {
        self.here.is_empty()
    }

    /// Takes note of how a user is there by this node. Gives what is to be told.
    pub(super) fn set(
        &mut self,
        user: &UserId,
        state: PresenceState,
        message: Option<Option<String>>,
        now_ms: u64,
    ) -> Option<nodes::Presence> {
        let heard = self.users.get(user);
        let here = self.here.entry(user.to_owned()).or_insert_with(|| Here {
            state: PresenceState::Offline,
            words: None,
            last_active_ms: heard.map_or(now_ms, |heard| heard.active_ms),
            last_seen_ms: now_ms,
            staying: 0,
            told: None,
        });
        here.last_seen_ms = now_ms;
        if state == PresenceState::Online {
            here.last_active_ms = now_ms;
        }
        here.state = state;
        if let Some(text) = message {
            let now = here.words.as_ref().or_else(|| heard.and_then(|heard| heard.words.as_ref()));
            if now.and_then(|words| words.text.as_ref()) != text.as_ref() {
                // Later than what they replace, whatever the clocks say.
                let at_ms = now.map_or(now_ms, |words| now_ms.max(words.at_ms + 1));
                here.words = Some(Words { text, at_ms });
            }
        }
        let unheard = here.unheard(&self.own, user, heard)?;
        here.tell_once(unheard, now_ms)
    }

    /// A request of the user waits.
    pub(super) fn stay(&mut self, user: &UserId) {
        if let Some(here) = self.here.get_mut(user) {
            here.staying += 1;
        }
    }

    /// It waits no more.
    pub(super) fn go(&mut self, user: &UserId, now_ms: u64) {
        let Some(here) = self.here.get_mut(user) else { return };
        here.staying = here.staying.saturating_sub(1);
        here.last_seen_ms = now_ms;
        if here.state == PresenceState::Online {
            here.last_active_ms = now_ms;
        }
    }

    /// Takes note of what was told. Says whether others see a difference.
    pub(super) fn hear(&mut self, position: Position, node: &Node, told: &nodes::Presence) -> bool {
        let heard = self.users.entry(told.user.clone()).or_default();
        let differs = heard.change(position, |heard| {
            heard.active_ms = heard.active_ms.max(told.active_ms);
            heard.nodes.retain(|(by, ..)| by != node);
            if told.state != PresenceState::Offline {
                heard.nodes.push((node.clone(), told.state.clone(), told.active_ms));
            }
            if let Some(words) = &told.words
                && heard.words.as_ref().is_none_or(|before| before.at_ms <= words.at_ms)
            {
                heard.words = Some(words.clone());
            }
        });
        if let Some(here) = self.here.get_mut(&told.user)
            && here.words.as_ref().is_some_and(|words| heard.words.as_ref().is_some_and(|now| now.at_ms >= words.at_ms))
        {
            here.words = None;
        }
        differs
    }

    /// Takes note that a node is gone. Gives the users of whom others see a difference.
    pub(super) fn end(&mut self, position: Position, node: &Node) -> Vec<OwnedUserId> {
        let mut changed = Vec::new();
        for (user, heard) in &mut self.users {
            if heard.by(node).is_some() && heard.change(position, |heard| heard.nodes.retain(|(by, ..)| by != node)) {
                changed.push(user.clone());
            }
        }
        changed.sort();
        changed
    }

    /// Somebody asks who is there.
    pub(super) fn ask(&mut self) {
        self.asked = self.here.keys().cloned().collect();
    }

    /// What is to be told as time goes by, and, to `others`, who goes on doing something.
    pub(super) fn due(&mut self, now_ms: u64, others: bool) -> Vec<nodes::Presence> {
        let mut due = Vec::new();
        let Self { own, users, here, asked } = self;
        // Of who is not there, and was told of, nothing needs to be kept.
        here.retain(|user, here| !here.is_over() || users.get(user).is_some_and(|heard| heard.by(own).is_some()));
        for (user, here) in &mut *here {
            here.expire(now_ms);
            let heard = users.get(user);
            let told_active = heard.and_then(|heard| heard.by(own)).map_or(u64::MAX, |(_, _, active_ms)| *active_ms);
            let goes_on = others && here.last_active_ms.saturating_sub(told_active) >= ACTIVE_MS;
            let unheard = here.unheard(own, user, heard).or_else(|| goes_on.then(|| here.tell(user, None)));
            due.extend(unheard.and_then(|presence| here.tell_once(presence, now_ms)));
        }
        for user in asked.drain(..asked.len().min(AT_ONCE)) {
            if let Some(here) = here.get(&user) {
                due.push(here.tell(&user, users.get(&user).and_then(|heard| heard.words.clone())));
            }
        }
        due.sort_by(|a, b| a.user.cmp(&b.user));
        due
    }

    /// What others see: what was heard of the other nodes, and what is so here.
    pub(super) fn get(&self, user: &UserId, now_ms: u64) -> Option<Presence> {
        let (heard, here) = (self.users.get(user), self.here.get(user));
        if heard.is_none() && here.is_none() {
            return None;
        }
        let elsewhere = heard.map_or(PresenceState::Offline, |heard| heard.state(Some(&self.own)));
        let state = match here {
            Some(here) if rank(&here.state) > rank(&elsewhere) => here.state.clone(),
            _ => elsewhere,
        };
        let words = here.and_then(|here| here.words.as_ref()).or_else(|| heard?.words.as_ref());
        let active_ms = heard.map_or(0, |heard| heard.active_ms).max(here.map_or(0, |here| here.last_active_ms));
        let message = words.and_then(|words| words.text.clone());
        Some(Presence { state, message, last_active_ago_ms: now_ms.saturating_sub(active_ms) })
    }

    /// What has changed has changed by a position at the latest.
    pub(super) fn rewind(&mut self, position: Position) {
        for heard in self.users.values_mut() {
            heard.changed = heard.changed.min(position);
        }
    }

    pub(super) fn since(&self, since: Position, now_ms: u64) -> Vec<(OwnedUserId, Presence)> {
        let changed = self.users.iter().filter(|(_, heard)| heard.changed > since);
        let mut changed: Vec<_> =
            changed.filter_map(|(user, _)| Some((user.clone(), self.get(user, now_ms)?))).collect();
        changed.sort_by(|a, b| a.0.cmp(&b.0));
        changed
    }
}
