use serde_json::{Value, json};

use super::{ask, content, events, filtered, first, next, places, token};
use crate::common::{Client, TestServer, rooms::bodies};

fn lazily() -> Value {
    json!({ "room": { "timeline": { "limit": 1 }, "state": { "lazy_load_members": true } } })
}

/// Whose memberships a section tells.
fn members(section: &Value) -> Vec<&str> {
    let of_members = events(section).filter(|event| event["type"] == "m.room.member");
    let mut members: Vec<_> = of_members.map(|event| event["state_key"].as_str().unwrap()).collect();
    members.sort_unstable();
    members
}

#[tokio::test]
async fn state_is_told_before_or_after_the_timeline() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let room = alice.create(json!({ "name": "first" })).await;
    let before = first(&alice).await;
    for name in ["second", "third"] {
        alice.set(&room, "m.room.name", "", json!({ "name": name })).await;
        alice.set(&room, "m.room.topic", "", json!({ "topic": name })).await;
    }
    alice.say(&room, "hello").await;
    let limit = json!({ "room": { "timeline": { "limit": 2 } } }).to_string();
    let since = token(&before);
    let sync = ask(&alice, &[("since", since), ("filter", &limit)]).await.ok();
    let joined = &sync["rooms"]["join"][&room];
    // The last topic is in the timeline; before it there were the second topic and the third name.
    assert_eq!(content(&joined["timeline"], "m.room.topic")["topic"], "third");
    assert_eq!(places(&joined["state"]), ["m.room.name ", "m.room.topic "]);
    assert_eq!(content(&joined["state"], "m.room.topic")["topic"], "second");
    assert_eq!(content(&joined["state"], "m.room.name")["name"], "third");

    for name in ["use_state_after", "org.matrix.msc4222.use_state_after"] {
        let sync = ask(&alice, &[("since", since), ("filter", &limit), (name, "true")]).await.ok();
        let joined = &sync["rooms"]["join"][&room];
        let after =
            if name == "use_state_after" { &joined["state_after"] } else { &joined["org.matrix.msc4222.state_after"] };
        if name == "use_state_after" {
            assert_eq!(joined["state"], Value::Null);
            assert_eq!(places(after), ["m.room.name ", "m.room.topic "]);
            assert_eq!(content(after, "m.room.topic")["topic"], "third");
        }
    }
    // All that is new fits: nothing came before it.
    let sync = next(&alice, &before).await;
    assert_eq!(places(&sync["rooms"]["join"][&room]["state"]), Vec::<String>::new());
    // Everything again, but no more of the timeline than is new.
    let whole = ask(&alice, &[("since", token(&sync)), ("full_state", "true")]).await.ok();
    let joined = &whole["rooms"]["join"][&room];
    assert_eq!(content(&joined["state"], "m.room.topic")["topic"], "third");
    assert!(places(&joined["state"]).contains(&"m.room.create ".to_owned()));
    assert_eq!(events(&joined["timeline"]).count(), 0);
    server.finish().await;
}

#[tokio::test]
async fn state_that_the_timeline_does_not_show_is_told_all_the_same() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let secret = json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let room = alice.create(json!({ "preset": "public_chat", "name": "A name", "initial_state": secret })).await;
    alice.say(&room, "before").await;
    let before = first(&bob).await;
    bob.join(&room).await;
    alice.say(&room, "after").await;
    let sync = next(&bob, &before).await;
    let joined = &sync["rooms"]["join"][&room];
    assert_eq!(bodies(&joined["timeline"]["events"]), ["after"]);
    assert_eq!(content(&joined["timeline"], "m.room.history_visibility")["history_visibility"], "joined");
    assert_eq!(content(&joined["timeline"], "m.room.name"), &Value::Null);
    assert_eq!(content(&joined["state"], "m.room.name")["name"], "A name");

    let choosy = json!({ "room": { "timeline": { "types": ["m.room.message"] } } }).to_string();
    alice.set(&room, "m.room.name", "", json!({ "name": "Another" })).await;
    alice.say(&room, "again").await;
    let sync = ask(&bob, &[("since", token(&sync)), ("filter", &choosy)]).await.ok();
    let joined = &sync["rooms"]["join"][&room];
    assert_eq!(bodies(&joined["timeline"]["events"]), ["again"]);
    assert_eq!(content(&joined["state"], "m.room.name")["name"], "Another");
    server.finish().await;
}

#[tokio::test]
async fn members_are_told_when_they_matter() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (carol, dave) = (server.user("carol").await, server.user("dave").await);
    let room = alice.room_with(&[&bob, &carol, &dave]).await;
    alice.set(&room, "m.room.name", "", json!({ "name": "A name" })).await;
    bob.say(&room, "hello").await;
    let sync = filtered(&alice, &lazily()).await;
    let joined = &sync["rooms"]["join"][&room];
    assert_eq!(members(&joined["state"]), [alice.user.as_str(), bob.user.as_str()]);
    assert!(places(&joined["state"]).contains(&"m.room.power_levels ".to_owned()));

    // Who speaks is told with what they say; who changes meanwhile and doesn't is not.
    dave.put(&format!("/profile/{}/displayname", dave.user), json!({ "displayname": "Dave" })).await.ok();
    carol.say(&room, "one").await;
    carol.say(&room, "two").await;
    let filter = lazily().to_string();
    let sync = ask(&alice, &[("since", token(&sync)), ("filter", &filter)]).await.ok();
    let joined = &sync["rooms"]["join"][&room];
    assert_eq!(
        (bodies(&joined["timeline"]["events"]), members(&joined["state"])),
        (vec!["two"], vec![carol.user.as_str()])
    );

    // The heroes of a room without a name are told too.
    alice.set(&room, "m.room.name", "", json!({})).await;
    let sync = ask(&alice, &[("since", token(&sync)), ("filter", &filter)]).await.ok();
    let joined = &sync["rooms"]["join"][&room];
    let mut heroes: Vec<_> =
        joined["summary"]["m.heroes"].as_array().unwrap().iter().map(|u| u.as_str().unwrap()).collect();
    heroes.sort_unstable();
    assert_eq!(heroes, [bob.user.as_str(), &carol.user, &dave.user]);
    assert_eq!(members(&joined["state"]), [alice.user.as_str(), &bob.user, &carol.user, &dave.user]);
    server.finish().await;
}

#[tokio::test]
async fn summaries_name_heroes_and_count_members() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let mut others: Vec<Client> = Vec::new();
    for name in ["b", "c", "d", "e", "f", "g"] {
        others.push(server.user(name).await);
    }
    let room = alice.room_with(&others.iter().collect::<Vec<_>>()[..2]).await;
    alice.invite(&room, &others[2]).await;
    let summary = |sync: &Value| sync["rooms"]["join"][&room]["summary"].clone();
    let sync = first(&alice).await;
    let heroes = json!([others[0].user, others[1].user, others[2].user]);
    let expected = json!({ "m.heroes": heroes, "m.joined_member_count": 3, "m.invited_member_count": 1 });
    assert_eq!(summary(&sync), expected);

    // A message changes nothing of it.
    alice.say(&room, "hello").await;
    let sync = next(&alice, &sync).await;
    assert_eq!(summary(&sync), Value::Null);
    for other in &others[2..] {
        other.join(&room).await;
    }
    let sync = next(&alice, &sync).await;
    let five: Vec<_> = others[..5].iter().map(|other| other.user.as_str()).collect();
    assert_eq!(summary(&sync), json!({ "m.heroes": five, "m.joined_member_count": 7, "m.invited_member_count": 0 }));
    alice.set(&room, "m.room.name", "", json!({ "name": "A name" })).await;
    let sync = next(&alice, &sync).await;
    assert_eq!(summary(&sync), json!({ "m.joined_member_count": 7, "m.invited_member_count": 0 }));

    // Whoever is left alone sees who was there.
    alice.set(&room, "m.room.name", "", json!({ "name": "" })).await;
    for other in &others {
        other.leave(&room).await;
    }
    let sync = next(&alice, &sync).await;
    assert_eq!(summary(&sync)["m.heroes"], json!(five));
    assert_eq!(summary(&sync)["m.joined_member_count"], 1);
    server.finish().await;
}
