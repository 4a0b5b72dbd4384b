use serde_json::{Value, json};

use crate::common::{
    Client, TestServer,
    rooms::{ids, text},
};

fn relates(rel_type: &str, event: &str) -> Value {
    json!({ "rel_type": rel_type, "event_id": event })
}

async fn reply(who: &Client, room: &str, root: &str, body: &str) -> String {
    let content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relates("m.thread", root) });
    who.send(room, "m.room.message", content).await
}

async fn edit(who: &Client, room: &str, event: &str, body: &str) -> String {
    let new = json!({ "msgtype": "m.text", "body": body });
    let content =
        json!({ "msgtype": "m.text", "body": "*", "m.new_content": new, "m.relates_to": relates("m.replace", event) });
    who.send(room, "m.room.message", content).await
}

fn reaction(event: &str, key: &str) -> Value {
    json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": key } })
}

async fn bundle(who: &Client, room: &str, event: &str) -> Value {
    who.get(&format!("/rooms/{room}/event/{event}")).await.ok()["unsigned"]["m.relations"].clone()
}

#[tokio::test]
async fn edits_threads_and_references_are_bundled() {
    let server = TestServer::start().await;
    let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
    let room = alice.room_with(&[&bob, &eve]).await;
    let root = alice.say(&room, "root").await;
    assert_eq!(bundle(&bob, &room, &root).await, Value::Null);

    edit(&alice, &room, &root, "second").await;
    let third = edit(&alice, &room, &root, "third").await;
    edit(&bob, &room, &root, "not his").await;
    let replace = bundle(&bob, &room, &root).await["m.replace"].clone();
    assert_eq!((&replace["event_id"], &replace["content"]["m.new_content"]["body"]), (&json!(third), &"third".into()));
    assert_eq!((&replace["room_id"], replace["unsigned"].get("m.relations")), (&json!(room), None));
    alice.redact(&room, &third).await;
    let replace = bundle(&bob, &room, &root).await["m.replace"].clone();
    assert_eq!(replace["content"]["m.new_content"]["body"], "second");

    reply(&bob, &room, &root, "one").await;
    let last = reply(&eve, &room, &root, "two").await;
    edit(&eve, &room, &last, "two, edited").await;
    let thread = bundle(&bob, &room, &root).await["m.thread"].clone();
    assert_eq!((&thread["count"], &thread["current_user_participated"]), (&2.into(), &true.into()));
    assert_eq!(thread["latest_event"]["event_id"], json!(last));
    let nested = &thread["latest_event"]["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(nested["content"]["m.new_content"]["body"], "two, edited");
    assert_eq!(bundle(&alice, &room, &root).await["m.thread"]["current_user_participated"], true);
    let passer = server.user("passer").await;
    passer.join(&room).await;
    assert_eq!(bundle(&passer, &room, &root).await["m.thread"]["current_user_participated"], false);
    // Whoever is ignored takes no part.
    let list = json!({ "ignored_users": { (eve.user.clone()): {} } });
    bob.put(&format!("/user/{}/account_data/m.ignored_user_list", bob.user), list).await.ok();
    let thread = bundle(&bob, &room, &root).await["m.thread"].clone();
    assert_eq!((&thread["count"], &thread["latest_event"]["content"]["body"]), (&1.into(), &"one".into()));

    let reference = bob.send(&room, "org.example.note", json!({ "m.relates_to": relates("m.reference", &root) })).await;
    assert_eq!(bundle(&alice, &room, &root).await["m.reference"]["chunk"], json!([{ "event_id": reference }]));
    let listed = alice.page(&room, "dir=b&limit=100").await["chunk"].clone();
    let listed = listed.as_array().unwrap().iter().find(|event| event["event_id"] == json!(root)).unwrap();
    assert_eq!(listed["unsigned"]["m.relations"], bundle_without_age(&alice, &room, &root, listed).await);
    let sync = alice.get("/sync?filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A50%7D%7D%7D").await.ok();
    let events = sync["rooms"]["join"][&room]["timeline"]["events"].as_array().unwrap();
    let synced = events.iter().find(|event| event["event_id"] == json!(root)).unwrap();
    assert_eq!(synced["unsigned"]["m.relations"]["m.thread"]["count"], 2);
    assert_eq!(synced["unsigned"]["m.relations"]["m.thread"]["latest_event"].get("room_id"), None);
    server.finish().await;
}

/// The bundle of an event, with the ages that another answer has: time has passed between the two.
async fn bundle_without_age(who: &Client, room: &str, event: &str, other: &Value) -> Value {
    let mut found = bundle(who, room, event).await;
    let other = &other["unsigned"]["m.relations"];
    let edit = "/m.thread/latest_event/unsigned/m.relations/m.replace/unsigned/age";
    for path in ["/m.replace/unsigned/age", "/m.thread/latest_event/unsigned/age", edit] {
        *found.pointer_mut(path).unwrap() = other.pointer(path).unwrap().clone();
    }
    found
}

#[tokio::test]
async fn relations_are_listed_by_kind_in_pages() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let root = alice.say(&room, "root").await;
    let mut all = Vec::new();
    for n in 0..3 {
        all.push(reply(&bob, &room, &root, &n.to_string()).await);
        all.push(alice.send(&room, "m.reaction", reaction(&root, &n.to_string())).await);
    }
    let indirect = bob.send(&room, "m.reaction", reaction(&all[0], "+")).await;
    let twice = alice.try_send(&room, "m.reaction", reaction(&root, "0")).await;
    assert_eq!(twice.error(), (400, "M_DUPLICATE_ANNOTATION"));
    let base = format!("/_matrix/client/v1/rooms/{room}/relations/{root}");
    let get = |path: String| {
        let bob = bob.clone();
        async move { bob.get(&path).await.ok() }
    };
    let reversed: Vec<_> = all.iter().rev().cloned().collect();
    let found = get(base.clone()).await;
    assert_eq!(ids(&found["chunk"]), reversed);
    assert_eq!((found.get("next_batch"), found.get("prev_batch"), found.get("recursion_depth")), (None, None, None));
    assert_eq!(ids(&get(format!("{base}?dir=f")).await["chunk"]), all);
    assert_eq!(
        ids(&get(format!("/_matrix/client/v1/rooms/{room}/relations/{root}/m.thread")).await["chunk"]),
        [&all[4], &all[2], &all[0]]
    );
    assert_eq!(
        ids(
            &get(format!("/_matrix/client/v1/rooms/{room}/relations/{root}/m.annotation/m.reaction?limit=2")).await["chunk"]
        ),
        [&all[5], &all[3]]
    );
    assert_eq!(get(format!("{base}/m.annotation/m.room.message")).await["chunk"], json!([]));
    let deep = get(format!("{base}?recurse=true")).await;
    assert_eq!((ids(&deep["chunk"])[0], &deep["recursion_depth"]), (indirect.as_str(), &3.into()));
    assert_eq!(ids(&deep["chunk"]).len(), 7);
    for query in ["", "&recurse=true"] {
        for direction in ["b", "f"] {
            let (mut paged, mut from) = (Vec::new(), String::new());
            loop {
                let page = get(format!("{base}?dir={direction}&limit=2{query}{from}")).await;
                assert_eq!(page.get("prev_batch").is_some(), !from.is_empty());
                paged.extend(ids(&page["chunk"]).into_iter().map(str::to_owned));
                let Some(next) = page.get("next_batch") else { break };
                from = format!("&from={}", text(next));
            }
            let mut expected = all.clone();
            expected.extend((!query.is_empty()).then(|| indirect.clone()));
            if direction == "b" {
                expected.reverse();
            }
            assert_eq!(paged, expected, "{direction}{query}");
        }
    }
    let stranger = server.user("stranger").await;
    assert_eq!(stranger.get(&base).await.error(), (404, "M_NOT_FOUND"));
    let none = format!("/_matrix/client/v1/rooms/{room}/relations/$none");
    assert_eq!(bob.get(&none).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(bob.get(&format!("{base}?from=x")).await.error().0, 400);
    server.finish().await;
}

#[tokio::test]
async fn threads_are_listed_by_their_latest_event() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut roots = Vec::new();
    for n in 0..4 {
        roots.push(alice.say(&room, &n.to_string()).await);
    }
    for root in &roots {
        reply(&alice, &room, root, "first").await;
    }
    reply(&bob, &room, &roots[1], "again").await;
    let threads = |query: &str| {
        let (bob, path) = (bob.clone(), format!("/_matrix/client/v1/rooms/{room}/threads{query}"));
        async move { bob.get(&path).await.ok() }
    };
    let page = threads("").await;
    let expected = [&roots[1], &roots[3], &roots[2], &roots[0]];
    assert_eq!((ids(&page["chunk"]), page.get("next_batch")), (expected.map(String::as_str).to_vec(), None));
    assert_eq!(page["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"], 2);
    assert_eq!(ids(&threads("?include=participated").await["chunk"]), [&roots[1]]);
    let first = threads("?limit=3").await;
    assert_eq!(ids(&first["chunk"]), expected[..3].iter().map(|id| id.as_str()).collect::<Vec<_>>());
    let rest = threads(&format!("?limit=3&from={}", text(&first["next_batch"]))).await;
    assert_eq!((ids(&rest["chunk"]), rest.get("next_batch")), (vec![roots[0].as_str()], None));
    let stranger = server.user("stranger").await;
    let path = format!("/_matrix/client/v1/rooms/{room}/threads");
    assert_eq!(stranger.get(&path).await.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}
