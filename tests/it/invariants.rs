//! The invariants of ARCHITECTURE.md, a test for each, named like it; the last one's are in `start.rs`.

use std::collections::BTreeSet;

use everfold::{
    commands::Decision,
    log::{EmbeddedLog, LogReader},
};
use futures::future::join_all;
use http::Method;
use projections::{
    Model, Position, View,
    models::{admission, events, timeline},
};
use schemas::{
    Draft, Fact, Json, Key, Lsn, Origin, Record, Tag,
    admission::Void,
    facts::{EventLearned, EventPlaced, Verdict},
};
use serde_json::{Value, json};

use crate::common::{
    Client, HeldLog, Reply, SigningKey, TestServer,
    remote::{Remote, message},
    replay, until,
};

async fn joined(client: &Client) -> usize {
    client.get("/joined_rooms").await.ok()["joined_rooms"].as_array().unwrap().len()
}

/// What was said in a room, in order.
fn said(view: &View, room: &str) -> Vec<String> {
    let room = events::room_nid(view, room).unwrap().unwrap();
    let texts = timeline::forward(view, room, Position::START).map(|row| {
        let text = events::client(view, row.unwrap().1.event).unwrap().unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["content"]["body"].as_str().map(ToOwned::to_owned)
    });
    texts.flatten().collect()
}

fn voids(view: &View, from: Lsn) -> Vec<&'static str> {
    admission::voids(view, from).map(|row| row.unwrap().1.reason()).collect()
}

#[tokio::test]
async fn append_before_effect() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    log.hold_next(1);
    let creating = tokio::spawn({
        let alice = alice.clone();
        async move { alice.post("/createRoom", json!({})).await.ok() }
    });
    log.held().await;
    // Decided, but not on the log: nothing of it is there, and nobody is told that it is.
    assert_eq!(joined(&alice).await, 0);
    assert!(!creating.is_finished());
    log.release();
    creating.await.unwrap();
    assert_eq!(joined(&alice).await, 1);
    server.finish().await;
}

#[tokio::test]
async fn a_log_that_can_not_be_written_changes_nothing_until_it_can() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let before = server.app().view().unwrap().lsn();
    log.set_full(true);
    let data = format!("/user/{}/account_data/org.example", alice.user);
    let message = |n: usize| (format!("/rooms/{room}/send/m.room.message/{n}"), json!({ "body": n.to_string() }));
    let many = (0..20).map(message).chain([
        (data.clone(), json!({ "n": 1 })),
        (format!("/rooms/{room}/state/m.room.name"), json!({ "name": "new" })),
        ("/sendToDevice/m.test/1".to_owned(), json!({ "messages": { bob.user.clone(): { "*": {} } } })),
    ]);
    let many: Vec<(String, Value)> = many.collect();
    for reply in join_all(many.iter().map(|(path, body)| alice.put(path, body.clone()))).await {
        assert_eq!(reply.error(), (503, "M_UNKNOWN"));
        assert!(reply.header("retry-after").parse::<u64>().unwrap() > 0);
    }
    assert_eq!(alice.post("/createRoom", json!({})).await.status, 503);
    assert_eq!(server.client().log_in("alice", "password of alice", json!({})).await.status, 503);
    // Reading goes on, and shows nothing of it.
    assert_eq!(alice.get(&data).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(joined(&alice).await, 1);
    assert_eq!(server.app().view().unwrap().lsn(), before);
    log.set_full(false);
    for reply in join_all(many.iter().map(|(path, body)| alice.put(path, body.clone()))).await {
        reply.ok();
    }
    let said = said(&server.app().view().unwrap(), &room);
    assert_eq!(said.len(), 20);
    assert_eq!(said.into_iter().collect::<BTreeSet<_>>(), (0..20).map(|n| n.to_string()).collect());
    server.finish().await;
}

#[tokio::test]
async fn one_decision_one_record_one_append() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let before = server.app().view().unwrap().lsn();
    let calls = log.calls().len();
    let body = json!({
        "preset": "public_chat", "name": "the room", "topic": "of one record", "room_alias_name": "one",
        "invite": [bob.user], "initial_state": [{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }],
        "visibility": "public",
    });
    alice.post("/createRoom", body).await.ok();
    assert_eq!(log.calls()[calls..], [1]);
    assert_eq!(server.app().view().unwrap().lsn(), before.next());
    let entry = log.read(before.next(), 1, usize::MAX).unwrap().remove(0);
    let facts = Record::decode(&entry.bytes).unwrap().facts;
    let names: Vec<_> = facts.iter().map(|fact| fact.decode().unwrap().name()).collect();
    assert!(names.iter().filter(|name| **name == "EventPlaced").count() >= 9, "{names:?}");
    assert!(names.contains(&"AliasSet") && names.contains(&"RoomPublished"), "{names:?}");
    server.finish().await;
}

/// What the record of a sent message says, as if it were by somebody else.
fn forged(log: &HeldLog, at: Lsn, id: &str, by: &str, verdict: Verdict) -> Vec<Fact> {
    let entry = log.read(at, 1, usize::MAX).unwrap().remove(0);
    let facts = Record::decode(&entry.bytes).unwrap().facts;
    let mut forged = Vec::new();
    for fact in facts {
        match fact.decode().unwrap() {
            Fact::EventLearned(learned) => {
                let mut skeleton: Value = serde_json::from_slice(&learned.skeleton.0).unwrap();
                skeleton["sender"] = json!(by);
                let skeleton = Json::from(skeleton.to_string());
                forged.push(EventLearned { id: id.to_owned(), skeleton, ..learned }.into());
            }
            Fact::EventPlaced(placed) => forged.push(EventPlaced { id: id.to_owned(), verdict, ..placed }.into()),
            _ => {}
        }
    }
    forged
}

#[tokio::test]
async fn facts_come_with_verdicts() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    alice.say(&room, "hello").await;
    let at = server.app().view().unwrap().lsn();
    // No rule would let a stranger in: what counts is what was decided.
    for (id, verdict) in [
        ("$accepted-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Verdict::Accepted),
        ("$soft-failed-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Verdict::SoftFailed),
        ("$rejected-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Verdict::Rejected),
    ] {
        server.record(forged(&log, at, id, "@stranger:test.example", verdict)).await;
    }
    let sync = alice.get("/sync").await.ok();
    let timeline = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().clone();
    let senders: Vec<_> =
        timeline.iter().filter(|event| event["content"]["body"] == "hello").map(|event| &event["sender"]).collect();
    assert_eq!(senders, [&json!(alice.user), &json!("@stranger:test.example")]);
    server.finish().await;
}

#[tokio::test]
async fn the_log_decides() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let rooms = [alice.create(json!({})).await, bob.create(json!({})).await];
    let before = server.app().view().unwrap().lsn();
    let path = "/directory/room/%23wanted:test.example";
    log.hold_next(1);
    let late = tokio::spawn({
        let (alice, body) = (alice.clone(), json!({ "room_id": rooms[0] }));
        async move { alice.put(path, body).await }
    });
    log.held().await;
    // Alice was first to decide; Bob is first on the log.
    bob.put(path, json!({ "room_id": rooms[1] })).await.ok();
    log.release();
    assert_eq!(late.await.unwrap().error(), (409, "M_UNKNOWN"));
    assert_eq!(bob.get(path).await.ok()["room_id"], rooms[1].as_str());
    assert_eq!(voids(&server.app().view().unwrap(), before), ["stale_read"], "her record is kept, and void");
    server.finish().await;
}

#[tokio::test]
async fn messages_behind_a_void_record_are_sent_in_their_order() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({})).await;
    for foreign in [false, true] {
        let before = server.app().view().unwrap().lsn();
        log.hold_next(1);
        let calls = log.calls().len();
        let mut sent = Vec::new();
        for n in 0..5 {
            let (alice, room) = (alice.clone(), room.clone());
            sent.push(tokio::spawn(async move { alice.say(&room, &format!("{foreign} {n}")).await }));
            if n == 0 {
                log.held().await;
            }
            // The lane has taken it.
            until(async || log.calls().len() > calls + n).await;
        }
        if foreign {
            // As another node's record would: the state of the room is another now.
            let draft = Draft { writes: vec![Key::new(Tag::RoomState, &room)], ..Draft::default() };
            let decide = move |_: &View| Ok(Decision::append_then(draft.clone(), ()));
            server.app().commands.execute(Origin::Server, decide).await.unwrap();
        }
        log.release();
        let ids = join_all(sent).await.into_iter().map(Result::unwrap).collect::<BTreeSet<_>>();
        assert_eq!(ids.len(), 5);
        let view = server.app().view().unwrap();
        let expected: Vec<String> = (0..5).map(|n| format!("{foreign} {n}")).collect();
        assert!(said(&view, &room).ends_with(&expected), "{:?}", said(&view, &room));
        let lost = voids(&view, before.next());
        assert_eq!(lost.iter().filter(|why| **why == Void::LostPredecessor.reason()).count(), 4, "{lost:?}");
        assert_eq!(lost.contains(&"stale_read"), foreign, "{lost:?}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_your_writes() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    // Each through a connection of its own.
    let elsewhere = || server.client().with_token(alice.token());
    let room = alice.create(json!({})).await;
    for n in 0..20 {
        let data = format!("/user/{}/account_data/org.example", alice.user);
        alice.put(&data, json!({ "n": n })).await.ok();
        assert_eq!(elsewhere().get(&data).await.ok()["n"], n);
        let name = json!({ "displayname": format!("Alice {n}") });
        alice.put(&format!("/profile/{}/displayname", alice.user), name.clone()).await.ok();
        assert_eq!(elsewhere().get(&format!("/profile/{}/displayname", alice.user)).await.ok(), name);
        let event = alice.say(&room, &n.to_string()).await;
        let sync = elsewhere().get("/sync").await.ok();
        let timeline = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap().clone();
        assert!(timeline.iter().any(|shown| shown["event_id"] == event.as_str()), "{n} is not there");
    }
    server.finish().await;
}

#[tokio::test]
async fn pure_fold() {
    const EVE: &str = "@eve:e.example";
    let (server, clock) = TestServer::with_clock(&[]).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut eve = Remote::joined(&server, &room, EVE).await;
    for n in 0..4_u64 {
        // Pauses, forks, void records, and what merges.
        clock.advance(std::time::Duration::from_secs(n * 1_000));
        alice.say(&room, &n.to_string()).await;
        let said = eve.send(EVE, message("unseen"));
        eve.deliver(&server, &said).await;
        let set = |who: &Client| {
            let (who, path) = (who.clone(), format!("/user/{}/account_data/org.example", who.user));
            async move { who.put(&path, json!({ "n": n })).await.ok() }
        };
        futures::join!(set(&alice), set(&alice), set(&bob), set(&bob));
    }
    let again = server.app().reader.read(Lsn(3), 1, usize::MAX).unwrap().remove(0);
    let receipt = server.app().commands.parts().log.append(vec![again.bytes.to_vec().into()]).remove(0);
    receipt.await.unwrap().unwrap();
    alice.say(&room, "the end").await;
    let server = server.restart_after(|config| {
        let log = EmbeddedLog::open_read_only(&config.log_folder()).unwrap();
        let live = replay::digest_of(&config.read_models_folder());
        for most in [1, 2, 5, usize::MAX] {
            assert_eq!(replay::fold_from_zero(&log, &mut |_| most), live, "in batches of {most}");
        }
        let folder = tempfile::TempDir::new().unwrap();
        for until in 1..=log.tail().0 {
            // Opened and closed for each record.
            replay::fold(folder.path(), &log, Lsn(until), &mut |_| 1);
        }
        assert_eq!(replay::digest_of(folder.path()), live, "with a restart after each record");
    });
    server.await.unwrap().finish().await;
}

/// What is asked of a server whose read models change in the midst of the answer.
fn questions(
    alice: &Client,
    bob: &Client,
    room: &str,
    event: &str,
    [since, until]: [&str; 2],
) -> Vec<(Method, String, Value)> {
    let (me, he, at) = (&alice.user, &bob.user, format!("/rooms/{room}"));
    let unbound = format!("/_matrix/client/v1{at}");
    let get = [
        "/sync".to_owned(),
        format!("/sync?timeout=0&since={since}"),
        format!("/sync?timeout=0&full_state=true&since={since}"),
        "/joined_rooms".into(),
        format!("{at}/state"),
        format!("{at}/state/m.room.name"),
        format!("{at}/members"),
        format!("{at}/joined_members"),
        format!("{at}/messages?dir=b&limit=50"),
        format!("{at}/context/{event}?limit=50"),
        format!("{at}/event/{event}"),
        format!("{at}/aliases"),
        format!("{unbound}/relations/{event}"),
        format!("{unbound}/threads"),
        format!("/_matrix/client/v1/room_summary/{room}"),
        format!("/directory/list/room/{room}"),
        "/directory/room/%23new:test.example".into(),
        "/publicRooms".into(),
        format!("/profile/{he}"),
        "/devices".into(),
        format!("/user/{me}/account_data/org.example"),
        format!("/user/{me}{at}/account_data/org.example"),
        format!("/user/{me}{at}/tags"),
        "/pushrules/".into(),
        format!("/keys/changes?from={since}&to={until}"),
        "/_synapse/admin/v2/users".into(),
    ];
    let get = get.map(|path| (Method::GET, path, json!({})));
    let post = [
        ("/publicRooms", json!({ "filter": { "generic_search_term": "new" } })),
        ("/keys/query", json!({ "device_keys": { he.clone(): [] } })),
        ("/user_directory/search", json!({ "search_term": "bob" })),
    ];
    get.into_iter().chain(post.map(|(path, body)| (Method::POST, path.to_owned(), body))).collect()
}

/// Changes whatever they show.
async fn change(server: &TestServer, alice: &Client, bob: &Client, room: &str, event: &str) {
    bob.join(room).await;
    alice.set(room, "m.room.name", "", json!({ "name": "new" })).await;
    alice.set(room, "m.room.topic", "", json!({ "topic": "new" })).await;
    alice.put("/directory/room/%23new:test.example", json!({ "room_id": room })).await.ok();
    alice.put(&format!("/directory/list/room/{room}"), json!({ "visibility": "public" })).await.ok();
    for relation in
        [json!({ "rel_type": "m.thread", "event_id": event }), json!({ "rel_type": "m.replace", "event_id": event })]
    {
        let new = json!({ "msgtype": "m.text", "body": "new" });
        let content = json!({ "msgtype": "m.text", "body": "* new", "m.new_content": new, "m.relates_to": relation });
        alice.send(room, "m.room.message", content).await;
    }
    let read = format!("/rooms/{room}/receipt/m.read/{event}");
    bob.post(&read, json!({})).await.ok();
    bob.say(room, &format!("new for {}", alice.user)).await;
    bob.put(&format!("/profile/{}/displayname", bob.user), json!({ "displayname": "new bob" })).await.ok();
    bob.post("/keys/upload", json!({ "device_keys": SigningKey::of_device(&bob.device).device_keys(bob) })).await.ok();
    let master = SigningKey::of_user().cross_signing_key(&bob.user, "master");
    bob.post("/keys/device_signing/upload", json!({ "master_key": master })).await.ok();
    alice.put(&format!("/devices/{}", alice.device), json!({ "display_name": "new" })).await.ok();
    let own = format!("/user/{}", alice.user);
    alice.put(&format!("{own}/account_data/org.example"), json!({ "n": "new" })).await.ok();
    alice.put(&format!("{own}/rooms/{room}/account_data/org.example"), json!({ "n": "new" })).await.ok();
    alice.put(&format!("{own}/rooms/{room}/tags/u.new"), json!({ "order": 0.5 })).await.ok();
    alice.put("/pushrules/global/content/new", json!({ "pattern": "new", "actions": ["notify"] })).await.ok();
    alice.create(json!({ "name": "another", "preset": "public_chat", "visibility": "public" })).await;
    server.user("carol").await;
}

/// Whenever the read models change while a response is made, it is the one of before or the one of after.
#[tokio::test]
async fn one_response_one_view() {
    let (server, views) = TestServer::with_views().await;
    let (alice, bob) = (server.admin("alice").await, server.user("bob").await);
    let room = alice.create(json!({ "preset": "public_chat", "name": "old" })).await;
    let event = alice.say(&room, "old").await;
    let token = async || alice.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let (since, before) = (token().await, server.app().view().unwrap());
    change(&server, &alice, &bob, &room, &event).await;
    let (until, after) = (token().await, server.app().view().unwrap());
    for (method, path, body) in questions(&alice, &bob, &room, &event, [&since, &until]) {
        let ask = async |looks: usize| {
            views.choose(&before, looks, &after);
            let request = alice.request(method.clone(), &path);
            let reply = Reply::of(if method == Method::GET { request } else { request.json(&body) }).await;
            assert!(!reply.status.is_server_error(), "{path}: {}", reply.text);
            ((reply.status, reply.json), views.end())
        };
        let ((old, looks), (new, _)) = (ask(usize::MAX).await, ask(0).await);
        assert_ne!(old, new, "{method} {path} shows nothing of what has changed");
        for shift in 1..looks {
            let (shown, _) = ask(shift).await;
            assert!(shown == old || shown == new, "{method} {path} shows two views: {shown:#?}\n{old:#?}\n{new:#?}");
        }
    }
    drop((before, after));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_shown_whole_while_tables_are_swapped() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let create = async {
        for n in 0..30 {
            alice.create(json!({ "name": format!("room {n}"), "topic": "whole" })).await;
        }
    };
    let look = async {
        loop {
            let sync = alice.get("/sync").await.ok();
            let rooms = sync["rooms"]["join"].as_object().cloned().unwrap_or_default();
            for (id, room) in &rooms {
                let shown =
                    ["state", "timeline"].map(|part| room[part]["events"].as_array().cloned().unwrap_or_default());
                let kinds: BTreeSet<_> =
                    shown.iter().flatten().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
                for kind in ["m.room.create", "m.room.member", "m.room.name", "m.room.topic"] {
                    assert!(kinds.contains(kind), "{id} is there without {kind}: {kinds:?}");
                }
            }
            if rooms.len() == 30 {
                return;
            }
        }
    };
    futures::join!(create, look, async {
        // Views stay whole while tables are swapped.
        let models = vec![Model::State, Model::Timeline, Model::Membership];
        server.rebuild(models).await.unwrap();
    });
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_ups_carry_a_position() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let start = bob.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let talk = async {
        for n in 0..100 {
            alice.say(&room, &n.to_string()).await;
        }
    };
    // However wake-ups and views fall together, what comes is all there is, once and in order.
    let listen = async {
        let (mut since, mut heard) = (start, Vec::new());
        while heard.len() < 100 {
            let sync = bob.get(&format!("/sync?timeout=30000&since={since}")).await.ok();
            let timeline = &sync["rooms"]["join"][&room]["timeline"];
            assert_ne!(timeline["limited"], true);
            let events = timeline["events"].as_array().cloned().unwrap_or_default();
            heard.extend(events.iter().filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned)));
            since = sync["next_batch"].as_str().unwrap().to_owned();
        }
        heard
    };
    let ((), heard) = futures::join!(talk, listen);
    assert_eq!(heard, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    server.finish().await;
}
