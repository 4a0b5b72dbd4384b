mod nodes;

use std::{sync::Arc, time::Duration};

use ruma::{presence::PresenceState, room_id, user_id};

use super::Ephemeral;
use crate::{
    clock::{Clock, SimulatedClock},
    nodes::{Alone, Channel, Members, Node},
};

/// A node that hears what `channel` brings.
fn on(number: u32, channel: Arc<dyn Channel>, clock: &Arc<SimulatedClock>) -> (Arc<Ephemeral>, Arc<Members>) {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let members = Arc::new(Members::new(node(number), "key".into(), Arc::clone(&clock)));
    (Ephemeral::new(clock, channel, Arc::clone(&members)), members)
}

fn node(number: u32) -> Node {
    Node { number, boot: format!("boot{number}") }
}

fn ephemeral() -> (Arc<Ephemeral>, Arc<SimulatedClock>) {
    let clock = Arc::new(SimulatedClock::at(1_000_000));
    (on(0, Arc::new(Alone::new(node(0))), &clock).0, clock)
}

/// What others see after so many seconds.
fn after(ephemeral: &Ephemeral, clock: &SimulatedClock, seconds: u64) -> PresenceState {
    clock.advance(Duration::from_secs(seconds));
    ephemeral.expire();
    ephemeral.presence_of(user_id!("@a:x")).unwrap().state
}

#[test]
fn typing_ends_by_itself_and_those_who_wait_learn_of_it() {
    let (ephemeral, clock) = ephemeral();
    let (room, user) = (room_id!("!r:x"), user_id!("@a:x"));
    ephemeral.set_typing(room, user, 30_000);
    let began = ephemeral.position();
    assert_eq!(ephemeral.typing_since(room, 0), Some(vec![user.to_owned()]));
    clock.advance(Duration::from_millis(29_999));
    ephemeral.expire();
    assert_eq!((ephemeral.position(), ephemeral.typing_since(room, began)), (began, None));
    clock.advance(Duration::from_millis(1));
    ephemeral.expire();
    assert_eq!(ephemeral.typing_since(room, began), Some(Vec::new()));
    assert_eq!(ephemeral.rooms_since(began), [room]);
    // It ends once.
    let ended = ephemeral.position();
    ephemeral.expire();
    assert_eq!(ephemeral.position(), ended);
}

#[test]
fn nobody_types_for_hours() {
    let (ephemeral, clock) = ephemeral();
    let room = room_id!("!r:x");
    ephemeral.set_typing(room, user_id!("@a:x"), u64::MAX);
    clock.advance(Duration::from_secs(120));
    ephemeral.expire();
    assert_eq!(ephemeral.typing_since(room, 0), Some(Vec::new()));
}

#[test]
fn typing_that_is_renewed_goes_on_and_is_no_news() {
    let (ephemeral, clock) = ephemeral();
    let (room, user) = (room_id!("!r:x"), user_id!("@a:x"));
    ephemeral.set_typing(room, user, 30_000);
    let began = ephemeral.position();
    for _ in 0..5 {
        clock.advance(Duration::from_secs(20));
        ephemeral.set_typing(room, user, 30_000);
        ephemeral.expire();
    }
    assert_eq!(ephemeral.position(), began);
}

#[test]
fn who_does_nothing_is_offline_after_a_minute() {
    let (ephemeral, clock) = ephemeral();
    ephemeral.set_presence(user_id!("@a:x"), PresenceState::Online, Some(Some("here".into())));
    let began = ephemeral.position();
    assert_eq!(after(&ephemeral, &clock, 60), PresenceState::Online);
    assert_eq!(ephemeral.position(), began);
    assert_eq!(after(&ephemeral, &clock, 1), PresenceState::Offline);
    let changed = ephemeral.presence_since(began);
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].1.message.as_deref(), changed[0].1.last_active_ago_ms), (Some("here"), 61_000));
}

#[test]
fn who_is_there_without_doing_anything_stays_unavailable() {
    let (ephemeral, clock) = ephemeral();
    let user = user_id!("@a:x");
    ephemeral.set_presence(user, PresenceState::Online, None);
    for _ in 0..10 {
        drop(ephemeral.present(user, PresenceState::Unavailable));
        assert_eq!(after(&ephemeral, &clock, 50), PresenceState::Unavailable);
    }
    let ago = ephemeral.presence_of(user).unwrap().last_active_ago_ms;
    assert_eq!(ago, 500_000, "being there is not activity");
}

#[test]
fn a_request_that_waits_for_long_makes_nobody_offline() {
    let (ephemeral, clock) = ephemeral();
    let user = user_id!("@a:x");
    let (first, second) =
        (ephemeral.present(user, PresenceState::Online), ephemeral.present(user, PresenceState::Online));
    assert_eq!(after(&ephemeral, &clock, 600), PresenceState::Online);
    drop(first);
    assert_eq!(after(&ephemeral, &clock, 600), PresenceState::Online, "another of their devices is still there");
    drop(second);
    assert_eq!(after(&ephemeral, &clock, 60), PresenceState::Online);
    assert_eq!(after(&ephemeral, &clock, 1), PresenceState::Offline);
}
