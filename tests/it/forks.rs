//! Rooms whose events fork: other servers send without having seen what was said meanwhile.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use everfold::{
    clock::SimulatedClock,
    commands::{Error, inbound::Received},
    rooms::Built,
};
use projections::models::{admission, events, membership, timeline};
use ruma::{OwnedEventId, api::error::ErrorKind};
use schemas::{Key, Lsn, Tag, facts::Verdict};
use serde_json::{Value, json};

use crate::common::{
    Client, TestServer,
    remote::{Remote, at, current, ends, member, message, redaction, set, topic},
};

const BOB: &str = "@bob:b.example";
const CAROL: &str = "@carol:c.example";
const DAVE: &str = "@dave:b.example";

const ACCEPTED: Received = Received::Placed(Verdict::Accepted);
const SOFT_FAILED: Received = Received::Placed(Verdict::SoftFailed);
const REJECTED: Received = Received::Placed(Verdict::Rejected);

/// A public room of Alice's, in which Bob of another server may moderate.
struct Room {
    server: TestServer,
    clock: Arc<SimulatedClock>,
    alice: Client,
    id: String,
    version: u8,
}

impl Room {
    async fn start(version: u8) -> Self {
        let (server, clock) = TestServer::with_clock(&[]).await;
        let alice = server.user("alice").await;
        let body = json!({
            "preset": "public_chat", "room_version": version.to_string(),
            "power_level_content_override": levels(version, &json!({})),
        });
        let id = alice.create(body).await;
        Self { server, clock, alice, id, version }
    }

    /// With Bob in it.
    async fn with_bob(version: u8) -> (Self, Remote) {
        let room = Self::start(version).await;
        let bob = Remote::joined(&room.server, &room.id, BOB).await;
        (room, bob)
    }

    async fn joined(&self, user: &str) -> Remote {
        Remote::joined(&self.server, &self.id, user).await
    }

    /// Alice's events come after all that were sent until now.
    fn later(&self) {
        self.clock.advance(Duration::from_secs(60));
    }

    /// Gives power to some users besides Alice, and Bob unless they say otherwise.
    async fn set_levels(&self, users: &Value) -> String {
        self.alice.set(&self.id, "m.room.power_levels", "", levels(self.version, users)).await
    }

    /// What /sync shows of the timeline.
    async fn shown(&self) -> Vec<Value> {
        // {"room":{"timeline":{"limit":100}}}
        let filter = "%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A100%7D%7D%7D";
        let sync = self.alice.get(&format!("/sync?filter={filter}")).await.ok();
        sync["rooms"]["join"][&self.id]["timeline"]["events"].as_array().unwrap().clone()
    }

    async fn shows(&self, event: &Built) -> bool {
        self.shown().await.iter().any(|shown| shown["event_id"] == event.pdu.id().as_str())
    }

    fn at(&self, kind: &str, key: &str) -> Option<OwnedEventId> {
        at(&self.server, &self.id, kind, key)
    }

    fn topic(&self) -> Option<OwnedEventId> {
        self.at("m.room.topic", "")
    }

    fn ends(&self) -> Vec<String> {
        ends(&self.server, &self.id)
    }

    /// The record that last changed the set of states after the forward extremities.
    fn state_version(&self) -> Lsn {
        let view = self.server.app().view().unwrap();
        admission::written(&view, &Key::new(Tag::RoomState, &self.id)).unwrap().unwrap().0
    }

    fn tail(&self) -> Lsn {
        self.server.app().reader.tail()
    }

    /// Compares everything with the algorithms to the letter, and ends.
    async fn finish(self, mut remote: Remote) {
        remote.room.catch_up(&self.server);
        remote.room.check(&self.server);
        self.server.finish().await;
    }
}

fn levels(version: u8, users: &Value) -> Value {
    let mut levels = json!({ "users": { BOB: 50 }, "events": { "m.room.tombstone": 150 } });
    if version < 12 {
        levels["users"]["@alice:test.example"] = 100.into();
    }
    levels["users"].as_object_mut().unwrap().extend(users.as_object().unwrap().clone());
    levels
}

fn id(event: &Built) -> OwnedEventId {
    event.pdu.id().to_owned()
}

fn ids(events: &[&Built]) -> BTreeSet<OwnedEventId> {
    events.iter().map(|event| id(event)).collect()
}

#[tokio::test]
async fn a_user_of_another_server_joins_and_talks() {
    let (room, mut bob) = Room::with_bob(12).await;
    let joined = room.state_version();
    assert_eq!(joined, room.tail());
    let hello = bob.send(BOB, message("Hello"));
    assert_eq!(bob.deliver(&room.server, &hello).await, ACCEPTED);
    assert_eq!(room.ends(), [hello.pdu.id().as_str()]);
    assert_eq!(room.state_version(), joined, "a message changes no state");
    let answer = room.alice.say(&room.id, "Hi").await;
    let shown = room.shown().await;
    let last: Vec<_> = shown.iter().rev().take(2).map(|event| &event["event_id"]).collect();
    assert_eq!(last, [&*answer, hello.pdu.id().as_str()]);
    let view = room.server.app().view().unwrap();
    let nid = events::room_nid(&view, &room.id).unwrap().unwrap();
    let servers: Vec<_> = membership::servers_in(&view, nid).map(Result::unwrap).collect();
    assert_eq!(servers, [("b.example".to_owned(), 1), ("test.example".to_owned(), 1)]);
    drop(view);
    room.finish(bob).await;
}

#[tokio::test]
async fn topics_set_at_once_fork_the_room_until_a_message_merges_them() {
    for version in [10, 12] {
        for bobs_is_later in [true, false] {
            let (room, mut bob) = Room::with_bob(version).await;
            bob.clock += 1_000;
            if !bobs_is_later {
                room.later();
            }
            let bobs = bob.send(BOB, topic("Bob's"));
            let alices = room.alice.set(&room.id, "m.room.topic", "", json!({ "topic": "Alice's" })).await;
            let set = room.state_version();
            assert_eq!(bob.deliver(&room.server, &bobs).await, ACCEPTED);
            assert!(room.state_version() > set, "a fork counts, even where the current state stays the same");
            assert_eq!(room.ends(), [&*alices, bobs.pdu.id().as_str()]);
            let winner = if bobs_is_later { bobs.pdu.id().as_str() } else { &alices };
            assert_eq!(room.topic().unwrap(), winner);

            // What follows one side leaves the set of states as it is.
            let forked = room.state_version();
            let more = bob.send(BOB, message("on my side"));
            assert_eq!(bob.deliver(&room.server, &more).await, ACCEPTED);
            assert_eq!(room.state_version(), forked);

            let merge = room.alice.say(&room.id, "on both").await;
            assert_eq!(room.ends(), [&*merge]);
            assert!(room.state_version() > forked, "a merge counts too");
            assert_eq!(room.topic().unwrap(), winner);
            let merged = room.state_version();
            room.alice.say(&room.id, "and on").await;
            assert_eq!(room.state_version(), merged);
            let shown = room.shown().await;
            assert!(
                [&*alices, bobs.pdu.id().as_str(), &merge].iter().all(|id| shown.iter().any(|e| e["event_id"] == *id))
            );
            room.finish(bob).await;
        }
    }
}

#[tokio::test]
async fn a_fork_of_messages_is_no_news_for_the_state() {
    let (room, mut bob) = Room::with_bob(11).await;
    let version = room.state_version();
    let bobs = bob.send(BOB, message("at once"));
    let alices = room.alice.say(&room.id, "at once").await;
    assert_eq!(bob.deliver(&room.server, &bobs).await, ACCEPTED);
    assert_eq!(room.ends(), [&*alices, bobs.pdu.id().as_str()]);
    let merge = room.alice.say(&room.id, "on both").await;
    assert_eq!(room.ends(), [&*merge]);
    assert_eq!(room.state_version(), version);
    room.finish(bob).await;
}

#[tokio::test]
async fn what_the_banned_say_meanwhile_is_not_shown() {
    let (room, mut bob) = Room::with_bob(11).await;
    let mut carol = room.joined(CAROL).await;
    bob.room.catch_up(&room.server);
    let said = bob.send(BOB, message("still here"));
    let set = bob.send(BOB, topic("Bob was here"));
    room.alice.post(&format!("/rooms/{}/ban", room.id), json!({ "user_id": BOB })).await.ok();
    let (version, ends) = (room.state_version(), room.ends());
    assert_eq!(bob.deliver(&room.server, &said).await, SOFT_FAILED);
    assert_eq!(bob.deliver(&room.server, &set).await, SOFT_FAILED);
    assert!(!room.shows(&said).await && !room.shows(&set).await);
    assert_eq!((room.state_version(), room.ends(), room.topic()), (version, ends.clone(), None));
    let sent = room.alice.say(&room.id, "gone").await;
    assert_eq!(room.ends(), [&*sent]);

    // Carol has not heard of the ban, and answers.
    carol.room.see(said.pdu.clone());
    carol.room.see(set.pdu.clone());
    let answer = carol.send(CAROL, message("so you are"));
    assert_eq!(carol.deliver(&room.server, &answer).await, ACCEPTED);
    assert!(room.shows(&answer).await && !room.shows(&said).await);
    assert_eq!(room.ends(), [&*sent, answer.pdu.id().as_str()]);
    assert_eq!(room.topic(), None, "the ban wins");
    room.alice.say(&room.id, "merged").await;
    room.finish(carol).await;
}

#[tokio::test]
async fn the_greater_power_decides_between_unlike_levels() {
    for version in [10, 12] {
        let (room, mut bob) = Room::with_bob(version).await;
        let mut carol = room.joined(CAROL).await;
        bob.room.catch_up(&room.server);
        // Alice takes Bob's power away, while Bob gives some to Carol, who uses it.
        let raised = bob.send(BOB, set("m.room.power_levels", "", levels(version, &json!({ CAROL: 50 }))));
        carol.room.see(raised.pdu.clone());
        let used = carol.send(CAROL, topic("Carol's"));
        let demoted = room.set_levels(&json!({ BOB: 0 })).await;
        assert_eq!(bob.deliver(&room.server, &raised).await, SOFT_FAILED);
        assert_eq!(carol.deliver(&room.server, &used).await, SOFT_FAILED);
        assert_eq!(room.at("m.room.power_levels", "").unwrap(), demoted);
        let late = room.alice.set(&room.id, "m.room.name", "", json!({ "name": "late" })).await;
        assert_eq!(room.ends(), [&*late]);
        room.finish(carol).await;
    }
}

#[tokio::test]
async fn levels_that_were_there_first_lose_against_greater_power() {
    let room = Room::start(11).await;
    let mut bob = room.joined(BOB).await;
    let mut erin = room.joined("@erin:e.example").await;
    room.set_levels(&json!({ "@erin:e.example": 100 })).await;
    bob.room.catch_up(&room.server);
    erin.room.catch_up(&room.server);
    let all = json!({ "@erin:e.example": 100, BOB: 0 });
    let demoted = erin.send("@erin:e.example", set("m.room.power_levels", "", levels(11, &all)));
    let one = bob.send(BOB, topic("one"));
    let two = bob.send(BOB, topic("two"));
    assert_eq!(bob.deliver(&room.server, &one).await, ACCEPTED);
    assert_eq!(bob.deliver(&room.server, &two).await, ACCEPTED);
    assert_eq!(room.topic(), Some(id(&two)));
    assert_eq!(erin.deliver(&room.server, &demoted).await, ACCEPTED);
    assert_eq!(room.topic(), None, "Bob had no power to set it");
    assert_eq!(room.at("m.room.power_levels", ""), Some(id(&demoted)));
    room.alice.say(&room.id, "merged").await;
    assert_eq!(room.topic(), None);
    room.finish(bob).await;
}

#[tokio::test]
async fn what_the_rules_forbid_is_rejected() {
    let (room, bob) = Room::with_bob(12).await;
    let mut carol = room.joined(CAROL).await;
    let (version, ends) = (room.state_version(), room.ends());
    let tip: Vec<_> = carol.room.ends.iter().cloned().collect();
    let before = current(&room.server, &room.id);
    let seized = carol.build(&tip, CAROL, set("m.room.power_levels", "", levels(12, &json!({ CAROL: 100 }))));
    let stranger = carol.build(&tip, "@eve:c.example", message("Let me in"));
    let founded = carol.build(&[], CAROL, set("m.room.message", "", json!({})));
    for event in [&seized, &stranger, &founded] {
        assert_eq!(carol.deliver(&room.server, event).await, REJECTED);
        assert!(!room.shows(event).await);
        carol.room.see(event.pdu.clone());
    }
    assert_eq!((room.state_version(), room.ends()), (version, ends));
    assert_eq!(current(&room.server, &room.id), before);

    // A message after what was rejected is on the state before that.
    let after = carol.build(&[id(&seized)], CAROL, message("Still here"));
    assert_eq!(carol.deliver(&room.server, &after).await, ACCEPTED);
    assert_eq!(room.ends(), [after.pdu.id().as_str()]);
    carol.room.see(after.pdu.clone());
    room.alice.say(&room.id, "Hm").await;
    drop(bob);
    room.finish(carol).await;
}

#[tokio::test]
async fn a_redaction_takes_effect_whichever_comes_first() {
    let (room, mut bob) = Room::with_bob(11).await;
    let mut dave = bob.clone();
    bob.room.see(dave.join(&room.server, DAVE).await.pdu);
    let mut carol = room.joined(CAROL).await;
    bob.room.catch_up(&room.server);
    dave.room.catch_up(&room.server);
    dave.clock += 100;
    carol.clock += 200;
    let said: Vec<_> = ["one", "two", "three", "four"].map(|body| carol.send_aside(CAROL, message(body))).into();
    let daves = dave.send_aside(DAVE, message("mine"));
    // Bob may redact what anybody sent, Dave only what those of his own server did.
    let by_moderator = bob.send_aside(BOB, redaction(said[0].pdu.id()));
    let by_nobody = dave.send_aside(DAVE, redaction(said[1].pdu.id()));
    let by_moderator_after = bob.send_aside(BOB, redaction(said[2].pdu.id()));
    let by_nobody_after = dave.send_aside(DAVE, redaction(said[3].pdu.id()));
    let of_its_server = bob.send_aside(BOB, redaction(daves.pdu.id()));
    for event in [&by_moderator, &by_nobody] {
        assert_eq!(bob.deliver(&room.server, event).await, ACCEPTED);
    }
    for event in &said {
        assert_eq!(carol.deliver(&room.server, event).await, ACCEPTED);
    }
    for event in [&by_moderator_after, &by_nobody_after, &of_its_server, &daves] {
        assert_eq!(bob.deliver(&room.server, event).await, ACCEPTED);
    }
    let shown = room.shown().await;
    let find = |event: &Built| shown.iter().find(|shown| shown["event_id"] == event.pdu.id().as_str()).unwrap();
    for (event, by) in [(&said[0], &by_moderator), (&said[2], &by_moderator_after), (&daves, &of_its_server)] {
        let shown = find(event);
        assert_eq!(shown["content"], json!({}), "{shown}");
        assert_eq!(shown["unsigned"]["redacted_because"]["event_id"], by.pdu.id().as_str(), "{shown}");
    }
    for event in [&said[1], &said[3]] {
        assert_eq!(find(event)["content"]["msgtype"], "m.text");
    }
    for event in said.iter().chain([&daves, &by_moderator, &by_nobody, &by_moderator_after]) {
        bob.room.see(event.pdu.clone());
    }
    room.finish(bob).await;
}

#[tokio::test]
async fn a_soft_failed_topic_enters_the_state_by_what_follows_it() {
    let room = Room::start(11).await;
    let mut bob = room.joined(BOB).await;
    let mut erin = room.joined("@erin:e.example").await;
    room.set_levels(&json!({ "@erin:e.example": 100 })).await;
    bob.room.catch_up(&room.server);
    erin.room.catch_up(&room.server);
    // Alice takes Bob's power away. Meanwhile he sets a topic, and Erin gives him more.
    let set_by_bob = bob.send(BOB, topic("Bob's"));
    let between = bob.send(BOB, message("there"));
    room.set_levels(&json!({ "@erin:e.example": 100, BOB: 0 })).await;
    erin.room.see(set_by_bob.pdu.clone());
    erin.room.see(between.pdu.clone());
    erin.clock += 120_000;
    let all = json!({ "@erin:e.example": 100, BOB: 60 });
    let raised = erin.send("@erin:e.example", set("m.room.power_levels", "", levels(11, &all)));
    assert_eq!(bob.deliver(&room.server, &set_by_bob).await, SOFT_FAILED);
    assert_eq!(bob.deliver(&room.server, &between).await, ACCEPTED, "anybody may send messages");
    assert_eq!((room.topic(), room.shows(&set_by_bob).await), (None, false));
    assert_eq!(erin.deliver(&room.server, &raised).await, ACCEPTED);
    assert_eq!(room.topic(), Some(id(&set_by_bob)));
    assert!(room.shows(&set_by_bob).await);
    assert_eq!(bob.deliver(&room.server, &set_by_bob).await, ACCEPTED, "it has been restated");
    assert_eq!(room.ends().len(), 2);
    let merge = room.alice.say(&room.id, "merged").await;
    assert_eq!(room.ends(), [&*merge]);
    room.finish(erin).await;
}

#[tokio::test]
async fn what_is_missing_is_asked_for() {
    let (room, mut bob) = Room::with_bob(12).await;
    let joined = bob.send(DAVE, member(DAVE, "join"));
    let said = bob.send(DAVE, message("Hi"));
    let named = bob.send(BOB, topic("Hello, Dave"));
    let tail = room.tail();
    assert_eq!(bob.deliver(&room.server, &named).await, Received::Need(ids(&[&said])));
    assert_eq!(bob.deliver(&room.server, &said).await, Received::Need(ids(&[&joined])));
    assert_eq!(room.tail(), tail, "nothing is recorded meanwhile");
    for event in [&joined, &said, &named] {
        assert_eq!(bob.deliver(&room.server, event).await, ACCEPTED);
    }
    assert_eq!(room.topic(), Some(id(&named)));

    // All of it again changes nothing.
    let tail = room.tail();
    for event in [&named, &said, &joined] {
        assert_eq!(bob.deliver(&room.server, event).await, ACCEPTED);
    }
    assert_eq!(room.tail(), tail);
    room.finish(bob).await;
}

#[tokio::test]
async fn an_outlier_is_kept_until_it_gets_its_place() {
    let (room, mut bob) = Room::with_bob(12).await;
    let tip: Vec<_> = bob.room.ends.iter().cloned().collect();
    let joined = bob.send(DAVE, member(DAVE, "join"));
    let renamed = bob.send(DAVE, set("m.room.member", DAVE, json!({ "membership": "join", "displayname": "D" })));
    // It names an auth event that is not in the state before it.
    let early = bob.sign(&tip, &bob.room.before(&[id(&joined)]), DAVE, message("too early"));
    assert_eq!(bob.deliver(&room.server, &early).await, Received::Need(ids(&[&joined])));
    assert_eq!(bob.deliver_outliers(&room.server, &[&renamed]).await, ids(&[&joined]));
    assert_eq!(bob.deliver_outliers(&room.server, &[&renamed, &joined]).await, BTreeSet::new());
    let tail = room.tail();
    assert_eq!(bob.deliver_outliers(&room.server, &[&joined, &renamed]).await, BTreeSet::new());
    assert_eq!(room.tail(), tail, "they are known");
    assert!(!room.shows(&joined).await);
    assert_eq!(room.at("m.room.member", DAVE), None);
    assert_eq!(bob.deliver(&room.server, &early).await, REJECTED);

    let said = bob.send(DAVE, message("Hi"));
    assert_eq!(bob.deliver(&room.server, &said).await, Received::Need(ids(&[&renamed])), "it has no place yet");
    for event in [&joined, &renamed, &said] {
        assert_eq!(bob.deliver(&room.server, event).await, ACCEPTED);
        assert!(room.shows(event).await);
    }
    assert_eq!(room.at("m.room.member", DAVE), Some(id(&renamed)));
    room.finish(bob).await;
}

#[tokio::test]
async fn events_of_rooms_without_anybody_here_are_refused() {
    let (room, mut bob) = Room::with_bob(11).await;
    let other = room.alice.create(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let mut astray = Remote::joined(&room.server, &other, BOB).await;
    let elsewhere = astray.send(BOB, message("elsewhere"));
    assert_eq!(astray.deliver(&room.server, &elsewhere).await, ACCEPTED);
    let tip: Vec<_> = bob.room.ends.iter().cloned().collect();
    let crossed = bob.sign(&[id(&elsewhere)], &bob.room.before(&tip), BOB, message("here"));
    let tail = room.tail();
    let refused = bob.try_deliver(&room.server, &crossed).await;
    assert!(matches!(refused, Err(Error::Refused(refusal)) if refusal.kind == ErrorKind::BadJson));

    room.alice.leave(&other).await;
    let late = astray.send(BOB, message("anybody there?"));
    let refused = astray.try_deliver(&room.server, &late).await;
    assert!(matches!(refused, Err(Error::Refused(refusal)) if refusal.kind == ErrorKind::Forbidden));
    assert_eq!(room.tail(), tail.next(), "Alice's leaving alone");
    room.server.finish().await;
}

#[tokio::test]
async fn an_event_has_at_most_twenty_parents() {
    let (room, mut bob) = Room::with_bob(12).await;
    let tip: Vec<_> = bob.room.ends.iter().cloned().collect();
    for n in 0..33 {
        // Some forks of the state among those of the timeline.
        let what = if n % 3 == 0 { topic(&n.to_string()) } else { message(&n.to_string()) };
        let event = bob.build(&tip, BOB, what);
        assert_eq!(bob.deliver(&room.server, &event).await, ACCEPTED);
        bob.room.see(event.pdu.clone());
    }
    assert_eq!(room.ends().len(), 33);
    let mut sent = Vec::new();
    while room.ends().len() > 1 {
        let before = room.ends();
        sent.push(match sent.len() {
            0 => room.alice.set(&room.id, "m.room.name", "", json!({ "name": "merged" })).await,
            _ => room.alice.say(&room.id, "merge").await,
        });
        let view = room.server.app().view().unwrap();
        let pdu = events::pdu_by_id(&view, &OwnedEventId::try_from(&**sent.last().unwrap()).unwrap()).unwrap().unwrap();
        let parents = pdu.prev_events();
        assert!((2..=20).contains(&parents.len()), "{}", parents.len());
        assert!(parents.iter().all(|parent| before.iter().any(|end| parent == end)), "they were the room's ends");
        assert_eq!(room.ends().len(), before.len() - parents.len() + 1);
    }
    assert!(sent.len() >= 2);
    room.finish(bob).await;
}

#[tokio::test]
async fn a_room_has_so_many_forks_and_no_more() {
    let (room, mut bob) = Room::with_bob(11).await;
    let tip: Vec<_> = bob.room.ends.iter().cloned().collect();
    let mut forks = 0;
    let refused = loop {
        let event = bob.build(&tip, BOB, message(&forks.to_string()));
        match bob.try_deliver(&room.server, &event).await {
            Ok(received) => assert_eq!(received, ACCEPTED),
            Err(Error::Unavailable(_)) => break event,
            Err(error) => panic!("{error}"),
        }
        bob.room.see(event.pdu.clone());
        forks += 1;
        assert!(forks <= 100);
    };
    assert_eq!(room.ends().len(), forks);
    // What follows one of them is taken, and whatever is sent here merges some.
    let next = bob.build(&[room.ends()[0].as_str().try_into().unwrap()], BOB, message("next"));
    assert_eq!(bob.deliver(&room.server, &next).await, ACCEPTED);
    room.alice.say(&room.id, "merge").await;
    let merged = room.ends().len();
    assert!(merged < forks);
    assert_eq!(bob.deliver(&room.server, &refused).await, ACCEPTED);
    while room.ends().len() > 1 {
        let before = room.ends().len();
        room.alice.say(&room.id, "merge").await;
        assert!(room.ends().len() < before);
    }
    for event in [next, refused] {
        bob.room.see(event.pdu);
    }
    let view = room.server.app().view().unwrap();
    let nid = events::room_nid(&view, &room.id).unwrap().unwrap();
    assert_eq!(timeline::gaps(&view, nid, projections::Position::START).count(), 0);
    drop(view);
    room.finish(bob).await;
}
